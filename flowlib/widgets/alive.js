// Brings an explorer to life on a page without a kernel: a model of a few lines for its traits.
function bring(explorer, root, state) {
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
  return model;
}
