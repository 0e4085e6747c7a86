/** The state of the page, which is what its address says. */

export function toText(value) {
	return value === null ? "" : String(value);
}

export function fromText(feature, text, otherwise) {
	if (text === "") return feature.missing ? null : otherwise;
	if (feature.kind === "number") return Number.isFinite(Number(text)) ? Number(text) : otherwise;
	const place = feature.values.findIndex(value => String(value) === text);
	if (feature.kind === "boolean") return place >= 0 ? place === 1 : text === "true" ? true : text === "false" ? false : otherwise;
	return place >= 0 ? feature.values[place] : otherwise;
}

export function tidyValue(feature, value) {
	if (feature.kind !== "boolean" || typeof value === "boolean" || value === null) return value;
	const place = feature.values.indexOf(value);
	return place >= 0 ? place === 1 : value === "true" || value === 1;
}

export function tidyRow(features, row) {
	return row.map((value, i) => tidyValue(features[i], value));
}

/** The two features that the map begins with: the most important ones, numbers first. */
export function firstPair(features) {
	const weight = i => (features[i].importance ?? 0) + (features[i].kind === "number" ? 10 : 0)
		- (features[i].values.length > 40 ? 5 : 0);
	const order = features.map((_, i) => i).sort((a, b) => weight(b) - weight(a) || a - b);
	return order.slice(0, 2).sort((a, b) => a - b);
}

/** Is the step of a feature a whole number, as that of years or counts? */
export function isWhole(page, i) {
	const values = [page.features[i].low, page.features[i].high, page.example[i],
		...page.presets.map(p => p.row[i]), ...page.rows.slice(0, 60).map(row => row[i])];
	return page.features[i].high - page.features[i].low >= 1 && values.every(v => v === null || Number.isInteger(v));
}

export function stepOf(page, i) {
	const { low, high } = page.features[i], range = high - low || Math.abs(low) || 1;
	const step = 10 ** Math.floor(Math.log10(range / 150));
	return isWhole(page, i) ? Math.max(1, step) : step;
}

function snap(value, step) {
	return Number((Math.round(value / step) * step).toPrecision(12));
}

/** The median of the training rows, as far as their histogram tells. */
function middleOf({ edges, counts, low, high }) {
	if (!edges || !counts) return (low + high) / 2;
	let left = counts.reduce((sum, n) => sum + n, 0) / 2;
	const at = counts.findIndex(n => (left -= n) <= 0);
	return (edges[at] + edges[at + 1]) / 2;
}

/** Places of numbers from 0 to 1, and back. A lower end where half of the rows crowd is spread out. */
export function scaleOf(page, i) {
	const feature = page.features[i], { low, high } = feature, range = high - low || 1, step = stepOf(page, i);
	const middle = (middleOf(feature) - low) / range, power = middle > 0 && middle < 0.15 ? Math.log(0.4) / Math.log(middle) : 1;
	const even = value => power === 1 ? snap(value, step) : isWhole(page, i) ? Math.round(Number(value.toPrecision(3))) : Number(value.toPrecision(3));
	return {
		power,
		to: value => value < low ? (value - low) / range : ((value - low) / range) ** power,
		fine: at => snap(low + range * at ** (1 / power), step / 100),
		from: at => at <= 0 ? low : at >= 1 ? high : Math.min(high, Math.max(low, even(low + range * at ** (1 / power)))),
	};
}

/** The value `steps` away from `value`, within the range if that is. */
export function stepped(page, i, value, steps) {
	const { low, high } = page.features[i], scale = scaleOf(page, i), from = value ?? (low + high) / 2;
	let to = scale.power === 1 ? snap(from + steps * stepOf(page, i), stepOf(page, i)) : scale.from(scale.to(from) + steps / 200);
	if (to === from) to = from + Math.sign(steps) * (isWhole(page, i) ? 1 : stepOf(page, i));
	return Math.max(Math.min(low, from), Math.min(Math.max(high, from), to));
}

/** `row`, `pair` (features of the map), `tree` and `beside` (a version), which may be null. */
export class State {
	constructor(page, query) {
		const asked = new URLSearchParams(query), { features } = page;
		this.page = page;
		this.listeners = [];
		const start = tidyRow(features, page.example);
		this.row = features.map((f, i) => asked.has(`f${i}`) ? fromText(f, asked.get(`f${i}`), start[i]) : start[i]);
		const pair = (asked.get("map") ?? "").split(",").map(Number);
		const fits = pair.length === 2 && pair[0] !== pair[1] && pair.every(i => Number.isInteger(i) && i >= 0 && i < features.length);
		this.pair = fits ? pair : firstPair(features);
		this.tree = /^\d+$/.test(asked.get("tree") ?? "") ? Number(asked.get("tree")) : null;
		this.beside = asked.get("with");
	}

	listen(listener) {
		this.listeners.push(listener);
	}

	set(changes) {
		Object.assign(this, changes);
		for (const listener of this.listeners) listener(changes);
	}

	put(i, value) {
		if (Object.is(this.row[i], value)) return;
		this.set({ row: this.row.map((old, at) => at === i ? value : old) });
	}

	/** The query that shows this state, with the values that `page` has a feature of that name for. */
	link(page = this.page) {
		const asked = new URLSearchParams(), place = i => page.features.findIndex(f => f.name === this.page.features[i].name);
		this.row.forEach((value, i) => { if (place(i) >= 0) asked.set(`f${place(i)}`, toText(value)); });
		asked.set("v", page.version);
		if (this.pair.length === 2) asked.set("map", this.pair.map(place).join(","));
		if (this.tree !== null) asked.set("tree", this.tree);
		if (this.beside) asked.set("with", this.beside);
		return asked.toString().replaceAll("%2C", ",");
	}
}
