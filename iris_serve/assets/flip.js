/** The flip point: the smallest change of one feature that changes the answer. */
import { fill, h, percent, short, valueText } from "./dom.js";
import { classDot } from "./colour.js";
import { isWhole, scaleOf } from "./state.js";

const GRID = 96, ROUND_ROWS = 1500, MOST_ROWS_ASKED = 60_000;

/** The shortest decimal in (`low`, `high`]: near `high` when going `down`, else near `low`. */
export function shortestBetween(low, high, down) {
	const start = down ? high : low;
	for (let digits = 1; digits <= 17; digits++) {
		const unit = 10 ** ((start === 0 ? Math.floor(Math.log10(Math.abs(high - low) || 1)) : Math.floor(Math.log10(Math.abs(start)))) - digits + 1);
		for (const steps of down ? [Math.floor(start / unit), Math.floor(start / unit) - 1] : [Math.ceil(start / unit), Math.ceil(start / unit) + 1]) {
			const value = Number((steps * unit).toPrecision(digits + 1));
			if (value > low && value <= high) return value;
		}
	}
	return high;
}

/** Values just beyond each cut of a feature, nearest first: of each interval between cuts one. */
export function beyondCuts(cuts, feature, value, whole = false) {
	const range = feature.high - feature.low || 1, slack = Math.max(range / 100, whole ? 1 : 0), found = [];
	cuts.forEach((cut, k) => {
		const next = cuts[k + 1] ?? cut + range, before = cuts[k - 1] ?? cut - range;
		if (value === null || cut >= value) found.push({ cut, value: shortestBetween(cut, Math.min(next, cut + slack), false) });
		if (value === null || cut < value) found.push({ cut, value: shortestBetween(Math.max(before, cut - slack), cut, true) });
	});
	const far = c => value === null ? 0 : Math.abs(c.cut - value);
	return found.sort((a, b) => far(a) - far(b));
}

function onGrid(page, i, value) {
	const values = new Set(Array.from({ length: GRID }, (_, k) => scaleOf(page, i).from(k / (GRID - 1))));
	values.delete(value);
	return [...values].map(x => ({ cut: null, value: x }))
		.sort((a, b) => Math.abs(a.value - value) - Math.abs(b.value - value));
}

function candidates(page, row, cuts, i) {
	const feature = page.features[i];
	if (feature.kind === "boolean") return [false, true].filter(v => v !== row[i]).map(value => ({ cut: null, value }));
	if (feature.kind === "category") return feature.values.filter(v => v !== row[i]).map(value => ({ cut: null, value }));
	return cuts ? beyondCuts(cuts[i], feature, row[i], isWhole(page, i)) : onGrid(page, i, row[i]);
}

/**
 * For each feature the nearest value that changes the answer, or null where none does; `current()`
 * says whether the result is still wanted. Each round asks one batch, of the nearest values first.
 */
export async function findFlips(model, row, current = () => true) {
	const { page } = model, cuts = await model.cuts(), what = page.task === "number" ? "numbers" : "labels";
	const open = page.features.map((feature, i) => ({ i, list: candidates(page, row, cuts, i), at: 0 }));
	const found = page.features.map(() => null), base = await model.answers([row]), was = base[what][0];
	let asked = 0;
	while (current() && asked < MOST_ROWS_ASKED) {
		const going = open.filter(o => !found[o.i] && o.at < o.list.length);
		if (!going.length) break;
		const step = Math.max(4, Math.floor(ROUND_ROWS / going.length)), tried = [];
		for (const o of going) {
			for (const candidate of o.list.slice(o.at, o.at + step)) tried.push({ i: o.i, ...candidate });
			o.at += step;
		}
		const answers = await model.answers(tried.map(t => row.map((v, i) => i === t.i ? t.value : v)));
		asked += tried.length;
		tried.forEach((t, k) => {
			if (found[t.i] || answers[what][k] === was) return;
			found[t.i] = { ...t, from: row[t.i], answer: answers[what][k], probabilities: answers.probabilities?.[k] ?? null };
		});
	}
	const complete = open.every(o => found[o.i] || o.at >= o.list.length);
	return { flips: found, was, exact: cuts !== null, complete };
}

/** How far a change goes, as a share of the feature's range; names count as the whole of it. */
function reach01(feature, flip) {
	if (feature.kind !== "number" || flip.from === null) return 1;
	return Math.abs((flip.cut ?? flip.value) - flip.from) / (feature.high - feature.low || 1);
}

export function buildFlip(node, page, state) {
	const first = h("p.lead", { id: "flip-first" }), list = h("ol.flips"), none = h("p.soft");
	const names = indices => indices.flatMap((i, k) => [k ? ", " : "", h("bdi", page.features[i].name)]);
	const outcome = (result, flip) => page.task === "classes"
		? [classDot(flip.answer), h("bdi", page.labels[flip.answer] ?? "?"), flip.probabilities ? ` ${percent(flip.probabilities[flip.answer])}` : ""]
		: [`${flip.answer > result.was ? "+" : "−"}${short(Math.abs(flip.answer - result.was), 3)}`, page.unit ? ` ${page.unit}` : "", ` → ${short(flip.answer, 4, Math.abs(flip.answer - result.was))}`];
	const change = flip => {
		const feature = page.features[flip.i];
		return [h("bdi.what", feature.name), " ", h("span.move", h("bdi", valueText(feature, flip.from)), " → ", h("strong", h("bdi", valueText(feature, flip.value)))), feature.unit ? ` ${feature.unit}` : ""];
	};
	return function show(result) {
		if (result.problem) return fill(node, result.problem);
		fill(node, first, list, none);
		const found = result.flips.filter(Boolean).sort((a, b) => reach01(page.features[a.i], a) - reach01(page.features[b.i], b));
		const missing = result.flips.map((flip, i) => flip ? null : i).filter(i => i !== null);
		if (!found.length) fill(first, result.exact ? "No" : "None of those tried, no", " other value of a single feature changes this answer.");
		else fill(first, result.exact ? "The" : "About the", page.task === "classes" ? " smallest change that changes the answer: " : " nearest change that moves the number: ", change(found[0]), ".");
		fill(list, found.slice(0, 12).map(flip => h("li",
			h("button", { class: "try", onclick: () => state.put(flip.i, flip.value) }, h("span", change(flip)), h("span.then", outcome(result, flip))))));
		const how = result.exact ? "Exact: each value is the shortest decimal just beyond a cut of the forest." : "Approximate: searched on a grid of values, because this model is not a frozen forest.";
		const rest = found.length && missing.length ? [result.exact ? "No value of " : "No value tried of ", missing.length < 30 ? names(missing) : `${missing.length} other features`, " alone does. "] : [];
		fill(none, result.complete ? rest : "The search was cut short; farther values may do as well. ", how);
	};
}
