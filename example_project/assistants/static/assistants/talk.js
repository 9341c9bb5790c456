// The talk in the middle: messages in the order of their sequence, then what is still on its way.

import { $, announce, arrange, h, icon, linkify, toast } from "./dom.js";
import { agentMark, setMark } from "./marks.js";
import { agentTitle, clockTime, dayKey, dayName, fullTime } from "./words.js";

const JOIN = 5 * 60_000; // messages of one speaker within this time stand together
const NEAR = 90; // pixels from the end that still count as being there

const scroll = $("scroll");
const log = $("log");

const bubbles = new Map(); // key → bubble; a key is a sequence, or the external_id of what is on its way
const days = new Map();
const dividers = new Map(); // sequence after which it stands → node

let agent = "";
let hasOlder = false;
let isLoading = false;
let isEditable = false;
let unseen = 0;
let isPinned = true; // whether the end stays in view as the talk grows
let handlers = {};

/** Wire the talk up: {older, edit, withdraw, branch, retry, discard}. */
export function initTalk(given) {
  handlers = given;
  new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && loadOlder(), {
    root: scroll,
    rootMargin: "400px 0px 0px",
  }).observe($("older"));
  new ResizeObserver(() => isPinned && toEnd("instant")).observe(scroll);
  scroll.addEventListener("scroll", onScroll, { passive: true });
  $("jump").addEventListener("click", () => {
    toEnd();
    scroll.focus({ preventScroll: true });
  });
}

/** Start over with another conversation. */
export function clear(name) {
  agent = name;
  bubbles.clear();
  days.clear();
  dividers.clear();
  log.replaceChildren();
  hasOlder = isLoading = isEditable = false;
  isPinned = true;
  unseen = 0;
  $("older").hidden = $("typing").hidden = $("jump").hidden = true;
  setMark($("typing-mark"), name);
}

export const isEmpty = () => bubbles.size === 0;
export const firstSequence = () => sequences()[0] ?? null;
const sequences = () => [...bubbles.values()].map(({ message }) => message?.sequence).filter(Boolean).sort((a, b) => a - b);

/** The first page: quietly, and at its end. */
export function showLatest(messages, more) {
  hasOlder = more;
  log.setAttribute("aria-busy", "true");
  messages.forEach(put);
  layout();
  toEnd("instant");
  setTimeout(() => log.setAttribute("aria-busy", "false"), 100);
}

/** Messages as they are now: new ones, changed ones, the ones that were on their way. */
export function upsert(messages) {
  let fresh = 0;
  for (const message of messages) {
    const first = firstSequence();
    if (hasOlder && first !== null && message.sequence < first) continue; // it comes with its page
    if (put(message) && message.role !== "user") fresh += 1;
  }
  layout();
  if (fresh && !isPinned) unseen += fresh;
  drawJump();
}

export function remove(sequence) {
  const bubble = bubbles.get(sequence);
  if (!bubble) return;
  const hadFocus = bubble.node.contains(document.activeElement);
  bubbles.delete(sequence);
  layout();
  if (hadFocus) $("text").focus();
}

export const has = (sequence) => bubbles.has(sequence);
export const size = () => bubbles.size;

/** Show what is on its way: the entries of the outbox, in their order. */
export function setPending(entries) {
  const names = new Set(entries.map((entry) => entry.externalId));
  for (const [key, bubble] of bubbles) if (bubble.entry && !names.has(key)) bubbles.delete(key);
  const stored = new Set([...bubbles.values()].map(({ message }) => message?.external_id).filter(Boolean));
  let isNew = false;
  for (const entry of entries) {
    if (stored.has(entry.externalId)) continue;
    let bubble = bubbles.get(entry.externalId);
    if (!bubble) {
      bubble = build("user");
      bubbles.set(entry.externalId, bubble);
      bubble.node.classList.add("is-new");
      isNew = true;
    }
    bubble.entry = entry;
    draw(bubble);
  }
  if (isNew) isPinned = true;
  layout();
}

/** Put a word of trouble under a message. */
export function setTrouble(sequence, text) {
  const bubble = bubbles.get(sequence);
  if (!bubble) return;
  bubble.trouble = text;
  draw(bubble);
  follow();
  announce(text);
}

/** A line across the talk, after what is there now. */
export function addDivider(text) {
  dividers.set(sequences().at(-1) ?? 0, h("p", { className: "divider" }, h("span", {}, text)));
  layout();
}

let typing;

/** Show that the agent is at it; only after a moment, or quick answers would flicker. */
export function setTyping(isTyping) {
  clearTimeout(typing);
  const show = () => {
    $("typing").hidden = !isTyping;
    $("typing-text").textContent = isTyping ? `${agentTitle(agent)} is answering` : "";
    follow();
  };
  if (isTyping && $("typing").hidden) typing = setTimeout(show, 250);
  else show();
}

/** Whether own messages may be changed (a live session in this tab's hands) and branched from. */
export function setWritable(writable) {
  if (writable === isEditable) return;
  isEditable = writable;
  bubbles.forEach(draw);
}

/** Edit the last own message, as an arrow up in an empty message box asks for. */
export function editLast() {
  const own = [...bubbles.values()].filter(({ message }) => message?.role === "user");
  const last = own.sort((a, b) => a.message.sequence - b.message.sequence).at(-1);
  if (!last || !isEditable) return false;
  edit(last);
  return true;
}

function put(message) {
  const waiting = message.external_id && bubbles.get(message.external_id);
  let bubble = bubbles.get(message.sequence);
  const isNew = !bubble && !waiting;
  if (!bubble) {
    bubble = waiting || build(message.role);
    bubbles.delete(message.external_id);
    bubbles.set(message.sequence, bubble);
  }
  if (isNew && log.getAttribute("aria-busy") !== "true") bubble.node.classList.add("is-new");
  bubble.entry = null;
  bubble.message = message;
  draw(bubble);
  return isNew;
}

function build(role) {
  const bubble = { role, message: null, entry: null, trouble: "", isEditing: false };
  const speaker = { user: "You", assistant: agentTitle(agent), system: "System", tool: "Tool" }[role] ?? role;
  bubble.body = h("div", { className: "bubble" });
  bubble.time = h("time", { className: "msg-time" });
  bubble.state = h("span", { className: "msg-state" });
  bubble.actions = h("div", { className: "msg-actions", role: "group", "aria-label": "Message actions" });
  bubble.problem = h("div", { className: "msg-trouble", hidden: true });
  bubble.node = h(
    "article",
    { className: "msg", data: { role }, onclick: () => pick(bubble) },
    role === "user" || role === "system" ? null : agentMark(agent),
    h(
      "div",
      { className: "msg-main" },
      h("span", { className: "sr-only" }, `${speaker}:`),
      bubble.body,
      bubble.problem,
      h("div", { className: "msg-foot" }, bubble.time, bubble.state, bubble.actions),
    ),
  );
  return bubble;
}

/** Where nothing can hover, a tap on a message shows its actions. */
function pick(bubble) {
  for (const other of bubbles.values()) other.node.classList.toggle("is-picked", other === bubble);
}

function draw(bubble) {
  const { message, entry, node } = bubble;
  if (message) node.dataset.sequence = message.sequence;
  if (message?.external_id) node.dataset.externalId = message.external_id;
  node.dataset.state = entry ? entry.state : "stored";
  const content = message ? message.content : entry.content;
  if (!bubble.isEditing && bubble.shown !== content) {
    bubble.shown = content;
    bubble.body.replaceChildren(...linkify(content), ...files(message?.parts));
  }
  const instant = message?.created_at ?? entry.at;
  bubble.time.dateTime = instant;
  bubble.time.title = fullTime(instant);
  bubble.time.textContent = clockTime(instant);
  const state = entry ? { queued: "Waiting…", sending: "Sending…", failed: "Not sent" }[entry.state] : message.edited_at ? "Edited" : "";
  bubble.state.textContent = state;
  bubble.state.title = message?.edited_at ? fullTime(message.edited_at) : "";
  drawProblem(bubble);
  drawActions(bubble);
}

function drawProblem({ entry, trouble, problem }) {
  const isFailed = entry?.state === "failed";
  problem.hidden = !isFailed && !trouble;
  if (problem.hidden) return problem.replaceChildren();
  if (!isFailed) return problem.replaceChildren(icon("i-alert"), h("span", {}, trouble));
  const seconds = entry.retryAt ? Math.ceil((entry.retryAt - performance.now()) / 1000) : 0;
  const retry = h("button", { type: "button", className: "link", onclick: () => handlers.retry(entry) }, "Retry");
  problem.replaceChildren(
    icon("i-alert"),
    h("span", {}, seconds > 0 ? `${entry.reason} Try again in ${seconds} s.` : entry.reason),
    retry,
    h("button", { type: "button", className: "link", onclick: () => handlers.discard(entry) }, "Discard"),
  );
  if (seconds > 0) {
    retry.disabled = true;
    setTimeout(() => entry.state === "failed" && problem.isConnected && drawProblem({ entry, trouble, problem }), 1000);
  }
}

function drawActions(bubble) {
  const isOwn = bubble.role === "user";
  const kind = !bubble.message || bubble.isEditing || bubble.role === "system" ? "none" : isOwn && isEditable ? "own" : "any";
  if (bubble.kind === kind) return;
  bubble.kind = kind;
  const action = (name, label, run) =>
    h("button", { type: "button", className: "icon-button tiny", "aria-label": label, title: label, onclick: run }, icon(name));
  const actions = [];
  if (kind !== "none") {
    if (navigator.clipboard) actions.push(action("i-copy", "Copy", () => copy(bubble)));
    if (kind === "own") {
      actions.push(action("i-pencil", "Edit", () => edit(bubble)));
      actions.push(action("i-undo", "Withdraw", () => handlers.withdraw(bubble.message.sequence)));
    }
    actions.push(action("i-branch", "Branch from here", () => handlers.branch(bubble.message.sequence)));
  }
  bubble.actions.replaceChildren(...actions);
}

async function copy({ message }) {
  try {
    await navigator.clipboard.writeText(message.content);
    toast("Copied");
  } catch {
    toast("The browser did not allow copying", "i-alert");
  }
}

/** What is more than text: files as links. Other kinds belong to applications that know them. */
function files(parts = []) {
  return parts
    .filter((part) => part?.type === "file" && typeof part.url === "string" && isSafe(part.url))
    .map((part) => h("a", { className: "file", href: part.url, target: "_blank", rel: "noopener noreferrer" }, icon("i-file"), String(part.name || "File")));
}

function isSafe(url) {
  try {
    return ["http:", "https:"].includes(new URL(url, location.href).protocol);
  } catch {
    return false;
  }
}

function edit(bubble) {
  if (bubble.isEditing) return;
  bubble.isEditing = true;
  const field = h("textarea", { className: "edit-text", value: bubble.message.content, rows: 1, "aria-label": "Edit your message" });
  const problem = h("p", { className: "edit-problem", role: "alert", hidden: true });
  const save = h("button", { type: "submit", className: "button button-small button-primary" }, "Save");
  const cancel = h("button", { type: "button", className: "button button-small button-quiet", onclick: () => done() }, "Cancel");
  const form = h("form", { className: "edit" }, field, problem, h("div", { className: "edit-buttons" }, cancel, save));
  const grow = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
  };
  const done = () => {
    bubble.isEditing = false;
    bubble.shown = null;
    bubble.node.classList.remove("is-editing");
    draw(bubble);
    (bubble.actions.querySelector("[aria-label=Edit]") ?? $("text")).focus();
  };
  field.addEventListener("input", grow);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      done();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const content = field.value;
    if (!content.trim() || content === bubble.message.content) return done();
    save.disabled = true;
    try {
      bubble.message = await handlers.edit(bubble.message.sequence, content);
      done();
      announce("Message changed");
    } catch (error) {
      problem.textContent = error.explanation ?? error.message;
      problem.hidden = false;
      save.disabled = false;
    }
  });
  bubble.node.classList.add("is-editing");
  bubble.body.replaceChildren(form);
  drawActions(bubble);
  grow();
  field.focus();
  field.setSelectionRange(field.value.length, field.value.length);
  bubble.node.scrollIntoView({ block: "nearest" });
}

/** Put everything in its place: by sequence, days apart, one speaker's messages together. */
function layout() {
  const stored = [...bubbles.values()].filter(({ message }) => message).sort((a, b) => a.message.sequence - b.message.sequence);
  const waiting = [...bubbles.values()].filter(({ message }) => !message);
  const nodes = dividers.has(0) ? [dividers.get(0)] : [];
  let before = null;
  for (const bubble of [...stored, ...waiting]) {
    const instant = bubble.message?.created_at ?? bubble.entry.at;
    const day = dayKey(instant);
    const isNewDay = day !== before?.day;
    if (isNewDay) nodes.push(dayNode(day, instant));
    const isJoined = !isNewDay && !before.isCut && before.role === bubble.role && Math.abs(Date.parse(instant) - before.at) < JOIN;
    bubble.node.classList.toggle("joined", isJoined);
    before?.node.classList.toggle("continued", isJoined);
    bubble.node.classList.remove("continued");
    nodes.push(bubble.node);
    const divider = bubble.message && dividers.get(bubble.message.sequence);
    if (divider) nodes.push(divider);
    before = { day, role: bubble.role, at: Date.parse(instant), node: bubble.node, isCut: Boolean(divider) };
  }
  arrange(log, nodes);
  $("older").hidden = !hasOlder;
  follow();
}

function dayNode(day, instant) {
  if (!days.has(day)) days.set(day, h("p", { className: "divider day" }, h("span", {}, dayName(instant))));
  return days.get(day);
}

async function loadOlder() {
  const before = firstSequence();
  if (!hasOlder || isLoading || before === null) return;
  isLoading = true;
  let isMore = false;
  try {
    const page = await handlers.older(before);
    if (!page || firstSequence() !== before) return; // another conversation by now
    isMore = page.has_more;
    log.setAttribute("aria-busy", "true");
    const [height, top] = [scroll.scrollHeight, scroll.scrollTop];
    isPinned = false;
    hasOlder = page.has_more;
    page.messages.forEach(put);
    layout();
    scroll.scrollTop = top + scroll.scrollHeight - height; // what was being read stays where it was
    setTimeout(() => log.setAttribute("aria-busy", "false"), 100);
  } catch {
    // Scrolling up again asks again.
  } finally {
    isLoading = false;
  }
  if (isMore && scroll.scrollTop < 400) requestAnimationFrame(loadOlder);
}

function onScroll() {
  isPinned = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR;
  if (isPinned) unseen = 0;
  if (scroll.scrollTop < 400) void loadOlder();
  drawJump();
}

function drawJump() {
  $("jump").hidden = isPinned || isEmpty();
  $("jump-text").textContent = unseen ? `${unseen} new` : "Latest";
}

function follow() {
  if (isPinned) toEnd("instant");
}

/** Show the end. */
export function toEnd(behavior = "smooth") {
  isPinned = true;
  if (isEmpty()) return; // a greeting is read from its beginning
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  scroll.scrollTo({ top: scroll.scrollHeight, behavior: calm ? "instant" : behavior });
}
