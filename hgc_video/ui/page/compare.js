// The same clip under several presets: side by side in step, one over another, and what each cost.
import { ask, element, percent, remember, remembered, span, tera } from "./api.js";
import { presets, values } from "./form.js";
import { words } from "./run.js";

const MOST = 3;
let place, followed = 0;

export function build(section) {
  place = section;
  const boxes = presets().map((name) => element("label", {}, element("input", { type: "checkbox", name: "preset", value: name, checked: ["off", "balanced"].includes(name), onchange: limit }), ` ${name}`));
  section.append(element("section", {}, element("h2", {}, "The clip of the tab Make under several presets"),
    element("div", { class: "row", role: "group", "aria-label": "Presets, two or three" }, ...boxes),
    element("p", { class: "help" }, "Two or three. “off” computes everything; with it the others are measured against the uncached clip."),
    element("p", { class: "fault", id: "compare-fault", role: "alert" }),
    element("button", { type: "button", class: "main", id: "compare-run", onclick: run }, "Make and compare")),
  element("div", { id: "compared" }, element("p", { class: "told" }, "Nothing is compared yet.")));
  const before = remembered("comparison");
  if (before) follow(before);
}

const chosen = () => [...place.querySelectorAll("[name=preset]:checked")].map((one) => one.value);

function limit() {
  for (const box of place.querySelectorAll("[name=preset]")) box.disabled = chosen().length >= MOST && !box.checked;
}

async function run() {
  const button = place.querySelector("#compare-run");
  button.disabled = true;
  place.querySelector("#compare-fault").textContent = "";
  try {
    const made = await ask("/api/comparisons", { values: values(), presets: chosen() });
    follow(made.name);
  } catch (fault) {
    place.querySelector("#compare-fault").textContent = fault.why;
  }
  button.disabled = false;
}

async function follow(name) {
  const mine = ++followed, told = place.querySelector("#compared");
  remember("comparison", name);
  while (mine === followed) {
    let rows;
    try { ({ rows } = await ask(`/api/comparisons/${name}`)); } catch (fault) { return told.replaceChildren(element("p", { class: "fault" }, fault.why)); }
    if (mine !== followed) return;
    if (!rows.length) { remember("comparison", null); return; }
    if (rows.every((row) => row.state === "done")) return show(told, rows);
    const over = rows.every((row) => ["done", "failed", "cancelled"].includes(row.state));
    const stop = () => rows.forEach((row) => ask(`/api/tasks/${row.id}/cancel`, {}).catch(() => {}));
    const list = rows.map((row) => element("li", {}, `${row.preset}: ${words(row)} `, row.state === "running" ? element("progress", row.steps ? { max: 1, value: row.share } : { max: 1 }) : null));
    told.replaceChildren(element("section", {}, element("ul", {}, ...list), over ? null : element("button", { type: "button", onclick: stop }, "Cancel")));
    if (over) return;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function show(told, rows) {
  const source = (row) => `/api/tasks/${row.id}/files/clip.mp4`;
  const video = (row) => element("video", { src: source(row), muted: true, loop: true, playsinline: true, preload: "auto", "aria-label": `Clip with ${row.preset}` });
  const clips = rows.map((row) => element("figure", {}, video(row), element("figcaption", {}, row.preset)));
  const two = [element("video", { muted: true, loop: true, playsinline: true, preload: "auto", "aria-label": "Clip below" }), element("video", { muted: true, loop: true, playsinline: true, preload: "auto", "aria-label": "Clip above" })];
  const choices = [0, 1].map((n) => element("select", { "aria-label": n ? "Right clip" : "Left clip", onchange: place2 }, ...rows.map((row, i) => element("option", { value: i, selected: i === Math.min(n, rows.length - 1) }, row.preset))));
  const wipe = element("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Where the left clip ends and the right one begins", id: "wipe", oninput: () => { two[1].style.clipPath = `inset(0 0 0 ${wipe.value}%)`; } });
  function place2() { two.forEach((one, n) => { one.src = source(rows[choices[n].value]); }); }
  place2();
  wipe.dispatchEvent(new Event("input"));
  told.replaceChildren(
    element("section", {}, element("h2", {}, "Side by side, in step"), element("div", { class: "clips" }, ...clips), player([...clips.map((one) => one.firstChild), ...two])),
    element("section", {}, element("h2", {}, "One over the other"), element("div", { class: "row" }, element("label", {}, "Left ", choices[0]), element("label", {}, "Right ", choices[1])), element("div", { class: "over-each-other" }, ...two), wipe),
    element("section", {}, element("h2", {}, "What each cost"), table(rows), plot(rows)));
}

// One clock for all clips: the first one's; the others are put right where they drift.
function player(videos) {
  const play = element("button", { type: "button", id: "play-all", onclick: () => (videos[0].paused ? start() : stop()) }, "Play");
  const seek = element("input", { type: "range", min: 0, max: 1000, value: 0, "aria-label": "Time", id: "time-all", oninput: () => { stop(); videos.forEach((one) => { one.currentTime = (seek.value / 1000) * (one.duration || 0); }); } });
  const start = () => { play.textContent = "Pause"; videos.forEach((one) => one.play()); requestAnimationFrame(follow); };
  const stop = () => { play.textContent = "Play"; videos.forEach((one) => one.pause()); };
  function follow() {
    if (videos[0].paused) return;
    for (const one of videos.slice(1)) if (Math.abs(one.currentTime - videos[0].currentTime) > 0.06) one.currentTime = videos[0].currentTime;
    seek.value = (1000 * videos[0].currentTime) / (videos[0].duration || 1);
    requestAnimationFrame(follow);
  }
  return element("div", { class: "row" }, play, seek);
}

const IDENTICAL = 140, HIGHEST = 80; // dB: no difference is left; the top of the plot
const decibel = (row) => (row.reference ? "reference" : row.psnr_db > IDENTICAL ? "identical" : `${row.psnr_db.toFixed(1)} dB`);

function table(rows) {
  const head = ["Preset", "MACs", "Saved", "Time", "PSNR"].map((one) => element("th", { scope: "col" }, one));
  const lines = rows.map((row) => element("tr", {}, ...[row.preset, tera(row.result.macs), percent(row.result.macs_saved), span(row.result.seconds), decibel(row)].map((one) => element("td", {}, one))));
  const reference = rows.find((row) => row.reference).preset;
  return element("div", { class: "scroll" }, element("p", { class: "help" }, `PSNR is to the clip with ${reference}, which took most MACs.`), element("table", {}, element("tr", {}, ...head), ...lines));
}

function plot(rows) {
  const points = rows.filter((row) => !row.reference), width = 480, height = 240, left = 52, below = 42;
  const right = (row) => row.result.macs > row.result.macs_baseline / 2; // its name stands to the left of it
  const quality = (row) => Math.min(row.psnr_db, HIGHEST);
  const best = Math.max(40, ...points.map(quality)) + 5, least = Math.min(20, ...points.map(quality));
  const x = (row) => left + ((width - left - 70) * row.result.macs) / row.result.macs_baseline;
  const y = (db) => 12 + ((height - below - 12) * (best - db)) / (best - least);
  const svg = (tag, attributes, text) => { const made = document.createElementNS("http://www.w3.org/2000/svg", tag); for (const [k, v] of Object.entries(attributes)) made.setAttribute(k, v); if (text) made.textContent = text; return made; };
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": "PSNR against MACs; the numbers are in the table" });
  made.append(svg("path", { d: `M${left} 8V${height - below}H${width - 10}`, stroke: "currentColor", fill: "none" }));
  const every = [10, 20, 50].find((one) => (best - least) / one <= 7) ?? 50;
  for (let db = Math.ceil(least / every) * every; db <= best; db += every) made.append(svg("text", { x: left - 8, y: y(db) + 4, "text-anchor": "end" }, String(db)));
  for (const share of [0, 0.5, 1]) made.append(svg("text", { x: left + (width - left - 70) * share, y: height - below + 16, "text-anchor": "middle" }, `${100 * share} %`));
  made.append(svg("text", { x: (width + left) / 2, y: height - 6, "text-anchor": "middle" }, "MACs of the uncached run"), svg("text", { x: 14, y: 90, transform: "rotate(-90 14 90)", "text-anchor": "middle" }, "PSNR, dB"));
  for (const row of points) made.append(svg("circle", { cx: x(row), cy: y(quality(row)), r: 5, fill: "var(--mark)" }), svg("text", { x: x(row) + (right(row) ? -9 : 9), y: y(quality(row)) + 4, "text-anchor": right(row) ? "end" : "start" }, row.psnr_db > IDENTICAL ? `${row.preset}, identical` : row.preset));
  return made;
}
