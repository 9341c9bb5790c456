// The talk in the middle: messages in the order of their sequence, then what is still on its way.

import { build, draw, edit, failure, instantOf, setting } from "./bubbles.js";
import { $, announce, arrange, h } from "./dom.js";
import { setMark } from "./marks.js";
import { agentTitle, dayKey, dayName } from "./words.js";

const JOIN = 5 * 60_000; // messages of one speaker within this time stand together
const NEAR = 90; // pixels from the end that still count as being there

const scroll = $("scroll");
const log = $("log");

const bubbles = new Map(); // key → bubble; a key is the client's, or made of the name of what is on its way
const days = new Map();
const dividers = new Map(); // sequence after which it stands → node

let items = []; // the conversation's messages as they were last told
let answer = { run: null, isAnswering: false };
let hasOlder = false;
let isLoading = false;
let unseen = 0;
let isPinned = true; // whether the end stays in view as the talk grows

/** Wire the talk up: {older, again, edit, withdraw, branch, retry, discard}. */
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
  items = [];
  answer = { run: null, isAnswering: false };
  hasOlder = isLoading = setting.isEditable = false;
  isPinned = true;
  unseen = 0;
  clearTimeout(typing);
  isTypingMeant = false;
  $("older").hidden = $("typing").hidden = $("jump").hidden = true;
  setMark($("typing-mark"), name);
}

export const isEmpty = () => bubbles.size === 0;
export const isAnswering = () => answer.isAnswering;
const sequences = () => items.map(({ sequence }) => sequence).filter(Boolean);

/** Show a conversation as it is now; returns how many messages are news from somebody else. */
export function show(snapshot, { agent, isFirst }) {
  if (agent !== setting.agent) clear(agent);
  const before = answer;
  answer = { run: snapshot.run, isAnswering: snapshot.isAnswering };
  hasOlder = snapshot.hasEarlier;
  const fresh = take(snapshot.messages, isFirst);
  mark();
  setTyping();
  if (!isFirst) tell(before);
  if (fresh && !isPinned) unseen += fresh;
  drawJump();
  return isFirst ? 0 : fresh;
}

function take(messages, isFirst) {
  if (messages === items && !isFirst) return 0;
  const isOlder = isFirst || (items.length && messages.length && messages[0].sequence < items[0].sequence);
  if (isOlder) hush();
  const [height, top] = [scroll.scrollHeight, scroll.scrollTop];
  const latest = sequences().at(-1) ?? 0;
  let fresh = 0;
  items = messages;
  retire(new Set(items.map(({ key }) => key)));
  for (const item of items) if (put(item) && item.role !== "user" && item.sequence > latest) fresh += 1;
  layout();
  if (isFirst) toEnd("instant");
  else if (isOlder && !isPinned) scroll.scrollTop = top + scroll.scrollHeight - height; // what was being read stays where it was
  return fresh;
}

/** What is read from the past is not read out. */
function hush() {
  log.setAttribute("aria-busy", "true");
  setTimeout(() => log.setAttribute("aria-busy", "false"), 100);
}

/** Take away what is no longer among the messages: withdrawn, or superseded by another answer. */
function retire(keys) {
  for (const [key, bubble] of bubbles) {
    if (bubble.entry || keys.has(key)) continue;
    const hadFocus = bubble.node.contains(document.activeElement);
    bubbles.delete(key);
    bubble.node.remove();
    if (hadFocus) $("text").focus();
  }
}

const outgoing = (externalId) => `out ${externalId}`;

/** Show one; tell whether it is a whole message that was not there. */
function put(item) {
  let bubble = bubbles.get(item.key);
  if (bubble?.item === item) return false;
  const waiting = bubbles.get(outgoing(item.external_id));
  const isNew = !item.isPartial && !waiting && (!bubble || bubble.item.isPartial);
  bubbles.delete(outgoing(item.external_id));
  if (!bubble) {
    bubble = waiting ?? build(item.role);
    bubbles.set(item.key, bubble);
    if (!waiting && log.getAttribute("aria-busy") !== "true") bubble.node.classList.add("is-new");
  }
  Object.assign(bubble, { entry: null, item, message: item });
  draw(bubble);
  return isNew;
}

/** Put how the latest answer went where it is seen: at its last message, or else at its question. */
function mark() {
  const { run } = answer;
  const stored = items.filter(({ sequence }) => sequence);
  const own = run && stored.filter((item) => item.run === run.id).at(-1);
  const place = own ?? (run && stored.find(({ sequence }) => sequence === run.input_sequence));
  for (const bubble of bubbles.values()) {
    const standing = bubble.item && bubble.item === place ? run.status : "";
    const error = standing ? run.error ?? "" : "";
    if (bubble.standing === standing && bubble.error === error) continue;
    Object.assign(bubble, { standing, error });
    draw(bubble);
  }
  follow();
}

/** Say how an answer ended where it is not said by what was said. */
function tell(before) {
  const { run } = answer;
  if (answer.isAnswering || !before.isAnswering || before.run?.id !== run?.id) return;
  if (run?.status === "cancelled") announce("Stopped");
  if (run?.status === "failed") announce(failure(run.error));
}

/** Show what is on its way: the entries of the outbox, in their order. */
export function setPending(entries) {
  const names = new Set(entries.map((entry) => outgoing(entry.externalId)));
  for (const [key, bubble] of bubbles) if (bubble.entry && !names.has(key)) bubbles.delete(key);
  const stored = new Set(items.map(({ external_id: name }) => name).filter(Boolean));
  let isNew = false;
  for (const entry of entries) {
    if (stored.has(entry.externalId)) continue;
    let bubble = bubbles.get(outgoing(entry.externalId));
    if (!bubble) {
      bubble = build("user");
      bubbles.set(outgoing(entry.externalId), bubble);
      bubble.node.classList.add("is-new");
      isNew = true;
    }
    bubble.entry = entry;
    draw(bubble);
  }
  if (isNew) isPinned = true;
  layout();
}

/** A line across the talk, after what is there now. */
export function addDivider(text) {
  dividers.set(sequences().at(-1) ?? 0, h("p", { className: "divider" }, h("span", {}, text)));
  layout();
}

let typing;
let isTypingMeant = false;

/** Show that the agent is at it and has not said anything yet; after a moment, or quick answers would flicker. */
function setTyping() {
  const isTyping = answer.isAnswering && !items.at(-1)?.isPartial;
  if (isTyping === isTypingMeant) return;
  isTypingMeant = isTyping;
  clearTimeout(typing);
  const show = () => {
    $("typing").hidden = !isTyping;
    if (isTyping) announce(`${agentTitle(setting.agent)} is answering`);
    $("typing-text").textContent = isTyping ? `${agentTitle(setting.agent)} is answering` : "";
    follow();
  };
  if (isTyping) typing = setTimeout(show, 250);
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
  const last = items.filter(({ role }) => role === "user").at(-1);
  if (!last || !setting.isEditable) return false;
  edit(bubbles.get(last.key));
  return true;
}

/** Where nothing can hover, a tap on a message shows its actions. */
function pick(bubble) {
  for (const other of bubbles.values()) other.node.classList.toggle("is-picked", other === bubble);
}

/** Put everything in its place: by sequence, days apart, one speaker's messages together. */
function layout() {
  const stored = items.map(({ key }) => bubbles.get(key));
  const waiting = [...bubbles.values()].filter(({ message }) => !message);
  const nodes = dividers.has(0) ? [dividers.get(0)] : [];
  let before = null;
  for (const bubble of [...stored, ...waiting]) {
    const instant = instantOf(bubble);
    const day = dayKey(instant);
    const isNewDay = day !== before?.day;
    if (isNewDay) nodes.push(dayNode(day, instant));
    const speaker = bubble.role === "tool" ? "assistant" : bubble.role;
    const isJoined = !isNewDay && !before.isCut && before.speaker === speaker && Math.abs(Date.parse(instant) - before.at) < JOIN;
    bubble.node.classList.toggle("joined", isJoined);
    before?.node.classList.toggle("continued", isJoined);
    bubble.node.classList.remove("continued");
    nodes.push(bubble.node);
    const divider = bubble.message && dividers.get(bubble.message.sequence);
    if (divider) nodes.push(divider);
    before = { day, speaker, at: Date.parse(instant), node: bubble.node, isCut: Boolean(divider) };
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
  const first = items[0];
  if (!hasOlder || isLoading || !first) return;
  isLoading = true;
  try {
    await setting.handlers.older();
  } catch {
    return; // Scrolling up again asks again.
  } finally {
    isLoading = false;
  }
  requestAnimationFrame(() => items[0] !== first && scroll.scrollTop < 400 && loadOlder());
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
