// Brings an explorer to life on a page without a kernel: a model of a few lines for its traits. What the
// address says after #KEY= comes first, then, after a reload, what was seen last; else the page's state.
function bring(explorer, root, state) {
  const listeners = {};
  const { key } = root.dataset;
  const start = structuredClone(state);
  const place = `explorer ${location.pathname} ${key}`;
  // Only what is of the same kind as what the page has; whoever made a link could have written anything.
  const alike = (a, b) =>
    Array.isArray(a) ? Array.isArray(b) && b.every((v) => !a.length || alike(a[0], v))
    : typeof a === typeof b && (typeof b !== "number" || Number.isFinite(b));
  const changes = (now) => Object.fromEntries(Object.entries(now).filter(([n, v]) => JSON.stringify(v) !== JSON.stringify(start[n])));
  const fitting = (found) => Object.fromEntries(Object.entries(found ?? {}).filter(([n, v]) => n in start && alike(start[n], v)));
  const linked = () => {
    const [name, text] = location.hash.slice(1).split("=");
    if (name !== key || !text) return null;
    try {
      return fitting(JSON.parse(decodeURIComponent(text)));
    } catch {
      return null; // a link that was cut off on its way says nothing
    }
  };
  const storage = (use) => {
    try {
      return use(sessionStorage);
    } catch {
      return null; // a browser that keeps nothing for this page: then a reload begins anew
    }
  };
  const model = {
    start,
    solved: new Set(),
    get: (name) => state[name],
    set: (name, value) => {
      state[name] = value;
      (listeners[`change:${name}`] ?? []).forEach((tell) => tell());
    },
    on: (event, tell) => (listeners[event] ??= []).push(tell),
    off: () => {},
    save_changes: () => {},
    link: (now) => {
      history.replaceState(null, "", `#${key}=${encodeURIComponent(JSON.stringify(changes(now)))}`);
      return location.href;
    },
  };
  const render = () => {
    root.replaceChildren();
    explorer.render({ model, el: root });
  };
  const [visit] = performance.getEntriesByType("navigation");
  const kept = storage((all) => JSON.parse(all.getItem(place)));
  const found = linked();
  for (const name of kept?.solved ?? []) model.solved.add(name);
  Object.assign(state, found && visit?.type !== "reload" ? found : fitting(kept?.state));
  model.failed = (error) => {
    delete model.failed; // once: as it was made, it can be drawn
    console.warn(`${key} is shown as it was made: ${error}`);
    Object.assign(state, structuredClone(start));
    render();
  };
  render();
  if (found) root.scrollIntoView({ block: "center" });
  addEventListener("hashchange", () => {
    const next = linked();
    if (!next) return;
    for (const [name, value] of Object.entries({ ...start, ...next })) model.set(name, value);
    root.scrollIntoView({ block: "center" });
  });
  addEventListener("pagehide", () => {
    const now = { state: changes(state), solved: [...model.solved] };
    storage((all) => all.setItem(place, JSON.stringify(now)));
  });
  return model;
}
