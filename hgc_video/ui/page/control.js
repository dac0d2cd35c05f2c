// The control of the chosen clip beside it, frame by frame.
import { ask } from "./api.js";
import { tellFault, uploads, values } from "./form.js";

const at = (id) => document.getElementById(id);
const NAMES = ["control_video", "control", "extract", "model", "num_frames", "frames", "every", "loop", "fps", "height", "width", "invert_depth", "source_fps", "force"];
let asked = "", current = null, shown = 0;

export async function renew() {
  const given = values(), clip = uploads().control_video;
  at("control-view").hidden = !clip;
  if (!clip) { asked = ""; return; }
  const form = Object.fromEntries(NAMES.filter((name) => name in given).map((name) => [name, given[name]]));
  const key = JSON.stringify(form);
  if (key === asked) return;
  asked = key;
  if (current) ask(`/api/tasks/${current}/cancel`, {}).catch(() => {});
  current = null;
  if (!given.extract) return showFrames(clip.num_frames, (n) => [`/api/uploads/${clip.id}/frames/${n}`, null], clip.shown);
  tell("Taking the control from the clip …");
  try {
    let task = await ask("/api/controls", form);
    current = task.id;
    while (!["done", "failed", "cancelled"].includes(task.state)) {
      tell(task.state === "queued" ? "Waiting for the run before it …" : "Taking the control from the clip …");
      await new Promise((resolve) => setTimeout(resolve, 300));
      if (asked !== key) return;
      task = await ask(`/api/tasks/${task.id}`);
    }
    current = null;
    if (asked !== key || task.state === "cancelled") return;
    if (task.state === "failed") return failed({ why: task.why, field: "extract" });
    const found = task.result;
    const people = found.num_people ? `, ${found.num_people} ${found.num_people > 1 ? "people" : "person"} found` : "";
    const empty = found.num_empty ? `, nobody in ${found.num_empty} frames` : "";
    const told = `${found.num_frames} frames at ${found.fps.toPrecision(3)} fps${people}${empty}`;
    showFrames(found.num_frames, (n) => [`/api/uploads/${clip.id}/frames/${found.taken[n]}`, `/api/tasks/${task.id}/control/${n}`], [told, ...task.warnings].join("; "));
  } catch (fault) {
    if (asked === key) failed(fault);
  }
}

function failed(fault) {
  tell("There is no control: see what is said beside the field.");
  if (!tellFault(fault)) tell(fault.why);
}

function tell(text) { at("control-view").querySelector(".told").textContent = text; }

function showFrames(count, pictures, told) {
  tell(told);
  const slider = at("frame");
  slider.max = count - 1;
  slider.value = Math.min(shown, count - 1);
  slider.oninput = () => {
    shown = Number(slider.value);
    const [source, control] = pictures(shown);
    at("frame-told").textContent = `${shown + 1} of ${count}`;
    at("source-frame").src = source;
    at("control-frame").parentElement.hidden = !control;
    at("source-frame").nextElementSibling.textContent = control ? "Video" : "Control clip";
    if (control) at("control-frame").src = control;
  };
  slider.oninput();
}
