// What is said: here, by way of the outbox, and elsewhere, by way of the log.

import * as composer from "./composer.js";
import { apply, drawBeginning, reread, unread, view } from "./current.js";
import { explain } from "./explain.js";
import { countContact } from "./life.js";
import { Follower } from "./live.js";
import * as outbox from "./outbox.js";
import { tellTabs } from "./tab.js";
import * as talk from "./talk.js";
import { begin, gone, startNew } from "./visits.js";
import { agentTitle, isLive } from "./words.js";

export function follow(id, after) {
  const mine = view;
  if (!isLive(view.session.status)) return;
  view.follower = new Follower(id, after, {
    onEvents: (events) => view === mine && onEvents(events),
    onGone: (error) => view === mine && error.status === 404 && gone(),
  });
}

async function onEvents(events) {
  const mine = view;
  const messages = [];
  for (const { type, data } of events) {
    if (type === "message") messages.push(data);
    else if (type === "message.edited" && talk.has(data?.sequence)) messages.push(data);
    else if (type === "message.deleted") {
      flush(messages);
      talk.remove(data.sequence);
    } else if (type.startsWith("run.") && data?.run !== undefined) {
      if (type === "run.started") mine.remoteRuns.add(data.run);
      else mine.remoteRuns.delete(data.run);
    }
  }
  flush(messages);
  drawTyping();
  drawBeginning();
  if (mine.session.last_sequence < events.at(-1).sequence || events.some(({ type }) => type.startsWith("session."))) await reread();
}

function flush(messages) {
  if (!messages.length) return;
  const isNews = messages.some(({ sequence, role }) => role !== "user" && !talk.has(sequence));
  outbox.settle(view.id, messages);
  talk.upsert(messages);
  if (isNews && document.hidden) unread();
  messages.length = 0;
}

export function drawTyping() {
  talk.setTyping(Boolean(view.id) && (outbox.isSending(view.id) || view.remoteRuns.size > 0) && Boolean(view.agent));
}

// ---------------------------------------------------------------------------------------------------------- sending

export function send(text) {
  if (!view.id) return view.agent === null ? false : void begin(text);
  outbox.post(view.id, text);
  drawBeginning();
}

outbox.outbox.addEventListener("change", ({ detail: { session } }) => {
  if (session !== view.id) return;
  talk.setPending(outbox.pendingOf(session));
  drawTyping();
});

outbox.outbox.addEventListener("stored", ({ detail: { session, answer } }) => {
  tellTabs("look", { session });
  if (session === view.id) {
    countContact();
    if (document.hidden && answer.reply && !talk.has(answer.reply.sequence)) unread();
    talk.upsert([answer.message, answer.reply].filter(Boolean));
  }
  if (answer.session) apply(answer.session);
});

outbox.outbox.addEventListener("refused", ({ detail: { session, entry, error } }) => {
  const isHere = session === view.id;
  if (error.code === "agent_failed") {
    if (!isHere) return;
    countContact();
    if (error.body.message) talk.upsert([error.body.message]);
    talk.setTrouble(error.body.message?.sequence, "The agent could not answer. Your message is kept.");
    return void reread();
  }
  composer.giveBack(entry.content, session);
  if (!isHere) return;
  drawBeginning();
  if (error.status === 404) return gone();
  if (["session_expired", "session_ended", "client_conflict"].includes(error.code)) return void reread();
  const full = { message_limit_reached: "This conversation is full.", message_too_long: `That is too long: at most ${error.body.limit} characters.` }[error.code];
  const words = error.code === "agent_unavailable" ? `${agentTitle(view.agent)} is not available right now. Your message is still here; nothing was sent.` : full;
  composer.showNotice(words ?? explain(error, "It could not be sent."), error.code === "message_limit_reached" ? { label: "New conversation", run: () => startNew(view.agent) } : null);
});
