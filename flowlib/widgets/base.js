// What every explorer shares. An explorer's own file follows this one in the same module.

const SVG = "http://www.w3.org/2000/svg";

// make("button", { class: "x", onclick: f }, "text", child) builds an element; "svg:line" an SVG one.
function make(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:")
    ? document.createElementNS(SVG, tag.slice(4))
    : document.createElement(tag);
  return put(node, attributes, ...children);
}

function put(node, attributes, ...children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node[name] = value;
    else node.setAttribute(name, value);
  }
  if (children.length) node.replaceChildren(...children);
  return node;
}

// Numbers as people read them: a true minus sign, fixed digits, words for what is no number.
function show(value, digits = 2) {
  if (value === -Infinity) return "−∞";
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

// The theme of whatever page we are on: the book's, JupyterLab's, VS Code's, or the system's.
function isDark() {
  const { theme } = document.documentElement.dataset;
  if (theme) return theme === "dark";
  const { jpThemeLight, vscodeThemeKind } = document.body.dataset;
  if (jpThemeLight) return jpThemeLight === "false";
  if (vscodeThemeKind) return vscodeThemeKind !== "vscode-light";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

// A panel of a plot: x and y are its ranges, y upwards; axes are drawn where they are zero.
function panel({ x, y, width = 320, height = 320, label }) {
  const unit = [width / (x[1] - x[0]), height / (y[1] - y[0])];
  const at = ([u, v]) => [(u - x[0]) * unit[0], (y[1] - v) * unit[1]];
  const path = (points, close) =>
    "M" + points.map((p) => at(p).map((v) => v.toFixed(2)).join(" ")).join("L") + (close ? "Z" : "");
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
  const inside = (value, [low, high]) => low <= value && value <= high;
  const axes = (inside(0, y) ? path([[x[0], 0], [x[1], 0]]) : "") + (inside(0, x) ? path([[0, y[0]], [0, y[1]]]) : "");
  svg.append(make("svg:path", { d: axes, stroke: "var(--fl-muted)", "stroke-width": 1, fill: "none" }));
  const locate = (event) => {
    const box = svg.getBoundingClientRect();
    return [
      x[0] + ((event.clientX - box.left) / box.width) * (x[1] - x[0]),
      y[1] - ((event.clientY - box.top) / box.height) * (y[1] - y[0]),
    ];
  };
  // Things are drawn in the order in which they are added; what an element shows is put later.
  const add = (tag, attributes, ...children) => svg.appendChild(make(`svg:${tag}`, attributes, ...children));
  return { svg, at, path, locate, add, x, y };
}

const plane = (half, label) => panel({ x: [-half, half], y: [-half, half], label });

// Round numbers for a scale of that range, about three of them.
function ticks([low, high]) {
  const rough = (high - low) / 3;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((k) => k * unit >= rough * 0.7);
  const first = Math.ceil(low / step + 0.15);
  return Array.from({ length: 9 }, (_, k) => (first + k) * step).filter((v) => v < high - 0.15 * step)
    .map((v) => [v, show(v, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))]);
}

// A point of a panel that is grabbed where it is drawn: mouse, pen, finger, or arrow keys. `move`
// gets the point that it was dragged to and may put it elsewhere; `value` says in words where it is.
function handle(panel, { name, label, color, step = 0.05, get, move, value = ([x, y]) => `(${show(x)}, ${show(y)})` }) {
  const node = make(
    "svg:g",
    {
      class: "fl-grab", tabindex: 0, role: "slider", "data-handle": name, "aria-label": label,
      "aria-valuemin": panel.x[0], "aria-valuemax": panel.x[1], style: `color:${color}`,
    },
    make("svg:circle", { class: "fl-halo", r: 22 }),
    make("svg:circle", { r: 7.5, fill: "currentColor", stroke: "var(--fl-panel)", "stroke-width": 2 }),
  );
  const go = (point) => {
    move(point.map((v, i) => {
      const [low, high] = i ? panel.y : panel.x;
      const edge = 0.01 * (high - low);
      return Math.max(low + edge, Math.min(high - edge, v));
    }));
  };
  let offset = null;
  node.onpointerdown = (event) => {
    const [here, there] = [panel.locate(event), get()];
    offset = [there[0] - here[0], there[1] - here[1]];
    node.setPointerCapture(event.pointerId);
    node.focus({ preventScroll: true });
  };
  // A finger on the handle drags it; `touch-action` on a <g> is not heeded, and the page would scroll.
  node.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  node.onpointermove = (event) => {
    if (offset) go(panel.locate(event).map((v, i) => v + offset[i]));
  };
  node.onpointerup = node.onpointercancel = () => (offset = null);
  node.onkeydown = (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    const far = event.shiftKey ? 5 : 1;
    go(get().map((v, i) => Math.round((v + way[i] * step * far) / step) * step));
  };
  panel.svg.append(node);
  return () => {
    const [x, y] = get();
    put(node, {
      transform: `translate(${panel.at([x, y]).join(" ")})`,
      "aria-valuenow": x.toFixed(2), "aria-valuetext": value([x, y]),
    });
  };
}

// Of points the one that lies most in a direction, such as [-1, 0], from here; -1 if none does.
function ahead(points, here, way) {
  const cost = points.map((p) => {
    const [dx, dy] = [p[0] - here[0], p[1] - here[1]];
    const along = dx * way[0] + dy * way[1];
    return along > 1e-3 ? along + 2 * Math.abs(dx * way[1] + dy * way[0]) : Infinity;
  });
  const best = Math.min(...cost);
  return best < Infinity ? cost.indexOf(best) : -1;
}

// A native slider with its symbol and its value. JupyterLab would take the arrow keys without the
// data attribute on the input itself.
function slider({ name, symbol, label, min, max, step, get, set, text = (value) => show(value) }) {
  const input = make("input", {
    type: "range", min, max, step, "data-name": name, "aria-label": label,
    "data-lm-suppress-shortcuts": "true",
  });
  const value = make("output", {});
  input.oninput = () => set(Number(input.value));
  return {
    node: make("div", { class: "fl-slider" }, make("span", { class: "fl-math", "aria-hidden": "true" }, ...symbol), input, value),
    draw: () => {
      input.value = get();
      value.textContent = text(get());
      input.setAttribute("aria-valuetext", text(get()));
    },
  };
}

const sub = (text) => make("sub", {}, text);
const swatch = (color) => make("span", { class: "fl-dot", style: `background:${color}` });
const panelTitle = (color, ...text) => make("p", { class: "fl-panel-title" }, swatch(color), ...text);

function readout(name, digits = 2) {
  const node = make("output", { "data-readout": name });
  return { node, draw: (v) => put(node, { "data-value": v }, show(v, digits)) };
}

// Named numbers below one another. One with a colour also has a bar, from zero, of the same scale.
function ledger([low, high], rows) {
  const node = make("div", { class: "fl-sum" });
  const at = (v) => ((Math.max(low, Math.min(high, v)) - low) / (high - low)) * 100;
  const draws = rows.map(({ name, text, color, digits }) => {
    const out = readout(name, digits);
    const fill = make("i", { style: `background:${color}` });
    const bar = color
      ? make("div", { class: "fl-bar", "aria-hidden": "true", style: `--fl-zero:${at(0)}%` }, fill)
      : make("span", {});
    node.append(make("span", {}, ...text), bar, out.node);
    return (value) => {
      out.draw(value);
      if (!color) return;
      fill.style.left = `${Math.min(at(0), at(value))}%`;
      fill.style.width = `${Math.abs(at(value) - at(0))}%`;
    };
  });
  return { node, draw: (values) => rows.forEach(({ name }, i) => draws[i](values[name])) };
}

// The explorer's task, which it judges itself.
function task(name, text) {
  const verdict = make("span", {});
  const node = make("p", { class: "fl-task", "data-task": name, role: "status" }, make("b", {}, "Your turn. "), text, " ", verdict);
  return {
    node,
    draw: (solved, says) => {
      put(node, { "data-solved": solved });
      if (verdict.textContent !== says) verdict.textContent = says; // a status is read out when it changes
    },
  };
}

function button(text, attributes, onclick) {
  return make("button", { type: "button", ...attributes, onclick }, text);
}

// The frame of an explorer: its theme, and at most one redraw a frame, however many changes come.
function frame(el, model, traits, draw) {
  el.classList.add("fl-explorer");
  const theme = () => el.classList.toggle("fl-dark", isDark());
  const seen = new MutationObserver(theme);
  for (const node of [document.documentElement, document.body])
    seen.observe(node, { attributes: true, attributeFilter: ["data-theme", "data-jp-theme-light", "data-vscode-theme-kind"] });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", theme);
  theme();
  let due = 0;
  const later = () => (due ||= requestAnimationFrame(() => ((due = 0), draw())));
  for (const trait of traits) model.on(`change:${trait}`, later);
  draw();
  el.dataset.alive = "true";
  return () => {
    seen.disconnect();
    system.removeEventListener("change", theme);
    cancelAnimationFrame(due);
    for (const trait of traits) model.off(`change:${trait}`, later);
  };
}
