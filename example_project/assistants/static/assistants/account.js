// The person's own corner: theme, shortcuts, the way out.

import { $, h } from "./dom.js";
import { username } from "./link.js";
import { openMenu, tell } from "./menus.js";

const isMac = /mac|iphone|ipad/i.test(navigator.userAgentData?.platform ?? navigator.platform);
const MOD = isMac ? "⌘" : "Ctrl";

const SHORTCUTS = [
  [[MOD, "K"], "Search conversations"],
  [[MOD, "Shift", "O"], "New conversation"],
  [["Enter"], "Send"],
  [["Shift", "Enter"], "New line"],
  [["↑"], "Edit your last message, from an empty box"],
  [["Esc"], "Close what is open, stop the answer, back to the message box"],
];

export function initAccount() {
  $("account-name").textContent = username;
  $("account-face").textContent = Array.from(username)[0]?.toUpperCase() ?? "?";
  $("account-face").dataset.hue = String([...username].reduce((sum, letter) => sum + letter.charCodeAt(0), 3) % 8);
  $("search-key").textContent = isMac ? "⌘ K" : "Ctrl K";
  $("account").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme ?? "system";
    const choice = (value, label, icon) => ({ label, icon, checked: theme === value, run: () => setTheme(value) });
    openMenu($("account"), [
      choice("system", "As the system", "i-auto"),
      choice("light", "Light", "i-sun"),
      choice("dark", "Dark", "i-moon"),
      null,
      { label: "Keyboard shortcuts", icon: "i-keyboard", run: showShortcuts },
      ...($("logout") ? [null, { label: "Log out", icon: "i-logout", run: () => $("logout").requestSubmit() }] : []),
    ]);
  });
}

function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // Then it lasts until the reload.
  }
}

function showShortcuts() {
  const rows = SHORTCUTS.map(([keys, what]) =>
    h("div", {}, h("dt", {}, keys.map((key) => h("kbd", {}, key))), h("dd", {}, what)),
  );
  void tell("Keyboard shortcuts", h("dl", { className: "shortcuts" }, rows));
}
