// A place for one file: chosen or dropped, uploaded with a bar, told, and taken away again.
import { element, upload } from "./api.js";

const ACCEPTED = { image: "image/*", video: "video/*,.gif,.webp,.mkv", weights: ".safetensors" };

// `told` has id, label, kind and describedby; `held` are get() and set(file or null); `fault(why)` tells a refusal,
// `clear()` takes what was told away.
export function fileInput(told, held, most, fault, clear) {
  const shown = element("p", { class: "told", role: "status" });
  const bar = element("progress", { max: 1, value: 0, hidden: true, "aria-label": `Upload of ${told.label}` });
  const away = element("button", { type: "button", hidden: true, "aria-label": `Remove the file of ${told.label}`, onclick: () => { input.value = ""; held.set(null); show(); input.focus(); } }, "Remove");
  const show = () => {
    const file = held.get();
    shown.textContent = file ? `${file.name}: ${file.shown}` : "Drop a file here, or choose one.";
    away.hidden = !file;
  };
  const take = async (file) => {
    if (!file) return;
    clear();
    if (file.size > most) {
      input.value = "";
      return fault(`"${file.name}" is larger than ${Math.round(most / 2 ** 20)} MiB, the most that the page takes; choose a smaller file`);
    }
    bar.hidden = false;
    shown.textContent = `Reading ${file.name} …`;
    try {
      held.set(await upload(file, told.kind, (share) => { bar.value = share; }));
    } catch (refused) {
      input.value = "";
      fault(refused.why);
    }
    show();
    bar.hidden = true;
  };
  const input = element("input", { type: "file", id: told.id, accept: ACCEPTED[told.kind], "aria-label": told.labelled ? null : told.label, "aria-describedby": told.describedby, onchange: () => take(input.files[0]) });
  const drop = element("div", { class: "drop" }, input, shown, bar, away);
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  }
  show();
  return drop;
}
