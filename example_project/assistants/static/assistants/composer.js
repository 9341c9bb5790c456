// The message box: Enter sends, it grows with its text, and what is not sent yet waits for its conversation.

import { $, h, icon, isTouch } from "./dom.js";
import { username } from "./link.js";

const text = $("text");
const form = $("composer");

let place = null; // whose draft is in the box

/** Wire the box up: `send(text)` returns false to keep the text; `editLast()` is for an arrow up in an empty box. */
export function initComposer({ send, stop, editLast }) {
  text.addEventListener("input", () => {
    grow();
    keep();
  });
  text.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter then chooses a word of an input method
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      form.requestSubmit();
    } else if (event.key === "ArrowUp" && !text.value && editLast()) event.preventDefault();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const content = text.value;
    if (!content.trim() || form.hidden) return;
    hideNotice();
    setText("");
    if (send(content) === false) setText(content);
    if (!form.hidden) text.focus({ preventScroll: true });
  });
  $("stop").addEventListener("click", stop);
  // A tap beside the text, inside the frame, means the text.
  form.addEventListener("click", (event) => event.target === form && text.focus());
  addEventListener("resize", grow);
  grow();
}

const key = (of) => `draft:${username}:${of}`;

function keep() {
  try {
    if (text.value) sessionStorage.setItem(key(place), text.value);
    else sessionStorage.removeItem(key(place));
  } catch {
    // Then a reload loses it.
  }
  $("send").disabled = !text.value.trim();
}

function kept(of) {
  try {
    return sessionStorage.getItem(key(of)) ?? "";
  } catch {
    return "";
  }
}

/** Turn to another conversation: its own unsent text comes back. */
export function switchTo(now, { placeholder, carry = false } = {}) {
  const carried = carry ? text.value : "";
  if (carry) setText("");
  place = now;
  text.disabled = false; // until now it was nobody's
  text.placeholder = placeholder ?? "Message";
  setText(carried || kept(now));
  hideNotice();
}

export function setText(content) {
  text.value = content;
  grow();
  keep();
}

/** Give a text back that could not be sent, before whatever was typed since. */
export function giveBack(content, of) {
  if (of !== place) {
    try {
      sessionStorage.setItem(key(of), [content, kept(of)].filter(Boolean).join("\n"));
    } catch {
      // Nothing more can be done for it.
    }
    return;
  }
  setText([content, text.value].filter(Boolean).join("\n"));
}

export const hasText = () => Boolean(text.value.trim());
export const focus = () => text.focus({ preventScroll: true });
export const focusUnlessTouch = () => isTouch() || focus();

/** Whether there is a box at all: not where the conversation is over or in other hands. */
export function setShown(shown) {
  if (form.hidden === !shown) return;
  const hadFocus = form.contains(document.activeElement);
  form.hidden = !shown;
  if (shown) grow();
  else if (hadFocus) $("banner").focus(); // not its button: the Enter that is on its way was meant for the text
}

/** While the agent answers, a button that stops it stands in for the one that sends; Enter still sends, for later. */
export function setAnswering(isAnswering) {
  const stop = $("stop");
  if (stop.hidden === !isAnswering) return;
  const hadFocus = document.activeElement === stop;
  stop.hidden = !isAnswering;
  $("send").hidden = isAnswering;
  if (hadFocus) focusUnlessTouch();
}

function grow() {
  if (form.hidden) return;
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight, Math.round(innerHeight * 0.32))}px`;
}

/** Say what went wrong, above the box, until it is dismissed or the next message goes out. */
export function showNotice(words, action = null) {
  const notice = $("notice");
  const dismiss = () => {
    hideNotice();
    if (!form.hidden) focus();
  };
  notice.replaceChildren(icon("i-alert"), h("span", { className: "notice-text" }, words));
  if (action) notice.append(h("button", { type: "button", className: "button button-small", onclick: action.run }, action.label));
  notice.append(h("button", { type: "button", className: "icon-button tiny", "aria-label": "Dismiss", onclick: dismiss }, icon("i-close")));
  notice.hidden = false;
}

export function hideNotice() {
  $("notice").hidden = true;
  $("notice").replaceChildren();
}
