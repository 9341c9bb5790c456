// The page's line to the server: its client, whether it gets through, the server's clock; and the line to other tabs.

import { createClient } from "../chat_sessions/client.js";
import { readJSON } from "./dom.js";

const config = readJSON("config") ?? { api: "/api/chat/", username: "" };
const PROBE = [2_000, 4_000, 8_000, 15_000]; // milliseconds between looks whether the server is back

export const username = config.username;

export const client = createClient({ baseUrl: config.api, fetch: observed });
export const { sessions } = client;

/** "reach" when `isReachable()` changes; "session-over" when the login is. */
export const line = new EventTarget();

let reachable = true;
let probing;

/** Whether the last call got through. */
export const isReachable = () => reachable;

function reached(now) {
  if (now === reachable) return;
  reachable = now;
  clearTimeout(probing);
  if (!now) probe();
  line.dispatchEvent(new Event("reach"));
}

function probe(tries = 0) {
  probing = setTimeout(async () => {
    await sessions.list({ limit: 1 }).catch(() => {});
    if (!reachable) probe(tries + 1);
  }, PROBE[Math.min(tries, PROBE.length - 1)]);
}

addEventListener("online", () => reachable || void sessions.list({ limit: 1 }).catch(() => {}));

async function observed(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (!options.signal?.aborted) reached(false);
    throw error;
  }
  reached(true);
  learnClock(response);
  if (response.status === 401) line.dispatchEvent(new Event("session-over"));
  return response;
}

// The client's clock may be wrong. The server's, to the second, comes with every answer.
let skew = 0;

/** The server's clock now, in milliseconds since the epoch. */
export const serverNow = () => Date.now() + skew;

function learnClock(response) {
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isFinite(date) && Math.abs(date - serverNow()) > 2500) skew = date - Date.now();
}

// ------------------------------------------------------------------------------------------------------------- tabs

let tab = null;

/** Settles when this tab has its name. */
export const tabNamed = client.tabId().then((name) => (tab = name));

/** The name of this tab, where it is known to have one. */
export const tabName = () => tab;

/** A random name for something that is sent, so that sending it twice does it once. */
export function randomName() {
  // crypto.randomUUID would need a secure context; a demo on a LAN address has none.
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const channel = "BroadcastChannel" in window ? new BroadcastChannel("assistants") : null;

/** Tell the other tabs of this browser that something has changed. */
export const tellTabs = (kind, data = {}) => channel?.postMessage({ kind, ...data });

/** Hear it. */
export const onTabs = (kind, handler) =>
  channel?.addEventListener("message", ({ data }) => data.kind === kind && handler(data));
