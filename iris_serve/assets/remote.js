/** A model that answers over HTTP, with a key or without one. */

const MOST_BYTES = 700_000, MOST_ROWS = 5000;

/** Ask the service; `path` is relative to its root, where the page stands. */
export async function reach(path, key, options = {}) {
	const headers = { Accept: "application/json", ...(key && { Authorization: `Bearer ${key}` }), ...options.headers };
	return fetch(new URL(path, document.baseURI), { ...options, headers });
}

async function explained(response) {
	const text = await response.text();
	if (response.ok) return JSON.parse(text);
	let why = `status ${response.status}`;
	try { const said = JSON.parse(text); why = said.detail ?? said.error ?? why; } catch { /* a proxy's page, perhaps */ }
	throw Object.assign(new Error(why), { status: response.status });
}

export async function getJson(path, key) {
	return explained(await reach(path, key));
}

async function postJson(path, key, body) {
	return explained(await reach(path, key, { method: "POST", body, headers: { "Content-Type": "application/json" } }));
}

/** Rows as the inputs of the Open Inference Protocol: one tensor, or one for each feature. */
function inputsOf(features, rows) {
	if (features.every(f => f.kind === "number" && !f.missing))
		return [{ name: "features", datatype: "FP64", shape: [rows.length, features.length], data: rows.flat() }];
	return features.map((f, i) => ({
		name: f.name,
		datatype: { number: "FP64", boolean: "BOOL", category: "BYTES" }[f.kind],
		shape: [rows.length],
		data: rows.map(row => f.kind === "category" && row[i] !== null ? String(row[i]) : row[i]),
	}));
}

/** Outputs of the protocol as places in `classes` and probabilities, or as numbers. */
function readOutputs(page, outputs, count) {
	const found = Object.fromEntries(outputs.map(output => [output.name, output.data]));
	if (page.task === "number") return { labels: null, probabilities: null, numbers: found.prediction };
	const places = new Map(page.classes.map((value, i) => [String(value), i])), k = page.classes.length;
	const flat = found.probabilities;
	return {
		labels: found.label.map(value => places.get(String(value))),
		probabilities: flat ? Array.from({ length: count }, (_, i) => flat.slice(i * k, i * k + k)) : null,
		numbers: null,
	};
}

function joined(parts) {
	const all = name => parts[0][name] && parts.flatMap(part => part[name]);
	return { labels: all("labels"), probabilities: all("probabilities"), numbers: all("numbers") };
}

export function remoteModel(page, key = "") {
	const { features, links } = page, infer = `v2/${links.version}/infer`;
	let known = null, step = MOST_ROWS;  // smaller where the service takes fewer rows at once
	return {
		page,
		key,
		async cuts() {
			if (!links.cuts) return null;
			known ??= (await getJson(links.cuts, key)).features.map(f => f.cuts);
			return known;
		},
		async ask(row) {
			const request = JSON.stringify({ features: row });
			const response = await reach(`${links.predict}?detail=true`, key,
				{ method: "POST", body: request, headers: { "Content-Type": "application/json" } });
			const text = await response.text();
			let detail = null;
			try { detail = JSON.parse(text); } catch { /* shown as it came */ }
			return { status: response.status, text, detail, request };
		},
		async answers(rows) {
			const one = JSON.stringify(inputsOf(features, rows.slice(0, 1))).length, parts = [];
			step = Math.max(1, Math.min(step, Math.floor(MOST_BYTES / one)));
			for (let i = 0; i < rows.length; i += parts.at(-1).size) {
				const some = rows.slice(i, i + step);
				try {
					const found = await postJson(infer, key, JSON.stringify({ inputs: inputsOf(features, some) }));
					parts.push({ size: some.length, ...readOutputs(page, found.outputs, some.length) });
				} catch (error) {
					if (error.status !== 413 || step === 1) throw error;
					step = Math.ceil(step / 2);
					parts.push({ ...await this.answers(some), size: some.length });
				}
			}
			return parts.length === 1 ? parts[0] : joined(parts);
		},
		async paths(row, tree = null) {
			if (!links.paths) return null;
			return postJson(links.paths + (tree === null ? "" : `?tree=${tree}`), key, JSON.stringify({ features: row }));
		},
	};
}
