// FixedPointExplorer: x <- z - g(x), of a curve and of a trained block: when it arrives, how fast, what is known.

const VIEWS = { curve: ["a curve", curveView], block: ["a trained block", blockView] };
const WORK = ["points", "z", "latent"];
const TRAITS = ["view", ...WORK, "turn", "guess", "step", "accelerated"];
const TOL = 1e-3; // of the answer
const MOST = 2000; // evaluations, as flowlib's
const LOOSE = 20000; // the same where nothing bounds the error, and one can only watch
const AWAY = 1000; // from here it does not come back
const FLOOR = 4 * 2 ** -52; // what rounding leaves, as flowlib's

// --- the iteration ----------------------------------------------------------------------------

const minus = (a, b) => a.map((v, i) => v - b[i]);
const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
const norm = (a) => Math.sqrt(dot(a, a));
const distance = (a, b) => norm(minus(a, b));

// x <- F(x) from x0, as flowlib.fixed_point goes. Of each evaluation: where F was evaluated, whether the
// step was kept, the answer, and a bound on its error. Accelerated, it goes where the last steps together
// point, as long as the step then shrinks by c at least; if not, it goes back and takes the plain step.
// `needed` is the number of evaluations after which the bound is within the tolerance. It goes on to the
// last digit, or to steps below `fine`.
function iterate(F, x0, c, accelerated, fine = 0) {
  const far = c / (1 - c);
  const walk = [];
  let [trial, answers, steps, length, count, bold, needed] = [x0, [], [], 0, 0, false, null];
  while (walk.length < MOST) {
    const before = length;
    let made = F(trial);
    let moved = minus(made, trial);
    length = norm(moved);
    const kept = !bold || length <= c * before;
    if (!kept) [made, moved, length] = [answers[0], steps[0], before];
    count = kept ? count + 1 : 1; // of points since it went back
    [answers, steps] = [[made, ...answers], [moved, ...steps]].map((last) => last.slice(0, 3));
    const [reached, size] = [far * length, norm(made)];
    walk.push({ trial, kept, answer: made, reached });
    const stalled = kept && count > 1 && length >= before && length <= FLOOR * (1 + far) * size;
    const ends = length <= FLOOR * size || stalled;
    if (needed === null && (reached <= TOL || ends)) needed = walk.length;
    if (ends || length <= fine) break;
    bold = accelerated && kept && count > 1;
    trial = bold ? extrapolated(answers, steps, count) : made;
  }
  return { walk, needed, fate: "arrives", home: walk.at(-1).answer };
}

// Where the combination of the last answers lies whose step would be the shortest (Anderson, depth 2). A
// little is added to the diagonal: differences that are zero or parallel stay solvable.
function extrapolated(answers, steps, count) {
  const change = (last, k) => (count > k + 1 ? minus(last[k], last[k + 1]) : last[0].map(() => 0));
  const [[da, ds], [db, dt]] = [0, 1].map((k) => [change(answers, k), change(steps, k)]);
  let [aa, bb, ab] = [dot(ds, ds), dot(dt, dt), dot(ds, dt)];
  const scale = aa + bb + 2 ** -1022;
  const [ar, br] = [dot(ds, steps[0]) / scale, dot(dt, steps[0]) / scale];
  [aa, bb, ab] = [aa / scale + 1e-10, bb / scale + 1e-10, ab / scale];
  const det = aa * bb - ab * ab;
  const [first, second] = [(bb * ar - ab * br) / det, (aa * br - ab * ar) / det];
  const to = answers[0].map((v, i) => v - first * da[i] - second * db[i]);
  return to.every(Number.isFinite) ? to : answers[0];
}

// The plain iteration where no bound holds: one watches whether it arrives, goes round, or leaves.
function watched(F, x0) {
  const walk = [];
  let [x, seen, fate] = [x0, x0, "goes round"];
  for (let count = 1; count <= LOOSE; count++) {
    const made = F(x);
    walk.push({ trial: x, kept: true, answer: made, reached: Infinity });
    const length = distance(made, x);
    if (length < 1e-9) fate = "arrives";
    if (norm(made) > AWAY) fate = "leaves";
    if (fate !== "goes round" || (count > 100 && distance(made, seen) < 1e-12)) break; // the same place again
    if ((count & (count - 1)) === 0) seen = made;
    x = made;
  }
  return { walk, needed: null, fate, home: walk.at(-1).answer };
}

// The answer where it stops, or the last one, and the errors after 0, 1, ... evaluations.
const answerOf = ({ walk, needed }) => walk[(needed ?? walk.length) - 1].answer;
const errorsOf = ({ walk }, x0, home) => [distance(x0, home), ...walk.map(({ answer }) => distance(answer, home))];

// --- the curve --------------------------------------------------------------------------------

const CORNER = 0.25; // half the width of a rounded corner
const STEEPEST = 1.3;
const SQUARE = [-3.5, 3.5];
const TALLEST = [-8, 8];
const LINE = (slope) => TICKS.map((x) => slope * x);
const CURVES = {
  gentle: { points: [-0.9, -0.7, -0.2, 0.3, 0.6, 0.4, 0.1], z: -0.5 },
  "slope −0.95": { points: LINE(-0.95), z: 0.1 },
  "slope +0.97": { points: LINE(0.97), z: 0.5 },
  "slope 1.2": { points: [-1.2, -1.2, -1.2, 0, 1.2, 1.2, 1.2], z: 0.5 },
  "steep elsewhere": { points: [-0.4, -0.3, -0.1, 0.2, 0.4, 0.5, 1.8], z: -0.8 },
  fold: { points: [1.25, 1.25, 1.25, 0, -1.25, -1.25, -1.25], z: 0.1 },
};

const slopesOf = (points) => points.slice(1).map((p, i) => p - points[i]);
const largest = (points) => Math.round(1e9 * Math.max(...slopesOf(points).map(Math.abs))) / 1e9;

// Straight pieces whose corners are averaged over x ± CORNER: g(x) and its slope.
function curve(points) {
  const slopes = slopesOf(points);
  return (x) => {
    let [value, slope] = [points[0] + slopes[0] * (x - TICKS[0]), slopes[0]];
    for (let k = 1; k < slopes.length; k++) {
      const [u, turn] = [x - TICKS[k], slopes[k] - slopes[k - 1]];
      if (u <= -CORNER) break;
      const inside = Math.min(u, CORNER) + CORNER;
      value += turn * ((inside * inside) / (4 * CORNER) + Math.max(u - CORNER, 0));
      slope += (turn * inside) / (2 * CORNER);
    }
    return [value, slope];
  };
}

// Every x with x + g(x) = z, piece by piece: linear between the corners, quadratic in them. `stretch` says
// whether a whole piece of them is among them.
function solutions(points, z) {
  const g = curve(points);
  const slopes = slopesOf(points).map((s) => 1 + s);
  const [found, near, last] = [[], 1e-9, slopes.length - 1];
  let stretch = false;
  // Between low and high: a u² + b u + c = 0, where u is counted from a point of the piece.
  const solve = (low, high, from, a, b) => {
    const c = from + g(from)[0] - z;
    const us = Math.abs(a) > near ? parabola(a, b, c) : Math.abs(b) > near ? [-c / b] : [];
    found.push(...us.map((u) => from + u).filter((x) => low - near <= x && x <= high + near));
    if (Math.max(Math.abs(a), Math.abs(b), Math.abs(c)) > near) return;
    stretch = true;
    found.push(Math.max(low, SQUARE[0]), Math.min(high, SQUARE[1]));
  };
  slopes.forEach((b, k) => {
    const [low, high] = [k ? TICKS[k] + CORNER : -Infinity, k < last ? TICKS[k + 1] - CORNER : Infinity];
    solve(low, high, k < last ? high : low, 0, b);
    if (k < last) solve(high, high + 2 * CORNER, high, (slopes[k + 1] - b) / (4 * CORNER), b);
  });
  found.sort((a, b) => a - b);
  return { found: found.filter((x, i) => !i || x - found[i - 1] > 1e-7), stretch };
}

function parabola(a, b, c) {
  const inner = b * b - 4 * a * c;
  if (inner < 0) return [];
  const q = -0.5 * (b + (b < 0 ? -1 : 1) * Math.sqrt(inner));
  return [q / a, q ? c / q : 0];
}

// A point moved as far as the slopes beside it let it.
function bent(points, k, value) {
  const beside = [points[k - 1], points[k + 1]].filter((v) => v !== undefined);
  const [low, high] = [Math.max(...beside) - STEEPEST, Math.min(...beside) + STEEPEST];
  return points.map((p, i) => (i === k ? clamp(clamp(value, TALLEST), [low, high]) : p));
}

// All that is shown of a curve and a z.
function measureCurve(points, z) {
  const [g, c, { found, stretch }] = [curve(points), largest(points), solutions(points, z)];
  const F = ([x]) => [z - g(x)[0]];
  const plain = c < 1 ? iterate(F, [z], c, false) : watched(F, [z]);
  const fast = c < 1 ? iterate(F, [z], c, true) : null;
  const by = (x) => Math.abs(x - (plain.fate === "leaves" ? z : plain.home[0]));
  const home = stretch ? plain.home[0] : found.reduce((best, x) => (by(x) < by(best) ? x : best), found[0]);
  plain.errors = errorsOf(plain, [z], [home]);
  if (fast) fast.errors = errorsOf(fast, [z], [home]);
  // Without a bound, only who knows x can say when it is there.
  if (c >= 1 && plain.fate === "arrives") plain.needed = Math.max(1, plain.errors.findLastIndex((e) => e > TOL) + 1);
  return { z, g, c, plain, fast, home, found, stretch, fall: Math.min(...slopesOf(points)), here: g(home)[1] };
}

// --- words ------------------------------------------------------------------------------------

const NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven"];
const many = (needed) => (needed === null ? `more than ${MOST}` : `${needed}`);

// What the curve's state says: of the map, of the iteration, and of what the reader expected.
function sayCurve(m, guess) {
  if (m.c < 1)
    return `Each step keeps at most ${show(m.c)} of the error, so there is one $x$, and plain steps arrive from anywhere. ` +
      (m.c > 0 ? `Near $x$ they keep ${show(Math.abs(m.here))}.` : "Here one step is enough.") + told(m, guess);
  const count = m.found.length;
  const [steeper, even] = [m.fall < -1 - 1e-9, Math.abs(m.fall + 1) <= 1e-9]; // than x rises
  const map = m.stretch ? "A whole stretch of $x$ has this $z$: it cannot be undone."
    : count > 1 ? `${NUMBERS[count] ?? count} different $x$ have this $z$: it cannot be undone.`.replace(/^./, (first) => first.toUpperCase())
    : count === 0 ? "No $x$ has this $z$: it cannot be undone."
    : steeper ? "This $z$ has one $x$, but others have several: $g$ falls faster than $x$ rises."
    : even ? "This $z$ has one $x$, but where $g$ falls as fast as $x$ rises, others share theirs."
    : "One $x$ all the same: $x + g(x)$ rises everywhere.";
  const none = m.stretch || count > 1 ? "none of them" : "no $x$";
  const one = count > 1 || m.stretch ? "one of them, which the start chooses" : "it";
  const near = m.stretch ? "" : `: near there a step keeps ${show(Math.abs(m.here))} of the error. No bound promises that`;
  const fate = {
    arrives: `The iteration finds ${one}${near}.`,
    "goes round": `The iteration finds ${none}: it goes round for ever.`, leaves: `The iteration ${count ? `finds ${none}: it ` : ""}leaves.`,
  }[m.plain.fate];
  return `${map} ${fate}${told(m, guess)}`;
}

const LONGEST = "Three different x have this z: it cannot be undone. The iteration finds one of them, which the start chooses: " +
  "near there a step keeps 0.97 of the error. No bound promises that. You said on either side: it is where it falls, only.";
const SIDES = { rises: "where it rises", falls: "where it falls", both: "on either side" };
function told(m, guess) {
  if (!guess) return "";
  if (m.c <= 1) return ` You said ${SIDES[guess]}: push $c$ past 1 to see.`;
  return ` You said ${SIDES[guess]}: ${guess === "falls" ? "so it is" : "it is where it falls, only"}.`;
}

const TURNS = [
  ["slow", "Bend the curve so that the plain iteration needs more than 60 evaluations and still arrives."],
  ["never", "Make the iteration never arrive, with a largest slope of at most 1.05."],
];
const JUDGES = [
  ({ c, plain, here }) => {
    if (plain.fate !== "arrives") return [false, `It ${plain.fate}.`];
    if (plain.needed !== null && plain.needed <= 60) return [false, `It needs ${plain.needed}.`];
    const sure = c < 1 ? "" : ", and no bound says that it arrives";
    return [true, `Done: ${many(plain.needed)}. Near $x$ each step keeps ${show(Math.abs(here), 3)} of the error${sure}.`];
  },
  ({ c, plain, here }) => {
    if (c < 1) return [false, `The largest slope is ${show(c)}: below 1 it always arrives.`];
    if (plain.fate === "arrives") return [false, `It arrives: at $x$ the slope is ${show(here)}.`];
    if (c > 1.05 + 1e-9) return [false, `It ${plain.fate}, but the largest slope is ${show(c, 3)}.`];
    return [true, `Done: it ${plain.fate}, at a largest slope of ${show(c, 3)}.`];
  },
];

function judgeLong({ plain }, { enough, most, from }) {
  const needs = `It needs ${many(plain.needed)}`;
  if (plain.needed === null || plain.needed >= enough)
    return [true, `Done: ${needs.toLowerCase()}. How long a way is depends on how steep $g$ is round $x$.`];
  return [false, `${needs}; from somewhere it is ${most}.`];
}

// --- the pictures that both views have --------------------------------------------------------

// The path through points of a chart, cut where it leaves the box.
function within(it, points) {
  const { left, right, top, bottom } = it.box;
  const sides = [[left, right], [top, bottom]];
  const inside = (p) => p.every((v, i) => sides[i][0] - 0.1 <= v && v <= sides[i][1] + 0.1);
  // From a point inside towards one outside: where that crosses the edge.
  const cut = (p, q) => {
    const share = Math.min(...p.flatMap((v, i) => sides[i].map((side) => (side - v) / (q[i] - v)).filter((t) => t >= 0)));
    return p.map((v, i) => v + clamp(share, [0, 1]) * (q[i] - v));
  };
  const written = (p) => p.map((v) => v.toFixed(2)).join(" ");
  let [d, last] = ["", null];
  for (const p of points.map(it.at)) {
    if (inside(p)) d += last && inside(last) ? `L${written(p)}` : `M${last ? `${written(cut(p, last))}L` : ""}${written(p)}`;
    else if (last && inside(last)) d += `L${written(cut(last, p))}`;
    last = p;
  }
  return d;
}

const HIGH = [-7.4, 1.4]; // powers of ten
const SPANS = [20, 40, 80, 160, 320, 640, 1280, MOST];

// The errors on a logarithmic axis, with the bound, the tolerance, and where each iteration stops.
function errorChart(width, height) {
  const it = chart({ x: [0, 1], y: HIGH, width, height, room: [8, 12, 26, 44], label: "The error after each evaluation, on a logarithmic axis" });
  const { left, right, top, bottom } = it.box;
  it.add("path", line("var(--fl-muted)", 1, { d: `M${left} ${top}V${bottom}H${right}` }));
  for (const [e, words] of [[1, "1"], [TOL, `${TOL}`], [1e-6, powerOfTen(-6)]]) {
    const y = it.at([0, Math.log10(e)])[1];
    it.add("path", line("var(--fl-muted)", 1, { d: `M${left} ${y}h-4` }));
    it.text([left - 7, y + 4.5], words, { "text-anchor": "end" });
    if (e === TOL) it.add("path", line("var(--fl-ink)", 1, { d: `M${left} ${y}H${right}`, "stroke-dasharray": "1.5 3" }));
  }
  const ends = [0, 0.5, 1].map((u) => it.text([it.at([u, 0])[0], bottom + 18], "", { "text-anchor": ["start", "middle", "end"][2 * u] }));
  const bound = it.add("path", line("var(--fl-muted)", 2, { "stroke-dasharray": "6 4" }));
  const [plain, fast] = ["var(--fl-data)", "var(--fl-third)"].map((color) => it.add("path", line(color, 2.2)));
  const none = it.text([right, top + 11], "no bound", { class: "fl-small fl-cased", "text-anchor": "end" });
  const now = it.add("path", line("var(--fl-ink)", 1.5));
  const [high, low] = ["var(--fl-panel)", "var(--fl-ink)"].map((fill) => it.add("circle", { r: 4, fill, stroke: "var(--fl-ink)", "stroke-width": 1.8 }));
  const stops = ["var(--fl-data)", "var(--fl-third)"].map((color) => [
    it.add("circle", disc(color, 5.5)), it.text([0, 0], "", { class: "fl-small fl-cased", style: `fill:${color}; font-weight:600` }),
  ]);

  // `at` is the evaluation that is looked at, with the bound and the error there.
  function draw({ c, plain: slow, fast: quick, at }) {
    const span = SPANS.find((one) => one >= 1.04 * (slow.needed ?? (slow.fate === "arrives" ? MOST : 60))) ?? MOST;
    const place = (t, e) => [t / span, Math.log10(Math.max(e, 1e-300))];
    const trace = ({ errors }) => within(it, errors.slice(0, span + 1).map((e, t) => place(t, e)));
    put(plain, { d: trace(slow) });
    put(fast, { d: quick ? trace(quick) : "" });
    const start = slow.errors[0];
    put(bound, { d: c < 1 ? within(it, steps(200, 0, 1).map((u) => place(u * span, start * c ** (u * span)))) : "" });
    none.style.display = c < 1 ? "none" : "";
    ends.forEach((node, k) => setText(node, k === 2 ? `${span}` : `${(k * span) / 2}`));
    [slow, quick].forEach((one, k) => {
      const [mark, words] = stops[k];
      const shown = one && one.needed !== null;
      mark.style.display = words.style.display = shown ? "" : "none";
      if (!shown) return;
      const [x, y] = it.at(place(one.needed, one.errors[one.needed]));
      const seen = clamp(y, [top, bottom]);
      put(mark, { cx: x, cy: seen });
      // The accelerated one's number stands at its left, and each at the other side where there is no room.
      const isLeft = k ? x - left > 34 : right - x <= 34;
      const y1 = clamp(seen + (k ? 14 : -7), [top + 12, bottom - 5]);
      put(words, { x: x + (isLeft ? -9 : 9), y: y1, "text-anchor": isLeft ? "end" : "start" });
      setText(words, `${one.needed}`);
    });
    for (const node of [now, high, low]) node.style.display = at ? "" : "none";
    if (!at) return;
    const [[x, y0], [, y1]] = [place(at.t, at.reached), place(at.t, at.error)].map(it.at).map(([u, v]) => [u, clamp(v, [top, bottom])]);
    put(now, { d: `M${x} ${y0}V${y1}` });
    put(high, { cx: x, cy: y0 });
    put(low, { cx: x, cy: y1 });
  }
  return { svg: it.svg, draw };
}

const errorTitle = () => titled("error, by evaluations");
const power = make("span", { class: "fl-math" }, make("var", {}, "c"), make("sup", {}, make("var", {}, "t")));
const colors = () => legend(
  [swatch("var(--fl-data)"), "plain"], [swatch("var(--fl-third)"), "accelerated"], [dashes("var(--fl-muted)"), "bound ", power.cloneNode(true)]);

// The two pictures of a view: side by side, or on a phone below one another.
const BROAD = 460; // pixels
const columnsOf = ([[one], [two]]) => (one === two ? "1fr" : `minmax(0, ${one}fr) minmax(0, ${two}fr)`);
function sizesOf(width) {
  if (width < BROAD) return [[width, Math.round(0.66 * width)], [width, 126]];
  const side = Math.min(340, Math.round(0.56 * width));
  return [[side, side], [width - side - 12, side]];
}

// Named numbers below one another: each has its own way to be written, or is given in words.
const whole = (v) => (v === Infinity ? "∞" : `${v}`);
const short = (v) => {
  const power = Math.floor(Math.log10(v));
  return v > 0 && power < -4 ? `${show(v / 10 ** power, 0)} · ${powerOfTen(power)}` : show(v, v < 0.1 ? 4 : 2);
};
function figures(rows) {
  const outs = rows.map(([name]) => make("output", { "data-readout": name }));
  const node = make("div", { class: "fl-sum fl-figures" }, ...rows.flatMap(([, text], k) => [make("span", {}, ...text), outs[k]]));
  const draw = (values) => rows.forEach(([name, , write = whole], k) => {
    const v = values[name];
    put(outs[k], { "data-value": typeof v === "number" ? v : NaN });
    setText(outs[k], typeof v === "number" ? write(v) : v);
  });
  return { node, draw };
}

// --- the curve's view -------------------------------------------------------------------------

// The graph of F, the diagonal, and the path of the iterates. The points of g are taken on the graph.
function cobweb({ get, set }, [width, height]) {
  const it = chart({
    x: SQUARE, y: SQUARE, width, height, room: [8, 8, 24, 34],
    label: "The graph of F, the diagonal, and the path of the iterates",
  });
  const { left, right, top, bottom } = it.box;
  it.add("path", line("var(--fl-latent)", 1.5, { d: `M${left} ${top}V${bottom}` }));
  it.add("path", line("var(--fl-data)", 1.5, { d: `M${left} ${bottom}H${right}` }));
  it.add("path", line("var(--fl-muted)", 1.2, { d: it.path(SQUARE.map((v) => [v, v])) }));
  TICKS.forEach((v) => it.text([it.at([v, 0])[0], bottom + 17], show(v, 0), { "text-anchor": "middle" }));
  const heights = TICKS.map((v) => it.text([left - 12, it.at([0, v])[1] + 4.5], show(v, 0), { "text-anchor": "end" }));
  const thread = it.add("path", line("var(--fl-latent)", 1.2, { "stroke-dasharray": "2 3" }));
  const graph = it.add("path", line("var(--fl-ink)", 2.6));
  const steep = it.add("path", line("var(--fl-wrong)", 4.5, { "stroke-dasharray": "7 3" }));
  const stretch = it.add("path", line("var(--fl-wrong)", 7, { "stroke-linecap": "round" }));
  const web = it.add("path", line("var(--fl-data)", 1.6, { "stroke-opacity": 0.9 }));
  const homes = it.add("g", {});
  const name = label(it, "z", { "text-anchor": "end" });
  const inside = (y) => clamp(y, [SQUARE[0] + 0.1, SQUARE[1] - 0.1]);
  const knots = TICKS.map((x, k) => {
    const own = () => get("z") - get("points")[k];
    return grip(it, {
      name: `point-${k + 1}`, label: `F at x = ${show(x, 0)}`, color: "var(--fl-ink)", range: SQUARE, up: true,
      get: own, set: (height) => set({ points: bent(get("points"), k, get("z") - height) }),
      place: () => [x, inside(own())], found: ([, y]) => y, nudge: byTwentieths,
    });
  });
  const edge = it.x[0] + (left / width) * (it.x[1] - it.x[0]); // the left axis
  const hand = grip(it, {
    name: "z", label: "The latent number z", color: "var(--fl-latent)", range: [-3, 3], up: true,
    get: () => get("z"), set: (z) => set({ z: clamp(z, [-3, 3]) }),
    place: () => [edge, get("z")], found: ([, y]) => y, nudge: byTwentieths,
  });
  function draw(m) {
    const F = (x) => m.z - m.g(x)[0];
    const xs = steps(280, ...SQUARE);
    const isSteep = (x) => Math.abs(m.g(x)[1]) >= 1 - 1e-9;
    const drawn = (holds) => parts(xs, holds).map((part) => within(it, part.map((x) => [x, F(x)]))).join("");
    put(graph, { d: drawn((x) => !isSteep(x)) });
    put(steep, { d: drawn(isSteep) });
    put(stretch, { d: m.stretch ? within(it, parts(xs, (x) => Math.abs(x + m.g(x)[0] - m.z) < 1e-9).flat().map((x) => [x, x])) : "" });
    const walk = m.plain.walk.slice(0, 100);
    const stairs = [[m.z, m.z], ...walk.flatMap(({ trial: [x], answer: [y] }) => [[x, y], [y, y]])];
    put(web, { "stroke-width": walk.length < 40 ? 1.6 : 1, d: within(it, stairs) });
    const spots = m.found.filter((x) => x === clamp(x, SQUARE)).map((x) => it.at([x, x]));
    put(homes, {}, ...(m.stretch ? [] : spots).map(([cx, cy]) => make("svg:circle", { cx, cy, ...disc("var(--fl-data)", 6.5) })));
    put(thread, { d: it.path([[SQUARE[0], m.z], [m.z, m.z]]) });
    const height = it.at([0, m.z])[1];
    put(name, { x: left - 13, y: height + 5 });
    heights.forEach((text, i) => (text.style.visibility = Math.abs(it.at([0, TICKS[i]])[1] - height) < 17 ? "hidden" : "visible"));
    knots.forEach((one) => one.draw());
    hand.draw();
  }
  return { svg: it.svg, draw };
}

// The runs of neighbours of which something holds.
function parts(xs, holds) {
  const found = [];
  xs.forEach((x, i) => {
    if (!holds(x)) return;
    if (i && holds(xs[i - 1])) found.at(-1).push(x);
    else found.push([x]);
  });
  return found;
}

function curveView(page) {
  const { get, set } = page;
  const body = make("div", { class: "fl-pair" });
  let [left, right] = [null, null];
  const build = whenNew(([one, two]) => {
    [left, right] = [cobweb(page, one), errorChart(...two)];
    body.style.gridTemplateColumns = columnsOf([one, two]);
    body.replaceChildren(
      make("div", {}, titled(math("F(x) = z − g(x)"), " and its iterates"), left.svg), make("div", {}, errorTitle(), right.svg));
  });
  let shape = CURVES.gentle.points; // what a slope is given to when all are zero
  const shaped = () => (largest(get("points")) ? (shape = get("points")) : shape);
  const scaled = (c) => {
    const of = shaped();
    return of.map((p) => clamp((p * c) / largest(of), TALLEST));
  };
  const slope = slider({
    name: "slope", symbol: ["largest slope ", math("c")], label: "The largest slope of g", min: 0, max: STEEPEST, step: 0.01,
    get: () => largest(get("points")), set: (c) => set({ points: scaled(c) }),
  });
  const sum = figures([
    ["slope", ["largest slope ", math("c")], show],
    ["plain", ["plain evaluations"]],
    ["accelerated", ["accelerated ones"]],
    ["solutions", [math("x"), " with this ", math("z")]],
    ["answer", ["the answer ", math("x")], (v) => show(v, 3)],
  ]);
  const [say, ends] = [saying(), tools(page, [...WORK, "guess"])];
  const turns = TURNS.map(([name, words]) => task(page, name, words));
  const which = choice(TURNS.map((_, k) => [`task ${k + 1}`, k, { "data-turn": k }]), () => get("turn"), (turn) => set({ turn }));
  const guesses = choice(Object.entries({ rises: "rises", falls: "falls", both: "either" })
    .map(([name, words]) => [words, name, { "data-guess": name }]), () => get("guess"), (name) => set({ guess: get("guess") === name ? "" : name }));
  const presets = Object.fromEntries(Object.entries(CURVES).map(([name, state]) => [name, () => structuredClone(state)]));
  const asked = make("span", { class: "fl-question" }, make("b", {}, "Predict. "), "Past 1, two ", math("x"), " share a ", math("z"), " where ", math("g"));
  const node = frame([
    colors(), body, next(make("div", { class: "fl-slope" }, slope.node)),
    later(make("div", { class: "fl-row fl-tight" }, asked, ...guesses.nodes)), later(presetRow(page, presets)),
  ], [
    sum.node, roomy(say, LONGEST),
    make("div", { class: "fl-row fl-tight" }, ...which.nodes), ...turns.map((one) => one.node), ends.node,
  ]);

  function draw(width) {
    build(sizesOf(pictureWidth(width)));
    const m = measureCurve(get("points"), get("z"));
    shaped();
    left.draw(m);
    right.draw(m);
    const sure = m.c < 1;
    const arrives = m.plain.fate === "arrives";
    sum.draw({
      slope: m.c, plain: arrives ? (m.plain.needed ?? `> ${MOST}`) : m.plain.fate,
      accelerated: sure ? (m.fast.needed ?? `> ${MOST}`) : "no bound",
      solutions: m.stretch ? Infinity : m.found.length,
      answer: sure ? answerOf(m.fast)[0] : arrives ? m.plain.home[0] : "none",
    });
    setSpelled(say, sayCurve(m, get("guess")));
    turns.forEach((one, k) => (one.node.hidden = k !== get("turn")));
    turns[get("turn")].draw(...JUDGES[get("turn")](m));
    [slope, which, guesses, ends].forEach((one) => one.draw());
    return { fate: m.plain.fate, found: m.found, answers: [m.plain, m.fast].map((run) => (run?.needed ? answerOf(run)[0] : "")) };
  }
  return { node, draw };
}

// --- the block's view -------------------------------------------------------------------------

const BENDS = { Sine: Math.sin, Tanh: Math.tanh, ELU: (h) => (h > 0 ? h : Math.exp(h) - 1) };
const WIDE = 3.2; // how far the plane is seen
const NEAR = [-2.5, 2.5];
const RINGS = [0.25, 0.5, 1, 1.5, 2];
const ROUND = 40; // points of a ring

// The block's g, of a point.
function network({ layers, activations }) {
  return (x) => layers.reduce((h, [weight, bias], k) => {
    const [name, scale] = k ? activations[k - 1] : [];
    const from = k ? h.map((v) => BENDS[name](scale * v) / scale) : h;
    return weight.map((row, i) => row.reduce((sum, w, j) => sum + w * from[j], bias[i]));
  }, x);
}

function measureBlock(g, c, z) {
  const F = (x) => minus(z, g(x));
  const [plain, fast] = [iterate(F, z, c, false), iterate(F, z, c, true)];
  const home = fast.home;
  for (const run of [plain, fast]) run.errors = errorsOf(run, z, home);
  return { c, plain, fast, home };
}

// Where |x + g(x) - z| is as large as r: the inverse takes a circle round z there.
function ring(g, c, z, r, home) {
  let x = home;
  return range(ROUND + 1).map((k) => {
    const turn = (2 * Math.PI * k) / ROUND;
    const at = [z[0] + r * Math.cos(turn), z[1] + r * Math.sin(turn)];
    return (x = iterate((v) => minus(at, g(v)), x, c, true, 0.004).home);
  });
}

function blockPlane(page, g, c, [width, height]) {
  const { get, set } = page;
  const tall = (WIDE * height) / width;
  const it = axesPanel({
    x: [-WIDE, WIDE], y: [-tall, tall], width, height,
    label: "The plane: a latent point z, and the path of the iterates to x",
  });
  it.box = { left: 0, right: width, top: 0, bottom: height };
  axisNumbers(it, [-2, -1, 1, 2].filter((v) => Math.abs(v) < tall));
  it.add("path", line("var(--fl-faint)", 1, { d: `M0.5 0.5H${width - 0.5}V${height - 0.5}H0.5Z` }));
  const rings = it.add("path", line("var(--fl-muted)", 1, { "stroke-opacity": 0.55 }));
  const rim = it.add("path", line("var(--fl-ink)", 1.8));
  const way = it.add("path", line("currentColor", 1.6));
  const dots = it.add("path", line("currentColor", 5, { "stroke-linecap": "round" }));
  const lost = it.add("path", line("var(--fl-wrong)", 2.6, { "stroke-dasharray": "5 3" }));
  const goal = it.add("circle", disc("var(--fl-data)", 6.5));
  const here = it.add("circle", { r: 5, fill: "var(--fl-panel)", stroke: "var(--fl-ink)", "stroke-width": 2 });
  const [zName, xName] = ["z", "x"].map((words) => label(it, words, { class: "fl-math fl-cased" }));
  const hand = handle(it, {
    name: "latent", label: "The latent point z", color: "var(--fl-latent)",
    get: () => get("latent"), move: (point) => set({ latent: point.map((v) => clamp(v, NEAR)) }),
  });
  it.svg.addEventListener("click", (event) => {
    if (!event.target.closest(".fl-grab")) set({ latent: it.locate(event).map((v) => clamp(v, NEAR)) });
  });
  const drawRings = whenNew((z) => {
    let home = null;
    put(rings, { d: RINGS.map((r) => {
      const points = ring(g, c, z, r, home ?? z);
      home = points.at(-1);
      return within(it, points);
    }).join("") });
  });
  function draw(m, t, accelerated) {
    const z = get("latent");
    drawRings(z);
    const run = accelerated ? m.fast : m.plain;
    const taken = run.walk.slice(0, run.needed ?? undefined);
    const { trial, kept, answer, reached } = run.walk[t - 1];
    const color = accelerated ? "var(--fl-third)" : "var(--fl-data)";
    const places = [z, ...taken.map((one) => one.answer)];
    put(way, { d: within(it, places), style: `color:${color}` });
    put(dots, { d: places.slice(0, 200).map((p) => within(it, [p, p])).join(""), style: `color:${color}` });
    put(lost, { d: kept ? "" : within(it, [answer, trial]) });
    put(rim, { d: within(it, range(721).map((k) => [0, 1].map((i) => answer[i] + reached * [Math.cos, Math.sin][i]((Math.PI * k) / 360)))) });
    const [[hx, hy], [ax, ay], [zx, zy]] = [m.home, answer, z].map(it.at);
    put(goal, { cx: hx, cy: hy });
    put(here, { cx: ax, cy: ay });
    const sides = hx < zx ? [1, -1] : [-1, 1];
    [[zName, zx, zy, sides[0]], [xName, hx, hy, sides[1]]].forEach(([text, x, y, side]) =>
      put(text, { x: clamp(x + 13 * side, [12, width - 12]), y: clamp(y - 9, [16, height - 6]), "text-anchor": side > 0 ? "start" : "end" }));
    hand.draw();
  }
  return { svg: it.svg, draw };
}

function sayBlock(m, { t, reached, error, kept }) {
  const inside = `After ${t} ${t === 1 ? "evaluation" : "evaluations"} $x$ lies somewhere in the circle of radius ${short(reached)} round $F(x_t)$`;
  const back = kept ? "" : " This step did not shrink enough and was taken back.";
  const end = reached <= TOL ? ": that is near enough, and it stops." : `; in truth it is ${short(error)} away.`;
  return `${inside}${end}${back}`;
}

function blockView(page) {
  const { get, set } = page;
  const all = get("network");
  const [g, c, longest] = [network(all), all.lipschitz, get("longest")];
  const body = make("div", { class: "fl-pair" });
  let [left, right, m] = [null, null, null];
  const build = whenNew(([one, two]) => {
    [left, right] = [blockPlane(page, g, c, one), errorChart(...two)];
    body.style.gridTemplateColumns = columnsOf([one, two]);
    body.replaceChildren(make("div", {}, titled("from ", math("z"), " to ", math("x")), left.svg), make("div", {}, errorTitle(), right.svg));
  });
  const measure = whenNew((z) => (m = measureBlock(g, c, z)));
  const runOf = () => (get("accelerated") ? m.fast : m.plain);
  const last = () => runOf().needed ?? MOST;
  const step = slider({
    name: "step", symbol: ["step ", math("t")], label: "The evaluation that is shown", min: 1, max: 1, step: 1,
    get: () => Math.min(get("step"), last()), set: (t) => set({ step: t }), text: (t) => `${t} of ${last()}`,
  });
  const paths = choice([["plain", false, { "data-path": "plain" }], ["accelerated", true, { "data-path": "accelerated" }]],
    () => get("accelerated"), (accelerated) => set({ accelerated }));
  const sum = figures([
    ["slope", ["the bound ", math("c")], show],
    ["plain", ["plain evaluations"]],
    ["accelerated", ["accelerated ones"]],
    ["radius", ["circle’s radius"], short],
    ["error", ["true error in it"], short],
    ["answer", ["the answer ", math("x")]],
  ]);
  const [say, ends] = [saying(), tools(page, [...WORK, "step", "accelerated"])];
  const turn = task(page, "long", `Find a z from which the plain iteration needs at least ${longest.enough} evaluations.`);
  const presets = {
    near: () => ({ latent: [0.6, -0.4] }), far: () => ({ latent: [-2.2, 1.4] }), longest: () => ({ latent: longest.from }),
  };
  const node = frame([colors(), body, next(make("div", { class: "fl-step" }, step.node))], [
    sum.node, make("div", { class: "fl-row fl-tight" }, make("span", {}, "path"), ...paths.nodes), later(presetRow(page, presets)),
    roomy(say, "After 1000 evaluations $x$ lies somewhere in the circle of radius 0.0012 round $F(x_t)$; in truth it is 0.0011 away."), turn.node,
    ends.node,
  ]);

  function draw(width) {
    build(sizesOf(pictureWidth(width)));
    measure(get("latent"));
    const [run, t] = [runOf(), Math.min(get("step"), last())];
    const { reached, kept } = run.walk[t - 1];
    const at = { t, reached, kept, error: run.errors[t] };
    left.draw(m, t, get("accelerated"));
    right.draw({ ...m, at });
    const found = answerOf(m.fast);
    sum.draw({
      slope: c, plain: m.plain.needed ?? `> ${MOST}`, accelerated: m.fast.needed ?? `> ${MOST}`,
      radius: reached, error: at.error, answer: `(${found.map((v) => show(v, 3)).join(", ")})`,
    });
    put(step.node.querySelector("input"), { max: last() });
    setSpelled(say, sayBlock(m, at));
    turn.draw(...judgeLong(m, longest));
    [step, paths, ends].forEach((one) => one.draw());
    const slow = m.plain.needed ? answerOf(m.plain) : ["", ""];
    return { fate: "arrives", found: m.home, answers: [...slow, ...found], first: run.walk[0].answer };
  }
  return { node, draw };
}

// --- the frame around the two -----------------------------------------------------------------

function render({ model, el }) {
  const page = openPage(el, model, TRAITS, WORK);
  const views = Object.entries(VIEWS).filter(([view]) => view === "curve" || page.get("network").layers);
  const tabs = choice(views.map(([view, [words]]) => [words, view, { "data-view": view }]), () => page.get("view"), (view) => page.set({ view }));
  const stage = make("div", {});
  const bar = make("div", { class: "fl-views fl-halves", role: "group", "aria-label": "What is undone" }, ...tabs.nodes);
  el.replaceChildren(...(views.length > 1 ? [bar] : []), stage);

  // A view is built when it is first looked at; only the one that is looked at is on the page.
  const built = {};
  return page.run((width) => {
    const view = page.get("view");
    const it = (built[view] ??= VIEWS[view][1](page));
    if (stage.firstChild !== it.node) stage.replaceChildren(it.node);
    tabs.draw();
    mirror(el, { ...page.state(), ...it.draw(width) });
  });
}

export default { render };
