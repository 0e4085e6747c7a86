/** Two versions side by side: what differs in how they were made, and in what they answer. */
import { fill, h, newest, percent, short, table } from "./dom.js";
import { differenceColour, ground, mix, rgb, classColour } from "./colour.js";
import { boxOf, extent, gridOf, paintAxes, paintCells, prepareCanvas } from "./map.js";
import { SCORE_NAMES, scoreText, whenText } from "./trust.js";

function sameFeatures(a, b) {
	const shape = page => JSON.stringify([page.task, page.classes, page.features.map(f => [f.name, f.kind, f.values, f.missing])]);
	return shape(a) === shape(b);
}

function plainText(value) {
	return value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

function historyTable({ versions, aliases }) {
	return table("History", ["Version", "Made", "Promoted at once"], versions.toReversed().map(({ version, run, trouble }) => [
		h("a", { href: `./?v=${version}` }, `Version ${version}${aliases.current?.version === version ? ", in service" : ""}`),
		run ? whenText(run.finished) : "–", run ? `${run.promoted ? "yes" : "no"}: ${run.why}` : trouble]));
}

function parameterTable(a, b) {
	const names = Object.keys({ ...a.parameters, ...b.parameters });
	const rows = names.map(name => [name, plainText(a.parameters?.[name]), plainText(b.parameters?.[name])]);
	const differ = rows.filter(([, x, y]) => x !== y), heads = ["Parameter", `Version ${a.version}`, `Version ${b.version}`];
	const more = [["made", whenText(a.made), whenText(b.made)], ["data", ...[a, b].map(({ data }) => `${data?.file ?? "–"}, ${data?.rows ?? "?"} rows`)]];
	return table(differ.length ? "What differs in how they were made" : "Made with the same parameters", heads, [...differ, ...more]);
}

function scoreTable(a, b) {
	const names = Object.keys(a.scores ?? {}).filter(name => name in (b.scores ?? {}));
	return names.length ? table("Scores on held-out rows", ["Score", `Version ${a.version}`, `Version ${b.version}`],
		names.map(name => [SCORE_NAMES[name] ?? name, scoreText(name, a.scores[name]), scoreText(name, b.scores[name])])) : null;
}

function compared(first, second) {
	if (!first.numbers) {
		const differ = first.labels.map((label, k) => label !== second.labels[k]);
		return { differ, flipped: differ.filter(Boolean).length, by: null };
	}
	const by = second.numbers.map((n, k) => n - first.numbers[k]);
	return { differ: by.map(d => d !== 0), flipped: by.filter(d => d !== 0).length, by };
}

function flippedRows(page, rows, first, second, differ) {
	const places = differ.flatMap((d, k) => d ? [k] : []).slice(0, 8), answer = (found, k) => found.numbers ? short(found.numbers[k], 6) : h("bdi", page.labels[found.labels[k]]);
	if (!places.length) return null;
	return table("Some of these rows", [...page.features.slice(0, 8).map(f => h("bdi", f.name)), "before", "after"],
		places.map(k => [...rows[k].slice(0, 8).map(v => h("bdi", v === null ? "unknown" : String(v))), answer(first, k), answer(second, k)]));
}

export function buildVersions(node, model, state, { versions = [], history, openVersion }) {
	const { page } = model, others = versions.filter(v => v.version !== page.version), past = h("div");
	history?.then(found => fill(past, historyTable(found)), () => {});
	if (!others.length || !openVersion) return fill(node, past);
	const list = h("select", { id: "beside", onchange: () => state.set({ beside: list.value || null }) }, h("option", { value: "" }, "none"), others.map(v => h("option", { value: v.version }, `version ${v.version}${v.current ? " (in service)" : ""}`)));
	const result = h("div.compared", { "aria-live": "polite" }), canvas = h("canvas.plot", { role: "img", "aria-label": "Differences" });
	const mapNote = h("p.soft.small"), summary = h("p.lead"), tables = h("div.cards"), rowsNode = h("div.card");
	fill(node, h("label.axis", h("span", `Version ${page.version} beside`), list), result, past);
	let other = null, drawn = null;

	function draw() {
		if (!drawn) return;
		const { context, width, height } = prepareCanvas(canvas), box = drawn && boxOf(width, height, drawn.grid.y);
		if (!width) return;
		const { grid, first, second, found } = drawn, base = ground(), most = found.by && Math.max(...extent(found.by).map(Math.abs), 1e-300);
		const colours = found.by ? found.by.map(d => differenceColour(0.5 + d / most / 2))
			: second.labels.map((label, k) => found.differ[k] ? rgb(classColour(label)) : mix(base, rgb(classColour(first.labels[k])), 0.13));
		paintCells(context, colours, grid.x.values.length, box);
		paintAxes(context, grid, box, node);
	}

	const compareMap = newest(150, async () => {
		if (!other || state.pair.length < 2 || !sameFeatures(page, other.page)) return;
		const against = other, grid = gridOf(page, state.pair, state.row);
		const [first, second] = await Promise.all([model.answers(grid.rows), against.answers(grid.rows)]);
		if (other !== against) return;
		const found = compared(first, second);
		drawn = { grid, first, second, found };
		const share = percent(found.flipped / grid.rows.length);
		canvas.setAttribute("aria-label", `Where versions ${page.version} and ${against.page.version} differ: ${share} of the cells`);
		const how = found.by ? `From ${short(Math.min(...found.by), 3)} (orange) to ${short(Math.max(...found.by), 3)} (blue).` : `Strong colours are cells whose answer changes, to the class of that colour in version ${against.page.version}.`;
		fill(mapNote, `The versions differ in ${share} of the map's cells. ${how}`);
		draw();
	}, 3);

	async function compareRows() {
		const rows = page.rows.length ? page.rows : state.pair.length < 2 ? [state.row] : gridOf(page, state.pair, state.row).rows, what = page.rows.length ? "training rows shown on the map" : "cells of the map";
		const against = other, [first, second] = await Promise.all([model.answers(rows), against.answers(rows)]);
		if (other !== against) return;
		const found = compared(first, second);
		const size = found.by && found.by.reduce((sum, d) => sum + Math.abs(d), 0) / found.by.length;
		fill(summary, found.by ? `The numbers differ in ${found.flipped} of ${rows.length} ${what}, on average by ${short(size, 3)}.` : found.flipped ? `${found.flipped} of ${rows.length} ${what} get another answer.` : `All ${rows.length} ${what} get the same answer.`);
		fill(rowsNode, page.rows.length ? flippedRows(page, rows, first, second, found.differ) : null);
	}

	const open = newest(0, async () => {
		list.value = others.some(v => v.version === state.beside) ? state.beside : "";
		other = null;
		drawn = null;
		const wanted = list.value;
		if (!wanted) return fill(result);
		let opened;
		try { opened = await openVersion(wanted); } catch (error) { return fill(result, h("p.problem", error.message)); }
		if (wanted !== list.value) return;
		other = opened;
		fill(tables, [parameterTable(page, other.page), scoreTable(page, other.page)].filter(Boolean).map(t => h("div.card", t)));
		if (!sameFeatures(page, other.page)) return fill(result, tables, h("p.lead", "These versions ask for different features or answer different classes, so their answers cannot be compared."));
		fill(result, summary, tables, h("div.cards.wide", h("div.card", h("h3", "Where they differ"), canvas, mapNote), rowsNode));
		await Promise.all([compareRows(), compareMap()]);
	});
	new ResizeObserver(draw).observe(canvas);
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
	state.listen(changes => {
		if ("beside" in changes) open();
		else if (changes.row || changes.pair) compareMap();
	});
	if (state.beside) open();
}
