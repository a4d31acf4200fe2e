// A map of the line in one picture, and small things that its explorers share.

const steps = (count, low, high) => range(count + 1).map((i) => low + (i / count) * (high - low));
const label = (it, words, more = {}) => it.add("text", { class: "fl-math", ...more }, words);
const tspan = (words, more) => make("svg:tspan", more, words);

// The presets of a view, each the state that it sets.
const presetRow = (page, presets) =>
  row(...Object.entries(presets).map(([name, state]) => preset(name, () => page.give(state()))));

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

// A slider whose steps are equal factors.
function logSlider({ get, set, min, max, ...options }) {
  const value = (t) => clamp(min * (max / min) ** t, [min, max]);
  return slider({ ...options, min: 0, max: 1, step: 0.005,
    get: () => Math.log(get() / min) / Math.log(max / min), set: (t) => set(value(t)), text: (t) => show(value(t)) });
}

// --- the picture ------------------------------------------------------------------------------

const TICKS = range(7, -3);
const REACH = { x: [-3.5, 3.5], z: [-3.4, 3.4], knot: [-3.2, 3.2], probe: [-3, 3] };
const DX = 0.3;
const HALF_DECILES = [0.2533471031357997, 0.5244005127080407, 0.8416212335729143, 1.2815515655446004];
const DECILES = [...HALF_DECILES.map((z) => -z).reverse(), 0, ...HALF_DECILES];

function measureLine(f, x) {
  const [z, slope] = f.at(x);
  const log_pz = -0.5 * z * z - LOG_2PI / 2;
  const log_det = Math.log(Math.abs(slope));
  return { z, slope, log_pz, log_det, log_px: log_pz + log_det };
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

// An explorer's view of one map: the picture and its rail. `read` gives the map as it is now, a
// function from x to [f(x), f′(x)] and its inverse; `hands` are what of the map can be taken, built for
// a picture; `judge` gets the map and the density of x on a grid, and gives what its task says.
function lineBoard(page, { traits, name, read, hands, turn, judge, presets, extras = [] }) {
  const { get } = page;
  const sum = ledger([-6, 2], [
    { name: "slope", text: ["slope ", math("f′(x)")] },
    { name: "log_pz", text: [math("log p_Z(z)")], color: "var(--fl-latent)" },
    { name: "log_det", text: [math("+ log |f′(x)|")], color: "var(--fl-third)" },
    { name: "log_px", text: [math("= log p(x)")], color: "var(--fl-data)" },
  ]);
  const [say, body, ends] = [saying(), make("div", {}), tools(page, traits)];
  const node = frame([
    legend(
      [swatch("var(--fl-latent)"), "latent ", math("z")], [swatch("var(--fl-third)"), name],
      [swatch("var(--fl-data)"), "data ", math("x")]),
    body,
  ], [
    sum.node, ...extras.map((one) => one.node), presetRow(page, presets),
    roomy(say, sayLine({ slope: -1.25 }, { flat: [], way: -1 })), turn.node, ends.node,
  ]);

  // The chart is built for a width in pixels, so that text and handles keep their size on a phone.
  let chart = null;
  const build = whenNew((width) => body.replaceChildren((chart = lineChart(width, page, hands)).svg));
  function draw(width) {
    build(pictureWidth(width));
    const [f, probe] = [read(), get("probe")];
    const m = measureLine(f, probe);
    const x = steps(280, ...REACH.x);
    const p = x.map((v) => Math.exp(measureLine(f, v).log_px));
    chart.draw({ f, m, x, p, probe });
    sum.draw(m);
    setSpelled(say, sayLine(m, f));
    turn.draw(...judge(p));
    extras.forEach((one) => one.draw());
    ends.draw();
  }
  return { node, draw };
}

// Everything of the line in one picture: the hump of z at the left, the map, and below it the
// density of x, so that what belongs together lies on one line.
function lineChart(width, { get, set }, takes) {
  const it = lineSpace(width);
  const on = { ...lineBack(it), ...lineFront(it) };
  const hands = [
    ...takes(it),
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
  const zTicks = TICKS.map((v) => tick([left - 7, Z(v) + 4.5], show(v, 0), { "text-anchor": "end" }));
  const xTicks = TICKS.map((v) => tick([X(v), box.floor + 24], show(v, 0)));
  add("path", line("var(--fl-latent)", 1.5, { d: TICKS.map((v) => `M${left} ${Z(v)}h-4`).join("") }));
  add("path", line("var(--fl-data)", 1.5, { d: TICKS.map((v) => `M${X(v)} ${box.floor}v5M${X(v)} ${box.axis}v4`).join("") }));
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
function drawMap({ box, left, X, Z }, on, { f }) {
  const seen = f.flat.map((yes, i) => (yes ? REACH.probe[i] : REACH.x[i]));
  const ends = REACH.z.map(f.inverse).sort((a, b) => a - b).map((v) => clamp(v, seen));
  put(on.map, { d: pixelPath(steps(280, ...ends).map((v) => [X(v), Z(f.at(v)[0])])) });
  const end = (i) => pixelPath([REACH.probe[i], REACH.x[i]].map((v) => [X(v), Z(f.at(v)[0])]));
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
  on.zTicks.forEach((text, i) => (text.style.visibility = Math.abs(Z(TICKS[i]) - pz) < 20 ? "hidden" : "visible"));
  on.xTicks.forEach((text, i) => (text.style.visibility = Math.abs(X(TICKS[i]) - px) < 19 ? "hidden" : "visible"));
}
