// The runs of this page, and the batch folder that it was started with.
import { ask, element, percent, span } from "./api.js";
import { words } from "./run.js";

let place, open, drawn = "";

export function build(section, openTask) {
  place = section;
  open = openTask;
  section.append(element("section", {}, element("h2", {}, "Runs of this page"), element("div", { id: "runs" })),
    element("section", {}, element("h2", {}, "Batch folder"), element("div", { id: "batch" })));
}

export async function renew(tasks) {
  const batch = await ask("/api/batch").catch((fault) => ({ folder: null, why: fault.why }));
  const now = JSON.stringify([tasks, batch]);
  if (now === drawn) return; // what has the focus keeps it
  drawn = now;
  const focus = document.activeElement?.id;
  place.querySelector("#runs").replaceChildren(runs(tasks.filter((task) => task.kind !== "control").reverse()));
  place.querySelector("#batch").replaceChildren(...folder(batch, tasks));
  if (focus) document.getElementById(focus)?.focus();
}

// Below phone width a table is a list of cards, in which each value stands behind its heading; the roles keep it a table.
function table(names, rows) {
  const heads = names.map((one) => element("th", { scope: "col", role: "columnheader" }, one));
  const line = (cells) => element("tr", { role: "row" }, ...cells.map((one, at) => element("td", { role: "cell", "data-head": names[at] || null }, ...[one].flat())));
  return element("table", { class: "cards", role: "table" }, element("tr", { role: "row" }, ...heads), ...rows.map(line));
}
function button(id, text, path) { return element("button", { type: "button", id, onclick: () => ask(path, {}).catch((fault) => alert(fault.why)) }, text); }

function runs(tasks) {
  if (!tasks.length) return element("p", { class: "told" }, "Nothing was made yet. Runs are made one at a time; others wait here.");
  const what = (task) => {
    if (["queued", "running"].includes(task.state)) return button(`stop-${task.id}`, "Cancel", `/api/tasks/${task.id}/cancel`);
    return task.state === "done" && task.kind === "clip" ? element("button", { type: "button", id: `open-${task.id}`, onclick: () => open(task) }, "Open") : "";
  };
  return table(["Clip", "Preset", "State", ""], tasks.map((task) => [task.title, task.kind === "clip" ? task.preset : "", words(task), what(task)]));
}

function folder(batch, tasks) {
  if (!batch.folder) return [element("p", { class: "told" }, batch.why ?? "None is open. hgc-video ui --batch FOLDER shows the folder of a batch here.")];
  const counts = Object.entries(batch.counts).filter(([, count]) => count).map(([state, count]) => `${count} ${state}`).join(", ");
  const working = tasks.find((task) => task.kind === "batch" && ["queued", "running"].includes(task.state));
  const told = (job) => {
    if (job.state === "running") return `running: step ${job.step} of ${job.steps || "?"}`;
    return job.state === "done" ? `done in ${span(job.seconds)}, ${percent(job.macs_saved)} of the MACs saved` : `${job.state}${job.why ? `: ${job.why}` : ""}`;
  };
  const what = (job) => {
    if (job.state === "done") return element("a", { href: `/api/batch/${job.id}/clip`, target: "_blank" }, "Open");
    return !["queued", "running"].includes(job.state) ? "" : button(`job-${job.id}`, "Cancel", `/api/batch/${job.id}/cancel`);
  };
  return [element("p", { class: "told" }, `${batch.folder}: ${counts || "no jobs"}`),
    element("div", { class: "row" }, button("batch-retry", "Try failed ones again", "/api/batch/retry"),
      working ? button("batch-stop", "Stop", `/api/tasks/${working.id}/cancel`) : button("batch-go-on", "Work it off", "/api/batch/go-on")),
    batch.jobs.length ? table(["Job", "Result", "State", ""], batch.jobs.map((job) => [String(job.id), job.name, told(job), what(job)])) : ""];
}
