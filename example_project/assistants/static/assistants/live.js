// What happens in a conversation elsewhere, as it happens: long polling of its log.

import { ApiError, api } from "./api.js";

const WAIT = 25; // seconds that the server may hold an answer
const HIDDEN_PAUSE = 20_000; // a hidden tab asks now and then: held calls would use up the browser's connections
const HIDDEN_LIMIT = 10 * 60_000; // and not for ever
const LONGEST_PAUSE = 30_000;

const sleep = (milliseconds, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done, { once: true });
  });

/** Follow one conversation's log from a sequence on. `onEvents` gets batches; `onGone` a refusal that will last. */
export class Follower {
  #stop = new AbortController();
  #nudge = new AbortController();
  #hiddenSince = document.hidden ? performance.now() : null;

  constructor(id, after, { onEvents, onGone }) {
    Object.assign(this, { id, after, onEvents, onGone });
    const options = { signal: this.#stop.signal };
    document.addEventListener("visibilitychange", () => this.#seen(), options);
    addEventListener("online", () => this.nudge(), options);
    void this.#run();
  }

  stop() {
    this.#stop.abort();
    this.#nudge.abort();
  }

  /** Ask now instead of later. */
  nudge() {
    this.#nudge.abort();
    this.#nudge = new AbortController();
  }

  #seen() {
    this.#hiddenSince = document.hidden ? performance.now() : null;
    this.nudge(); // a call that is being held is let go of when the tab is hidden, and a pause ends when it is seen
  }

  async #run() {
    for (let failures = 0; !this.#stop.signal.aborted; ) {
      const nudge = this.#nudge.signal;
      const isHidden = document.hidden;
      const started = performance.now();
      let pause = isHidden ? HIDDEN_PAUSE : 0;
      try {
        const wait = isHidden || failures ? 0 : WAIT;
        const answer = await api.events(this.id, this.after, wait, AbortSignal.any([this.#stop.signal, nudge]));
        failures = 0;
        if (answer.events.length) {
          this.after = answer.events.at(-1).sequence;
          await this.onEvents(answer.events);
          if (answer.has_more) pause = 0;
        } else if (!isHidden && wait && performance.now() - started < 1000) pause = 3000; // a server that does not wait
      } catch (error) {
        if (error.name === "AbortError") continue;
        if (error instanceof ApiError && [401, 403, 404].includes(error.status)) return this.onGone(error);
        failures += 1;
        const backoff = Math.min(LONGEST_PAUSE, 1000 * 2 ** (failures - 1)) * (0.75 + Math.random() / 2);
        pause = Math.max(backoff, (error.retryAfter ?? 0) * 1000);
      }
      if (this.#hiddenSince !== null && performance.now() - this.#hiddenSince > HIDDEN_LIMIT) pause = 2 ** 31 - 1;
      if (pause) await sleep(pause, AbortSignal.any([this.#stop.signal, nudge]));
    }
  }
}
