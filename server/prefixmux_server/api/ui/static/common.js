// What every page's script shares: colours, calls and errors. Texts go in as text, never as markup.
const API = "/ui/api";

/** Gives `node` the task's colour, the same on every page and every day: by FNV-1a of its name. */
export function tint(node, name) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  node.style.setProperty("--hue", (hash % 24) * 15);
  node.style.setProperty("--shade", `${((hash >>> 8) % 3) * 7 - 7}%`);
}

export function paint(root = document) {
  for (const found of root.querySelectorAll("[data-task]"))
    tint(found, found.dataset.task);
}

export function make(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** An error of the server as it told it. */
export class Refused extends Error {
  constructor(detail) {
    super(detail.message);
    this.detail = detail;
  }
}

/** The body of an answer that is no success. Who is no longer signed in is shown the way. */
export function refusal(status, text) {
  if (status === 401) location.assign("/ui");
  try {
    return new Refused(JSON.parse(text).error);
  } catch {
    return new Refused({ code: `http_${status}`, message: "The server gave no reason.", param: null });
  }
}

export async function call(path, options = {}) {
  const answer = await fetch(API + path, { credentials: "same-origin", ...options });
  if (!answer.ok) throw refusal(answer.status, await answer.text());
  return answer;
}

export function post(path, body, signal) {
  const headers = { "content-type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

export function facts(pairs) {
  const list = make("dl", "facts");
  for (const [name, value] of pairs) {
    if (value === null || value === undefined || value === "") continue;
    const entry = make("div"), told = make("dd");
    told.append(make("code", "", String(value)));
    entry.append(make("dt", "", name), told);
    list.append(entry);
  }
  return list;
}

/** Shows an error whole: the sentence, and what it is known by. */
export function explain(place, error) {
  const detail = error instanceof Refused ? error.detail : null;
  const box = make("div", "notice bad");
  box.append(make("p", "", detail ? detail.message : "The server could not be reached; look whether it runs, and try again."));
  if (detail)
    box.append(facts(["code", "reason", "param", "request_id"].map((name) => [name.replace("_", " "), detail[name]])));
  place.replaceChildren(box);
}

paint();
