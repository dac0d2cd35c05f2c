// Fields of several rows, as LoRAs with their scales, and groups of numbers, as the motion of a clip.
import { element } from "./api.js";
import { fileInput } from "./files.js";

// `rows` is the list that is held, changed in place; `tools` are changed(), most (bytes), fault(why) and clear().
export function rowsField(field, rows, tools) {
  const list = element("div", {});
  const one = field.label.replace(/s$/, "");
  const draw = () => list.replaceChildren(...rows.map((row, at) => entry(row, at)));
  const entry = (row, at) => element("div", { class: "entry", role: "group", "aria-label": `${one} ${at + 1}` },
    ...field.columns.map((column) => cell(field, column, row, at, { ...tools, draw })),
    element("button", { type: "button", id: `remove-${field.name}-${at}`, "aria-label": `Remove ${one} ${at + 1}`, onclick: () => { rows.splice(at, 1); tools.clear(); draw(); tools.changed(); add.focus(); } }, "Remove the row"));
  const add = element("button", { type: "button", id: `add-${field.name}`, "aria-label": `Add to ${field.label}`, onclick: () => { rows.push({}); draw(); list.lastChild.querySelector("input, select, textarea").focus(); } }, "Add a row");
  draw();
  return frame(field, list, add);
}

export function groupField(field, values, tools) {
  return frame(field, ...field.columns.map((column) => cell(field, column, values, 0, tools)));
}

function frame(field, ...inside) {
  return element("fieldset", { class: "field", id: `field-${field.name}`, "aria-describedby": `help-${field.name} fault-${field.name}` }, element("legend", {}, field.label), ...inside);
}

// What is sent of rows: files by their upload, nothing that is empty.
export function sent(rows, columns) {
  const kinds = Object.fromEntries(columns.map((column) => [column.name, column.kind]));
  return rows.map((row) => Object.fromEntries(Object.entries(row)
    .filter(([name, value]) => name in kinds && value !== "" && value !== null)
    .map(([name, value]) => [name, typeof value === "object" ? { upload: value.id } : value])));
}

function cell(field, column, row, at, tools) {
  const id = `${field.name}-${at}-${column.name}`;
  const set = (value) => { if (value === null || value === "") delete row[column.name]; else row[column.name] = value; tools.changed(); };
  if (column.kind === "video" || column.kind === "weights") return fileCell(field, column, row, id, set, tools);
  const label = element("label", { for: id }, column.label);
  if (column.kind === "flag") {
    const box = element("input", { type: "checkbox", id, onchange: () => set(box.checked) });
    box.checked = Boolean(row[column.name]);
    return element("label", {}, box, ` ${column.label}`);
  }
  if (column.kind === "choice") {
    const select = element("select", { id, onchange: () => set(select.value) }, ...column.choices.map((one) => element("option", {}, one)));
    select.value = row[column.name] ?? column.default;
    return element("div", {}, label, select);
  }
  const number = column.kind.endsWith("number");
  const input = column.kind === "long text" ? element("textarea", { id, rows: 2 })
    : element("input", { id, type: number ? "number" : "text", step: column.kind === "number" ? "any" : number ? 1 : null, min: column.minimum, max: column.maximum, placeholder: column.default });
  input.value = row[column.name] ?? "";
  input.addEventListener("input", () => set(number && input.value !== "" ? Number(input.value) : input.value));
  return element("div", {}, label, input);
}

// Weights may also lie on this machine or in a repository; a clip's own look says what it is given as.
function fileCell(field, column, row, id, set, tools) {
  const file = () => (typeof row[column.name] === "object" ? row[column.name] : null);
  const take = (given) => {
    if (given && column.kind === "video") Object.assign(row, { kind: given.kind, raw: given.raw });
    set(given);
    tools.draw();
  };
  const label = `${column.label} of ${field.label}`;
  const place = fileInput({ id, label, kind: column.kind }, { get: file, set: take }, tools.most, tools.fault, tools.clear);
  const picture = column.kind === "video" && file() ? element("img", { src: `/api/uploads/${file().id}/frames/0`, alt: `First frame of ${file().name}`, class: "small" }) : null;
  if (column.kind === "video") return element("div", {}, place, picture);
  const named = element("input", { id: `${id}-named`, type: "text", placeholder: "or a file on this machine, or a repository", "aria-label": `${label}: a file on this machine, or a repository`, hidden: Boolean(file()), oninput: () => set(named.value) });
  named.value = file() ? "" : row[column.name] ?? "";
  return element("div", {}, place, named);
}
