// CompletionExplorer: a trained MADE completes the picture that you paint.

const WORK = ["pixels", "painted", "given", "seed"];
const TRAITS = [...WORK, "chosen", "known", "pixel", "mean"];
const [FEW, MANY] = [8, 200]; // completions that are shown, and of which the mean is taken
const SPAN = 320; // the units of the longer side of a picture
const MARGIN = 14; // around it, for what is drawn on its edge
const DEAR = 5; // nats of the highest bar

// --- the model --------------------------------------------------------------------------------

// The weights as Python packed them, row after row of one layer after the other, all in steps of one
// size: `row(count, also)` takes the next, a unit's bias, its links to the first `count` units of the
// layer before, and `also` links to the first values of the picture.
function unpackRows({ units, links }) {
  const bytes = new DataView(Uint8Array.from(atob(links), (c) => c.charCodeAt(0)).buffer);
  const weights = new Float64Array(bytes.byteLength / 2);
  let [at, rows] = [0, 0];
  const row = (count, also = 0) => {
    const [start, unit] = [at, units[rows++]];
    for (; at < start + 1 + count + also; at++) weights[at] = bytes.getInt16(2 * at, true) * unit;
    return { start, count, also };
  };
  return { weights, row };
}

// The network. Its units are in the order of their degrees, so that a unit's links are to the first
// so many of the layer before.
function unpack({ ranks, degrees, direct, units, links }) {
  const [dim, last] = [ranks.length, degrees.length];
  const { weights, row } = unpackRows({ units, links });
  const place = []; // which pixel is the first of the ordering, the second, ...
  ranks.forEach((rank, d) => (place[rank - 1] = d));
  // of each layer, inputs included, how many units have a degree up to 0, 1, ...
  const upTo = (layer) => range(dim + 1).map((m) => layer.filter((degree) => degree <= m).length);
  const ends = [range(dim + 1), ...degrees.map(upTo)];
  const hidden = degrees.map((layer, l) => layer.map((m) => row(ends[l][m])));
  const outputs = range(dim).map((t) => row(ends[last][t], direct ? t : 0));
  const add = (total, from, count, values) => {
    for (let c = 0; c < count; c++) total += weights[from + c] * values[c];
    return total;
  };
  const sumAt = ({ start, count }, values) => add(weights[start], start + 1, count, values);

  // A picture on its way: its first values in the ordering, and the units that are final.
  const fresh = () => {
    const [x, logit] = [new Float64Array(dim), new Float64Array(dim)];
    return { x, h: degrees.map((layer) => new Float64Array(layer.length)), logit };
  };
  const copy = (from, to) => {
    to.x.set(from.x);
    to.h.forEach((layer, l) => layer.set(from.h[l]));
    to.logit.set(from.logit);
  };
  // Go on from `from` values to `to`. A unit of degree t is final once t values are known, and is
  // computed then, once. `decide(t, logit)` is the next value.
  const run = (state, from, to, decide) => {
    for (let t = from; t < to; t++) {
      for (let l = 0; l < last; l++) {
        const before = l ? state.h[l - 1] : state.x;
        for (let u = t ? ends[l + 1][t - 1] : 0; u < ends[l + 1][t]; u++) state.h[l][u] = Math.max(0, sumAt(hidden[l][u], before));
      }
      const { start, count, also } = outputs[t];
      const logit = add(sumAt(outputs[t], last ? state.h[last - 1] : state.x), start + 1 + count, also, state.x);
      state.logit[t] = logit;
      state.x[t] = decide(t, logit);
    }
    return state;
  };
  return { dim, ranks, place, fresh, copy, run };
}

const sigmoid = (v) => 1 / (1 + Math.exp(-v));
// log p of ink or none, from the logit of ink
const logProb = (ink, logit) => {
  const v = ink ? -logit : logit;
  return -(Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v))));
};

// All completions of one paint: the few with their logits, and how often each pixel is ink.
function complete(net, pixels, given, noise) {
  const { dim, place, fresh, copy, run } = net;
  const base = run(fresh(), 0, given, (t) => pixels[place[t]]);
  const counts = new Int32Array(dim);
  const few = [];
  const scratch = fresh();
  for (let i = 0; i < MANY; i++) {
    const state = i < FEW ? fresh() : scratch;
    copy(base, state);
    run(state, given, dim, (t, logit) => Number(noise[i * dim + place[t]] < sigmoid(logit)));
    for (let t = 0; t < dim; t++) counts[place[t]] += state.x[t];
    if (i < FEW) few.push(state);
  }
  return { few, counts };
}

// The random numbers of a seed: one for each pixel of each completion.
const noiseOf = (seed, dim) => Float64Array.from({ length: MANY * dim }, (_, k) => uniform(Math.imul(seed, 0x9e3779b1), k));

// What is computed of a state, kept until the paint, the border or the seed are others.
function completer(net) {
  let [made, key, noise, seed] = [null, "", null, null];
  return (state) => {
    const { pixels, given } = state;
    const present = `${state.seed},${given},${net.place.slice(0, given).map((d) => pixels[d]).join("")}`;
    if (key === present) return made;
    if (seed !== state.seed) [noise, seed] = [noiseOf(state.seed, net.dim), state.seed];
    [made, key] = [{ ...complete(net, pixels, given, noise), noise }, present];
    return made;
  };
}

// --- the game ---------------------------------------------------------------------------------

// What the parts share: the network, the pixels' places, and what hands can do.
function openGame(page) {
  const net = unpack(page.get("network"));
  const [height, width] = page.get("shape");
  const cell = SPAN / Math.max(height, width);
  const { dim, place, ranks } = net;
  const results = completer(net);
  const ink = (state, d) => state.x[ranks[d] - 1];
  // What is told of: the pixel under the mouse, else the chosen one.
  let pointed = -1;
  const moveBorder = (border) => {
    const [s, to] = [page.state(), clamp(border, [0, dim])];
    if (to === s.given) return;
    // What was drawn becomes given as it is seen: from there on the picture is the same. But what
    // was painted is there again when the border comes back to it.
    const pixels = [...s.pixels];
    const large = results(s).few[s.chosen];
    for (const d of place.slice(Math.max(s.given, s.painted), to)) pixels[d] = ink(large, d);
    page.set({ pixels, given: to });
  };
  const goStep = (step) => {
    const given = page.get("given");
    const known = clamp(step, [given, dim]);
    page.set({ known, ...(known > given && known < dim && { pixel: place[known - 1] }) });
  };
  return {
    page, net, dim, place, ranks, height, width, cell, ink, moveBorder, goStep,
    all: range(dim), start: page.start, goal: page.get("goal"),
    spot: (d) => [(d % width) * cell, Math.floor(d / width) * cell],
    where: (d) => `row ${Math.floor(d / width)}, column ${d % width}`,
    isGiven: (d) => d >= 0 && ranks[d] <= page.get("given"),
    point: (d) => d !== pointed && ((pointed = d), page.soon()),
    choose: (pixel) => page.set({ pixel }),
    startFrom: (pixels) => {
      const given = page.get("given") || Math.floor(dim / 2);
      page.give({ pixels, known: dim, given, painted: given });
    },
    paint: (d, value) => {
      const { pixels, painted, given } = page.state();
      const changed = { pixels: pixels.map((v, k) => (k === d ? value : v)), painted: Math.max(painted, given) };
      page.set({ ...(pixels[d] !== value && changed), pixel: d });
    },
    // All that is drawn of the present state.
    now: () => {
      const s = page.state();
      const found = results(s);
      const look = pointed < 0 ? s.pixel : pointed;
      return { ...s, ...found, large: found.few[s.chosen], known: Math.max(s.known, s.given), look };
    },
  };
}

// --- the two sheets: the picture, and the chance of ink ---------------------------------------

// A sheet of all pixels: cells, marks, and a ring around the chosen one that takes the keys. `right`
// is the room at its right.
function sheet(game, name, label, right) {
  const { all, ranks, spot, cell, width, height, point, page, goal } = game;
  // a narrow picture is as high as a square one, and has room at its right
  const box = [-4, -MARGIN, SPAN + 8 + right, height * cell + 2 * MARGIN];
  const svg = make("svg:svg", { viewBox: box.join(" "), role: "group", "aria-label": label, "data-view": name, class: "fl-sheet" });
  const gap = Math.min(2, cell / 5);
  const cells = all.map((d) => {
    const [x, y] = spot(d);
    const size = { width: cell - gap, height: cell - gap, rx: Math.min(3, cell / 9) };
    const face = make("svg:rect", { x: x + gap / 2, y: y + gap / 2, ...size });
    const dot = make("svg:circle", { cx: x + cell / 2, cy: y + cell / 2, r: cell * 0.2 });
    return { face, dot };
  });
  const borders = ["fl-border-case", "fl-border"].map((kind) => make("svg:path", { class: kind }));
  const marks = make("svg:g", {}, ...borders);
  const square = (extra, kind) => {
    const size = cell + 2 * extra;
    return make("svg:rect", { x: -extra, y: -extra, width: size, height: size, rx: 3 + extra, class: kind });
  };
  const ring = make("svg:g", { class: "fl-grab fl-spot", tabindex: 0, "data-ring": name },
    square(0, "fl-ring-case"), square(0, "fl-ring-line"), square(6, "fl-halo"));
  svg.append(...cells.map((one) => one.face), ...cells.map((one) => one.dot), marks, ring);
  if (goal.pixel !== undefined) {
    const [x, y] = spot(goal.pixel);
    ring.before(make("svg:text", { class: "fl-asked fl-cased", x: x + 0.7 * cell, y: y + 0.3 * cell }, "?"));
  }
  svg.onpointerleave = () => point(-1);
  ring.addEventListener("keydown", () => point(-1));
  takeKeys(ring, arrowKeys(([right, down]) => {
    const pixel = page.get("pixel");
    const [row, column] = [Math.floor(pixel / width) + down, (pixel % width) + right];
    if (pixelAt(game, column, row) >= 0) game.choose(pixelAt(game, column, row));
  }));
  const at = (event) => pointerAt(svg, event);
  const under = ([x, y]) => pixelAt(game, Math.floor(x / cell), Math.floor(y / cell));
  const drawRing = (look, attributes) => put(ring, { transform: `translate(${spot(look).join(" ")})`, ...attributes });
  // The border between what is given and what is drawn; returns the outer edge of what is given.
  const drawBorder = (given) => {
    const { inner, outer } = cellEdges([height, width], cell, (r, c) => ranks[r * width + c] <= given);
    for (const path of borders) put(path, { d: inner || "M0 0" });
    return outer || "M0 0";
  };
  return { svg, cells, marks, ring, at, under, drawRing, drawBorder, focusRing: () => ring.focus({ preventScroll: true }) };
}

const pixelAt = ({ width, height }, column, row) =>
  0 <= column && column < width && 0 <= row && row < height ? row * width + column : -1;

// The picture: what is given can be painted, and the border be moved by a knob in the margin.
function pictureSheet(game) {
  const { all, ranks, ink, where, page, paint } = game;
  const view = sheet(game, "picture", "The picture: paint what is given", 32);
  const rim = make("svg:path", { class: "fl-given-edge" });
  view.marks.prepend(rim);
  put(view.ring, { role: "checkbox" });
  const press = () => {
    const { pixel, pixels } = page.state();
    if (game.isGiven(pixel)) paint(pixel, 1 - pixels[pixel]);
  };
  takeKeys(view.ring, { " ": press, Enter: press });
  takeStrokes(game, view);
  const knob = borderKnob(game, view);
  const drawBorder = whenNew((given) => {
    put(rim, { d: view.drawBorder(given) });
    knob.draw(given);
  });
  function draw({ given, known, large, look, pixel }) {
    drawBorder(given);
    for (const d of all) {
      const t = ranks[d] - 1;
      const kind = t < given ? "given" : "drawn";
      setClass(view.cells[d].face, t >= known ? "fl-vacant" : `fl-${ink(large, d) ? "ink" : "sheet"}-${kind}`);
      setClass(view.cells[d].dot, "fl-none");
    }
    const [state, on] = [ranks[pixel] <= given ? "given" : "drawn", ink(large, pixel)];
    view.drawRing(look, {
      "aria-checked": on === 1, "aria-disabled": state === "drawn",
      "aria-label": `${where(pixel)}, ${state}, ${on ? "ink" : "no ink"}`,
    });
  }
  return { svg: view.svg, draw };
}

// Strokes paint what is given; the first pixel that one touches decides between ink and none.
function takeStrokes({ page, cell, paint, point, isGiven, choose }, { svg, at, under, focusRing }) {
  let [brush, last, stroke] = [null, null, false];
  svg.onpointerdown = (event) => {
    if (event.button) return;
    last = at(event);
    const d = under(last);
    stroke = isGiven(d);
    if (d < 0) return;
    if (stroke) {
      point(-1);
      brush = 1 - page.get("pixels")[d];
      svg.setPointerCapture(event.pointerId);
      paint(d, brush);
    }
    focusRing();
  };
  // or the browser would take the focus away again
  svg.onmousedown = (event) => event.preventDefault();
  svg.onpointermove = (event) => {
    const here = at(event);
    if (brush === null) return event.pointerType === "touch" ? undefined : point(under(here));
    // a fast hand skips pixels
    const steps = Math.ceil(Math.hypot(here[0] - last[0], here[1] - last[1]) / (cell / 3)) || 1;
    for (let k = 1; k <= steps; k++) {
      const d = under(last.map((v, i) => v + ((here[i] - v) * k) / steps));
      if (isGiven(d)) paint(d, brush);
    }
    last = here;
  };
  svg.onpointerup = svg.onpointercancel = () => (brush = null);
  // on what is drawn a finger scrolls, and a tap or a click chooses
  svg.onclick = (event) => {
    const d = under(at(event));
    if (d >= 0 && !stroke) choose(d);
  };
  svg.addEventListener("touchstart", (event) => {
    if (isGiven(under(at(event.touches[0])))) event.preventDefault();
  }, { passive: false });
}

// The knob of the border: a full row of the way is a row of pixels.
function borderKnob({ page, dim, width, cell, moveBorder }, { svg, at }) {
  const knob = make("svg:g", {
    class: "fl-grab fl-knob", tabindex: 0, role: "slider", "data-handle": "border", "aria-label": "The border between given and drawn",
    "aria-orientation": "vertical", "aria-valuemin": 0, "aria-valuemax": dim, style: "color:var(--fl-data)",
  },
    make("svg:path", { d: "M-18 0h12", class: "fl-border" }),
    make("svg:circle", { class: "fl-halo", r: 24 }),
    make("svg:circle", disc("currentColor", 11)),
    make("svg:path", { class: "fl-updown", d: "M-4 -2.5L0 -6.5L4 -2.5M-4 2.5L0 6.5L4 2.5" }),
  );
  svg.append(knob);
  const height = (given) => (given * cell) / width;
  const x = width * cell + 18;
  drag(knob, { at, get: () => [x, height(page.get("given"))], move: ([, y]) => moveBorder(Math.round((y * width) / cell)) });
  for (const type of ["pointerdown", "pointermove", "click"]) // they are no strokes
    knob.addEventListener(type, (event) => event.stopPropagation());
  const by = (count) => () => moveBorder(page.get("given") + count);
  takeKeys(knob, {
    ArrowUp: by(-width), ArrowDown: by(width), ArrowLeft: by(-1), ArrowRight: by(1),
    Home: () => moveBorder(0), End: () => moveBorder(dim),
  });
  const draw = (given) => put(knob, {
    transform: `translate(${x} ${height(given)})`, "aria-valuenow": given, "aria-valuetext": `${given} of ${dim} given`,
  });
  return { draw };
}

// How probable ink is at each pixel: given those before it, or in the mean of many completions.
function chanceSheet(game) {
  const { all, ranks, dim, ink, where, point, choose } = game;
  const { svg, cells, ring, at, under, focusRing, ...view } = sheet(game, "chance", "How probable ink is at each pixel", 0);
  svg.onclick = (event) => {
    const d = under(at(event));
    if (d < 0) return;
    choose(d);
    focusRing();
  };
  svg.onpointermove = (event) => event.pointerType !== "touch" && point(under(at(event)));
  put(ring, { role: "slider", "aria-label": "The pixel that is told of", "aria-valuemin": 0, "aria-valuemax": dim - 1 });
  const drawBorder = whenNew(view.drawBorder);
  function draw({ given, known, mean, counts, large, look, pixel }) {
    drawBorder(given);
    for (const d of all) {
      const t = ranks[d] - 1;
      const { face, dot } = cells[d];
      const level = mean ? counts[d] / MANY : t <= known ? sigmoid(large.logit[t]) : null;
      setClass(face, level === null ? "fl-vacant" : "fl-grey");
      if (level === null) delete face.dataset.level;
      else {
        face.style.setProperty("--fl-level", `${(100 * level).toFixed(1)}%`);
        face.dataset.level = level;
      }
      const on = t < known && ink(large, d) && (!mean || t < given);
      setClass(dot, on ? `fl-dot-${t < given ? "given" : "drawn"}` : "fl-none");
    }
    const level = cells[pixel].face.dataset.level ?? "not drawn";
    view.drawRing(look, { "aria-valuenow": pixel, "aria-valuetext": `${where(pixel)}, ${level}` });
  }
  return { svg, draw };
}

// --- the small pictures -----------------------------------------------------------------------

// A small picture: four paths of cells. `isInk(d)` says which are ink, as far as `known`.
function thumb({ all, ranks, width, height }) {
  const squares = (which) => which.map((d) => `M${d % width} ${Math.floor(d / width)}h1v1h-1z`).join("") || "M0 0";
  const [wide, high] = [Math.max(width, height), Math.max(height, width / 2)]; // no thin strips
  const box = [(width - wide) / 2, (height - high) / 2, wide, high];
  const kinds = ["fl-sheet-given", "fl-sheet-drawn", "fl-ink-given", "fl-ink-drawn"];
  const paths = kinds.map((name) => make("svg:path", { class: name }));
  const svg = make("svg:svg", { viewBox: box.join(" "), "aria-hidden": "true" }, ...paths);
  const draw = (isInk, given, known) => {
    const groups = [[], [], [], []];
    for (const d of all) {
      const first = ranks[d] <= given;
      groups[first ? 0 : 1].push(d);
      if (ranks[d] <= known && isInk(d)) groups[first ? 2 : 3].push(d);
    }
    paths.forEach((path, k) => put(path, { d: squares(groups[k]) }));
  };
  return { svg, draw };
}

// Pictures to start from, and a blank one.
function starts(game) {
  const { page, dim, all, place } = game;
  const labels = page.get("labels");
  const given = page.get("pictures").map((digits, k) => [labels[k], [...digits].map(Number)]);
  const sheets = [...given, ["blank", all.map(() => 0)]];
  const presets = sheets.map(([label, digits], k) => {
    const { svg, draw } = thumb(game);
    draw((d) => digits[d], dim, dim);
    const attributes = { "data-picture": k, "aria-label": `start from ${label}`, title: label };
    const node = button("", attributes, () => game.startFrom(digits));
    node.append(svg);
    return { node, digits };
  });
  const node = make("div", { class: "fl-from" },
    make("span", {}, "start from"), make("div", { class: "fl-thumbs fl-pictures" }, ...presets.map((one) => one.node)));
  const draw = ({ given, pixels }) => {
    const first = place.slice(0, given);
    for (const { node, digits } of presets)
      put(node, { "aria-pressed": given > 0 && first.every((d) => digits[d] === pixels[d]) });
  };
  return { node, draw };
}

// The completions that are shown, to choose one.
function tilesOf(game) {
  const tiles = range(FEW).map((i) => {
    const { svg, draw } = thumb(game);
    const node = button("", { "data-completion": i, "aria-label": `completion ${i + 1}` }, () => game.page.set({ chosen: i }));
    node.append(svg);
    return { node, draw };
  });
  const draw = ({ few, given, known, chosen }) => tiles.forEach((tile, i) => {
    tile.draw((d) => game.ink(few[i], d), given, known);
    put(tile.node, { "aria-pressed": i === chosen });
  });
  return { node: make("div", { class: "fl-thumbs fl-tiles" }, ...tiles.map((one) => one.node)), draw };
}

// --- words and numbers ------------------------------------------------------------------------

const LONGEST = "Pixel 37 of 64, row 4, column 4: p(ink) = 0.04, and the random number u = 0.15 is not less: no ink. It costs 0.04 nats.";

// The numbers of the pixel that is told of, in words, and its chance and random number on a gauge.
function telling(game) {
  const told = make("p", { class: "fl-told", "data-told": "" });
  const [chance, random] = [make("i", {}), make("b", {})];
  const gauge = make("div", { class: "fl-gauge", "aria-hidden": "true" }, chance, random);
  const draw = (now) => {
    const { look: d, given, known, mean, counts, large, noise, chosen } = now;
    const t = game.ranks[d] - 1;
    const [p, u] = [sigmoid(large.logit[t]), noise[chosen * game.dim + d]];
    gauge.hidden = !mean && t > known;
    chance.style.width = `${100 * (mean ? counts[d] / MANY : p)}%`;
    random.style.left = `${100 * u}%`;
    random.hidden = mean || t < given || t >= known;
    setSpelled(told, `Pixel ${t + 1} of ${game.dim}, ${game.where(d)}: ${tell(now, t, p, u)}`);
  };
  return { node: make("div", { class: "fl-telling" }, roomy(told, LONGEST), gauge), draw };
}

function tell({ look: d, given, known, mean, counts, large }, t, p, u) {
  const cost = show(-logProb(large.x[t], large.logit[t]));
  if (mean) return t < given ? `given, and so the same in all ${MANY}.` : `ink in ${counts[d]} of ${MANY} completions of this paint.`;
  if (t > known) return "not drawn as yet. It waits for those before it.";
  if (t === known) return `the next. From ${t ? `the ${t} before it` : "nothing"} the model says p(ink) = ${show(p)}.`;
  if (t < given) {
    const so = large.x[t] ? `ink, to which the model gives ${show(p)}` : `no ink, to which the model gives ${show(1 - p)}`;
    return `you gave ${so}. It costs ${cost} nats.`;
  }
  // with as many digits as tell the two apart
  const digits = range(4, 2).find((n) => show(p, n) !== show(u, n)) ?? 6;
  return `p(ink) = ${show(p, digits)}, and the random number $u$ = ${show(u, digits)} is ` +
    `${large.x[t] ? "less: ink" : "not less: no ink"}. It costs ${cost} nats.`;
}

// The bill: a bar for each pixel, in the ordering, and the sums.
function billOf({ page, all, dim, place, ranks, point, choose }) {
  const bars = all.map((t) => make("svg:rect", { x: t + 0.1, width: 0.8 }));
  const cursor = make("svg:rect", { width: 1, y: 0, height: DEAR, class: "fl-bill-at" });
  const bill = make("svg:svg", {
    viewBox: `0 0 ${dim} ${DEAR}`, preserveAspectRatio: "none", class: "fl-bill-bars", "aria-hidden": "true", "data-bill": "",
  }, cursor, ...bars);
  const barAt = (event) => place[clamp(Math.floor(pointerAt(bill, event)[0]), [0, dim - 1])];
  bill.onpointermove = (event) => event.pointerType !== "touch" && point(barAt(event));
  bill.onpointerleave = () => point(-1);
  bill.onclick = (event) => choose(barAt(event));
  const [total, usual, typical] = [make("span", {}), fine(), page.get("typical")];
  const sum = ledger([-0.45 * dim, 0], [
    { name: "given", text: [math("log p"), "(given)"], color: "var(--fl-data)" },
    { name: "drawn", text: [math("log p"), "(drawn | given)"], color: "var(--fl-third)" },
    // With a digit less it is always a rounding of the sum of the two numbers as shown.
    { name: "total", text: [total], digits: 1 },
  ]);
  const [mean, low, high] = typical.map((v) => show(v, 1));
  if (typical.length) usual.textContent = `Whole test digits: ${mean} on average, and nine in ten between ${low} and ${high}.`;
  const draw = ({ known, given, large, look }) => {
    const terms = all.map((t) => (t < known ? logProb(large.x[t], large.logit[t]) : 0));
    bars.forEach((bar, t) => {
      const high = Math.min(DEAR, -terms[t]);
      setClass(bar, t < given ? "fl-ink-given" : "fl-ink-drawn");
      put(bar, { y: DEAR - high, height: high });
    });
    put(cursor, { x: ranks[look] - 1 });
    const [first, rest] = [sumOf(terms.slice(0, given)), sumOf(terms.slice(given))];
    sum.draw({ given: first, drawn: rest, total: first + rest });
    setSpelled(total, known < dim ? "their sum, so far" : "$log p(x)$, their sum");
    usual.style.visibility = known < dim ? "hidden" : ""; // of whole digits
  };
  const title = make("p", { class: "fl-panel-title fl-apart" }, "what each pixel costs, ",
    make("span", { class: "fl-fine" }, `−log p in nats, in the ordering; a full bar is ${DEAR} or more`));
  return { nodes: [title, bill, sum.node, usual], draw };
}

// The task, where the picture has one, and the count that it is about.
function turnOf({ page, goal, start, place, width, where }) {
  const asked = make("span", { class: "fl-fine fl-count" });
  if (goal.pixel === undefined) return { asked, nodes: [], draw: () => {} };
  const turn = task(page, "far",
    `Find a given pixel that matters to the one marked ?, at ${where(goal.pixel)}: change it, and it alone, so that ? ` +
    `is ink in at ${goal.sign > 0 ? "least" : "most"} ${goal.bound} of ${MANY} completions.`,
    `Now 100 of ${MANY}, with one pixel changed.`);
  function judge(s, count) {
    const others = place.slice(0, start.given).filter((d) => s.pixels[d] !== start.pixels[d]);
    const says = `Now ${count} of ${MANY}`;
    if (s.given !== start.given) return [false, "The border is not where it was: reset."];
    if (s.seed !== start.seed) return [false, "These are other random numbers: reset."];
    if (!others.length) return [false, `${says}.`];
    if (others.length > 1) return [false, `${says}, but ${others.length} given pixels are not as at the start.`];
    if ((count - goal.bound) * goal.sign < 0) return [false, `${says}, with one pixel changed.`];
    const rows = Math.abs(Math.floor(goal.pixel / width) - Math.floor(others[0] / width));
    const far = rows ? `${rows} row${rows > 1 ? "s" : ""} away` : "in the same row";
    return [true, `Done: ${says.toLowerCase()}. The pixel you changed is ${far}.`];
  }
  const draw = (now) => {
    const count = now.counts[goal.pixel];
    put(asked, { "data-count": count }, "? is ink in ", make("b", {}, `${count}`), ` of ${MANY}`);
    turn.draw(...judge(now, count));
  };
  return { asked, nodes: [turn.node], draw };
}

// --- the page ---------------------------------------------------------------------------------

// The picture with the ways to move its border.
function picturePart(game, asked) {
  const { page, dim, moveBorder } = game;
  const picture = pictureSheet(game);
  const border = slider({
    name: "given", symbol: ["given"], label: "How many pixels are given", min: 0, max: dim, step: 1,
    get: () => page.get("given"), set: moveBorder, text: (v) => `${v} of ${dim}`,
  });
  const stops = [["none", 0], ["half", Math.floor(dim / 2)], ["all", dim]];
  const ends = choice(
    stops.map(([text, to]) => [text, to, { "data-border": to, "aria-label": `given: ${text}` }]),
    () => page.get("given"), moveBorder);
  const node = make("div", { class: "fl-area-picture" },
    titled(swatch("var(--fl-data)"), "given: paint it ", swatch("var(--fl-third)"), "drawn"),
    picture.svg, border.node, make("div", { class: "fl-row fl-close" }, ...ends.nodes, asked));
  const draw = (now) => [picture, border, ends].forEach((part) => part.draw(now));
  return { node, draw };
}

// The chance of ink, with its scale.
function chancePart(game) {
  const { page } = game;
  const [chance, title] = [chanceSheet(game), titled()];
  const views = choice(
    [["one by one", false], [`mean of ${MANY}`, true]].map(([text, mean]) => [text, mean, { "data-mean": mean }]),
    () => page.get("mean"), (mean) => page.set({ mean }));
  const node = make("div", { class: "fl-area-chance" }, title, chance.svg,
    make("div", { class: "fl-ends fl-fine fl-ramped" }, make("span", {}, "0"), make("i", {}), make("span", {}, "1")),
    make("div", { class: "fl-row fl-close" }, ...views.nodes));
  const draw = (now) => {
    chance.draw(now);
    views.draw();
    put(title, {}, swatch("var(--fl-muted)"), now.mean ? `ink in ${MANY} completions` : "p(ink | those before)");
  };
  return { node, draw };
}

// The completions, and the draw of the chosen one, step by step.
function tilesPart(game) {
  const { page, dim, goStep } = game;
  const [tiles, says] = [tilesOf(game), telling(game)];
  const stepper = slider({
    name: "known", symbol: ["drawn to"], label: "Up to which pixel it is drawn", min: 0, max: dim, step: 1,
    get: () => Math.max(page.get("known"), page.get("given")), set: goStep, text: (v) => `${v} of ${dim}`,
  });
  const next = () => {
    const { known, given } = page.state();
    goStep(known >= dim ? given + 1 : Math.max(known, given) + 1);
  };
  const node = make("div", { class: "fl-area-tiles" },
    titled(`${FEW} completions `, make("span", { class: "fl-fine" }, "of the same paint; choose one")),
    tiles.node,
    row(
      button("draw again", { "data-action": "again" }, () => page.set({ seed: (page.get("seed") + 1) % 2 ** 31 })),
      button("next pixel", { "data-action": "next" }, next),
      button("end", { "data-action": "all", "aria-label": "draw to the end" }, () => goStep(dim))),
    stepper.node);
  const draw = (now) => [tiles, stepper, says].forEach((part) => part.draw(now));
  return { node, says: says.node, draw };
}

function render({ model, el }) {
  const page = openPage(el, model, TRAITS, WORK);
  const game = openGame(page);
  const [from, turn, chance] = [starts(game), turnOf(game), chancePart(game)];
  const [picture, tiles, bill, ends] = [picturePart(game, turn.asked), tilesPart(game), billOf(game), tools(page)];
  el.replaceChildren(frame(
    [make("div", { class: "fl-complete" }, picture.node, next(chance.node), next(tiles.node))],
    [from.node, ...turn.nodes, tiles.says, ...bill.nodes, ends.node]));

  return page.run(() => {
    const now = game.now();
    for (const part of [from, picture, chance, tiles, bill, turn, ends]) part.draw(now);
    for (const [name, value] of Object.entries(page.state())) el.dataset[name] = JSON.stringify(value);
    el.dataset.drawn = now.few.map((state) => game.all.map((d) => game.ink(state, d)).join("")).join();
  });
}

export default { render };
