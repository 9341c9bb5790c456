// The name of this tab, sent as X-Chat-Client. It survives a reload; a duplicated tab gets a name of its own.
//
// A browser copies sessionStorage into a duplicate, so a stored name may belong to a tab that is still open. Every tab
// therefore listens on a channel, and whoever starts with a stored name asks there first.

const KEY = "chat_sessions.client";
const PATIENCE = 120; // milliseconds; the other tabs of a browser answer within a few

/** Something that nobody else will think of. crypto.randomUUID would need a secure context; a LAN address has none. */
export function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @type {Promise<string> | undefined} */
let chosen;

/** The name of this tab; outside of a browser, of this process. @returns {Promise<string>} */
export function tabName() {
  chosen ??= typeof document === "undefined" ? Promise.resolve(random()) : choose();
  return chosen;
}

async function choose() {
  const instance = random(); // of this very document: a tab does not argue with itself
  const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("chat_sessions.tabs") : null;
  const stored = recall();
  const isFree = stored !== null && !(channel && (await isTaken(channel, stored, instance)));
  const name = isFree ? stored : keep(random());
  channel?.addEventListener("message", ({ data }) => {
    if (data.kind === "whose" && data.from !== instance && data.name === name) {
      channel.postMessage({ kind: "taken", name, to: data.from });
    }
  });
  return name;
}

/**
 * @param {BroadcastChannel} channel
 * @param {string} name
 * @param {string} instance
 * @returns {Promise<boolean>}
 */
function isTaken(channel, name, instance) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => done(false), PATIENCE);
    /** @param {MessageEvent} event */
    const listen = ({ data }) => {
      if (data.name !== name) return;
      if (data.kind === "taken" && data.to === instance) done(true);
      // Two that were restored at the same moment: the one with the smaller instance keeps the name.
      if (data.kind !== "whose" || data.from === instance) return;
      if (data.from < instance) done(true);
      else channel.postMessage({ kind: "taken", name, to: data.from });
    };
    /** @param {boolean} taken */
    const done = (taken) => {
      clearTimeout(timer);
      channel.removeEventListener("message", listen);
      resolve(taken);
    };
    channel.addEventListener("message", listen);
    channel.postMessage({ kind: "whose", name, from: instance });
  });
}

function recall() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** @param {string} name */
function keep(name) {
  try {
    sessionStorage.setItem(KEY, name);
  } catch {
    // Then it lasts as long as the document.
  }
  return name;
}
