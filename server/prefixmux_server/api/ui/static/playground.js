// One input, several tasks and the bare model, each a stream of its own side by side.
import { Answer } from "./answer.js";
import { call, make, tint } from "./common.js";

const at = (id) => document.getElementById(id);
const ask = at("ask");
const MAX = Number(ask.dataset.max);
const IDS = ask.dataset.ids === "true";
let tasks = ask.dataset.columns.split(" ").filter(Boolean);
let running = new Set();

/** Empty fields are left out: the server's and the version's own defaults hold then. */
function parameters() {
  const given = {};
  for (const field of ask.querySelectorAll(".parameters input"))
    if (field.value.trim()) given[field.name] = Number(field.value);
  // Beyond what a number of a script can hold; the digits go out as they were written.
  const seed = at("seed").value.trim();
  if (seed && !Number.isSafeInteger(given.seed)) throw new RangeError(`The seed is a whole number up to ${Number.MAX_SAFE_INTEGER} here.`);
  const stop = at("stop").value.split("\n").filter(Boolean).map((line) => line.replaceAll("\\n", "\n"));
  if (stop.length) given.stop = stop;
  return given;
}

function inputOf() {
  const text = at("input").value;
  if (!IDS) return text;
  const ids = text.trim().split(/[\s,]+/).map(Number);
  if (!ids.every(Number.isSafeInteger)) throw new RangeError("This model has no tokenizer: write token ids, with spaces between.");
  return ids;
}

async function run() {
  const columns = [...tasks, ...(at("bare").checked ? [null] : [])];
  at("problem").textContent = "";
  let input, given;
  try {
    if (!columns.length) throw new RangeError("Add a task, or tick the bare model.");
    if (columns.length > MAX) throw new RangeError(`At most ${MAX} columns run side by side.`);
    [input, given] = [inputOf(), parameters()];
  } catch (error) {
    at("problem").textContent = error.message;
    return;
  }
  stopAll();
  const answers = columns.map((task) => new Answer(task));
  const mine = (running = new Set(answers));
  at("answers").replaceChildren(...answers.map((answer) => answer.card));
  busy(true);
  await Promise.all(answers.map((answer) => answer.run(input, given).finally(() => mine.delete(answer))));
  if (mine === running) busy(false);
}

function stopAll() {
  for (const answer of running) answer.stop();
}

function busy(on) {
  at("stop-all").disabled = !on;
  at("overall").textContent = on ? "The answers are coming." : "All answers have ended.";
}

function draw() {
  const chips = tasks.map((task) => {
    const chip = make("li", "chip"), name = make("span", "task", task), off = make("button", "", "×");
    name.dataset.task = task;
    tint(name, task);
    off.type = "button";
    off.setAttribute("aria-label", `Take ${task} out`);
    off.addEventListener("click", () => {
      tasks = tasks.filter((other) => other !== task);
      draw();
      at("add").focus();
    });
    chip.append(name, off);
    return chip;
  });
  at("columns").replaceChildren(...chips);
  const search = new URLSearchParams(tasks.map((task) => ["task", task]));
  history.replaceState(null, "", tasks.length ? `?${search}` : location.pathname);
}

function add() {
  const task = at("add").value.trim();
  if (!task) return;
  at("problem").textContent = "";
  if (!/^[a-z0-9][a-z0-9._-]{0,63}$/.test(task)) {
    at("problem").textContent = "No task has such a name.";
    return;
  }
  if (tasks.length >= MAX) {
    at("problem").textContent = `At most ${MAX} columns run side by side.`;
    return;
  }
  if (!tasks.includes(task)) tasks.push(task);
  at("add").value = "";
  draw();
}

/** Names that begin to match, where the key may see them. */
async function suggest() {
  if (ask.dataset.read !== "true") return;
  const query = new URLSearchParams({ limit: "20", query: at("add").value.trim().slice(0, 64) });
  const { items } = await (await call(`/prefixes?${query}`)).json();
  at("known").replaceChildren(...items.map(({ task_id }) => new Option(task_id, task_id)));
}

ask.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
at("stop-all").addEventListener("click", stopAll);
at("more").addEventListener("click", add);
at("add").addEventListener("input", () => suggest().catch(() => {}));
at("add").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  add();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") stopAll();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask.requestSubmit();
});
addEventListener("pagehide", stopAll);
draw();
at("run").disabled = false;
suggest().catch(() => {});
