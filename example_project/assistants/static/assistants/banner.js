// What stands in place of the message box: the conversation is over, or in another tab's hands.

import { $, h, icon } from "./dom.js";
import { hasText, hideNotice, setShown } from "./composer.js";

let shown = null;

/** Show a banner; the same one again changes nothing, so that it is read out once. */
export function showBanner({ kind, iconName, title, text, actions }) {
  const name = JSON.stringify([kind, title, text]);
  if (shown === name) return;
  shown = name;
  hideNotice(); // of a box that is about to go
  const unsent = hasText() ? " What you have typed comes along." : "";
  const buttons = actions.map(({ label, run, isPrimary }) =>
    h("button", { type: "button", className: `button ${isPrimary ? "button-primary" : "button-quiet"}`, onclick: (event) => once(event.currentTarget, run) }, label),
  );
  const banner = $("banner");
  banner.dataset.kind = kind;
  banner.setAttribute("role", "group");
  banner.setAttribute("aria-labelledby", "banner-title");
  banner.tabIndex = -1;
  banner.replaceChildren(
    h("span", { className: "banner-icon", "aria-hidden": "true" }, icon(iconName)),
    h("div", { className: "banner-main", role: "status" }, h("h2", { id: "banner-title" }, title), h("p", {}, text + unsent)),
    h("div", { className: "banner-buttons" }, buttons),
  );
  banner.hidden = false;
  setShown(false); // now that the banner is there to take the focus
}

export function hideBanner() {
  shown = null;
  $("banner").hidden = true;
  $("banner").replaceChildren();
  setShown(true);
}

/** A button that is at work does not take another click. */
async function once(button, run) {
  button.disabled = true;
  try {
    await run();
  } finally {
    button.disabled = false;
  }
}
