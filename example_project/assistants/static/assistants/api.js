// The HTTP contract, as calls. Every answer also teaches the page the server's clock and whether it is reachable.

import { readJSON } from "./dom.js";
import { tabName } from "./tab.js";

const config = readJSON("config") ?? { api: "/api/chat/", username: "" };

export const username = config.username;

/** An answer that says no: problem+json with its stable `code`. */
export class ApiError extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail || body.title || `The server answered ${status}.`);
    this.name = "ApiError";
    this.status = status;
    this.code = body.code || `http_${status}`;
    this.body = body;
    this.retryAfter = retryAfter;
  }

  /** What is wrong, in one line: the fields' own messages where there are some. */
  get explanation() {
    const errors = Object.values(this.body.errors ?? {}).flat().filter((text) => typeof text === "string");
    return errors.length ? errors.join(" ") : this.message;
  }
}

/** No answer at all. */
export class NetworkError extends Error {
  constructor(cause) {
    super("The server could not be reached.", { cause });
    this.name = "NetworkError";
  }
}

/** `reach` events say whether the last call got through; `session-over` that the login has. */
export const wire = new EventTarget();

let reachable = true;

function reached(now) {
  if (now === reachable) return;
  reachable = now;
  wire.dispatchEvent(new CustomEvent("reach", { detail: now }));
}

// The client's clock may be wrong. The server's, to the second, comes with every answer.
let skew = 0;

/** The server's clock now, in milliseconds since the epoch. */
export const serverNow = () => Date.now() + skew;

function learnClock(response) {
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isFinite(date) && Math.abs(date - serverNow()) > 2500) skew = date - Date.now();
}

function csrfToken() {
  // The cookie first: it is the fresher one after somebody logged in again in another tab.
  const cookie = document.cookie.split("; ").find((pair) => pair.startsWith("csrftoken="));
  return cookie ? decodeURIComponent(cookie.slice(10)) : document.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "";
}

/** The address of a call; also for links, such as an export. */
export function address(path, query = {}) {
  const known = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(known).toString();
  return config.api + path + (search ? `?${search}` : "");
}

/** Call the API. Raises ApiError for a refusal, NetworkError for silence, AbortError if `signal` says so. */
async function call(method, path, { query, body, signal, timeout = 30_000 } = {}) {
  const headers = { Accept: "application/json", "X-Chat-Client": await tabName() };
  if (method !== "GET") headers["X-CSRFToken"] = csrfToken();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const signals = [AbortSignal.timeout(timeout), ...(signal ? [signal] : [])];
  let response, answer;
  try {
    response = await fetch(address(path, query), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      signal: AbortSignal.any(signals),
    });
    answer = await read(response);
  } catch (error) {
    if (signal?.aborted) throw new DOMException("Not needed any more.", "AbortError");
    reached(false);
    throw new NetworkError(error);
  }
  reached(true);
  learnClock(response);
  if (response.ok) return answer;
  const error = new ApiError(response.status, answer ?? {}, Number(response.headers.get("Retry-After")) || null);
  if (response.status === 401 || error.code === "not_authenticated") wire.dispatchEvent(new CustomEvent("session-over"));
  throw error;
}

async function read(response) {
  if (response.status === 204) return null;
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return { detail: `The server answered ${response.status}.` };
  }
}

const at = (id) => `sessions/${encodeURIComponent(id)}`;

export const api = {
  sessions: (query, signal) => call("GET", "sessions", { query, signal }),
  open: (body) => call("POST", "sessions", { body }),
  session: (id, signal) => call("GET", at(id), { signal }),
  change: (id, body) => call("PATCH", at(id), { body }),
  remove: (id) => call("DELETE", at(id)),
  resume: (id) => call("POST", `${at(id)}/resume`, { body: {}, query: { max_messages: 1 } }),
  heartbeat: (id) => call("POST", `${at(id)}/heartbeat`, { body: {} }),
  renew: (id) => call("POST", `${at(id)}/renew`, { body: {} }),
  end: (id, reason) => call("POST", `${at(id)}/end`, { body: reason ? { reason } : {} }),
  fork: (id, body) => call("POST", `${at(id)}/fork`, { body }),
  messages: (id, query, signal) => call("GET", `${at(id)}/messages`, { query, signal }),
  // An answer may take as long as the agent's time limit; then the server says so itself.
  send: (id, body) => call("POST", `${at(id)}/messages`, { body, timeout: 120_000 }),
  message: (id, sequence, signal) => call("GET", `${at(id)}/messages/${sequence}`, { signal }),
  edit: (id, sequence, content) => call("PATCH", `${at(id)}/messages/${sequence}`, { body: { content } }),
  withdraw: (id, sequence) => call("DELETE", `${at(id)}/messages/${sequence}`),
  events: (id, after, wait, signal) =>
    call("GET", `${at(id)}/events`, { query: { after, wait: wait || undefined, limit: 100 }, signal, timeout: (wait + 20) * 1000 }),
  exportAddress: (id, as) => address(`${at(id)}/export`, { as }),
};
