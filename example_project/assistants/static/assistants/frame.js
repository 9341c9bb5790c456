// The frame around the talk: the drawer of the phone, and the line that says offline or logged out.

import { wire } from "./api.js";
import { $, h, icon } from "./dom.js";
import { view } from "./current.js";

export function openDrawer() {
  $("shell").classList.add("has-drawer");
  $("open-drawer").setAttribute("aria-expanded", "true");
  $("main").inert = true;
  $("close-drawer").focus();
}

export function closeDrawer() {
  if (!$("shell").classList.contains("has-drawer")) return;
  const hadFocus = $("sidebar").contains(document.activeElement);
  $("shell").classList.remove("has-drawer");
  $("open-drawer").setAttribute("aria-expanded", "false");
  $("main").inert = false;
  if (hadFocus) $("open-drawer").focus();
}

/** A line over the talk about the page as a whole: offline, logged out. */
export function strip(content) {
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
