// One answer of the playground, drawn as its tokens come.
import { explain, post, Refused, tint } from "./common.js";
import { events } from "./events.js";

const BARE = "bare model";

/** One answer as it comes. Owns its card and its request. */
export class Answer {
  constructor(task) {
    this.task = task;
    this.card = document.getElementById("answer").content.firstElementChild.cloneNode(true);
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

  /** A version may be set to have several outputs: the first is shown. */
  token({ index, text, token_ids }) {
    if (index) return;
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
