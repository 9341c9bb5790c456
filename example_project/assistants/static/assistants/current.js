// The conversation in view, and what the server says of it.

import { continueHere, takeOver } from "./actions.js";
import { hideBanner, showBanner } from "./banner.js";
import * as composer from "./composer.js";
import { $, announce } from "./dom.js";
import { hideHero, showBeginning } from "./hero.js";
import { isExpiring, watch } from "./life.js";
import { sessions, tabName } from "./link.js";
import { setMark } from "./marks.js";
import * as sidebar from "./sidebar.js";
import * as talk from "./talk.js";
import { gone, startNew } from "./visits.js";
import { agentOf, agentTitle, isLive, moment, reasonText, titleOf } from "./words.js";

/** A session (`id`), or one that is yet to be opened (`agent`); another object for each visit. */
export let view = { id: null, agent: null, session: null };

/** Make another visit the current one. */
export function turnTo(next) {
  view = { ...next, reading: new AbortController(), conversation: null };
  return view;
}

const needsControl = (session) => session.strategy === "per_tab" || session.strategy === "active_tab_wins";
export const canWrite = (session) => isLive(session.status) && isMine(session);
export const isMine = (session) => !needsControl(session) || session.client === tabName();

/** Take in what the server says of a session. */
export function apply(session) {
  if (!session || session === view.session) return;
  sidebar.upsert(session);
  if (session.id !== view.id) return;
  if (view.session && session.last_sequence < view.session.last_sequence) return; // overtaken by a later answer
  const wasAlive = view.session && isLive(view.session.status);
  view.session = session;
  view.conversation?.update(session);
  watch(session, isMine(session), view.conversation ?? undefined);
  drawHeading();
  drawState();
  if (wasAlive && !isLive(session.status)) {
    announce(session.status === "expired" ? "This conversation expired." : "This conversation ended.");
  }
}

export async function reread() {
  const mine = view;
  if (!mine.id) return;
  try {
    const session = await sessions.get(mine.id, { signal: mine.reading.signal });
    if (view === mine) apply(session);
  } catch (error) {
    if (view === mine && error.status === 404) gone();
  }
}

function drawState() {
  const { session } = view;
  const isOver = !isLive(session.status);
  const mine = isMine(session);
  talk.setWritable(canWrite(session));
  composer.setAnswering(talk.isAnswering() && canWrite(session));
  if (isOver) return showBanner(overBanner(session));
  if (!mine) return showBanner(conflictBanner(session));
  hideBanner();
}

function overBanner(session) {
  const isErased = session.status === "archived"; // nothing that was said could come along
  const continuing = { label: "Continue in a new conversation", run: continueHere, isPrimary: true };
  const anew = { label: "Start a new conversation", run: () => startNew(session.agent), isPrimary: true };
  const when = session.ended_at ?? session.expires_at;
  const words = {
    expired: ["i-clock", "This conversation expired", reasonText(session.end_reason)],
    ended: ["i-check", "This conversation ended", reasonText(session.end_reason)],
    failed: ["i-alert", "This conversation failed", reasonText(session.end_reason)],
    archived: ["i-file", "This conversation is archived", ""],
  }[session.status];
  const [iconName, title, reason] = words;
  const text = [`${{ expired: "Expired", ended: "Ended" }[session.status] ?? "It was over"} ${moment(when)}.`, reason, isErased ? "What was said is no longer here." : "It stays readable."];
  return { kind: session.status, iconName, title, text: text.filter(Boolean).join(" "), actions: [isErased ? anew : continuing] };
}

function conflictBanner(session) {
  if (session.strategy === "per_tab") {
    return {
      kind: "conflict",
      iconName: "i-tab",
      title: "This conversation belongs to another tab",
      text: "You can read it here. To write, go on in one of this tab's own.",
      actions: [{ label: "Continue in a new conversation", run: continueHere, isPrimary: true }],
    };
  }
  return {
    kind: "conflict",
    iconName: "i-tab",
    title: "This conversation is being used in another tab",
    text: "You can read along. Only one tab at a time can write.",
    actions: [{ label: "Use it here", run: takeOver, isPrimary: true }],
  };
}

export function drawHeading() {
  const { session, id, agent } = view;
  const known = session ?? (id && sidebar.known(id)) ?? null;
  const title = known ? known.title || sidebar.openingOf(known.id) || titleOf(known) : agent && !id ? "New conversation" : "";
  if (!$("title").querySelector("input")) $("title").textContent = title;
  const name = known?.agent ?? agent;
  $("heading-mark").hidden = !name;
  if (name) setMark($("heading-mark"), name);
  $("subtitle").textContent = name ? `${agentTitle(name)}${agentOf(name).description ? ` · ${agentOf(name).description}` : ""}` : "";
  $("tools").hidden = !session;
  $("rename").hidden = !session;
  $("end").hidden = !session || !canWrite(session);
  if (!session) $("chip").hidden = true;
  const notice = document.hidden && isExpiring() ? "Expires soon · " : "";
  document.title = `${unreadCount ? `(${unreadCount}) ` : ""}${notice}${title ? `${title} · ` : ""}Assistants`;
}

export function drawBeginning() {
  if (view.session && isLive(view.session.status) && talk.isEmpty()) {
    showBeginning(view.session.agent, (text) => {
      composer.setText(text);
      composer.focus();
    });
  } else if (view.id) hideHero();
}

let unreadCount = 0;

/** Count what was missed while the tab was hidden; its title says so. */
export function unread(count = unreadCount + 1) {
  if (unreadCount === count) return;
  unreadCount = count;
  drawHeading();
}
