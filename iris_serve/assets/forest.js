/** A frozen forest that answers in the browser, with the bits of the service. */

const FLOAT32_LIMIT = 3.4028235677973366e38, MOST_MASK_WORDS = 1 << 24;
const BLANKS = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";  // as Python strips
const ENDS = new RegExp(`^${BLANKS}|${BLANKS}$`, "g"), DECIMAL_TEXT = /^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$/;

/** A row that the model refuses; the message says what is wrong with it. */
export class RowProblem extends Error {}

function unpacked(kind, text) {
	const letters = atob(text), bytes = new Uint8Array(letters.length);
	for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
	return new kind(bytes.buffer);
}

// Rows

function inRange(value) {
	return typeof value === "number" && Math.abs(value) < FLOAT32_LIMIT;  // NaN is not
}

/** The code of `value` in a boolean or a category; undefined if it has none. */
function codeFinder(feature, spellings) {
	const exact = new Map(feature.values.map((value, i) => [value, i])), loose = new Map(spellings);
	return value => {
		if (typeof value === "boolean") return feature.kind === "boolean" ? Number(value) : undefined;
		if (exact.has(value)) return exact.get(value);
		if (typeof value !== "string") return undefined;
		const bare = value.replace(ENDS, ""), spelling = feature.kind === "boolean" ? bare.toLowerCase() : bare;
		if (loose.has(spelling)) return loose.get(spelling);
		return bare.length <= 400 && DECIMAL_TEXT.test(bare) ? exact.get(Number(bare)) : undefined;
	};
}

function refusal(feature, value) {
	const or = feature.missing ? " or null" : "", got = typeof value === "number" ? "a number" : JSON.stringify(value ?? null);
	if (feature.kind !== "number") return `must be one of ${feature.values.slice(0, 8).join(", ")}${or}, got ${typeof value === "number" ? value : got}`;
	if (typeof value !== "number" || Number.isNaN(value)) return `must be a number${or}, got ${got}`;
	return "must be a number between -3.4e38 and 3.4e38, the range of a 32-bit float";
}

/** What makes a number of a value of `feature`: itself, its code, or NaN if it is missing. */
function coderOf(feature, { gaps, spellings }) {
	const find = codeFinder(feature, spellings), marks = new Set(gaps), number = feature.kind === "number";
	const lenient = feature.kind === "category" && feature.unknown === "missing", numbers = typeof feature.values[0] === "number";
	return value => {
		if ((value === null || value === undefined) && feature.missing) return NaN;
		if (number && inRange(value)) return marks.has(value) ? NaN : value;
		const code = number ? undefined : find(value);
		if (code !== undefined) return code;
		if (typeof value === "number" && marks.has(value)) return NaN;
		if (lenient && (typeof value === "string" || (numbers && inRange(value)))) return NaN;
		throw new RowProblem(refusal(feature, value));
	};
}

// Trees

/** Where each tree of `nodes` leads: sizes and first leaves of all subtrees, and the roots. */
function planOf(nodes) {
	const size = new Int32Array(nodes.length), leaves = new Int32Array(nodes.length), first = new Int32Array(nodes.length), roots = [];
	for (let i = nodes.length - 1; i >= 0; i--) {
		const inner = nodes[i] >= 0, right = inner ? i + 1 + size[i + 1] : i;
		size[i] = inner ? 1 + size[i + 1] + size[right] : 1;
		leaves[i] = inner ? leaves[i + 1] + leaves[right] : 1;
	}
	for (let i = 1; i < nodes.length; i++) first[i] = first[i - 1] + (nodes[i - 1] < 0 ? 1 : 0);
	for (let i = 0; i < nodes.length; i += size[i]) roots.push(i);
	return { size, leaves, first, roots, count: first[nodes.length - 1] + 1, right: i => i + 1 + size[i + 1] };
}

/** Which leaves are still possible, as bits, while nodes bar some and let others go. */
class Possible {
	constructor(plan) {
		this.plan = plan;
		this.bars = new Int32Array(plan.count);
		this.bits = new Uint32Array(Math.ceil(plan.count / 32)).fill(0xffffffff);
		if (plan.count % 32) this.bits[this.bits.length - 1] = 2 ** (plan.count % 32) - 1;
	}

	bar(node, by) {
		const from = this.plan.first[node], to = from + this.plan.leaves[node];
		for (let leaf = from; leaf < to; leaf++) {
			this.bars[leaf] += by;
			if (this.bars[leaf]) this.bits[leaf >> 5] &= ~(1 << (leaf & 31));
			else this.bits[leaf >> 5] |= 1 << (leaf & 31);
		}
	}
}

/** The masks of one feature: one for each position among its cuts, and one for a missing value. */
function masksOf(forest, byCut, start, count) {
	const { plan, missing } = forest, words = Math.ceil(plan.count / 32), masks = new Uint32Array((count + 2) * words);
	const mine = byCut.slice(start, start + count), possible = new Possible(plan), absent = new Possible(plan);
	for (const node of mine.flat()) {
		possible.bar(plan.right(node), 1);  // left of all cuts, each node bars its right side
		absent.bar(missing && missing[node] ? plan.right(node) : node + 1, 1);
	}
	for (let position = 0; position <= count; position++) {
		masks.set(possible.bits, position * words);
		for (const node of mine[position] ?? []) {
			possible.bar(node + 1, 1);
			possible.bar(plan.right(node), -1);
		}
	}
	masks.set(absent.bits, (count + 1) * words);
	return masks;
}

/** How many of the sorted `cuts` are below `x`; one more than there are if it is missing. */
function positionOf(cuts, x) {
	if (Number.isNaN(x)) return cuts.length + 1;
	let low = 0, high = cuts.length;
	while (low < high) {
		const middle = (low + high) >> 1;
		if (cuts[middle] < x) low = middle + 1; else high = middle;
	}
	return low;
}

/** What finds the leaf of each tree: one mask for each feature that is asked about, combined. */
function maskFinder(forest) {
	const { plan, counts, axes } = forest, words = Math.ceil(plan.count / 32), byCut = Array.from(forest.cuts, () => []);
	forest.nodes.forEach((cut, node) => { if (cut >= 0) byCut[cut].push(node); });
	const used = counts.flatMap((count, f) => count ? [f] : []), starts = [0];
	counts.forEach((count, f) => starts.push(starts[f] + count));
	const masks = used.map(f => masksOf(forest, byCut, starts[f], counts[f])), at = new Int32Array(used.length);
	return (codes, found) => {
		for (let i = 0; i < used.length; i++) at[i] = positionOf(axes[used[i]], codes[used[i]]) * words;
		for (let word = 0, n = 0; word < words; word++) {
			let left = word < words - 1 || plan.count % 32 === 0 ? -1 : 2 ** (plan.count % 32) - 1;
			for (let i = 0; i < masks.length && left; i++) left &= masks[i][at[i] + word];
			for (; left; left &= left - 1) found[n++] = 32 * word + 31 - Math.clz32(left & -left);
		}
		return found;
	};
}

/** The nodes that a row of `codes` comes by in the tree with this `root`. */
function wayOf(forest, codes, root) {
	const { nodes, cuts, features, missing, plan } = forest, way = [root];
	for (let node = root; nodes[node] >= 0; way.push(node)) {
		const x = codes[features[nodes[node]]];
		const left = Number.isNaN(x) && missing ? missing[node] : x <= cuts[nodes[node]];
		node = left ? node + 1 : plan.right(node);
	}
	return way;
}

/** As `maskFinder`, for a forest whose masks would be too large. */
function walkFinder(forest) {
	return (codes, found) => {
		forest.plan.roots.forEach((root, tree) => { found[tree] = forest.plan.first[wayOf(forest, codes, root).at(-1)]; });
		return found;
	};
}

/** The forest in `arrays`, with what finds leaves in it. */
function openForest(arrays) {
	const { counts, width } = arrays, cuts = unpacked(Float64Array, arrays.cuts), nodes = unpacked(Int32Array, arrays.nodes);
	const optional = (kind, name) => arrays[name] ? unpacked(kind, arrays[name]) : null, ends = [];
	counts.reduce((sum, count) => { ends.push(sum + count); return sum + count; }, 0);
	const forest = {
		nodes, cuts, counts, width, plan: planOf(nodes),
		axes: counts.map((count, f) => cuts.subarray(ends[f] - count, ends[f])),
		features: Int32Array.from(counts.flatMap((count, f) => Array(count).fill(f))),
		values: unpacked(Float64Array, arrays.values),
		starts: optional(Int32Array, "starts"), columns: optional(Int32Array, "columns"),
		missing: optional(Uint8Array, "missing"), samples: optional(Int32Array, "samples"),
	};
	const words = (cuts.length + 2 * counts.length) * Math.ceil(forest.plan.count / 32);
	forest.find = words <= MOST_MASK_WORDS ? maskFinder(forest) : walkFinder(forest);
	return forest;
}

// Answers

/** Add what a `leaf` holds to `total`. */
function addLeaf({ values, starts, columns, width }, leaf, total) {
	if (starts) for (let k = starts[leaf]; k < starts[leaf + 1]; k++) total[columns[k]] += values[k];
	else for (let place = 0, k = leaf * width; place < width; place++, k++) total[place] += values[k];
}

/** The mean of what the `leaves` hold, added in the order of the trees. */
function meanOf(forest, leaves) {
	const total = Array(forest.width).fill(forest.starts ? 0 : -0);
	for (const leaf of leaves) addLeaf(forest, leaf, total);
	return total.map(sum => sum / leaves.length);
}

function firstMost(values) {
	let best = 0;
	for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
	return best;
}

/** The sum of `values` in the order in which numpy adds. */
function pairwiseSum(values, from = 0, count = values.length) {
	if (count > 128) {
		const half = Math.floor(count / 2) - Math.floor(count / 2) % 8;
		return pairwiseSum(values, from, half) + pairwiseSum(values, from + half, count - half);
	}
	let at = from, sum = 0;
	if (count >= 8) {
		const r = values.slice(from, from + 8);
		for (at += 8; at < from + count - count % 8; at += 8) for (let j = 0; j < 8; j++) r[j] += values[at + j];
		sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
	}
	for (; at < from + count; at++) sum += values[at];
	return sum;
}

function deviation(numbers) {
	const mean = pairwiseSum(numbers) / numbers.length;
	return Math.sqrt(pairwiseSum(numbers.map(n => (n - mean) * (n - mean))) / numbers.length);
}

/** A value as the service writes it in a sentence. */
function valueInSentence(x) {
	if (typeof x === "string") {
		const bare = /^\p{L}/u.test(x) && !x.includes(",") && x === x.replace(ENDS, ""), letters = [...x];
		const text = letters.length > 40 ? `${letters.slice(0, 40).join("")}…` : x;
		return bare ? text : `"${text}"`;
	}
	const short = x === 0 || (Math.abs(x) >= 1e-4 && Math.abs(x) < 1e16);
	return short ? (Object.is(x, -0) ? "-0" : String(x)) : x.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
}

/** Notes on values that training has not seen. */
function notesOn(page, coding, row, codes) {
	return page.features.flatMap((f, i) => {
		const note = (value, detail) => [{ pointer: `#/features/${i}`, field: f.name, detail: `${valueInSentence(value)} ${detail}` }], x = codes[i];
		if (Number.isNaN(x) && row[i] !== null && row[i] !== undefined)
			return note(row[i], `${coding[i].gaps.includes(row[i]) ? "marked a gap" : "was not seen"} in training and counts as missing`);
		if (f.kind === "number" && x < f.low) return note(x, `is below ${valueInSentence(f.low)}, the lowest value seen in training`);
		if (f.kind === "number" && x > f.high) return note(x, `is above ${valueInSentence(f.high)}, the highest value seen in training`);
		return [];
	});
}

function byLabel(page, values) {
	return Object.fromEntries(page.labels.map((label, i) => [label, values[i]]));
}

function stepsOf(page, forest, codes, way) {
	const { plan, samples, nodes, cuts, features } = forest, rows = node => {
		const from = plan.first[node];
		return samples && samples.subarray(from, from + plan.leaves[node]).reduce((sum, n) => sum + n, 0);
	};
	const steps = way.slice(0, -1).map((node, k) => {
		const i = features[nodes[node]], cut = cuts[nodes[node]], { name, kind, values } = page.features[i];
		const left = kind === "number" ? null : values.filter((_, code) => code <= cut);
		return { feature: name, cut, left: way[k + 1] === node + 1, missing: Number.isNaN(codes[i]), values: left, rows: rows(node) };
	});
	return { steps, rows: rows(way.at(-1)) };
}

/** The model of `page`, whose frozen forest is in `arrays`; it answers here, and asks nobody. */
export function localModel(page, arrays) {
	const forest = openForest(arrays), coders = page.features.map((f, i) => coderOf(f, arrays.coding[i]));
	const { roots, first } = forest.plan, numbers = page.task === "number", found = new Int32Array(roots.length);

	function codesOf(row) {
		if (row.length !== coders.length) throw new RowProblem(`features: must hold ${coders.length} values, got ${row.length}`);
		return row.map((value, i) => {
			try { return coders[i](value); } catch (error) { throw new RowProblem(`features[${i}] (${page.features[i].name}): ${error.message}`); }
		});
	}
	const leavesOf = codes => forest.find(codes, found), holds = leaf => meanOf(forest, [leaf]);

	function detailOf(row) {
		const codes = codesOf(row), leaves = leavesOf(codes), mean = meanOf(forest, leaves), best = firstMost(mean);
		const told = numbers
			? { prediction: mean[0], unit: page.unit, spread: deviation(Array.from(leaves, leaf => forest.values[leaf])) }
			: { prediction: page.classes[best], label: page.labels[best], probabilities: byLabel(page, mean) };
		return { ...told, notes: notesOn(page, arrays.coding, row, codes), model: page.name, version: page.version };
	}

	return {
		page,
		async cuts() {
			return forest.axes.map(axis => Array.from(axis));
		},
		async ask(row) {
			const request = JSON.stringify({ features: row });
			let status = 200, detail;
			try { detail = detailOf(row); } catch (error) { status = 400; detail = { status, detail: error.message }; }
			return { status, text: JSON.stringify(detail), detail, request };
		},
		async answers(rows) {
			const means = rows.map(row => meanOf(forest, leavesOf(codesOf(row))));
			if (numbers) return { labels: null, probabilities: null, numbers: means.map(mean => mean[0]) };
			return { labels: means.map(firstMost), probabilities: means, numbers: null };
		},
		async paths(row, tree = null) {
			const codes = codesOf(row), contents = Array.from(leavesOf(codes), holds);
			const said = numbers ? { numbers: contents.map(each => each[0]) } : { votes: contents.map(firstMost) };
			const all = { name: page.name, version: page.version, trees: roots.length, ...said };
			if (tree === null || !(tree in roots)) return all;
			const way = wayOf(forest, codes, roots[tree]), { steps, rows } = stepsOf(page, forest, codes, way);
			const leaf = holds(first[way.at(-1)]);
			return { ...all, path: { tree, steps, leaf: { rows, ...(numbers ? { number: leaf[0] } : { probabilities: byLabel(page, leaf) }) } } };
		},
	};
}
