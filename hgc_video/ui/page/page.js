// The page: its tabs, what a run would take as the form changes, and what the server is at.
import { ask, bytes, element, percent, remembered, span, tera } from "./api.js";
import * as compare from "./compare.js";
import * as control from "./control.js";
import * as form from "./form.js";
import * as queue from "./queue.js";
import * as run from "./run.js";
import * as schedule from "./schedule.js";

const at = (id) => document.getElementById(id);
const tabs = [...document.querySelectorAll("[role=tab]")];
let waiting, asking, tasks = [];

function select(tab, focus = false) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    at(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  if (tab.id === "tab-schedule") schedule.renew(at("schedule"));
  if (tab.id === "tab-queue") queue.renew(tasks);
}

for (const [number, tab] of tabs.entries()) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", (event) => {
    const to = { ArrowRight: number + 1, ArrowLeft: number - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    select(tabs[(to + tabs.length) % tabs.length], true);
  });
}

function changed() {
  clearTimeout(waiting);
  waiting = setTimeout(() => { estimate(); control.renew(); }, 350);
}

async function estimate() {
  asking?.abort();
  asking = new AbortController();
  form.clearFaults();
  at("fault").textContent = "";
  at("estimate-told").textContent = "Planning …";
  try {
    const told = await ask("/api/estimate", form.values(), asking.signal);
    const bound = told.adaptive ? "at most " : "";
    const rows = [["Clip", `${told.num_frames} frames of ${told.width}x${told.height}, ${told.steps} steps`],
      ["Time", told.seconds === null ? "known when the model is loaded" : `about ${span(told.seconds)}`],
      ["MACs", `${bound}${tera(told.macs)} of ${tera(told.macs_baseline)} uncached, ${percent(told.macs_saved)} saved`],
      ["Memory", told.peak_nbytes === null ? "not predicted for this model" : `about ${bytes(told.peak_nbytes)} at most for the model and its cache`]];
    at("estimate").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
    at("estimate-told").textContent = "";
    if (told.seconds === null) setTimeout(changed, 1500);
  } catch (fault) {
    if (fault.name === "AbortError") return;
    at("estimate").replaceChildren();
    const empty = !form.uploads().control_video && !form.uploads().video;
    at("estimate-told").textContent = empty ? "Choose a clip and write a prompt to see what a run takes." : "A run with these values would be refused.";
    if (!empty) tell(fault);
  }
}

function tell(fault) {
  if (!form.tellFault(fault)) at("fault").textContent = fault.why;
}

async function start() {
  at("run").disabled = true;
  form.clearFaults();
  at("fault").textContent = "";
  try {
    const task = await ask("/api/clips", form.values());
    run.follow(task.id);
    at("running").scrollIntoView({ block: "nearest" });
  } catch (fault) {
    tell(fault);
    const refused = document.querySelector("#form [aria-invalid]");
    (refused?.matches("fieldset") ? refused.querySelector("input, select, textarea, button") : refused)?.focus();
  }
  at("run").disabled = false;
}

async function watch() {
  try {
    const told = await ask("/api/state");
    tasks = told.tasks;
    const loading = told.model.state === "loading", ready = told.model.state === "ready";
    at("model").querySelector("progress").hidden = !loading;
    at("model").querySelector("span").textContent = loading ? "Loading the model …" : ready ? "The model is loaded" : `The model cannot be loaded: ${told.model.state}`;
    const count = (state) => tasks.filter((task) => task.state === state && task.kind !== "control").length;
    at("line").textContent = count("running") ? `${count("running")} running, ${count("queued")} waiting` : "";
    if (!at("queue").hidden) await queue.renew(tasks);
  } catch (fault) {
    at("line").textContent = fault.why;
  }
  setTimeout(watch, document.hidden ? 5000 : 1000);
}

form.build(await ask("/api/form"), at("form"), changed);
at("run").addEventListener("click", start);
compare.build(at("compare"));
queue.build(at("queue"), (task) => { select(at("tab-make"), true); run.showResult(task); });
const own = remembered("task");
if (own) run.follow(own);
select(tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash) ?? tabs[0]);
changed();
watch();
