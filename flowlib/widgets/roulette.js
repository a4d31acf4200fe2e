// RouletteExplorer: log det(I + J) by a series that a coin ends, beside the truncated one, and what both cost.

const WORK = ["eigenvalues", "p", "n_exact", "probes"];
const TRAITS = [...WORK, "draws", "seed", "view", "turn", "guess"];
const LARGEST = 0.98; // absolute value of an eigenvalue
const P = [0.02, 0.95];
const SURE = [0, 10];
const PROBES = [1, 8];
const MOST = 2000; // draws
const [BASIS, BACK] = [[1, 1, 0.5, 1.5], [1.5, -1, -0.5, 1]]; // of J, row by row, and the inverse
const [SUMMED, BEYOND] = [20000, 2000]; // remainders in the variance, and terms after them, as the Python class has
const SLIVER = 2 ** -33; // half of the finest step of a random number
const AGREE = [1, -1, -1, 1]; // the products of the two signs of each of the four probes

// --- the matrix and its series ----------------------------------------------------------------

const times = ([a, b, c, d], [e, f, g, h]) => [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h];
const isPair = ([[, b]]) => b !== 0;
const rhoOf = (eigenvalues) => Math.max(...eigenvalues.map(([re, im]) => Math.hypot(re, im)));

function matrixOf(eigenvalues) {
  const [[a, b], [c]] = eigenvalues;
  return times(times(BASIS, isPair(eigenvalues) ? [a, -b, b, a] : [a, 0, 0, c]), BACK);
}

function exactOf(eigenvalues) {
  const [[a, b], [c]] = eigenvalues;
  return isPair(eigenvalues) ? Math.log((1 + a) ** 2 + b * b) : Math.log((1 + a) * (1 + c));
}

// Of each term of the series, from 1: its trace, and what is added to or taken from it as the two signs of
// a probe agree or not. All are divided by rho^k, and so are the sums of what is missing before term k.
function measureMatrix(eigenvalues) {
  const [rho, exact, J] = [rhoOf(eigenvalues), exactOf(eigenvalues), matrixOf(eigenvalues)];
  const last = SUMMED + BEYOND;
  const [traces, noises, missing, noise] = range(4).map(() => new Float64Array(last + 2));
  if (!rho) return { rho, exact, traces, noises, missing, noise };
  const unit = J.map((v) => v / rho);
  let power = [1, 0, 0, 1];
  for (let k = 1; k <= last; k++) {
    power = times(power, unit);
    const factor = (k % 2 ? 1 : -1) / k;
    traces[k] = factor * (power[0] + power[3]);
    noises[k] = factor * (power[1] + power[2]);
  }
  for (let k = last; k > 0; k--) {
    missing[k] = traces[k] + rho * missing[k + 1];
    noise[k] = noises[k] + rho * noise[k + 1];
  }
  return { rho, exact, traces, noises, missing, noise };
}

const costOf = ({ p, n_exact, probes }) => (n_exact + 1 / p) * probes;
const termsOf = ({ p, n_exact }) => Math.floor(n_exact + 1 / p + 0.5);

function truncatedOf({ rho, traces }, count) {
  let [sum, scale] = [0, 1];
  for (let k = 1; k <= count; k++) sum += (scale *= rho) * traces[k];
  return sum;
}

// The exact variance of a draw; see the Python class for the formula.
function varianceOf({ rho, missing, noise }, { p, n_exact, probes }) {
  const ratio = (rho * rho) / (1 - p);
  if (ratio > 1 + 1e-12) return Infinity;
  let [sum, power] = [0, 1];
  for (let m = n_exact + 2; m <= SUMMED; m++) {
    power *= ratio;
    sum += power * (missing[m] ** 2 + noise[m] ** 2 / probes);
    if (power < 1e-20) break;
  }
  return (noise[1] * rho) ** 2 / probes + p * rho ** (2 * (n_exact + 1)) * sum;
}
const priceOf = (m, s) => costOf(s) * varianceOf(m, s);

function cheapestOf(m, s) {
  const prices = range(Math.round(1000 * (P[1] - P[0])) + 1, 1000 * P[0]).map((k) => [priceOf(m, { ...s, p: k / 1000 }), k / 1000]);
  const [least, p] = prices.reduce((best, one) => (one[0] < best[0] ? one : best));
  return { least, p };
}

// --- the draws --------------------------------------------------------------------------------

// What the coin and the probes add up to: after n terms an estimate is base[n] plus swing[n] times the mean
// of the probes' signs.
function tablesOf({ rho, traces, noises }, { p, n_exact }) {
  const powers = []; // the chances that N is larger than 1, 2, ...
  for (let power = 1 - p; power > SLIVER; power *= 1 - p) powers.push(power);
  const [base, swing] = [[0], [0]];
  let [scale, survival] = [1, 1];
  for (let k = 1; k <= n_exact + 1 + powers.length; k++) {
    scale *= rho;
    if (k > n_exact + 1) survival *= 1 - p;
    base.push(base[k - 1] + (scale * traces[k]) / survival);
    swing.push(swing[k - 1] + (scale * noises[k]) / survival);
  }
  return { powers, base, swing };
}

// All draws of a seed: number of terms, estimate, and of the first so many their mean, its standard error
// and what they cost.
function drawAll({ base, swing, powers }, { n_exact, probes, seed }) {
  const [n, x, mean, error, spent] = range(5).map(() => new Float64Array(MOST));
  const start = Math.imul(seed, 0x9e3779b1);
  let [average, squares, products] = [0, 0, 0];
  for (let i = 0; i < MOST; i++) {
    const at = i * (1 + PROBES[1]);
    const coin = uniform(start, at) + SLIVER;
    let more = 0;
    while (more < powers.length && coin < powers[more]) more++;
    n[i] = n_exact + 1 + more;
    let agree = 0;
    for (let j = 1; j <= probes; j++) agree += AGREE[Math.floor(4 * uniform(start, at + j))];
    x[i] = base[n[i]] + (agree / probes) * swing[n[i]];
    const off = x[i] - average;
    average += off / (i + 1);
    squares += off * (x[i] - average);
    mean[i] = average;
    error[i] = i ? Math.sqrt(squares / i / (i + 1)) : NaN;
    spent[i] = products += n[i] * probes;
  }
  return { n, x, mean, error, spent };
}

// How far the pictures reach on either side of the exact value: nine tenths of all draws are well inside.
function reachOf({ base, swing }, { p, n_exact, probes }, exact, bias) {
  const found = [];
  let chance = p;
  for (let n = n_exact + 1; n < base.length && chance > 1e-6; n++, chance *= 1 - p) {
    let binomial = chance / 2 ** probes;
    for (let h = 0; h <= probes; h++) {
      found.push([Math.abs(base[n] + ((2 * h) / probes - 1) * swing[n] - exact), binomial]);
      binomial *= (probes - h) / (h + 1);
    }
  }
  found.sort((a, b) => a[0] - b[0]);
  let sum = 0;
  const [away] = found.find(([, share]) => (sum += share) >= 0.9) ?? found.at(-1);
  return Math.max(1.3 * Math.abs(bias), 1.5 * away, 1e-3);
}

// --- the plane of eigenvalues -----------------------------------------------------------------

const SNAP = 0.07; // nearer to the real axis there are two real eigenvalues

const inDisc = ([re, im]) => {
  const scale = Math.min(1, LARGEST / (Math.hypot(re, im) || 1));
  return scale > 1 - 1e-9 ? [re, im] : [re * scale, im * scale];
};

// Eigenvalue k moved to a point: off the axis the other one is its mirror image, on it each goes its own way.
function moved(eigenvalues, k, point) {
  const here = inDisc(point);
  const isReal = Math.abs(here[1]) < SNAP;
  const one = isReal ? [clamp(here[0], [-LARGEST, LARGEST]), 0] : here;
  const other = !isReal ? [one[0], -one[1]] : isPair(eigenvalues) ? [one[0], 0] : eigenvalues[1 - k];
  return k ? [other, one] : [one, other];
}

// By keys in twentieths; one step off the axis is as long as it has to be.
function nudged([re, im], [right, up], count) {
  const to = (v, way) => (Math.round(20 * v) + way * count) / 20;
  if (!up) return [to(re, right), im];
  const off = to(im, up);
  return [re, Math.abs(off) >= SNAP ? off : Math.abs(im) < SNAP ? up * 0.1 : 0];
}

const ring = ([x, y], r, way = 0) => `M${x - r} ${y}a${r} ${r} 0 1 ${way} ${2 * r} 0a${r} ${r} 0 1 ${way} ${-2 * r} 0`;
const complex = ([re, im]) => show(re) + (im ? `${im < 0 ? " − " : " + "}${show(Math.abs(im))}i` : "");

function eigenPlane({ set }, read, side) {
  const it = axesPanel({
    x: [-1.1, 1.1], y: [-1.1, 1.1], width: side, height: side,
    label: "The plane of eigenvalues, with the unit circle and the circle outside which the variance is infinite",
  });
  const [centre, unit] = [it.at([0, 0]), side / 2.2];
  const outside = it.add("path", filled("var(--fl-wrong)", 0.22));
  it.add("path", line("var(--fl-muted)", 1.2, { d: ring(centre, unit) }));
  const rim = it.add("path", line("var(--fl-ink)", 1.8));
  const name = it.text([0, 0], "√(1−p)", { class: "fl-small fl-cased", "text-anchor": "middle" });
  it.svg.append(rim); // above the name's case
  const hands = range(2).map((k) => handle(it, {
    name: `eigenvalue-${k + 1}`, label: `Eigenvalue ${k + 1}`, color: "var(--fl-ink)", range: [-LARGEST, LARGEST],
    get: () => read().eigenvalues[k], value: complex,
    move: (point) => set({ eigenvalues: moved(read().eigenvalues, k, point) }),
    keys: (way, count) => set({ eigenvalues: moved(read().eigenvalues, k, nudged(read().eigenvalues[k], way, count)) }),
  }));
  function draw({ p }) {
    const r = unit * Math.sqrt(1 - p);
    put(outside, { d: ring(centre, unit) + ring(centre, r, 1) });
    put(rim, { d: ring(centre, r) });
    put(name, { x: centre[0], y: centre[1] + (r > 40 ? Math.sqrt(r * r - 26 * 26) - 5 : r + 16) }); // inside, clear of the rim
    hands.forEach((one) => one.draw());
  }
  return { svg: it.svg, draw };
}

// --- the draws, one by one --------------------------------------------------------------------

const SPANS = [20, 50, 100, 200, 500, 1000, MOST];

// A window of a chart that cuts what leaves it.
function pane(it) {
  const { left, right, top, bottom } = it.box;
  const [width, height] = [right - left, bottom - top];
  const view = `${left} ${top} ${width} ${height}`;
  return it.add("svg", { x: left, y: top, width, height, viewBox: view, style: `width:${width}px;height:${height}px` });
}

function runChart(width, height) {
  const it = chart({ x: [0, 1], y: [-1, 1], width, height, room: [8, 12, 24, 48], label: "Estimates and their mean, by draws" });
  const { left, right, top, bottom } = it.box;
  it.add("path", line("var(--fl-muted)", 1, { d: `M${left} ${top}V${bottom}H${right}` }));
  const levels = it.add("g", {});
  const ends = [0, 0.5, 1].map((u) => it.text([it.at([u, 0])[0], bottom + 17], "", { "text-anchor": ["start", "middle", "end"][2 * u] }));
  const within = pane(it);
  const add = (attributes) => within.appendChild(make("svg:path", attributes));
  const band = add(filled("var(--fl-third)", 0.2));
  const dots = add(line("var(--fl-third)", 4, { "stroke-linecap": "round" }));
  const cut = add(line("var(--fl-wrong)", 3.2, { "stroke-dasharray": "8 4" }));
  const truth = add(line("var(--fl-ink)", 1.8));
  const mean = add(line("var(--fl-third)", 2.6));
  const far = add(filled("var(--fl-third)", 0.9));
  const outside = it.text([(3 * left + right) / 4, bottom + 17], "", { "text-anchor": "middle" });
  function draw({ exact, truncated, half, count, all }) {
    const span = SPANS.find((one) => one >= count);
    const X = (i) => left + ((i + 1) / span) * (right - left);
    const Y = (v) => clamp((top + bottom) / 2 - ((v - exact) / half) * ((bottom - top) / 2), [-1e4, 1e4]);
    const flat = (v) => `M${left} ${Y(v).toFixed(1)}H${right}`;
    put(levels, {}, ...ticks([exact - half, exact + half]).flatMap(([v, words]) => [
      make("svg:path", line("var(--fl-muted)", 1, { d: `M${left} ${Y(v)}h-4` })),
      make("svg:text", { class: "fl-small", x: left - 7, y: Y(v) + 4.5, "text-anchor": "end" }, words),
    ]));
    ends.forEach((node, k) => setText(node, `${(k * span) / 2}`));
    let [seen, above, below, marks] = ["", 0, 0, ""];
    for (let i = 0; i < count; i++) {
      const [x, y] = [X(i).toFixed(1), Y(all.x[i])];
      if (y < top) [above, marks] = [above + 1, `${marks}M${x} ${top + 1}l-3 6h6z`];
      else if (y > bottom) [below, marks] = [below + 1, `${marks}M${x} ${bottom - 1}l-3 -6h6z`];
      else seen += `M${x} ${y.toFixed(1)}h0`;
    }
    put(dots, { d: seen, "stroke-opacity": count > 500 ? 0.25 : 0.45 });
    put(far, { d: marks });
    setText(outside, above + below ? `${above + below} outside` : "");
    const along = range(count);
    put(mean, { d: pixelPath(along.map((i) => [X(i), Y(all.mean[i])])) });
    const edge = (i, way) => [X(i), Y(all.mean[i] + way * 2 * all.error[i])];
    const known = along.slice(1);
    const rim = [...known.map((i) => edge(i, 1)), ...known.reverse().map((i) => edge(i, -1))];
    put(band, { d: rim.length ? pixelPath(rim, true) : "" });
    put(cut, { d: flat(truncated) });
    put(truth, { d: flat(exact) });
  }
  return { svg: it.svg, draw };
}

// --- cost times variance, and the tail --------------------------------------------------------

const decades = (low, high) => range(Math.ceil(high) - Math.floor(low) + 1, Math.floor(low));
// Round numbers on a logarithmic axis, about three of them, as powers of ten.
function logTicks(low, high) {
  const all = decades(low, high).flatMap((k) => (high - low < 1.3 ? [1, 2, 5] : [1]).map((d) => k + Math.log10(d)));
  const inside = all.filter((v) => low <= v && v <= high);
  const every = Math.ceil(inside.length / 4);
  return inside.filter((_, i) => i % every === 0);
}
const written = (v) => (v < -3.5 || v > 3.5 ? powerOfTen(Math.round(v)) : `${Number((10 ** v).toPrecision(1))}`);

function costChart({ set }, read, [width, height]) {
  const ends = P.map(Math.log);
  const it = chart({ x: ends, y: [0, 1], width, height, room: [16, 12, 24, 44], label: "Cost times variance, by p, both on logarithmic axes" });
  const { left, right, top, bottom } = it.box;
  const X = (p) => it.at([Math.log(p), 0])[0];
  const infinite = it.add("rect", { y: top, height: bottom - top, ...filled("var(--fl-wrong)", 0.22) });
  const endless = it.text([0, (top + bottom) / 2 + 5], "∞", { class: "fl-cased", "text-anchor": "middle" });
  it.add("path", line("var(--fl-muted)", 1, { d: `M${left} ${top}V${bottom}H${right}` }));
  const levels = it.add("g", {});
  for (const p of [0.02, 0.1, 0.5]) {
    it.add("path", line("var(--fl-muted)", 1, { d: `M${X(p)} ${bottom}v4` }));
    it.text([X(p), bottom + 18], `${p}`, { "text-anchor": "middle" });
  }
  label(it, "p", { x: 4, y: bottom + 18 });
  const curve = it.add("path", line("var(--fl-third)", 2.6));
  const goal = it.add("circle", { r: 5, fill: "none", stroke: "var(--fl-third)", "stroke-width": 2 });
  let here = 0;
  const hand = grip(it, {
    name: "p", label: "The probability to stop, p", color: "var(--fl-ink)", range: P,
    get: () => read().p, set: (p) => set({ p: clamp(Math.round(1000 * p) / 1000, P) }),
    place: () => [Math.log(read().p), here], found: ([x]) => Math.exp(x),
    nudge: (p, count) => (Math.round(100 * p) + count) / 100,
  });
  function draw({ prices, wall, price, goal: least }) {
    const seen = prices.filter(([, v]) => v > 1e-12 && v < Infinity).map(([p, v]) => [p, Math.log10(v)]);
    const values = seen.length ? seen.map(([, v]) => v) : [0];
    const [middle, wide] = [(Math.max(...values) + Math.min(...values)) / 2, Math.max(0.8, Math.max(...values) - Math.min(...values))];
    const [low, high] = [middle - 0.58 * wide, middle + 0.58 * wide];
    const at = (v) => clamp((v - low) / (high - low), [0, 1]);
    const Y = (v) => it.at([0, at(v)])[1];
    put(levels, {}, ...logTicks(low, high).flatMap((v) => [
      make("svg:path", line("var(--fl-muted)", 1, { d: `M${left} ${Y(v)}h-4` })),
      make("svg:text", { class: "fl-small", x: left - 7, y: Y(v) + 4.5, "text-anchor": "end" }, written(v)),
    ]));
    const from = X(clamp(wall, P));
    put(infinite, { x: from, width: Math.max(0, right - from) });
    put(endless, { x: (from + right) / 2 });
    endless.style.display = right - from > 24 ? "" : "none";
    put(curve, { d: seen.length ? pixelPath(seen.map(([p, v]) => [X(p), Y(v)])) : "" });
    here = price === Infinity ? 1 : price > 1e-12 ? at(Math.log10(price)) : 0;
    goal.style.display = least ? "" : "none";
    if (least) put(goal, { cx: X(least.p), cy: Y(Math.log10(least.least)) });
    hand.draw();
  }
  return { svg: it.svg, draw };
}

// How many draws lie where, from far below to far above; the counts on a logarithmic axis.
const BINS = 16;
function countsOf({ exact, half, count, all }) {
  const counts = range(BINS + 2).map(() => 0);
  for (let i = 0; i < count; i++)
    counts[clamp(Math.floor(((all.x[i] - exact + half) / (2 * half)) * BINS), [-1, BINS]) + 1]++;
  return counts;
}

function tailChart([width, height]) {
  const it = chart({ x: [0, 1], y: [0, 1], width, height, room: [24, 10, 24, 44], label: "How many draws lie where, on a logarithmic axis" });
  const { left, right, top, bottom } = it.box;
  const [gap, levels] = [5, it.add("g", {})];
  const bars = it.add("path", filled("var(--fl-third)", 0.75));
  const edges = it.add("path", filled("var(--fl-third)", 1));
  it.add("path", line("var(--fl-muted)", 1, { d: `M${left} ${top}V${bottom}H${right}` }));
  const [cut, truth] = [line("var(--fl-wrong)", 3, { "stroke-dasharray": "6 4" }), line("var(--fl-ink)", 1.8)].map((one) => it.add("path", one));
  const across = it.add("g", {});
  const sides = ["start", "end"].map((anchor) => it.text([0, 0], "", { class: "fl-small fl-cased", "text-anchor": anchor }));
  const farthest = it.text([right, 14], "", { "text-anchor": "end" });
  function draw(s) {
    const { exact, truncated, half, count, all, counts } = s;
    const high = Math.max(1, Math.log10(Math.max(...counts))) * 1.1 + 0.3;
    const Y = (c) => (c ? bottom - ((Math.log10(c) + 0.3) / high) * (bottom - top) : bottom);
    const step = (right - left - 2 * gap) / (BINS + 2);
    const bar = (k) => {
      const x = left + k * step + (k > 0 ? gap : 0) + (k > BINS ? gap : 0);
      return counts[k] ? `M${x + 0.5} ${bottom}V${Y(counts[k])}h${step - 1}V${bottom}z` : "";
    };
    put(bars, { d: range(BINS, 1).map(bar).join("") });
    put(edges, { d: bar(0) + bar(BINS + 1) });
    put(levels, {}, ...[1, 10, 100, 1000].filter((c) => Math.log10(c) + 0.3 <= high).flatMap((c) => [
      make("svg:path", line("var(--fl-muted)", 1, { d: `M${left} ${Y(c)}h-4` })),
      make("svg:text", { class: "fl-small", x: left - 7, y: Y(c) + 4.5, "text-anchor": "end" }, `${c}`),
    ]));
    const X = (v) => left + step + gap + ((v - exact + half) / (2 * half)) * BINS * step;
    const marks = ticks([exact - half, exact + half]);
    const every = marks.length > 1 && X(marks[1][0]) - X(marks[0][0]) < 30 ? 2 : 1;
    put(across, {}, ...marks.filter((_, i) => i % every === 0).map(([v, words]) =>
      make("svg:text", { class: "fl-small", x: X(v), y: bottom + 17, "text-anchor": "middle" }, words)));
    put(cut, { d: `M${X(truncated)} ${top}V${bottom}` });
    put(truth, { d: `M${X(exact)} ${top}V${bottom}` });
    [counts[0], counts[BINS + 1]].forEach((c, k) => {
      put(sides[k], { x: k ? right : left + 2, y: Math.max(top + 10, Y(c) - 4) });
      setText(sides[k], c ? `${c}` : "");
    });
    let most = 0;
    for (let i = 1; i < count; i++) if (Math.abs(all.x[i] - exact) > Math.abs(all.x[most] - exact)) most = i;
    setText(farthest, `farthest: ${show(all.x[most], Math.abs(all.x[most]) < 100 ? 2 : 0)}`);
  }
  return { svg: it.svg, draw };
}

// --- words ------------------------------------------------------------------------------------

const GUESSES = { bias: "the bias", deviation: "the deviation", both: "both" };
function told(guess) {
  if (!guess) return "";
  return ` You said ${GUESSES[guess]}: ${guess === "deviation" ? "so it is" : "it is the deviation alone"}; the bias is 0.`;
}

function say({ variance, bias, terms }, { guess }) {
  if (variance === Infinity)
    return "$ρ$ is outside the circle: the variance is infinite. The mean is still right in the long run, but now and " +
      `then a draw leaps, and the $±$ of a sample promises nothing.${told(guess)}`;
  return "$ρ$ is inside the circle: the variance is finite, and the mean comes nearer the more is drawn. " +
    `${terms} terms alone miss by ${small(Math.abs(bias))} for ever.`;
}
const small = (v) => show(v, Math.abs(v) < 0.1 ? 4 : 2);

// Both tasks are about these eigenvalues.
const FAIR = [[0.9, 0], [0.6, 0]];
const PRESETS = {
  gentle: { eigenvalues: [[0.4, 0], [-0.2, 0]], p: 0.5 },
  turning: { eigenvalues: [[0.45, 0.78], [0.45, -0.78]], p: 0.15 },
  "0.9": { eigenvalues: FAIR, p: 0.15 },
  "−0.9": { eigenvalues: [[-0.9, 0], [0.3, 0]], p: 0.15 },
  "fair coin": { eigenvalues: FAIR, p: 0.5 },
};
const isFair = (eigenvalues) => {
  const [large, low] = [...eigenvalues].sort((a, b) => b[0] - a[0]);
  return [large, low].every((one, k) => Math.hypot(one[0] - FAIR[k][0], one[1]) < 1e-9);
};

const [BUDGET, GOAL] = [2000, 0.01];
const OF = "With the eigenvalues of “fair coin”, ";
const TURNS = [
  ["sure", `${OF}make ${BUDGET} products enough: two standard errors of their mean, by the exact variance, within ${GOAL}.`],
  ["least", `${OF}find the $p$ at which cost times variance is least, within 5 %.`],
];
const JUDGES = [
  ({ variance, cost }) => {
    if (variance === Infinity) return [false, "The variance is infinite: no number of products is enough."];
    const two = 2 * Math.sqrt((variance * cost) / BUDGET);
    const done = two <= GOAL;
    return [done, `${done ? "Done: t" : "T"}hey buy about ${show(BUDGET / cost, 0)} draws, and a mean within ${show(two, 4)}.`];
  },
  ({ variance, price }, least) => {
    if (variance === Infinity) return [false, "Here it is infinite."];
    const { least: value, p } = least();
    if (price > 1.05 * value) return [false, `Here it is ${show(price, 3)}, and somewhere less.`];
    return [true, `Done: here it is ${show(price, 3)}; the least is ${show(value, 3)}, at $p$ = ${show(p, 3)}.`];
  },
];
const OTHERS = "These eigenvalues are others: press “fair coin”.";

// Named numbers below one another: each has its own way to be written.
function figures(rows) {
  const outs = rows.map(([name]) => make("output", { "data-readout": name }));
  const node = make("div", { class: "fl-sum fl-numbers" }, ...rows.flatMap(([, text], k) => [make("span", {}, ...text), outs[k]]));
  const draw = (values) => rows.forEach(([name, , digits], k) => {
    const v = values[name];
    put(outs[k], { "data-value": v });
    setText(outs[k], v === Infinity ? "∞" : Number.isNaN(v) ? "–" : show(v, digits));
  });
  return { node, draw };
}

// --- the whole --------------------------------------------------------------------------------

const BROAD = 460; // pixels
function sizesOf(width) {
  const broad = width >= BROAD;
  const gap = broad ? 14 : 8;
  const side = Math.min(186, Math.round((broad ? 0.4 : 0.46) * (width - gap)));
  return { gap, side, third: [width - side - gap, side], run: [width, broad ? 150 : 146] };
}

// Adds draws by itself, one by one at first and then ever faster.
const BEAT = { lively: 60, calm: 900 }; // milliseconds
function player(page, draws) {
  let timer = 0;
  const node = button("play", { "data-action": "play" }, () => (timer ? stop() : begin()));
  const add = (count, write) => write({ draws: clamp(draws() + count, [1, MOST]) });
  function stop() {
    if (!timer) return;
    clearInterval(timer);
    timer = 0;
    setText(node, "play");
    page.save();
  }
  function begin() {
    if (draws() >= MOST) page.set({ draws: 1 });
    setText(node, "stop");
    timer = setInterval(() => {
      if (page.el.isConnected) add(isCalm() ? 100 : Math.max(1, Math.floor(draws() / 40)), page.pass);
      if (!page.el.isConnected || draws() >= MOST) stop();
    }, isCalm() ? BEAT.calm : BEAT.lively);
  }
  const more = (count) => {
    stop();
    add(count, page.set);
  };
  return { node, stop, more };
}

// The state as it can be drawn: whoever made a link could have written anything.
function stateOf({ get }) {
  const whole = (name, ends) => Math.round(clamp(get(name), ends));
  const [[a = 0, b = 0] = [], [c = 0, d = 0] = []] = get("eigenvalues");
  const pair = b && d ? [[a, b], [a, -b]] : [[a, 0], [c, 0]];
  return {
    eigenvalues: pair.map(inDisc), p: clamp(get("p"), P), n_exact: whole("n_exact", SURE), probes: whole("probes", PROBES),
    draws: whole("draws", [1, MOST]), seed: get("seed"), guess: get("guess"),
  };
}

// All that is shown of a state; what does not change is kept.
function measures() {
  let [m, tables, all, half, prices, least] = [];
  const ofMatrix = whenNew((eigenvalues) => (m = measureMatrix(eigenvalues)));
  const ofDraws = whenNew((s) => {
    tables = tablesOf(m, s);
    all = drawAll(tables, s);
    half = reachOf(tables, s, m.exact, truncatedOf(m, termsOf(s)) - m.exact);
  });
  const grid = steps(120, ...P.map(Math.log)).map((u) => clamp(Math.exp(u), P));
  const ofPrices = whenNew((s) => {
    const wall = 1 - m.rho ** 2;
    const ps = [...grid, ...(wall > P[0] && wall < P[1] ? [wall] : [])].sort((a, b) => a - b);
    prices = ps.map((p) => [p, priceOf(m, { ...s, p })]);
    least = null;
  });
  return (s) => {
    const { eigenvalues, p, n_exact, probes, seed, draws: count } = s;
    ofMatrix(eigenvalues);
    ofDraws({ eigenvalues, p, n_exact, probes, seed });
    ofPrices({ eigenvalues, n_exact, probes });
    const [terms, variance, cost] = [termsOf(s), varianceOf(m, s), costOf(s)];
    const truncated = truncatedOf(m, terms);
    return {
      rho: m.rho, exact: m.exact, wall: 1 - m.rho ** 2, terms, truncated, bias: truncated - m.exact, variance, cost,
      price: cost * variance, all, half, count, prices, cheapest: () => (least ??= cheapestOf(m, s)),
    };
  };
}

function render({ model, el }) {
  const page = openPage(el, model, TRAITS, WORK);
  const { get, set } = page;
  const [read, measure] = [() => stateOf(page), measures()];
  const [top, bottom, left, right] = range(4).map(() => make("div", {}));
  const views = choice([["cost × variance", "cost", { "data-view": "cost" }], ["tail", "tail", { "data-view": "tail" }]],
    () => get("view"), (view) => set({ view }));
  const bar = make("div", { class: "fl-views fl-beside", role: "group", "aria-label": "What is shown beside the plane" }, ...views.nodes);
  put(top, { class: "fl-duo" }, make("div", {}, titled("eigenvalues of ", math("J")), left), make("div", {}, bar, right));
  let [plane, third, run] = [null, null, null];
  const build = whenNew((width) => {
    const sizes = sizesOf(width);
    plane = eigenPlane(page, read, sizes.side);
    third = { cost: costChart(page, read, sizes.third), tail: tailChart(sizes.third) };
    run = runChart(...sizes.run);
    top.style.gridTemplateColumns = `minmax(0, ${sizes.side}fr) minmax(0, ${sizes.third[0]}fr)`;
    top.style.columnGap = `${sizes.gap}px`;
    left.replaceChildren(plane.svg);
    bottom.replaceChildren(titled(math("log det(I + J)"), ": draws, mean ± 2 errors"), run.svg);
  });

  const play = player(page, () => read().draws);
  const sliders = [
    slider({
      name: "p", symbol: [math("p")], label: "The probability to stop after a term", min: P[0], max: P[1], step: 0.01,
      get: () => read().p, set: (p) => set({ p }),
    }),
    slider({
      name: "n_exact", symbol: ["sure terms"], label: "How many terms are sure", min: SURE[0], max: SURE[1], step: 1,
      get: () => read().n_exact, set: (n_exact) => set({ n_exact }), text: String,
    }),
    slider({
      name: "probes", symbol: ["probes"], label: "How many probes a draw has", min: PROBES[0], max: PROBES[1], step: 1,
      get: () => read().probes, set: (probes) => set({ probes }), text: String,
    }),
    slider({
      name: "draws", symbol: ["draws"], label: "How many estimates have been drawn", min: 1, max: MOST, step: 1,
      get: () => read().draws, text: String,
      set: (draws) => {
        play.stop();
        set({ draws });
      },
    }),
  ];
  const buttons = make("div", { class: "fl-row fl-tight" },
    button("draw 1", { "data-action": "one" }, () => play.more(1)),
    button("draw 100", { "data-action": "hundred" }, () => play.more(100)),
    play.node,
    button("other draws", { "data-action": "anew" }, () => set({ seed: (get("seed") + 1) % 2 ** 31 })));

  const after = make("span", {});
  const sum = figures([
    ["rho", ["spectral radius ", math("ρ")], 2],
    ["radius", ["circle ", math("√(1 − p)")], 2],
    ["exact", ["exact value"], 4],
    ["mean", ["mean of the draws"], 4],
    ["error", ["its standard error"], 4],
    ["truncated", [after], 4],
    ["bias", ["and the bias of that"], 4],
    ["variance", ["variance of a draw"], 4],
    ["cost", ["products a draw"], 2],
    ["spent", ["products so far"], 0],
  ]);
  const [words, ends] = [saying(), tools(page, [...WORK, "draws", "seed", "guess"], play.stop)];
  const turns = TURNS.map(([name, text]) => task(page, name, text));
  const which = choice(TURNS.map((_, k) => [`task ${k + 1}`, k, { "data-turn": k }]), () => get("turn"), (turn) => set({ turn }));
  const guesses = choice(Object.keys(GUESSES).map((name) => [name, name, { "data-guess": name }]),
    () => get("guess"), (name) => set({ guess: get("guess") === name ? "" : name }));
  const asked = make("span", { class: "fl-question" }, make("b", {}, "Predict. "), math("p"), " = ½, ", math("ρ"), " → 1: which error of the mean has no bound?");
  const presets = Object.fromEntries(Object.entries(PRESETS).map(([name, state]) => [name, () => ({ ...structuredClone(state), n_exact: 2, probes: 1 })]));
  const key = legend(
    [swatch("var(--fl-third)"), "draws"], [make("span", { class: "fl-stroke" }), "exact"],
    [dashes("var(--fl-wrong)"), "truncated"], [make("span", { class: "fl-shade" }), "infinite variance"]);
  el.replaceChildren(frame([
    key, top, bottom, next(make("div", { class: "fl-sliders fl-four" }, ...sliders.map((one) => one.node))), next(buttons),
    next(presetRow(page, presets)), later(make("div", { class: "fl-row fl-tight" }, asked, ...guesses.nodes)),
  ], [
    sum.node, roomy(words, say({ variance: Infinity }, { guess: "bias" })),
    make("div", { class: "fl-row fl-tight" }, ...which.nodes), ...turns.map((one) => one.node), ends.node,
  ]));

  return page.run((width) => {
    build(pictureWidth(width));
    const [s, view, turn] = [read(), get("view"), get("turn")];
    const m = measure(s);
    const last = m.count - 1;
    plane.draw(s);
    run.draw(m);
    if (right.firstChild !== third[view].svg) right.replaceChildren(third[view].svg);
    const counts = view === "tail" ? countsOf(m) : [];
    const fair = isFair(s.eigenvalues);
    turns.forEach((one, k) => (one.node.hidden = k !== turn));
    turns[turn].draw(...(fair ? JUDGES[turn](m, m.cheapest) : [false, OTHERS]));
    third[view].draw({ ...m, counts, goal: page.solved.has("least") ? m.cheapest() : null });
    setText(after, `after ${m.terms} terms`);
    sum.draw({
      ...m, radius: Math.sqrt(1 - s.p), mean: m.all.mean[last], error: m.all.error[last], spent: m.all.spent[last],
    });
    setSpelled(words, say(m, s));
    [...sliders, views, which, guesses, ends].forEach((one) => one.draw());
    mirror(el, {
      ...page.state(), eigenvalues: s.eigenvalues, last: m.all.x[last], terms: m.all.n[last], counts, half: m.half,
      prices: view === "cost" ? m.prices : [],
    });
  });
}

export default { render };
