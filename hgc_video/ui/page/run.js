// One run: its progress with time left and preview, and what it made.
import { ask, element, remember, span } from "./api.js";

const at = (id) => document.getElementById(id);
let followed = 0; // a later run takes the place of an earlier one on this page

export async function follow(id) {
  const mine = ++followed;
  remember("task", id);
  at("running").hidden = false;
  at("result").hidden = true;
  at("preview").hidden = true;
  at("cancel").onclick = () => ask(`/api/tasks/${id}/cancel`, {}).then(show, tellGone);
  let previews = 0;
  while (mine === followed) {
    let task;
    try { task = await ask(`/api/tasks/${id}`); } catch (fault) { return tellGone(fault); }
    if (mine !== followed) return;
    show(task);
    if (task.previews > previews) {
      previews = task.previews;
      at("preview").src = `/api/tasks/${id}/preview?at=${previews}`;
      at("preview").hidden = false;
    }
    if (["done", "failed", "cancelled"].includes(task.state)) return task.state === "done" ? showResult(task) : undefined;
    await new Promise((resolve) => setTimeout(resolve, 400));
  }
}

export function showResult(task) {
  const file = (name) => `/api/tasks/${task.id}/files/${name}`;
  at("running").hidden = true;
  at("result").hidden = false;
  at("clip").src = file("clip.mp4");
  for (const [link, name] of [["save-clip", "clip.mp4"], ["save-shot", "shot.yaml"], ["save-report", "report.json"]]) {
    at(link).href = `${file(name)}?save`;
    at(link).download = name;
  }
  at("report").textContent = task.result.summary;
  at("warnings").replaceChildren(...task.warnings.map((one) => element("li", {}, one)));
}

function tellGone(fault) {
  remember("task", null);
  at("run-told").textContent = fault.why;
  at("cancel").hidden = true;
}

function show(task) {
  const bar = at("run-bar"), over = ["failed", "cancelled"].includes(task.state);
  at("cancel").hidden = over;
  at("cancel").disabled = task.stopping;
  bar.hidden = over;
  if (task.state === "running" && task.steps) bar.value = task.share; else bar.removeAttribute("value");
  at("run-told").textContent = words(task);
  if (over) at("preview").hidden = true;
}

export function words(task) {
  const left = task.seconds_left === null ? "" : `, about ${span(task.seconds_left)} left`;
  switch (task.state) {
    case "queued": return "waiting for the runs before it";
    case "running": if (task.stopping) return "stopping when the step at work is done …";
      return task.steps ? `${task.stage}: step ${task.step} of ${task.steps}${left}` : `${task.stage} …`;
    case "done": return `done in ${span(task.seconds)}`;
    case "cancelled": return "cancelled; nothing was kept";
    default: return `failed: ${task.why}`;
  }
}
