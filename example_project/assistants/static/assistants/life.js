// How long the conversation in view has left, as the client counts it, and how it is shown.

import { $, announce } from "./dom.js";
import { client, isReachable } from "./link.js";
import { STATUS, about, countdown, fullTime, isLive } from "./words.js";

const LAST_CALL = 30; // seconds that count as near the end even where no threshold warns
const LAST_MINUTE = 60;

/**
 * "changed" (detail: session) with news of it; "expiring" where somebody has been told that it is near its end;
 * "refused" (detail: error) where it could not be kept alive.
 */
export const life = new EventTarget();

let alive = null;
let session = null;
let isMine = false;
let tick = null;
let source = null; // of events; there is none yet where a session is known before it is followed

/** Watch a session as it is now; null stops. `mine`: whether this tab may keep it alive. `events`: who tells its log. */
export function watch(now, mine = false, events = undefined) {
  const isOther = session?.id !== now?.id || (now && source !== events);
  [session, isMine, source] = [now, mine, events];
  if (isOther) {
    alive?.close();
    tick = null;
    alive = now && begin(now, events);
  } else alive?.update(now);
  draw();
}

function begin(now, events) {
  const counting = client.session(now.id).keepAlive({ session: now, events });
  const tell = (type, detail) => counting === alive && life.dispatchEvent(new CustomEvent(type, { detail }));
  counting.on("tick", (told) => {
    if (counting !== alive) return;
    tick = told;
    draw();
  });
  counting.on("expiring", ({ remaining }) => {
    announce(`This conversation expires in ${about(remaining)}.${isMine ? " You can keep it open." : ""}`);
    tell("expiring");
  });
  counting.on("session", (changed) => tell("changed", changed));
  counting.on("error", (error) => tell("refused", error));
  return counting;
}

export function secondsLeft() {
  if (!alive) return 0;
  return alive.session ? alive.remaining : session.time_remaining_seconds; // it has not counted yet
}

/** Whether the session is live, as far as the page can tell. */
export const isAlive = () => Boolean(session) && isLive(session.status) && secondsLeft() > 0;

const warning = () => Math.max(session.timeout.warning_threshold_minutes * 60, LAST_CALL);

/** Whether it is live, and won't be for long. */
export const isExpiring = () => isAlive() && secondsLeft() <= warning();

function draw() {
  const isNear = Boolean(session && isLive(session.status) && tick?.isNear);
  drawChip(isNear && tick.remaining > 0);
  drawBar(isNear && isMine);
}

function drawChip(isNear) {
  const chip = $("chip");
  chip.hidden = !session;
  if (!session) return;
  const status = tick && isLive(session.status) && tick.remaining <= 0 ? "expired" : session.status;
  chip.dataset.status = isNear ? "near" : status;
  chip.dataset.urgent = String(isNear && tick.remaining <= LAST_MINUTE);
  set($("chip-text"), isNear ? "Expires in" : STATUS[status] ?? status);
  set($("chip-time"), isNear ? countdown(tick.remaining) : "");
  chip.title = isLive(status) ? `Expires ${fullTime(session.expires_at)} if nothing happens` : "";
}

function drawBar(isNear) {
  const bar = $("stay-bar");
  const hadFocus = bar.contains(document.activeElement);
  bar.hidden = !isNear;
  if (hadFocus && !isNear && !$("composer").hidden) $("text").focus({ preventScroll: true });
  if (!isNear) return;
  const { remaining } = tick;
  // At zero the server is asked: it may have been kept open elsewhere. Without a connection that takes a while.
  const isUp = remaining <= 0;
  bar.dataset.urgent = String(remaining <= LAST_MINUTE);
  set($("stay-words"), isUp ? (isReachable() ? "Time is up." : "Time is up, as far as can be told without a connection.") : "This conversation expires in");
  set($("stay-time"), isUp ? "" : countdown(remaining));
  $("stay").hidden = isUp;
  $("ring").style.strokeDashoffset = String(100 - Math.max(0, Math.min(100, (remaining / warning()) * 100)));
}

const set = (node, text) => node.textContent === text || (node.textContent = text);
