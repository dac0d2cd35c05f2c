// The form, made from the options that the server tells; holds what is given in this tab.
import { element, remember, remembered } from "./api.js";
import { fileInput } from "./files.js";
import { groupField, rowsField, sent } from "./rows.js";

let spec, changed;
const held = { values: {}, uploads: {}, rows: {}, groups: {}, extract: "", parameters: {}, ...remembered("form") };

export const uploads = () => held.uploads;
export const presets = () => spec.presets;

export function values() {
  const told = { ...held.values };
  for (const [name, file] of Object.entries(held.uploads)) told[name] = file.id;
  for (const field of spec.fields) {
    const rows = sent(held.rows[field.name] ?? [], field.columns), group = held.groups[field.name] ?? {};
    if (rows.length) told[field.name] = rows;
    if (Object.keys(group).length) told[field.name] = group;
  }
  if (held.extract && held.uploads.control_video) {
    const given = Object.entries(held.parameters).map(([name, value]) => `${name}=${value}`);
    told.extract = held.extract + (given.length ? `:${given.join(",")}` : "");
  }
  return told;
}

export function build(made, told, onChange) {
  spec = made;
  changed = () => { remember("form", held); onChange(); };
  const first = element("section", {}, element("h2", {}, "What to make"));
  for (const field of spec.fields.filter((one) => !one.panel)) {
    first.append(fieldOf(field));
    if (field.name === "control") first.append(element("div", { id: "extraction" }));
  }
  told.append(first);
  const panels = [...new Set(spec.fields.map((one) => one.panel))].filter(Boolean);
  const more = element("section", {}, element("h2", {}, "More options"));
  for (const panel of panels) {
    const fields = spec.fields.filter((one) => one.panel === panel).map(fieldOf);
    more.append(element("details", {}, element("summary", {}, panel), ...fields));
  }
  told.append(more);
  drawExtraction();
  told.addEventListener("submit", (event) => event.preventDefault());
}

// `stays` is for a file that was refused: it is told until another one is chosen.
export function tellFault(fault, stays = false) {
  clearFaults();
  const input = fault.field && document.getElementById(`field-${fault.field}`);
  const place = fault.field && document.getElementById(`fault-${fault.field}`);
  if (!place) return false;
  place.textContent = fault.why;
  place.toggleAttribute("data-stays", stays);
  input?.setAttribute("aria-invalid", "true");
  place.closest("details")?.setAttribute("open", "");
  return true;
}

export function clearFaults(all = false) {
  for (const one of document.querySelectorAll("#form .fault")) {
    if (!all && one.hasAttribute("data-stays")) continue;
    one.textContent = "";
    one.removeAttribute("data-stays");
    document.getElementById(one.id.replace("fault-", "field-"))?.removeAttribute("aria-invalid");
  }
}

function fieldOf(field) {
  const id = `field-${field.name}`;
  const about = [element("p", { class: "help", id: `help-${field.name}` }, field.help),
    element("p", { class: "fault", id: `fault-${field.name}`, "aria-live": "polite" })];
  const tools = { changed: () => changed(), most: spec.most_upload_nbytes, fault: (why) => tellFault({ why, field: field.name }, true), clear: () => clearFaults(true) };
  if (field.kind === "rows") return element("div", { class: "field" }, rowsField(field, held.rows[field.name] ??= [], tools), ...about);
  if (field.kind === "group") return element("div", { class: "field" }, groupField(field, held.groups[field.name] ??= {}, tools), ...about);
  const input = field.kind === "video" || field.kind === "image" ? uploadInput(field, id, tools) : plainInput(field, id);
  const label = element("label", { for: id }, field.label);
  if (field.kind === "flag") return element("div", { class: "field" }, element("label", {}, input, ` ${field.label}`), ...about);
  return element("div", { class: "field" }, label, input, ...about);
}

function plainInput(field, id) {
  const common = { id, name: field.name, "aria-describedby": `help-${field.name} fault-${field.name}` };
  const now = held.values[field.name] ?? field.default;
  const shown = now === null || typeof now === "object" ? "" : now;
  const set = (value) => { setValue(field, value); changed(); };
  if (field.kind === "long text") {
    const made = element("textarea", { ...common, rows: 3, oninput: (event) => set(event.target.value) });
    made.value = shown;
    return made;
  }
  if (field.kind === "flag") {
    const made = element("input", { ...common, type: "checkbox", onchange: (event) => set(event.target.checked) });
    made.checked = Boolean(now);
    return made;
  }
  if (field.kind === "choice") {
    const made = element("select", { ...common, onchange: (event) => { set(event.target.value); if (field.name === "control") drawExtraction(true); } },
      ...(field.default === null ? [element("option", { value: "" }, "default")] : []),
      ...field.choices.map((one) => element("option", { value: one }, one)));
    made.value = shown;
    return made;
  }
  const number = field.kind.endsWith("number");
  const made = element("input", {
    ...common, type: number ? "number" : "text", step: field.kind === "number" ? "any" : number ? 1 : null,
    min: field.minimum, max: field.maximum, placeholder: field.default === null ? "default" : null,
    list: field.suggestions.length ? `list-${field.name}` : null,
    oninput: (event) => set(number && event.target.value !== "" ? Number(event.target.value) : event.target.value),
  });
  made.value = shown;
  if (!field.suggestions.length) return made;
  return element("div", {}, made, element("datalist", { id: `list-${field.name}` }, ...field.suggestions.map((one) => element("option", { value: one }))));
}

function setValue(field, value) {
  if ((value === "" && field.name !== "seed") || value === field.default) delete held.values[field.name];
  else held.values[field.name] = value;
}

function uploadInput(field, id, tools) {
  const set = (file) => {
    if (file) held.uploads[field.name] = file; else delete held.uploads[field.name];
    if (field.name === "control_video") { if (file) follow(file); drawExtraction(); }
    changed();
  };
  const told = { id, label: field.label, labelled: true, kind: field.kind, describedby: `help-${field.name} fault-${field.name}` };
  return fileInput(told, { get: () => held.uploads[field.name], set }, tools.most, tools.fault, tools.clear);
}

// What was seen of a clip decides what it is given as, until somebody says otherwise.
function follow(file) {
  held.parameters = {};
  held.values.control = file.kind;
  if (file.inverted) held.values.invert_depth = true; else delete held.values.invert_depth;
  held.extract = file.raw ? file.kind : "";
  document.getElementById("field-control").value = file.kind;
}

function drawExtraction(kindChanged = false) {
  const place = document.getElementById("extraction");
  if (!place) return;
  const kind = document.getElementById("field-control").value;
  const fitting = spec.preprocessors.filter((one) => one.control === kind);
  if (kindChanged && held.extract) { held.extract = fitting[0]?.name ?? ""; held.parameters = {}; }
  if (!held.uploads.control_video) return place.replaceChildren();
  const choose = (event) => { held.extract = event.target.value; held.parameters = {}; drawExtraction(); changed(); };
  const select = element("select", { id: "field-extract", onchange: choose, "aria-describedby": "help-extract fault-extract" },
    element("option", { value: "" }, "nothing: it is a control clip already"),
    ...fitting.map((one) => element("option", { value: one.name }, `${one.name}, ${one.about}`)));
  select.value = held.extract;
  const chosen = fitting.find((one) => one.name === held.extract);
  place.replaceChildren(element("div", { class: "field" }, element("label", { for: "field-extract" }, "Take the control from it with"), select,
    element("p", { class: "help", id: "help-extract" }, "a raw video needs its control taken from it; a clip of skeletons or depth is one"),
    element("p", { class: "fault", id: "fault-extract", "aria-live": "polite" })),
    ...(chosen ? [element("details", {}, element("summary", {}, "How it is taken"), ...chosen.parameters.map(parameterOf))] : []));
}

function parameterOf(told) {
  const flag = told.type === "boolean", number = ["number", "integer"].includes(told.type);
  const set = (value) => { if (String(value) === String(told.default)) delete held.parameters[told.name]; else held.parameters[told.name] = value; changed(); };
  const read = (event) => set(flag ? event.target.checked : event.target.value);
  const attributes = { id: `parameter-${told.name}`, onchange: read, min: told.minimum, max: told.maximum };
  const input = told.choices ? element("select", attributes, ...told.choices.map((one) => element("option", {}, one)))
    : element("input", { ...attributes, type: flag ? "checkbox" : number ? "number" : "text", step: told.type === "number" ? "any" : null });
  const now = held.parameters[told.name] ?? told.default;
  if (flag) input.checked = Boolean(now); else input.value = now;
  return element("div", { class: "field" }, element("label", { for: attributes.id }, told.name.replaceAll("_", " ")), input, element("p", { class: "help" }, told.description));
}
