// The frame around the talk: the drawer of the phone, and the line that says offline or logged out.

import { $, h, icon } from "./dom.js";
import { view } from "./current.js";
import { isReachable, line } from "./link.js";

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
function strip(content) {
  const node = $("strip");
  if (node.dataset.lasting || node.hidden === !content) return;
  node.hidden = !content;
  node.replaceChildren(...(content ?? []));
}

const BLIP = 600; // milliseconds without a connection that nobody needs to know of
let blip = 0;

/** Say so while there is no connection; the page looks for one by itself. */
export function drawLine() {
  if (!navigator.onLine) return sayLost();
  if (!isReachable() || view.conversation?.getSnapshot().connection === "offline") {
    blip ||= setTimeout(sayLost, BLIP);
    return;
  }
  clearTimeout(blip);
  blip = 0;
  strip(null);
}

function sayLost() {
  const hope = view.id ? " What you send meanwhile goes out afterwards." : "";
  strip([h("span", { className: "spinner", "aria-hidden": "true" }), h("span", {}, `No connection. Reconnecting…${hope}`)]);
}

line.addEventListener("reach", drawLine);
addEventListener("offline", drawLine);
addEventListener("online", drawLine);

line.addEventListener("session-over", () => {
  if ($("strip").dataset.lasting) return;
  const login = `${$("shell").dataset.login}?next=${encodeURIComponent(location.pathname + location.search)}`;
  $("strip").hidden = true;
  strip([icon("i-alert"), h("span", {}, "You have been logged out."), h("a", { href: login, className: "link" }, "Log in again")]);
  $("strip").dataset.lasting = "true";
});
