// How long the conversation in view has left, as the client counts it, and how it is shown.

import { $, announce } from "./dom.js";
import { client } from "./link.js";
import { STATUS, countdown, fullTime, isLive, length } from "./words.js";

const LAST_CALL = 30; // seconds that count as near the end even where no threshold warns

/** "changed" (detail: session) with news of it; "refused" (detail: error) where it could not be kept alive. */
export const life = new EventTarget();

let alive = null;
let session = null;
let isMine = false;
let tick = null;

/** Watch a session as it is now; null stops. `mine`: whether this tab may keep it alive. */
export function watch(now, mine = false) {
  const isOther = session?.id !== now?.id;
  [session, isMine] = [now, mine];
  if (isOther) {
    alive?.close();
    tick = null;
    alive = now && begin(now);
  } else alive?.update(now);
  draw();
}

function begin(now) {
  const counting = client.session(now.id).keepAlive({ session: now });
  const tell = (type, detail) => counting === alive && life.dispatchEvent(new CustomEvent(type, { detail }));
  counting.on("tick", (told) => {
    if (counting !== alive) return;
    tick = told;
    draw();
  });
  counting.on("near", ({ remaining }) => announce(`This conversation expires in ${length(remaining)}.`));
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

function draw() {
  const chip = $("chip");
  const isNear = Boolean(tick?.isNear) && isAlive();
  chip.hidden = !session;
  $("stay-bar").hidden = !isNear || !isMine;
  if (!session) return;
  const status = tick && isLive(session.status) && tick.remaining <= 0 ? "expired" : session.status;
  chip.dataset.status = isNear ? "near" : status;
  set($("chip-text"), isNear ? "Expires in" : STATUS[status] ?? status);
  set($("chip-time"), isNear ? countdown(tick.remaining) : "");
  chip.title = isLive(status) ? `Expires ${fullTime(session.expires_at)} if nothing happens` : "";
  if (!isNear) return;
  const warning = Math.max(session.timeout.warning_threshold_minutes * 60, LAST_CALL);
  set($("stay-time"), countdown(tick.remaining));
  $("ring").style.strokeDashoffset = String(100 - Math.max(0, Math.min(100, (tick.remaining / warning) * 100)));
}

const set = (node, text) => node.textContent === text || (node.textContent = text);
