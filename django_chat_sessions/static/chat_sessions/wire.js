// A call: the headers that each one needs, its time limit, and what an answer means.

/** @typedef {import("./types.js").Query} Query */
/** @typedef {Record<string, string>} Headers_ */

/**
 * @typedef {object} WireOptions
 * @property {string} [baseUrl] where the host mounted the API; by default `/api/chat/`
 * @property {typeof globalThis.fetch} [fetch]
 * @property {Headers_ | (() => Headers_ | Promise<Headers_>)} [headers] such as a token; a function is asked each time
 * @property {false | string | (() => string)} [csrf] Django's token: the cookie's name, a function, or false for none
 * @property {RequestCredentials} [credentials] by default `same-origin`
 * @property {number} [timeout] of a call, in milliseconds
 */

/**
 * @typedef {object} Ask
 * @property {Query} [query]
 * @property {unknown} [body]
 * @property {Headers_} [headers]
 * @property {AbortSignal} [signal]
 * @property {number} [timeout] in milliseconds
 * @property {number} [ifMatch]
 */

/** The server said no: problem+json with its stable `code`. */
export class ChatError extends Error {
  /** The name under which a message was posted, where posting it failed: posting it again stores it once.
   * @type {string | undefined} */
  externalId;

  /**
   * @param {number} status
   * @param {Record<string, any>} body
   * @param {{retryAfter?: number | null, cause?: unknown}} [more]
   */
  constructor(status, body, { retryAfter = null, cause } = {}) {
    super(body.detail || body.title || `The server answered ${status}.`, { cause });
    this.name = "ChatError";
    this.status = status;
    /** @type {string} */
    this.code = body.code || `http_${status}`;
    this.body = body;
    /** Seconds after which another try makes sense, where the server says so. */
    this.retryAfter = retryAfter;
  }

  /** What is wrong, in one line: the fields' own messages where there are some. */
  get explanation() {
    const errors = Object.values(this.body.errors ?? {}).flat();
    return errors.filter((text) => typeof text === "string").join(" ") || this.message;
  }
}

/** Nobody said anything: no connection, a connection that broke, or no answer in time. Its status is 0. */
export class NetworkError extends ChatError {
  /** @param {unknown} [cause] */
  constructor(cause) {
    super(0, { code: "network_error", detail: "The server could not be reached." }, { cause });
    this.name = "NetworkError";
  }
}

export class Wire {
  /** @type {string} */ #base;
  /** @type {WireOptions} */ #options;
  /** @type {() => Promise<string>} */ #tab;

  /**
   * @param {WireOptions} options
   * @param {() => Promise<string>} tab
   */
  constructor(options, tab) {
    this.#base = (options.baseUrl ?? "/api/chat/").replace(/\/*$/, "/");
    this.#options = options;
    this.#tab = tab;
  }

  /** The name of this tab, or of this process. */
  tabId() {
    return this.#tab();
  }

  /**
   * @param {string} path
   * @param {Query} [query]
   */
  address(path, query = {}) {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null && value !== "") search.set(name, String(value));
    }
    return this.#base + path + (String(search) ? `?${search}` : "");
  }

  /**
   * The JSON of an answer; null where it has none. A refusal is a ChatError, silence a NetworkError; what `signal`
   * gives up ends with the signal's own reason.
   *
   * @param {string} method
   * @param {string} path
   * @param {Ask} [ask]
   * @returns {Promise<any>}
   */
  call(method, path, ask = {}) {
    return this.#within(ask, async (signal) => {
      const response = await this.#send(method, path, ask, signal);
      const text = await response.text();
      return text ? JSON.parse(text) : null;
    });
  }

  /**
   * A response that says yes, its body unread: the time limit is that of its beginning, and the body is the caller's to
   * cancel.
   *
   * @param {string} method
   * @param {string} path
   * @param {Ask} [ask]
   */
  open(method, path, ask = {}) {
    return this.#within(ask, (signal) => this.#send(method, path, ask, signal));
  }

  /**
   * @template T
   * @param {Ask} ask
   * @param {(signal: AbortSignal) => Promise<T>} work
   */
  async #within({ signal, timeout }, work) {
    const limit = new AbortController();
    const giveUp = () => limit.abort();
    const timer = setTimeout(giveUp, timeout ?? this.#options.timeout ?? 30_000);
    signal?.addEventListener("abort", giveUp);
    try {
      signal?.throwIfAborted();
      return await work(limit.signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw error instanceof ChatError ? error : new NetworkError(error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", giveUp);
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Ask} ask
   * @param {AbortSignal} signal
   */
  async #send(method, path, { query, body, headers, ifMatch }, signal) {
    const url = this.address(path, query);
    const response = await (this.#options.fetch ?? globalThis.fetch)(url, {
      method,
      headers: { ...(await this.#headers(method, url)), ...json(body), ...match(ifMatch), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: this.#options.credentials ?? "same-origin",
      cache: "no-store",
      signal,
    });
    if (response.ok) return response;
    const retryAfter = Number(response.headers.get("Retry-After")) || null;
    throw new ChatError(response.status, parsed(await response.text()), { retryAfter });
  }

  /**
   * @param {string} method
   * @param {string} url
   * @returns {Promise<Headers_>}
   */
  async #headers(method, url) {
    const { headers } = this.#options;
    const own = typeof headers === "function" ? await headers() : headers;
    return { Accept: "application/json", "X-Chat-Client": await this.#tab(), ...this.#csrf(method, url), ...own };
  }

  /**
   * @param {string} method
   * @param {string} url
   * @returns {Headers_}
   */
  #csrf(method, url) {
    const { csrf } = this.#options;
    if (csrf === false || method === "GET" || typeof document === "undefined") return {};
    if (new URL(url, document.baseURI).origin !== location.origin) return {}; // it is nobody else's to know
    return { "X-CSRFToken": typeof csrf === "function" ? csrf() : djangoToken(csrf) };
  }
}

/** @param {unknown} body @returns {Headers_} */
const json = (body) => (body === undefined ? {} : { "Content-Type": "application/json" });

/** @param {number | undefined} sequence @returns {Headers_} */
const match = (sequence) => (sequence === undefined ? {} : { "If-Match": `"${sequence}"` });

/** @param {string} text @returns {Record<string, any>} */
function parsed(text) {
  try {
    const body = JSON.parse(text);
    return body && typeof body === "object" ? body : {};
  } catch {
    return {}; // a proxy's page
  }
}

/** The cookie first: it is the fresher one after somebody logged in again in another tab. @param {string} [cookie] */
function djangoToken(cookie = "csrftoken") {
  const pair = document.cookie.split("; ").find((text) => text.startsWith(`${cookie}=`));
  if (pair) return decodeURIComponent(pair.slice(cookie.length + 1));
  const field = document.querySelector("input[name=csrfmiddlewaretoken]");
  return field instanceof HTMLInputElement ? field.value : "";
}
