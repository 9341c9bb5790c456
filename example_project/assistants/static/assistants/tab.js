// The name of this tab, sent as X-Chat-Client. It survives a reload; a duplicated tab gets a name of its own.
//
// A browser copies sessionStorage into a duplicate, so a stored name may belong to a tab that is still open. Every tab
// therefore listens on a channel, and whoever starts with a stored name asks there first.

const KEY = "chat-client";
const PATIENCE = 120; // milliseconds; the other tabs of a browser answer within a few

const instance = random(); // of this very document: a tab does not argue with itself
const channel = "BroadcastChannel" in window ? new BroadcastChannel("chat-tabs") : null;

let name = null;

function random() {
  // crypto.randomUUID would need a secure context; a demo on a LAN address has none.
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function read() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function keep(value) {
  name = value;
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // Then the name lasts as long as the document.
  }
}

async function choose() {
  const stored = read();
  if (!stored) return keep(random());
  name = stored;
  if (channel && (await isTaken(stored))) keep(random());
}

function isTaken(stored) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => done(false), PATIENCE);
    const listen = ({ data }) => data.kind === "taken" && data.name === stored && data.to === instance && done(true);
    const done = (taken) => {
      clearTimeout(timer);
      channel.removeEventListener("message", listen);
      resolve(taken);
    };
    channel.addEventListener("message", listen);
    channel.postMessage({ kind: "whose", name: stored, from: instance });
  });
}

const chosen = choose();

channel?.addEventListener("message", async ({ data }) => {
  if (data.kind !== "whose" || data.from === instance) return;
  await chosen; // two restored at once: the first to have settled answers
  if (data.name === name) channel.postMessage({ kind: "taken", name, to: data.from });
});

/** The name of this tab. */
export async function tabName() {
  await chosen;
  return name;
}

/** The same, where it is known to have been chosen. */
export const tabNameNow = () => name;

/** A random name for something that is sent, so that sending it twice does it once. */
export const randomName = random;

/** Tell the other tabs of this browser that something has changed. */
export const tellTabs = (kind, data = {}) => channel?.postMessage({ kind, ...data });

/** Hear it. */
export const onTabs = (kind, handler) =>
  channel?.addEventListener("message", ({ data }) => data.kind === kind && handler(data));
