// Brings an explorer to life on a page without a kernel: a model of a few lines for its traits.
const url = URL.createObjectURL(new Blob([__ESM__], { type: "text/javascript" }));
const explorer = (await import(url)).default;
URL.revokeObjectURL(url);
// The same explorer may stand on a page twice: each script takes the first that still waits.
const root = [...document.querySelectorAll(`[data-key=${__KEY__}]`)].find((node) => !node.dataset.alive);
// Of each style sheet, the base and the explorer's own, one is enough for all explorers on the page.
for (const [name, text] of Object.entries(JSON.parse(__STYLES__))) {
  const id = `fl-style-${name}`;
  if (document.getElementById(id)) continue;
  document.head.append(Object.assign(document.createElement("style"), { id, textContent: text }));
}
const state = JSON.parse(__STATE__);
const listeners = {};
const model = {
  get: (name) => state[name],
  set: (name, value) => {
    state[name] = value;
    (listeners[`change:${name}`] ?? []).forEach((tell) => tell());
  },
  on: (event, tell) => (listeners[event] ??= []).push(tell),
  off: () => {},
  save_changes: () => {},
};
root.replaceChildren();
explorer.render({ model, el: root });
