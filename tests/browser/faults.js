// What a reader with other eyes or other hands would stumble over; evaluated in the page, gives a list of strings.
() => {
  const faults = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const excerpt = (node) => node.outerHTML.slice(0, 160);

  if (!document.documentElement.lang) faults.push("no language");
  for (const one of ["h1", "main"]) if (all(one).length !== 1) faults.push(`${all(one).length} times ${one}`);
  for (const image of all("img:not([alt])")) faults.push(`no alt: ${excerpt(image)}`);

  const ids = all("[id]").map(({ id }) => id);
  for (const id of ids.filter((id, index) => ids.indexOf(id) !== index)) faults.push(`id twice: ${id}`);

  // Whatever can be used has a name.
  for (const node of all("a, button, input, textarea, nav, [role=menu], [role=log], [role=region], dialog[open]")) {
    if (node.type === "hidden" || !node.checkVisibility()) continue;
    const references = (node.getAttribute("aria-labelledby") ?? "").split(" ");
    const named = references.map((id) => document.getElementById(id)?.textContent);
    const labels = [...(node.labels ?? [])].map((label) => label.textContent);
    const own = node.matches("a, button") ? node.textContent : "";
    if (![node.getAttribute("aria-label"), ...named, ...labels, own].join("").trim()) faults.push(`no name: ${excerpt(node)}`);
  }

  // Every text that is seen has a contrast of 4.5 (WCAG 2, AA); a canvas knows colours in any notation.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    for (const colour of ["white", ...colours]) {
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (rgb) => {
    const linear = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const above = function* (node) {
    for (; node; node = node.parentElement) yield getComputedStyle(node);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = walker.nextNode()); ) {
    const node = text.parentElement;
    if (!text.data.trim() || node.closest("script, noscript, .sr-only, :disabled")) continue;
    if (!node.checkVisibility({ visibilityProperty: true })) continue;
    const styles = [...above(node)];
    if (styles.some(({ opacity }) => opacity !== "1")) continue; // on its way in or out, or shown on demand
    const grounds = styles.map(({ backgroundColor }) => backgroundColor).reverse();
    const pair = [luminance(paint(grounds)), luminance(paint([...grounds, styles[0].color]))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)}: ${text.data.trim().slice(0, 40)} in ${excerpt(node)}`);
  }
  return faults;
}
