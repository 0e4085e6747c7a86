/** The questions: a control for each feature, presets, the answer, and the request itself. */
import { afterwards, announce, bar, compact, copyButton, fill, h, percent, short, svg, valueText } from "./dom.js";
import { classDot } from "./colour.js";
import { scaleOf, stepped, tidyRow } from "./state.js";

const FEW_CHOICES = 8, FEW_FEATURES = 14;

/** The histogram behind a slider, as wide as the way of its thumb. */
function histogram(page, i) {
	const { counts } = page.features[i], edges = page.features[i].edges.map(scaleOf(page, i).to);
	const density = counts.map((count, k) => count / (edges[k + 1] - edges[k] || 1)), most = Math.max(...density) || 1;
	const bars = density.map((dense, k) => {
		const height = dense ? Math.max(0.6, 30 * dense / most) : 0;
		return svg("rect", { x: 100 * edges[k], width: Math.max(0.2, 100 * (edges[k + 1] - edges[k]) - 0.5), y: 30 - height, height });
	});
	return svg("svg.hist", { viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": true }, bars);
}

/** A control: its `node`, and `show(value)`, which displays a value that came from elsewhere. */
function numberControl(page, state, i) {
	const feature = page.features[i], scale = scaleOf(page, i), { low, high } = feature;
	const box = h("input", { id: `f${i}`, name: `f${i}`, type: "number", step: "any", inputmode: "decimal", "aria-describedby": `ends${i}`,
		oninput: () => { if (box.value !== "" && Number.isFinite(box.valueAsNumber)) state.put(i, box.valueAsNumber); },
		onblur: () => show(state.row[i]) });
	const slider = h("input", { type: "range", min: 0, max: 1, step: "any", "aria-label": `${feature.name}, slider`,
		oninput: () => state.put(i, scale.from(Number(slider.value))),
		onkeydown: event => {
			const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
			if (!move) return;
			event.preventDefault();
			state.put(i, stepped(page, i, state.row[i], move * (event.shiftKey ? 10 : 1)));
		} });
	const drawn = feature.counts && feature.edges ? histogram(page, i) : null;
	function show(value) {
		if (document.activeElement !== box || box.valueAsNumber !== value) box.value = value ?? "";
		slider.value = value === null ? 0.5 : scale.to(value);
		slider.setAttribute("aria-valuetext", value === null ? "unknown" : `${value} ${feature.unit}`.trim());
		const bin = drawn && value !== null ? feature.edges.findLastIndex(edge => edge <= value) : -1;
		drawn?.childNodes.forEach((rect, at) => rect.classList.toggle("here", at === bin || (value === high && at === feature.counts.length - 1)));
	}
	const ends = h("div.ends", { id: `ends${i}` }, h("span", compact(low)), h("span.unseen", " to "), h("span", compact(high)));
	return { node: h("div.slide", drawn, slider, ends), box, labelled: true, show };
}

function countOf(feature, at) {
	return feature.counts?.[at] ?? null;
}

/** Radio buttons with the share of the training rows behind each, or a list of many values. */
function categoryControl(feature, state, i) {
	const counts = feature.counts ?? [], most = Math.max(1, ...counts);
	if (feature.values.length > FEW_CHOICES) {
		const list = h("select", { id: `f${i}`, name: `f${i}`, onchange: () => state.put(i, feature.values[list.selectedIndex - 1] ?? null) },
			h("option", { value: "", disabled: !feature.missing }, feature.missing ? "unknown" : "choose"),
			feature.values.map((value, at) => h("option", { value: String(value) }, countOf(feature, at) === null ? String(value) : `${value} (${countOf(feature, at)})`)));
		return { node: h("div", list), labelled: true, show: value => { list.selectedIndex = value === null ? 0 : feature.values.indexOf(value) + 1; } };
	}
	const radios = feature.values.map(value => h("input", { type: "radio", name: `f${i}`, value: String(value), onchange: () => state.put(i, value) }));
	const chips = feature.values.map((value, at) => h("label.chip", radios[at],
		h("span.chiptext", { look: { "--share": `${100 * (counts[at] ?? 0) / most}%` } }, h("bdi", String(value)),
			countOf(feature, at) !== null && h("small", { title: "training rows" }, String(countOf(feature, at))))));
	return { node: h("div.chips", chips), show: value => radios.forEach((radio, at) => { radio.checked = feature.values[at] === value; }) };
}

function booleanControl(feature, state, i) {
	const box = h("input", { id: `f${i}`, type: "checkbox", role: "switch", onchange: () => state.put(i, box.checked) });
	const says = h("span", { "aria-hidden": true }), count = value => `${valueText(feature, value)}: ${countOf(feature, Number(value))}`;
	const rows = !feature.counts?.includes(null) && feature.counts && h("small.soft", `${count(false)} rows · ${count(true)}`);
	return {
		node: h("div.switchline", h("span.switch", box, h("i", { "aria-hidden": true })), says, rows),
		labelled: true,
		show: value => { box.checked = value === true; says.textContent = valueText(feature, value); },
	};
}

function featureRow(page, state, i) {
	const feature = page.features[i];
	const control = feature.kind === "number" ? numberControl(page, state, i)
		: feature.kind === "boolean" ? booleanControl(feature, state, i) : categoryControl(feature, state, i);
	const name = [h("bdi", feature.name), feature.unit && [" ", h("span.unit", feature.unit)]];
	const title = h(control.labelled ? "label.name" : "span.name", { id: `name${i}`, for: control.labelled && `f${i}` }, name);
	let last = state.row[i] ?? page.presets.find(p => p.row[i] !== null)?.row[i] ?? page.example[i] ?? (feature.kind === "number" ? feature.low : feature.values[0]);
	const unknown = feature.missing ? h("input", { type: "checkbox", "aria-label": `${feature.name} is unknown`,
		onchange: () => state.put(i, unknown.checked ? null : tidyRow([feature], [last])[0]) }) : null;
	const node = h("div", { class: `feature ${feature.kind}`, role: "group", "aria-labelledby": `name${i}` },
		h("div.line", title, unknown && h("label.unknown", unknown, "unknown"), control.box), control.node);
	let shown;
	function show() {
		const value = state.row[i];
		if (value === shown) return;
		shown = value;
		if (value !== null) last = value;
		if (unknown) unknown.checked = value === null;
		node.classList.toggle("isunknown", value === null);
		control.show(value);
	}
	show();
	return { node, show };
}

export function presetButtons(page, state) {
	const presets = page.presets.length ? page.presets : [{ title: "example", row: page.example }];
	const buttons = presets.map((preset, i) => h("button", { class: "preset", onclick: () => {
		state.set({ row: tidyRow(page.features, preset.row) });
	} }, page.task === "classes" && page.presets.length > 0 && classDot(placeOf(page, preset, i)), h("bdi", preset.title)));
	return h("div.presets", { role: "group", "aria-label": "Presets" }, h("span.soft", page.rows.length ? "Try a real row" : "Try"), buttons);
}

function placeOf(page, preset, i) {
	const place = page.labels.indexOf(preset.title);
	return place < 0 ? i : place;
}

export function buildAsk(node, page, state) {
	const rows = page.features.map((_, i) => featureRow(page, state, i));
	const few = rows.length > FEW_FEATURES + 3 ? FEW_FEATURES : rows.length, weight = i => page.features[i].importance ?? 0;
	const first = new Set([...rows.keys()].sort((a, b) => weight(b) - weight(a)).slice(0, few)), nodes = rows.map(row => row.node);
	fill(node, presetButtons(page, state), h("div.features", nodes.filter((_, i) => first.has(i))),
		few < rows.length && h("details.more", h("summary", `${rows.length - few} less important features`), h("div.features", nodes.filter((_, i) => !first.has(i)))));
	state.listen(changes => { if (changes.row) rows.forEach(row => row.show()); });
}

/** The large answer: `show(reply)` displays what the model answered, or why it did not. */
export function buildAnswer(node, page) {
	const say = afterwards(700, announce), most = 8;
	const name = h("p.verdict"), lines = h("div.chances"), notes = h("ul.notes");
	const shown = page.labels.map((label, place) => {
		const length = bar(0), text = h("span.amount");
		const row = h("div.chance", classDot(place),
			h("bdi.label", label), length, text);
		return { row, fill: length.firstChild, text };
	});
	if (page.task === "classes" && page.probabilities) fill(lines, shown.map(s => s.row));
	fill(node, h("p.soft.eyebrow", "The answer", page.target && [": ", h("bdi", page.target)]), name, lines, page.task === "number" && h("div.strip", { "aria-hidden": true }), notes);
	const asTitle = (place, label) => fill(name, classDot(place), h("bdi", label));
	function showClasses(detail) {
		const chances = page.labels.map(label => detail.probabilities?.[label] ?? 0), place = page.labels.indexOf(detail.label);
		asTitle(place, detail.label);
		const best = chances.map((_, i) => i).sort((a, b) => chances[b] - chances[a]).slice(0, most);
		shown.forEach(({ row, fill: inside, text }, i) => {
			row.hidden = shown.length > most && !best.includes(i);
			row.classList.toggle("minor", best.indexOf(i) > 2);
			row.classList.toggle("first", i === place);
			inside.style.width = `${100 * chances[i]}%`;
			inside.style.background = `var(--class${i})`;
			text.textContent = percent(chances[i]);
		});
		say(`${detail.label}${detail.probabilities ? `, ${percent(chances[place])}` : ""}`);
	}
	function showNumber(detail) {
		const unit = detail.unit || page.unit;
		const said = short(detail.prediction, 4, detail.spread);
		fill(name, h("span", said), unit && h("span.unit", unit));
		fill(lines, typeof detail.spread === "number" && h("p.soft", `± ${short(detail.spread, 3)} ${unit}`.trim(), " spread over the trees"));
		say(`${said} ${unit}`);
	}
	return function show({ status, detail }) {
		const good = status === 200 && detail;
		node.classList.toggle("failed", !good);
		if (!good) {
			fill(notes, h("li", status === 0 ? "The service does not answer. Is it still running?" : detail?.detail ?? `The service answers with status ${status}.`));
			say(notes.textContent);
			return;
		}
		(page.task === "classes" ? showClasses : showNumber)(detail);
		fill(notes, (detail.notes ?? []).map(note => h("li", h("b", h("bdi", note.field ?? "")), " ", note.detail)),
			detail.more_notes && h("li", `and ${detail.more_notes} more notes`));
	};
}

function shellWord(text) {
	return `'${text.replaceAll("'", "'\\''")}'`;
}

function pythonText(value) {
	if (value === null) return "None";
	if (typeof value === "boolean") return value ? "True" : "False";
	if (Array.isArray(value)) return `[${value.map(pythonText).join(", ")}]`;
	return JSON.stringify(value);
}

/** The request as curl and Python, and the very bytes that came back. */
export function buildRequest(node, model, keyed) {
	const { page } = model;
	if (!page.links.predict) return () => {};
	const url = new URL(`${page.links.predict}?detail=true`, document.baseURI).href;
	const part = (title, id) => {
		const code = h("code", { id });
		return { code, node: h("div.code", h("div.line", h("h3", title), copyButton(title, () => code.textContent)), h("pre", { tabindex: "0", "aria-label": title }, code)) };
	};
	const curl = part("curl", "curl"), python = part("Python", "python"), answer = part("answer JSON", "json");
	fill(node, curl.node, python.node, answer.node);
	return ({ request, text }) => {
		const row = JSON.parse(request).features, secret = keyed ? ` \\\n  -H "Authorization: Bearer $KEY"` : "";
		curl.code.textContent = `curl -s ${shellWord(url)} \\\n  -H 'Content-Type: application/json'${secret} \\\n  -d ${shellWord(request)}`;
		const head = keyed ? "import json, os, urllib.request" : "import json, urllib.request";
		const more = keyed ? `, "Authorization": "Bearer " + os.environ["KEY"]` : "";
		python.code.textContent = `${head}\n\nrow = ${pythonText(row)}\nrequest = urllib.request.Request(\n    ${JSON.stringify(url)},\n    json.dumps({"features": row}).encode(),\n    {"Content-Type": "application/json"${more}},\n)\nprint(json.load(urllib.request.urlopen(request)))`;
		answer.code.textContent = text;
	};
}
