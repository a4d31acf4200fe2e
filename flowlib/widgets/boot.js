const page = JSON.parse(__PAGE__);
const url = URL.createObjectURL(new Blob([page.code], { type: "text/javascript" }));
const explorer = (await import(url)).default;
URL.revokeObjectURL(url);
// The same explorer may stand on a page twice: each script takes the first that still waits.
const root = [...document.querySelectorAll(`[data-key=${page.key}]`)].find((node) => !node.dataset.taken);
root.dataset.taken = "yes";
// Of each style sheet, the base and the explorer's own, one is enough for all explorers on the page.
for (const [name, text] of Object.entries(page.styles)) {
  const id = `fl-style-${name}`;
  if (document.getElementById(id)) continue;
  document.head.append(Object.assign(document.createElement("style"), { id, textContent: text }));
}
const model = bring(explorer, root, page.state);
