// What was typed and is not known to be stored yet. One message at a time per conversation, in the order of typing.
//
// Each has an external_id from the start, so that sending it again can never store it twice: not after a lost answer,
// not after a reload either, for which the outbox lives in sessionStorage.

import { ApiError, api, username } from "./api.js";
import { randomName } from "./tab.js";

const KEY = `outbox:${username}`;

/** An entry: {session, externalId, content, state: "queued" | "sending" | "failed", reason, retryAt, at}. */
let entries = load();

/** "change" (detail: session), "stored" {session, answer}, "refused" {session, entry, error}. */
export const outbox = new EventTarget();

const tell = (type, detail) => outbox.dispatchEvent(new CustomEvent(type, { detail }));

function load() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) || "[]");
    return kept.map((entry) => ({ ...entry, state: "failed", retryAt: null, reason: "The page was closed before it was sent." }));
  } catch {
    return [];
  }
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
export const isSending = (session) => pendingOf(session).some((entry) => entry.state === "sending");

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
  const names = new Set(messages.map((message) => message.external_id).filter(Boolean));
  const arrived = pendingOf(session).filter((entry) => names.has(entry.externalId));
  for (const entry of arrived) entry.isStored = true;
  // One that is being sent is still waited for: its answer is to come.
  const done = arrived.filter((entry) => entry.state !== "sending");
  if (!done.length) return;
  entries = entries.filter((entry) => !done.includes(entry));
  changed(session);
}

/** Forget everything of a conversation that is gone. */
export function forget(session) {
  entries = entries.filter((entry) => entry.session !== session);
  changed(session);
}

const pumping = new Set();

async function pump(session) {
  if (pumping.has(session)) return;
  pumping.add(session);
  try {
    for (let entry; (entry = pendingOf(session).find(({ state }) => state === "queued")); ) {
      if (!(await send(entry))) hold(session);
    }
  } finally {
    pumping.delete(session);
  }
}

/** What waits behind a failure would overtake it; the person decides. */
function hold(session) {
  for (const entry of pendingOf(session)) {
    if (entry.state === "queued") Object.assign(entry, { state: "failed", reason: "It waited for the one before it." });
  }
  changed(session);
}

async function send(entry) {
  entry.state = "sending";
  changed(entry.session);
  try {
    const answer = await api.send(entry.session, { content: entry.content, external_id: entry.externalId });
    tell("stored", { session: entry.session, answer });
    discard(entry);
    return true;
  } catch (error) {
    return failed(entry, error);
  }
}

const RETRIABLE = new Set(["throttled", "run_in_progress", "database_unavailable", "permission_denied", "not_authenticated"]);

function failed(entry, error) {
  if (entry.isStored && !(error instanceof ApiError)) {
    // Only the answer was lost; the message is there, and the reply comes with the events.
    discard(entry);
    return true;
  }
  if (error.code === "agent_failed") {
    tell("refused", { session: entry.session, entry, error });
    discard(entry);
    return true;
  }
  const isLasting = error instanceof ApiError && error.status < 500 && !RETRIABLE.has(error.code);
  if (isLasting || error.code === "agent_unavailable") {
    discard(entry);
    tell("refused", { session: entry.session, entry, error });
    return false;
  }
  const reason = { throttled: "Too many messages at once.", run_in_progress: "The agent is still answering." }[error.code] ?? error.message;
  const retryAt = error.retryAfter ? performance.now() + error.retryAfter * 1000 : null;
  Object.assign(entry, { state: "failed", reason, retryAt });
  changed(entry.session);
  return false;
}
