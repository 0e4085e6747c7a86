/** Colours that the colour-blind can tell apart. */

import { h } from "./dom.js";

const LIGHT = ["#0b6cab", "#d98200", "#0a8f6c", "#b8568f", "#4aa3d8", "#c24a0a", "#9a8a00", "#6257a5"];
const DARK = ["#5aa9e6", "#f2b33d", "#3cc29a", "#e39ac2", "#8ccbf2", "#f0814f", "#e0d04a", "#a79be0"];
const RAMP = ["#00204c", "#2a406c", "#575c6d", "#7f7b78", "#a69d75", "#d2c060", "#ffe945"];
const DIFFERENCE = ["#c24a0a", "#e8e4da", "#0b6cab"];

export function isDark() {
	return matchMedia("(prefers-color-scheme: dark)").matches;
}

export function rgb(hex) {
	return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
}

function hueColour(turn) {
	const wave = shift => Math.round(255 * (0.52 + 0.26 * Math.cos(2 * Math.PI * (turn + shift))));
	return `#${[0, 1 / 3, 2 / 3].map(s => wave(s).toString(16).padStart(2, "0")).join("")}`;
}

/** The colour of the class at `place`; beyond eight, hues a golden angle apart. */
export function classColour(place) {
	return (isDark() ? DARK : LIGHT)[place] ?? hueColour(place * 0.618);
}

export function classDot(place) {
	return h("i", { class: `dot shape${place % 4}`, "aria-hidden": true, look: { background: `var(--class${place})` } });
}

export function mix(from, to, share) {
	return from.map((x, i) => Math.round(x + (to[i] - x) * share));
}

export function along(stops, share) {
	const at = Math.max(0, Math.min(1, share)) * (stops.length - 1), low = Math.min(stops.length - 2, Math.floor(at));
	return mix(rgb(stops[low]), rgb(stops[low + 1]), at - low);
}

export function numberColour(share) {
	return along(isDark() ? ["#4a6cb0", ...RAMP.slice(2)] : RAMP, share);
}

export function differenceColour(share) {
	return along(isDark() ? [DARK[5], "#20262e", DARK[0]] : DIFFERENCE, share);
}

export function css(colour) {
	return `rgb(${colour.join(",")})`;
}

export function ground() {
	return rgb(isDark() ? "#1b2027" : "#ffffff");
}

/** Trace the mark of a class: circle, square, triangle, diamond, so that colour is not all. */
export function traceShape(context, place, x, y, r) {
	context.beginPath();
	if (place % 4 === 1) context.rect(x - r * 0.88, y - r * 0.88, r * 1.76, r * 1.76);
	else if (place % 4 === 0) context.arc(x, y, r, 0, 7);
	else {
		const corners = place % 4 === 2 ? [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]] : [[0, -1.3], [1.1, 0], [0, 1.3], [-1.1, 0]];
		corners.forEach(([dx, dy], i) => (i ? context.lineTo : context.moveTo).call(context, x + dx * r, y + dy * r));
		context.closePath();
	}
}
