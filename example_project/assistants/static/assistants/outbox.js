// What was typed and is not known to be stored yet. One message at a time per conversation, in the order of typing.
//
// Each has an external_id from the start, so that sending it again can never store it twice: not after a lost answer,
// not after a reload either, for which the outbox lives in sessionStorage. What finds no connection waits for one.

import { line, isReachable, randomName, username } from "./link.js";

const KEY = `outbox:${username}`;
const PAUSES = [2_000, 4_000, 8_000, 15_000, 30_000]; // milliseconds before what waits is tried again
const FRESH = 10 * 60_000; // what waited for longer, in a page that was closed, is the person's to send

/** An entry: {session, externalId, content, state, reason, retryAt, at}, its state queued, sending, waiting (for a
 * connection, or its turn), sent (and not seen in the conversation yet) or failed. */
let entries = load();

/** "change" (detail: session), "stored" {session, answer}, "refused" {session, entry, error}. */
export const outbox = new EventTarget();

const tell = (type, detail) => outbox.dispatchEvent(new CustomEvent(type, { detail }));

let post_ = async () => {};

/** Begin: `post(session, draft)` says something. What an earlier page left is sent. */
export function initOutbox({ post }) {
  post_ = post;
  line.addEventListener("reach", () => isReachable() && wake());
  addEventListener("online", wake);
  wake();
}

function load() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) || "[]").filter(({ state }) => state !== "sent").map(left);
  } catch {
    return [];
  }
}

function left(entry) {
  if (entry.state === "failed") return { ...entry, retryAt: null };
  if (Date.now() - Date.parse(entry.at) < FRESH) return { ...entry, state: "waiting" };
  return { ...entry, state: "failed", reason: "The page was closed before it was sent." };
}

function changed(session) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(entries));
  } catch {
    // Then it lives as long as the page.
  }
  tell("change", { session });
}

export const pendingOf = (session) => entries.filter((entry) => entry.session === session);

/** Queue a text for a conversation and send it as soon as those before it are through. */
export function post(session, content) {
  entries.push({ session, content, externalId: `page-${randomName()}`, state: "queued", at: new Date().toISOString() });
  changed(session);
  void pump(session);
}

/** Send again what failed: the same external_id, so that nothing is doubled. */
export function retry(entry) {
  Object.assign(entry, { state: "queued", reason: "", retryAt: null });
  changed(entry.session);
  void pump(entry.session);
}

export function discard(entry) {
  entries = entries.filter((other) => other !== entry);
  changed(entry.session);
}

/** The server has these messages: whatever waits under one of their names has arrived. */
export function settle(session, messages) {
  const pending = pendingOf(session);
  if (!pending.length) return;
  const names = new Set(messages.map((message) => message.external_id).filter(Boolean));
  const arrived = pending.filter((entry) => names.has(entry.externalId));
  for (const entry of arrived) entry.isStored = true;
  // One that is being sent is still waited for: its answer is to come.
  const done = arrived.filter((entry) => entry.state !== "sending");
  if (!done.length) return;
  entries = entries.filter((entry) => !done.includes(entry));
  changed(session);
}

/** Nobody looks at a conversation any more: what was sent need not be seen in it. */
export function leave(session) {
  entries = entries.filter((entry) => entry.session !== session || entry.state !== "sent");
  setBusy(session, false);
}

/** Forget everything of a conversation that is gone. */
export function forget(session) {
  entries = entries.filter((entry) => entry.session !== session);
  changed(session);
}

// ---------------------------------------------------------------------------------------------------------- sending

const pumping = new Set();
const busy = new Set();
let timer;
let failures = 0;

/** Whether the agent is answering in a conversation: then what comes next waits its turn. */
export function setBusy(session, isBusy) {
  if (busy.has(session) === isBusy) return;
  if (isBusy) return void busy.add(session);
  busy.delete(session);
  void pump(session);
}

/** Try what waits. */
function wake() {
  clearTimeout(timer);
  for (const session of new Set(entries.map((entry) => entry.session))) void pump(session);
}

function wakeLater(index) {
  clearTimeout(timer);
  timer = setTimeout(wake, PAUSES[Math.min(index, PAUSES.length - 1)]);
}

async function pump(session) {
  if (pumping.has(session)) return;
  pumping.add(session);
  try {
    while (!busy.has(session)) {
      const entry = pendingOf(session).find(({ state }) => state === "queued" || state === "waiting");
      if (!entry || !(await send(entry))) break;
    }
  } finally {
    pumping.delete(session);
  }
}

/** Tell whether the next one may follow. */
async function send(entry) {
  entry.state = "sending";
  changed(entry.session);
  try {
    const answer = await post_(entry.session, { content: entry.content, externalId: entry.externalId });
    failures = 0;
    tell("stored", { session: entry.session, answer });
    if (entry.isStored) discard(entry);
    else entry.state = "sent";
    changed(entry.session);
    return true;
  } catch (error) {
    return failed(entry, error);
  }
}

const RETRIABLE = new Set(["throttled", "database_unavailable", "permission_denied", "not_authenticated"]);

function failed(entry, error) {
  const { session } = entry;
  if (entry.isStored && !error.status) {
    // Only the answer was lost; the message is there, and the reply comes with the conversation.
    discard(entry);
    return true;
  }
  if (!error.status || error.code === "run_in_progress") {
    entry.state = "waiting";
    wakeLater(error.status ? 0 : failures++);
    changed(session);
    return false;
  }
  const isLasting = error.status < 500 && !RETRIABLE.has(error.code);
  if (isLasting || error.code === "agent_unavailable") {
    discard(entry);
    tell("refused", { session, entry, error });
  } else {
    const reason = error.code === "throttled" ? "Too many messages at once." : error.message;
    const retryAt = error.retryAfter ? performance.now() + error.retryAfter * 1000 : null;
    Object.assign(entry, { state: "failed", reason, retryAt });
  }
  hold(session);
  return false;
}

/** What waits behind a failure would overtake it; the person decides. */
function hold(session) {
  for (const entry of pendingOf(session)) {
    if (entry.state === "queued") Object.assign(entry, { state: "failed", reason: "It waited for the one before it." });
  }
  changed(session);
}
