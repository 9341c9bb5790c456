// A session's events as they happen, whatever happens to the connection.

import { Emitter } from "./emitter.js";
import { EventStreamParser } from "./sse.js";
import { ChatError, NetworkError } from "./wire.js";

/** @typedef {import("./types.js").Frame} Frame */
/** @typedef {import("./types.js").EventPage} EventPage */
/** @typedef {import("./types.js").Session} Session */
/** @typedef {"connecting" | "open" | "offline" | "closed"} StreamState */

/**
 * What a stream reads from; `id` is that of the last frame it has.
 *
 * @typedef {object} Source
 * @property {(signal: AbortSignal) => Promise<number>} begin after which sequence, where nobody said
 * @property {(id: string, signal: AbortSignal) => Promise<Response>} connect
 * @property {(after: number, wait: number, signal: AbortSignal) => Promise<EventPage>} poll
 * @property {(signal: AbortSignal) => Promise<Session>} look
 * @property {{canStream: boolean}} server what is known of it: under WSGI it can't
 */

/**
 * @typedef {object} StreamOptions
 * @property {number | string | null} [after] a sequence, or the `id` of a frame; by default what happens from now on
 * @property {AbortSignal} [signal] ends the stream
 * @property {number} [silence] milliseconds without a byte after which the connection counts as lost (45 000)
 * @property {number} [minDelay] milliseconds before it comes back, doubled with each failure (500)
 * @property {number} [maxDelay] the longest of them (30 000)
 * @property {number} [hiddenAfter] milliseconds after which a hidden tab lets go of its connection (60 000)
 */

const WAIT = 25; // seconds that the server may hold a long poll
const SHORT = 5_000; // a connection that brings nothing and ends sooner has failed
const STALE = 20_000; // silence that makes somebody who looks again doubt the connection: a comment comes each 15 s
const HIDDEN_PAUSE = 20_000; // a hidden tab asks now and then: streams would use up the browser's connections
const HIDDEN_LIMIT = 10 * 60_000; // and not for ever
const LEAST = 250; // milliseconds between two tries, whatever the server says
const UNHURRIED = 3_000; // between polls of a server that does not wait
const TRANSIENT = new Set([0, 408, 425, 429]);

/**
 * An async iterator of frames that also takes handlers: `on("message", …)` or any other type of frame, `on("*", …)`
 * for all, `on("state", (state, error) => …)`. Register them as soon as you have the stream. Each frame comes once and
 * in order. Leaving a loop over it closes it.
 */
export class Stream extends Emitter {
  /** @type {StreamState} */ state = "connecting";
  /** Why it closed, unless it was over or aborted. @type {ChatError | null} */ error = null;

  #source;
  #until;
  #options;
  /** @type {string | null} */ #id = null;
  #sequence = -1;
  #delta = { run: "", index: -1 };
  #stop = new AbortController();
  #attempt = new AbortController();
  #isHasty = false; // the next pause is left out
  #wake = () => {};
  #heardAt = performance.now();
  /** @type {number | null} */ #hiddenSince = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #alarm;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #drowsy;
  /** @type {Frame[]} */ #queue = [];
  #isHandled = false;
  #isIterated = false;
  /** @type {Array<() => void>} */ #waiting = [];

  /**
   * @param {Source} source
   * @param {StreamOptions & {response?: Response, until?: (frame: Frame) => boolean}} [options]
   */
  constructor(source, { after, signal, response, until = () => false, ...options } = {}) {
    super();
    this.#source = source;
    this.#until = until;
    this.#options = { silence: 45_000, minDelay: 500, maxDelay: 30_000, hiddenAfter: 60_000, ...options };
    if (after !== undefined && after !== null) this.#moveTo(String(after));
    this.#watch();
    if (signal?.aborted) this.abort();
    signal?.addEventListener("abort", () => this.abort(), { once: true, signal: this.#stop.signal });
    setTimeout(() => this.#run(response)); // after whoever asked has registered handlers
  }

  /** @type {Emitter["on"]} */
  on(type, handler) {
    if (type !== "state") this.#isHandled = true;
    return super.on(type, handler);
  }

  /** Let go of everything. */
  abort() {
    this.#queue = [];
    this.#close();
  }

  /** @returns {AsyncIterator<Frame, undefined>} */
  [Symbol.asyncIterator]() {
    this.#isIterated = true;
    const over = async () => (this.abort(), /** @type {const} */ ({ done: true, value: undefined }));
    return { next: () => this.#next(), return: over };
  }

  /** @returns {Promise<IteratorResult<Frame, undefined>>} */
  async #next() {
    while (!this.#queue.length && this.state !== "closed") {
      await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
    }
    const frame = this.#queue.shift();
    if (frame) return { done: false, value: frame };
    if (this.error) throw this.error;
    return { done: true, value: undefined };
  }

  // ------------------------------------------------------------------------------------------------- what comes in

  /** @param {string} id a frame's, which begins with its sequence */
  #moveTo(id) {
    this.#id = id;
    this.#sequence = Math.max(this.#sequence, Number.parseInt(id, 10));
  }

  /** @param {import("./sse.js").RawFrame} raw */
  #takeRaw({ id, type, data: text }) {
    const data = JSON.parse(text);
    if (type !== "message.delta") return this.#takeEvent(data, id);
    const sequence = Number.parseInt(id ?? "", 10);
    const isOld = sequence < this.#sequence || (data.run === this.#delta.run && data.index <= this.#delta.index);
    if (isOld) return;
    this.#delta = { run: data.run, index: data.index };
    this.#id = id;
    this.#deliver({ id: id ?? "", type, sequence, data });
  }

  /**
   * @param {import("./types.js").ChatEvent} event
   * @param {string | null} [id]
   */
  #takeEvent(event, id = String(event.sequence)) {
    if (!(event.sequence > this.#sequence)) return;
    this.#sequence = event.sequence;
    this.#id = id;
    this.#deliver({ ...event, id: id ?? "" });
  }

  /** @param {Frame} frame */
  #deliver(frame) {
    if (this.state === "closed") return;
    if (this.#isIterated || !this.#isHandled) this.#queue.push(frame);
    this.#release();
    this.emit(frame.type, frame);
    this.emit("*", frame);
    if (this.#until(frame)) this.#close();
  }

  // ------------------------------------------------------------------------------------------------ the connection

  /** @param {Response} [response] of a connection that is there already */
  async #run(response) {
    if (this.state === "closed") void response?.body?.cancel();
    for (let failures = 0; this.state !== "closed"; response = undefined) {
      let pause = 0;
      this.#attempt = new AbortController();
      try {
        if (this.#id === null && !response) this.#moveTo(String(await this.#source.begin(this.#attempt.signal)));
        const polls = !response && (this.#isDozing || !this.#source.server.canStream);
        pause = polls ? await this.#poll() : await this.#listen(response);
        failures = 0;
      } catch (error) {
        pause = this.#isHasty ? 0 : this.#failed(error, (failures += 1));
      }
      clearTimeout(this.#alarm);
      await this.#pause(pause);
    }
  }

  /** @param {unknown} error @param {number} failures @returns {number} milliseconds to wait */
  #failed(error, failures) {
    const refusal = error instanceof ChatError ? error : new NetworkError(error);
    if (refusal.status === 406 && this.#source.server.canStream) {
      this.#source.server.canStream = false;
      return 0;
    }
    const isLasting = refusal.status < 500 && !TRANSIENT.has(refusal.status);
    if (isLasting) this.#close(refusal);
    else this.#become("offline", refusal);
    const { minDelay, maxDelay } = this.#options;
    const backoff = Math.min(maxDelay, minDelay * 2 ** (failures - 1)) * (0.5 + Math.random() / 2);
    return Math.max(backoff, (refusal.retryAfter ?? 0) * 1000);
  }

  /** @param {Response} [response] @returns {Promise<number>} milliseconds to wait */
  async #listen(response) {
    const { signal } = this.#attempt;
    const began = performance.now();
    this.#heard();
    response ??= await this.#source.connect(this.#id ?? "", signal);
    if (response.status === 204) return this.#close(), 0;
    const type = response.headers.get("Content-Type") ?? "";
    if (!type.startsWith("text/event-stream") || !response.body) throw new NetworkError(`No stream, but ${type}.`);
    this.#become("open");
    const isFruitful = await this.#read(response.body.getReader(), signal);
    signal.throwIfAborted();
    if (!isFruitful && performance.now() - began < SHORT) throw new NetworkError("The stream ended as it began.");
    this.#become("connecting");
    return Math.random() * this.#options.minDelay; // not all that a server lets go of at the same moment
  }

  /** @param {ReadableStreamDefaultReader<Uint8Array>} reader @param {AbortSignal} signal */
  async #read(reader, signal) {
    const parser = new EventStreamParser();
    const cancel = () => void reader.cancel().catch(() => {});
    signal.addEventListener("abort", cancel, { once: true });
    let isFruitful = false;
    try {
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        this.#heard();
        for (const frame of parser.push(part.value)) {
          this.#takeRaw(frame);
          isFruitful = true;
        }
        if (parser.retry !== null) this.#options.minDelay = Math.max(LEAST, parser.retry);
      }
    } finally {
      cancel();
    }
    return isFruitful;
  }

  /** Long polling, in which no answer is seen as it is written. @returns {Promise<number>} milliseconds to wait */
  async #poll() {
    const { signal } = this.#attempt;
    const began = performance.now();
    const isDozing = this.#isDozing;
    const wait = isDozing || this.state !== "open" ? 0 : WAIT; // at first to see whether anybody answers
    const page = await this.#source.poll(this.#sequence, wait, signal);
    this.#become("open");
    for (const event of page.events) this.#takeEvent(event);
    if (page.has_more) return 0;
    if (isDozing) return began - (this.#hiddenSince ?? began) > HIDDEN_LIMIT ? 2 ** 31 - 1 : HIDDEN_PAUSE;
    if (page.events.length || !wait || performance.now() - began > 1000) return 0;
    const session = await this.#source.look(signal);
    if (!isLive(session) && session.last_sequence <= this.#sequence) this.#close();
    return UNHURRIED;
  }

  /** @param {number} milliseconds */
  async #pause(milliseconds) {
    if (milliseconds && !this.#isHasty && this.state !== "closed") {
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, milliseconds);
        this.#wake = () => (clearTimeout(timer), resolve(undefined));
      });
    }
    this.#isHasty = false;
  }

  #heard() {
    this.#heardAt = performance.now();
    clearTimeout(this.#alarm);
    this.#alarm = setTimeout(() => this.#attempt.abort(new NetworkError("silence")), this.#options.silence);
  }

  // ------------------------------------------------------------------------------------------- what goes on around it

  #watch() {
    if (typeof document === "undefined") return;
    const options = { signal: this.#stop.signal };
    document.addEventListener("visibilitychange", () => this.#seen(), options);
    addEventListener("online", () => this.state === "open" || this.#restart(), options);
    addEventListener("offline", () => this.#attempt.abort(new NetworkError("offline")), options);
    if (document.hidden) this.#seen();
  }

  #seen() {
    clearTimeout(this.#drowsy);
    const wasDozing = this.#isDozing;
    this.#hiddenSince = document.hidden ? performance.now() : null;
    if (document.hidden) this.#drowsy = setTimeout(() => this.#restart(), this.#options.hiddenAfter + 50);
    else if (wasDozing || this.state !== "open" || performance.now() - this.#heardAt > STALE) this.#restart();
  }

  get #isDozing() {
    const since = this.#hiddenSince;
    return since !== null && this.#sequence >= 0 && performance.now() - since >= this.#options.hiddenAfter;
  }

  /** Try anew, and now. */
  #restart() {
    this.#isHasty = true;
    this.#attempt.abort();
    this.#wake();
  }

  /** @param {StreamState} state @param {ChatError} [error] */
  #become(state, error) {
    if (this.state === state || this.state === "closed") return;
    this.state = state;
    this.emit("state", state, error);
  }

  /** @param {ChatError} [error] */
  #close(error) {
    if (this.state === "closed") return;
    this.error = error ?? null;
    this.#become("closed", error);
    this.#stop.abort();
    this.#attempt.abort();
    clearTimeout(this.#alarm);
    clearTimeout(this.#drowsy);
    this.#wake();
    this.#release();
  }

  #release() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** @param {Session} session */
export const isLive = ({ status }) => status === "created" || status === "active" || status === "resumed";
