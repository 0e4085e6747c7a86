/** Small helpers that everything else is made of. */

/** Make `tag` with its classes ("div.card") of properties, if there are any, and children. */
function make(create, tag, parts) {
	const [name, ...classes] = tag.split("."), node = create(name), [first, ...rest] = parts;
	const plain = first && Object.getPrototypeOf(first) === Object.prototype;
	if (name === "button") node.type = "button";
	if (classes.length) node.setAttribute("class", classes.join(" "));
	if (plain) dress(node, first);
	node.append(...(plain ? rest : parts).flat(2).filter(isContent));
	return node;
}

function dress(node, properties) {
	for (const [key, value] of Object.entries(properties)) {
		if (value === null || value === undefined || value === false) continue;
		if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
		else if (key === "look") Object.entries(value).forEach(([k, v]) => node.style.setProperty(k, v));
		else if (key === "value" || key === "checked") node[key] = value;
		else node.setAttribute(key, value === true && !key.startsWith("aria-") ? "" : value);
	}
}

function isContent(child) {
	return child !== null && child !== undefined && child !== false;
}

/** An HTML element: `h("a.quiet", { href }, "text", node)`; texts never become markup. */
export function h(tag, ...parts) {
	return make(name => document.createElement(name), tag, parts);
}

export function svg(tag, ...parts) {
	return make(name => document.createElementNS("http://www.w3.org/2000/svg", name), tag, parts);
}

export function byId(id) {
	return document.getElementById(id);
}

export function fill(node, ...children) {
	node.replaceChildren(...children.flat(2).filter(isContent));
}

/** `number` in few digits, but in whole units at least, and so that differences like `scale` show. */
export function short(number, digits = 4, scale = 0) {
	if (typeof number !== "number") return String(number ?? "unknown");
	const size = Math.abs(number), places = x => Math.floor(Math.log10(x)) || 0;
	if (scale > 0 && size) digits = Math.max(digits, Math.min(17, places(size) - places(scale) + 3));
	if (size && (size < 1e-4 || size >= 1e9)) return String(Number(number.toPrecision(digits)));
	return Number(number.toPrecision(Math.max(digits, places(size || 1) + 1)))
		.toLocaleString("en-US", { maximumFractionDigits: 10, useGrouping: size >= 1e4 });
}

/** Both ends of a range, such that they differ. */
export function ends(low, high) {
	return [low, high].map(end => short(end, 4, high - low));
}

/** A number with few letters, as on an axis. */
export function compact(number) {
	return Math.abs(number) >= 1e4 ? number.toLocaleString("en-US", { notation: "compact", maximumSignificantDigits: 3 }) : short(number);
}

export function percent(share) {
	const digits = share > 0 && share < 1 && (share > 0.99 || share < 0.01) ? 1 : 0;
	return `${(100 * share).toFixed(digits)}%`;
}

export function valueText(feature, value) {
	if (value === null) return "unknown";
	if (feature.kind !== "boolean") return String(value);
	return typeof (feature.values[0] ?? true) !== "boolean" ? String(feature.values[+value]) : value ? "yes" : "no";
}

export function afterwards(wait, action) {
	let timer = 0;
	return (...given) => {
		clearTimeout(timer);
		timer = setTimeout(() => action(...given), wait);
	};
}

/**
 * Coalesce: `action` runs once at a time, every `gap` milliseconds, and `idle` times as long as it
 * ran it rests; of the calls in between only the newest is run, so answers come in order.
 */
export function newest(gap, action, idle = 0) {
	let busy = false, waiting = null;
	return async function ask(...given) {
		waiting = given;
		if (busy) return;
		busy = true;
		while (waiting) {
			const now = waiting, start = performance.now();
			waiting = null;
			try { await action(...now); } catch (error) { console.warn(error); }
			const took = performance.now() - start, rest = Math.max(gap - took, idle * took);
			if (rest > 0) await new Promise(done => setTimeout(done, rest));
		}
		busy = false;
	};
}

export async function copyText(text) {
	try {
		await navigator.clipboard.writeText(text);
	} catch {
		const area = h("textarea", { value: text, class: "unseen" });
		document.body.append(area);
		area.select();
		document.execCommand("copy");
		area.remove();
	}
}

export function copyButton(label, text, title = "Copy") {
	const button = h("button", { class: "quiet", "aria-label": `Copy ${label}`, onclick: async () => {
		await copyText(text());
		button.textContent = "Copied";
		announce(`${label} copied`);
		setTimeout(() => { button.textContent = title; }, 1500);
	} }, title);
	return button;
}

export function announce(text) {
	const line = byId("said");
	if (line && line.textContent !== text) line.textContent = text;
}

/** A table with a caption and headings; cells are texts or nodes. It scrolls where it is too wide. */
export function table(caption, heads, rows, look = "") {
	const box = h("div.scroll", h("table", { class: look },
		h("caption", caption),
		h("thead", h("tr", heads.map(head => h("th", { scope: "col" }, head)))),
		h("tbody", rows.map(row => h("tr", row.map((cell, i) => i ? h("td", cell) : h("th", { scope: "row" }, cell)))))));
	new ResizeObserver(() => {
		if (box.scrollWidth > box.clientWidth) dress(box, { tabindex: 0, role: "group", "aria-label": caption });
	}).observe(box);
	return box;
}

export function bar(share, colour = "") {
	return h("span.bar", { "aria-hidden": true },
		h("span", { look: { width: `${100 * Math.max(0, Math.min(1, share))}%`, ...(colour && { background: colour }) } }));
}
