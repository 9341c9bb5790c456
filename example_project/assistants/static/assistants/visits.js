// From one conversation to the next: by address, from the list, or to a new one.

import { hideBanner } from "./banner.js";
import * as composer from "./composer.js";
import { apply, drawHeading, isMine, reread, turnTo, unread, view } from "./current.js";
import { $, isTouch } from "./dom.js";
import { explain } from "./explain.js";
import { follow } from "./following.js";
import { closeDrawer, drawLine } from "./frame.js";
import { hideHero, showChoice, showDeadEnd } from "./hero.js";
import { isAlive, secondsLeft, watch } from "./life.js";
import { isReachable, line, randomName, sessions, tabNamed, tellTabs } from "./link.js";
import * as outbox from "./outbox.js";
import * as sidebar from "./sidebar.js";
import * as talk from "./talk.js";
import { agentTitle, agents, firstWords, length } from "./words.js";

const AWAY = 60; // seconds of idleness after which opening a conversation counts as coming back to it

let listed; // the first page of the list, which says what to open where the address does not

/** Read the list anew. */
export const relist = () => (listed = sidebar.refresh());

export function address(params) {
  const search = new URLSearchParams(params).toString();
  return location.pathname + (search ? `?${search}` : "");
}

export function route() {
  const params = new URLSearchParams(location.search);
  if (params.get("session")) return openSession(params.get("session"), { history: null });
  if (params.has("new")) return startNew(params.get("new"), { history: null });
  return openLatest();
}

export async function openLatest() {
  const known = await listed;
  if (known === null) {
    leave({ id: null, agent: null, session: null });
    view.isStranded = true;
    return deadEnd("Not reachable", "The conversations could not be loaded.", retryRoute);
  }
  return known[0] ? openSession(known[0].id, { history: "replace" }) : startNew(null, { history: "replace" });
}

line.addEventListener("reach", () => isReachable() && view.isStranded && retryRoute.run());

const retryRoute = {
  label: "Try again",
  run: () => {
    relist();
    void route();
  },
};

/** Turn away from what is in view. */
function leave(next, { carry = false } = {}) {
  view.reading?.abort();
  if (view.id) outbox.leave(view.id);
  turnTo(next);
  unread(0);
  hideHero();
  hideBanner();
  drawLine();
  talk.clear(next.agent ?? next.session?.agent ?? "");
  watch(null);
  composer.setAnswering(false);
  sidebar.select(next.id);
  closeDrawer();
  const name = next.session?.agent ?? next.agent;
  composer.switchTo(next.id ?? "new", { carry, placeholder: name ? `Message ${agentTitle(name)}` : "Message" });
  return view;
}

function go(how, params) {
  if (how === "push") history.pushState(null, "", address(params));
  else if (how === "replace") history.replaceState(null, "", address(params));
}

export function focusComposer() {
  if (isTouch() || $("dialog").open) return;
  if ($("composer").hidden) $("title").focus({ preventScroll: true });
  else composer.focus();
}

// -------------------------------------------------------------------------------------------------------- a new one

export function startNew(name, { history = "push" } = {}) {
  const agent = agents.some((known) => known.name === name) ? name : lastAgent();
  leave({ id: null, agent, session: null, openingName: `page-${randomName()}` });
  go(history, { new: agent });
  drawHeading();
  showChoice(agent, {
    choose: (chosen) => {
      view.agent = chosen;
      go("replace", { new: chosen });
      remember(chosen);
      drawHeading();
      $("text").placeholder = `Message ${agentTitle(chosen)}`;
    },
    suggest: (text) => {
      composer.setText(text);
      composer.focus();
    },
    openNow: () => void begin(null),
  });
  focusComposer();
}

function lastAgent() {
  try {
    const kept = localStorage.getItem("agent");
    if (agents.some(({ name }) => name === kept)) return kept;
  } catch {
    // The first, then.
  }
  return agents[0]?.name ?? "";
}

function remember(agent) {
  try {
    localStorage.setItem("agent", agent);
  } catch {
    // A convenience only.
  }
}

/** Open a session for the agent that was chosen and say the first thing in it, or just look. */
export async function begin(text) {
  if (view.isOpening) return false;
  const mine = view;
  mine.isOpening = true;
  remember(mine.agent);
  if (text !== null) {
    hideHero();
    talk.setPending([{ externalId: mine.openingName, content: text, state: "sending", at: new Date().toISOString() }]);
  }
  try {
    // Its name makes opening again, after an answer that was lost, find the same one.
    const title = text === null ? {} : { title: firstWords(text) };
    const session = await sessions.open({ agent: mine.agent, external_id: mine.openingName, ...title });
    if (text !== null) outbox.post(session.id, text);
    sidebar.upsert(session);
    tellTabs("sessions");
    if (view === mine) await openSession(session.id, { history: "push", fresh: session });
  } catch (error) {
    if (view !== mine) return composer.giveBack(text ?? "", "new");
    mine.isOpening = false;
    talk.setPending([]);
    startNew(mine.agent, { history: null });
    view.openingName = mine.openingName;
    if (text !== null) composer.giveBack(text, "new");
    composer.showNotice(explain(error, "The conversation could not be opened."));
  }
}

// ------------------------------------------------------------------------------------------------------ opening one

export async function openSession(id, { history = "push", fresh = null, carry = false, focus = true } = {}) {
  if (view.id === id && view.session) {
    closeDrawer();
    return focus && focusComposer();
  }
  const known = fresh ?? sidebar.known(id);
  const mine = leave({ id, agent: known?.agent ?? null, session: fresh }, { carry });
  go(history, { session: id });
  drawHeading();
  talk.setPending(outbox.pendingOf(id));
  $("log").classList.toggle("is-loading", !fresh);
  await tabNamed;
  if (view !== mine) return;
  follow(() => {
    $("log").classList.remove("is-loading");
    $("text").placeholder = `Message ${agentTitle(mine.agent)}`;
    if (focus) focusComposer();
    if (!fresh) void comeBack();
  });
}

/** It could not even be read. */
export function failOpening(error) {
  $("log").classList.remove("is-loading");
  deadEnd("Not reachable", explain(error, "The conversation could not be loaded."), retryRoute);
}

export function gone() {
  if (view.id) {
    sidebar.drop(view.id);
    outbox.forget(view.id);
  }
  leave({ id: null, agent: null, session: null });
  deadEnd("Nothing here", "This conversation does not exist any more, or it is not yours.", {
    label: "New conversation",
    run: () => startNew(null),
  });
}

function deadEnd(title, text, action) {
  drawHeading();
  composer.setShown(false);
  showDeadEnd(title, text, [action]);
}

/** Opening a live conversation after a while is coming back to it: the log says so, and its deadline moves. */
export async function comeBack() {
  const { session } = view;
  const mine = view;
  if (!session || document.hidden || !isAlive() || !isMine(session)) return;
  // The server's now, whatever this machine's clock says.
  const idle = session.timeout.timeout_minutes * 60 - secondsLeft();
  const silence = (Date.parse(session.expires_at) - secondsLeft() * 1000 - Date.parse(session.last_activity_at)) / 1000;
  if (Math.max(idle, silence) < AWAY) return;
  try {
    const answer = await sessions.resume(session.id, { max_messages: 1 });
    if (view !== mine) return;
    if (answer.session.status === "resumed" && answer.session.last_sequence > session.last_sequence && !talk.isEmpty()) {
      talk.addDivider(`Welcome back after ${length(answer.idle_seconds)}`);
    }
    apply(answer.session);
  } catch (error) {
    if (error.status) void reread();
  }
}
