// What is there when no conversation is: a greeting and the choice of whom to talk to; or why there is none.

import { $, h } from "./dom.js";
import { username } from "./link.js";
import { agentMark } from "./marks.js";
import { STRATEGY, SUGGESTIONS, agentOf, agentTitle, agents } from "./words.js";

/** A new conversation. `choose(name)` follows the choice, `suggest(text)` a suggestion, `openNow()` a shared one. */
export function showChoice(chosen, { choose, suggest, openNow }) {
  const hero = $("hero");
  const below = h("div", { className: "hero-below" });
  const cards = agents.map((agent) =>
    h(
      "label",
      { className: "card" },
      h("input", {
        type: "radio",
        name: "agent",
        value: agent.name,
        checked: agent.name === chosen,
        className: "sr-only",
        "aria-label": agentTitle(agent.name),
        "aria-describedby": `about-${agent.name}`,
        onchange: () => {
          choose(agent.name);
          describe(agent.name);
        },
      }),
      agentMark(agent.name),
      h("span", { className: "card-text" }, h("span", { className: "card-name" }, agentTitle(agent.name)), h("span", { className: "card-about", id: `about-${agent.name}` }, agent.description)),
    ),
  );

  function describe(name) {
    const { strategy } = agentOf(name);
    const suggestions = (SUGGESTIONS[name] ?? []).map((text) =>
      h("button", { type: "button", className: "suggestion", onclick: () => suggest(text) }, text),
    );
    below.replaceChildren(
      ...(strategy === "multiple" ? [] : [h("p", { className: "strategy" }, STRATEGY[strategy] ?? "", " ", h("button", { type: "button", className: "link", onclick: openNow }, `Open ${agentTitle(name)}`))]),
      ...(suggestions.length ? [h("div", { className: "suggestions", role: "group", "aria-label": "Suggestions" }, suggestions)] : []),
    );
  }

  describe(chosen);
  hero.replaceChildren(
    h("h2", { id: "hero-title", className: "hero-title" }, `${greeting()}, ${username}`),
    h("p", { className: "hero-lead" }, "Who would you like to talk to?"),
    h("fieldset", { className: "cards" }, h("legend", { className: "sr-only" }, "Agent"), cards),
    below,
  );
  hero.hidden = false;
  $("scroll").scrollTop = 0;
}

/** Why there is nothing to see, and a way on. */
export function showDeadEnd(title, text, actions) {
  const buttons = actions.map(({ label, run }, index) =>
    h("button", { type: "button", className: `button ${index ? "button-quiet" : "button-primary"}`, onclick: run }, label),
  );
  $("hero").replaceChildren(
    h("h2", { id: "hero-title", className: "hero-title" }, title),
    h("p", { className: "hero-lead" }, text),
    h("div", { className: "hero-buttons" }, buttons),
  );
  $("hero").hidden = false;
}

/** A conversation that has no message yet. */
export function showBeginning(agent, suggest) {
  const suggestions = (SUGGESTIONS[agent] ?? []).map((text) =>
    h("button", { type: "button", className: "suggestion", onclick: () => suggest(text) }, text),
  );
  $("hero").replaceChildren(
    agentMark(agent),
    h("h2", { id: "hero-title", className: "hero-title" }, agentTitle(agent)),
    h("p", { className: "hero-lead" }, agentOf(agent).description || "Nothing has been said yet."),
    h("div", { className: "suggestions", role: "group", "aria-label": "Suggestions" }, suggestions),
  );
  $("hero").hidden = false;
}

export function hideHero() {
  $("hero").hidden = true;
  $("hero").replaceChildren();
}

function greeting() {
  const hour = new Date().getHours();
  if (hour < 5) return "Good night";
  if (hour < 12) return "Good morning";
  return hour < 18 ? "Good afternoon" : "Good evening";
}
