// CompletionExplorer: a trained MADE completes the picture that you paint.

const TRAITS = ["pixels", "given", "seed", "chosen", "known", "pixel", "mean"];
const [FEW, MANY] = [8, 200]; // completions that are shown, and of which the mean is taken
const SPAN = 320; // the units of the longer side of a picture
const MARGIN = 14; // around it, for what is drawn on its edge
const DEAR = 5; // nats of the highest bar
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

const upTo = (count, from = 0) => Array.from({ length: Math.max(0, count - from) }, (_, i) => from + i);
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

// --- the model --------------------------------------------------------------------------------

// Number k of mulberry32, in [0, 1).
function uniform(seed, k) {
  const a = (Math.imul(seed, 0x9e3779b1) + Math.imul(k + 1, 0x6d2b79f5)) >>> 0;
  let t = Math.imul(a ^ (a >>> 15), a | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}

// The weights as Python packed them: units in the order of their degrees, each with its bias and
// its links to the first so many units of the layer before, all in steps of one size.
function unpack({ ranks, degrees, direct, units, links }) {
  const dim = ranks.length;
  const bytes = new DataView(Uint8Array.from(atob(links), (c) => c.charCodeAt(0)).buffer);
  const weights = new Float64Array(bytes.byteLength / 2);
  const place = []; // which pixel is the first of the ordering, the second, ...
  ranks.forEach((rank, d) => (place[rank - 1] = d));
  // of each layer, inputs included, how many units have a degree up to 0, 1, ...
  const ends = [upTo(dim, 1), ...degrees].map((layer) => upTo(dim + 1).map((m) => layer.filter((degree) => degree <= m).length));
  ends[0] = upTo(dim + 1);
  const last = degrees.length;
  let [at, rows] = [0, 0];
  const row = (count, also = 0) => {
    const [start, unit] = [at, units[rows++]];
    for (; at < start + 1 + count + also; at++) weights[at] = bytes.getInt16(2 * at, true) * unit;
    return { start, count, also };
  };
  const hidden = degrees.map((layer, l) => layer.map((m) => row(ends[l][m])));
  const outputs = upTo(dim).map((t) => row(ends[last][t], direct ? t : 0));
  const dot = ({ start, count }, values) => {
    let total = weights[start];
    for (let c = 0; c < count; c++) total += weights[start + 1 + c] * values[c];
    return total;
  };

  // A picture on its way: its first values in the ordering, and the units that are final.
  const fresh = () => ({ x: new Float64Array(dim), h: degrees.map((layer) => new Float64Array(layer.length)), logit: new Float64Array(dim) });
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
        for (let u = t ? ends[l + 1][t - 1] : 0; u < ends[l + 1][t]; u++) state.h[l][u] = Math.max(0, dot(hidden[l][u], before));
      }
      const { start, count, also } = outputs[t];
      let logit = dot(outputs[t], last ? state.h[last - 1] : state.x);
      for (let c = 0; c < also; c++) logit += weights[start + 1 + count + c] * state.x[c];
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

// --- the page ---------------------------------------------------------------------------------

function render({ model, el }) {
  const [network, shape, pictures, labels, typical, start, goal] =
    ["network", "shape", "pictures", "labels", "typical", "start", "goal"].map((name) => model.get(name));
  const net = unpack(network);
  const { dim, ranks, place } = net;
  const [height, width] = shape;
  const cell = SPAN / Math.max(height, width);
  const gap = Math.min(2, cell / 5);
  const all = upTo(dim);
  const now = () => Object.fromEntries(TRAITS.map((name) => [name, model.get(name)]));
  const set = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
  const clamp = (v, low, high) => Math.max(low, Math.min(high, v));
  const spot = (d) => [(d % width) * cell, Math.floor(d / width) * cell];
  const where = (d) => `row ${Math.floor(d / width) + 1}, column ${(d % width) + 1}`;

  // What is computed, kept until the paint, the border or the seed are others.
  let [made, key, noise, noiseOf] = [null, "", null, null];
  const results = ({ pixels, given, seed }) => {
    const present = `${seed},${given},${place.slice(0, given).map((d) => pixels[d]).join("")}`;
    if (key === present) return made;
    if (noiseOf !== seed) [noise, noiseOf] = [Float64Array.from({ length: MANY * dim }, (_, k) => uniform(seed, k)), seed];
    [made, key] = [complete(net, pixels, given, noise), present];
    return made;
  };
  const ink = (state, d) => state.x[ranks[d] - 1];

  const moveBorder = (to) => {
    const s = now();
    to = clamp(to, 0, dim);
    if (to === s.given) return;
    // What was drawn becomes given as it is seen: from there on the picture is the same.
    const pixels = [...s.pixels];
    const large = results(s).few[s.chosen];
    for (const d of place.slice(s.given, to)) pixels[d] = ink(large, d);
    set({ pixels, given: to });
  };
  const startFrom = (pixels) => set({ pixels, known: dim, ...(now().given === 0 && { given: Math.floor(dim / 2) }) });
  const toggle = (d, value) => {
    const { pixels } = now();
    if (pixels[d] !== value) set({ pixels: pixels.map((v, k) => (k === d ? value : v)), pixel: d });
    else set({ pixel: d });
  };
  const goStep = (known) => {
    const { given } = now();
    known = clamp(known, given, dim);
    set({ known, ...(known > given && known < dim && { pixel: place[known - 1] }) });
  };

  // What is told of: the pixel under the mouse, else the chosen one.
  let [pointed, frames] = [-1, 0];
  const soon = () => (frames ||= requestAnimationFrame(() => ((frames = 0), draw())));
  const point = (d) => d !== pointed && ((pointed = d), soon());

  // A view of all pixels: cells, marks, and a ring around the chosen pixel that takes the keys.
  function sheet(name, label, right) {
    // a narrow picture is as high as a square one, and has room at its right
    const box = [-4, -MARGIN, SPAN + 8 + right, height * cell + 2 * MARGIN];
    const svg = make("svg:svg", { viewBox: box.join(" "), role: "group", "aria-label": label, "data-view": name, class: "fl-sheet" });
    const cells = all.map((d) => {
      const [x, y] = spot(d);
      const face = make("svg:rect", { x: x + gap / 2, y: y + gap / 2, width: cell - gap, height: cell - gap, rx: Math.min(3, cell / 9) });
      const dot = make("svg:circle", { cx: x + cell / 2, cy: y + cell / 2, r: cell * 0.2 });
      return { face, dot };
    });
    const marks = make("svg:g", {});
    const square = (extra, attributes) => make("svg:rect", { x: -extra, y: -extra, width: cell + 2 * extra, height: cell + 2 * extra, rx: 3 + extra, ...attributes });
    const ring = make("svg:g", { class: "fl-grab fl-spot", tabindex: 0, "data-ring": name },
      square(0, { class: "fl-ring-case" }), square(0, { class: "fl-ring-line" }), square(6, { class: "fl-halo" }));
    svg.append(...cells.map((one) => one.face), ...cells.map((one) => one.dot), marks, ring);
    if (goal.pixel !== undefined) {
      const [x, y] = spot(goal.pixel);
      ring.before(make("svg:text", { class: "fl-asked fl-cased", x: x + 0.8 * cell, y: y + 0.26 * cell }, "?"));
    }
    const at = (event) => {
      const frame = svg.getBoundingClientRect();
      return [box[0] + ((event.clientX - frame.left) / frame.width) * box[2], box[1] + ((event.clientY - frame.top) / frame.height) * box[3]];
    };
    const under = ([x, y]) => {
      const [column, row] = [Math.floor(x / cell), Math.floor(y / cell)];
      return 0 <= column && column < width && 0 <= row && row < height ? row * width + column : -1;
    };
    svg.onpointerleave = () => point(-1);
    const focusRing = () => ring.focus({ preventScroll: true });
    ring.onkeydown = (event) => {
      point(-1);
      const way = ARROWS[event.key];
      const press = name === "picture" && (event.key === " " || event.key === "Enter");
      if (!way && !press) return;
      event.preventDefault();
      event.stopPropagation();
      const { pixel, pixels, given } = now();
      if (press && ranks[pixel] <= given) toggle(pixel, 1 - pixels[pixel]);
      if (!way) return;
      const [row, column] = [Math.floor(pixel / width) + way[0], (pixel % width) + way[1]];
      if (0 <= row && row < height && 0 <= column && column < width) set({ pixel: row * width + column });
    };
    return { svg, cells, marks, ring, at, under, focusRing };
  }

  // The picture: strokes paint what is given; the first pixel that one touches decides between ink
  // and none.
  const picture = sheet("picture", "The picture: paint what is given", 32);
  const chance = sheet("chance", "How probable ink is at each pixel", 0);
  let [brush, last, stroke] = [null, null, false];
  const canPaint = (d) => d >= 0 && ranks[d] <= now().given;
  picture.svg.onpointerdown = (event) => {
    if (event.button) return;
    last = picture.at(event);
    const d = picture.under(last);
    stroke = canPaint(d);
    if (d < 0) return;
    if (stroke) {
      point(-1);
      brush = 1 - now().pixels[d];
      picture.svg.setPointerCapture(event.pointerId);
      toggle(d, brush);
    }
    picture.focusRing();
  };
  // or the browser would take the focus away again
  picture.svg.onmousedown = (event) => event.preventDefault();
  picture.svg.onpointermove = (event) => {
    const here = picture.at(event);
    if (brush === null) return event.pointerType === "touch" ? undefined : point(picture.under(here));
    // a fast hand skips pixels
    const steps = Math.ceil(Math.hypot(here[0] - last[0], here[1] - last[1]) / (cell / 3)) || 1;
    for (let k = 1; k <= steps; k++) {
      const d = picture.under(last.map((v, i) => v + ((here[i] - v) * k) / steps));
      if (canPaint(d)) toggle(d, brush);
    }
    last = here;
  };
  picture.svg.onpointerup = picture.svg.onpointercancel = () => (brush = null);
  // on what is drawn a finger scrolls, and a tap or a click chooses
  picture.svg.onclick = (event) => {
    const d = picture.under(picture.at(event));
    if (d >= 0 && !stroke) set({ pixel: d });
  };
  picture.svg.addEventListener("touchstart", (event) => {
    if (canPaint(picture.under(picture.at(event.touches[0])))) event.preventDefault();
  }, { passive: false });
  chance.svg.onclick = (event) => {
    const d = chance.under(chance.at(event));
    if (d < 0) return;
    set({ pixel: d });
    chance.focusRing();
  };
  chance.svg.onpointermove = (event) => event.pointerType !== "touch" && point(chance.under(chance.at(event)));
  put(picture.ring, { role: "checkbox" });
  put(chance.ring, { role: "slider", "aria-label": "The pixel that is told of", "aria-valuemin": 0, "aria-valuemax": dim - 1 });

  // The border, with a knob in the margin: a full row of the way is a row of pixels.
  const rim = make("svg:path", { class: "fl-given-edge" });
  picture.marks.append(rim);
  for (const { marks } of [picture, chance]) marks.append(make("svg:path", { class: "fl-border-case" }), make("svg:path", { class: "fl-border" }));
  const knob = make("svg:g", {
    class: "fl-grab fl-knob", tabindex: 0, role: "slider", "data-handle": "border", "aria-label": "The border between given and drawn",
    "aria-orientation": "vertical", "aria-valuemin": 0, "aria-valuemax": dim, style: "color:var(--fl-data)",
  },
    make("svg:path", { d: "M-18 0h12", class: "fl-border" }),
    make("svg:circle", { class: "fl-halo", r: 20 }),
    make("svg:circle", { r: 11, fill: "currentColor", stroke: "var(--fl-panel)", "stroke-width": 2 }),
    make("svg:path", { class: "fl-updown", d: "M-4 -2.5L0 -6.5L4 -2.5M-4 2.5L0 6.5L4 2.5" }),
  );
  picture.svg.append(knob);
  let offset = null;
  knob.onpointerdown = (event) => {
    event.stopPropagation();
    offset = (now().given * cell) / width - picture.at(event)[1];
    knob.setPointerCapture(event.pointerId);
    knob.focus({ preventScroll: true });
  };
  knob.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  knob.onpointermove = (event) => {
    event.stopPropagation();
    if (offset !== null) moveBorder(Math.round(((picture.at(event)[1] + offset) * width) / cell));
  };
  knob.onpointerup = knob.onpointercancel = () => (offset = null);
  knob.onclick = (event) => event.stopPropagation();
  knob.onkeydown = (event) => {
    const { given } = now();
    const to = {
      ArrowUp: given - width, ArrowDown: given + width, ArrowLeft: given - 1, ArrowRight: given + 1, Home: 0, End: dim,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    moveBorder(to);
  };

  // Small pictures: three paths of cells each.
  const squares = (which) => which.map((d) => `M${(d % width)} ${Math.floor(d / width)}h1v1h-1z`).join("") || "M0 0";
  const [wide, high] = [Math.max(width, height), Math.max(height, width / 2)]; // no thin strips
  const thumbBox = [(width - wide) / 2, (height - high) / 2, wide, high].join(" ");
  function thumb() {
    const paths = ["fl-sheet-given", "fl-sheet-drawn", "fl-ink-given", "fl-ink-drawn"].map((name) => make("svg:path", { class: name }));
    const svg = make("svg:svg", { viewBox: thumbBox, "aria-hidden": "true" }, ...paths);
    const draw = (isInk, given, known) => {
      const groups = [[], [], [], []];
      for (const d of all) {
        const first = ranks[d] <= given;
        groups[first ? 0 : 1].push(d);
        if (ranks[d] <= known && isInk(d)) groups[first ? 2 : 3].push(d);
      }
      paths.forEach((path, k) => path.setAttribute("d", squares(groups[k])));
    };
    return { svg, draw };
  }
  const sheets = [...pictures.map((digits, k) => [labels[k], [...digits].map(Number)]), ["blank", all.map(() => 0)]];
  const presets = sheets.map(([label, digits], k) => {
    const { svg, draw } = thumb();
    draw((d) => digits[d], dim, dim);
    const node = button("", { "data-picture": k, "aria-label": `start from ${label}`, title: label }, () => startFrom(digits));
    node.append(svg);
    return { node, digits };
  });
  const tiles = upTo(FEW).map((i) => {
    const { svg, draw } = thumb();
    const node = button("", { "data-completion": i }, () => set({ chosen: i }));
    node.append(svg);
    return { node, draw };
  });

  // controls
  const border = slider({
    name: "given", symbol: ["given"], label: "How many pixels are given", min: 0, max: dim, step: 1,
    get: () => now().given, set: moveBorder, text: (v) => `${v} of ${dim}`,
  });
  const stepper = slider({
    name: "known", symbol: ["drawn to"], label: "Up to which pixel it is drawn", min: 0, max: dim, step: 1,
    get: () => Math.max(now().known, now().given), set: goStep, text: (v) => `${v} of ${dim}`,
  });
  const next = button("next pixel", { "data-action": "next" }, () => {
    const { known, given } = now();
    goStep(known >= dim ? given + 1 : Math.max(known, given) + 1);
  });
  const whole = button("end", { "data-action": "all", "aria-label": "draw to the end" }, () => goStep(dim));
  const ends = [["none", 0], ["half", Math.floor(dim / 2)], ["all", dim]].map(([text, to]) =>
    button(text, { "data-border": to, "aria-label": `given: ${text}` }, () => moveBorder(to)));
  const views = [["one by one", false], [`mean of ${MANY}`, true]].map(([text, mean]) =>
    button(text, { "data-mean": mean }, () => set({ mean })));

  // the bill: a bar for each pixel, in the ordering
  const bars = all.map((t) => make("svg:rect", { x: t + 0.1, width: 0.8 }));
  const cursor = make("svg:rect", { width: 1, y: 0, height: DEAR, class: "fl-bill-at" });
  const bill = make("svg:svg", { viewBox: `0 0 ${dim} ${DEAR}`, preserveAspectRatio: "none", class: "fl-bill-bars", "aria-hidden": "true", "data-bill": "" }, cursor, ...bars);
  const barAt = (event) => {
    const frame = bill.getBoundingClientRect();
    return place[clamp(Math.floor(((event.clientX - frame.left) / frame.width) * dim), 0, dim - 1)];
  };
  bill.onpointermove = (event) => event.pointerType !== "touch" && point(barAt(event));
  bill.onpointerleave = () => point(-1);
  bill.onclick = (event) => set({ pixel: barAt(event) });
  const total = make("span", {});
  const account = ledger([-0.45 * dim, 0], [
    { name: "given", text: ["log p(given)"], color: "var(--fl-data)" },
    { name: "drawn", text: ["log p(drawn | given)"], color: "var(--fl-third)" },
    // With a digit less it is always a rounding of the sum of the two numbers as shown.
    { name: "total", text: [total], digits: 1 },
  ]);
  const usual = make("p", { class: "fl-fine" });

  const told = make("p", { class: "fl-told", "data-told": "" });
  const gauge = make("div", { class: "fl-gauge", "aria-hidden": "true" }, make("i", {}), make("b", {}));
  const title = make("p", { class: "fl-panel-title" });
  const asked = make("span", { class: "fl-fine fl-count" });
  const turn = goal.pixel === undefined ? null : task("far",
    `Find one given pixel that matters to the pixel marked ?, at ${where(goal.pixel)}: change it, and it alone, so that ? is ink in at ${goal.sign > 0 ? "least" : "most"} ${goal.bound} of the ${MANY} completions. The random numbers stay the same.`);

  el.replaceChildren(
    make("div", { class: "fl-from" }, make("span", {}, "start from"), make("div", { class: "fl-thumbs fl-pictures" }, ...presets.map((one) => one.node))),
    make("div", { class: "fl-complete" },
      make("div", { class: "fl-area-picture" },
        make("p", { class: "fl-panel-title" }, swatch("var(--fl-data)"), "given: paint it ", swatch("var(--fl-third)"), "drawn"),
        picture.svg,
        border.node,
        make("div", { class: "fl-row fl-close" }, ...ends, asked)),
      make("div", { class: "fl-area-chance" }, title, chance.svg,
        make("div", { class: "fl-ends fl-fine fl-ramped" }, make("span", {}, "0"), make("i", {}), make("span", {}, "1")),
        make("div", { class: "fl-row fl-close" }, ...views)),
      make("div", { class: "fl-area-tiles" },
        make("p", { class: "fl-panel-title" }, `${FEW} completions `, make("span", { class: "fl-fine" }, "of the same paint; choose one")),
        make("div", { class: "fl-thumbs fl-tiles" }, ...tiles.map((one) => one.node)),
        make("div", { class: "fl-row" },
          button("draw again", { "data-action": "again" }, () => set({ seed: (now().seed + 1) % 2 ** 31 })),
          next, whole,
          button("reset", { "data-action": "reset" }, () => set(structuredClone(start)))),
        stepper.node,
        make("div", { class: "fl-telling" }, told, gauge)),
    ),
    make("p", { class: "fl-panel-title fl-apart" }, "what each pixel costs, ", make("span", { class: "fl-fine" }, `−log p in nats, in the ordering; a full bar is ${DEAR} or more`)),
    bill,
    account.node,
    usual,
    ...(turn ? [turn.node] : []),
  );

  // The pixel's numbers in words.
  function tell(d, s, large, counts) {
    const [t, known] = [ranks[d] - 1, Math.max(s.known, s.given)];
    const name = `Pixel ${t + 1} of ${dim}, ${where(d)}: `;
    const p = sigmoid(large.logit[t]);
    const u = noise[s.chosen * dim + d];
    const cost = show(-logProb(large.x[t], large.logit[t]));
    gauge.hidden = !s.mean && t > known;
    gauge.firstChild.style.width = `${100 * (s.mean ? counts[d] / MANY : p)}%`;
    gauge.lastChild.style.left = `${100 * u}%`;
    gauge.lastChild.hidden = s.mean || t < s.given || t >= known;
    if (s.mean) return name + (t < s.given ? `given, and so the same in all ${MANY}.` : `ink in ${counts[d]} of ${MANY} completions of this paint.`);
    if (t > known) return `${name}not drawn as yet. It waits for those before it.`;
    if (t === known) return `${name}the next. From ${t ? `the ${t} before it` : "nothing"} the model says p(ink) = ${show(p)}.`;
    if (t < s.given) {
      const so = large.x[t] ? `ink, to which the model gives ${show(p)}` : `no ink, to which the model gives ${show(1 - p)}`;
      return `${name}you gave ${so}. It costs ${cost} nats.`;
    }
    // with as many digits as tell the two apart
    const digits = upTo(6, 2).find((n) => show(p, n) !== show(u, n)) ?? 6;
    return `${name}p(ink) = ${show(p, digits)}, and the random number u = ${show(u, digits)} is ${large.x[t] ? "less: ink" : "not less: no ink"}. It costs ${cost} nats.`;
  }

  function judge(s, count) {
    const others = place.slice(0, start.given).filter((d) => s.pixels[d] !== start.pixels[d]);
    const says = `Now ${count} of ${MANY}`;
    if (s.given !== start.given) return [false, "The border is not where it was: reset."];
    if (s.seed !== start.seed) return [false, "These are other random numbers: reset."];
    if (!others.length) return [false, `${says}.`];
    if (others.length > 1) return [false, `${says}, but ${others.length} given pixels are not as at the start.`];
    if ((count - goal.bound) * goal.sign < 0) return [false, `${says}, with one pixel changed.`];
    const rows = Math.abs(Math.floor(goal.pixel / width) - Math.floor(others[0] / width));
    return [true, `Done: ${says.toLowerCase()}. The pixel you changed is ${rows ? `${rows} row${rows > 1 ? "s" : ""} away` : "in the same row"}.`];
  }

  // The outline of a set of pixels towards what is not in it, and towards the outside.
  const outline = (has) => {
    let [inner, outer] = ["", ""];
    for (const d of all.filter(has)) {
      const [row, column] = [Math.floor(d / width), d % width];
      const [x, y] = spot(d);
      for (const [dr, dc, line] of [[-1, 0, `M${x} ${y}h${cell}`], [1, 0, `M${x} ${y + cell}h${cell}`], [0, -1, `M${x} ${y}v${cell}`], [0, 1, `M${x + cell} ${y}v${cell}`]]) {
        const [r, c] = [row + dr, column + dc];
        if (r < 0 || r >= height || c < 0 || c >= width) outer += line;
        else if (!has(r * width + c)) inner += line;
      }
    }
    return [inner || "M0 0", outer || "M0 0"];
  };
  let outlined = -1;
  const mark = (node, names) => node.getAttribute("class") !== names && node.setAttribute("class", names);

  function draw() {
    const s = now();
    const { few, counts } = results(s);
    const large = few[s.chosen];
    const known = Math.max(s.known, s.given);
    const look = pointed < 0 ? s.pixel : pointed;
    Object.assign(el.dataset, {
      ...Object.fromEntries(TRAITS.map((name) => [name, JSON.stringify(s[name])])),
      drawn: few.map((state) => all.map((d) => ink(state, d)).join("")).join(),
    });

    if (outlined !== s.given) {
      outlined = s.given;
      const [inner, outer] = outline((d) => ranks[d] <= s.given);
      for (const view of [picture, chance]) for (const path of view.marks.querySelectorAll(".fl-border, .fl-border-case")) path.setAttribute("d", inner);
      rim.setAttribute("d", outer);
      const [x, y] = [width * cell + 18, (s.given * cell) / width];
      put(knob, { transform: `translate(${x} ${y})`, "aria-valuenow": s.given, "aria-valuetext": `${s.given} of ${dim} given` });
    }
    for (const d of all) {
      const t = ranks[d] - 1;
      const kind = t < s.given ? "given" : "drawn";
      const there = t < known;
      const on = there && ink(large, d);
      mark(picture.cells[d].face, !there ? "fl-vacant" : `fl-${on ? "ink" : "sheet"}-${kind}`);
      mark(picture.cells[d].dot, "fl-none");
      const { face, dot } = chance.cells[d];
      const level = s.mean ? counts[d] / MANY : t <= known ? sigmoid(large.logit[t]) : null;
      mark(face, level === null ? "fl-vacant" : "fl-grey");
      if (level === null) delete face.dataset.level;
      else {
        face.style.setProperty("--fl-level", `${(100 * level).toFixed(1)}%`);
        face.dataset.level = level;
      }
      mark(dot, on && (!s.mean || t < s.given) ? `fl-dot-${kind}` : "fl-none");
    }
    for (const view of [picture, chance]) put(view.ring, { transform: `translate(${spot(look).join(" ")})` });
    const state = ranks[s.pixel] <= s.given ? "given" : "drawn";
    const on = ink(large, s.pixel);
    put(picture.ring, { "aria-checked": on === 1, "aria-disabled": state === "drawn", "aria-label": `${where(s.pixel)}, ${state}, ${on ? "ink" : "no ink"}` });
    put(chance.ring, { "aria-valuenow": s.pixel, "aria-valuetext": `${where(s.pixel)}, ${chance.cells[s.pixel].face.dataset.level ?? "not drawn"}` });

    tiles.forEach(({ node, draw }, i) => {
      draw((d) => ink(few[i], d), s.given, known);
      put(node, { "aria-pressed": i === s.chosen, "aria-label": `completion ${i + 1}` });
    });
    for (const { node, digits } of presets) node.setAttribute("aria-pressed", s.given > 0 && place.slice(0, s.given).every((d) => digits[d] === s.pixels[d]));
    for (const node of ends) node.setAttribute("aria-pressed", Number(node.dataset.border) === s.given);
    for (const node of views) node.setAttribute("aria-pressed", (node.dataset.mean === "true") === s.mean);
    border.draw();
    stepper.draw();

    const terms = all.map((t) => (t < known ? logProb(large.x[t], large.logit[t]) : 0));
    bars.forEach((bar, t) => {
      const high = Math.min(DEAR, -terms[t]);
      mark(bar, t < s.given ? "fl-ink-given" : "fl-ink-drawn");
      put(bar, { y: DEAR - high, height: high });
    });
    put(cursor, { x: ranks[look] - 1 });
    const [first, rest] = [sum(terms.slice(0, s.given)), sum(terms.slice(s.given))];
    account.draw({ given: first, drawn: rest, total: first + rest });
    total.textContent = known < dim ? "their sum, so far" : "log p(x), their sum";
    usual.style.visibility = known < dim ? "hidden" : ""; // of whole digits
    if (typical.length) usual.textContent = `Whole test digits: ${show(typical[0], 1)} on average, and nine in ten between ${show(typical[1], 1)} and ${show(typical[2], 1)}.`;

    put(title, {}, swatch("var(--fl-muted)"), s.mean ? `ink in ${MANY} completions` : "p(ink), given those before");
    told.textContent = tell(look, s, large, counts);
    if (!turn) return;
    put(asked, { "data-count": counts[goal.pixel] }, "? is ink in ", make("b", {}, `${counts[goal.pixel]}`), ` of ${MANY}`);
    turn.draw(...judge(s, counts[goal.pixel]));
  }

  return frame(el, model, TRAITS, draw);
}

export default { render };
