// The page: which conversation is in view, and what people and the server do with it.

import { initAccount } from "./account.js";
import { ApiError, api, wire } from "./api.js";
import { hideBanner, showBanner } from "./banner.js";
import * as composer from "./composer.js";
import { $, announce, h, icon, isNarrow, isTouch, toast } from "./dom.js";
import { hideHero, showBeginning, showChoice, showDeadEnd } from "./hero.js";
import { countContact, isAlive, life, secondsLeft, watch } from "./life.js";
import { Follower } from "./live.js";
import { setMark } from "./marks.js";
import { ask, openMenu, tell } from "./menus.js";
import * as outbox from "./outbox.js";
import * as sidebar from "./sidebar.js";
import { onTabs, randomName, tabName, tabNameNow, tellTabs } from "./tab.js";
import * as talk from "./talk.js";
import { STRATEGY, agentOf, agentTitle, agents, clockTime, firstWords, fullTime, isLive, length, minutes, moment, reasonText, titleOf } from "./words.js";

const AWAY = 60; // seconds of idleness after which opening a conversation counts as coming back to it

/** What is in view: a session (`id`), or one that is yet to be opened (`agent`). */
let view = { id: null, agent: null, session: null };

// ------------------------------------------------------------------------------------------------------ where we are

function address(params) {
  const search = new URLSearchParams(params).toString();
  return location.pathname + (search ? `?${search}` : "");
}

function route() {
  const params = new URLSearchParams(location.search);
  if (params.get("session")) return openSession(params.get("session"), { history: null });
  if (params.has("new")) return startNew(params.get("new"), { history: null });
  return openLatest();
}

async function openLatest() {
  const sessions = await listed;
  if (sessions === null) {
    leave({ id: null, agent: null, session: null });
    return deadEnd("Not reachable", "The conversations could not be loaded.", retryRoute);
  }
  return sessions[0] ? openSession(sessions[0].id, { history: "replace" }) : startNew(null, { history: "replace" });
}

const retryRoute = {
  label: "Try again",
  run: () => {
    listed = sidebar.refresh();
    void route();
  },
};

/** Turn away from what is in view. */
function leave(next, { carry = false } = {}) {
  view.follower?.stop();
  view.reading?.abort();
  view = { ...next, reading: new AbortController(), remoteRuns: new Set() };
  unread(0);
  hideHero();
  hideBanner();
  strip(null);
  talk.clear(next.agent ?? next.session?.agent ?? "");
  watch(null);
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

function focusComposer() {
  if (isTouch() || $("dialog").open) return;
  if ($("composer").hidden) $("title").focus({ preventScroll: true });
  else composer.focus();
}

// -------------------------------------------------------------------------------------------------------- a new one

function startNew(name, { history = "push" } = {}) {
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
async function begin(text) {
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
    const session = await api.open({ agent: mine.agent, external_id: mine.openingName, ...title });
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

async function openSession(id, { history = "push", fresh = null, carry = false, focus = true } = {}) {
  if (view.id === id && view.session) {
    closeDrawer();
    return focus && focusComposer();
  }
  const known = fresh ?? sidebar.known(id);
  const mine = leave({ id, agent: known?.agent ?? null, session: fresh }, { carry });
  go(history, { session: id });
  drawHeading();
  talk.setPending(outbox.pendingOf(id));
  drawTyping();
  $("log").classList.toggle("is-loading", !fresh);
  try {
    const { signal } = mine.reading;
    await tabName();
    const isNew = fresh && !fresh.message_count;
    const [session, page] = isNew
      ? [fresh, { messages: [], has_more: false, cursors: {} }]
      : await Promise.all([api.session(id, signal), api.messages(id, { limit: 50 }, signal)]);
    if (view !== mine) return;
    $("log").classList.remove("is-loading");
    mine.agent = session.agent;
    if (!known) talk.clear(session.agent);
    outbox.settle(id, page.messages);
    talk.showLatest(page.messages, page.has_more);
    talk.setPending(outbox.pendingOf(id));
    $("text").placeholder = `Message ${agentTitle(session.agent)}`;
    apply(session);
    drawBeginning();
    drawTyping();
    // Read at the same time as the messages, the session may be ahead of them: what lies between comes again.
    follow(id, Math.min(session.last_sequence, page.cursors.after ?? (isNew ? session.last_sequence : 0)));
    if (focus) focusComposer();
    if (!fresh) void comeBack();
  } catch (error) {
    if (view !== mine || error.name === "AbortError") return;
    $("log").classList.remove("is-loading");
    failOpening(error);
  }
}

function failOpening(error) {
  if (error.status === 404) return gone();
  deadEnd("Not reachable", explain(error, "The conversation could not be loaded."), retryRoute);
  wire.addEventListener("reach", ({ detail }) => detail && !view.session && void route(), { once: true });
}

function gone() {
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
async function comeBack() {
  const { session } = view;
  const mine = view;
  if (!session || document.hidden || !isAlive() || !isMine(session)) return;
  // The server's now, whatever this machine's clock says.
  const idle = session.timeout.timeout_minutes * 60 - secondsLeft();
  const silence = (Date.parse(session.expires_at) - secondsLeft() * 1000 - Date.parse(session.last_activity_at)) / 1000;
  if (Math.max(idle, silence) < AWAY) return;
  try {
    countContact();
    const answer = await api.resume(session.id);
    if (view !== mine) return;
    if (answer.session.status === "resumed" && answer.session.last_sequence > session.last_sequence && !talk.isEmpty()) {
      talk.addDivider(`Welcome back after ${length(answer.idle_seconds)}`);
    }
    apply(answer.session);
  } catch (error) {
    if (error instanceof ApiError) void reread();
  }
}

// --------------------------------------------------------------------------------------------------- what it is now

const needsControl = (session) => session.strategy === "per_tab" || session.strategy === "active_tab_wins";
const canWrite = (session) => isLive(session.status) && isMine(session);
const isMine = (session) => !needsControl(session) || session.client === tabNameNow();

/** Take in what the server says of a session. */
function apply(session) {
  if (!session) return;
  sidebar.upsert(session);
  if (session.id !== view.id) return;
  if (view.session && session.last_sequence < view.session.last_sequence) return; // overtaken by a later answer
  const wasAlive = view.session && isLive(view.session.status);
  view.session = session;
  watch(session, isMine(session));
  drawHeading();
  drawState();
  if (wasAlive && !isLive(session.status)) {
    announce(session.status === "expired" ? "This conversation expired." : "This conversation ended.");
  }
}

async function reread() {
  const mine = view;
  if (!mine.id) return;
  try {
    const session = await api.session(mine.id, mine.reading.signal);
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
  if (isOver) {
    view.follower?.stop(); // nothing more happens in it
    return showBanner(overBanner(session));
  }
  if (!mine) return showBanner(conflictBanner(session));
  hideBanner();
}

function overBanner(session) {
  const continuing = { label: "Continue in a new conversation", run: continueHere, isPrimary: true };
  const when = session.ended_at ?? session.expires_at;
  const words = {
    expired: ["i-clock", "This conversation expired", reasonText(session.end_reason)],
    ended: ["i-check", "This conversation ended", reasonText(session.end_reason)],
    failed: ["i-alert", "This conversation failed", reasonText(session.end_reason)],
    archived: ["i-file", "This conversation is archived", ""],
  }[session.status];
  const [iconName, title, reason] = words;
  const text = [`${{ expired: "Expired", ended: "Ended" }[session.status] ?? "It was over"} ${moment(when)}.`, reason, "It stays readable."];
  return { kind: session.status, iconName, title, text: text.filter(Boolean).join(" "), actions: [continuing] };
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

async function takeOver() {
  const { id } = view;
  try {
    const answer = await api.resume(id);
    countContact();
    tellTabs("look", { session: id });
    if (view.id !== id) return;
    apply(answer.session);
    focusComposer();
    announce("You can write here now.");
  } catch (error) {
    if (error.status === 404) return gone();
    await reread();
    composer.showNotice(explain(error, "The conversation could not be taken over."));
  }
}

async function continueHere() {
  const mine = view;
  try {
    const session = await api.open({ continue_from: mine.id });
    tellTabs("sessions");
    if (view !== mine) return;
    await openSession(session.id, { fresh: session, carry: true });
    announce("You are in a new conversation that continues the last one.");
  } catch (error) {
    composer.showNotice(explain(error, "It could not be continued."));
  }
}

function drawHeading() {
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
  document.title = `${unreadCount ? `(${unreadCount}) ` : ""}${title ? `${title} · ` : ""}Assistants`;
}

function drawBeginning() {
  if (view.session && isLive(view.session.status) && talk.isEmpty()) {
    showBeginning(view.session.agent, (text) => {
      composer.setText(text);
      composer.focus();
    });
  } else if (view.id) hideHero();
}

let unreadCount = 0;

function unread(count) {
  if (unreadCount === count) return;
  unreadCount = count;
  drawHeading();
}

// ------------------------------------------------------------------------------------------------- what is happening

function follow(id, after) {
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
  if (isNews && document.hidden) unread(unreadCount + 1);
  messages.length = 0;
}

function drawTyping() {
  talk.setTyping(Boolean(view.id) && (outbox.isSending(view.id) || view.remoteRuns.size > 0) && Boolean(view.agent));
}

// ---------------------------------------------------------------------------------------------------------- sending

function send(text) {
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
    talk.upsert([answer.message, answer.reply].filter(Boolean));
    if (answer.reply && document.hidden) unread(unreadCount + 1);
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

/** What an error means, for people. */
function explain(error, fallback) {
  if (error.name === "NetworkError") return "The server cannot be reached. Nothing is lost; try again in a moment.";
  if (error.code === "throttled") return `That was a lot at once. Try again in ${error.retryAfter ?? "a few"} seconds.`;
  if (error.code === "session_limit_reached") return "You have as many open conversations as you may. End one first.";
  return error.explanation ?? fallback;
}

// ------------------------------------------------------------------------------------------------ what people can do

async function stay() {
  const { session } = view;
  $("stay").disabled = true;
  try {
    const renewed = await api.renew(session.id);
    countContact();
    tellTabs("look", { session: session.id });
    composer.hideNotice();
    apply(renewed);
    toast(`You have until ${clockTime(renewed.expires_at)}`, "i-clock");
    focusComposer();
  } catch (error) {
    if (error.code === "renewal_limit_reached") {
      const maximum = error.body.max_duration_minutes ?? session.timeout.max_duration_minutes;
      composer.showNotice(`A conversation lasts ${minutes(maximum)} at most, and this one is there: it ends at ${clockTime(error.body.expires_at ?? session.expires_at)}.`, {
        label: "Continue in a new one",
        run: continueHere,
      });
    } else {
      if (error instanceof ApiError) await reread();
      if (isAlive()) composer.showNotice(explain(error, "It could not be renewed."));
    }
  } finally {
    $("stay").disabled = false;
  }
}

async function endIt() {
  const { id } = view;
  const answer = await ask({
    title: "End this conversation?",
    text: "It stays readable, and you can continue it in a new one.",
    field: { label: "Reason (optional)", max: 200 },
    confirm: "End conversation",
  });
  if (!answer) return;
  await act(async () => {
    const session = await api.end(id, answer.value);
    tellTabs("look", { session: id });
    apply(session);
  }, "It could not be ended.");
}

async function deleteIt() {
  const { id } = view;
  const answer = await ask({
    title: "Delete this conversation?",
    text: "It is gone at once, for you and for everybody, with all that was said in it.",
    confirm: "Delete",
    danger: true,
  });
  if (!answer) return;
  await act(async () => {
    await api.remove(id);
    tellTabs("look", { session: id });
    sidebar.drop(id);
    outbox.forget(id);
    toast("Deleted", "i-trash");
    listed = sidebar.refresh();
    if (view.id === id) await openLatest();
  }, "It could not be deleted.");
}

async function branch(sequence) {
  const { id } = view;
  await act(async () => {
    const session = await api.fork(id, { at: sequence });
    tellTabs("sessions");
    await openSession(session.id, { fresh: session });
    toast("A new branch, with the conversation up to there", "i-branch");
  }, "It could not be branched.");
}

async function withdraw(sequence) {
  const { id } = view;
  const answer = await ask({
    title: "Withdraw this message?",
    text: "Its text is erased. That cannot be undone.",
    confirm: "Withdraw",
    danger: true,
  });
  if (!answer) return;
  await act(async () => {
    await api.withdraw(id, sequence);
    countContact();
    tellTabs("look", { session: id });
    if (view.id === id) talk.remove(sequence);
    announce("Message withdrawn");
    drawBeginning();
    await reread();
  }, "It could not be withdrawn.");
}

async function edit(sequence, content) {
  const { id } = view;
  try {
    const message = await api.edit(id, sequence, content);
    countContact();
    tellTabs("look", { session: id });
    void reread();
    return message;
  } catch (error) {
    if (["session_expired", "session_ended", "client_conflict"].includes(error.code)) void reread();
    throw error;
  }
}

/** Do it; say what stood against it. */
async function act(what, fallback) {
  try {
    await what();
  } catch (error) {
    if (error.status === 404) return gone();
    if (error instanceof ApiError) void reread();
    composer.showNotice(error.code === "legal_hold" ? "This conversation is under a legal hold and cannot be deleted." : explain(error, fallback));
  }
}

function rename() {
  const { session } = view;
  const before = $("title").textContent;
  const field = h("input", { className: "title-field", value: session.title || before, maxLength: 200, "aria-label": "Title", autocomplete: "off" });
  let isDone = false;
  const done = async (isKept) => {
    if (isDone) return;
    isDone = true;
    const title = field.value.trim();
    const hadFocus = document.activeElement === field;
    $("title").replaceChildren(before);
    $("heading").classList.remove("is-renaming");
    if (hadFocus) $("rename").focus();
    if (!isKept || title === session.title || (!session.title && title === before) || view.id !== session.id) return;
    $("title").textContent = title || before;
    await act(async () => {
      const changed = await api.change(session.id, { title });
      tellTabs("look", { session: session.id });
      apply(changed);
      announce("Renamed");
    }, "It could not be renamed.");
  };
  field.addEventListener("keydown", (event) => {
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    void done(event.key === "Enter");
  });
  field.addEventListener("blur", () => void done(true));
  $("heading").classList.add("is-renaming");
  $("title").replaceChildren(field);
  field.focus();
  field.select();
}

function exports({ phone = false } = {}) {
  const item = (label, as, extension) => ({ label, phone, icon: "i-download", href: api.exportAddress(view.id, as), download: `conversation-${view.id.slice(0, 8)}.${extension}` });
  return [item("Export as Markdown", "markdown", "md"), item("Export as JSON", "json", "json")];
}

function showActions() {
  const { session } = view;
  openMenu($("actions"), [
    { label: "Rename", icon: "i-pencil", run: rename },
    { label: "Details", icon: "i-info", run: showDetails },
    ...exports({ phone: true }),
    ...(canWrite(session) ? [{ label: "End conversation", icon: "i-stop", run: endIt, phone: true }] : []),
    null,
    { label: "Delete", icon: "i-trash", run: deleteIt, danger: true },
  ]);
}

function showDetails() {
  const { session } = view;
  const { timeout } = session;
  const rows = [
    ["Agent", agentTitle(session.agent)],
    ["Sharing", STRATEGY[session.strategy] ?? session.strategy],
    ["Messages", String(session.message_count)],
    ["Opened", fullTime(session.created_at)],
    ["Last activity", fullTime(session.last_activity_at)],
    [isLive(session.status) ? "Expires" : "Over since", fullTime(session.ended_at ?? session.expires_at)],
    ["Timeout", `${minutes(timeout.timeout_minutes)} idle, ${minutes(timeout.max_duration_minutes)} at most`],
    ["Renewed", session.renewal_count ? `${session.renewal_count} times` : "Not by hand"],
  ];
  const source = session.forked_from
    ? h("div", {}, h("dt", {}, "Continues"), h("dd", {}, h("a", { href: address({ session: session.forked_from.id }), className: "link" }, "an earlier conversation")))
    : null;
  const list = rows.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value)));
  void tell("About this conversation", h("dl", { className: "details" }, list, source));
}

// -------------------------------------------------------------------------------------------------- drawer and strip

function openDrawer() {
  $("shell").classList.add("has-drawer");
  $("open-drawer").setAttribute("aria-expanded", "true");
  $("main").inert = true;
  $("close-drawer").focus();
}

function closeDrawer() {
  if (!$("shell").classList.contains("has-drawer")) return;
  const hadFocus = $("sidebar").contains(document.activeElement);
  $("shell").classList.remove("has-drawer");
  $("open-drawer").setAttribute("aria-expanded", "false");
  $("main").inert = false;
  if (hadFocus) $("open-drawer").focus();
}

/** A line over the talk about the page as a whole: offline, logged out. */
function strip(content) {
  const node = $("strip");
  if (node.dataset.lasting && !content) return;
  node.hidden = !content;
  node.replaceChildren(...(content ?? []));
}

function showOffline() {
  strip([icon("i-alert"), h("span", {}, navigator.onLine ? "The server cannot be reached. Trying again…" : "You are offline. New messages appear when you are back.")]);
}

wire.addEventListener("reach", ({ detail: isReached }) => {
  if (!isReached) return showOffline();
  strip(null);
  view.follower?.nudge();
});
addEventListener("offline", showOffline);
addEventListener("online", () => {
  strip(null);
  view.follower?.nudge();
});

wire.addEventListener("session-over", () => {
  const login = `${$("shell").dataset.login}?next=${encodeURIComponent(location.pathname + location.search)}`;
  strip([icon("i-alert"), h("span", {}, "You have been logged out."), h("a", { href: login, className: "link" }, "Log in again")]);
  $("strip").dataset.lasting = "true";
});

// ------------------------------------------------------------------------------------------------------------- wiring

life.addEventListener("due", () => void reread());
life.addEventListener("woke", () => {
  void reread();
  void sidebar.refresh();
  view.follower?.nudge();
});
life.addEventListener("changed", ({ detail }) => apply(detail));

document.addEventListener("visibilitychange", async () => {
  if (document.hidden) return;
  unread(0);
  void sidebar.refresh();
  await reread();
  void comeBack();
});

// Other tabs of this browser say that something happened; other browsers are heard of through the log and the list.
onTabs("sessions", () => void sidebar.refresh());
onTabs("look", ({ session }) => {
  void sidebar.refresh();
  if (session === view.id && !isLive(view.session?.status)) void reread();
});
setInterval(() => !document.hidden && void sidebar.refresh(), 60_000);

addEventListener("popstate", () => void route());

document.addEventListener("keydown", (event) => {
  if ($("dialog").open) return;
  const isCommand = event.ctrlKey || event.metaKey;
  if (isCommand && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    if (isNarrow()) openDrawer();
    $("search").focus();
    $("search").select();
  } else if (isCommand && event.shiftKey && event.key.toLowerCase() === "o") {
    event.preventDefault();
    startNew(null);
  } else if (event.key === "Escape") {
    if ($("shell").classList.contains("has-drawer")) closeDrawer();
    else if (!$("composer").hidden) composer.focus();
  }
});

$("new").addEventListener("click", () => startNew(null));
$("open-drawer").addEventListener("click", openDrawer);
$("close-drawer").addEventListener("click", closeDrawer);
$("scrim").addEventListener("click", closeDrawer);
matchMedia("(max-width: 800px)").addEventListener("change", closeDrawer);
$("rename").addEventListener("click", rename);
$("title").addEventListener("dblclick", () => view.session && !$("title").querySelector("input") && rename());
$("end").addEventListener("click", endIt);
$("export").addEventListener("click", () => openMenu($("export"), exports()));
$("actions").addEventListener("click", showActions);
$("stay").addEventListener("click", stay);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  ($("composer").hidden ? $("banner") : $("text")).focus();
});

initAccount();
composer.initComposer({ send, editLast: talk.editLast });
talk.initTalk({
  older: (before) => api.messages(view.id, { before, limit: 50 }, view.reading.signal),
  edit,
  withdraw,
  branch,
  retry: outbox.retry,
  discard: (entry) => {
    outbox.discard(entry);
    drawBeginning();
    composer.focus();
  },
});
sidebar.initSidebar({ open: (id) => void openSession(id), named: (id) => id === view.id && drawHeading() });

let listed = sidebar.refresh();
void route();
