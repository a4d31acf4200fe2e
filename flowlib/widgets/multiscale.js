// MultiscaleExplorer: a picture on its way through RealNVP, and a pixel that is followed to z.

const TRAITS = ["picture", "depth", "pixel"];
const SPAN = 320; // the units of a view's width
const REACH = 3; // what is fully black, once values have left the unit interval; white is -REACH

// The marks of a cell, by what a step does with its number; the words are those of the legend.
const MARKS = {
  m: "moved, by what the others say",
  e: "moved, each by itself",
  k: "waits: the same value as before",
  r: "carried to another place, the same value",
  l: "leaves for the latent, the same value",
  "-": "left before",
};
const meaning = (letter, kind) => (letter === "k" && kind === "leave" ? "goes on: the same value" : MARKS[letter]);
const split = ([, h, w], k) => [Math.floor(k / (h * w)), Math.floor(k / w) % h, k % w];
const place = (shape, k) => {
  const [channel, row, column] = split(shape, k);
  return `${shape[0] > 1 ? `channel ${channel}, ` : ""}row ${row}, column ${column}`;
};

// Where the cells of an array (C, H, W) are drawn: its channels as planes, side by side.
function planes([c, h, w]) {
  if (!c) return { cells: [], cell: 0, words: [] };
  const columns = Math.ceil(Math.sqrt(c));
  const rows = Math.ceil(c / columns);
  const [gap, title] = c > 1 ? [14, 30] : [0, 28];
  const margin = c > 1 ? 2 : 36; // one plane alone has its rows numbered
  const cell = Math.min((SPAN - margin - 2 - gap * (columns - 1)) / (columns * w), (SPAN - title * rows - 2) / (rows * h));
  const corner = (channel) => [
    margin + (channel % columns) * (w * cell + gap),
    title + Math.floor(channel / columns) * (h * cell + title),
  ];
  const cells = range(c * h * w).map((k) => {
    const [left, top] = corner(Math.floor(k / (h * w)));
    return [left + (k % w) * cell, top + (Math.floor(k / w) % h) * cell];
  });
  const text = (x, y, words, anchor) => make("svg:text", { x, y, "text-anchor": anchor, class: "fl-coord" }, `${words}`);
  const some = (n) => range(n).filter((k) => cell > 30 || k % 4 === 0);
  const words = c > 1
    ? range(c).map((k) => text(corner(k)[0], corner(k)[1] - 7, cell * w > 120 ? `channel ${k}` : k, "start"))
    : [
        ...some(w).map((k) => text(margin + (k + 0.5) * cell, 22, k, "middle")),
        ...some(h).map((k) => text(margin - 6, title + (k + 0.5) * cell + 8, k, "end")),
      ];
  return { cells, cell, words };
}

// A view: cells with their grey and their marks, and a ring around the chosen one, which takes the
// arrow keys. `at` says which cell is the chosen pixel's, -1 for none; `choose` takes another cell.
function grid({ name, label, height = SPAN, at, choose, says }) {
  const svg = make("svg:svg", { viewBox: `0 0 ${SPAN} ${height}`, role: "group", "aria-label": label, "data-view": name });
  const ring = make(
    "svg:g",
    {
      class: "fl-grab", tabindex: 0, role: "slider", "data-handle": name,
      "aria-label": `The chosen pixel, ${label}`, "aria-valuemin": 0,
    },
    make("svg:rect", { class: "fl-casing" }), make("svg:rect", { class: "fl-ring" }), make("svg:rect", { class: "fl-halo" }),
  );
  let [layout, laid] = [{ cells: [] }, ""];
  const under = (event) => {
    const [x, y] = pointerAt(svg, event);
    return layout.cells.findIndex(([left, top]) => left <= x && x < left + layout.cell && top <= y && y < top + layout.cell);
  };
  const take = (event) => {
    const k = under(event);
    if (k < 0) return;
    choose(k);
    requestAnimationFrame(() => ring.focus({ preventScroll: true })); // when the ring is here
  };
  svg.addEventListener("click", take);
  svg.onpointermove = (event) => event.buttons && take(event);
  takeKeys(ring, arrowKeys((way) => {
    const next = ahead(layout.cells, layout.cells[at()], way);
    if (next >= 0) choose(next);
  }));
  // What a cell shows: {grey, letter, text}; grey null is an empty place.
  const draw = (now, key, contents) => {
    if (laid !== key) {
      [layout, laid] = [now, key];
      const places = layout.cells.map(([x, y]) => make("svg:g", { transform: `translate(${x} ${y})` }));
      svg.replaceChildren(...layout.words, ...places, ring);
    }
    const nodes = [...svg.children].slice(layout.words.length, -1);
    nodes.forEach((node, k) => put(node, {}, ...face(contents[k], layout.cell)));
    const k = at();
    ring.style.display = k < 0 ? "none" : "";
    if (k < 0) return;
    const [x, y] = layout.cells[k];
    put(ring, {
      transform: `translate(${x} ${y})`, "aria-valuemax": layout.cells.length - 1, "aria-valuenow": k, "aria-valuetext": says(),
    });
    ring.classList.toggle("fl-awaited", contents[k].grey === null);
    const size = layout.cell;
    for (const rect of ring.children) put(rect, { x: -1, y: -1, width: size + 2, height: size + 2 });
    put(ring.lastChild, { x: -6, y: -6, width: size + 12, height: size + 12, rx: 4 });
  };
  return { svg, draw };
}

// The inside of a cell: its grey, and above it the mark of its letter.
function face({ grey, letter, text }, size) {
  const inner = { x: 1, y: 1, width: size - 2, height: size - 2 };
  if (grey === null) return [make("svg:rect", { ...inner, class: "fl-vacant" })];
  const nodes = [make("svg:rect", { ...inner, class: "fl-grey", style: `--fl-level:${(100 * grey).toFixed(0)}%` })];
  const circle = (r, kind) => make("svg:circle", { cx: size / 2, cy: size / 2, r: size * r, class: kind });
  if (letter === "m") nodes.push(circle(0.23, "fl-moved"));
  if (letter === "e") nodes.push(circle(0.2, "fl-each-case"), circle(0.2, "fl-each"));
  // A frame, so that the grey stays to be seen: thick in the step in which it leaves, thin from then on.
  if (letter === "l" || letter === "-") {
    const edge = (letter === "l" ? 0.14 : 0.05) * size;
    const [at, side] = [1 + edge / 2, size - 2 - edge];
    nodes.push(make("svg:rect", { x: at, y: at, width: side, height: side, "stroke-width": edge, class: letter === "l" ? "fl-leaves" : "fl-left" }));
  }
  if (text !== undefined) nodes.push(make("svg:text", { x: size / 2, y: size / 2, class: "fl-coord fl-cased fl-number" }, text));
  return nodes;
}

// What a step did, in a sentence or two.
function story({ kind, status, shape }, before, left) {
  const count = (letter) => status.split(letter).length - 1;
  const [c, h, w] = before.shape;
  const channels = (letter) => {
    const array = before.order.slice(status.length - c * h * w);
    return listed([...new Set(array.map((i, k) => (status[i] === letter ? Math.floor(k / (h * w)) : -1)).filter((k) => k >= 0))]);
  };
  if (kind === "each") return `Each of the ${count("e")} numbers on the way moves by itself: none looks at another.`;
  if (kind === "pixels") return `${count("m")} numbers move, by what the other ${count("k")} on the way say; those wait. No place changes.`;
  if (kind === "channels") return `Channels ${channels("m")} move, by what channels ${channels("k")} say; those wait. No place changes.`;
  if (kind === "squeeze") return `Each square of 2 × 2 places becomes one place with four times the channels. Places change, values do not.`;
  const to = `z[${left - count("l")}] to z[${left - 1}]`;
  if (!count("k")) return `All that was still on its way arrives as ${to}. Values do not change.`;
  return `Channels ${channels("l")} go to the latent as they are, as ${to}. Channels ${channels("k")} go on.`;
}

// The longest texts there are.
const LONGEST = {
  told: "Each square of 2 × 2 places becomes one place with four times the channels. Places change, values do not.",
  follow: "Pixel at row 4, column 4: it moves in this step, by itself, from −0.42 to −0.36. " +
    "In the array it is at channel 0, row 2, column 2. It will leave in step 24, as z[42].",
};

// The small pictures of the steps on the track, 20 by 24: what is drawn, and what is filled.
const GLYPHS = {
  each: ["M10 9a3 3 0 1 1 0 6a3 3 0 1 1 0 -6z", ""],
  pixels: ["M4 6h12v12h-12z", "M4 6h6v6h-6zM10 12h6v6h-6z"],
  channels: ["M4 6h12v12h-12z", "M4 12h12v6h-12z"],
  squeeze: ["M3 5l5 5m0 -4v4h-4M17 5l-5 5m0 -4v4h4M3 19l5 -5m0 4v-4h-4M17 19l-5 -5m0 4v-4h4", ""],
  leave: ["M10 4v11M5 11l5 5l5 -5M4 20h12", ""],
};
const KINDS = { each: "each by itself", pixels: "checkerboard", channels: "channels", squeeze: "squeeze", leave: "leave" };

const drawn = ([outline, solid]) => [make("svg:path", { d: outline }), make("svg:path", { d: solid, class: "fl-solid" })];

// What is known of the pictures on their way, and where a pixel's number is.
function journey(page) {
  const [values, dets, steps, shape, labels] = ["values", "log_dets", "steps", "shape", "labels"].map(page.get);
  const [dim, count] = [values[0][0].length, steps.length];
  const natural = range(dim);
  // After 0, 1, ... steps: of which pixels the numbers are, first those in z, then those in the array.
  const after = [{ shape, order: natural, status: "" }, ...steps].map((step) => {
    const spots = [];
    step.order.forEach((i, k) => (spots[i] = k));
    return { ...step, spots, left: dim - step.shape[0] * step.shape[1] * step.shape[2] };
  });
  const latent = after[count].order;
  const leaves = natural.map((i) => 1 + steps.findIndex((step) => step.status[i] === "l"));
  const firstMove = steps.findIndex((step) => /[me]/.test(step.status)) + 1 || Infinity;
  const value = (i, depth = page.get("depth")) => values[page.get("picture")][depth][i];
  // Greys mean the same in all steps but the first, where values are of the unit interval.
  const unit = () => page.get("depth") < firstMove;
  return {
    dets, steps, shape, labels, dim, count, natural, after, latent, leaves, value, unit,
    now: () => after[page.get("depth")],
    grey: (i) => clamp(unit() ? value(i) : (value(i) + REACH) / (2 * REACH), [0, 1]),
    says: () => `pixel at ${place(shape, page.get("pixel"))}, ${show(value(page.get("pixel")))}`,
    go: (depth) => page.set({ depth: clamp(depth, [0, count]) }),
    choose: (pixel) => page.set({ pixel }),
  };
}

// The picture itself, each pixel in its own place.
function pictureView(page, { shape, natural, choose, says, grey, now }) {
  const view = grid({ name: "picture", label: "in the picture", at: () => page.get("pixel"), choose, says });
  const draw = () => {
    const { shape: present, status, spots, left } = now();
    // Which channel a pixel is in stands in its cell, where there is room and nothing else.
    const roomy = planes(shape).cell > 30 && present.join() !== shape.join();
    const channel = (i) => (roomy && (status[i] === "k" || status[i] === "r") ? `${split(present, spots[i] - left)[0]}` : undefined);
    view.draw(planes(shape), "picture", natural.map((i) => ({ grey: grey(i), letter: status[i] ?? "", text: channel(i) })));
  };
  return { node: make("div", {}, panelTitle("var(--fl-data)", "the picture"), fine(shape.join(" × ")), view.svg), draw };
}

// The array of what is still on its way.
function arrayView(page, { dim, choose, says, grey, now }) {
  const view = grid({
    name: "array", label: "in the array", says,
    at: () => Math.max(-1, now().spots[page.get("pixel")] - now().left),
    choose: (k) => choose(now().order[now().left + k]),
  });
  const [size, empty] = [fine(), make("p", { class: "fl-fine fl-empty" }, "All has arrived in the latent.")];
  const draw = () => {
    const { shape, order, left, status } = now();
    view.draw(planes(shape), shape.join(), order.slice(left).map((i) => ({ grey: grey(i), letter: status[i] ?? "" })));
    size.textContent = left < dim ? shape.join(" × ") : "nothing";
    empty.hidden = left < dim;
  };
  return { node: make("div", {}, panelTitle("var(--fl-muted)", "on its way"), size, view.svg, empty), draw };
}

// The latent, in groups that left together. `early` is told of a number that has not come as yet.
function latentView(page, flow, early) {
  const { dim, leaves, now } = flow;
  const there = make("span", {});
  const groups = [...new Set(leaves)].sort((a, b) => a - b).map((step) => latentGroup(page, flow, step, early));
  const dense = make("div", { class: `fl-groups ${dim > 64 ? "fl-dense" : ""}` }, ...groups.map((group) => group.node));
  const draw = () => {
    there.textContent = `${now().left} of ${dim}`;
    for (const group of groups) group.draw();
  };
  return { node: make("div", {}, panelTitle("var(--fl-latent)", "the latent ", math("z"), ", ", there), dense), draw };
}

function latentGroup(page, { dim, after, latent, leaves, says, grey, choose }, step, early) {
  const first = after[step - 1].left;
  const size = after[step].left - first;
  const columns = dim > 64 ? 16 : 8;
  const cell = (SPAN - 4) / columns;
  const cells = range(size).map((k) => [2 + (k % columns) * cell, 2 + Math.floor(k / columns) * cell]);
  const view = grid({
    name: `z${first}`, label: `in the latent, from z[${first}]`, says,
    height: 4 + Math.ceil(size / columns) * cell,
    at: () => (leaves[page.get("pixel")] === step ? latent.indexOf(page.get("pixel")) - first : -1),
    choose: (k) => (page.get("depth") >= step ? choose(latent[first + k]) : early(first + k, step)),
  });
  const draw = () => {
    const depth = page.get("depth");
    const letter = depth === step ? "l" : depth > step ? "-" : "";
    view.draw({ cell, cells, words: [] }, "z", cells.map((_, k) => ({ grey: depth < step ? null : grey(latent[first + k]), letter })));
  };
  return { node: make("div", {}, fine(`z[${first}] to z[${first + size - 1}], step ${step}`), view.svg), draw };
}

// The steps as glyphs above a slider, with the key to the glyphs.
function trackOf(page, { steps, count, go }) {
  const glyphs = steps.map(({ kind, name }, k) => make(
    "svg:g",
    { transform: `translate(${20 * k} 0)`, "data-step": k + 1, class: kind === "leave" ? "fl-goes" : "", onclick: () => go(k + 1) },
    make("svg:title", {}, `${k + 1}: ${name}`),
    make("svg:rect", { width: 20, height: 24, fill: "transparent" }),
    ...drawn(GLYPHS[kind])));
  const track = make("svg:svg", { viewBox: `0 0 ${20 * count} 24`, class: "fl-track", "aria-hidden": "true" }, ...glyphs);
  const bar = slider({
    name: "depth", symbol: [""], label: "Steps passed", min: 0, max: count, step: 1,
    get: () => page.get("depth"), set: go,
    text: (depth) => `${depth} of ${count}${depth ? `, ${steps[depth - 1].name}` : ", the data"}`,
  });
  const kinds = Object.keys(KINDS).filter((kind) => steps.some((step) => step.kind === kind));
  const sample = (kind) =>
    make("svg:svg", { viewBox: "0 0 20 24", class: "fl-sample", "aria-hidden": "true" }, ...drawn(GLYPHS[kind]));
  const key = make("div", { class: "fl-legend fl-fine fl-kinds" },
    ...kinds.map((kind) => make("span", {}, sample(kind), KINDS[kind])));
  const draw = () => {
    const depth = page.get("depth");
    [...track.children].forEach((node, k) => {
      node.classList.toggle("fl-done", k < depth);
      node.classList.toggle("fl-here", k === depth - 1);
    });
    bar.draw();
  };
  return { node: make("div", { class: "fl-passed" }, track, bar.node, key), draw };
}

// The ways along the steps: one by one, and to some that matter.
function jumps(page, { steps, count, leaves, go }) {
  const stops = [
    ["data", "data", 0], ["squeeze", "squeeze", steps.findIndex((s) => s.kind === "squeeze") + 1],
    ["first leave", "leave", Math.min(...leaves)], ["end", "end", count],
  ].filter(([, name, depth]) => name === "data" || depth);
  return row(
    button("back", { "data-action": "back" }, () => go(page.get("depth") - 1)),
    button("next step", { "data-action": "next" }, () => go(page.get("depth") + 1)),
    ...stops.map(([text, name, depth]) => preset(name, () => go(depth), text)));
}

// What the greys and the marks of the present step mean.
function marksKey({ now, unit }) {
  const node = make("div", { class: "fl-legend fl-fine" });
  const sample = (words, grey, letter = "") =>
    make("span", {}, make("svg:svg", { viewBox: "0 0 35 35", class: "fl-sample" }, ...face({ grey, letter }, 35)), words);
  const draw = () => {
    const { status, kind } = now();
    const marks = Object.keys(MARKS).filter((letter) => status.includes(letter));
    const [white, black] = unit() ? ["0", "1"] : [`−${REACH}`, REACH];
    put(node, {}, sample(white, 0), sample(black, 1), ...marks.map((letter) => sample(meaning(letter, kind), 0.3, letter)));
  };
  return { node, draw };
}

// Where the chosen pixel's number is, and what the step did with it.
function tell(node, { shape, latent, leaves, value, now }, depth, pixel) {
  const { status, spots, left, shape: present, kind } = now();
  const index = latent.indexOf(pixel);
  const letter = status[pixel];
  const [from, to] = [depth && show(value(pixel, depth - 1)), show(value(pixel))];
  const did = {
    m: `it moves in this step, from ${from} to ${to}`,
    e: `it moves in this step, by itself, from ${from} to ${to}`,
    k: kind === "leave" ? `it goes on, with its value ${to}` : `it waits in this step, at ${to}`,
    r: `it is carried in this step, with its value ${to}`,
    l: `it leaves in this step, with its value ${to}`,
    "-": `it left in step ${leaves[pixel]}, with its value ${to}`,
  }[letter] ?? `its value is ${to}`;
  const spot = spots[pixel] - left; // in the array, if it is not yet in z
  const where = spot < 0
    ? `It is z[${index}].`
    : `In the array it is at ${place(present, spot)}. It will leave in step ${leaves[pixel]}, as z[${index}].`;
  put(node, {
    "data-value": value(pixel), "data-latent": index, "data-leaves": leaves[pixel], "data-status": letter ?? "",
    "data-place": spot < 0 ? "" : split(present, spot).join(),
  }, make("b", {}, `Pixel at ${place(shape, pixel)}:`), ` ${did}. ${where}`);
}

// The task: a riddle that the choice at the start does not solve.
function riddle(page, { natural, dim, latent, shape }) {
  const goal = natural.find((k) => k >= Math.floor(0.58 * dim) && latent[k] !== page.start.pixel) ?? 0;
  const turn = task(page, "follow", `Which pixel of the data becomes z[${goal}]? Go to the end, choose that number in the latent, ` +
    "and follow it back to the data, before the first step.");
  const draw = (depth, pixel) => {
    const index = latent.indexOf(pixel);
    if (index !== goal) turn.draw(false, `This one becomes z[${index}].`);
    else if (depth > 0) turn.draw(false, `This is the one. Follow it back to the data.`);
    else turn.draw(true, `Done: z[${goal}] is the pixel at ${place(shape, pixel)}.`);
  };
  return { node: turn.node, draw, early: (k, step) => turn.draw(false, `z[${k}] is empty as yet: it comes in step ${step}.`) };
}

function render({ model, el }) {
  const page = openPage(el, model, TRAITS);
  const flow = journey(page);
  const { steps, after, dim, count } = flow;
  const [turn, track, key, ends] = [riddle(page, flow), trackOf(page, flow), marksKey(flow), tools(page)];
  const views = [pictureView(page, flow), arrayView(page, flow), latentView(page, flow, turn.early)];
  const digits = choice(
    flow.labels.map((label, k) => [label, k, { "data-picture": k }]),
    () => page.get("picture"), (picture) => page.set({ picture }));
  const [title, told, worth] = [titled(), make("p", { class: "fl-told" }), readout("log_det")];
  const follow = make("p", { class: "fl-say", "data-follow": "" });
  const bill = fine(math("log |det|"), " of this step, for this picture: ", worth.node);
  el.replaceChildren(frame([
    track.node,
    make("div", { class: "fl-scales" }, ...views.map((view) => view.node)),
    later(key.node),
  ], [
    jumps(page, flow), make("div", { class: "fl-row fl-snug fl-digits" }, ...digits.nodes),
    roomy(title, "Step 23 of 24: checkerboard coupling"), roomy(told, LONGEST.told), roomy(follow, LONGEST.follow),
    roomy(bill, "one line"), turn.node, ends.node,
  ]));

  return page.run(() => {
    const { picture, depth, pixel } = page.state();
    const step = steps[depth - 1];
    mirror(el, page.state());
    title.textContent = step ? `Step ${depth} of ${count}: ${step.name}` : "The data, before the first step";
    told.textContent = step
      ? story(step, after[depth - 1], after[depth].left)
      : `${dim} numbers. The array on its way is the picture itself, and z is empty.`;
    for (const part of [...views, track, digits, key]) part.draw();
    tell(follow, flow, depth, pixel);
    bill.hidden = !step;
    worth.draw(step ? flow.dets[picture][depth - 1] : 0);
    turn.draw(depth, pixel);
    ends.draw();
  });
}

export default { render };
