/** How each tree votes, and the path that one of them takes. */
import { bar, ends, fill, h, newest, percent, short, svg, valueText } from "./dom.js";
import { classDot, css, numberColour } from "./colour.js";

const SHOWN = 100;

function chosenTrees(trees) {
	const count = Math.min(SHOWN, trees);
	return Array.from({ length: count }, (_, k) => Math.floor(k * trees / count));
}

function stripOf(numbers, low, high) {
	const heights = new Map(), place = n => 2 + 96 * (n - low) / (high - low || 1);
	const dots = numbers.map(n => {
		const column = Math.round(place(n) / 1.6), level = heights.get(column) ?? 0;
		heights.set(column, level + 1);
		return svg("circle", { cx: column * 1.6, cy: level, r: 0.7, look: { fill: css(numberColour((n - low) / (high - low || 1))) } });
	});
	const rise = Math.min(1.6, 18 / Math.max(...heights.values()));
	dots.forEach(dot => dot.setAttribute("cy", 19 - Number(dot.getAttribute("cy")) * rise));
	return [svg("svg", { viewBox: "0 0 100 20" }, dots), h("div.ends", ends(low, high).map(end => h("span", end)))];
}

/** A `cut` in few digits that has `value` on its side. */
function cutText(cut, value, left) {
	const right = [6, 8, 10, 12].map(digits => Number(cut.toPrecision(digits))).find(n => (value <= n) === left);
	return typeof value !== "number" ? short(cut, 6) : String(right ?? cut);
}

function stepNode(page, row, step, most) {
	const feature = page.features.find(f => f.name === step.feature), i = page.features.indexOf(feature);
	const value = step.missing ? "unknown" : valueText(feature, row[i]);
	const listed = step.values && (step.values.length > 4 ? [...step.values.slice(0, 4), `${step.values.length - 4} more`] : step.values);
	const test = feature.kind === "boolean" ? ["is ", valueText(feature, false)] : step.values ? ["is ", listed.join(" or ")] : ["≤ ", cutText(step.cut, row[i], step.left)];
	return h("li", h("span.test", h("b", h("bdi", step.feature)), " ", test, "? "),
		h("span", { class: step.left ? "yes" : "no" }, step.left ? "yes" : "no"), h("span.soft", " (", h("bdi", value), ")"),
		step.rows !== null && h("span.rows", bar(step.rows / most), `${step.rows} rows`));
}

function leafNode(page, leaf, most) {
	const rows = leaf.rows === null || leaf.rows === undefined ? null : h("span.rows", bar(leaf.rows / most), `${leaf.rows} training ${leaf.rows === 1 ? "row" : "rows"} here`);
	if (leaf.probabilities) {
		const sure = page.labels.map((label, i) => ({ label, i, p: leaf.probabilities[label] ?? 0 })).filter(c => c.p > 0);
		return h("li.leaf", sure.map(c => h("span.key", classDot(c.i), h("bdi", c.label), ` ${percent(c.p)}`)), rows);
	}
	return h("li.leaf", h("strong", short(leaf.number, 6)), page.unit && ` ${page.unit}`, rows);
}

/** Build the votes into `node`; returns `refresh()`, to be called when the row has changed. */
export function buildVotes(node, model, state, strip) {
	const { page } = model, trees = chosenTrees(page.trees ?? 0);
	const summary = h("p.lead"), dots = h("div.dots", { role: "radiogroup", "aria-label": "Trees" }), path = h("div.path", { "aria-live": "polite" });
	fill(node, summary, dots, path);
	const buttons = new Map(trees.map(tree => [tree, h("button.vote", { role: "radio", onclick: () => state.set({ tree }) }, h("i", { "aria-hidden": true }))]));

	dots.addEventListener("keydown", event => {
		const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key], all = [...dots.children];
		if (!move && event.key !== "Home" && event.key !== "End") return;
		event.preventDefault();
		const at = all.indexOf(document.activeElement), next = move ? all[(at + move + all.length) % all.length] : all.at(event.key === "Home" ? 0 : -1);
		next.click();
		next.focus();
	});

	function paint(tree, values, low, high) {
		const button = buttons.get(tree), mark = button.firstChild, value = values[tree], classes = page.task === "classes";
		mark.className = classes ? `dot shape${value % 4}` : "dot";
		mark.style.background = classes ? `var(--class${value})` : css(numberColour((value - low) / (high - low || 1)));
		button.title = button.ariaLabel = `Tree ${tree + 1}: ${classes ? page.labels[value] : short(value, 6)}`;
	}

	function mark() {
		const focus = buttons.has(state.tree) ? state.tree : Number(dots.firstChild?.dataset.tree);
		buttons.forEach((button, tree) => {
			button.setAttribute("aria-checked", String(tree === state.tree));
			button.tabIndex = tree === focus ? 0 : -1;
		});
	}

	function showVotes(found) {
		const values = found.votes ?? found.numbers, shown = trees.map(t => values[t]), low = Math.min(...shown), high = Math.max(...shown);
		const order = [...trees].sort((a, b) => values[a] - values[b] || a - b), had = document.activeElement;
		trees.forEach(tree => paint(tree, values, low, high));
		order.forEach((tree, k) => { const dot = buttons.get(tree); dot.dataset.tree = tree; if (dots.children[k] !== dot) dots.insertBefore(dot, dots.children[k] ?? null); });
		if (had !== document.activeElement && dots.contains(had)) had.focus({ preventScroll: true });
		if (page.task === "number") {
			fill(strip, stripOf(shown, low, high));
			fill(summary, `${found.trees} trees answer from ${ends(low, high).join(" to ")}; their mean is the answer.`);
		} else {
			const counts = page.labels.map((label, i) => ({ label, i, n: values.filter(v => v === i).length })).filter(c => c.n).sort((a, b) => b.n - a.n);
			fill(summary, `${found.trees} ${found.trees === 1 ? "tree says" : "trees say"} `, counts.slice(0, 5).map(c => h("span.key", classDot(c.i), h("bdi", c.label), h("b", `×\u2009${c.n}`))), counts.length > 5 ? ` and ${counts.length - 5} more classes` : "",
				found.trees > SHOWN ? ` ${SHOWN} of them are shown.` : "");
		}
		mark();
	}

	function showPath(found, row) {
		if (!found.path) return fill(path, h("p.soft", "Choose a dot to see the path that this row takes through its tree."));
		const { tree, steps, leaf } = found.path, most = Math.max(1, steps[0]?.rows ?? leaf.rows ?? 1);
		fill(path, h("h3", `Tree ${tree + 1}`), h("ol.steps", steps.map(step => stepNode(page, row, step, most)), leafNode(page, leaf, most)));
	}

	const refresh = newest(200, async () => {
		const { row } = state, tree = state.tree !== null && state.tree < page.trees ? state.tree : null;
		const found = await model.paths(row, tree).catch(error => { fill(summary, error.message); fill(path); });
		if (!found) return;
		showVotes(found);
		showPath(found, row);
	}, 3);
	state.listen(changes => {
		if ("tree" in changes) { mark(); refresh(); }
	});
	return refresh;
}
