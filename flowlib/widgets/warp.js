// WarpExplorer: a map of the line, a matrix, a bend of the plane; how each changes lengths, areas, densities.

const VIEWS = { line: ["1-D map", lineView], matrix: ["2×2 matrix", matrixView], bend: ["2-D bend", bendView] };
const TRAITS = ["view", "knots", "probe", "matrix", "point", "bend", "centre", "side"];
const LOG_2PI = Math.log(2 * Math.PI);

const clamp = (v, [low, high]) => Math.max(low, Math.min(high, v));
const steps = (count, low, high) => Array.from({ length: count + 1 }, (_, i) => low + (i / count) * (high - low));
const line = (color, width, more = {}) => ({
  fill: "none", stroke: color, "stroke-width": width, "stroke-linejoin": "round", ...more,
});
const filled = (color, opacity) => ({ fill: color, "fill-opacity": opacity });
const patch = { fill: "var(--fl-data)", "fill-opacity": 0.35, stroke: "var(--fl-data)", "stroke-width": 2 };
const label = (it, words, more = {}) => it.add("text", { class: "fl-math", ...more }, words);
const keyed = (...keys) => make("p", { class: "fl-panel-title fl-legend" }, ...keys.map((key) => make("span", {}, ...key)));

const symbol = (letter, index) => [make("var", {}, letter), ...(index ? [sub(`${index}`)] : [])];

function buttons(presets, write, reset) {
  return make("div", { class: "fl-row" },
    ...Object.entries(presets).map(([name, made]) =>
      button(name, { "data-preset": name }, () => write(typeof made === "function" ? made() : made))),
    button("reset", { "data-action": "reset" }, reset));
}

// A handle for one number: up and right make it larger. `place` is the number's point in the panel,
// `found` the number at a point, `nudge` the number some key strokes on.
function grip(it, { get, set, place, found, nudge, range, up, ...options }) {
  const redraw = handle(it, { ...options, get: place, move: (point) => set(found(point)), value: () => show(get()) });
  const node = it.svg.lastChild;
  node.onkeydown = (event) => {
    const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    set(nudge(get(), way * (event.shiftKey ? 5 : 1)));
  };
  put(node, { "aria-orientation": up ? "vertical" : "horizontal", "aria-valuemin": range[0], "aria-valuemax": range[1] });
  return () => {
    redraw();
    put(node, { "aria-valuenow": get().toFixed(2) });
  };
}
const byTwentieths = (v, count) => (Math.round(v * 20) + count) / 20;

// --- the line: a map bent by its knots ------------------------------------------------------

const KNOTS = [-3, -2, -1, 0, 1, 2, 3];
const REACH = { x: [-3.5, 3.5], z: [-3.4, 3.4], knot: [-3.2, 3.2], probe: [-3, 3] };
const GAP = 0.05; // no two knots come closer: the map stays one to one
const DX = 0.3;
const HALF_DECILES = [0.2533471031357997, 0.5244005127080407, 0.8416212335729143, 1.2815515655446004];
const DECILES = [...HALF_DECILES.map((z) => -z).reverse(), 0, ...HALF_DECILES];
const LINES = {
  identity: [-3, -2, -1, 0, 1, 2, 3],
  squeeze: [-2.2, -1.8, -1.1, 1.1, 1.8, 2.2, 2.5],
  spread: [-1.8, -1.2, -0.6, 0, 0.6, 1.2, 1.8],
  skew: [-2.8, -1.1, -0.1, 0.7, 1.3, 1.8, 2.2],
};

// The slopes at the knots that keep a cubic through them monotone (Fritsch and Carlson): inside,
// the harmonic mean of the slopes beside; at an end, a parabola's, or 0 where that would turn back.
function knotSlopes(z) {
  const chord = z.slice(1).map((v, i) => v - z[i]);
  const end = (near, next) => {
    const slope = (3 * near - next) / 2;
    return slope * near > 0 ? slope : 0;
  };
  const inner = chord.slice(1).map((right, i) => (right * chord[i] > 0 ? 2 / (1 / chord[i] + 1 / right) : 0));
  return [end(chord[0], chord[1]), ...inner, end(chord.at(-1), chord.at(-2))];
}

// The map through the knots, straight beyond them: x to [f(x), f'(x)], and z back to x.
function curve(z) {
  const slopes = knotSlopes(z);
  const [first, last] = [KNOTS[0], KNOTS.at(-1)];
  const at = (x) => {
    if (x <= first) return [z[0] + slopes[0] * (x - first), slopes[0]];
    if (x >= last) return [z.at(-1) + slopes.at(-1) * (x - last), slopes.at(-1)];
    const i = Math.floor(x - first);
    const [t, chord, here, there] = [x - KNOTS[i], z[i + 1] - z[i], slopes[i], slopes[i + 1]];
    const [square, cube] = [3 * chord - 2 * here - there, here + there - 2 * chord];
    return [z[i] + t * (here + t * (square + t * cube)), here + t * (2 * square + 3 * t * cube)];
  };
  const way = Math.sign(z.at(-1) - z[0]);
  const back = (value) => {
    if (way * (value - z[0]) < 0) return first + (value - z[0]) / slopes[0];
    if (way * (value - z.at(-1)) > 0) return last + (value - z.at(-1)) / slopes.at(-1);
    let [low, high] = [first, last];
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      if (way * (at(middle)[0] - value) < 0) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  };
  // Nothing comes back from beyond a flat end, on whichever side of it the division by zero lands.
  const inverse = (value) => {
    const x = back(value);
    return Number.isFinite(x) ? x : way * (value - z[0]) < 0 ? -Infinity : Infinity;
  };
  return { at, inverse, way, flat: [slopes[0], slopes.at(-1)].map((slope) => Math.abs(slope) < 1e-9) };
}

function measureLine(f, x) {
  const [z, slope] = f.at(x);
  const log_pz = -0.5 * z * z - LOG_2PI / 2;
  const log_det = Math.log(Math.abs(slope));
  return { z, slope, log_pz, log_det, log_px: log_pz + log_det };
}

// A knot moved as far as its neighbours let it.
function bent(knots, k, value) {
  const way = Math.sign(knots[1] - knots[0]);
  const before = k ? knots[k - 1] + way * GAP : -Infinity * way;
  const after = k < 6 ? knots[k + 1] - way * GAP : Infinity * way;
  const [low, high] = way > 0 ? [before, after] : [after, before];
  if (low > high) return knots; // set from Python, closer than a hand may: there is no room
  return knots.map((z, i) => (i === k ? clamp(clamp(value, REACH.knot), [low, high]) : z));
}

// The two hills with the deepest valley between them, as a share of the lower hill; small bumps do
// not count. Peaks at the edge of the picture are none.
function hills(p) {
  const highest = Math.max(...p);
  const peaks = p.map((_, i) => i).filter((i) => p[i] > p[i - 1] && p[i] >= p[i + 1] && p[i] > 0.2 * highest);
  let depth = 0;
  for (const [n, i] of peaks.entries())
    for (const j of peaks.slice(n + 1))
      depth = Math.max(depth, 1 - Math.min(...p.slice(i, j)) / Math.min(p[i], p[j]));
  return { count: peaks.length, depth };
}

function sayLine({ slope }, { flat, way }) {
  const times = show(Math.abs(slope));
  const turned = way < 0 ? " It falls, which no density can see." : "";
  const end = flat.indexOf(true);
  const dead = end < 0 ? "" : ` At its ${["left", "right"][end]} end it has become flat: all x beyond share one z, which must not happen in a flow.`;
  if (Math.abs(Math.abs(slope) - 1) < 0.05) return `Here dz is as long as dx: the density of x is that of z.${turned}${dead}`;
  const [kind, length, fate] = Math.abs(slope) > 1
    ? ["steep", "about", "has to fit on dx"]
    : ["gentle", "only about", "is spread over dx"];
  return `Here the map is ${kind}: dz is ${length} ${times} times as long as dx. The probability that lies on dz ` +
    `${fate}, so the density of x is that of z times ${times}.${turned}${dead}`;
}

function judgeHills({ count, depth }) {
  const percent = `${show(100 * depth, 0)} %`;
  if (depth >= 0.3) return [true, `Done: the hills are where the map is steep. Where it is gentle is the valley, ${percent} lower.`];
  return [false, count < 2 || depth < 0.02
    ? "So far they have one."
    : `The valley is ${percent} lower than the hills beside it. Make it at least 30 %.`];
}

function lineView({ get, write, reset }) {
  const sum = ledger([-6, 2], [
    { name: "slope", text: ["slope f′(x)"] },
    { name: "log_pz", text: ["log ", "p", sub("Z"), "(z)"], color: "var(--fl-latent)" },
    { name: "log_det", text: ["+ log |f′(x)|"], color: "var(--fl-third)" },
    { name: "log_px", text: ["= log p(x)"], color: "var(--fl-data)" },
  ]);
  const say = make("p", { class: "fl-say" });
  const two = task("hills", "Bend the map so that the data have two hills.");
  const body = make("div", {});
  const flip = () => ({ knots: get("knots").map((z) => -z) });
  const presets = { ...Object.fromEntries(Object.entries(LINES).map(([name, knots]) => [name, { knots }])), flip };
  const node = make("div", {},
    keyed([swatch("var(--fl-latent)"), "latent z"], [swatch("var(--fl-third)"), "z = f(x)"], [swatch("var(--fl-data)"), "data x"]),
    body, sum.node, say, two.node, buttons(presets, write, () => reset("knots", "probe")));

  let chart;
  function draw() {
    const [knots, probe] = [get("knots"), get("probe")];
    const f = curve(knots);
    const m = measureLine(f, probe);
    const x = steps(280, ...REACH.x);
    const p = x.map((v) => Math.exp(measureLine(f, v).log_px));
    chart.draw({ f, m, x, p, knots, probe });
    sum.draw(m);
    say.textContent = sayLine(m, f);
    two.draw(...judgeHills(hills(p)));
  }
  // Built for a width in pixels, so that text and handles keep their size on a phone.
  const resize = (width) => body.replaceChildren((chart = lineChart(width, get, write)).svg);
  return { node, draw, resize };
}

// Everything of the line in one picture: the hump of z at the left, the map, and below it the
// density of x, so that what belongs together lies on one line.
function lineChart(width, get, write) {
  const wide = width >= 540;
  const [left, hump, tall, low] = wide ? [30, 92, 320, 124] : [26, 50, 262, 100];
  const box = { left: left + hump, right: width - 10, top: 12, axis: 12 + tall, roof: 42 + tall, floor: 42 + tall + low };
  const height = box.floor + 32;
  const unit = [(box.right - box.left) / (REACH.x[1] - REACH.x[0]), tall / (REACH.z[1] - REACH.z[0])];
  const it = panel({
    x: [REACH.x[0] - box.left / unit[0], REACH.x[0] + (width - box.left) / unit[0]],
    y: [REACH.z[1] - (height - box.top) / unit[1], REACH.z[1] + box.top / unit[1]],
    width, height, label: "A map of the line, with the density of z at its left and that of x below it",
  });
  it.svg.firstChild.remove(); // the axes through zero: these stand at the edges
  const X = (x) => it.at([x, 0])[0];
  const Z = (z) => it.at([0, z])[1];
  const d = (points, close) => "M" + points.map((p) => p.map((v) => v.toFixed(2)).join(" ")).join("L") + (close ? "Z" : "");
  const H = (z) => left + 0.94 * hump * Math.exp(-0.5 * z * z);
  const tick = (at, words, more = {}) =>
    it.add("text", { class: "fl-small", x: at[0], y: at[1], "text-anchor": "middle", ...more }, words);

  // From behind to front: what is filled, what carries, the axes, the curves, the bars, the hands.
  const zs = steps(120, ...REACH.z);
  it.add("path", { d: d([[left, Z(zs[0])], ...zs.map((z) => [H(z), Z(z)]), [left, Z(zs.at(-1))]], true), ...filled("var(--fl-latent)", 0.2) });
  const hill = it.add("path", filled("var(--fl-data)", 0.25));
  const [across, down] = ["var(--fl-latent)", "var(--fl-data)"].map((color) => it.add("path", filled(color, 0.13)));
  const carriers = it.add("path", line("var(--fl-muted)", 1, { opacity: 0.5 }));
  const [zShare, xShare] = ["var(--fl-latent)", "var(--fl-data)"].map((color) => it.add("path", filled(color, 0.5)));
  it.add("path", line("var(--fl-latent)", 1.8, { d: d(zs.map((z) => [H(z), Z(z)])) }));
  const rim = it.add("path", line("var(--fl-data)", 1.8));
  const levels = it.add("g", {});
  it.add("path", line("var(--fl-latent)", 1.5, { d: `M${left} ${box.top}V${box.axis}` }));
  for (const y of [box.axis, box.floor]) it.add("path", line("var(--fl-data)", 1.5, { d: `M${box.left} ${y}H${box.right}` }));
  const whole = [-3, -2, -1, 0, 1, 2, 3];
  const zTicks = whole.map((v) => tick([left - 7, Z(v) + 4.5], show(v, 0), { "text-anchor": "end" }));
  const xTicks = whole.map((v) => tick([X(v), box.floor + 24], show(v, 0)));
  it.add("path", line("var(--fl-latent)", 1.5, { d: whole.map((v) => `M${left} ${Z(v)}h-4`).join("") }));
  it.add("path", line("var(--fl-data)", 1.5, { d: whole.map((v) => `M${X(v)} ${box.floor}v5M${X(v)} ${box.axis}v4`).join("") }));
  const humpName = label(it, "", { x: left + 8 });
  humpName.append("p", make("svg:tspan", { dy: 4, "font-size": 11 }, "Z"), make("svg:tspan", { dy: -4 }, "(z)"));
  label(it, "p(x)", { x: 4, y: box.roof + 12 });

  const map = it.add("path", line("var(--fl-third)", 3));
  const dead = it.add("path", line("var(--fl-wrong)", 4, { "stroke-dasharray": "7 4" }));
  const thread = it.add("path", line("var(--fl-ink)", 1, { "stroke-dasharray": "2 3" }));
  const [zBar, xBar] = ["var(--fl-latent)", "var(--fl-data)"].map((color) => it.add("path", line(color, 8)));
  const dot = (color) => it.add("circle", { r: 5, fill: color, stroke: "var(--fl-panel)", "stroke-width": 2 });
  const [onMap, onHill] = [dot("var(--fl-ink)"), dot("var(--fl-data)")];
  const [dz, dx, zName, xName] = ["dz", "dx", "z", "x"].map((name) => label(it, name, { "class": "fl-math fl-cased" }));
  put(dx, { "text-anchor": "middle" });
  put(xName, { "text-anchor": "middle" });
  put(zName, { "text-anchor": "end" });

  const floor = REACH.z[1] - (box.floor - box.top) / unit[1];
  const hands = [
    ...KNOTS.map((x, k) =>
      grip(it, {
        name: `knot-${k + 1}`, label: `The map at x = ${show(x, 0)}`, color: "var(--fl-third)", range: REACH.knot, up: true,
        get: () => get("knots")[k], set: (z) => write({ knots: bent(get("knots"), k, z) }),
        place: () => [x, get("knots")[k]], found: ([, z]) => z, nudge: byTwentieths,
      })),
    grip(it, {
      name: "probe", label: "The data position x", color: "var(--fl-data)", range: REACH.probe,
      get: () => get("probe"), set: (x) => write({ probe: clamp(x, REACH.probe) }),
      place: () => [get("probe"), floor], found: ([x]) => x, nudge: byTwentieths,
    }),
  ];

  // The map carries an interval: a strip from each axis to the curve, and the share of probability.
  function interval(f, x, P) {
    const xs = steps(12, x, x + DX);
    const on = xs.map((v) => [X(v), Z(clamp(f.at(v)[0], REACH.z))]);
    const [[x0, z0], [x1, z1]] = [on[0], on.at(-1)];
    put(down, { d: d([[x0, box.axis], ...on, [x1, box.axis]], true) });
    put(across, { d: d([[left, z0], ...on, [left, z1]], true) });
    const between = steps(12, f.at(x)[0], f.at(x + DX)[0]).map((z) => clamp(z, REACH.z));
    put(zShare, { d: d([[left, z0], ...between.map((z) => [H(z), Z(z)]), [left, z1]], true) });
    put(xShare, { d: d([[x0, box.floor], ...xs.map((v) => [X(v), P(Math.exp(measureLine(f, v).log_px))]), [x1, box.floor]], true) });
    put(zBar, { d: `M${left} ${z0}V${z1}` });
    put(xBar, { d: `M${x0} ${box.axis}H${x1}` });
    put(dz, { x: left + 9, y: (z0 + z1) / 2 + 5 });
    put(dx, { x: (x0 + x1) / 2, y: box.axis + 22 });
    put(zName, { x: left - 8, y: z0 + 5 });
    put(humpName, { y: Math.min(z0, z1) < box.top + 60 ? box.axis - 8 : box.top + 13 });
  }

  function draw({ f, m, x, p, knots, probe }) {
    const high = Math.max(0.55, 1.08 * Math.max(...p));
    const P = (v) => box.floor - (v / high) * low;
    const whole_x = f.flat.map((yes, i) => (yes ? KNOTS.at(-i) : REACH.x[i]));
    const ends = REACH.z.map(f.inverse).sort((a, b) => a - b).map((v) => clamp(v, whole_x));
    put(map, { d: d(steps(280, ...ends).map((v) => [X(v), Z(f.at(v)[0])])) });
    put(dead, { d: f.flat.map((yes, i) => (yes ? d([KNOTS.at(-i), REACH.x[i]].map((v) => [X(v), Z(knots.at(-i))])) : "")).join("") });
    put(carriers, { d: DECILES.map((z) => {
      const v = f.inverse(z);
      return `M${left} ${Z(z)}H${X(clamp(v, REACH.x))}` + (v === clamp(v, REACH.x) ? `V${box.floor}` : "");
    }).join("") });
    const outline = x.map((v, i) => [X(v), P(p[i])]);
    put(hill, { d: d([[box.left, box.floor], ...outline, [box.right, box.floor]], true) });
    put(rim, { d: d(outline) });
    const step = high > 1.6 ? 1 : high > 0.8 ? 0.4 : 0.2;
    put(levels, {}, ...Array.from({ length: Math.floor(high / step) }, (_, i) => (i + 1) * step).flatMap((v) => [
      make("svg:path", line("var(--fl-muted)", 1, { d: `M${box.left} ${P(v)}h-5` })),
      make("svg:text", { class: "fl-small", x: box.left - 8, y: P(v) + 4.5, "text-anchor": "end" }, show(v, 1)),
    ]));

    interval(f, probe, P);
    const [px, pz, py] = [X(probe), Z(clamp(m.z, REACH.z)), P(Math.exp(m.log_px))];
    put(thread, { d: `M${left} ${pz}H${px}V${box.floor}` });
    put(onMap, { cx: px, cy: pz });
    put(onHill, { cx: px, cy: py });
    put(xName, { x: px, y: box.floor + 25 });
    // The names x and z take the place of the ticks that they come close to.
    zTicks.forEach((text, i) => (text.style.visibility = Math.abs(Z(whole[i]) - pz) < 20 ? "hidden" : "visible"));
    xTicks.forEach((text, i) => (text.style.visibility = Math.abs(X(whole[i]) - px) < 19 ? "hidden" : "visible"));
    hands.forEach((redraw) => redraw());
  }
  return { svg: it.svg, draw };
}

// --- the matrix: a linear map of the plane, taken by its columns ----------------------------

const MATRICES = {
  identity: [[1, 0], [0, 1]],
  rotation: [[0.8, -0.6], [0.6, 0.8]],
  stretch: [[1.5, 0], [0, 0.75]],
  shear: [[1, 1], [0, 1]],
  flip: [[0, 1], [1, 0]],
  flat: [[1, 0.5], [0.5, 0.25]],
};
const SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1]];

const apply = (a, [x, y]) => [a[0][0] * x + a[0][1] * y, a[1][0] * x + a[1][1] * y];
const determinant = (a) => a[0][0] * a[1][1] - a[0][1] * a[1][0];

function measureMatrix(a, point) {
  const det = determinant(a);
  const z = apply(a, point);
  const log_det = Math.log(Math.abs(det));
  const log_pz = -0.5 * (z[0] * z[0] + z[1] * z[1]) - LOG_2PI;
  return { det, area: Math.abs(det), log_det, log_pz, log_px: log_pz + log_det, z };
}

// How far A is from keeping all lengths and angles.
function distortion(a) {
  const [[p, q], [r, s]] = a;
  return Math.max(Math.abs(p * p + r * r - 1), Math.abs(q * q + s * s - 1), Math.abs(p * q + r * s));
}

const circle = (radius) =>
  Array.from({ length: 73 }, (_, i) => [radius * Math.cos((i * Math.PI) / 36), radius * Math.sin((i * Math.PI) / 36)]);

function gridLines(half) {
  const lines = [];
  for (let k = -half; k <= half; k++) lines.push([[k, -half], [k, half]], [[-half, k], [half, k]]);
  return lines;
}

function sayMatrix({ area, det }) {
  if (area < 1e-9) return "The square is flat: two different x share one z, and there is no density to speak of.";
  const times = area >= 1 ? `${show(area)} times larger` : `${show(1 / area)} times smaller`;
  return `The square becomes ${Math.abs(area - 1) < 0.005 ? "no larger and no smaller" : times}` +
    `${det < 0 ? ", and is turned over, which no density can see" : ""}: ` +
    `the density of x is that of z times ${show(area)}.`;
}

function judgeShear(a, { det }) {
  const [one, bent] = [Math.abs(det - 1) < 0.02, distortion(a) > 0.1];
  if (!one) return [false, `The determinant is ${show(det)}.`];
  return [bent, bent
    ? "Done: the square has lost its shape and kept its area."
    : "The determinant is 1, but lengths and angles are all kept: that is a rotation."];
}

function matrixView({ get, write, reset }) {
  const read = () => get("matrix");
  const setEntry = (i, j, value) =>
    write({ matrix: read().map((row, r) => row.map((v, c) => (r === i && c === j ? value : v))) });
  const setColumn = (j, [top, bottom]) =>
    write({ matrix: read().map((row, r) => row.map((v, c) => (c === j ? [top, bottom][r] : v))) });

  const data = plane(3, "Data space: a square, and the density that the map gives it");
  data.add("path", line("var(--fl-data)", 0.8, { opacity: 0.35, d: gridLines(3).map((l) => data.path(l)).join("") }));
  const ellipses = [1, 2].map(() => data.add("path", line("var(--fl-data)", 1.6, { opacity: 0.9 })));
  data.add("path", { d: data.path(SQUARE, true), ...patch });

  const latent = plane(3, "Latent space: the square's image and the standard normal");
  const image = latent.add("path", line("var(--fl-data)", 0.8, { opacity: 0.45 }));
  for (const radius of [1, 2]) latent.add("path", line("var(--fl-latent)", 1.6, { d: latent.path(circle(radius), true) }));
  const body = latent.add("path", patch);
  const arrows = [0, 1].map(() => latent.add("path", line("var(--fl-ink)", 3, { "stroke-linecap": "round" })));
  const names = [1, 2].map((j) => {
    const text = label(latent, "", { class: "fl-math fl-cased" });
    text.append("a", make("svg:tspan", { dy: 4, "font-size": 11 }, `${j}`));
    return text;
  });
  const zDot = latent.add("circle", { r: 6, fill: "var(--fl-latent)", stroke: "var(--fl-panel)", "stroke-width": 2 });
  const [xName, zName] = [label(data, "x"), label(latent, "z")];

  const hands = [
    ...[0, 1].map((j) =>
      handle(latent, {
        name: `column-${j + 1}`, label: `Column ${j + 1} of the matrix`, color: "var(--fl-ink)",
        get: () => read().map((row) => row[j]), move: (p) => setColumn(j, p),
      })),
    handle(data, {
      name: "point", label: "The point x", color: "var(--fl-data)",
      get: () => get("point"), move: (point) => write({ point }),
    }),
  ];
  const entries = [[0, 0], [0, 1], [1, 0], [1, 1]].map(([i, j]) =>
    slider({
      name: `a${i + 1}${j + 1}`, symbol: ["a", sub(`${i + 1}${j + 1}`)],
      label: `Matrix entry, row ${i + 1}, column ${j + 1}`,
      min: -3, max: 3, step: 0.05, get: () => read()[i][j], set: (v) => setEntry(i, j, v),
    }));
  const sum = ledger([-6, 2], [
    { name: "det", text: ["det A"] },
    { name: "area", text: ["area"] },
    { name: "log_pz", text: ["log ", "p", sub("Z"), "(z)"], color: "var(--fl-latent)" },
    { name: "log_det", text: ["+ log |det A|"], color: "var(--fl-third)" },
    { name: "log_px", text: ["= log p(x)"], color: "var(--fl-data)" },
  ]);
  const say = make("p", { class: "fl-say" });
  const shear = task("shear", "Make the determinant 1 without a rotation.");
  const presets = Object.fromEntries(Object.entries(MATRICES).map(([name, matrix]) => [name, { matrix }]));
  const node = make("div", {},
    make("div", { class: "fl-panels" },
      make("div", {}, panelTitle("var(--fl-data)", "data x"), data.svg),
      make("div", {}, panelTitle("var(--fl-latent)", "latent z = A x"), latent.svg)),
    make("div", { class: "fl-sliders" }, ...entries.map((e) => e.node)),
    sum.node, say, shear.node, buttons(presets, write, () => reset("matrix", "point")));

  function draw() {
    const [a, point] = [read(), get("point")];
    const m = measureMatrix(a, point);
    put(image, { d: gridLines(3).map((l) => latent.path(l.map((p) => apply(a, p)))).join("") });
    put(body, { d: latent.path(SQUARE.map((p) => apply(a, p)), true) });
    arrows.forEach((arrow, j) => put(arrow, { d: latent.path([[0, 0], a.map((row) => row[j])]) }));
    names.forEach((text, j) => {
      const [x, y] = latent.at(a.map((row) => row[j]));
      put(text, { x: Math.min(x + 11, 296), y: Math.max(y - 11, 18) });
    });
    // The points that land on a circle: A's inverse carries it back as an ellipse.
    const back = [[a[1][1] / m.det, -a[0][1] / m.det], [-a[1][0] / m.det, a[0][0] / m.det]];
    ellipses.forEach((path, i) =>
      put(path, { d: m.area > 1e-6 ? data.path(circle(i + 1).map((p) => apply(back, p)), true) : "" }));
    const [zx, zy] = latent.at(m.z);
    put(zDot, { cx: zx, cy: zy });
    put(zName, { x: zx + 10, y: zy + 5 });
    const [px, py] = data.at(point);
    put(xName, { x: px + 12, y: py + 5 });

    sum.draw(m);
    say.textContent = sayMatrix(m);
    shear.draw(...judgeShear(a, m));
    entries.forEach((e) => e.draw());
    hands.forEach((redraw) => redraw());
  }
  return { node, draw };
}

// --- the bend: a nonlinear map of the plane, and its Jacobian -------------------------------

const BENDS = { flat: [0, 0], "shear only": [0.8, 0], "stretch only": [0, 0.7], both: [0.8, 0.8] };
const SIDES = [0.02, 1.5];
const EDGE = 32; // points an edge
const SEEN = 1.6; // how many sides the magnified view sees to each side of its centre
const STALK = 0.45; // from the square's corner to its handle, clear of the one in the centre

// z₁ = x₁ + shear sin x₂, z₂ = x₂ exp(stretch tanh z₁): each step can be undone.
const bendAt = ([shear, stretch], [x1, x2]) => {
  const z1 = x1 + shear * Math.sin(x2);
  return [z1, x2 * Math.exp(stretch * Math.tanh(z1))];
};

// Row i, column j: the derivative of zᵢ by xⱼ.
function jacobian([shear, stretch], [x1, x2]) {
  const z1 = x1 + shear * Math.sin(x2);
  const grow = Math.exp(stretch * Math.tanh(z1));
  const by_z1 = (x2 * grow * stretch) / Math.cosh(z1) ** 2;
  const by_x2 = shear * Math.cos(x2);
  return [[1, by_x2], [by_z1, by_z1 * by_x2 + grow]];
}

// The square's outline, corner after corner, `EDGE` points an edge.
function outline([x, y], side) {
  const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([u, v]) => [x + (u * side) / 2, y + (v * side) / 2]);
  return corners.flatMap(([u, v], i) => {
    const [s, t] = corners[(i + 1) % 4];
    return Array.from({ length: EDGE }, (_, k) => [u + ((s - u) * k) / EDGE, v + ((t - v) * k) / EDGE]);
  });
}

// The surveyor's formula, from a point inside: nothing cancels when the patch is small.
function area(points, [x, y]) {
  const from = points.map(([u, v]) => [u - x, v - y]);
  const twice = from.reduce((sum, [u, v], i) => {
    const [s, t] = from[(i + 1) % from.length];
    return sum + u * t - s * v;
  }, 0);
  return Math.abs(twice) / 2;
}

function measureBend(bend, centre, side) {
  const image = outline(centre, side).map((p) => bendAt(bend, p));
  const z = bendAt(bend, centre);
  const J = jacobian(bend, centre);
  const ratio = area(image, z) / side ** 2;
  const det = Math.abs(determinant(J));
  return { image, z, J, ratio, det, log_det: Math.log(det), error: 100 * (det / ratio - 1) };
}

function sayBend({ ratio, det, error }, [shear, stretch]) {
  if (!shear && !stretch) return "The map leaves everything as it is: the patch is the square.";
  const size = Math.abs(det - 1) < 0.005 ? "exactly as large as the square" : `${show(ratio)} times as large as the square`;
  if (Math.abs(error) >= 1)
    return `The patch is bent, and ${size}. The parallelogram has straight sides and says ${show(det)}. Make the square smaller.`;
  if (Math.abs(error) >= 0.1)
    return `The patch is ${size}, the parallelogram says ${show(det)}: so near to the point, the map is almost its Jacobian.`;
  return `Patch and parallelogram have the same area, ${size}, within ${show(Math.max(Math.abs(error), 0.001), 3)} %: ` +
    "so near to the point, the map is its Jacobian.";
}

function judgeTrust({ ratio, error }) {
  const [large, near] = [ratio >= 1.5, Math.abs(error) < 1];
  if (large && near) return [true, `Done: ${show(ratio)} times as large, and predicted within ${show(Math.abs(error))} %.`];
  if (large) return [false, `It is large enough, but the prediction is off by ${show(Math.abs(error), 1)} %.`];
  return [false, `It is ${show(ratio)} times as large${near ? "" : `, and the prediction is off by ${show(Math.abs(error), 1)} %`}.`];
}

// A slider whose steps are equal factors.
function logSlider({ get, set, min, max, ...options }) {
  const value = (t) => clamp(min * (max / min) ** t, [min, max]);
  return slider({ ...options, min: 0, max: 1, step: 0.005,
    get: () => Math.log(get() / min) / Math.log(max / min), set: (t) => set(value(t)), text: (t) => show(value(t)) });
}

// One of the two planes: its grid, the patch and the parallelogram, the glass around them.
function bendPlane(space, color, words) {
  const it = plane(3, words);
  const grid = it.add("path", line("var(--fl-data)", 0.9, { opacity: 0.4 }));
  [1, 2].forEach((k) => {
    const at = k === 1 ? { x: 314, y: 177, "text-anchor": "end" } : { x: 168, y: 17 };
    label(it, space, at).append(make("svg:tspan", { dy: 4, "font-size": 11 }, `${k}`));
  });
  const glass = it.add("circle", line("var(--fl-muted)", 1.5));
  const body = it.add("path", patch);
  const flat = it.add("path", line("var(--fl-third)", 2.4, { "stroke-dasharray": "6 4" }));
  const dot = it.add("circle", { r: 6, fill: color, stroke: "var(--fl-panel)", "stroke-width": 2 });
  const name = label(it, space, { class: "fl-math fl-cased" });
  const draw = ({ lines, shape, tangent, centre, side }) => {
    put(grid, { d: lines.map((l) => it.path(l)).join("") });
    put(body, { d: it.path(shape, true) });
    put(flat, { d: tangent ? it.path(tangent, true) : "" });
    const [x, y] = it.at(centre);
    // The glass shows where the magnified view looks; around a large square it would say nothing.
    put(glass, { cx: x, cy: y, r: Math.max(14, (SEEN * side * 320) / 6), opacity: clamp((0.9 - side) / 0.4, [0, 1]) });
    put(dot, { cx: x, cy: y });
    put(name, { x: x - 12, y: y + 5, "text-anchor": "end" });
  };
  return { ...it, draw };
}

// What is around a point, magnified until the square's side has always the same length.
function lens(words) {
  const it = panel({ x: [-SEEN, SEEN], y: [-SEEN, SEEN], width: 160, height: 160, label: words });
  it.svg.firstChild.remove();
  it.svg.classList.add("fl-lens");
  const grid = it.add("path", line("var(--fl-data)", 0.9, { opacity: 0.45 }));
  const body = it.add("path", patch);
  const flat = it.add("path", line("var(--fl-third)", 2.4, { "stroke-dasharray": "6 4" }));
  const draw = ({ lines, shape, tangent, centre, side }) => {
    const near = (points) => points.map(([x, y]) => [(x - centre[0]) / side, (y - centre[1]) / side]);
    put(grid, { d: lines.map((l) => it.path(near(l))).join("") });
    put(body, { d: it.path(near(shape), true) });
    put(flat, { d: tangent ? it.path(near(tangent), true) : "" });
  };
  return { svg: it.svg, draw };
}

// Lines half a side apart, all across what the lens sees; bent ones need points between.
function nearLines([x, y], side) {
  return steps(16, -4, 4).flatMap((k) => {
    const along = steps(32, -4, 4);
    return [along.map((t) => [x + k * side, y + t * side]), along.map((t) => [x + t * side, y + k * side])];
  });
}

function bendView({ get, write, reset }) {
  const data = bendPlane("x", "var(--fl-data)", "Data space: a grid and a square");
  const latent = bendPlane("z", "var(--fl-latent)", "Latent space: the bent grid, the square's image and the Jacobian's parallelogram");
  const lenses = [lens("Around the square, magnified"), lens("Around its image, magnified as much")];
  const stalk = data.add("path", line("var(--fl-data)", 2));
  // The corner that can be taken is the one that has room.
  const ways = () => get("centre").map((v) => (v > 1.5 ? -1 : 1));
  const tip = (far) => get("centre").map((v, i) => v + ways()[i] * (get("side") / 2 + far));
  const setSide = (side) => write({ side: clamp(side, SIDES) });
  const hands = [
    handle(data, {
      name: "centre", label: "The square's centre", color: "var(--fl-data)",
      get: () => get("centre"), move: (centre) => write({ centre }),
    }),
    grip(data, {
      name: "corner", label: "The square's corner: its side", color: "var(--fl-data)", range: SIDES,
      get: () => get("side"), set: setSide, place: () => tip(STALK),
      found: (p) => p.reduce((sum, v, i) => sum + ways()[i] * (v - get("centre")[i]) - STALK, 0),
      nudge: (side, count) => side * 1.1 ** count,
    }),
  ];
  const part = (k) => ({
    get: () => get("bend")[k],
    set: (v) => write({ bend: get("bend").map((old, i) => (i === k ? v : old)) }),
  });
  const sliders = [
    slider({ name: "shear", symbol: ["shear ", ...symbol("a")], label: "Shear", min: -1, max: 1, step: 0.05, ...part(0) }),
    slider({ name: "stretch", symbol: ["stretch ", ...symbol("b")], label: "Stretch", min: -1, max: 1, step: 0.05, ...part(1) }),
    logSlider({ name: "side", symbol: ["side ", ...symbol("s")], label: "Side of the square", min: SIDES[0], max: SIDES[1], get: () => get("side"), set: setSide }),
  ];
  const [shear, stretch, size] = sliders;
  const sum = ledger([0, 3], [
    { name: "ratio", text: ["area of patch / ", ...symbol("s"), "²"], color: "var(--fl-data)", digits: 3 },
    { name: "det", text: ["|det J| at x"], color: "var(--fl-third)", digits: 3 },
    { name: "log_det", text: ["log |det J|"], digits: 3 },
    { name: "error", text: ["they differ by, in %"], digits: 3 },
  ]);
  const say = make("p", { class: "fl-say" });
  const trust = task("trust", "Find a place and a size for the square whose image is at least 1.5 times as large, and which the parallelogram predicts within 1 %.");
  const presets = Object.fromEntries(Object.entries(BENDS).map(([name, bend]) => [name, { bend }]));
  const node = make("div", {},
    make("div", { class: "fl-panels" },
      make("div", {}, panelTitle("var(--fl-data)", "data x"), data.svg),
      make("div", {}, panelTitle("var(--fl-latent)", "latent z = f(x)"), latent.svg)),
    make("p", { class: "fl-formulas" },
      make("span", {}, ...symbol("z", 1), " = ", ...symbol("x", 1), " + ", ...symbol("a"), " sin ", ...symbol("x", 2)),
      make("span", {}, ...symbol("z", 2), " = ", ...symbol("x", 2), " exp(", ...symbol("b"), " tanh ", ...symbol("z", 1), ")")),
    make("div", { class: "fl-sliders fl-named" }, shear.node, stretch.node),
    make("div", { class: "fl-near" },
      make("div", {},
        keyed(["the same, magnified"]),
        make("div", { class: "fl-lenses" }, ...lenses.map((l) => l.svg)),
        make("div", { class: "fl-named" }, size.node)),
      make("div", {},
        keyed([swatch("var(--fl-data)"), "patch f(square)"], [make("span", { class: "fl-dashed" }), "parallelogram of J"]),
        sum.node)),
    say, trust.node, buttons(presets, write, () => reset("bend", "centre", "side")));

  function draw() {
    const [bend, centre, side] = [get("bend"), get("centre"), get("side")];
    const m = measureBend(bend, centre, side);
    const square = outline(centre, side);
    const tangent = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map((way) =>
      apply(m.J, way.map((v) => (v * side) / 2)).map((v, i) => m.z[i] + v));
    const [lines, close] = [gridLines(3).map(([p, q]) => steps(48, 0, 1).map((t) => p.map((v, i) => v + t * (q[i] - v)))), nearLines(centre, side)];
    const onto = (all) => all.map((l) => l.map((p) => bendAt(bend, p)));
    data.draw({ lines, shape: square, centre, side });
    latent.draw({ lines: onto(lines), shape: m.image, tangent, centre: m.z, side });
    lenses[0].draw({ lines: close, shape: square, centre, side });
    lenses[1].draw({ lines: onto(close), shape: m.image, tangent, centre: m.z, side });
    put(stalk, { d: data.path([tip(0), tip(STALK)]) });
    sum.draw(m);
    say.textContent = sayBend(m, bend);
    trust.draw(...judgeTrust(m));
    sliders.forEach((s) => s.draw());
    hands.forEach((redraw) => redraw());
  }
  return { node, draw };
}

// --- the frame around the three -------------------------------------------------------------

function render({ model, el }) {
  const get = (name) => model.get(name);
  const start = Object.fromEntries(TRAITS.map((name) => [name, get(name)]));
  const write = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
  const reset = (...names) => write(Object.fromEntries(names.map((name) => [name, start[name]])));
  const tabs = Object.entries(VIEWS).map(([view, [words]]) => button(words, { "data-view": view }, () => write({ view })));
  const stage = make("div", {});
  el.replaceChildren(make("div", { class: "fl-views", role: "group", "aria-label": "What is bent" }, ...tabs), stage);

  // A view is built when it is first looked at; only the one that is looked at is on the page.
  const built = {};
  const room = () => (el.clientWidth > 120 ? el.clientWidth - 24 : 640); // a kernel's page may render before it shows
  let [shown, width] = [null, null];
  function draw() {
    const view = get("view");
    const it = (built[view] ??= VIEWS[view][1]({ get, write, reset }));
    if (shown !== view || width !== room()) {
      it.resize?.(room());
      if (shown !== view) stage.replaceChildren(it.node);
      [shown, width] = [view, room()];
    }
    tabs.forEach((tab) => put(tab, { "aria-pressed": tab.dataset.view === view }));
    it.draw();
    for (const name of TRAITS) el.dataset[name] = [get(name)].flat(2).join(",");
  }
  const resized = new ResizeObserver(() => {
    if (el.clientWidth && width !== room()) draw();
  });
  const end = frame(el, model, TRAITS, draw);
  resized.observe(el);
  return () => {
    resized.disconnect();
    end();
  };
}

export default { render };
