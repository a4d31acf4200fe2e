// KLExplorer: one Gaussian q asked to be two bumps p, by forward and by reverse KL.

const TRAITS = ["bumps", "weight", "q"];
const PRESETS = {
  "two bumps": { bumps: [[-2.5, 0.6], [2.5, 0.6]], weight: 0.5 },
  "close together": { bumps: [[-0.8, 0.9], [0.8, 0.9]], weight: 0.5 },
  unequal: { bumps: [[-2.5, 0.6], [2.5, 0.6]], weight: 0.8 },
  "one wide, one narrow": { bumps: [[-1.5, 1.5], [2.7, 0.4]], weight: 0.6 },
};
const MEANS = [-4.5, 4.5];
const BUMP_SDS = [0.3, 3];
const Q_SDS = [0.3, 6]; // the moments of every allowed p lie within
const VIEW = [-6, 6];
const KINDS = ["forward", "reverse"];
const NAMES = { forward: "KL(p‖q)", reverse: "KL(q‖p)" };
const spoken = (kind) => `$${NAMES[kind]}$`;
const COLORS = { forward: "var(--fl-data)", reverse: "var(--fl-third)" };
const LOG_ROOT_2PI = 0.5 * LOG_2PI;

const logNormal = (x, [m, s]) => -0.5 * ((x - m) / s) ** 2 - Math.log(s) - LOG_ROOT_2PI;
const peak = ([, s], weight = 1) => weight * Math.exp(-Math.log(s) - LOG_ROOT_2PI);
// The standard deviation at which a Gaussian of that weight is that high.
const sdAt = (height, weight = 1) => weight / (height * Math.sqrt(2 * Math.PI));
const limited = ([m, s], sds) => [clamp(m, MEANS), clamp(s, sds)];

// --- numbers --------------------------------------------------------------------------------

// One trapezoid rule for all states. The narrowest bumps, farthest apart, bend log p within 0.03;
// the widest q, 6 at 4.5, has left e⁻⁴⁹ of its height at the ends.
const STEP = 1 / 128;
const FAR = 64;
const NODES = range((2 * FAR) / STEP + 1).map((i) => i * STEP - FAR);
// The nodes that are drawn: every fourth of those in view.
const SEEN = range(32 * (VIEW[1] - VIEW[0]) + 1).map((i) => 4 * i + (VIEW[0] + FAR) / STEP);

// log p by log-sum-exp, so that a ratio of two densities that are both zero to the computer is
// still known, and with it d log p / dx and the share of bump a at x.
function mixture({ bumps: [a, b], weight }) {
  const [log_a, log_b] = [Math.log(weight), Math.log(1 - weight)];
  return (x) => {
    const [u, v] = [log_a + logNormal(x, a), log_b + logNormal(x, b)];
    const rest = Math.exp(-Math.abs(u - v));
    const share = (u > v ? 1 : rest) / (1 + rest);
    const slopes = [(a[0] - x) / a[1] ** 2, (b[0] - x) / b[1] ** 2];
    return { log: Math.max(u, v) + Math.log1p(rest), share, slopes };
  };
}

// What both divergences need to know of p, and that changes only with p.
function tabulate(p) {
  const [{ length }, at] = [NODES, mixture(p)];
  const [log, slope, bend] = [0, 1, 2].map(() => new Float64Array(length));
  let negentropy = 0;
  for (let i = 0; i < length; i++) {
    const { log: log_p, share, slopes: [left, right] } = at(NODES[i]);
    const [[, sa], [, sb]] = p.bumps;
    log[i] = log_p;
    slope[i] = share * left + (1 - share) * right;
    bend[i] = share * (1 - share) * (left - right) ** 2 - share / sa ** 2 - (1 - share) / sb ** 2;
    negentropy += Math.exp(log_p) * log_p * STEP;
  }
  const [[[a, sa], [b, sb]], w] = [p.bumps, p.weight];
  const mean = w * a + (1 - w) * b;
  const variance = w * sa * sa + (1 - w) * sb * sb + w * (1 - w) * (a - b) ** 2;
  return { at, log, slope, bend, negentropy, mean, variance };
}

// KL(p‖q) and its gradient in (m, log s): exact but for the entropy of p.
function forward(table, m, s) {
  const square = (table.variance + (table.mean - m) ** 2) / s ** 2;
  return {
    value: table.negentropy + Math.log(s) + LOG_ROOT_2PI + 0.5 * square,
    gradient: [(m - table.mean) / s ** 2, 1 - square],
  };
}

// KL(q‖p), its gradient and its second derivatives: averages under q of log p and its slopes.
function reverse(table, m, s) {
  const [first, last] = [m - 10 * s, m + 10 * s].map((x) => Math.round((clamp(x, [-FAR, FAR]) + FAR) / STEP));
  let [log, by_m, by_s, mm, ms, ss] = [0, 0, 0, 0, 0, 0];
  for (let i = first; i <= last; i++) {
    const x = NODES[i] - m;
    const q = Math.exp(-0.5 * (x / s) ** 2);
    log += q * table.log[i];
    by_m += q * table.slope[i];
    by_s += q * table.slope[i] * x;
    mm += q * table.bend[i];
    ms += q * table.bend[i] * x;
    ss += q * table.bend[i] * x * x;
  }
  const unit = -STEP * peak([m, s]);
  return {
    value: -Math.log(s) - LOG_ROOT_2PI - 0.5 + log * unit,
    gradient: [by_m * unit, by_s * unit - 1],
    hessian: [mm * unit, ms * unit + by_m * unit, ss * unit + by_s * unit],
  };
}

const DIVERGENCE = { forward, reverse };

// Downhill from q, a short step at a time, as the path of water: [m, log s], [m, log s], ...
// Steps are measured in the sds of q, so that one means as much to a narrow q as to a wide one.
function descend(kind, table, [m, s]) {
  const value = ([m, t]) => DIVERGENCE[kind](table, m, Math.exp(t));
  const path = [[m, Math.log(s)]];
  let here = value(path[0]);
  while (path.length < 1000) {
    const [m, t] = path.at(-1);
    const [gm, gt] = here.gradient;
    const way = [-gm * Math.exp(2 * t), -gt / 2];
    const length = Math.hypot(gm * Math.exp(t), gt / Math.SQRT2);
    if (length < 1e-7) break;
    let rate = Math.min(1, 0.06 / length);
    let [next, there] = [null, null];
    do {
      next = [clamp(m + rate * way[0], MEANS), clamp(t + rate * way[1], Q_SDS.map(Math.log))];
      there = value(next);
      rate /= 2;
    } while (there.value > here.value - 1e-4 * rate * length ** 2 && rate > 1e-6);
    if (there.value >= here.value) break;
    path.push(next);
    here = there;
  }
  return path;
}

// Newton's method, from a point of the grid to the minimum beside it, if there is one.
function refine(table, m, t) {
  for (let i = 0; i < 12; i++) {
    const { gradient: [gm, gt], hessian: [mm, mt, tt] } = reverse(table, m, Math.exp(t));
    const det = mm * tt - mt * mt;
    if (!(det > 0 && mm > 0)) return null;
    const [dm, dt] = [(mt * gt - tt * gm) / det, (mt * gm - mm * gt) / det];
    if (Math.hypot(dm, dt) < 1e-9) return [m, Math.exp(t)];
    const short = Math.min(1, 0.3 / Math.hypot(dm, dt));
    m = clamp(m + short * dm, MEANS);
    t = clamp(t + short * dt, Q_SDS.map(Math.log));
  }
  return null;
}

// --- the landscape --------------------------------------------------------------------------

const MAP = { x: [-4.7, 4.7], y: [0.27, 6.6].map(Math.log) };
const LEVELS = [0.1, 0.3, 1, 3, 10, 30, 100]; // nats above the lowest point; grey ends at the last
const grey = (above) => Math.log1p(above / 0.1) / Math.log1p(LEVELS.at(-1) / 0.1);
// The points at which the divergence is computed: few while a bump is in the hand, many when it rests.
function mesh(columns, rows) {
  const along = ([low, high], share) => low + share * (high - low);
  return {
    columns, rows,
    m: range(columns).map((i) => along(MAP.x, (i + 0.5) / columns)),
    t: range(rows).map((j) => along(MAP.y, 1 - (j + 0.5) / rows)),
  };
}
const [ROUGH, FINE] = [mesh(40, 30), mesh(96, 72)];
const NORMAL = (() => {
  const z = range(81).map((k) => (k - 40) / 8);
  const weights = z.map((v) => Math.exp(-0.5 * v * v));
  const total = sumOf(weights);
  return { z, weights: weights.map((v) => v / total) };
})();

// The divergence on the grid, rows from above: a coarser rule, for the eye.
function survey(kind, table, grid) {
  const values = new Float64Array(grid.columns * grid.rows);
  grid.t.forEach((t, j) => {
    const s = Math.exp(t);
    grid.m.forEach((m, i) => {
      values[j * grid.columns + i] = kind === "forward" ? forward(table, m, s).value : coarse(table, m, s);
    });
  });
  return values;
}

function coarse({ log }, m, s) {
  let mean = 0;
  for (let k = 0; k < NORMAL.z.length; k++) {
    const place = (m + s * NORMAL.z[k] + FAR) / STEP;
    const i = Math.floor(place);
    mean += NORMAL.weights[k] * (log[i] + (place - i) * (log[i + 1] - log[i]));
  }
  return -Math.log(s) - LOG_ROOT_2PI - 0.5 - mean;
}

// All local minima: one of the forward divergence, one to three of the reverse.
function minima(kind, table, values, grid) {
  if (kind === "forward") return [[table.mean, Math.sqrt(table.variance)]];
  const { columns, rows } = grid; // which reaches a little farther than any q
  const around = [-columns - 1, -columns, 1 - columns, -1, 1, columns - 1, columns, columns + 1];
  const found = [];
  for (let j = 1; j + 1 < rows; j++)
    for (let i = 1; i + 1 < columns; i++) {
      const k = j * columns + i;
      if (around.some((step) => values[k + step] < values[k])) continue;
      const exact = refine(table, grid.m[i], grid.t[j]);
      if (exact && !found.some(([m, s]) => Math.hypot(m - exact[0], s - exact[1]) < 1e-3)) found.push(exact);
    }
  return found.sort((a, b) => a[0] - b[0]);
}

// The lines along which the values pass the levels: a short stroke through each cell that one cuts.
function contours(values, levels, { columns, rows }) {
  const strokes = [];
  for (let j = 0; j + 1 < rows; j++)
    for (let i = 0; i + 1 < columns; i++) {
      const k = j * columns + i;
      const corners = [values[k], values[k + 1], values[k + columns + 1], values[k + columns]];
      const [low, high] = [Math.min(...corners), Math.max(...corners)];
      for (const level of levels) if (low < level && level <= high) strokes.push(cut(corners, level, i, j));
    }
  return strokes.join("");
}

function cut(corners, level, i, j) {
  const ends = [];
  for (let e = 0; e < 4; e++) {
    const [u, v] = [corners[e] - level, corners[(e + 1) % 4] - level];
    if (u < 0 === v < 0) continue;
    const f = u / (u - v);
    const [x, y] = [[i + f, j], [i + 1, j + f], [i + 1 - f, j + 1], [i, j + 1 - f]][e];
    ends.push(`${ends.length % 2 ? "L" : "M"}${Math.round(100 * x) / 100} ${Math.round(100 * y) / 100}`);
  }
  return ends.join("");
}

// --- words ----------------------------------------------------------------------------------

// exp(log), as people say it.
function times(log) {
  if (log < Math.log(9.95)) return show(Math.exp(log), 1);
  if (log < Math.log(9950)) {
    const unit = log < Math.log(99.5) ? 1 : log < Math.log(995) ? 10 : 100;
    return show(Math.round(Math.exp(log) / unit) * unit, 0);
  }
  return powerOfTen(Math.round(log / Math.LN10));
}

// Is there a valley between the two bumps?
function parted({ at }, [[a], [b]]) {
  let [rising, valleys] = [false, 0];
  for (let i = 1; i < 100; i++) {
    const up = at(a + ((b - a) * i) / 100).log > at(a + ((b - a) * (i - 1)) / 100).log;
    if (up && !rising && i > 1) valleys++;
    rising = up;
  }
  return valleys > 0;
}

// Where q is, in words: a bump counts as left out if KL(bump‖q) is over 2 nats.
function whereabouts(table, { bumps, q: [m, s] }) {
  if (!parted(table, bumps)) return "The two bumps make one hill.";
  const out = bumps.filter(([c, sd]) => Math.log(s / sd) + 0.5 * (sd * sd + (c - m) ** 2) / (s * s) - 0.5 > 2);
  const between = (m - bumps[0][0]) * (m - bumps[1][0]) < 0;
  if (out.length === 2) return between ? "$q$ falls between the bumps." : "$q$ misses both bumps.";
  if (out.length === 1) return "$q$ sits on one bump and leaves the other out.";
  return "$q$ covers both bumps and the gap between them.";
}

const bill = (kind, value, place, log) =>
  value < 0.05
    ? `${spoken(kind)} is content: ${kind === "forward" ? "$q$ is wherever the data are" : "the data are wherever $q$ is"}.`
    : `${spoken(kind)} pays most near $x$ = ${show(place, 1)}, where ` +
      `${kind === "forward" ? "the data are" : "$q$ is"} ${times(log)} times as dense as ${kind === "forward" ? "$q$" : "the data"}.`;

// The task's verdict; `kept` is the weight of the bump that q is nearer to.
function judge({ bumps: [a, b], weight, q: [m] }, values) {
  const apart = Math.abs(a[0] - b[0]) >= 4 * Math.max(a[1], b[1]) - 1e-9;
  const even = weight > 0.399 && weight < 0.601;
  const [cheap, missing] = [values.reverse < 0.75, values.forward > 2];
  const kept = Math.abs(m - a[0]) < Math.abs(m - b[0]) ? weight : 1 - weight;
  const half = Math.abs(kept - 0.5) < 1e-9;
  const solved = apart && even && cheap && missing;
  if (!apart || !even) return [solved, "First put the bumps at least 4 sds apart, with $w$ from 0.4 to 0.6."];
  if (!cheap) return [solved, `$KL(q‖p)$ is ${show(values.reverse)}.`];
  if (!missing) return [solved, `$KL(q‖p)$ is ${show(values.reverse)}, but $q$ reaches both bumps.`];
  return [solved,
    `Done: for leaving out ${half ? "one of two equal bumps" : "the other bump"} $KL(q‖p)$ charges ` +
    `${half ? "log 2" : `−log ${show(kept)}`} = ${show(-Math.log(kept))} nats, and $KL(p‖q)$ ${show(values.forward, 1)}.`];
}

// --- drawing --------------------------------------------------------------------------------

// Marks below: short strokes and their numbers.
function ticksBelow(it, values, name) {
  const { left, right, bottom } = it.box;
  it.add("path", { d: `M${left} ${bottom}H${right}`, stroke: "var(--fl-muted)" });
  for (const v of values) {
    const [x] = it.at([v, 0]);
    it.add("path", { d: `M${x} ${bottom}v5`, stroke: "var(--fl-muted)" });
    it.text([x, bottom + 18], show(v, 0), { "text-anchor": "middle" });
  }
  it.text([right, bottom + 18], name, { class: "fl-math", "text-anchor": "end" });
}

// Marks at the left that are redrawn when the scale changes: faint lines across, and their numbers.
function ticksLeft(it, at, values) {
  const { left, right } = it.box;
  const decimals = (v) => (String(Number(v.toFixed(6))).split(".")[1] ?? "").length;
  const digits = Math.max(0, ...values.map(decimals));
  return values.flatMap((v) => [
    make("svg:path", { d: `M${left} ${at(v)}H${right}`, stroke: v ? "var(--fl-faint)" : "var(--fl-muted)" }),
    make("svg:text", { class: "fl-small", x: left - 6, y: at(v) + 4, "text-anchor": "end" }, show(v, digits)),
  ]);
}

// Round numbers between low and high, at most five of them.
function rounds(low, high) {
  const base = 10 ** Math.floor(Math.log10((high - low) / 4));
  const step = base * [1, 2, 5, 10].find((k) => (high - low) / (k * base) <= 4);
  const first = Math.ceil(low / step);
  return range(Math.floor(high / step) - first + 1, first).map((k) => k * step);
}

// A Gaussian that is grabbed: `place` says where [m, s] stands in the panel, `found` what stands at
// a point of it. Its arrow keys change the mean or the sd, and leave the other exactly as it is;
// `up` says whether the sd grows upwards, 1, or downwards, -1.
function grab(it, { get, set, place, found, up, ...options }) {
  return handle(it, {
    ...options,
    range: MEANS,
    get: () => place(get()),
    move: (point) => set(found(point)),
    keys: ([right, high], count) => {
      const way = [right, high * up];
      set(get().map((v, i) => (way[i] ? (Math.round(v / 0.05) + way[i] * count) / 20 : v)));
    },
    value: () => `mean ${show(get()[0])}, standard deviation ${show(get()[1])}`,
  });
}

// The densities: p filled, q a line, each Gaussian taken by its peak.
function densities(width, height, page, act) {
  const it = chart({ x: VIEW, y: [0, 1], width, height, room: [20, 10, 8, 44], label: "The data density p and the Gaussian q" });
  // The vertical scale fits what is there; under the hand it grows where it must, and never shrinks.
  let [high, held] = [0.64, false];
  it.svg.addEventListener("pointerdown", (event) => (held = event.target.closest(".fl-grab") !== null));
  for (const type of ["pointerup", "pointercancel"])
    it.svg.addEventListener(type, () => ((held = false), page.redraw()));

  const scale = it.add("g", {});
  it.text([it.box.left, 12], "density");
  const hill = it.add("path", filled("var(--fl-data)", 0.3));
  const rim = it.add("path", line("var(--fl-data)", 1.8));
  const parts = [0, 1].map(() => it.add("path", line("var(--fl-data)", 1.2, { opacity: 0.75 })));
  const fits = KINDS.map((kind) => it.add("path", line(COLORS[kind], 1.8, { "stroke-dasharray": "7 4" })));
  const model = it.add("path", line("var(--fl-third)", 2.8));
  const weight = (k) => [page.get("weight"), 1 - page.get("weight")][k];
  const byPeak = (share) => ({
    up: -1,
    place: ([m, s]) => [m, peak([m, s], share()) / high],
    found: ([m, h]) => [m, sdAt(h * high, share())],
  });
  const bump = (k) => grab(it, {
    name: `bump-${k + 1}`, label: `${k ? "Second" : "First"} bump of the data`, color: "var(--fl-data)",
    get: () => page.get("bumps")[k], set: (to) => act.bump(k, to), ...byPeak(() => weight(k)),
  });
  const handles = [bump(0), bump(1), grab(it, {
    name: "q", label: "The Gaussian q", color: "var(--fl-third)", get: () => page.get("q"), set: act.q, ...byPeak(() => 1),
  })];
  // It keeps its room while there is nothing to explain, so that nothing jumps when there is.
  const slid = make("span", {}, dashes("var(--fl-muted)"), "where q slid to");
  const keys = legend([swatch("var(--fl-data)"), "data ", math("p(x)")], [swatch("var(--fl-third)"), "Gaussian ", math("q(x)")], [slid]);

  // A bump by itself is drawn where it is not the hill's own outline, so that each handle has one.
  function drawBump(k, curves) {
    const own = curves.x.map((x) => weight(k) * Math.exp(logNormal(x, page.get("bumps")[k])));
    const inside = own.map((v, i) => v < 0.97 * curves.p[i] && v > 0.01 * high);
    const piece = (i) => it.path([i - 1, i].map((j) => [curves.x[j], own[j] / high]));
    put(parts[k], { d: inside.map((yes, i) => (yes && inside[i - 1] ? piece(i) : "")).join("") });
  }
  function draw(curves, found) {
    const highest = Math.max(peak(page.get("q")), ...curves.p);
    high = held ? Math.max(high, 1.05 * highest) : Math.max(0.64, 1.12 * highest);
    const trace = (values) => it.path(curves.x.map((x, i) => [x, values[i] / high]));
    put(scale, {}, ...ticksLeft(it, (v) => it.at([0, v / high])[1], rounds(0, high)));
    put(hill, { d: it.path([[VIEW[0], 0], ...curves.x.map((x, i) => [x, curves.p[i] / high]), [VIEW[1], 0]]) });
    put(rim, { d: trace(curves.p) });
    drawBump(0, curves);
    drawBump(1, curves);
    fits.forEach((fit, i) => {
      const best = found[KINDS[i]];
      put(fit, { d: best ? trace(curves.x.map((x) => Math.exp(logNormal(x, best)))) : "" });
    });
    put(model, { d: trace(curves.q) });
    slid.style.visibility = KINDS.some((kind) => found[kind]) ? "visible" : "hidden";
    handles.forEach((one) => one.draw());
  }
  return { node: make("div", {}, keys, it.svg), draw };
}

// What the two divergences are the areas of, below the densities and to the same x.
function integrands(width, height) {
  const it = chart({ x: VIEW, y: [0, 1], width, height, room: [20, 10, 28, 44], label: "The integrands of both divergences" });
  const scale = it.add("g", {});
  it.text([it.box.left, 12], "nats per unit of x");
  const areas = KINDS.map((kind) => it.add("path", filled(COLORS[kind], 0.22)));
  const edges = KINDS.map((kind) => it.add("path", line(COLORS[kind], 2)));
  const tops = KINDS.map((kind) => it.add("circle", { r: 4, fill: COLORS[kind], stroke: "var(--fl-panel)", "stroke-width": 1.5 }));
  ticksBelow(it, [-6, -4, -2, 0, 2, 4], "x");
  const node = make("div", {},
    legend(
      [swatch(COLORS.forward), math("p log(p/q)"), ", its area is ", math(NAMES.forward)],
      [swatch(COLORS.reverse), math("q log(q/p)"), ", its area is ", math(NAMES.reverse)]),
    it.svg);

  function draw(curves) {
    const all = [...curves.forward, ...curves.reverse];
    const high = Math.max(0.5, 1.1 * Math.max(...all));
    const low = Math.min(-0.1 * high, 1.1 * Math.min(...all));
    const level = (v) => (v - low) / (high - low);
    put(scale, {}, ...ticksLeft(it, (v) => it.at([0, level(v)])[1], rounds(low, high)));
    KINDS.forEach((kind, k) => {
      const points = curves.x.map((x, i) => [x, level(curves[kind][i])]);
      put(areas[k], { d: it.path([[VIEW[0], level(0)], ...points, [VIEW[1], level(0)]]) });
      put(edges[k], { d: it.path(points) });
      const [cx, cy] = it.at(points[curves.peaks[kind]]);
      put(tops[k], { cx, cy });
    });
  }
  return { node, draw };
}

// One divergence over all q: a grey map that is clear where the divergence is low.
function landscape(width, height, page, act) {
  const it = chart({
    x: MAP.x, y: MAP.y, width, height, room: [6, 8, 28, 44],
    label: "The divergence for every mean and standard deviation of q",
  });
  const { left, right, top, bottom } = it.box;
  const [wide, tall] = [right - left, bottom - top];
  const share = (part, whole) => `${(100 * part) / whole}%`;
  const canvas = make("canvas", {
    "aria-hidden": "true",
    style: `left:${share(left, width)};top:${share(top, height)};width:${share(wide, width)};height:${share(tall, height)}`,
  });
  const cells = ({ columns, rows }) => `translate(${left} ${top}) scale(${wide / columns} ${tall / rows}) translate(0.5 0.5)`;
  const rings = it.add("path", line("var(--fl-muted)", 1, { "vector-effect": "non-scaling-stroke", opacity: 0.55 }));
  it.add("path", line("var(--fl-muted)", 1, { d: `M${left} ${top}H${right}V${bottom}H${left}Z` }));
  ticksBelow(it, [-4, -2, 0, 2], "m");
  for (const s of [0.3, 1, 3]) {
    const [, y] = it.at([0, Math.log(s)]);
    it.add("path", { d: `M${left} ${y}h-5`, stroke: "var(--fl-muted)" });
    it.text([left - 9, y + 4], `${s}`, { "text-anchor": "end" });
  }
  it.text([left - 9, top + 14], "s", { class: "fl-math", "text-anchor": "end" });
  const casing = it.add("path", line("var(--fl-panel)", 5.5, { "stroke-linecap": "round" }));
  const track = it.add("path", line("var(--fl-third)", 2.5, { "stroke-linecap": "round" }));
  const from = it.add("circle", { r: 4, fill: "var(--fl-panel)", stroke: "var(--fl-third)", "stroke-width": 2.5 });
  const marks = it.add("g", {});
  const q = grab(it, {
    name: "q-map", label: "The Gaussian q in the landscape", color: "var(--fl-third)",
    get: () => page.get("q"), set: act.q, up: 1,
    place: ([m, s]) => [m, Math.log(s)], found: ([m, t]) => [m, Math.exp(t)],
  });

  // Alpha, and not a colour: the same picture is right on light and on dark.
  function paint({ grid, values }) {
    const lowest = Math.min(...values);
    const image = new ImageData(grid.columns, grid.rows);
    new Uint32Array(image.data.buffer).fill(0x948b84); // rgb(132 139 148), its bytes from the last
    values.forEach((v, i) => (image.data[4 * i + 3] = 235 * Math.min(1, grey(v - lowest))));
    [canvas.width, canvas.height] = [grid.columns, grid.rows];
    canvas.getContext("2d").putImageData(image, 0, 0);
    put(rings, { transform: cells(grid), d: contours(values, LEVELS.map((level) => lowest + level), grid) });
  }
  // A minimum's number stands under it, or above: where the handle is not, nor the edge.
  let numbers = [];
  function mark(places) {
    numbers = places.map(([m, s, value]) => ({
      at: it.at([m, Math.log(s)]).map((v, i) => (i ? clamp(v, [top + 8, bottom - 8]) : v)), text: make("svg:text", { class: "fl-mark", "text-anchor": "middle" }, show(value)),
    }));
    marks.replaceChildren(...numbers.flatMap(({ at: [cx, cy], text }) =>
      [make("svg:circle", { cx, cy, r: 5.5, fill: "none", stroke: "var(--fl-ink)", "stroke-width": 2 }), text]));
  }
  function setNumbers() {
    const [m, s] = page.get("q");
    const hand = it.at([m, Math.log(s)]);
    for (const { at: [cx, cy], text } of numbers) {
      const x = clamp(cx, [left + 18, right - 18]);
      const far = (y) => Math.hypot(x - hand[0], y - 5 - hand[1]);
      const [under, over] = [cy + 26, cy - 14];
      const fits = [under <= bottom - 6, over >= top + 14];
      put(text, { x, y: fits[1] && (!fits[0] || (far(under) < 26 && far(over) > far(under))) ? over : under });
    }
  }
  // The survey is painted when it is another.
  let shown = null;
  function draw(lows, trail) {
    if (shown !== lows) {
      paint(lows);
      mark(lows.places);
      shown = lows;
    }
    setNumbers();
    const d = trail.length > 1 ? it.path(trail) : "";
    for (const path of [casing, track]) put(path, { d });
    const [cx, cy] = it.at(trail[0] ?? [0, 0]);
    put(from, { cx, cy, visibility: d ? "visible" : "hidden" });
    q.draw();
  }
  return { node: make("div", { class: "fl-map" }, canvas, it.svg), draw };
}

// What the greys mean.
function greys() {
  const stops = [0, 0.1, 1, 10, 100];
  const at = (v) => 100 * grey(v);
  return make("div", { class: "fl-greys" },
    make("div", { class: "fl-ramp", "aria-hidden": "true" }),
    make("div", { class: "fl-stops" }, ...stops.map((v) => make("span", { style: `left:${at(v)}%` }, `${v}`))),
    make("div", {}, "grey: nats above the lowest. ○ minima, with their nats"));
}

// --- the explorer ---------------------------------------------------------------------------

// The present p, what is computed of it, and where slides have ended for it: until p is another.
function knowledge(page) {
  let [name, now] = ["", null];
  return () => {
    const { bumps, weight } = page.state();
    const present = JSON.stringify([bumps, weight]);
    if (present === name) return now;
    name = present;
    const table = tabulate({ bumps, weight });
    const surveys = new Map();
    const look = (kind, grid) => {
      const values = survey(kind, table, grid);
      const places = minima(kind, table, values, grid).map(([m, s]) => [m, s, DIVERGENCE[kind](table, m, s).value]);
      return { grid, values, places };
    };
    const lows = (kind) => {
      const name = `${kind} ${page.isHeld() && !surveys.has(`${kind} false`)}`;
      if (!surveys.has(name)) surveys.set(name, look(kind, name.endsWith("true") ? ROUGH : FINE));
      return surveys.get(name);
    };
    return (now = { table, lows, found: {} });
  };
}

// All that is drawn along x, for p and one q.
function curvesOf(table, q) {
  const x = SEEN.map((i) => NODES[i]);
  const [log_p, log_q] = [SEEN.map((i) => table.log[i]), x.map((v) => logNormal(v, q))];
  const [p, density] = [log_p.map(Math.exp), log_q.map(Math.exp)];
  const curves = {
    x, p, q: density, log_p, log_q,
    forward: x.map((_, i) => p[i] * (log_p[i] - log_q[i])),
    reverse: x.map((_, i) => density[i] * (log_q[i] - log_p[i])),
  };
  curves.peaks = Object.fromEntries(KINDS.map((which) => [which, curves[which].indexOf(Math.max(...curves[which]))]));
  return curves;
}

// Along a path in 0.7 s: `step` gets the part of it so far, and returns whether to go on; then `arrive`.
function glide(path, step, arrive) {
  const reach = [0];
  path.slice(1).forEach((p, i) => reach.push(reach[i] + Math.hypot(p[0] - path[i][0], p[1] - path[i][1])));
  const begin = performance.now();
  const tick = (now) => {
    const t = (now - begin) / 700;
    if (t >= 1) return arrive();
    const far = reach.at(-1) * t * t * (3 - 2 * t);
    const i = Math.max(1, reach.findIndex((r) => r >= far));
    const f = (far - reach[i - 1]) / (reach[i] - reach[i - 1] || 1);
    const here = path[i].map((v, j) => path[i - 1][j] + f * (v - path[i - 1][j]));
    if (step([...path.slice(0, i), here])) requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

// What hands can do. `view` is what no trait knows: whose landscape is shown, the way of the last
// slide, and the slide that is under way.
function actions(page, view, known) {
  function write(changes, how = page.set) {
    view.slide = null;
    view.trail = { kind: view.kind, path: [] };
    how(changes);
    page.soon(); // also where no trait is another
  }
  function look(kind) {
    view.kind = kind;
    page.redraw();
  }
  // Downhill from the present q, slowly where motion is welcome.
  function slide(kind) {
    write({});
    page.mark();
    view.kind = kind;
    const mine = known();
    const path = descend(kind, mine.table, page.get("q"));
    const [m, log_s] = path.at(-1);
    const arrive = () => {
      mine.found[kind] = [m, Math.exp(log_s)];
      write({ q: mine.found[kind] }, page.pass);
      page.save();
      view.trail = { kind, path };
      page.redraw();
    };
    if (path.length < 2 || isCalm()) return arrive();
    const me = (view.slide = {});
    glide(path, (part) => {
      if (view.slide !== me) return false;
      if (known() !== mine || !page.el.isConnected) return write({}); // somebody else has moved the bumps, or all is over
      view.trail = { kind, path: part };
      const [mean, log_sd] = part.at(-1);
      page.pass({ q: [mean, Math.exp(log_sd)] });
      return true;
    }, () => view.slide === me && arrive());
    page.redraw();
  }
  return {
    write, look, slide,
    q: (q) => write({ q: limited(q, Q_SDS) }),
    bump: (k, bump) => write({ bumps: page.get("bumps").map((b, i) => (i === k ? limited(bump, BUMP_SDS) : b)) }),
    reset: () => {
      known().found = {};
      view.kind = "reverse";
      write({});
    },
  };
}

// The weight, the numbers and the slides: what stands beside the landscape.
function side(page, act) {
  const weight = slider({
    name: "weight", symbol: ["first bump’s share ", math("w")], label: "Weight of the first bump", min: 0.05, max: 0.95, step: 0.05,
    get: () => page.get("weight"), set: (v) => act.write({ weight: v }),
  });
  weight.node.classList.add("fl-wordy");
  const sum = ledger([0, 8], [
    { name: "forward", text: [math(NAMES.forward)], color: COLORS.forward, digits: 3 },
    { name: "reverse", text: [math(NAMES.reverse)], color: COLORS.reverse, digits: 3 },
    { name: "m", text: ["mean ", math("m"), " of ", math("q")] },
    { name: "s", text: ["sd ", math("s"), " of ", math("q")] },
  ]);
  const slides = KINDS.map((kind) => {
    const node = button("", { "data-slide": kind }, () => act.slide(kind));
    node.append(swatch(COLORS[kind]), "slide down ", math(NAMES[kind]));
    return node;
  });
  const draw = (values) => {
    weight.draw();
    sum.draw(values);
  };
  return { weight: weight.node, node: sum.node, slides: row(...slides), draw };
}

// The charts are built for a width in pixels, so that text and handles have their size on a phone.
function charts(width, page, act) {
  const [main, beside] = [pictureWidth(width), width >= BESIDE];
  return {
    densities: densities(main, beside ? 190 : 180, page, act),
    integrands: integrands(main, beside ? 140 : 136),
    landscape: landscape(beside ? RAIL - 20 : width, beside ? 206 : 270, page, act),
  };
}

// What each divergence pays most for, after where q is.
function sayBills(node, { table }, state, values, { x, log_p, log_q, peaks }) {
  put(node, {}, ...spelled(`${whereabouts(table, state)} `), ...KINDS.map((kind) => {
    const i = peaks[kind];
    const words = bill(kind, values[kind], x[i], Math.abs(log_p[i] - log_q[i]));
    return make("span", { class: "fl-bill" }, swatch(COLORS[kind]), ...spelled(`${words} `));
  }));
}

function render({ model, el }) {
  const page = openPage(el, model, TRAITS, TRAITS);
  const view = { kind: "reverse", trail: { kind: "reverse", path: [] }, slide: null };
  const known = knowledge(page);
  const act = actions(page, view, known);
  const toggles = choice(KINDS.map((kind) => [math(NAMES[kind]), kind, { "data-landscape": kind }]), () => view.kind, act.look);
  const [beside, say, pictures, map] = [side(page, act), saying(), make("div", { class: "fl-kl" }), make("div", {})];
  const ends = tools(page, TRAITS, act.reset);
  const half = task(page, "half", "Put $q$ so that $KL(q‖p)$ is below 0.75 nats although half of the data is left out.");
  const presets = Object.entries(PRESETS).map(([name, p]) => preset(name, () => act.write(p, page.give)));
  const which = { class: "fl-row", role: "group", "aria-label": "Divergence whose landscape is shown" };
  el.replaceChildren(frame(
    [pictures, later(beside.weight), later(say), later(row(...presets, ...ends.nodes))],
    [make("div", which, make("b", {}, "landscape"), ...toggles.nodes), map, beside.node, beside.slides, half.node]));

  let drawn = {};
  const build = whenNew((width) => {
    drawn = charts(width, page, act);
    pictures.replaceChildren(drawn.densities.node, drawn.integrands.node);
    map.replaceChildren(drawn.landscape.node, greys());
  });

  return page.run((width) => {
    build(width);
    const [state, now] = [page.state(), known()];
    const [{ q }, { table }] = [state, now];
    const [lows, curves] = [now.lows(view.kind), curvesOf(table, q)];
    const values = { forward: forward(table, ...q).value, reverse: reverse(table, ...q).value, m: q[0], s: q[1] };
    drawn.densities.draw(curves, now.found);
    drawn.integrands.draw(curves);
    drawn.landscape.draw(lows, view.trail.kind === view.kind ? view.trail.path : []);
    toggles.draw();
    beside.draw(values);
    sayBills(say, now, state, values, curves);
    half.draw(...judge(state, values));
    ends.draw();
    mirror(el, { ...state, landscape: view.kind, sliding: view.slide !== null });
    el.dataset.minima = lows.places.map(([m, s]) => `${m},${s}`).join(";");
  });
}

export default { render };
