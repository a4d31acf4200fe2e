// WarpExplorer: a map of the line, a matrix, a bend of the plane; how each changes lengths, areas, densities.

const VIEWS = { line: ["1-D map", lineView], matrix: ["2×2 matrix", matrixView], bend: ["2-D bend", bendView] };
const WORK = ["knots", "probe", "matrix", "point", "bend", "centre", "side"];
const TRAITS = ["view", ...WORK];

const patch = { ...filled("var(--fl-data)", 0.35), stroke: "var(--fl-data)", "stroke-width": 2 };

// The planes of a view stand side by side, and are built for their size in pixels.
const planeSize = (width) => (pictureWidth(width) - 10) / 2;

// --- the line: a map bent by its knots ------------------------------------------------------

const KNOTS = TICKS;
const GAP = 0.05; // no two knots come closer: the map stays one to one
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

function judgeHills({ count, depth }) {
  const percent = `${show(100 * depth, 0)} %`;
  if (depth >= 0.3) return [true, `Done: the hills are where the map is steep. Where it is gentle is the valley, ${percent} lower.`];
  return [false, count < 2 || depth < 0.02
    ? "So far they have one."
    : `The valley is ${percent} lower than the hills beside it. Make it at least 30 %.`];
}

function lineView(page) {
  const { get, set } = page;
  const presets = Object.fromEntries(Object.entries(LINES).map(([name, knots]) => [name, () => ({ knots })]));
  presets.flip = () => ({ knots: get("knots").map((z) => -z) });
  return lineBoard(page, {
    traits: ["knots", "probe"], name: math("z = f(x)"), presets, read: () => curve(get("knots")),
    turn: task(page, "hills", "Bend the map so that the data have two hills.",
      "The valley is 10 % lower than the hills beside it. Make it at least 30 %."),
    judge: (p) => judgeHills(hills(p)),
    hands: (it) => KNOTS.map((x, k) =>
      grip(it, {
        name: `knot-${k + 1}`, label: `The map at x = ${show(x, 0)}`, color: "var(--fl-third)", range: REACH.knot, up: true,
        get: () => get("knots")[k], set: (z) => set({ knots: bent(get("knots"), k, z) }),
        place: () => [x, get("knots")[k]], found: ([, z]) => z, nudge: byTwentieths,
      })),
  });
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

const [MOST, HALF] = [3, 3.25]; // of an entry, and of the planes, which have room for a handle there
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
  const it = plane(HALF, "Data space: a square, and the density that the map gives it", size);
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
  const it = plane(HALF, "Latent space: the square's image and the standard normal", size);
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
      move: (p) => set({ matrix: get("matrix").map((row, r) => row.map((v, c) => (c === j ? clamp(p[r], [-MOST, MOST]) : v))) }),
    }));
  function draw(a, m) {
    put(image, { d: GRID.map((l) => it.path(l.map((p) => apply(a, p)))).join("") });
    put(body, { d: it.path(SQUARE.map((p) => apply(a, p)), true) });
    arrows.forEach((arrow, j) => put(arrow, { d: it.path([[0, 0], column(j)]) }));
    names.forEach((text, j) => {
      const [x, y] = it.at(column(j));
      put(text, { x: x > size - 40 ? x - 30 : x + 11, y: y < 32 ? y + 24 : y - 11 }); // inside, and beside its arrow
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
      min: -MOST, max: MOST, step: 0.05, get: () => get("matrix")[i][j], set: (v) => setEntry(i, j, v),
    }));
  const sum = ledger([-6, 2], [
    { name: "det", text: [math("det A")] },
    { name: "area", text: ["area"] },
    { name: "log_pz", text: [math("log p_Z(z)")], color: "var(--fl-latent)" },
    { name: "log_det", text: [math("+ log |det A|")], color: "var(--fl-third)" },
    { name: "log_px", text: [math("= log p(x)")], color: "var(--fl-data)" },
  ]);
  const [say, ends] = [saying(), tools(page, ["matrix", "point"])];
  const shear = task(page, "shear", "Make the determinant 1, within 0.05, without a rotation.",
    "The determinant is 1, but lengths and angles are all kept: that is a rotation.");
  const presets = Object.fromEntries(Object.entries(MATRICES).map(([name, matrix]) => [name, () => ({ matrix })]));
  const node = frame([
    planes,
    make("div", { class: "fl-sliders fl-later" }, ...entries.map((e) => e.node)), next(presetRow(page, presets)),
  ], [sum.node, roomy(say, sayMatrix({ area: 1, det: -1 })), shear.node, ends.node]);

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
  if (large) return [false, `Large enough, but the prediction is off by ${show(Math.abs(error), 1)} %.`];
  return [false, `It is ${show(ratio)} times as large${near ? "" : `, and the prediction is off by ${show(Math.abs(error), 1)} %`}.`];
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
    "and a size at which the parallelogram predicts it within 1 %.",
    "Large enough, but the prediction is off by 12.3 %.");
  const presets = Object.fromEntries(Object.entries(BENDS).map(([name, bend]) => [name, () => ({ bend })]));
  const node = frame([
    legend([swatch("var(--fl-data)"), "patch, the square’s image"], [dashes("var(--fl-third)"), "parallelogram of ", math("J")]),
    both,
    make("p", { class: "fl-panel-title fl-magnified" }, "the same, magnified"),
    make("div", { class: "fl-lenses" }, ...lenses.map((l) => l.svg)),
    later(bendFormulas()),
  ], [
    sum.node, make("div", { class: "fl-named" }, size, shear, stretch), make("div", { class: "fl-snug" }, presetRow(page, presets)),
    roomy(say, sayBend({ ratio: 1.53, det: 1.53, error: 0 }, [1, 1])), trust.node, ends.node,
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
