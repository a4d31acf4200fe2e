// What every explorer shares. An explorer's own file follows this one in the same module.

// --- elements ---------------------------------------------------------------------------------

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

// A class, or a text, that is written only when it changes: many are set in each redraw, and a
// status is read out when it is written.
function setClass(node, names) {
  if (node.getAttribute("class") !== names) node.setAttribute("class", names);
}
function setText(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

// For what is seldom built anew: `build(key)`, but only when the key is another than the last time.
function whenNew(build) {
  let last = null;
  return (key) => {
    const now = JSON.stringify(key);
    if (now !== last) build(key);
    last = now;
  };
}

// The attributes of what is drawn: put(path, line("var(--fl-ink)", 2, { d })).
const line = (color, width, more = {}) => ({
  fill: "none", stroke: color, "stroke-width": width, "stroke-linejoin": "round", ...more,
});
const filled = (color, opacity) => ({ fill: color, "fill-opacity": opacity });
const disc = (color, r) => ({ r, fill: color, stroke: "var(--fl-panel)", "stroke-width": 2 });

// --- numbers and words ------------------------------------------------------------------------

const LOG_2PI = Math.log(2 * Math.PI);
const clamp = (v, [low, high]) => Math.max(low, Math.min(high, v));
const range = (count, from = 0) => Array.from({ length: count }, (_, i) => from + i);
const sumOf = (numbers) => numbers.reduce((a, b) => a + b, 0);

// Number k, from 0, of the generator mulberry32 with that seed, in [0, 1); and one after the other.
function uniform(seed, k) {
  const a = (seed + Math.imul(k + 1, 0x6d2b79f5)) >>> 0;
  let t = Math.imul(a ^ (a >>> 15), a | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
function random(seed) {
  let k = 0;
  return () => uniform(seed, k++);
}

// Numbers as people read them: a true minus sign, fixed digits, words for what is no number.
function show(value, digits = 2) {
  if (value === -Infinity) return "−∞";
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

const digitsOf = (digits, n) => [...`${n}`].map((d) => digits["-0123456789".indexOf(d)]).join("");
const subscript = (n) => digitsOf("₋₀₁₂₃₄₅₆₇₈₉", n);
const powerOfTen = (n) => `10${digitsOf("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", n)}`;

// Mathematics, set as in the text: math("log p_Z(z)"). An index of more than one sign is in braces.
const SIGNS = /_(\{[^}]*\}|.)|(log|det|exp|sin|tanh|KL)|([A-Za-z])|([^_A-Za-z]+)/g;
function math(words) {
  const node = make("span", { class: "fl-math" });
  for (const [, index, name, letter, other] of words.matchAll(SIGNS)) {
    if (index) node.append(make("sub", {}, index.replace(/[{}]/g, "")));
    else node.append(letter ? make("var", {}, letter) : (name ?? other));
  }
  return node;
}
// Words with mathematics between dollar signs, as children of a node; written when they change.
const spelled = (words) => words.split("$").map((part, k) => (k % 2 ? math(part) : part));
function setSpelled(node, words) {
  if (node.spelled !== words) node.replaceChildren(...spelled(words));
  node.spelled = words;
}

// An index in a drawing's text: text.append("x", lowered("1")).
const lowered = (words) => make("svg:tspan", { dy: 4, "font-size": "78%" }, words);
const indexed = (letter, index) => [make("svg:tspan", { class: "fl-math" }, letter), lowered(`${index}`)];

// "1, 2 and 3"
const listed = (words) => words.join(", ").replace(/, ([^,]*)$/, " and $1");

// --- keys and pointers ------------------------------------------------------------------------

// The keys that a node takes for itself, neither the page nor JupyterLab: what each does, by its name.
function takeKeys(node, actions) {
  node.addEventListener("keydown", (event) => {
    const act = actions[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act(event);
  });
}

// The four arrow keys among them: `go` gets the way, [right, down], and 5 with shift held, else 1.
function arrowKeys(go) {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  return Object.fromEntries(Object.entries(ways).map(([key, way]) => [key, (event) => go(way, event.shiftKey ? 5 : 1)]));
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

// Where a pointer, or a finger, is on a drawing: in the units of its viewBox.
function pointerAt(svg, { clientX, clientY }) {
  const [box, view] = [svg.getBoundingClientRect(), svg.viewBox.baseVal];
  return [
    view.x + ((clientX - box.left) / box.width) * view.width,
    view.y + ((clientY - box.top) / box.height) * view.height,
  ];
}

// A node that mouse, pen or finger drag: `at` says where a pointer is, `get` where the node is, and
// `move` gets the place that it is dragged to.
function drag(node, { at, get, move }) {
  let offset = null;
  node.onpointerdown = (event) => {
    const here = at(event);
    offset = get().map((v, i) => v - here[i]);
    node.setPointerCapture(event.pointerId);
    node.focus({ preventScroll: true });
  };
  // `touch-action` on a <g> is not heeded: without this, the page would scroll.
  node.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  node.onpointermove = (event) => {
    if (offset) move(at(event).map((v, i) => v + offset[i]));
  };
  node.onpointerup = node.onpointercancel = () => (offset = null);
}

// --- plots ------------------------------------------------------------------------------------

// The edges of those cells of a grid that are `inside(row, column)`, as two paths: `inner` towards
// cells that are not, `outer` along the edge of the grid.
function cellEdges([rows, columns], cell, inside) {
  let [inner, outer] = ["", ""];
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) {
      if (!inside(r, c)) continue;
      const [x, y] = [c * cell, r * cell];
      const sides = [
        [r - 1, c, `M${x} ${y}h${cell}`], [r + 1, c, `M${x} ${y + cell}h${cell}`],
        [r, c - 1, `M${x} ${y}v${cell}`], [r, c + 1, `M${x + cell} ${y}v${cell}`],
      ];
      for (const [i, j, edge] of sides) {
        if (i < 0 || j < 0 || i === rows || j === columns) outer += edge;
        else if (!inside(i, j)) inner += edge;
      }
    }
  return { inner, outer };
}

// A panel of a plot: x and y are its ranges, y upwards. Things are drawn in the order in which they
// are added; what an element shows is put later.
function panel({ x, y, width = 320, height = 320, label }) {
  const unit = [width / (x[1] - x[0]), height / (y[1] - y[0])];
  const at = ([u, v]) => [(u - x[0]) * unit[0], (y[1] - v) * unit[1]];
  const path = (points, close) => pixelPath(points.map(at), close);
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
  const locate = (event) => {
    const [px, py] = pointerAt(svg, event);
    return [x[0] + px / unit[0], y[1] - py / unit[1]];
  };
  const add = (tag, attributes, ...children) => svg.appendChild(make(`svg:${tag}`, attributes, ...children));
  const text = ([px, py], words, more = {}) => add("text", { class: "fl-small", x: px, y: py, ...more }, words);
  return { svg, at, path, locate, add, text, x, y };
}

// A path through points in pixels.
const pixelPath = (points, close) =>
  "M" + points.map((p) => p.map((v) => v.toFixed(2)).join(" ")).join("L") + (close ? "Z" : "");

// A panel with its axes, drawn where they are zero.
function axesPanel(options) {
  const it = panel(options);
  const inside = (value, [low, high]) => low <= value && value <= high;
  const { x, y } = it;
  const d = (inside(0, y) ? it.path([[x[0], 0], [x[1], 0]]) : "") + (inside(0, x) ? it.path([[0, y[0]], [0, y[1]]]) : "");
  it.add("path", line("var(--fl-muted)", 1, { d }));
  return it;
}

const plane = (half, label, size = 320) => axesPanel({ x: [-half, half], y: [-half, half], width: size, height: size, label });

// Numbers on both axes of a plane.
function axisNumbers({ add, at }, numbers) {
  const put = (x, y, words, anchor) => add("text", { class: "fl-small fl-axis", x, y, "text-anchor": anchor }, words);
  for (const v of numbers) {
    const [[x, y0], [x0, y]] = [at([v, 0]), at([0, v])];
    add("path", line("var(--fl-muted)", 1, { d: `M${x} ${y0 - 3}v6M${x0 - 3} ${y}h6` }));
    put(x, y0 + 15, show(v, 0), "middle");
    put(x0 - 6, y + 4, show(v, 0), "end");
  }
}

// A panel with room around its ranges, for ticks: `box` is where the ranges end, in pixels.
function chart({ x, y, width, height, room: [top, right, bottom, left], label }) {
  const unit = [(width - left - right) / (x[1] - x[0]), (height - top - bottom) / (y[1] - y[0])];
  const it = panel({
    x: [x[0] - left / unit[0], x[1] + right / unit[0]], y: [y[0] - bottom / unit[1], y[1] + top / unit[1]],
    width, height, label,
  });
  return { ...it, box: { left, top, right: width - right, bottom: height - bottom } };
}

// Round numbers for a scale of that range, about three of them.
function ticks([low, high]) {
  const rough = (high - low) / 3;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((k) => k * unit >= rough * 0.7);
  const first = Math.ceil(low / step + 0.15);
  return range(9, first).map((k) => k * step).filter((v) => v < high - 0.15 * step)
    .map((v) => [v, show(v, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))]);
}

// A point of a panel that is grabbed where it is drawn: mouse, pen, finger, or arrow keys. `move`
// gets the point that it was dragged to and may put it elsewhere; so do the arrow keys, by a `step`,
// unless `keys` takes them: it gets the way, [right, up], and how many steps. To a screen reader it
// is a slider of that `range`; of its point, `now` is the number there and `value` the words.
function handle(panel, {
  name, label, color, get, move, keys, step = 0.05, range = panel.x,
  now = ([x]) => x, value = ([x, y]) => `(${show(x)}, ${show(y)})`,
}) {
  const node = make(
    "svg:g",
    {
      class: "fl-grab", tabindex: 0, role: "slider", "data-handle": name, "aria-label": label,
      "aria-valuemin": range[0], "aria-valuemax": range[1], style: `color:${color}`,
    },
    make("svg:circle", { class: "fl-halo", r: 22 }),
    make("svg:circle", disc("currentColor", 7.5)),
  );
  const inside = (point) => point.map((v, i) => {
    const [low, high] = i ? panel.y : panel.x;
    const edge = 0.01 * (high - low);
    return clamp(v, [low + edge, high - edge]);
  });
  const go = (point) => move(inside(point));
  const stride = (way, count) => go(get().map((v, i) => Math.round((v + way[i] * step * count) / step) * step));
  drag(node, { at: panel.locate, get, move: go });
  takeKeys(node, arrowKeys(([right, down], count) => (keys ?? stride)([right, -down], count)));
  panel.svg.append(node);
  const draw = () => {
    const point = get();
    put(node, {
      transform: `translate(${panel.at(point).join(" ")})`,
      "aria-valuenow": now(point).toFixed(2), "aria-valuetext": value(point),
    });
  };
  return { node, draw };
}

// --- controls ---------------------------------------------------------------------------------

function button(text, attributes, onclick) {
  return make("button", { type: "button", ...attributes, onclick }, text);
}
const preset = (name, act, text = name) => button(text, { "data-preset": name }, act);
const row = (...nodes) => make("div", { class: "fl-row" }, ...nodes);

// The frame of an explorer: its picture, and a rail with what it says, asks and offers. Where there
// is room the rail stands beside the picture, and else under it, with the task in sight.
const [RAIL, BESIDE] = [272 + 20, 700]; // pixels, with the gap between them; base.css has them, too
const pictureWidth = (width) => (width >= BESIDE ? width - RAIL : width);
const frame = (picture, rail) =>
  make("div", { class: "fl-frame" },
    make("div", { class: "fl-main" }, ...picture), make("div", { class: "fl-rail" }, ...rail));
// What comes after the task where the rail is under the picture, and what comes last.
const next = (node) => (node.classList.add("fl-next"), node);
const later = (node) => (node.classList.add("fl-later"), node);
// What is rarely needed, behind a word.
const folded = (words, ...nodes) => make("details", { class: "fl-more" }, make("summary", {}, words), ...nodes);

// Buttons of which the one is pressed whose value holds; each option is [text, value, attributes].
function choice(options, get, set) {
  const nodes = options.map(([text, value, attributes]) => button(text, attributes, () => set(value)));
  const draw = () => {
    const now = get();
    nodes.forEach((node, k) => put(node, { "aria-pressed": options[k][1] === now }));
  };
  return { nodes, draw };
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
    node: make("div", { class: "fl-slider" },
      make("span", { class: "fl-symbol", "aria-hidden": "true" }, ...symbol), input, value),
    draw: () => {
      input.value = get();
      value.textContent = text(get());
      input.setAttribute("aria-valuetext", text(get()));
    },
  };
}

const sub = (text) => make("sub", {}, text);
const swatch = (color) => make("span", { class: "fl-dot", style: `background:${color}` });
const dashes = (color) => make("span", { class: "fl-dashes", style: `color:${color}` });
const titled = (...text) => make("p", { class: "fl-panel-title" }, ...text);
const panelTitle = (color, ...text) => titled(swatch(color), ...text);
// What the colours of a picture mean: each key is a list of a swatch and words.
const legend = (...keys) => make("p", { class: "fl-panel-title fl-legend" }, ...keys.map((key) => make("span", {}, ...key)));
// What an explorer says of its state, and small print.
const saying = () => make("p", { class: "fl-say" });
// A text with the room that `longest` needs, so that nothing below it moves when it is another.
const roomy = (node, longest) => make("div", { class: "fl-room", "data-room": longest.replaceAll("$", "") }, node);
const fine = (...text) => make("p", { class: "fl-fine" }, ...text);

function readout(name, digits = 2) {
  const node = make("output", { "data-readout": name });
  return { node, draw: (v) => put(node, { "data-value": v }, show(v, digits)) };
}

// Named numbers below one another. One with a colour also has a bar, from zero, of the same scale.
function ledger([low, high], rows) {
  const node = make("div", { class: "fl-sum" });
  const at = (v) => ((clamp(v, [low, high]) - low) / (high - low)) * 100;
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

// The explorer's task, which it judges itself: `draw` gets whether it is done, and a sentence. What is
// solved once stays solved for the visit. A state that a preset has set solves nothing: only a hand does
// that, from a state that was no solution. To a screen reader it speaks when the hand rests. `longest`
// is the longest sentence that it has room for.
const REST = 700; // milliseconds
const [SOLVED, BEFORE] = ["✓ Solved. ", "✓ Solved before. Now: "]; // the second away from the solution
const GIVEN = "That is it, but it was given to you. Move away from it, and find the way back by hand.";
function task(page, name, text, longest = "") {
  const [tick, verdict] = [make("b", { class: "fl-tick" }), make("span", {})];
  const heard = make("span", { class: "fl-unseen", role: "status" });
  const node = make("div", { class: "fl-task", "data-task": name },
    make("p", {}, make("b", {}, "Your turn. "), ...spelled(text)), roomy(make("p", { class: "fl-verdict" }, tick, verdict), longest && BEFORE + longest), heard);
  let [given, timer] = [true, 0];
  const speak = () => {
    if (page.isHeld()) timer = setTimeout(speak, REST);
    else setText(heard, `${tick.textContent}${verdict.textContent}`);
  };
  return {
    node,
    draw: (done, says) => {
      given = done && (given || page.wasGiven());
      if (done && !given) page.solved.add(name);
      const kept = page.solved.has(name);
      put(node, { "data-solved": done && !given, "data-kept": kept });
      const words = given && !kept ? GIVEN : says;
      const mark = kept ? (done ? SOLVED : BEFORE) : "";
      if (verdict.spelled === words && tick.textContent === mark) return;
      setText(tick, mark);
      setSpelled(verdict, words);
      clearTimeout(timer);
      timer = setTimeout(speak, REST);
    },
  };
}

// --- the page ---------------------------------------------------------------------------------

// The theme of whatever page we are on: the book's, JupyterLab's, VS Code's, or the system's.
function isDark() {
  const { theme } = document.documentElement.dataset;
  if (theme) return theme === "dark";
  const { jpThemeLight, vscodeThemeKind } = document.body.dataset;
  if (jpThemeLight) return jpThemeLight === "false";
  if (vscodeThemeKind) return vscodeThemeKind !== "vscode-light";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

// Keeps the class fl-dark in step with that theme, until what it returns is called.
function followTheme(el) {
  const theme = () => el.classList.toggle("fl-dark", isDark());
  const seen = new MutationObserver(theme);
  for (const node of [document.documentElement, document.body])
    seen.observe(node, { attributes: true, attributeFilter: ["data-theme", "data-jp-theme-light", "data-vscode-theme-kind"] });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", theme);
  theme();
  return () => {
    seen.disconnect();
    system.removeEventListener("change", theme);
  };
}

const PADDING = 24; // of an explorer, at its left and right together
const NARROWEST = 240; // in less room, drawings are made smaller

// Tells the width in pixels that an explorer's parts can fill: once it is laid out, and whenever it is
// another, until what it returns is called. A hidden element has no width, and nothing is told until it
// shows. To ask for the width at once would lay out the whole page for each explorer.
function followWidth(el, tell) {
  let width = 0;
  const look = () => {
    const now = el.clientWidth && Math.max(NARROWEST, el.clientWidth - PADDING);
    if (now && now !== width) tell((width = now));
  };
  const seen = new ResizeObserver(look);
  seen.observe(el);
  return () => seen.disconnect();
}

// Whether somebody asked for less motion.
const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// The state on an element, for tests: data-NAME, the numbers of a list with commas.
function mirror(el, state) {
  for (const [name, value] of Object.entries(state)) el.dataset[name] = [value].flat(2).join(",");
}

// What the parts of an explorer share: its state and its redraws.
//   const page = openPage(el, model, ["depth", "point"]); // these traits are its state
//   page.get("depth"); page.state(); page.start; // one of any trait; all; all as they were at first
//   page.set({ depth: 2 }); // by hand; and the kernel is told
//   page.give({ depth: 0 }); // the same by a preset, which solves no task
//   page.mark(); page.pass({ depth: 1.5 }); // what an explorer does by itself: begin, and each frame
//   page.undo(); page.canUndo(); // takes back what was done to the traits of `undoable`
//   page.soon(); page.redraw(); // redraw what no trait says: in the next frame, or at once
//   return page.run(draw); // ends `render`: draw(width) now, and again when anything changes
const PAUSE = 400; // milliseconds between two changes that are undone one by one
function openPage(el, model, traits, undoable = []) {
  let [draw, due, width] = [null, 0, 640];
  let [held, pushed, last, given, touched] = [false, false, -Infinity, true, false];
  const past = [];
  const get = (name) => model.get(name);
  const state = (names = traits) => Object.fromEntries(names.map((name) => [name, get(name)]));
  const redraw = () => {
    cancelAnimationFrame(due);
    due = 0;
    draw(width);
  };
  const soon = () => (due ||= requestAnimationFrame(redraw)); // however many changes come
  const write = (changes, save) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    if (save) model.save_changes();
  };
  // One drag, or keys one after the other, are undone as one.
  const remember = (changes) => {
    const now = performance.now();
    const differs = (name) => JSON.stringify(get(name)) !== JSON.stringify(changes[name]);
    if (!undoable.some((name) => name in changes && differs(name))) return;
    if (!(held ? pushed : now - last < PAUSE)) past.push(structuredClone(state(undoable)));
    [last, pushed] = [now, true];
  };
  const set = (changes, save = true) => {
    remember(changes);
    [given, touched] = [false, true];
    write(changes, save);
  };
  const give = (changes) => {
    last = -Infinity;
    remember(changes);
    [last, given] = [-Infinity, true];
    write(changes, true);
  };
  const mark = () => past.push(structuredClone(state(undoable)));
  const pass = (changes) => {
    given = true;
    write(changes, false);
  };
  const save = () => model.save_changes();
  const undo = () => {
    if (!past.length) return;
    [last, given] = [-Infinity, true];
    write(past.pop(), true);
    soon();
  };
  const down = () => ([held, pushed, last] = [true, false, -Infinity]);
  const up = () => {
    if (held) soon(); // for what is drawn coarsely in the hand
    [held, last] = [false, -Infinity];
  };
  const keys = (event) => {
    if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey || !undoable.length) return;
    event.preventDefault();
    event.stopPropagation();
    undo();
  };
  // `others` are traits that are drawn and are not of its state.
  const run = (how, others = []) => {
    draw = how;
    el.classList.add("fl-explorer");
    el.dataset.begun = "yes"; // and not to be seen before the first drawing
    // The first drawing waits for the width; a state from a link that cannot be drawn is given up.
    const begin = () => {
      try {
        redraw();
      } catch (error) {
        stop();
        if (!model.failed) throw error;
        return model.failed(error);
      }
      el.dataset.alive = "true";
    };
    const tell = (now) => {
      width = now;
      if (el.dataset.alive) soon();
      else begin();
    };
    const ends = [followTheme(el), followWidth(el, tell)];
    for (const trait of [...traits, ...others]) model.on(`change:${trait}`, soon);
    el.addEventListener("pointerdown", down, true);
    for (const kind of ["pointerup", "pointercancel"]) window.addEventListener(kind, up);
    el.addEventListener("keydown", keys);
    const stop = () => {
      ends.forEach((end) => end());
      cancelAnimationFrame(due);
      for (const trait of [...traits, ...others]) model.off(`change:${trait}`, soon);
      el.removeEventListener("pointerdown", down, true);
      for (const kind of ["pointerup", "pointercancel"]) window.removeEventListener(kind, up);
      el.removeEventListener("keydown", keys);
    };
    return stop;
  };
  // A page without a kernel remembers how an explorer was made, and what was solved in this visit.
  const start = structuredClone(model.start ?? state());
  const solved = model.solved ?? new Set();
  const [isHeld, wasGiven, isTouched, canUndo] = [() => held, () => given, () => touched, () => past.length > 0];
  const link = model.link && (() => model.link(state()));
  const canSpoil = undoable.length > 0;
  return { el, get, state, start, solved, canSpoil, set, give, mark, pass, save, undo, canUndo, isHeld, wasGiven, isTouched, link, soon, redraw, run };
}

// What every explorer offers at its end: undo where something can be spoilt, reset, a link, a picture.
// `traits` are those that reset sets.
function tools(page, traits = Object.keys(page.start), reset = () => {}) {
  const back = button("undo", { class: "fl-tool", "data-action": "undo", title: "Ctrl+Z" }, page.undo);
  const start = () => Object.fromEntries(traits.map((name) => [name, structuredClone(page.start[name])]));
  const again = button("reset", { class: "fl-tool", "data-action": "reset" }, () => {
    reset();
    page.give(start());
  });
  const nodes = [...(page.canSpoil ? [back] : []), again];
  if (page.link) {
    const words = "link";
    const one = button(words, { class: "fl-tool", "data-action": "link", "aria-label": "copy a link to this state" }, async () => {
      setText(one, (await copied(page.link())) ? "copied" : "in the address");
      setTimeout(() => setText(one, words), 2000);
    });
    nodes.push(one);
  }
  nodes.push(button("picture", { class: "fl-tool", "data-action": "picture", "aria-label": "save this picture" }, () => savePicture(page.el)));
  return {
    nodes,
    node: make("div", { class: "fl-row fl-tools" }, ...nodes),
    draw: () => (back.disabled = !page.canUndo()),
  };
}

// Puts words on the clipboard; false where the browser does not allow that.
async function copied(words) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    return false; // no permission, or an old browser: the link stands in the address anyway
  }
}
