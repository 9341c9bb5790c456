// How long the conversation in view has left, and the page's part in keeping it alive.
//
// The deadline comes from `time_remaining_seconds` on a monotonic clock: the client's wall clock may be wrong. When it
// is reached, the server is asked; it decides.

import { api } from "./api.js";
import { $, announce } from "./dom.js";
import { STATUS, countdown, fullTime, isLive, length } from "./words.js";

const SHORTEST = 10_000; // between two heartbeats
const LONGEST = 60_000;
const LAST_CALL = 30; // seconds of countdown that there are even where no threshold warns (a timeout of one minute)
const DRIFT = 5_000; // a gap between the clocks that says: the machine slept

/** "due": the deadline is reached. "woke": the page slept and knows nothing. "changed" (detail: session). */
export const life = new EventTarget();

let session = null;
let deadline = Infinity;
let isMine = false;
let lastInteraction = 0; // of the person with this page
let lastContact = 0; // that the server counted as activity
let saidNear = false;
let dueAt = -Infinity;
let lastWall = Date.now();
let lastTick = performance.now();

for (const type of ["keydown", "pointerdown", "wheel", "touchmove"]) {
  addEventListener(type, () => (lastInteraction = performance.now()), { passive: true, capture: true });
}
setInterval(tick, 1000);

/** Watch a session as it is now; null stops. `mine`: whether this tab may keep it alive. */
export function watch(now, mine = false) {
  if (session?.id !== now?.id) {
    saidNear = false;
    dueAt = -Infinity;
    lastContact = lastInteraction = performance.now();
  }
  session = now;
  isMine = mine;
  deadline = now && isLive(now.status) ? performance.now() + now.time_remaining_seconds * 1000 : Infinity;
  draw();
}

/** Something was sent that the server counts as activity. */
export const countContact = () => (lastContact = performance.now());

export const secondsLeft = () => (deadline - performance.now()) / 1000;

/** Whether the session is live, as far as the page can tell. */
export const isAlive = () => Boolean(session) && isLive(session.status) && secondsLeft() > 0;

function tick() {
  const [wall, now] = [Date.now(), performance.now()];
  const slept = Math.abs(wall - lastWall - (now - lastTick)) > DRIFT;
  [lastWall, lastTick] = [wall, now];
  if (slept) life.dispatchEvent(new Event("woke"));
  if (!session || document.hidden) return;
  draw();
  if (isLive(session.status) && secondsLeft() <= 0 && now - dueAt > 2000) {
    dueAt = now;
    life.dispatchEvent(new Event("due"));
  }
  void beat(now);
}

/** While somebody is there, say so now and then; a page that nobody touches lets its conversation expire. */
async function beat(now) {
  const every = Math.min(LONGEST, Math.max(SHORTEST, session.timeout.timeout_minutes * 15_000));
  if (!isAlive() || !isMine || lastInteraction <= lastContact || now - lastContact < every) return;
  const { id } = session;
  countContact();
  try {
    const answer = await api.heartbeat(id);
    life.dispatchEvent(new CustomEvent("changed", { detail: answer }));
  } catch (error) {
    if (error.status) life.dispatchEvent(new Event("due")); // refused: it is over, or in other hands
  }
}

function draw() {
  const chip = $("chip");
  chip.hidden = !session;
  const left = secondsLeft();
  const warning = session ? Math.max(session.timeout.warning_threshold_minutes * 60, LAST_CALL) : 0;
  const isNear = isAlive() && left <= warning;
  $("stay-bar").hidden = !isNear || !isMine;
  if (!session) return;
  const status = isLive(session.status) && left <= 0 ? "expired" : session.status;
  chip.dataset.status = isNear ? "near" : status;
  set($("chip-text"), isNear ? "Expires in" : STATUS[status] ?? status);
  set($("chip-time"), isNear ? countdown(left) : "");
  chip.title = isLive(status) ? `Expires ${fullTime(session.expires_at)} if nothing happens` : "";
  if (isNear) {
    set($("stay-time"), countdown(left));
    $("ring").style.strokeDashoffset = String(100 - Math.max(0, Math.min(100, (left / warning) * 100)));
    if (!saidNear) announce(`This conversation expires in ${length(left)}.`);
  }
  saidNear = isNear;
}

const set = (node, text) => node.textContent === text || (node.textContent = text);
