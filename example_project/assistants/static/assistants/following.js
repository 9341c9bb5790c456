// The conversation in view, as the client follows it, and what is said in it, by way of the outbox.

import { NetworkError } from "../chat_sessions/client.js";
import * as composer from "./composer.js";
import { apply, canWrite, drawBeginning, reread, unread, view } from "./current.js";
import { explain } from "./explain.js";
import { drawLine } from "./frame.js";
import { client, tellTabs } from "./link.js";
import * as outbox from "./outbox.js";
import * as talk from "./talk.js";
import { begin, failOpening, gone, startNew } from "./visits.js";
import { agentTitle, agents } from "./words.js";

const PAGE = 50;

/** Follow the conversation in view; `arrived()` is called once it has been read. */
export function follow(arrived) {
  const mine = view;
  mine.conversation = client.session(mine.id).follow({ pageSize: PAGE, signal: mine.reading.signal });
  mine.conversation.subscribe(() => view === mine && show(mine.conversation.getSnapshot(), arrived));
}

function show(snapshot, arrived) {
  drawLine();
  if (snapshot.error?.status === 404) return gone();
  const mine = view;
  if (!snapshot.isLoaded) return wait(snapshot);
  const isArrival = !mine.hasArrived;
  mine.hasArrived = true;
  if (isArrival) mine.agent = snapshot.session.agent;
  const fresh = talk.show(snapshot, { agent: mine.agent, isFirst: isArrival });
  if (isArrival) talk.setPending(outbox.pendingOf(mine.id)); // they may have lost their places
  if (fresh && document.hidden) unread();
  outbox.settle(mine.id, snapshot.messages);
  outbox.setBusy(mine.id, snapshot.isAnswering);
  apply(snapshot.session);
  composer.setAnswering(snapshot.isAnswering && canWrite(mine.session));
  drawBeginning();
  if (isArrival) arrived();
}

/** It has not been read yet: where there is no connection, say so; the client goes on trying. */
function wait({ error, connection }) {
  if (view.isStuck || (!error && connection !== "offline")) return;
  view.isStuck = true;
  failOpening(error ?? new NetworkError());
}

// ---------------------------------------------------------------------------------------------------------- sending

export function send(text) {
  if (!view.id) return view.agent === null ? false : void begin(text);
  outbox.post(view.id, text);
  drawBeginning();
}

/** Store a question; its answer comes with the conversation, whichever connection that has by then. */
export function post(session, draft) {
  const isHere = session === view.id && view.conversation;
  const delivery = !isHere || isAnswered(view.agent) ? "background" : "store";
  return isHere ? view.conversation.post({ ...draft, delivery }) : client.session(session).messages.post({ ...draft, delivery });
}

const isAnswered = (agent) => agents.some(({ name }) => name === agent);

/** Stop the answer that is being given; what was said of it stays. */
export async function stop() {
  const mine = view;
  if (!talk.isAnswering() || mine.isStopping) return;
  mine.isStopping = true;
  try {
    await mine.conversation.cancel();
  } catch (error) {
    if (view === mine) composer.showNotice(explain(error, "It could not be stopped."));
  } finally {
    mine.isStopping = false;
  }
}

/** Have the question of the latest answer answered again; what was said to it before goes. */
export async function again() {
  const mine = view;
  const { run } = mine.conversation.getSnapshot();
  composer.hideNotice();
  try {
    await mine.conversation.again(run?.input_sequence);
    composer.focusUnlessTouch();
  } catch (error) {
    if (view !== mine) return;
    if (["session_expired", "session_ended", "client_conflict"].includes(error.code)) return void reread();
    const isAway = error.code === "agent_unavailable";
    composer.showNotice(isAway ? `${agentTitle(mine.agent)} is not available right now.` : explain(error, "It could not be asked again."));
  }
}

outbox.outbox.addEventListener("change", ({ detail: { session } }) => {
  if (session === view.id) talk.setPending(outbox.pendingOf(session));
});

outbox.outbox.addEventListener("stored", ({ detail: { session, answer } }) => {
  tellTabs("look", { session });
  apply(answer.session);
});

outbox.outbox.addEventListener("refused", ({ detail: { session, entry, error } }) => {
  composer.giveBack(entry.content, session);
  if (session !== view.id) return;
  drawBeginning();
  if (error.status === 404) return gone();
  if (["session_expired", "session_ended", "client_conflict"].includes(error.code)) return void reread();
  const full = { message_limit_reached: "This conversation is full.", message_too_long: `That is too long: at most ${error.body.limit} characters.` }[error.code];
  const words = error.code === "agent_unavailable" ? `${agentTitle(view.agent)} is not available right now. Your message is still here; nothing was sent.` : full;
  composer.showNotice(words ?? explain(error, "It could not be sent."), error.code === "message_limit_reached" ? { label: "New conversation", run: () => startNew(view.agent) } : null);
});
