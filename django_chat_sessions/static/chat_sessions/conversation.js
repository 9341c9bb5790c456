// A conversation as a screen shows it: what was said, what is being said, and how it stands.

import { Emitter } from "./emitter.js";
import { Stream } from "./stream.js";

/** @typedef {import("./types.js").Message} Message */
/** @typedef {import("./types.js").Session} Session */
/** @typedef {import("./types.js").Frame} Frame */
/** @typedef {import("./types.js").Draft} Draft */
/** @typedef {import("./client.js").SessionHandle} SessionHandle */

/**
 * A message, or (`isPartial`) what the agent has said so far of the next one, which has no sequence yet. Its `key`
 * stays the same when it becomes a whole message.
 *
 * @typedef {Omit<Message, "sequence" | "created_at"> & Standing} Item
 * @typedef {{sequence: number | null, created_at: string | null, key: string, isPartial: boolean}} Standing
 */

/** @typedef {Partial<import("./types.js").Run> & Pick<import("./types.js").Run, "id" | "status">} KnownRun */

/**
 * @typedef {object} Snapshot
 * @property {boolean} isLoaded
 * @property {import("./stream.js").StreamState} connection
 * @property {import("./wire.js").ChatError | null} error why there is no connection
 * @property {Session | null} session
 * @property {readonly Item[]} messages oldest first
 * @property {KnownRun | null} run the latest answer that the agent gives or gave
 * @property {boolean} isAnswering
 * @property {boolean} hasEarlier whether `loadEarlier` would bring something
 */

/** @typedef {import("./stream.js").StreamOptions & {pageSize?: number}} FollowOptions */

const TERMINAL = new Set(["run.succeeded", "run.failed", "run.cancelled"]);
const SOON = 200; // milliseconds in which several events are one reason to look how the session stands

/** @param {{type: string}} frame */
export const endsRun = ({ type }) => TERMINAL.has(type);

/** @param {any} data @returns {KnownRun} */
const started = ({ run, supersedes, ...data }) => ({ ...data, id: run, status: "running", error: null });

/** @param {KnownRun | null} run */
const isAlive = (run) => run?.status === "queued" || run?.status === "running";

/**
 * A store: `subscribe(listener)` and `getSnapshot()`, which gives the same object until something changes. It follows
 * the session as long as somebody has subscribed. Meanwhile `on(type, …)` and `on("*", …)` give the frames that come.
 */
export class Conversation extends Emitter {
  #handle;
  #options;
  /** @type {Stream | null} */ #stream = null;
  /** @type {Set<() => void>} */ #listeners = new Set();
  #isTelling = false;
  /** @type {Snapshot | null} */ #snapshot = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /** @type {Session | null} */ #session = null;
  /** @type {Map<number, Item>} */ #messages = new Map();
  /** @type {readonly Item[] | null} */ #sorted = null;
  /** @type {KnownRun | null} */ #run = null;
  #partial = { count: 0, text: "" };
  #known = 0; // the log up to there is in what was loaded
  #isLoaded = false;
  #hasEarlier = false;

  /** @param {SessionHandle} handle @param {FollowOptions} [options] */
  constructor(handle, options = {}) {
    super();
    this.#handle = handle;
    this.#options = options;
    options.signal?.addEventListener("abort", () => this.close(), { once: true });
  }

  /** @param {() => void} listener @returns {() => void} what ends the subscription */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    if (!this.#options.signal?.aborted) this.#start();
    return () => {
      this.#listeners.delete(listener);
      // React may subscribe again in the same breath.
      setTimeout(() => this.#listeners.size || this.close());
    };
  };

  /** @returns {Snapshot} */
  getSnapshot = () => {
    this.#snapshot ??= Object.freeze({
      isLoaded: this.#isLoaded,
      connection: this.#stream?.state ?? "closed",
      error: this.#error,
      session: this.#session,
      messages: this.#items(),
      run: this.#run,
      isAnswering: isAlive(this.#run),
      hasEarlier: this.#hasEarlier,
    });
    return this.#snapshot;
  };

  /** Let go of everything; the snapshot stays. A new subscription begins anew. */
  close() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#stream?.abort();
    this.#stream = null;
    this.#changed();
  }

  // ---------------------------------------------------------------------------------------------------- what one does

  /**
   * Say something; the answer comes with the snapshots.
   *
   * @param {string | Draft} draft
   */
  async post(draft) {
    const said = typeof draft === "string" ? { content: draft } : draft;
    const delivery = said.delivery === "store" ? "store" : "background";
    const answer = await this.#handle.messages.post({ ...said, delivery });
    if (!this.#messages.has(answer.message.sequence)) this.#put(answer.message);
    if (answer.run && answer.run.id !== this.#run?.id) this.#begin(answer.run);
    this.update(answer.session);
    return answer;
  }

  /** Stop the answer that is being given. What was said of it stays. */
  async cancel() {
    if (!this.#run || !isAlive(this.#run)) return;
    const run = await this.#handle.runs.cancel(this.#run.id);
    if (run.id === this.#run.id) this.#run = run;
    this.#changed();
  }

  /** Have the last question answered again, or the one of that sequence. @param {number} [inputSequence] */
  async again(inputSequence) {
    const { run } = await this.#handle.runs.again({ inputSequence, delivery: "background" });
    if (run && run.id !== this.#run?.id) this.#begin(run);
  }

  /** Load the page before what is there. */
  async loadEarlier() {
    const before = Math.min(...this.#messages.keys());
    if (!this.#hasEarlier || !Number.isFinite(before)) return;
    const page = await this.#handle.messages.list({ before, limit: this.#options.pageSize });
    for (const message of page.messages) this.#put(message);
    this.#hasEarlier = page.has_more;
    this.#changed();
  }

  /** Take in a later state of the session, from wherever it came. @param {Session} session */
  update(session) {
    if (session === this.#session || session.last_sequence < (this.#session?.last_sequence ?? 0)) return;
    // No stream tells what becomes of a session that is over.
    const isOther = this.#session !== null && (this.#session.status === "archived") !== (session.status === "archived");
    if (isOther && this.#isLoaded) void this.#reread();
    this.#session = session;
    this.#changed();
  }

  // --------------------------------------------------------------------------------------------------- what comes in

  #start() {
    if (this.#stream) return;
    const source = { ...this.#handle.source, begin: (/** @type {AbortSignal} */ signal) => this.#load(signal) };
    const stream = new Stream(source, { ...this.#options, after: null });
    stream.on("*", (frame) => this.#stream === stream && this.#apply(frame));
    stream.on("state", () => this.#changed());
    this.#stream = stream;
    this.#changed();
  }

  /**
   * Read how things stand.
   *
   * @param {AbortSignal} signal
   * @returns {Promise<number>} the sequence to follow the log from
   */
  async #load(signal) {
    const session = await this.#handle.source.look(signal);
    const [page, runs] = await Promise.all([
      this.#handle.messages.list({ limit: this.#options.pageSize }, { signal }),
      this.#handle.runs.list({ limit: 1 }, { signal }),
    ]);
    this.#session = session;
    this.#known = session.last_sequence;
    this.#fill(page);
    this.#run = runs.results[0] ?? null;
    this.#partial = { count: 0, text: "" };
    this.#isLoaded = true;
    this.#changed();
    // From the question on, the log and what has been said since tell all of an answer that is being given.
    return isAlive(this.#run) ? Math.min(this.#known, this.#run?.input_sequence ?? this.#known) : this.#known;
  }

  /** @param {Frame} frame */
  #apply(frame) {
    const { type, sequence, data } = frame;
    const isKnown = sequence <= this.#known;
    if (isKnown && data?.run !== this.#run?.id) return; // told by what was loaded
    if (type === "message.delta") this.#hear(data);
    else if (type === "run.started") this.#begin(started(data), data.supersedes);
    else if (endsRun({ type })) this.#finish(type, data);
    else if (type === "message") this.#complete(data, isKnown);
    else if (type === "message.edited" && this.#messages.has(data?.sequence)) this.#put(data);
    else if (type === "message.deleted") this.#remove([data.sequence]);
    else if (type === "content.erased" || type === "session.archived" || type === "session.restored") void this.#reread();
    if (type.startsWith("session.") || endsRun({ type }) || (type === "message" && data?.role === "user")) this.#look();
    this.#changed();
    this.emit(type, frame);
    this.emit("*", frame);
  }

  /** @param {{run: string, text: string}} delta */
  #hear({ run, text }) {
    if (this.#run?.id !== run) this.#begin({ id: run, status: "running" });
    this.#partial.text += text;
  }

  /** @param {KnownRun} run @param {number[]} [superseded] */
  #begin(run, superseded = []) {
    const isSame = this.#run?.id === run.id;
    this.#run = isSame ? { ...this.#run, ...run } : run;
    this.#partial = { count: isSame ? this.#partial.count + 1 : 0, text: "" };
    this.#remove(superseded);
    this.#changed();
  }

  /** @param {string} type @param {any} data */
  #finish(type, { run, ...data }) {
    const status = /** @type {KnownRun["status"]} */ (type.slice(4));
    this.#run = { ...(this.#run?.id === run ? this.#run : {}), ...data, id: run, status };
    this.#partial.text = "";
  }

  /** @param {Message | null} message @param {boolean} isKnown */
  #complete(message, isKnown) {
    if (!message?.sequence) return; // taken back since
    const isOfRun = message.run !== null && message.run === this.#run?.id;
    const { text } = this.#partial;
    const key = isOfRun && text ? this.#partialKey : undefined;
    if (isOfRun) this.#partial = { count: this.#partial.count + 1, text: "" };
    if (!isKnown && !this.#messages.has(message.sequence)) this.#put(message, key);
  }

  /** @param {Message} message @param {string} [key] */
  #put(message, key = this.#messages.get(message.sequence)?.key ?? String(message.sequence)) {
    this.#messages.set(message.sequence, Object.freeze({ ...message, key, isPartial: false }));
    this.#sorted = null;
    this.#changed();
  }

  /** @param {number[]} sequences */
  #remove(sequences) {
    for (const sequence of sequences) this.#messages.delete(sequence);
    this.#sorted = null;
  }

  /** @param {import("./types.js").MessagePage} page */
  #fill(page) {
    this.#messages.clear();
    this.#sorted = null;
    for (const message of page.messages) this.#put(message);
    this.#hasEarlier = page.has_more;
  }

  // ----------------------------------------------------------------------------------------------- what is told of it

  get #error() {
    return this.#stream?.error ?? null;
  }

  get #partialKey() {
    return `${this.#run?.id}.${this.#partial.count}`;
  }

  #items() {
    this.#sorted ??= Object.freeze([...this.#messages.values()].sort((a, b) => (a.sequence ?? 0) - (b.sequence ?? 0)));
    const run = this.#run;
    if (!run || !this.#partial.text) return this.#sorted;
    /** @type {Item} */
    const partial = {
      sequence: null, external_id: null, role: "assistant", content: this.#partial.text, parts: [], metadata: {},
      run: run.id, token_count: null, created_at: null, edited_at: null, key: this.#partialKey, isPartial: true,
    };
    return Object.freeze([...this.#sorted, Object.freeze(partial)]);
  }

  /** See soon how the session stands: events tell what happened, not what follows from it. */
  #look() {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#handle.get().then((session) => this.update(session), () => {});
    }, SOON);
  }

  async #reread() {
    const page = await this.#handle.messages.list({ limit: this.#options.pageSize }).catch(() => null);
    if (page) this.#fill(page);
  }

  /** Tell everybody, once for all that came in one go. */
  #changed() {
    this.#snapshot = null;
    if (this.#isTelling) return;
    this.#isTelling = true;
    queueMicrotask(() => {
      this.#isTelling = false;
      for (const listener of [...this.#listeners]) listener();
    });
  }
}
