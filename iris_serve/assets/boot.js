/** Starts the served page, and asks for a key if need be. */
import { byId, h } from "./dom.js";
import { getJson, reach, remoteModel } from "./remote.js";
import { start, watchPromotions } from "./main.js";

const KEPT = "iris-serve-key";

function readData(id) {
	const node = byId(id);
	return node ? JSON.parse(node.textContent) : null;
}

async function pageOf(key) {
	const ready = await getJson("readyz", "");
	const version = new URLSearchParams(location.search).get("v") ?? ready.version;
	return getJson(`models/${encodeURIComponent(ready.model)}/versions/${encodeURIComponent(version)}/page`, key);
}

/** Links that need a key are fetched with it and kept as files. */
function keyedLinks(key) {
	for (const link of document.querySelectorAll("a[data-keyed]")) link.addEventListener("click", async event => {
		event.preventDefault();
		const response = await reach(link.getAttribute("href"), key, { headers: { Accept: link.dataset.keyed } });
		if (!response.ok) return alert((await response.json()).detail);
		const kept = h("a", { href: URL.createObjectURL(await response.blob()), download: link.getAttribute("download") || link.dataset.name || "" });
		kept.click();
		setTimeout(() => URL.revokeObjectURL(kept.href), 10_000);
	});
}

/** The page that the service made is shown first; building more of it comes afterwards. */
function painted() {
	return new Promise(done => {
		requestAnimationFrame(() => setTimeout(done));
		setTimeout(done, 200);  // a page in a hidden tab is never painted
	});
}

async function begin(page, key, given) {
	await painted();
	const history = getJson(page.links.versions, key);
	const versions = given ?? (({ versions, aliases }) => versions.map(({ version }) => ({ version, current: version === aliases.current?.version })))(await history);
	for (const [id, path] of [["to-version", page.links.version], ["to-notebook", page.links.notebook], ["export", page.links.export]]) {
		const link = byId(id);
		if (link && path) { link.setAttribute("href", path); link.hidden = false; }
	}
	if (key) keyedLinks(key);
	const openVersion = async v => remoteModel(await getJson(`${page.links.versions}/versions/${encodeURIComponent(v)}/page`, key), key);
	const state = start(remoteModel(page, key), { versions, history, openVersion, keyed: Boolean(key) });
	const current = versions.find(v => v.current)?.version ?? (page.current ? page.version : null);
	watchPromotions(state, current, () => getJson("readyz", ""), openVersion);
}

function askForKey() {
	const form = byId("key-form"), box = byId("key"), problem = byId("key-problem");
	async function enter(key) {
		try {
			const page = await pageOf(key);
			sessionStorage.setItem(KEPT, key);
			byId("locked").hidden = true;
			byId("workbench").hidden = false;
			document.title = `${page.name}: what the model knows`;
			byId("title").textContent = page.name;
			await begin(page, key);
		} catch (error) {
			if (error.status === 401) sessionStorage.removeItem(KEPT);
			problem.textContent = error.message;
		}
	}
	form.addEventListener("submit", event => { event.preventDefault(); enter(box.value); });
	const kept = sessionStorage.getItem(KEPT);
	if (kept) enter(kept);
}

const given = readData("page-data");
if (given) begin(given, "", readData("versions-data"));
else if (byId("key-form")) askForKey();
