// How long a session has left, and keeping it alive while somebody is there.
//
// The deadline comes from the server's `time_remaining_seconds` on a monotonic clock: the client's wall clock may be
// wrong. When it is reached the server is asked, and decides.

import { Emitter } from "./emitter.js";
import { isLive } from "./stream.js";
import { ChatError } from "./wire.js";

/** @typedef {import("./types.js").Session} Session */

/**
 * @typedef {object} AliveOptions
 * @property {Session} [session] as far as it is known
 * @property {number} [every] milliseconds between two heartbeats; by default a quarter of the timeout, 10 to 60 s
 * @property {number} [warning] seconds before the end that are near it; by default the session's warning threshold
 * @property {boolean} [heartbeats] false only counts down
 * @property {AbortSignal} [signal]
 */

/** @typedef {{remaining: number, isNear: boolean, isOver: boolean, session: Session}} Tick */

const ACTIVITY = ["keydown", "pointerdown", "wheel", "touchmove"];
const LAST_CALL = 30; // seconds of warning that there are even where no threshold warns
const DRIFT = 5_000; // a gap between the two clocks that says: the machine slept
const AGAIN = 2_000; // milliseconds between two questions to the server

/**
 * `on("tick", …)` each second with `{remaining, isNear, isOver, session}`; `on("near", tick)` as the end comes near,
 * `on("expired", session)` and `on("ended", session)` when it is over, `on("session", session)` with news of it, and
 * `on("error", error)` where a heartbeat was refused.
 */
export class KeepAlive extends Emitter {
  /** As it was last heard of. @type {Session | null} */ session = null;

  #handle;
  #options;
  #stop = new AbortController();
  #timer;
  #deadline = Infinity;
  #touchedAt = performance.now(); // by the person
  #contactAt = performance.now(); // that the server counted as activity
  #askedAt = -Infinity;
  #isNear = false;
  #wall = Date.now();
  #tickedAt = performance.now();

  /** @param {import("./client.js").SessionHandle} handle @param {AliveOptions} [options] */
  constructor(handle, options = {}) {
    super();
    this.#handle = handle;
    this.#options = options;
    const { signal } = this.#stop;
    if (typeof document !== "undefined") {
      for (const type of ACTIVITY) addEventListener(type, () => this.touch(), { passive: true, capture: true, signal });
      document.addEventListener("visibilitychange", () => this.#tick(), { signal });
    }
    options.signal?.addEventListener("abort", () => this.close(), { once: true, signal });
    this.#timer = setInterval(() => this.#tick(), 1000);
    const { session } = options;
    queueMicrotask(() => (session ? this.update(session) : void this.#ask())); // after handlers were registered
    if (options.signal?.aborted) this.close();
  }

  /** Seconds that the session has left. */
  get remaining() {
    return Math.max(0, Math.ceil((this.#deadline - performance.now()) / 1000));
  }

  /** The person has done something. In a browser that is noticed. */
  touch() {
    this.#touchedAt = performance.now();
  }

  /** Take in a later state of the session, from wherever it came. @param {Session} session */
  update(session) {
    const before = this.session;
    if (this.#stop.signal.aborted || session === before || session.last_sequence < (before?.last_sequence ?? 0)) return;
    if (before && session.last_activity_at !== before.last_activity_at) this.#contactAt = performance.now();
    this.session = session;
    this.#deadline = isLive(session) ? performance.now() + session.time_remaining_seconds * 1000 : -Infinity;
    this.emit("session", session);
    if (!isLive(session)) {
      this.emit("tick", this.#state(session));
      this.emit(session.status === "expired" ? "expired" : "ended", session);
      this.close();
    } else this.#tell(session);
  }

  /** Let go of everything. */
  close() {
    clearInterval(this.#timer);
    this.#stop.abort();
  }

  /** @param {Session} session @returns {Tick} */
  #state(session) {
    const warning = this.#options.warning ?? Math.max(session.timeout.warning_threshold_minutes * 60, LAST_CALL);
    const isOver = !isLive(session);
    return { remaining: this.remaining, isNear: !isOver && this.remaining <= warning, isOver, session };
  }

  #tick() {
    const [wall, now] = [Date.now(), performance.now()];
    const hasSlept = Math.abs(wall - this.#wall - (now - this.#tickedAt)) > DRIFT;
    [this.#wall, this.#tickedAt] = [wall, now];
    if (hasSlept) this.#askedAt = -Infinity;
    if (globalThis.document?.hidden) return;
    if (!this.session || hasSlept || now >= this.#deadline) void this.#ask();
    if (this.session) this.#tell(this.session);
    void this.#beat(now);
  }

  /** @param {Session} session */
  #tell(session) {
    const state = this.#state(session);
    const isNews = state.isNear && !this.#isNear;
    // Another tab may have kept it alive since the server was last asked.
    if (isNews && performance.now() - this.#askedAt > AGAIN) return void this.#ask();
    this.#isNear = state.isNear;
    this.emit("tick", state);
    if (isNews) this.emit("near", state);
  }

  async #ask() {
    if (performance.now() - this.#askedAt < AGAIN) return;
    this.#askedAt = performance.now();
    try {
      this.update(await this.#handle.get({ signal: this.#stop.signal }));
    } catch (error) {
      this.#refused(error);
    }
  }

  /** While somebody is there, say so now and then; what nobody touches expires. @param {number} now */
  async #beat(now) {
    const { session } = this;
    if (this.#options.heartbeats === false || !session || !isLive(session) || now >= this.#deadline) return;
    const every = this.#options.every ?? Math.min(60_000, Math.max(10_000, session.timeout.timeout_minutes * 15_000));
    if (this.#touchedAt <= this.#contactAt || now - this.#contactAt < every) return;
    this.#contactAt = now;
    try {
      const isHeld = session.strategy === "per_tab" || session.strategy === "active_tab_wins";
      if (isHeld && session.client !== (await this.#handle.tabId())) return; // in other hands
      this.update(await this.#handle.heartbeat({ signal: this.#stop.signal }));
    } catch (error) {
      this.#refused(error);
    }
  }

  /** @param {unknown} error */
  #refused(error) {
    if (this.#stop.signal.aborted || !(error instanceof ChatError)) return;
    if (!error.status) return; // the next one may get through
    this.emit("error", error);
    if (error.status === 404) this.close();
    else if (error.status === 409 || error.status === 410) void this.#ask();
  }
}
