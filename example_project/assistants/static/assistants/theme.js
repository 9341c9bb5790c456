// The theme that was chosen, before the first paint. Without a choice, CSS follows the system.
(() => {
  try {
    const theme = localStorage.getItem("theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage may be refused; the system's theme is a fine answer.
  }
})();
