// How long a session has left, and keeping it alive while somebody is there.
//
// The deadline comes from the server's `time_remaining_seconds` on a monotonic clock: the client's wall clock may be
// wrong. When it is reached the server is asked, and decides.

import { Emitter } from "./emitter.js";
import { isLive } from "./stream.js";
import { Warnings } from "./warnings.js";
import { ChatError } from "./wire.js";

/** @typedef {import("./types.js").Session} Session */
/** @typedef {import("./types.js").Frame} Frame */

/**
 * @typedef {object} AliveOptions
 * @property {Session} [session] as far as it is known
 * @property {{on: Emitter["on"]}} [events] a stream of it, or the conversation that follows it: what is recorded tells
 * of warnings, and of deadlines that others have moved
 * @property {number} [every] milliseconds between two heartbeats; by default a quarter of the timeout, 10 to 60 s
 * @property {number | number[]} [warning] seconds before the end at which to warn; by default as the session says
 * @property {boolean} [heartbeats] false only counts down
 * @property {AbortSignal} [signal]
 */

/** @typedef {{remaining: number, isNear: boolean, isOver: boolean, session: Session}} Tick */
/** @typedef {Tick & {threshold: number}} Warning */

const ACTIVITY = ["keydown", "pointerdown", "wheel", "touchmove"];
const DRIFT = 5_000; // a gap between the two clocks that says: the machine slept
const AGAIN = 2_000; // milliseconds between two questions to the server, doubled with each failure
const AGAIN_HIDDEN = 60_000; // where nobody looks
const AGAIN_LONGEST = 30_000;
const OFTEN = 5_000; // milliseconds after which what is known of a deadline that is near has grown old

/**
 * `on("tick", …)` each second with `{remaining, isNear, isOver, session}`; `on("expiring", …)` with that and the
 * `threshold` in seconds, once for each; `on("expired", session)` and `on("ended", session)` when it is over;
 * `on("session", session)` with news of it, and `on("error", error)` where the server refused to tell or to go on.
 */
export class KeepAlive extends Emitter {
  /** As it was last heard of. @type {Session | null} */ session = null;

  #handle;
  #options;
  #warnings;
  #stop = new AbortController();
  #timer;
  #deadline = Infinity;
  #touchedAt = performance.now(); // by the person
  #contactAt = performance.now(); // that the server counted as activity
  #toldAt = -Infinity; // by the server, how it stands
  #askedAt = -Infinity;
  #failures = 0; // of asking, one after the other
  #awaited = 0; // the latest event that matters
  #isDoubted = false; // the machine slept
  #wall = Date.now();
  #tickedAt = performance.now();

  /** @param {import("./client.js").SessionHandle} handle @param {AliveOptions} [options] */
  constructor(handle, options = {}) {
    super();
    this.#handle = handle;
    this.#options = options;
    this.#warnings = new Warnings(options.warning);
    const { signal } = this.#stop;
    if (typeof document !== "undefined") {
      for (const type of ACTIVITY) addEventListener(type, () => this.touch(), { passive: true, capture: true, signal });
      addEventListener("online", () => this.#again(), { signal });
      document.addEventListener("visibilitychange", () => this.#tick(), { signal });
    }
    const deafen = options.events?.on("*", (frame) => this.hear(frame));
    signal.addEventListener("abort", () => deafen?.());
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

  /** Take in what was recorded; `events` does so by itself. @param {Frame} frame */
  hear({ type, sequence, data }) {
    if (type === "session.expiring") this.#warnings.hear(sequence, data);
    // Whatever is recorded may be activity, which moves the deadline. Far from it, nobody needs to know at once.
    const isTelling = type.startsWith("session.") || (type !== "message.delta" && this.#isNear);
    if (isTelling) this.#awaited = Math.max(this.#awaited, sequence);
  }

  /** Take in a later state of the session, from wherever it came. @param {Session} session */
  update(session) {
    const before = this.session;
    if (this.#stop.signal.aborted || session === before || session.last_sequence < (before?.last_sequence ?? 0)) return;
    if (before && session.last_activity_at !== before.last_activity_at) this.#contactAt = performance.now();
    this.session = session;
    this.#toldAt = performance.now();
    this.#isDoubted = false;
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
    const isOver = !isLive(session);
    return { remaining: this.remaining, isNear: !isOver && this.#isNear, isOver, session };
  }

  get #isNear() {
    return Boolean(this.session) && this.#warnings.isNear(/** @type {Session} */ (this.session), this.remaining);
  }

  /** The connection has come back. */
  #again() {
    [this.#isDoubted, this.#failures, this.#askedAt] = [true, 0, -Infinity];
    this.#tick();
  }

  #tick() {
    this.#reckon();
    const isOver = performance.now() >= this.#deadline;
    if (isOver || !this.session || (isSeen() && this.#isOld)) void this.#ask();
    if (this.session) this.#tell(this.session);
    if (isSeen()) void this.#beat();
  }

  /** Notice that the machine slept, which stops the clock that is counted by. */
  #reckon() {
    const [wall, now] = [Date.now(), performance.now()];
    const slept = wall - this.#wall - (now - this.#tickedAt);
    [this.#wall, this.#tickedAt] = [wall, now];
    if (Math.abs(slept) <= DRIFT) return;
    this.#isDoubted = true; // it may be the wall clock that was set
    this.#askedAt = -Infinity;
    this.#deadline -= Math.max(0, slept);
  }

  /** Whether the server has to be asked how it stands now. */
  get #isOld() {
    if (this.#isDoubted || this.#awaited > (this.session?.last_sequence ?? 0)) return true;
    // Heartbeats of another tab move the deadline, and leave no event.
    return this.#isNear && performance.now() - this.#toldAt > Math.max(OFTEN, this.remaining * 100);
  }

  /** @param {Session} session */
  #tell(session) {
    const state = this.#state(session);
    const threshold = this.#warnings.due(session, state.remaining);
    // Another tab may have kept it alive since the server was last asked.
    if (threshold !== null && performance.now() - this.#toldAt > AGAIN && this.#mayAsk) return void this.#ask();
    if (isSeen()) this.emit("tick", state);
    if (threshold === null) return;
    this.#warnings.tell(state.remaining);
    this.emit("expiring", { ...state, threshold });
  }

  get #mayAsk() {
    const pause = isSeen() ? Math.min(AGAIN_LONGEST, AGAIN * 2 ** this.#failures) : AGAIN_HIDDEN;
    return performance.now() - this.#askedAt >= pause;
  }

  async #ask() {
    if (!this.#mayAsk) return;
    this.#askedAt = performance.now();
    try {
      this.update(await this.#handle.get({ signal: this.#stop.signal }));
      this.#failures = 0;
    } catch (error) {
      this.#failures += 1;
      this.#refused(error);
    }
  }

  /** While somebody is there, say so now and then; what nobody touches expires. */
  async #beat() {
    const { session } = this;
    const now = performance.now();
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

/** Whether anybody can be looking. */
const isSeen = () => !globalThis.document?.hidden;
