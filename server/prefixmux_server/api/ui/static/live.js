// The batch of this moment, asked for twice a second while somebody looks.
import { call, make, tint } from "./common.js";

const at = (id) => document.getElementById(id);
const EVERY_MS = 500;
const POINTS = 120; // a minute
const rows = new Map();
let points = [];
let paused = false;

class Row {
  constructor({ task_id, own }) {
    this.item = make("li", own ? (task_id ? "" : "bare") : "other");
    const name = own ? task_id ?? "bare model" : "another tenant";
    const shown = make("span", "name task", name);
    if (own && task_id) {
      tint(this.item, task_id);
      tint(shown, task_id);
      shown.dataset.task = task_id;
    } else if (own) shown.classList.add("bare");
    this.track = make("span", "track");
    this.parts = ["prefix", "prompt", "decode"].map((part) => make("i", part));
    this.track.append(...this.parts);
    this.tokens = make("span", "tokens");
    this.item.append(shown, this.track, this.tokens);
  }

  show({ prefix_tokens, prompt_tokens, decode_tokens }, most) {
    const told = [prefix_tokens, prompt_tokens, decode_tokens];
    told.forEach((tokens, place) => (this.parts[place].style.width = `${(100 * tokens) / most}%`));
    this.tokens.textContent = told.join(" + ");
    this.tokens.setAttribute("aria-label", `${told[0]} tokens of prefix, ${told[1]} of prompt, ${told[2]} generated`);
  }
}

/** Own rows by their ids; those of others have none and are told apart by their place. */
function drawRows(found) {
  const total = (row) => row.prefix_tokens + row.prompt_tokens + row.decode_tokens;
  // Steps of a power of two, so that bars grow and do not all shrink with each token.
  const most = 2 ** Math.ceil(Math.log2(Math.max(32, ...found.map(total))));
  const seen = new Set();
  let others = 0;
  const items = found.map((row) => {
    const key = row.own ? row.id : `other ${others++}`;
    if (!rows.has(key)) rows.set(key, new Row(row));
    rows.get(key).show(row, most);
    seen.add(key);
    return rows.get(key).item;
  });
  for (const key of rows.keys()) if (!seen.has(key)) rows.delete(key);
  const now = at("batch").children;
  if (items.length !== now.length || items.some((item, place) => item !== now[place])) at("batch").replaceChildren(...items);
  at("idle").hidden = found.length > 0;
}

function figure(id, value, digits = 0) {
  at(id).textContent = value === null ? "–" : value.toFixed(digits);
}

function drawFigures(batch) {
  figure("steps", batch.steps_per_second, batch.steps_per_second < 10 ? 1 : 0);
  figure("step", batch.step_seconds === null ? null : batch.step_seconds * 1000, 1);
  figure("rows", batch.rows_per_step, 1);
  figure("tasks", batch.tasks_per_step, 1);
  figure("tokens", batch.tokens_per_second);
  figure("running", batch.running);
  figure("waiting", batch.waiting);
  at("kv").textContent = batch.kv_used === null ? "–" : `${(100 * batch.kv_used).toFixed(0)} %`;
}

/** Newest at the right; the two lines have each its own scale. */
function drawHistory(batch) {
  points = [...points, [batch.rows_per_step ?? 0, batch.steps_per_second]].slice(-POINTS);
  const most = [0, 1].map((which) => Math.max(1, ...points.map((point) => point[which])));
  const x = (place) => 600 - ((points.length - 1 - place) * 600) / (POINTS - 1);
  const y = (point, which) => 78 - (74 * point[which]) / most[which];
  const line = (which) => points.map((point, place) => `${x(place).toFixed(1)},${y(point, which).toFixed(1)}`);
  const area = line(0);
  at("history").querySelector("path").setAttribute("d", `M${x(0).toFixed(1)},80 L${area.join(" L")} L600,80 Z`);
  at("history").querySelector("polyline").setAttribute("points", line(1).join(" "));
  at("most-rows").textContent = most[0].toFixed(most[0] < 10 ? 1 : 0);
  at("most-steps").textContent = most[1].toFixed(0);
}

async function look() {
  if (paused || document.hidden) return;
  try {
    const batch = await (await call("/live", { signal: AbortSignal.timeout(5000) })).json();
    if (paused) return;
    drawRows(batch.rows);
    drawFigures(batch);
    drawHistory(batch);
    const more = batch.more ? `, ${batch.more} more rows` : "";
    at("fresh").textContent = `step ${batch.step}${more}`;
  } catch {
    at("fresh").textContent = "The server does not answer; trying again.";
  }
}

/** One question at a time, whatever an answer takes. */
async function watch() {
  for (;;) {
    await look();
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  at("pause").textContent = paused ? "Go on" : "Pause";
});
watch();
