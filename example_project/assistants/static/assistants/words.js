// How the page says things: times, statuses, agents.

import { readJSON } from "./dom.js";
import { serverNow } from "./link.js";

const LOCALE = document.documentElement.lang || undefined;
const CLOCK = new Intl.DateTimeFormat(LOCALE, { hour: "numeric", minute: "2-digit" });
const FULL = new Intl.DateTimeFormat(LOCALE, { dateStyle: "full", timeStyle: "short" });
const DAY = new Intl.DateTimeFormat(LOCALE, { weekday: "long", day: "numeric", month: "long" });
const SHORT = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short" });
const YEAR = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short", year: "numeric" });

const dayOf = (instant) => new Date(instant).setHours(0, 0, 0, 0);
const daysAgo = (instant) => Math.round((dayOf(serverNow()) - dayOf(instant)) / 86_400_000);

export const clockTime = (iso) => CLOCK.format(new Date(iso));
export const fullTime = (iso) => FULL.format(new Date(iso));
export const dayKey = (iso) => String(dayOf(Date.parse(iso)));

export function dayName(iso) {
  const days = daysAgo(Date.parse(iso));
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return new Date(iso).getFullYear() === new Date(serverNow()).getFullYear() ? DAY.format(new Date(iso)) : YEAR.format(new Date(iso));
}

/** The group of the list that an instant belongs to. */
export function period(iso) {
  const days = daysAgo(Date.parse(iso));
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days < 7) return "This week";
  if (days < 31) return "This month";
  return "Earlier";
}

/** "now", "4 min", "3 h", then the day. */
export function ago(iso) {
  const seconds = Math.max(0, (serverNow() - Date.parse(iso)) / 1000);
  if (seconds < 60) return "now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400 && daysAgo(Date.parse(iso)) === 0) return `${Math.floor(seconds / 3600)} h`;
  if (daysAgo(Date.parse(iso)) === 1) return CLOCK.format(new Date(iso));
  return SHORT.format(new Date(iso));
}

/** "4:05", "1:02:09": what is left, rounded up, so that it reads 0:00 only when it is over. */
export function countdown(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** "3 minutes", "2 hours", "5 days". */
export function length(seconds) {
  const units = [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, size] = units.find(([, size]) => seconds >= size) ?? units.at(-1);
  const count = Math.floor(seconds / size);
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

/** What is left, as one says it: "5 minutes" at 4:58, "40 seconds". */
export const about = (seconds) => length(seconds < 55 || seconds >= 3600 ? seconds : Math.round(seconds / 60) * 60);

export const minutes = (count) => length(count * 60);

export const STATUS = {
  created: "New",
  active: "Active",
  resumed: "Resumed",
  expired: "Expired",
  ended: "Ended",
  failed: "Failed",
  archived: "Archived",
};

const LIVE = new Set(["created", "active", "resumed"]);
export const isLive = (status) => LIVE.has(status);

/** "at 5:27 AM" today, with the date otherwise. */
export const moment = (iso) => (daysAgo(Date.parse(iso)) === 0 ? `at ${clockTime(iso)}` : `on ${fullTime(iso)}`);

const REASONS = {
  idle_timeout: "It was idle for longer than its timeout.",
  max_duration: "It reached its maximum duration.",
  parent_ended: "The conversation it belongs to ended.",
  ended_by_staff: "A member of staff ended it.",
};
export const reasonText = (reason) => REASONS[reason] ?? (reason ? `Reason: “${reason}”.` : "");

const ORDER = ["tasks", "echo", "slow_echo", "storyteller", "companion", "notebook", "kiosk", "vault", "broken", "unavailable"];
const place = ({ name }) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);

export const agents = (readJSON("agents") ?? []).sort((a, b) => place(a) - place(b));
const byName = new Map(agents.map((agent) => [agent.name, agent]));
export const agentOf = (name) => byName.get(name) ?? { name, description: "", strategy: "multiple" };

/** "slow_echo" as people write it. */
export function agentTitle(name) {
  const words = (name || "notes").replaceAll(/[_-]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export const STRATEGY = {
  multiple: "A new conversation each time.",
  single: "One conversation, shared by all your tabs.",
  per_tab: "A conversation of its own for every tab.",
  active_tab_wins: "One conversation; the newest tab is in control.",
};

export const SUGGESTIONS = {
  tasks: ["Create a task: Review Q4 budget", "Mark it complete", "Show my tasks"],
  storyteller: ["A lighthouse that was afraid of the dark", "Two clocks that never agreed"],
  echo: ["Is anybody there?", "Say it back to me"],
  slow_echo: ["Take your time and say this back to me, one word after the other"],
  companion: ["Good to see you again"],
  notebook: ["Note to self: be kind"],
  kiosk: ["A visitor for the second floor"],
  vault: ["Forget this in five minutes"],
  broken: ["Please try anyway"],
  unavailable: ["Anybody home?"],
};

/** The first words of a message, for a title. */
export function firstWords(text, limit = 60) {
  const line = text.trim().replaceAll(/\s+/g, " ");
  const letters = Array.from(line); // by code point: a title must not end in half an emoji
  if (letters.length <= limit) return line;
  const cut = letters.slice(0, limit).join("");
  return `${cut.includes(" ") ? cut.slice(0, cut.lastIndexOf(" ")) : cut}…`;
}

export const titleOf = (session) => session.title || `${agentTitle(session.agent)} conversation`;
