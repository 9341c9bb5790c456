// The little mark that an agent has in lists and beside its messages.

import { $, h, icon } from "./dom.js";

const HUES = { tasks: 1, echo: 2, slow_echo: 3, companion: 4, notebook: 5, kiosk: 6, vault: 7, broken: 8, storyteller: 5, unavailable: 0 };

export function agentMark(name) {
  const hue = HUES[name] ?? [...name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % 8;
  return h("span", { className: "agent-mark", data: { hue: String(hue) }, "aria-hidden": "true" }, icon($(`a-${name}`) ? `a-${name}` : "a-other"));
}

/** Make an existing mark that of another agent. */
export function setMark(node, name) {
  const fresh = agentMark(name);
  node.dataset.hue = fresh.dataset.hue;
  node.replaceChildren(...fresh.childNodes);
}
