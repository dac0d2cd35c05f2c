// Requests to the server of this page. A refusal is thrown as {why, field}.

const OURS = { "x-hgc-video": "page" }; // which another site cannot send

export async function ask(path, body, signal) {
  const asked = body === undefined ? {} : { method: "POST", headers: OURS, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, { ...asked, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw { why: "the server does not answer; is hgc-video ui still running?", field: "" };
  }
  const told = await answer.json().catch(() => ({ why: `the server answered ${answer.status}`, field: "" }));
  if (!answer.ok) throw told;
  return told;
}

export function upload(file, kind, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/api/uploads?kind=${kind}&name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("x-hgc-video", "page");
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onerror = () => reject({ why: "the upload was cut off; try again", field: "" });
    request.onload = () => {
      let told = { why: `the server answered ${request.status}` };
      try { told = JSON.parse(request.responseText); } catch { /* told as it is */ }
      (request.status === 200 ? resolve : reject)(told);
    };
    request.send(file);
  });
}

export function element(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...inside.filter((one) => one !== null && one !== undefined));
  return made;
}

export const remember = (name, value) => sessionStorage.setItem(name, JSON.stringify(value)); // of this tab alone
export const remembered = (name) => JSON.parse(sessionStorage.getItem(name) ?? "null");

export function span(seconds) {
  if (seconds < 120) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
export const tera = (macs) => (macs < 1e12 ? `${(macs / 1e9).toPrecision(3)} G` : `${(macs / 1e12).toPrecision(3)} T`);
export const percent = (share) => `${(100 * share).toFixed(1)} %`;
export const bytes = (n) => (n < 2 ** 30 ? `${Math.round(n / 2 ** 20)} MiB` : `${(n / 2 ** 30).toFixed(1)} GiB`);
