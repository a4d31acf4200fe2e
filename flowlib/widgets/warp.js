// WarpExplorer: a map of the line, a matrix, a bend of the plane; how each changes lengths, areas, densities.

const VIEWS = { line: ["1-D map", lineView], matrix: ["2×2 matrix", matrixView], bend: ["2-D bend", bendView] };
const WORK = ["knots", "probe", "matrix", "point", "bend", "centre", "side"];
const TRAITS = ["view", ...WORK];

const steps = (count, low, high) => range(count + 1).map((i) => low + (i / count) * (high - low));
const patch = { ...filled("var(--fl-data)", 0.35), stroke: "var(--fl-data)", "stroke-width": 2 };
const label = (it, words, more = {}) => it.add("text", { class: "fl-math", ...more }, words);
const tspan = (words, more) => make("svg:tspan", more, words);

// The presets of a view, each the state that it sets.
const presetRow = (page, presets) =>
  row(...Object.entries(presets).map(([name, state]) => preset(name, () => page.give(state()))));

// The planes of a view stand side by side, and are built for their size in pixels.
const planeSize = (width) => (pictureWidth(width) - 10) / 2;

// A handle for one number: up and right make it larger. `place` is the number's point in the panel,
// `found` the number at a point, `nudge` the number some key strokes on; `up` is the way it goes.
function grip(it, { get, set, place, found, nudge, up, ...options }) {
  const one = handle(it, {
    ...options,
    get: place, move: (point) => set(found(point)), now: get, value: () => show(get()),
    keys: ([right, high], count) => set(nudge(get(), (right + high) * count)),
  });
  put(one.node, { "aria-orientation": up ? "vertical" : "horizontal" });
  return one;
}
const byTwentieths = (v, count) => (Math.round(v * 20) + count) / 20;

// --- the line: a map bent by its knots ------------------------------------------------------

const KNOTS = range(7, -3);
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
  const dead = end < 0 ? "" : ` At its ${["left", "right"][end]} end it has become flat: all $x$ beyond share one $z$, ` +
    "which must not happen in a flow.";
  if (Math.abs(Math.abs(slope) - 1) < 0.05) return `Here $dz$ is as long as $dx$: the density of $x$ is that of $z$.${turned}${dead}`;
  const [kind, length, fate] = Math.abs(slope) > 1
    ? ["steep", "about", "has to fit on $dx$"]
    : ["gentle", "only about", "is spread over $dx$"];
  return `Here the map is ${kind}: $dz$ is ${length} ${times} times as long as $dx$. The probability that lies on $dz$ ` +
    `${fate}, so the density of $x$ is that of $z$ times ${times}.${turned}${dead}`;
}

function judgeHills({ count, depth }) {
  const percent = `${show(100 * depth, 0)} %`;
  if (depth >= 0.3) return [true, `Done: the hills are where the map is steep. Where it is gentle is the valley, ${percent} lower.`];
  return [false, count < 2 || depth < 0.02
    ? "So far they have one."
    : `The valley is ${percent} lower than the hills beside it. Make it at least 30 %.`];
}

function lineView(page) {
  const { get, set } = page;
  const sum = ledger([-6, 2], [
    { name: "slope", text: ["slope ", math("f′(x)")] },
    { name: "log_pz", text: [math("log p_Z(z)")], color: "var(--fl-latent)" },
    { name: "log_det", text: [math("+ log |f′(x)|")], color: "var(--fl-third)" },
    { name: "log_px", text: [math("= log p(x)")], color: "var(--fl-data)" },
  ]);
  const [say, body, ends] = [saying(), make("div", {}), tools(page, ["knots", "probe"])];
  const two = task(page, "hills", "Bend the map so that the data have two hills.");
  const presets = Object.fromEntries(Object.entries(LINES).map(([name, knots]) => [name, () => ({ knots })]));
  presets.flip = () => ({ knots: get("knots").map((z) => -z) });
  const node = frame([
    legend(
      [swatch("var(--fl-latent)"), "latent ", math("z")], [swatch("var(--fl-third)"), math("z = f(x)")],
      [swatch("var(--fl-data)"), "data ", math("x")]),
    body,
  ], [sum.node, say, two.node, presetRow(page, presets), ends.node]);

  // The chart is built for a width in pixels, so that text and handles keep their size on a phone.
  let chart = null;
  const build = whenNew((width) => body.replaceChildren((chart = lineChart(width, get, set)).svg));
  function draw(width) {
    build(pictureWidth(width));
    const [knots, probe] = [get("knots"), get("probe")];
    const f = curve(knots);
    const m = measureLine(f, probe);
    const x = steps(280, ...REACH.x);
    const p = x.map((v) => Math.exp(measureLine(f, v).log_px));
    chart.draw({ f, m, x, p, knots, probe });
    sum.draw(m);
    setSpelled(say, sayLine(m, f));
    two.draw(...judgeHills(hills(p)));
    ends.draw();
  }
  return { node, draw };
}

// Everything of the line in one picture: the hump of z at the left, the map, and below it the
// density of x, so that what belongs together lies on one line.
function lineChart(width, get, set) {
  const it = lineSpace(width);
  const on = { ...lineBack(it), ...lineFront(it) };
  const hands = [
    ...KNOTS.map((x, k) =>
      grip(it, {
        name: `knot-${k + 1}`, label: `The map at x = ${show(x, 0)}`, color: "var(--fl-third)", range: REACH.knot, up: true,
        get: () => get("knots")[k], set: (z) => set({ knots: bent(get("knots"), k, z) }),
        place: () => [x, get("knots")[k]], found: ([, z]) => z, nudge: byTwentieths,
      })),
    grip(it, {
      name: "probe", label: "The data position x", color: "var(--fl-data)", range: REACH.probe,
      get: () => get("probe"), set: (x) => set({ probe: clamp(x, REACH.probe) }),
      place: () => [get("probe"), it.floor], found: ([x]) => x, nudge: byTwentieths,
    }),
  ];
  function draw(state) {
    const high = Math.max(0.55, 1.08 * Math.max(...state.p));
    const P = (v) => it.box.floor - (v / high) * it.low; // the height of a density of x
    drawMap(it, on, state);
    drawDensity(it, on, state, high, P);
    drawInterval(it, on, state, P);
    drawProbe(it, on, state, P);
    hands.forEach((hand) => hand.draw());
  }
  return { svg: it.svg, draw };
}

// The picture's places: the map in `box` down to its `axis`, the density of x from `roof` to `floor`,
// `low` high; X, Z and H are the pixels of an x, of a z, and of the hump at a z.
function lineSpace(width) {
  const wide = width >= 540;
  const [left, hump, tall, low] = wide ? [30, 92, 320, 124] : [26, 50, 262, 100];
  const box = { left: left + hump, right: width - 10, top: 12, axis: 12 + tall, roof: 42 + tall, floor: 42 + tall + low };
  const height = box.floor + 32;
  const it = chart({
    x: REACH.x, y: REACH.z, width, height, room: [box.top, 10, height - box.axis, box.left],
    label: "A map of the line, with the density of z at its left and that of x below it",
  });
  const X = (x) => it.at([x, 0])[0];
  const Z = (z) => it.at([0, z])[1];
  const H = (z) => left + 0.94 * hump * Math.exp(-0.5 * z * z);
  const floor = REACH.z[1] - ((box.floor - box.top) * (REACH.z[1] - REACH.z[0])) / tall; // as a z
  return { ...it, box, left, low, floor, X, Z, H };
}

// From behind to front: what is filled, what carries, the axes with their ticks and names.
function lineBack({ add, text, box, left, X, Z, H }) {
  const tick = (at, words, more = {}) => text(at, words, { "text-anchor": "middle", ...more });
  const both = (attributes) => ["var(--fl-latent)", "var(--fl-data)"].map((color) => add("path", attributes(color)));
  const zs = steps(120, ...REACH.z);
  const hump = zs.map((z) => [H(z), Z(z)]);
  add("path", { d: pixelPath([[left, Z(zs[0])], ...hump, [left, Z(zs.at(-1))]], true), ...filled("var(--fl-latent)", 0.2) });
  const hill = add("path", filled("var(--fl-data)", 0.25));
  const [across, down] = both((color) => filled(color, 0.13));
  const carriers = add("path", line("var(--fl-muted)", 1, { opacity: 0.5 }));
  const [zShare, xShare] = both((color) => filled(color, 0.5));
  add("path", line("var(--fl-latent)", 1.8, { d: pixelPath(hump) }));
  const rim = add("path", line("var(--fl-data)", 1.8));
  const levels = add("g", {});
  add("path", line("var(--fl-latent)", 1.5, { d: `M${left} ${box.top}V${box.axis}` }));
  for (const y of [box.axis, box.floor]) add("path", line("var(--fl-data)", 1.5, { d: `M${box.left} ${y}H${box.right}` }));
  const zTicks = KNOTS.map((v) => tick([left - 7, Z(v) + 4.5], show(v, 0), { "text-anchor": "end" }));
  const xTicks = KNOTS.map((v) => tick([X(v), box.floor + 24], show(v, 0)));
  add("path", line("var(--fl-latent)", 1.5, { d: KNOTS.map((v) => `M${left} ${Z(v)}h-4`).join("") }));
  add("path", line("var(--fl-data)", 1.5, { d: KNOTS.map((v) => `M${X(v)} ${box.floor}v5M${X(v)} ${box.axis}v4`).join("") }));
  const humpName = label({ add }, "", { x: left + 8 });
  humpName.append("p", lowered("Z"), tspan("(z)", { dy: -4 }));
  label({ add }, "p(x)", { x: 4, y: box.roof + 12 });
  return { hill, across, down, carriers, zShare, xShare, rim, levels, zTicks, xTicks, humpName };
}

// Above that: the map, the bars of the interval, the dots and the names.
function lineFront(it) {
  const map = it.add("path", line("var(--fl-third)", 3));
  const dead = it.add("path", line("var(--fl-wrong)", 4, { "stroke-dasharray": "7 4" }));
  const thread = it.add("path", line("var(--fl-ink)", 1, { "stroke-dasharray": "2 3" }));
  const [zBar, xBar] = ["var(--fl-latent)", "var(--fl-data)"].map((color) => it.add("path", line(color, 8)));
  const [onMap, onHill] = ["var(--fl-ink)", "var(--fl-data)"].map((color) => it.add("circle", disc(color, 5)));
  const name = (words, anchor) => label(it, words, { class: "fl-math fl-cased", ...(anchor && { "text-anchor": anchor }) });
  const [dz, dx, zName, xName] = [name("dz"), name("dx", "middle"), name("z", "end"), name("x", "middle")];
  return { map, dead, thread, zBar, xBar, onMap, onHill, dz, dx, zName, xName };
}

// The map, as far as it is seen, its flat ends, and the deciles of z that it carries to x.
function drawMap({ box, left, X, Z }, on, { f, knots }) {
  const seen = f.flat.map((yes, i) => (yes ? KNOTS.at(-i) : REACH.x[i]));
  const ends = REACH.z.map(f.inverse).sort((a, b) => a - b).map((v) => clamp(v, seen));
  put(on.map, { d: pixelPath(steps(280, ...ends).map((v) => [X(v), Z(f.at(v)[0])])) });
  const end = (i) => pixelPath([KNOTS.at(-i), REACH.x[i]].map((v) => [X(v), Z(knots.at(-i))]));
  put(on.dead, { d: f.flat.map((yes, i) => (yes ? end(i) : "")).join("") });
  put(on.carriers, { d: DECILES.map((z) => {
    const v = f.inverse(z);
    return `M${left} ${Z(z)}H${X(clamp(v, REACH.x))}` + (v === clamp(v, REACH.x) ? `V${box.floor}` : "");
  }).join("") });
}

// The density of x, and its scale, which goes up to `high`.
function drawDensity({ box, X }, on, { x, p }, high, P) {
  const outline = x.map((v, i) => [X(v), P(p[i])]);
  put(on.hill, { d: pixelPath([[box.left, box.floor], ...outline, [box.right, box.floor]], true) });
  put(on.rim, { d: pixelPath(outline) });
  const step = high > 1.6 ? 1 : high > 0.8 ? 0.4 : 0.2;
  put(on.levels, {}, ...range(Math.floor(high / step), 1).flatMap((k) => [
    make("svg:path", line("var(--fl-muted)", 1, { d: `M${box.left} ${P(k * step)}h-5` })),
    make("svg:text", { class: "fl-small", x: box.left - 8, y: P(k * step) + 4.5, "text-anchor": "end" }, show(k * step, 1)),
  ]));
}

// The map carries an interval: a strip from each axis to the curve, and the share of probability.
function drawInterval({ box, left, X, Z, H }, on, { f, probe: x }, P) {
  const xs = steps(12, x, x + DX);
  const along = xs.map((v) => [X(v), Z(clamp(f.at(v)[0], REACH.z))]);
  const [[x0, z0], [x1, z1]] = [along[0], along.at(-1)];
  put(on.down, { d: pixelPath([[x0, box.axis], ...along, [x1, box.axis]], true) });
  put(on.across, { d: pixelPath([[left, z0], ...along, [left, z1]], true) });
  const between = steps(12, f.at(x)[0], f.at(x + DX)[0]).map((z) => clamp(z, REACH.z));
  put(on.zShare, { d: pixelPath([[left, z0], ...between.map((z) => [H(z), Z(z)]), [left, z1]], true) });
  const density = xs.map((v) => [X(v), P(Math.exp(measureLine(f, v).log_px))]);
  put(on.xShare, { d: pixelPath([[x0, box.floor], ...density, [x1, box.floor]], true) });
  put(on.zBar, { d: `M${left} ${z0}V${z1}` });
  put(on.xBar, { d: `M${x0} ${box.axis}H${x1}` });
  put(on.dz, { x: left + 9, y: (z0 + z1) / 2 + 5 });
  put(on.dx, { x: (x0 + x1) / 2, y: box.axis + 22 });
  put(on.zName, { x: left - 8, y: z0 + 5 });
  put(on.humpName, { y: Math.min(z0, z1) < box.top + 60 ? box.axis - 8 : box.top + 13 });
}

// The point x, its z and its density, joined by a thread.
function drawProbe({ box, left, X, Z }, on, { m, probe }, P) {
  const [px, pz, py] = [X(probe), Z(clamp(m.z, REACH.z)), P(Math.exp(m.log_px))];
  put(on.thread, { d: `M${left} ${pz}H${px}V${box.floor}` });
  put(on.onMap, { cx: px, cy: pz });
  put(on.onHill, { cx: px, cy: py });
  put(on.xName, { x: px, y: box.floor + 25 });
  // The names x and z take the place of the ticks that they come close to.
  on.zTicks.forEach((text, i) => (text.style.visibility = Math.abs(Z(KNOTS[i]) - pz) < 20 ? "hidden" : "visible"));
  on.xTicks.forEach((text, i) => (text.style.visibility = Math.abs(X(KNOTS[i]) - px) < 19 ? "hidden" : "visible"));
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
  range(73).map((i) => [radius * Math.cos((i * Math.PI) / 36), radius * Math.sin((i * Math.PI) / 36)]);

const GRID = KNOTS.flatMap((k) => [[[k, -3], [k, 3]], [[-3, k], [3, k]]]); // the lines of a plane

function sayMatrix({ area, det }) {
  if (area < 1e-9) return "The square is flat: two different $x$ share one $z$, and there is no density to speak of.";
  const times = area >= 1 ? `${show(area)} times larger` : `${show(1 / area)} times smaller`;
  return `The square becomes ${Math.abs(area - 1) < 0.005 ? "no larger and no smaller" : times}` +
    `${det < 0 ? ", and is turned over, which no density can see" : ""}: ` +
    `the density of $x$ is that of $z$ times ${show(area)}.`;
}

function judgeShear(a, { det }) {
  const [one, bent] = [Math.abs(det - 1) < 0.05, distortion(a) > 0.1];
  if (!one) return [false, `The determinant is ${show(det)}.`];
  return [bent, bent
    ? "Done: the square has lost its shape and kept its area."
    : "The determinant is 1, but lengths and angles are all kept: that is a rotation."];
}

// The numbers 1 and 2 on two circles, or on what they have become.
function circleNumbers(it, color) {
  const texts = [1, 2].map((k) => it.text([0, 0], `${k}`, { class: "fl-small fl-cased", "text-anchor": "middle", style: `fill:${color}` }));
  return (onto) => texts.forEach((text, i) => {
    const [x, y] = it.at(onto([-0.57 * (i + 1), -0.82 * (i + 1)]));
    put(text, { x, y: y + 4.5 });
  });
}

// Data space: a square, the point x, and what lands on the circles of latent space.
function dataPlane({ get, set }, size) {
  const it = plane(3, "Data space: a square, and the density that the map gives it", size);
  axisNumbers(it, [-2, 2]);
  it.add("path", line("var(--fl-data)", 0.8, { opacity: 0.35, d: GRID.map((l) => it.path(l)).join("") }));
  const ellipses = [1, 2].map(() => it.add("path", line("var(--fl-data)", 1.6, { opacity: 0.9 })));
  it.add("path", { d: it.path(SQUARE, true), ...patch });
  const numbers = circleNumbers(it, "var(--fl-data)");
  const name = label(it, "x");
  const hand = handle(it, {
    name: "point", label: "The point x", color: "var(--fl-data)",
    get: () => get("point"), move: (point) => set({ point }),
  });
  function draw(a, m, point) {
    // The points that land on a circle: A's inverse carries it back as an ellipse.
    const back = [[a[1][1] / m.det, -a[0][1] / m.det], [-a[1][0] / m.det, a[0][0] / m.det]];
    ellipses.forEach((path, i) =>
      put(path, { d: m.area > 1e-6 ? it.path(circle(i + 1).map((p) => apply(back, p)), true) : "" }));
    numbers((p) => (m.area > 1e-6 ? apply(back, p) : [9, 9]));
    const [x, y] = it.at(point);
    put(name, { x: x + 12, y: y + 5 });
    hand.draw();
  }
  return { svg: it.svg, draw };
}

// Latent space: the square's image, whose sides are the columns of the matrix, to be taken.
function latentPlane({ get, set, isTouched }, size) {
  const it = plane(3, "Latent space: the square's image and the standard normal", size);
  axisNumbers(it, [-2, 2]);
  const image = it.add("path", line("var(--fl-data)", 0.8, { opacity: 0.45 }));
  for (const radius of [1, 2]) it.add("path", line("var(--fl-latent)", 1.6, { d: it.path(circle(radius), true) }));
  circleNumbers(it, "var(--fl-latent)")((p) => p);
  const body = it.add("path", patch);
  const arrows = [0, 1].map(() => it.add("path", line("var(--fl-ink)", 3, { "stroke-linecap": "round" })));
  const names = [1, 2].map((j) => {
    const text = label(it, "", { class: "fl-math fl-cased" });
    text.append("a", lowered(`${j}`));
    return text;
  });
  const dot = it.add("circle", disc("var(--fl-latent)", 6));
  const name = label(it, "z");
  const hint = it.text([0, 0], "drag me", { class: "fl-small fl-cased fl-hint" });
  const column = (j) => get("matrix").map((row) => row[j]);
  const hands = [0, 1].map((j) =>
    handle(it, {
      name: `column-${j + 1}`, label: `Column ${j + 1} of the matrix`, color: "var(--fl-ink)", get: () => column(j),
      move: (p) => set({ matrix: get("matrix").map((row, r) => row.map((v, c) => (c === j ? p[r] : v))) }),
    }));
  function draw(a, m) {
    put(image, { d: GRID.map((l) => it.path(l.map((p) => apply(a, p)))).join("") });
    put(body, { d: it.path(SQUARE.map((p) => apply(a, p)), true) });
    arrows.forEach((arrow, j) => put(arrow, { d: it.path([[0, 0], column(j)]) }));
    names.forEach((text, j) => {
      const [x, y] = it.at(column(j));
      put(text, { x: Math.min(x + 11, size - 24), y: Math.max(y - 11, 18) });
      if (j === 0) put(hint, { x: clamp(x - 22, [4, size - 58]), y: Math.min(y + 24, size - 6), opacity: Number(!isTouched()) });
    });
    const [x, y] = it.at(m.z);
    put(dot, { cx: x, cy: y });
    put(name, { x: x + 10, y: y + 5 });
    hands.forEach((hand) => hand.draw());
  }
  return { svg: it.svg, draw };
}

function matrixView(page) {
  const { get, set } = page;
  const planes = make("div", { class: "fl-panels" });
  let [data, latent] = [null, null];
  const build = whenNew((size) => {
    [data, latent] = [dataPlane(page, size), latentPlane(page, size)];
    planes.replaceChildren(
      make("div", {}, panelTitle("var(--fl-data)", "data ", math("x")), data.svg),
      make("div", {}, panelTitle("var(--fl-latent)", "latent ", math("z = Ax")), latent.svg));
  });
  const setEntry = (i, j, value) =>
    set({ matrix: get("matrix").map((row, r) => row.map((v, c) => (r === i && c === j ? value : v))) });
  const entries = [[0, 0], [0, 1], [1, 0], [1, 1]].map(([i, j]) =>
    slider({
      name: `a${i + 1}${j + 1}`, symbol: [math(`a_{${i + 1}${j + 1}}`)],
      label: `Matrix entry, row ${i + 1}, column ${j + 1}`,
      min: -3, max: 3, step: 0.05, get: () => get("matrix")[i][j], set: (v) => setEntry(i, j, v),
    }));
  const sum = ledger([-6, 2], [
    { name: "det", text: [math("det A")] },
    { name: "area", text: ["area"] },
    { name: "log_pz", text: [math("log p_Z(z)")], color: "var(--fl-latent)" },
    { name: "log_det", text: [math("+ log |det A|")], color: "var(--fl-third)" },
    { name: "log_px", text: [math("= log p(x)")], color: "var(--fl-data)" },
  ]);
  const [say, ends] = [saying(), tools(page, ["matrix", "point"])];
  const shear = task(page, "shear", "Make the determinant 1, within 0.05, without a rotation.");
  const presets = Object.fromEntries(Object.entries(MATRICES).map(([name, matrix]) => [name, () => ({ matrix })]));
  const node = frame([
    planes,
    make("div", { class: "fl-sliders fl-later" }, ...entries.map((e) => e.node)), next(presetRow(page, presets)),
  ], [sum.node, say, shear.node, ends.node]);

  function draw(width) {
    build(planeSize(width));
    const [a, point] = [get("matrix"), get("point")];
    const m = measureMatrix(a, point);
    data.draw(a, m, point);
    latent.draw(a, m);
    sum.draw(m);
    setSpelled(say, sayMatrix(m));
    shear.draw(...judgeShear(a, m));
    ends.draw();
    entries.forEach((e) => e.draw());
  }
  return { node, draw };
}

// --- the bend: a nonlinear map of the plane, and its Jacobian -------------------------------

const BENDS = { flat: [0, 0], "shear only": [0.8, 0], "stretch only": [0, 0.7], both: [0.8, 0.8] };
const SIDES = [0.02, 1.5];
const EDGE = 32; // points an edge
const SEEN = 1.6; // how many sides the magnified view sees to each side of its centre
const STALK = [0.45, 30]; // from the square's corner to its handle, each way: units, or more for so many pixels

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

const CORNERS = [[-1, -1], [1, -1], [1, 1], [-1, 1]];

// The square's outline, corner after corner, `EDGE` points an edge.
function outline([x, y], side) {
  const corners = CORNERS.map(([u, v]) => [x + (u * side) / 2, y + (v * side) / 2]);
  return corners.flatMap(([u, v], i) => {
    const [s, t] = corners[(i + 1) % 4];
    return range(EDGE).map((k) => [u + ((s - u) * k) / EDGE, v + ((t - v) * k) / EDGE]);
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
  const [large, near] = [ratio >= 2, Math.abs(error) < 1];
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
function bendPlane(space, color, words, size) {
  const it = plane(3, words, size);
  const grid = it.add("path", line("var(--fl-data)", 0.9, { opacity: 0.4 }));
  [1, 2].forEach((k) => {
    const at = k === 1 ? { x: size - 6, y: size / 2 + 17, "text-anchor": "end" } : { x: size / 2 + 8, y: 17 };
    label(it, space, at).append(lowered(`${k}`));
  });
  const glass = it.add("circle", line("var(--fl-muted)", 1.5));
  const body = it.add("path", patch);
  const flat = it.add("path", line("var(--fl-third)", 2.4, { "stroke-dasharray": "6 4" }));
  const dot = it.add("circle", disc(color, 6));
  const name = label(it, space, { class: "fl-math fl-cased" });
  const draw = ({ lines, shape, tangent, centre, side }) => {
    put(grid, { d: lines.map((l) => it.path(l)).join("") });
    put(body, { d: it.path(shape, true) });
    put(flat, { d: tangent ? it.path(tangent, true) : "" });
    const [x, y] = it.at(centre);
    // The glass shows where the magnified view looks; around a large square it would say nothing.
    put(glass, { cx: x, cy: y, r: Math.max(14, (SEEN * side * size) / 6), opacity: clamp((0.9 - side) / 0.4, [0, 1]) });
    put(dot, { cx: x, cy: y });
    put(name, { x: x - 12, y: y + 5, "text-anchor": "end" });
  };
  return { ...it, draw };
}

// What is around a point, magnified until the square's side has always the same length.
function lens(words) {
  const it = panel({ x: [-SEEN, SEEN], y: [-SEEN, SEEN], width: 160, height: 160, label: words });
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

// The two planes, the square's centre and its corner in the first to be taken.
function bendPlanes({ get, set }, setSide, size) {
  const data = bendPlane("x", "var(--fl-data)", "Data space: a grid and a square", size);
  const latent = bendPlane("z", "var(--fl-latent)", "Latent space: the bent grid, the square's image and the Jacobian's parallelogram", size);
  const lines = GRID.map(([p, q]) => steps(48, 0, 1).map((t) => p.map((v, i) => v + t * (q[i] - v))));
  const stalk = data.add("path", line("var(--fl-data)", 2));
  const stalkLength = Math.max(STALK[0], (STALK[1] * 6) / size); // clear of the handle in the centre
  // The corner that can be taken is the one that has room.
  const ways = () => get("centre").map((v) => (v > 1.5 ? -1 : 1));
  const tip = (far) => get("centre").map((v, i) => v + ways()[i] * (get("side") / 2 + far));
  const hands = [
    handle(data, {
      name: "centre", label: "The square's centre", color: "var(--fl-data)",
      get: () => get("centre"), move: (centre) => set({ centre }),
    }),
    grip(data, {
      name: "corner", label: "The square's corner: its side", color: "var(--fl-data)", range: SIDES,
      get: () => get("side"), set: setSide, place: () => tip(stalkLength),
      found: (p) => p.reduce((sum, v, i) => sum + ways()[i] * (v - get("centre")[i]) - stalkLength, 0),
      nudge: (side, count) => side * 1.1 ** count,
    }),
  ];
  function draw(before, after, onto) {
    data.draw({ lines, ...before });
    latent.draw({ lines: onto(lines), ...after });
    put(stalk, { d: data.path([tip(0), tip(stalkLength)]) });
    hands.forEach((hand) => hand.draw());
  }
  return { data, latent, draw };
}

function bendSliders({ get, set }, setSide) {
  const part = (k) => ({
    min: -1, max: 1, step: 0.05,
    get: () => get("bend")[k],
    set: (v) => set({ bend: get("bend").map((old, i) => (i === k ? v : old)) }),
  });
  return [
    slider({ name: "shear", symbol: ["shear ", math("a")], label: "Shear", ...part(0) }),
    slider({ name: "stretch", symbol: ["stretch ", math("b")], label: "Stretch", ...part(1) }),
    logSlider({
      name: "side", symbol: ["side ", math("s")], label: "Side of the square", min: SIDES[0], max: SIDES[1],
      get: () => get("side"), set: setSide,
    }),
  ];
}

const bendFormulas = () => make("p", { class: "fl-formulas" },
  math("z_1 = x_1 + a sin x_2"), math("z_2 = x_2 exp(b tanh z_1)"));

function bendView(page) {
  const { get, set } = page;
  const setSide = (side) => set({ side: clamp(side, SIDES) });
  const both = make("div", { class: "fl-panels" });
  let planes = null;
  const build = whenNew((size) => {
    planes = bendPlanes(page, setSide, size);
    both.replaceChildren(
      make("div", {}, panelTitle("var(--fl-data)", "data ", math("x")), planes.data.svg),
      make("div", {}, panelTitle("var(--fl-latent)", "latent ", math("z = f(x)")), planes.latent.svg));
  });
  const lenses = [lens("Around the square, magnified"), lens("Around its image, magnified as much")];
  const sliders = bendSliders(page, setSide);
  const [shear, stretch, size] = sliders.map((one) => one.node);
  const sum = ledger([0, 3], [
    { name: "ratio", text: ["area of patch / ", math("s²")], color: "var(--fl-data)", digits: 3 },
    { name: "det", text: [math("|det J|"), " at ", math("x")], color: "var(--fl-third)", digits: 3 },
    { name: "log_det", text: [math("log |det J|")], digits: 3 },
    { name: "error", text: ["they differ by, in %"], digits: 3 },
  ]);
  const [say, ends] = [saying(), tools(page, ["bend", "centre", "side"])];
  const trust = task(page, "trust", "Find a bend and a place where the square’s image is at least twice as large, " +
    "and a size at which the parallelogram predicts it within 1 %.");
  const presets = Object.fromEntries(Object.entries(BENDS).map(([name, bend]) => [name, () => ({ bend })]));
  const node = frame([
    legend([swatch("var(--fl-data)"), "patch, the square’s image"], [dashes("var(--fl-third)"), "parallelogram of ", math("J")]),
    both,
    make("p", { class: "fl-panel-title fl-magnified" }, "the same, magnified"),
    make("div", { class: "fl-lenses" }, ...lenses.map((l) => l.svg)),
    later(bendFormulas()),
  ], [
    sum.node, say, trust.node,
    make("div", { class: "fl-named" }, size, shear, stretch),
    presetRow(page, presets), ends.node,
  ]);

  function draw(width) {
    build(planeSize(width));
    const [bend, centre, side] = [get("bend"), get("centre"), get("side")];
    const m = measureBend(bend, centre, side);
    const tangent = CORNERS.map((way) => apply(m.J, way.map((v) => (v * side) / 2)).map((v, i) => m.z[i] + v));
    const onto = (lines) => lines.map((l) => l.map((p) => bendAt(bend, p)));
    const before = { shape: outline(centre, side), centre, side };
    const after = { shape: m.image, tangent, centre: m.z, side };
    const close = nearLines(centre, side);
    planes.draw(before, after, onto);
    lenses[0].draw({ lines: close, ...before });
    lenses[1].draw({ lines: onto(close), ...after });
    sum.draw(m);
    setSpelled(say, sayBend(m, bend));
    trust.draw(...judgeTrust(m));
    ends.draw();
    sliders.forEach((s) => s.draw());
  }
  return { node, draw };
}

// --- the frame around the three -------------------------------------------------------------

function render({ model, el }) {
  const page = openPage(el, model, TRAITS, WORK);
  const tabs = choice(
    Object.entries(VIEWS).map(([view, [words]]) => [words, view, { "data-view": view }]),
    () => page.get("view"), (view) => page.set({ view }));
  const stage = make("div", {});
  el.replaceChildren(make("div", { class: "fl-views", role: "group", "aria-label": "What is bent" }, ...tabs.nodes), stage);

  // A view is built when it is first looked at; only the one that is looked at is on the page.
  const built = {};
  return page.run((width) => {
    const view = page.get("view");
    const it = (built[view] ??= VIEWS[view][1](page));
    if (stage.firstChild !== it.node) stage.replaceChildren(it.node);
    tabs.draw();
    it.draw(width);
    mirror(el, page.state());
  });
}

export default { render };
