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

// A square panel of the plane, with a grid and axes: units to pixels, y upwards.
function plane({ half, size = 320, label }) {
  const scale = size / (2 * half);
  const at = ([x, y]) => [size / 2 + x * scale, size / 2 - y * scale];
  const path = (points, close) =>
    "M" + points.map((p) => at(p).map((v) => v.toFixed(2)).join(" ")).join("L") + (close ? "Z" : "");
  const svg = make("svg:svg", { viewBox: `0 0 ${size} ${size}`, role: "group", "aria-label": label });
  const axes = make("svg:path", {
    d: path([[-half, 0], [half, 0]]) + path([[0, -half], [0, half]]),
    stroke: "var(--fl-muted)", "stroke-width": 1, fill: "none",
  });
  svg.append(axes);
  const locate = (event) => {
    const box = svg.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * 2 * half - half,
      half - ((event.clientY - box.top) / box.height) * 2 * half,
    ];
  };
  return { svg, at, path, locate, scale, half };
}

// A point of a plane that is grabbed where it is drawn: mouse, pen, finger, or arrow keys.
function handle(panel, { name, label, color, step = 0.05, get, move }) {
  const node = make(
    "svg:g",
    {
      class: "fl-grab", tabindex: 0, role: "slider", "data-handle": name, "aria-label": label,
      "aria-valuemin": -panel.half, "aria-valuemax": panel.half, style: `color:${color}`,
    },
    make("svg:circle", { class: "fl-halo", r: 22 }),
    make("svg:circle", { r: 7.5, fill: "currentColor", stroke: "var(--fl-panel)", "stroke-width": 2 }),
  );
  const go = (point) => {
    const edge = panel.half * 0.98;
    move(point.map((v) => Math.max(-edge, Math.min(edge, v))));
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
      "aria-valuenow": x.toFixed(2), "aria-valuetext": `(${show(x)}, ${show(y)})`,
    });
  };
}

// A native slider with its name and its value. JupyterLab would take the arrow keys without the
// data attribute on the input itself.
function slider({ name, label, min, max, step, get, set }) {
  const input = make("input", {
    type: "range", min, max, step, "data-name": name, "aria-label": label,
    "data-lm-suppress-shortcuts": "true",
  });
  const value = make("output", {});
  input.oninput = () => set(Number(input.value));
  const caption = make("span", { class: "fl-math", "aria-hidden": "true" });
  caption.innerHTML = `${name[0]}<sub>${name.slice(1)}</sub>`;
  return {
    node: make("div", { class: "fl-slider" }, caption, input, value),
    draw: () => {
      input.value = get();
      value.textContent = show(get());
      input.setAttribute("aria-valuetext", show(get()));
    },
  };
}

function readout(name, digits = 2) {
  const node = make("output", { "data-readout": name });
  return { node, draw: (v) => put(node, { "data-value": v }, show(v, digits)) };
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
