// The chart of steps by layers for what the form holds; every step's reason on hover, and as a list.
import { ask, element } from "./api.js";
import { values } from "./form.js";

let asked = "";

export async function renew(place) {
  const given = values(), key = JSON.stringify(given);
  if (key === asked) return;
  asked = key;
  place.replaceChildren(element("p", { class: "told", role: "status" }, "Planning …"));
  try {
    const told = await ask("/api/schedule", given);
    if (asked !== key) return;
    const chart = element("div", { class: "chart", tabindex: 0, role: "img", "aria-label": "Chart of steps by layers; each step is told in the list below" });
    const drawn = new DOMParser().parseFromString(told.svg, "image/svg+xml").documentElement;
    chart.append(document.importNode(drawn, true));
    place.replaceChildren(element("section", {}, element("h2", {}, "What is computed at every step, and why"),
      element("p", { class: "help" }, "Of the clip in the tab Make. Rest the pointer on a step to read its reason."),
      element("p", { class: "help narrow" }, "The chart goes on to the right; what every step does stands below it too."), chart,
      element("details", {}, element("summary", {}, "Every step in words"), element("ol", { start: 0 }, ...told.steps.map((one) => element("li", {}, one.replace(/^step \d+: /, "").replaceAll("\n", "; ")))))));
  } catch (fault) {
    asked = "";
    place.replaceChildren(element("section", {}, element("h2", {}, "Schedule"), element("p", { class: "told" }, `There is no schedule yet: ${fault.why}`)));
  }
}
