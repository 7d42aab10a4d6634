// One input, several tasks and the bare model, each a stream of its own side by side.
import { call, explain, make, post, Refused, tint } from "./common.js";
import { events } from "./events.js";

const at = (id) => document.getElementById(id);
const ask = at("ask");
const MAX = Number(ask.dataset.max);
const IDS = ask.dataset.ids === "true";
const BARE = "bare model";
let tasks = ask.dataset.columns.split(" ").filter(Boolean);
let running = new Set();

/** One answer as it comes. Owns its card and its request. */
class Answer {
  constructor(task) {
    this.task = task;
    this.card = at("answer").content.firstElementChild.cloneNode(true);
    this.abort = new AbortController();
    this.count = 0;
    const title = this.part("h2");
    title.textContent = task ?? BARE;
    this.card.setAttribute("aria-label", task ?? BARE);
    this.card.classList.toggle("bare", !task);
    title.classList.toggle("bare", !task);
    if (task) {
      title.dataset.task = task;
      tint(this.card, task);
      tint(title, task);
    }
    this.part(".stop").addEventListener("click", () => this.stop());
  }

  part(selector) {
    return this.card.querySelector(selector);
  }

  stop() {
    this.abort.abort();
  }

  async run(input, parameters) {
    this.phase("waiting", true);
    this.began = performance.now();
    try {
      const body = { task_id: this.task, input, parameters, stream: true };
      const answer = await post("/generate", body, this.abort.signal);
      for await (const [name, data] of events(answer)) {
        if (name === "token") this.token(data);
        else if (name === "done") return this.done(data);
        else throw new Refused(data.error);
      }
      throw new Error("cut");
    } catch (error) {
      if (this.abort.signal.aborted) this.phase("stopped");
      else {
        this.phase("failed");
        explain(this.part(".problem"), error);
      }
    }
  }

  token({ text, token_ids }) {
    const now = performance.now();
    if (!this.count) {
      this.first = now;
      this.part(".ttft").textContent = `${Math.round(now - this.began)} ms`;
      this.phase("streaming", true);
    }
    this.count += token_ids.length;
    this.part(".output").append(text ?? `${token_ids.join(" ")} `);
    this.part(".tokens").textContent = this.count;
    this.pace(this.count - 1, (now - this.first) / 1000);
  }

  /** The server's own figures stand at the end: nothing of the network is in them. */
  done({ outputs, usage, timing, prefix_digest, prefixes, seed, version }) {
    const [output] = outputs;
    if (output.text !== null) this.part(".output").textContent = output.text;
    this.part(".ttft").textContent = `${Math.round(timing.ttft_s * 1000)} ms`;
    this.part(".tokens").textContent = usage.generated_tokens;
    this.part(".prompt").textContent = usage.prompt_tokens;
    this.part(".phase").title = `seed ${seed}`;
    this.pace(usage.generated_tokens - 1, timing.total_s - timing.ttft_s);
    this.part(".prefix").textContent = prefixes.length ? `${usage.prefix_tokens} tokens, v${version}` : "none";
    const digest = this.part(".digest");
    digest.textContent = prefix_digest ? prefix_digest.slice(7, 19) : "–";
    digest.title = prefix_digest ?? "";
    this.phase({ eos: "ended", stop: "stop string", length: "at its length" }[output.finish_reason]);
  }

  pace(tokens, seconds) {
    if (tokens > 0 && seconds > 0) this.part(".pace").textContent = (tokens / seconds).toFixed(tokens / seconds < 10 ? 1 : 0);
  }

  phase(words, busy = false) {
    this.part(".phase").textContent = words;
    this.part(".stop").hidden = !busy;
    this.card.setAttribute("aria-busy", String(busy));
  }
}

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
suggest().catch(() => {});
