/** The decision map: any two features, all others held, and the current row as a mark. */
import { afterwards, announce, compact, ends, fill, h, newest, percent, short, valueText } from "./dom.js";
import { classColour, classDot, css, ground, mix, numberColour, rgb, traceShape } from "./colour.js";
import { scaleOf, stepped } from "./state.js";

const ACROSS = 48, UP = 36, FLIGHT = 700;

/** One side of the map: `values` of its cells, and places (0 to 1) of values along it. */
export function axisOf(page, i, cells) {
	const feature = page.features[i], scale = feature.kind === "number" && scaleOf(page, i);
	if (scale) return {
		i, feature, values: Array.from({ length: cells }, (_, k) => scale.fine((k + 0.5) / cells)),
		place: value => value === null ? null : scale.to(value),
		value: scale.from,
		ticks: scale.power === 1 ? niceTicks(feature.low, feature.high) : [0, 0.2, 0.4, 0.6, 0.8, 1].map(scale.fine)
			.map(value => Number(value.toPrecision(2))).filter(value => value >= feature.low && value <= feature.high).map(value => ({ at: scale.to(value), text: compact(value) })),
	};
	const values = feature.kind === "boolean" ? [false, true] : feature.values, n = values.length;
	return {
		i, feature, values,
		place: value => values.includes(value) ? (values.indexOf(value) + 0.5) / n : null,
		value: at => values[Math.max(0, Math.min(n - 1, Math.floor(at * n)))],
		ticks: values.map((value, k) => ({ at: (k + 0.5) / n, text: valueText(feature, value) })),
	};
}

function niceTicks(low, high) {
	const rough = (high - low || 1) / 5, unit = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].map(k => k * unit).find(s => s >= rough);
	const ticks = [];
	for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step)
		ticks.push({ at: (value - low) / (high - low || 1), text: compact(Number(value.toPrecision(6))) });
	return ticks;
}

/** The cells of the map of `pair` around `row`, from the bottom left, row by row. */
export function gridOf(page, pair, row) {
	const x = axisOf(page, pair[0], ACROSS), y = axisOf(page, pair[1], UP);
	const rows = y.values.flatMap(up => x.values.map(across => row.map((v, i) => i === x.i ? across : i === y.i ? up : v)));
	return { x, y, rows };
}

/** The colour of each cell of `answers`; a class is the paler the less sure the model is of it. */
export function cellColours(page, answers) {
	if (answers.numbers) {
		const [low, high] = extent(answers.numbers);
		return answers.numbers.map(n => numberColour((n - low) / (high - low || 1)));
	}
	const base = ground(), k = page.classes.length, colours = page.classes.map((_, i) => rgb(classColour(i)));
	return answers.labels.map((label, i) => {
		const p = answers.probabilities?.[i][label] ?? 0.85, sure = k > 1 ? (p - 1 / k) / (1 - 1 / k) : 1;
		return mix(base, colours[label], 0.14 + 0.56 * Math.max(0, sure));
	});
}

export function extent(numbers) {
	return numbers.reduce(([low, high], n) => [Math.min(low, n), Math.max(high, n)], [Infinity, -Infinity]);
}

export function paintCells(context, colours, across, box) {
	const up = colours.length / across, image = new ImageData(across, up);
	colours.forEach((colour, k) => {
		const at = 4 * ((up - 1 - Math.floor(k / across)) * across + k % across);
		image.data.set([...colour, 255], at);
	});
	const small = h("canvas", { width: across, height: up });
	small.getContext("2d").putImageData(image, 0, 0);
	context.imageSmoothingEnabled = false;
	context.drawImage(small, box.left, box.top, box.width, box.height);
}

/** A canvas as sharp as the screen. */
export function prepareCanvas(canvas) {
	const width = canvas.clientWidth, height = canvas.clientHeight, dense = window.devicePixelRatio || 1;
	canvas.width = Math.round(width * dense);
	canvas.height = Math.round(height * dense);
	const context = canvas.getContext("2d");
	context.setTransform(dense, 0, 0, dense, 0, 0);
	return { context, width, height };
}

export function boxOf(width, height, y) {
	const left = y.feature.kind === "category" ? Math.min(130, width / 4) : width < 420 ? 46 : 64;
	return { left, top: 10, width: width - left - 12, height: height - 10 - 44 };
}

function fitted(context, text, width) {
	if (context.measureText(text).width <= width) return text;
	let size = text.length;
	while (size > 1 && context.measureText(`${text.slice(0, size)}…`).width > width) size--;
	return `${text.slice(0, size)}…`;
}

export function paintAxes(context, { x, y }, box, node) {
	const look = getComputedStyle(node);
	context.strokeStyle = look.getPropertyValue("--line");
	context.strokeRect(box.left - 0.5, box.top - 0.5, box.width + 1, box.height + 1);
	context.fillStyle = look.getPropertyValue("--ink");
	context.font = "12px system-ui, 'DejaVu Sans Condensed', sans-serif";
	context.textAlign = "center";
	const room = box.width / x.ticks.length, every = Math.ceil((x.feature.kind === "category" ? 58 : 34) / room);
	x.ticks.forEach((tick, k) => {
		if (k % every) return;
		context.fillText(fitted(context, tick.text, room * every - 4), Math.max(box.left + 8, Math.min(box.left + box.width - 8, box.left + tick.at * box.width)), box.top + box.height + 16);
	});
	context.textAlign = "right";
	const skip = Math.ceil(16 * y.ticks.length / box.height);
	y.ticks.forEach((tick, k) => {
		if (k % skip === 0) context.fillText(fitted(context, tick.text, box.left - 24), box.left - 6, box.top + (1 - tick.at) * box.height + 4);
	});
	const title = axis => `${axis.feature.name}${axis.feature.unit ? ` (${axis.feature.unit})` : ""}`;
	context.font = "600 12px system-ui, 'DejaVu Sans Condensed', sans-serif";
	context.textAlign = "center";
	context.fillText(fitted(context, title(x), box.width), box.left + box.width / 2, box.top + box.height + 36);
	context.save();
	context.translate(11, box.top + box.height / 2);
	context.rotate(-Math.PI / 2);
	context.fillText(fitted(context, title(y), box.height), 0, 0);
	context.restore();
}

function chooseAxis(page, state, at, label) {
	const list = h("select", { id: `axis${at}`, onchange: () => {
		const chosen = list.selectedIndex, pair = [...state.pair];
		if (pair[1 - at] === chosen) pair[1 - at] = pair[at];
		pair[at] = chosen;
		state.set({ pair });
	} }, page.features.map((f, i) => h("option", { value: i }, f.name)));
	return { node: h("label.axis", h("span", label), list), list };
}

function legendOf(page, node, answers) {
	if (page.task === "classes") {
		if (!node.childNodes.length) fill(node, page.labels.slice(0, 12).map((label, i) => h("span.key",
			classDot(i), h("bdi", label))),
		page.labels.length > 12 && h("span.soft", `and ${page.labels.length - 12} more`),
		page.probabilities && h("span.soft", "fainter: less sure"));
		return;
	}
	if (!answers) return;
	const [low, high] = extent(answers.numbers), stops = Array.from({ length: 7 }, (_, i) => css(numberColour(i / 6)));
	const [least, most] = ends(low, high);
	fill(node, h("span", least), h("i.ramp", { "aria-hidden": true, look: { background: `linear-gradient(90deg, ${stops.join(",")})` } }),
		h("span", most), page.unit && h("span.soft", page.unit));
}

function inWords(page, grid, answers) {
	const of = `Decision map: ${grid.x.feature.name} across, ${grid.y.feature.name} up.`;
	if (answers.numbers) return `${of} From ${ends(...extent(answers.numbers)).join(" to ")}.`;
	const counts = page.labels.map((label, i) => ({ label, share: answers.labels.filter(l => l === i).length / answers.labels.length }));
	return `${of} ${counts.filter(c => c.share).sort((a, b) => b.share - a.share).map(c => `${c.label} ${percent(c.share)}`).join(", ")} of the cells.`;
}

/** Build the map into `node`; it asks for its cells again where what is held has changed. */
export function buildMap(node, model, state) {
	const { page } = model, still = matchMedia("(prefers-reduced-motion: reduce)");
	const across = chooseAxis(page, state, 0, "Across"), up = chooseAxis(page, state, 1, "Up");
	const canvas = h("canvas.plot", { role: "img", "aria-label": "Decision map" });
	const mark = h("div.mark", { role: "slider", tabindex: "0", "aria-label": "The current row on the map; arrow keys move it", "aria-valuemin": "0", "aria-valuemax": "100" });
	const board = h("div.board", canvas, mark), legend = h("div.legend"), note = h("p.soft.small");
	fill(node, h("div.axes", across.node, up.node), board, legend, note);
	let grid = gridOf(page, state.pair, state.row), answers = null, colours = null, key = "", fresh = 1, flight = 1, from = [], lines = null, box = boxOf(600, 400, grid.y), frame = 0;

	const target = () => page.rows.map(row => [grid.x.place(row[grid.x.i]), grid.y.place(row[grid.y.i])]);
	const jitter = (k, axis) => axis.feature.kind === "number" ? 0 : (k * (axis === grid.x ? 0.7549 : 0.5698) % 1 - 0.5) * 0.8 / axis.values.length;
	let to = target();

	function paintFlips(context) {
		const spot = row => [box.left + grid.x.place(row[grid.x.i]) * box.width, box.top + (1 - grid.y.place(row[grid.y.i])) * box.height];
		for (const flip of [state.flips?.[grid.x.i], state.flips?.[grid.y.i]]) {
			if (!flip || mark.hidden || flip.value === null) continue;
			const [x, y] = spot(state.row.map((v, i) => i === flip.i ? flip.value : v));
			context.beginPath();
			context.moveTo(...spot(state.row));
			context.lineTo(x, y);
			context.moveTo(x + 5, y);
			context.arc(x, y, 5, 0, 7);
			for (const [width, colour] of [[5, "#fff"], [2, "#10151b"]]) {
				Object.assign(context, { lineWidth: width, strokeStyle: colour });
				context.stroke();
			}
		}
	}

	function place() {
		const x = grid.x.place(state.row[grid.x.i]), y = grid.y.place(state.row[grid.y.i]);
		mark.hidden = x === null || y === null;
		if (mark.hidden) return;
		const inside = at => Math.min(1, Math.max(0, at));
		mark.style.left = `${box.left + inside(x) * box.width}px`;
		mark.style.top = `${box.top + (1 - inside(y)) * box.height}px`;
		mark.classList.toggle("outside", x < 0 || x > 1 || y < 0 || y > 1);
		mark.setAttribute("aria-valuenow", String(Math.round(100 * inside(x))));
		mark.setAttribute("aria-valuetext", [grid.x, grid.y].map(a => `${a.feature.name} ${valueText(a.feature, state.row[a.i])}`).join(", "));
	}

	function draw() {
		frame = 0;
		const { context, width, height } = prepareCanvas(canvas);
		if (!width) return;
		box = boxOf(width, height, grid.y);
		const eased = t => t < 0.5 ? 4 * t ** 3 : 1 - (2 - 2 * t) ** 3 / 2;
		if (colours) {
			context.globalAlpha = fresh;
			paintCells(context, colours, grid.x.values.length, box);
			context.globalAlpha = 1;
		}
		paintAxes(context, grid, box, node);
		paintPoints(context, eased(flight));
		place();
		lines = page.task === "classes" && state.flips;
		if (lines) paintFlips(context);
	}

	function paintPoints(context, t) {
		const range = page.task === "number" && page.targets.length ? extent(page.targets) : null, size = page.rows.length > 250 ? 3.6 : 4.6;
		context.lineWidth = 1;
		context.strokeStyle = getComputedStyle(node).getPropertyValue("--point");
		page.rows.forEach((_, k) => {
			const [x1, y1] = to[k], [x0, y0] = from[k] ?? to[k];
			if (x1 === null || y1 === null) return;
			const x = (x0 ?? x1) + (x1 - (x0 ?? x1)) * t + jitter(k, grid.x) * t, y = (y0 ?? y1) + (y1 - (y0 ?? y1)) * t + jitter(k, grid.y) * t;
			const place = range ? 0 : Math.max(0, page.classes.indexOf(page.targets[k]));
			traceShape(context, place, box.left + x * box.width, box.top + (1 - y) * box.height, size);
			context.fillStyle = range ? css(numberColour((page.targets[k] - range[0]) / (range[1] - range[0] || 1))) : classColour(place);
			context.fill();
			context.stroke();
		});
	}

	function later() {
		frame ||= requestAnimationFrame(draw);
	}

	function animate(step) {
		if (still.matches) { step(1); later(); return; }
		const start = performance.now();
		const tick = now => {
			const t = Math.min(1, (now - start) / FLIGHT);
			step(t);
			later();
			if (t < 1) requestAnimationFrame(tick);
		};
		requestAnimationFrame(tick);
	}

	const say = afterwards(900, announce);
	const asking = newest(120, async () => {
		const next = gridOf(page, state.pair, state.row), pair = state.pair.join();
		const held = JSON.stringify([state.pair, state.row.map((v, i) => state.pair.includes(i) ? 0 : v)]);
		if (held === key) return;
		const found = await model.answers(next.rows).catch(error => { fill(note, h("span.problem", error.message)); throw error; });
		words();
		if (pair !== state.pair.join()) return;
		const first = !colours;
		key = held;
		answers = found;
		colours = cellColours(page, found);
		canvas.setAttribute("aria-label", inWords(page, next, found));
		legendOf(page, legend, found);
		board.dataset.cells = String(found.numbers?.length ?? found.labels.length);
		if (first) fresh = 0;
		if (fresh < 1) animate(t => { fresh = Math.max(fresh, t); });
		later();
	}, 3);

	function changePair() {
		from = to;
		grid = gridOf(page, state.pair, state.row);
		to = target();
		colours = null;
		key = "";
		flight = 0;
		animate(t => { flight = t; });
		say(`The map shows ${grid.x.feature.name} and ${grid.y.feature.name}`);
		words();
	}

	function words() {
		across.list.selectedIndex = state.pair[0];
		up.list.selectedIndex = state.pair[1];
		fill(note, page.rows.length ? `Points are ${page.rows.length} training rows. ` : "", `Each of the ${grid.x.values.length * grid.y.values.length} cells shows the exact answer at its centre, with the other features held. ${page.task === "classes" ? "Lines lead to where the answer changes. " : ""}Drag the mark, click, or use the arrow keys.`);
	}

	function goTo(event) {
		const frameBox = canvas.getBoundingClientRect(), share = (at, start, size) => Math.min(1, Math.max(0, (at - start) / size));
		const row = [...state.row];
		row[grid.x.i] = grid.x.value(share(event.clientX - frameBox.left, box.left, box.width));
		row[grid.y.i] = grid.y.value(1 - share(event.clientY - frameBox.top, box.top, box.height));
		state.set({ row });
	}
	let dragging = false;
	board.addEventListener("pointerdown", event => {
		if (event.button !== 0) return;
		dragging = true;
		if (event.target === mark || event.pointerType === "mouse") board.setPointerCapture(event.pointerId);
		if (event.target !== mark) goTo(event);
		mark.focus({ preventScroll: true });
		event.preventDefault();
	});
	board.addEventListener("pointermove", event => { if (dragging) goTo(event); });
	for (const end of ["pointerup", "pointercancel"]) board.addEventListener(end, () => { dragging = false; });
	mark.addEventListener("keydown", event => {
		const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [0, 0];
		const axis = dx ? grid.x : dy ? grid.y : null;
		if (!axis) return;
		event.preventDefault();
		const now = state.row[axis.i], move = dx || dy;
		if (axis.feature.kind === "number") state.put(axis.i, stepped(page, axis.i, now, move * (event.shiftKey ? 10 : 1)));
		else state.put(axis.i, axis.values[Math.min(axis.values.length - 1, Math.max(0, axis.values.indexOf(now) + move))]);
	});
	new ResizeObserver(later).observe(canvas);
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
		if (answers) colours = cellColours(page, answers);
		legend.replaceChildren();
		legendOf(page, legend, answers);
		later();
	});
	state.listen(changes => {
		if (changes.pair) changePair();
		if (changes.row || changes.pair) asking();
		if (changes.row) place();
		if ("flips" in changes || lines) later();
	});
	words();
	later();
	asking();
}
