/** `start` joins the parts of the page. */
import { afterwards, announce, byId, copyButton, h, newest } from "./dom.js";
import { classColour } from "./colour.js";
import { State } from "./state.js";
import { buildAnswer, buildAsk, buildRequest } from "./ask.js";
import { buildFlip, findFlips } from "./flip.js";
import { buildMap } from "./map.js";
import { buildTrust } from "./trust.js";
import { buildVersions } from "./versions.js";
import { buildVotes } from "./votes.js";

const EVERY = 1000 / 60;

function keepAddress(state, local) {
	let changed = false;
	const write = () => {
		if (changed) try { history.replaceState(null, "", (local ? "#" : "?") + state.link()); } catch { /* a file may not */ }
	};
	const soon = afterwards(350, write);
	state.listen(changes => {
		if ("flips" in changes) return;
		changed = true;
		soon();
	});
	addEventListener("pagehide", write);
}

/** Ask again while sliding, and what takes longer once the row rests. */
function keepAsking(model, state, show, rest) {
	let turn = 0;
	const asking = newest(EVERY, async row => {
		let reply;
		try { reply = await model.ask(row); } catch { reply = { status: 0, text: "", detail: null, request: JSON.stringify({ features: row }) }; }
		document.documentElement.dataset.answers = String(++turn);
		show(reply);
	});
	state.listen(changes => {
		if (!changes.row) return;
		asking(state.row);
		rest();
	});
	asking(state.row);
	rest();
}

function flipping(model, state, node) {
	const show = buildFlip(node, model.page, state);
	let turn = 0;
	const search = newest(0, async mine => {
		node.setAttribute("aria-busy", "true");
		const found = await findFlips(model, state.row, () => mine === turn).catch(error => ({ problem: error.message }));
		if (mine !== turn) return;
		node.setAttribute("aria-busy", "false");
		show(found);
		state.set({ flips: found.flips });
	});
	const soon = afterwards(180, () => search(turn));
	return () => { turn++; state.flips = null; soon(); };
}

/** Go to another version, with the values of the features that it has, too. */
async function goTo(version, state, openVersion) {
	try {
		location.search = state.link((await openVersion(version)).page);
	} catch {
		location.search = `v=${version}`;
	}
}

function chooseVersion(page, state, { versions = [], openVersion }) {
	const list = byId("version");
	if (!list.options.length) list.append(...versions.map(v => h("option", { value: v.version }, v.version + (v.current ? ", in service" : ""))));
	list.value = page.version;
	list.parentNode.hidden = versions.length < 2;
	list.addEventListener("change", () => {
		if (state.beside === list.value) state.beside = page.version;
		goTo(list.value, state, openVersion);
	});
}

/**
 * Start the page for `model`. `options`: `versions` (a list of `{version, current}`), `history` (a
 * promise of what the service tells of them), `openVersion(v)` (a promise of another model),
 * `keyed` (is a key sent?), `local` (no service).
 * Parts whose links are null, or that need a service, stay hidden.
 */
export function start(model, options = {}) {
	const { page } = model, local = options.local ?? "local" in document.documentElement.dataset;
	const state = new State(page, local ? location.hash.slice(1) : location.search);
	const root = document.documentElement;
	const reveal = (id, wanted) => { const part = byId(id); if (part) part.hidden = !wanted; return wanted && part; };
	const recolour = () => page.classes.forEach((_, i) => root.style.setProperty(`--class${i}`, classColour(i)));
	recolour();
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
	byId("asking").addEventListener("submit", event => event.preventDefault());
	buildAsk(byId("controls"), page, state);
	const answered = buildAnswer(byId("answer"), page);
	const requested = reveal("request", page.links.predict && !local) ? buildRequest(byId("request-body"), model, options.keyed) : () => {};
	const votes = reveal("votes", page.trees && (page.links.paths || local)) ? buildVotes(byId("votes-body"), model, state, document.querySelector("#answer .strip")) : () => {};
	if (reveal("see", page.features.length > 1)) buildMap(byId("map"), model, state);
	const panel = document.querySelector(".ask");
	new ResizeObserver(() => panel.style.setProperty("--tall", `${panel.offsetHeight}px`)).observe(panel);
	reveal("flip", true);
	const flips = flipping(model, state, byId("flip-body"));
	reveal("trust", true);
	buildTrust(byId("trust-body"), page);
	if (reveal("versions", !local)) buildVersions(byId("versions-body"), model, state, options);
	reveal("export", page.links.export && !local);
	byId("share")?.append(copyButton("Link", () => { const there = new URL(location.href); there[local ? "hash" : "search"] = state.link(); return there.href; }, "Copy link"));
	chooseVersion(page, state, options);
	keepAddress(state, local);
	keepAsking(model, state, reply => { answered(reply); if (reply.request) requested(reply); }, () => { votes(); flips(); });
	return state;
}

/** Say when another version comes into service while the page is open. */
export function watchPromotions(state, current, look, openVersion, every = 5000) {
	let told = current;
	setInterval(async () => {
		if (document.hidden) return;
		try {
			const { version } = await look();
			if (!version || version === told) return;
			told = version;
			const line = byId("promotion");
			line.replaceChildren(`Version ${version} is now in service. `, h("a", { href: `./?v=${version}`, onclick: event => { event.preventDefault(); goTo(version, state, openVersion); } }, `Open version ${version}`));
			line.hidden = false;
			announce(`Version ${version} is now in service`);
		} catch { /* asked again in a moment */ }
	}, every);
}
