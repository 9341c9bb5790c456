// The talk in the middle: messages in the order of their sequence, then what is still on its way.

import { build, draw, edit, setting } from "./bubbles.js";
import { $, announce, arrange, h } from "./dom.js";
import { setMark } from "./marks.js";
import { agentTitle, dayKey, dayName } from "./words.js";

const JOIN = 5 * 60_000; // messages of one speaker within this time stand together
const NEAR = 90; // pixels from the end that still count as being there

const scroll = $("scroll");
const log = $("log");

const bubbles = new Map(); // key → bubble; a key is a sequence, or the external_id of what is on its way
const days = new Map();
const dividers = new Map(); // sequence after which it stands → node

let hasOlder = false;
let isLoading = false;
let unseen = 0;
let isPinned = true; // whether the end stays in view as the talk grows

/** Wire the talk up: {older, edit, withdraw, branch, retry, discard}. */
export function initTalk(given) {
  setting.handlers = { ...given, pick };
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
  setting.agent = name;
  bubbles.clear();
  days.clear();
  dividers.clear();
  log.replaceChildren();
  hasOlder = isLoading = setting.isEditable = false;
  isPinned = true;
  unseen = 0;
  $("older").hidden = $("typing").hidden = $("jump").hidden = true;
  setMark($("typing-mark"), name);
}

export const isEmpty = () => bubbles.size === 0;
const firstSequence = () => sequences()[0] ?? null;
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
    $("typing-text").textContent = isTyping ? `${agentTitle(setting.agent)} is answering` : "";
    follow();
  };
  if (isTyping && $("typing").hidden) typing = setTimeout(show, 250);
  else show();
}

/** Whether own messages may be changed (a live session in this tab's hands) and branched from. */
export function setWritable(writable) {
  if (writable === setting.isEditable) return;
  setting.isEditable = writable;
  bubbles.forEach(draw);
}

/** Edit the last own message, as an arrow up in an empty message box asks for. */
export function editLast() {
  const own = [...bubbles.values()].filter(({ message }) => message?.role === "user");
  const last = own.sort((a, b) => a.message.sequence - b.message.sequence).at(-1);
  if (!last || !setting.isEditable) return false;
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

/** Where nothing can hover, a tap on a message shows its actions. */
function pick(bubble) {
  for (const other of bubbles.values()) other.node.classList.toggle("is-picked", other === bubble);
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
    const page = await setting.handlers.older(before);
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
function toEnd(behavior = "smooth") {
  isPinned = true;
  if (isEmpty()) return; // a greeting is read from its beginning
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  scroll.scrollTo({ top: scroll.scrollHeight, behavior: calm ? "instant" : behavior });
}
