// What people can do with a conversation, beyond talking.

import * as composer from "./composer.js";
import { apply, canWrite, reread, view } from "./current.js";
import { $, announce, h, toast } from "./dom.js";
import { explain } from "./explain.js";
import { isAlive } from "./life.js";
import { client, sessions, tellTabs } from "./link.js";
import { ask, openMenu, tell } from "./menus.js";
import * as outbox from "./outbox.js";
import * as sidebar from "./sidebar.js";
import { address, focusComposer, gone, openLatest, openSession, relist } from "./visits.js";
import { STRATEGY, agentTitle, clockTime, fullTime, isLive, minutes } from "./words.js";

export async function takeOver() {
  const { id } = view;
  try {
    const answer = await sessions.resume(id, { max_messages: 1 });
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

export async function continueHere() {
  const mine = view;
  try {
    const session = await sessions.open({ continue_from: mine.id });
    tellTabs("sessions");
    if (view !== mine) return;
    await openSession(session.id, { fresh: session, carry: true });
    announce("You are in a new conversation that continues the last one.");
  } catch (error) {
    if (error.status === 404 && view === mine) return gone();
    composer.showNotice(explain(error, "It could not be continued."));
  }
}

export async function stay() {
  const { session } = view;
  $("stay").disabled = true;
  try {
    const renewed = await sessions.renew(session.id);
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
      if (error.status) await reread();
      if (isAlive()) composer.showNotice(explain(error, "It could not be renewed."));
    }
  } finally {
    $("stay").disabled = false;
  }
}

export async function endIt() {
  const { id } = view;
  const answer = await ask({
    title: "End this conversation?",
    text: "It stays readable, and you can continue it in a new one.",
    field: { label: "Reason (optional)", max: 200 },
    confirm: "End conversation",
  });
  if (!answer) return;
  await act(async () => {
    const session = await sessions.end(id, answer.value);
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
    await sessions.delete(id);
    tellTabs("look", { session: id });
    sidebar.drop(id);
    outbox.forget(id);
    toast("Deleted", "i-trash");
    relist();
    if (view.id === id) await openLatest();
  }, "It could not be deleted.");
}

export async function branch(sequence) {
  const { id } = view;
  await act(async () => {
    const session = await sessions.fork(id, { at: sequence });
    tellTabs("sessions");
    await openSession(session.id, { fresh: session });
    toast("A new branch, with the conversation up to there", "i-branch");
  }, "It could not be branched.");
}

export async function withdraw(sequence) {
  const { id } = view;
  const answer = await ask({
    title: "Withdraw this message?",
    text: "Its text is erased. That cannot be undone.",
    confirm: "Withdraw",
    danger: true,
  });
  if (!answer) return;
  await act(async () => {
    await client.session(id).messages.withdraw(sequence);
    tellTabs("look", { session: id });
    announce("Message withdrawn");
    await reread();
  }, "It could not be withdrawn.");
}

export async function edit(sequence, content) {
  const { id } = view;
  try {
    const message = await client.session(id).messages.edit(sequence, content);
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
    if (error.status) void reread();
    composer.showNotice(error.code === "legal_hold" ? "This conversation is under a legal hold and cannot be deleted." : explain(error, fallback));
  }
}

export function rename() {
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
      const changed = await sessions.update(session.id, { title });
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

export function exports({ phone = false } = {}) {
  const item = (label, as, extension) => ({ label, phone, icon: "i-download", href: sessions.exportUrl(view.id, as), download: `conversation-${view.id.slice(0, 8)}.${extension}` });
  return [item("Export as Markdown", "markdown", "md"), item("Export as JSON", "json", "json")];
}

export function showActions() {
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
