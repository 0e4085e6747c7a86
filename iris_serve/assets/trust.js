/** Why to trust the model, or not: where it comes from, and how well it does. */
import { bar, ends, fill, h, percent, short, svg, table } from "./dom.js";

export const SCORE_NAMES = {
	accuracy: "Accuracy", balanced_accuracy: "Balanced accuracy", log_loss: "Log loss", mae: "Mean absolute error",
	rmse: "Root mean squared error", r2: "R²",
};
const SHARES = ["accuracy", "balanced_accuracy"];

export function scoreText(name, value) {
	return value === null || value === undefined ? "–" : SHARES.includes(name) ? percent(value) : short(value, 4);
}

export function whenText(iso) {
	const time = new Date(iso);
	return Number.isNaN(time.getTime()) ? String(iso) : `${time.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" })}, ${time.toISOString().slice(11, 16)} UTC`;
}

function digest(text) {
	return text && h("code", { title: text }, text.slice(0, 16));
}

function facts(page) {
	const { data } = page, pairs = [
		["Version", page.version + (!page.links.version ? "" : page.current ? ", in service" : ", not in service")],
		["Made", page.made && h("time", { datetime: page.made }, whenText(page.made))],
		["Made by", page.made_by], ["Estimator", page.estimator?.split(".").at(-1)], ["Trees", page.trees],
		["Served as", page.frozen ? "a frozen forest" : page.served],
		["Data", data && [h("bdi", data.file ?? "a table"), data.rows ? `, ${short(data.rows)} rows` : ""]],
		["Learned from", page.train_rows !== null && `${short(page.train_rows)} rows`],
		["Held out", page.test_rows !== null && `${short(page.test_rows)} rows`],
		["Data SHA-256", digest(data?.sha256)],
		["Card SHA-256", digest(page.card)],
		["Golden rows", page.golden ? `${page.golden} recorded answers were asked again when this version was opened, and agreed` : null],
	];
	return h("dl.facts", pairs.filter(([, value]) => value !== null && value !== undefined && value !== false).map(([name, value]) => h("div", h("dt", name), h("dd", value))));
}

function scoresNode(page) {
	const names = Object.keys(page.scores ?? {});
	if (!names.length) return null;
	const rows = names.map(name => [SCORE_NAMES[name] ?? name,
		h("span.withbar", h("b", scoreText(name, page.scores[name])), SHARES.includes(name) && bar(page.scores[name])),
		page.baseline?.[name] === undefined ? "–" : h("span.withbar", scoreText(name, page.baseline[name]), SHARES.includes(name) && bar(page.baseline[name], "var(--soft)"))]);
	const always = page.task === "classes" ? "always the most frequent class" : "always the mean";
	return table(`On ${page.test_rows ?? "the"} held-out rows, beside a baseline (${always})`, ["Score", "Model", "Baseline"], rows);
}

function confusionNode(page) {
	if (!page.confusion || page.labels.length > 30) return null;
	const cells = page.confusion.map((row, i) => {
		const total = Math.max(1, row.reduce((a, b) => a + b, 0));
		return [h("bdi", page.labels[i]), ...row.map((n, j) => h("span", { class: i === j ? "right" : n ? "wrong" : "none", look: { "--share": n / total } }, String(n)))];
	});
	return table("Held-out rows: the true class down, the answer across", ["true", ...page.labels.map(label => h("bdi", label))], cells, "confusion");
}

function residualsNode(page) {
	if (!page.residuals) return null;
	const { edges, counts } = page.residuals, low = edges[0], both = ends(low, edges.at(-1)), range = edges.at(-1) - low || 1;
	const density = counts.map((n, i) => n / (edges[i + 1] - edges[i] || 1)), most = Math.max(...density) || 1;  // bins differ in width
	const bars = density.map((n, i) => svg("rect", { x: (edges[i] - low) / range * 100, y: 40 - 38 * n / most, width: (edges[i + 1] - edges[i]) / range * 98, height: 38 * n / most }));
	const zero = -low / range * 100;
	return h("figure.residuals", h("figcaption", "Predicted minus true, on held-out rows"),
		svg("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": `Residuals from ${both.join(" to ")}` }, bars, zero > 0 && zero < 100 && svg("line", { x1: zero, x2: zero, y1: 0, y2: 40 })),
		h("div.ends", both.map(end => h("span", end))));
}

function importanceNode(page) {
	const known = page.features.filter(f => typeof f.importance === "number").sort((a, b) => b.importance - a.importance).slice(0, 12);
	if (!known.length) return null;
	const most = known[0].importance || 1;
	return table("Importance of each feature to the forest (decrease of impurity)", ["Feature", "Share"],
		known.map(f => [h("bdi", f.name), h("span.withbar", percent(f.importance), bar(f.importance / most))]));
}

export function buildTrust(node, page) {
	fill(node, [facts(page), scoresNode(page), confusionNode(page) ?? residualsNode(page), importanceNode(page)].filter(Boolean).map(part => h("div.card", part)));
}
