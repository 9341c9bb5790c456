// The client of django-chat-sessions: an ES module for browsers and Node, without a build and without dependencies.
//
//     import { createClient } from "/static/chat_sessions/client.js";

import { KeepAlive } from "./alive.js";
import { Conversation, endsRun } from "./conversation.js";
import { Stream } from "./stream.js";
import { random, tabName } from "./tab.js";
import { ChatError, NetworkError, Wire } from "./wire.js";

export { ChatError, Conversation, KeepAlive, NetworkError, Stream };

/** @typedef {import("./types.js").Session} Session */
/** @typedef {import("./types.js").SessionPage} SessionPage */
/** @typedef {import("./types.js").Message} Message */
/** @typedef {import("./types.js").MessagePage} MessagePage */
/** @typedef {import("./types.js").EventPage} EventPage */
/** @typedef {import("./types.js").ChatEvent} ChatEvent */
/** @typedef {import("./types.js").Run} Run */
/** @typedef {import("./types.js").RunPage} RunPage */
/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").Draft} Draft */
/** @typedef {import("./types.js").Delivery} Delivery */
/** @typedef {import("./types.js").Data} Data */
/** @typedef {import("./types.js").Query} Query */
/** @typedef {import("./types.js").CallOptions} CallOptions */
/** @typedef {import("./stream.js").StreamOptions} StreamOptions */
/** @typedef {import("./wire.js").WireOptions & {tabId?: string}} ClientOptions */

const LONG_ANSWER = 180_000; // milliseconds; an agent's own time limit is shorter, and then the server says so itself
const TRIES = 3; // of a message whose answer was lost
const EVENT_STREAM = { Accept: "text/event-stream, application/json, application/problem+json" };

const sleep = (/** @type {number} */ milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** @param {string} id */
const at = (id) => `sessions/${encodeURIComponent(id)}`;

/**
 * @template {{results: any[], next: string | null}} Page
 * @param {(query: Query) => Promise<Page>} list
 * @param {Query} query
 * @returns {AsyncGenerator<Page["results"][number], void>}
 */
async function* everyResult(list, query) {
  for (let cursor = query.cursor; cursor !== null; ) {
    const page = await list({ ...query, cursor });
    yield* page.results;
    cursor = page.next;
  }
}

/** @param {ClientOptions} [options] */
export function createClient(options = {}) {
  return new Client(options);
}

class Client {
  #wire;
  #server = { canStream: true };

  /** @param {ClientOptions} options */
  constructor({ tabId, ...options }) {
    const own = typeof document === "undefined" ? Promise.resolve(random()) : null; // a process has no tabs
    this.#wire = new Wire(options, () => (tabId ? Promise.resolve(tabId) : own ?? tabName()));
    /** What one does with sessions; each by its id. */
    this.sessions = new Sessions(this.#wire);
  }

  /** The name under which this tab calls. */
  tabId() {
    return this.#wire.tabId();
  }

  /** What is in one session, and following it. Calls nobody. @param {string | Session} session or its id */
  session(session) {
    const id = typeof session === "string" ? session : session.id;
    return new SessionHandle(this.#wire, this.sessions, id, this.#server);
  }
}

class Sessions {
  #wire;

  /** @param {Wire} wire */
  constructor(wire) {
    this.#wire = wire;
  }

  /** @param {import("./types.js").Opening} [body] @param {CallOptions} [options] @returns {Promise<Session>} */
  open(body = {}, options) {
    return this.#wire.call("POST", "sessions", { body, ...options });
  }

  /**
   * A page of one's own, latest activity first.
   *
   * @param {Query} [query]
   * @param {CallOptions} [options]
   * @returns {Promise<SessionPage>}
   */
  list(query, options) {
    return this.#wire.call("GET", "sessions", { query, ...options });
  }

  /** All of them, page by page. @param {Query} [query] @param {CallOptions} [options] */
  all(query = {}, options) {
    return everyResult((page) => this.list(page, options), query);
  }

  /** @param {string} id @param {CallOptions} [options] @returns {Promise<Session>} */
  get(id, options) {
    return this.#wire.call("GET", at(id), options);
  }

  /**
   * @param {string} id
   * @param {{title?: string, tags?: string[], metadata?: Data}} changes
   * @param {CallOptions} [options]
   * @returns {Promise<Session>}
   */
  update(id, changes, options) {
    return this.#wire.call("PATCH", at(id), { body: changes, ...options });
  }

  /**
   * Gone for every reader, with all its descendants.
   *
   * @param {string} id
   * @param {CallOptions} [options]
   * @returns {Promise<void>}
   */
  async delete(id, options) {
    await this.#wire.call("DELETE", at(id), options);
  }

  /**
   * @param {string} id
   * @param {Query} [query] `max_messages`, `max_tokens`
   * @param {CallOptions} [options]
   * @returns {Promise<{session: Session, idle_seconds: number, context: Data}>}
   */
  resume(id, query, options) {
    return this.#wire.call("POST", `${at(id)}/resume`, { body: {}, query, ...options });
  }

  /** @param {string} id @param {CallOptions} [options] @returns {Promise<Session>} */
  heartbeat(id, options) {
    return this.#wire.call("POST", `${at(id)}/heartbeat`, { body: {}, ...options });
  }

  /** @param {string} id @param {CallOptions} [options] @returns {Promise<Session>} */
  renew(id, options) {
    return this.#wire.call("POST", `${at(id)}/renew`, { body: {}, ...options });
  }

  /**
   * @param {string} id
   * @param {import("./types.js").TimeoutChange} changes null returns a field to what is inherited
   * @param {CallOptions} [options]
   * @returns {Promise<Session>}
   */
  changeTimeout(id, changes, options) {
    return this.#wire.call("PATCH", `${at(id)}/timeout`, { body: changes, ...options });
  }

  /** @param {string} id @param {string} [reason] @param {CallOptions} [options] @returns {Promise<Session>} */
  end(id, reason, options) {
    return this.#wire.call("POST", `${at(id)}/end`, { body: reason ? { reason } : {}, ...options });
  }

  /**
   * @param {string} id
   * @param {{at?: number, title?: string}} [body]
   * @param {CallOptions} [options]
   * @returns {Promise<Session>} the copy
   */
  fork(id, body = {}, options) {
    return this.#wire.call("POST", `${at(id)}/fork`, { body, ...options });
  }

  /** @param {string} id @param {Query} [query] @param {CallOptions} [options] @returns {Promise<SessionPage>} */
  children(id, query, options) {
    return this.#wire.call("GET", `${at(id)}/children`, { query, ...options });
  }

  /** @param {string} id @param {Query} [query] @param {CallOptions} [options] */
  allChildren(id, query = {}, options) {
    return everyResult((page) => this.children(id, page, options), query);
  }

  /** @param {string} id @param {{tree?: boolean}} [query] @param {CallOptions} [options] @returns {Promise<Data>} */
  summary(id, query, options) {
    return this.#wire.call("GET", `${at(id)}/summary`, { query, ...options });
  }

  /** @param {string} id @param {CallOptions} [options] @returns {Promise<{state: Data, last_sequence: number}>} */
  state(id, options) {
    return this.#wire.call("GET", `${at(id)}/state`, options);
  }

  /**
   * @param {string} id
   * @param {Data} patch a JSON merge patch
   * @param {CallOptions} [options]
   * @returns {Promise<{state: Data, last_sequence: number}>}
   */
  patchState(id, patch, options) {
    return this.#wire.call("PATCH", `${at(id)}/state`, { body: patch, ...options });
  }

  /**
   * What a model sees.
   *
   * @param {string} id
   * @param {Query} [query] `max_messages`, `max_tokens`
   * @param {CallOptions} [options]
   * @returns {Promise<{messages: Message[], summary: any, state: Data, truncated: boolean}>}
   */
  context(id, query, options) {
    return this.#wire.call("GET", `${at(id)}/context`, { query, ...options });
  }

  /** The address of a download. @param {string} id @param {"json" | "jsonl" | "markdown"} [as] */
  exportUrl(id, as = "json") {
    return this.#wire.address(`${at(id)}/export`, { as });
  }
}

export class SessionHandle {
  #wire;
  #sessions;

  /** @param {Wire} wire @param {Sessions} sessions @param {string} id @param {{canStream: boolean}} server */
  constructor(wire, sessions, id, server) {
    this.#wire = wire;
    this.#sessions = sessions;
    this.id = id;
    const path = at(id);
    /** Where streams read from. @type {import("./stream.js").Source} */
    this.source = {
      server,
      begin: async (signal) => (await sessions.get(id, { signal })).last_sequence,
      look: (signal) => sessions.get(id, { signal }),
      connect: (last, signal) =>
        wire.open("GET", `${path}/stream`, { headers: { ...EVENT_STREAM, "Last-Event-ID": last }, signal }),
      poll: (after, wait, signal) =>
        wire.call("GET", `${path}/events`, { query: { after, wait, limit: 100 }, signal, timeout: (wait + 20) * 1000 }),
    };
    this.messages = new Messages(wire, path, this.source);
    this.events = new Events(wire, path);
    this.runs = new Runs(wire, path, this.source);
  }

  /** What happens in it, from now on or after what `after` names. @param {StreamOptions} [options] */
  stream(options) {
    return new Stream(this.source, options);
  }

  /** What a screen shows of it. @param {import("./conversation.js").FollowOptions} [options] */
  follow(options) {
    return new Conversation(this, options);
  }

  /** Count down, and keep it alive while somebody is there. @param {import("./alive.js").AliveOptions} [options] */
  keepAlive(options) {
    return new KeepAlive(this, options);
  }

  /** @param {CallOptions} [options] */
  get(options) {
    return this.#sessions.get(this.id, options);
  }

  /** @param {CallOptions} [options] */
  heartbeat(options) {
    return this.#sessions.heartbeat(this.id, options);
  }

  tabId() {
    return this.#wire.tabId();
  }
}

class Messages {
  #wire;
  #path;
  #source;

  /** @param {Wire} wire @param {string} session @param {import("./stream.js").Source} source */
  constructor(wire, session, source) {
    this.#wire = wire;
    this.#path = `${session}/messages`;
    this.#source = source;
  }

  /**
   * A page, oldest first; without `before` or `after` the latest.
   *
   * @param {Query} [query]
   * @param {CallOptions} [options]
   * @returns {Promise<MessagePage>}
   */
  list(query, options) {
    return this.#wire.call("GET", this.#path, { query, ...options });
  }

  /**
   * All of them, oldest first, page by page.
   *
   * @param {Query} [query]
   * @param {CallOptions} [options]
   * @returns {AsyncGenerator<Message, void>}
   */
  async *all(query = {}, options) {
    for (let after = query.after ?? 0, isMore = true; isMore; ) {
      const page = await this.list({ ...query, after }, options);
      yield* page.messages;
      after = page.cursors.after ?? after;
      isMore = page.has_more;
    }
  }

  /** @param {number} sequence @param {CallOptions} [options] @returns {Promise<Message>} */
  get(sequence, options) {
    return this.#wire.call("GET", `${this.#path}/${sequence}`, options);
  }

  /** @param {number} sequence @param {string} content @param {CallOptions} [options] @returns {Promise<Message>} */
  edit(sequence, content, options) {
    return this.#wire.call("PATCH", `${this.#path}/${sequence}`, { body: { content }, ...options });
  }

  /** @param {number} sequence @param {CallOptions} [options] @returns {Promise<void>} */
  async withdraw(sequence, options) {
    await this.#wire.call("DELETE", `${this.#path}/${sequence}`, options);
  }

  /**
   * Say something. Where the answer is lost on its way it is asked for again, under the same name, so that nothing is
   * stored twice; what fails nevertheless names it (`error.externalId`). With `delivery: "stream"` it gives a stream of
   * the question and all that belongs to its answer, which goes on where a connection breaks.
   *
   * @overload
   * @param {Draft & {delivery: "stream"}} draft
   * @param {CallOptions} [options]
   * @returns {Promise<Stream>}
   */
  /**
   * @overload
   * @param {Draft & {delivery?: Exclude<Delivery, "stream">}} draft
   * @param {CallOptions} [options]
   * @returns {Promise<Answer>}
   */
  /** @param {Draft} draft @param {CallOptions} [options] @returns {Promise<Stream | Answer>} */
  async post({ externalId = `web-${random()}`, ...draft }, options = {}) {
    const body = { ...draft, external_id: externalId };
    try {
      if (draft.delivery !== "stream") return await retried(() => this.#send(body, options));
      const response = await retried(() => streamed(this.#wire, this.#path, body, options, this.#source.server));
      // What broke before it began is asked for again: the same name, so the same message.
      const begin = async (/** @type {AbortSignal} */ signal) => {
        const { message } = await this.#send({ ...body, delivery: "background" }, { ...options, signal });
        return message.sequence - 1;
      };
      return answerStream({ ...this.#source, begin }, response, { signal: options.signal });
    } catch (error) {
      if (error instanceof ChatError) error.externalId = externalId;
      throw error;
    }
  }

  /** @param {Data} body @param {CallOptions} options @returns {Promise<Answer>} */
  #send(body, options) {
    return this.#wire.call("POST", this.#path, { body, timeout: LONG_ANSWER, ...options });
  }
}

class Events {
  #wire;
  #path;

  /** @param {Wire} wire @param {string} session */
  constructor(wire, session) {
    this.#wire = wire;
    this.#path = `${session}/events`;
  }

  /**
   * A page of the log, oldest first; `wait` seconds for one after `after`.
   *
   * @param {Query} [query]
   * @param {CallOptions} [options]
   * @returns {Promise<EventPage>}
   */
  list(query, options) {
    return this.#wire.call("GET", this.#path, { query, timeout: (Number(query?.wait ?? 0) + 30) * 1000, ...options });
  }

  /**
   * All of them, oldest first, page by page.
   *
   * @param {Query} [query]
   * @param {CallOptions} [options]
   * @returns {AsyncGenerator<ChatEvent, void>}
   */
  async *all(query = {}, options) {
    for (let after = query.after ?? 0, isMore = true; isMore; ) {
      const page = await this.list({ ...query, after }, options);
      yield* page.events;
      after = page.cursors.after ?? after;
      isMore = page.has_more;
    }
  }

  /**
   * Record an event of your application's own.
   *
   * @param {string} type `app.…`
   * @param {Data} [data]
   * @param {CallOptions} [options]
   * @returns {Promise<ChatEvent>}
   */
  record(type, data = {}, options) {
    return this.#wire.call("POST", this.#path, { body: { type, data }, ...options });
  }
}

class Runs {
  #wire;
  #path;
  #source;

  /** @param {Wire} wire @param {string} session @param {import("./stream.js").Source} source */
  constructor(wire, session, source) {
    this.#wire = wire;
    this.#path = `${session}/runs`;
    this.#source = source;
  }

  /** A page, latest first. @param {Query} [query] @param {CallOptions} [options] @returns {Promise<RunPage>} */
  list(query, options) {
    return this.#wire.call("GET", this.#path, { query, ...options });
  }

  /** All of them, latest first. @param {Query} [query] @param {CallOptions} [options] */
  all(query = {}, options) {
    return everyResult((page) => this.list(page, options), query);
  }

  /** @param {string} id @param {CallOptions} [options] @returns {Promise<Run>} */
  get(id, options) {
    return this.#wire.call("GET", `${this.#path}/${encodeURIComponent(id)}`, options);
  }

  /**
   * Stop the agent; what it has said stays.
   *
   * @param {string} id
   * @param {CallOptions} [options]
   * @returns {Promise<Run>}
   */
  cancel(id, options) {
    return this.#wire.call("POST", `${this.#path}/${encodeURIComponent(id)}/cancel`, { body: {}, ...options });
  }

  /**
   * Have the last question answered again, or the one of `inputSequence`; the old answer is superseded. With
   * `delivery: "stream"` it gives a stream of the new one.
   *
   * @overload
   * @param {{inputSequence?: number, delivery: "stream"}} what
   * @param {CallOptions} [options]
   * @returns {Promise<Stream>}
   */
  /**
   * @overload
   * @param {{inputSequence?: number, delivery?: "wait" | "background"}} [what]
   * @param {CallOptions} [options]
   * @returns {Promise<Answer>}
   */
  /**
   * @param {{inputSequence?: number, delivery?: Delivery}} [what]
   * @param {CallOptions} [options]
   * @returns {Promise<Stream | Answer>}
   */
  async again({ inputSequence, delivery } = {}, options = {}) {
    const body = { input_sequence: inputSequence, delivery };
    if (delivery !== "stream") return this.#wire.call("POST", this.#path, { body, timeout: LONG_ANSWER, ...options });
    // Asking twice would answer twice: what broke goes on from where the log stood.
    const after = await this.#source.begin(options.signal ?? new AbortController().signal);
    const response = await streamed(this.#wire, this.#path, body, options, this.#source.server);
    return answerStream(this.#source, response, { after, signal: options.signal });
  }
}

/**
 * Ask for a stream; from a server that can't, for an answer in the background, whose events can be polled.
 *
 * @param {Wire} wire
 * @param {string} path
 * @param {Data} body
 * @param {CallOptions} options
 * @param {{canStream: boolean}} server
 */
async function streamed(wire, path, body, options, server) {
  const ask = { timeout: LONG_ANSWER, ...options, headers: EVENT_STREAM };
  try {
    if (server.canStream) return await wire.open("POST", path, { ...ask, body });
  } catch (error) {
    if (!(error instanceof ChatError) || error.status !== 406) throw error;
    server.canStream = false;
  }
  return wire.open("POST", path, { ...ask, body: { ...body, delivery: "background" } });
}

/**
 * A stream that is over when its answer is. A response that is no stream (a repeat, a background run) is followed from
 * where the source begins.
 *
 * @param {import("./stream.js").Source} source
 * @param {Response} response
 * @param {StreamOptions} options
 */
function answerStream(source, response, options) {
  const isStream = (response.headers.get("Content-Type") ?? "").startsWith("text/event-stream");
  if (!isStream) void response.body?.cancel();
  return new Stream(source, { ...options, response: isStream ? response : undefined, until: endsRun });
}

/** @template T @param {() => Promise<T>} send @returns {Promise<T>} */
async function retried(send) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await send();
    } catch (error) {
      if (!(error instanceof NetworkError) || tries >= TRIES) throw error;
      await sleep(250 * 2 ** tries * (0.5 + Math.random() / 2));
    }
  }
}
