// MultiscaleExplorer: a picture on its way through RealNVP, and a pixel that is followed to z.

const TRAITS = ["picture", "depth", "pixel"];
const SPAN = 320; // the units of a view's width
const REACH = 3; // what is fully black, once values have left the unit interval; white is -REACH
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

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
const list = (numbers) => numbers.join(", ").replace(/, (\d+)$/, " and $1");

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
  const cells = Array.from({ length: c * h * w }, (_, k) => {
    const [left, top] = corner(Math.floor(k / (h * w)));
    return [left + (k % w) * cell, top + (Math.floor(k / w) % h) * cell];
  });
  const text = (x, y, words, anchor) => make("svg:text", { x, y, "text-anchor": anchor, class: "fl-coord" }, `${words}`);
  const some = (n) => Array.from({ length: n }, (_, k) => k).filter((k) => cell > 30 || k % 4 === 0);
  const words = c > 1
    ? Array.from({ length: c }, (_, k) => text(corner(k)[0], corner(k)[1] - 7, cell * w > 120 ? `channel ${k}` : k, "start"))
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
    { class: "fl-grab", tabindex: 0, role: "slider", "data-handle": name, "aria-label": `The chosen pixel, ${label}`, "aria-valuemin": 0 },
    make("svg:rect", { class: "fl-casing" }), make("svg:rect", { class: "fl-ring" }), make("svg:rect", { class: "fl-halo" }),
  );
  let [layout, laid] = [{ cells: [] }, ""];
  const under = (event) => {
    const box = svg.getBoundingClientRect();
    const [x, y] = [((event.clientX - box.left) / box.width) * SPAN, ((event.clientY - box.top) / box.height) * height];
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
  ring.onkeydown = (event) => {
    const way = ARROWS[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    const next = ahead(layout.cells, layout.cells[at()], [way[1], way[0]]);
    if (next >= 0) choose(next);
  };
  // What a cell shows: {grey, letter, text}; grey null is an empty place.
  const draw = (now, key, contents) => {
    if (laid !== key) {
      [layout, laid] = [now, key];
      svg.replaceChildren(...layout.words, ...layout.cells.map(([x, y]) => make("svg:g", { transform: `translate(${x} ${y})` })), ring);
    }
    const nodes = [...svg.children].slice(layout.words.length, -1);
    nodes.forEach((node, k) => put(node, {}, ...face(contents[k], layout.cell)));
    const k = at();
    ring.style.display = k < 0 ? "none" : "";
    if (k < 0) return;
    const [x, y] = layout.cells[k];
    put(ring, { transform: `translate(${x} ${y})`, "aria-valuemax": layout.cells.length - 1, "aria-valuenow": k, "aria-valuetext": says() });
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
  const middle = { cx: size / 2, cy: size / 2 };
  if (letter === "m") nodes.push(make("svg:circle", { ...middle, r: size * 0.23, class: "fl-moved" }));
  if (letter === "e") nodes.push(make("svg:circle", { ...middle, r: size * 0.2, class: "fl-each-case" }), make("svg:circle", { ...middle, r: size * 0.2, class: "fl-each" }));
  if (letter === "l" || letter === "-") {
    const lines = (size > 24 ? [0.35, 0.7, 1.05, 1.4, 1.75] : [0.6, 1.2, 1.7]).map((t) => {
      const [a, b] = [Math.max(0, t - 1), Math.min(1, t)].map((v) => 1 + v * (size - 2));
      return `M${a.toFixed(1)} ${b.toFixed(1)}L${b.toFixed(1)} ${a.toFixed(1)}`;
    });
    nodes.push(make("svg:path", { d: lines.join(""), class: "fl-hatch" }));
  }
  const edge = 0.11 * size;
  if (letter === "l") nodes.push(make("svg:rect", { x: edge, y: edge, width: size - 2 * edge, height: size - 2 * edge, "stroke-width": edge, class: "fl-leaves" }));
  if (text !== undefined) nodes.push(make("svg:text", { x: size / 2, y: size / 2, class: "fl-coord fl-cased fl-number" }, text));
  return nodes;
}

// What a step did, in a sentence or two.
function story({ kind, status, shape }, before, left) {
  const count = (letter) => status.split(letter).length - 1;
  const [c, h, w] = before.shape;
  const channels = (letter) => {
    const array = before.order.slice(status.length - c * h * w);
    return list([...new Set(array.map((i, k) => (status[i] === letter ? Math.floor(k / (h * w)) : -1)).filter((k) => k >= 0))]);
  };
  if (kind === "each") return `Each of the ${count("e")} numbers on the way moves by itself: none looks at another.`;
  if (kind === "pixels") return `${count("m")} numbers move, by what the other ${count("k")} on the way say; those wait. No place changes.`;
  if (kind === "channels") return `Channels ${channels("m")} move, by what channels ${channels("k")} say; those wait. No place changes.`;
  if (kind === "squeeze") return `Each square of 2 × 2 places becomes one place with four times the channels. Places change, values do not.`;
  const to = `z[${left - count("l")}] to z[${left - 1}]`;
  if (!count("k")) return `All that was still on its way arrives as ${to}. Values do not change.`;
  return `Channels ${channels("l")} go to the latent as they are, as ${to}. Channels ${channels("k")} go on.`;
}

// The small pictures of the steps on the track, 20 by 24: what is drawn, and what is filled.
const GLYPHS = {
  each: ["M10 9a3 3 0 1 1 0 6a3 3 0 1 1 0 -6z", ""],
  pixels: ["M4 6h12v12h-12z", "M4 6h6v6h-6zM10 12h6v6h-6z"],
  channels: ["M4 6h12v12h-12z", "M4 12h12v6h-12z"],
  squeeze: ["M3 5l5 5m0 -4v4h-4M17 5l-5 5m0 -4v4h4M3 19l5 -5m0 4v-4h-4M17 19l-5 -5m0 4v-4h4", ""],
  leave: ["M10 4v11M5 11l5 5l5 -5M4 20h12", ""],
};
const KINDS = { each: "each by itself", pixels: "checkerboard", channels: "channels", squeeze: "squeeze", leave: "leave" };

function render({ model, el }) {
  const get = (name) => model.get(name);
  const [values, dets, steps, shape, labels] = ["values", "log_dets", "steps", "shape", "labels"].map(get);
  const dim = values[0][0].length;
  const count = steps.length;
  const start = { picture: get("picture"), depth: get("depth"), pixel: get("pixel") };
  const natural = Array.from({ length: dim }, (_, i) => i);
  // After 0, 1, ... steps: of which pixels the numbers are, first those in z, then those in the array.
  const after = [{ shape, order: natural, status: "" }, ...steps].map((step) => {
    const spots = [];
    step.order.forEach((i, k) => (spots[i] = k));
    return { ...step, spots, left: dim - step.shape[0] * step.shape[1] * step.shape[2] };
  });
  const latent = after[count].order;
  const leaves = natural.map((i) => 1 + steps.findIndex((step) => step.status[i] === "l"));
  const firstMove = steps.findIndex((step) => /[me]/.test(step.status)) + 1 || Infinity;
  const set = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
  const go = (depth) => set({ depth: Math.max(0, Math.min(count, depth)) });
  const choose = (pixel) => set({ pixel });
  const now = () => after[get("depth")];
  const value = (i, depth = get("depth")) => values[get("picture")][depth][i];
  // Greys mean the same in all steps but the first, where values are of the unit interval.
  const unit = () => get("depth") < firstMove;
  const grey = (i) => Math.max(0, Math.min(1, unit() ? value(i) : (value(i) + REACH) / (2 * REACH)));

  const split = ([, h, w], k) => [Math.floor(k / (h * w)), Math.floor(k / w) % h, k % w];
  const place = (of, k) => {
    const [channel, row, column] = split(of, k);
    return `${of[0] > 1 ? `channel ${channel}, ` : ""}row ${row}, column ${column}`;
  };
  const says = () => `pixel at ${place(shape, get("pixel"))}, ${show(value(get("pixel")))}`;

  // the three views
  const picture = grid({ name: "picture", label: "in the picture", at: () => get("pixel"), choose, says });
  const array = grid({
    name: "array", label: "in the array", says,
    at: () => Math.max(-1, now().spots[get("pixel")] - now().left),
    choose: (k) => choose(now().order[now().left + k]),
  });
  // z, in groups that left together
  const groups = [...new Set(leaves)].sort((a, b) => a - b).map((step) => {
    const first = after[step - 1].left;
    const size = after[step].left - first;
    const columns = dim > 64 ? 16 : 8;
    const cell = (SPAN - 4) / columns;
    const layout = {
      cell, words: [],
      cells: Array.from({ length: size }, (_, k) => [2 + (k % columns) * cell, 2 + Math.floor(k / columns) * cell]),
    };
    const view = grid({
      name: `z${first}`, label: `in the latent, from z[${first}]`, says,
      height: 4 + Math.ceil(size / columns) * cell,
      at: () => (leaves[get("pixel")] === step ? latent.indexOf(get("pixel")) - first : -1),
      choose: (k) => {
        if (get("depth") >= step) choose(latent[first + k]);
        else turn.draw(false, `z[${first + k}] is empty as yet: it comes in step ${step}.`);
      },
    });
    const draw = () => {
      const there = get("depth") >= step;
      view.draw(layout, "z", layout.cells.map((_, k) => ({ grey: there ? grey(latent[first + k]) : null, letter: get("depth") === step ? "l" : there ? "-" : "" })));
    };
    const named = make("p", { class: "fl-fine" }, `z[${first}] to z[${first + size - 1}], step ${step}`);
    return { node: make("div", {}, named, view.svg), draw };
  });

  const drawn = ([line, solid]) => [make("svg:path", { d: line }), make("svg:path", { d: solid, class: "fl-solid" })];
  const kinds = Object.keys(KINDS).filter((kind) => steps.some((step) => step.kind === kind));
  const key = make("div", { class: "fl-legend fl-fine fl-kinds" }, ...kinds.map((kind) =>
    make("span", {}, make("svg:svg", { viewBox: "0 0 20 24", class: "fl-sample", "aria-hidden": "true" }, ...drawn(GLYPHS[kind])), KINDS[kind])));
  // the track of the steps, and the ways along it
  const track = make("svg:svg", { viewBox: `0 0 ${20 * count} 24`, class: "fl-track", "aria-hidden": "true" });
  steps.forEach((step, k) => {
    track.append(make("svg:g", { transform: `translate(${20 * k} 0)`, "data-step": k + 1, class: step.kind === "leave" ? "fl-goes" : "", onclick: () => go(k + 1) },
      make("svg:title", {}, `${k + 1}: ${step.name}`),
      make("svg:rect", { width: 20, height: 24, fill: "transparent" }),
      ...drawn(GLYPHS[step.kind]),
    ));
  });
  const bar = slider({
    name: "depth", symbol: [""], label: "Steps passed", min: 0, max: count, step: 1,
    get: () => get("depth"), set: go,
    text: (depth) => `${depth} of ${count}${depth ? `, ${steps[depth - 1].name}` : ", the data"}`,
  });
  const stops = [["data", "data", 0], ["squeeze", "squeeze", steps.findIndex((s) => s.kind === "squeeze") + 1], ["first leave", "leave", Math.min(...leaves)], ["end", "end", count]];
  const jumps = stops.filter(([, name, depth]) => name === "data" || depth).map(([text, name, depth]) => button(text, { "data-preset": name }, () => go(depth)));
  const digits = labels.map((label, k) => button(label, { "data-picture": k }, () => set({ picture: k })));

  const title = make("p", { class: "fl-panel-title" });
  const told = make("p", { class: "fl-told" });
  const legend = make("div", { class: "fl-legend fl-fine" });
  const way = make("p", { class: "fl-fine" });
  const there = make("span", {});
  const empty = make("p", { class: "fl-fine fl-empty" }, "All has arrived in the latent.");
  const follow = make("p", { class: "fl-say", "data-follow": "" });
  const worth = readout("log_det");
  const bill = make("p", { class: "fl-fine" }, "log |det| of this step, for this picture: ", worth.node);
  // A riddle that the choice at the start does not solve.
  const goal = natural.find((k) => k >= Math.floor(0.58 * dim) && latent[k] !== start.pixel) ?? 0;
  const turn = task("follow", `Which pixel of the data becomes z[${goal}]? Go to the end, choose that number in the latent, and follow it back to the data, before the first step.`);

  el.replaceChildren(
    make("div", { class: "fl-row fl-digits" }, ...digits),
    make("div", { class: "fl-passed" }, track, bar.node, key),
    make("div", { class: "fl-row" },
      button("back", { "data-action": "back" }, () => go(get("depth") - 1)),
      button("next step", { "data-action": "next" }, () => go(get("depth") + 1)),
      ...jumps,
      button("reset", { "data-action": "reset" }, () => set(start)),
    ),
    make("div", { class: "fl-told-box" }, title, told),
    make("div", { class: "fl-scales" },
      make("div", {}, panelTitle("var(--fl-data)", "the picture"), make("p", { class: "fl-fine" }, shape.join(" × ")), picture.svg),
      make("div", {}, panelTitle("var(--fl-muted)", "on its way"), way, array.svg, empty),
      make("div", {}, panelTitle("var(--fl-latent)", "the latent z, ", there), make("div", { class: `fl-groups ${dim > 64 ? "fl-dense" : ""}` }, ...groups.map((group) => group.node))),
    ),
    legend,
    follow,
    bill,
    turn.node,
  );

  const sample = (words, grey, letter = "") =>
    make("span", {}, make("svg:svg", { viewBox: "0 0 35 35", class: "fl-sample" }, ...face({ grey, letter }, 35)), words);

  function tell(depth, pixel) {
    const { status, spots, left, shape: present } = after[depth];
    const index = latent.indexOf(pixel);
    const letter = status[pixel];
    const [from, to] = [depth && show(value(pixel, depth - 1)), show(value(pixel))];
    const did = {
      m: `it moves in this step, from ${from} to ${to}`, e: `it moves in this step, by itself, from ${from} to ${to}`,
      k: steps[depth - 1]?.kind === "leave" ? `it goes on, with its value ${to}` : `it waits in this step, at ${to}`, r: `it is carried in this step, with its value ${to}`,
      l: `it leaves in this step, with its value ${to}`, "-": `it left in step ${leaves[pixel]}, with its value ${to}`,
    }[letter] ?? `its value is ${to}`;
    const where = spots[pixel] < left
      ? `It is z[${index}].`
      : `In the array it is at ${place(present, spots[pixel] - left)}. It will leave in step ${leaves[pixel]}, as z[${index}].`;
    put(follow, { "data-value": value(pixel), "data-latent": index, "data-leaves": leaves[pixel], "data-status": letter ?? "" },
      make("b", {}, `Pixel at ${place(shape, pixel)}:`), ` ${did}. ${where}`);
    put(follow, { "data-place": spots[pixel] < left ? "" : split(present, spots[pixel] - left).join() });
  }

  return frame(el, model, TRAITS, () => {
    const [which, depth, pixel] = TRAITS.map(get);
    Object.assign(el.dataset, { picture: which, depth, pixel });
    const { shape: present, order, left, status, spots } = after[depth];
    const step = steps[depth - 1];
    title.textContent = step ? `Step ${depth} of ${count}: ${step.name}` : "The data, before the first step";
    told.textContent = step ? story(step, after[depth - 1], left) : `${dim} numbers. The array on its way is the picture itself, and z is empty.`;
    // Which channel a pixel is in stands in its cell, where there is room and nothing else.
    const roomy = planes(shape).cell > 30 && present.join() !== shape.join();
    const channel = (i) => (roomy && (status[i] === "k" || status[i] === "r") ? `${split(present, spots[i] - left)[0]}` : undefined);
    picture.draw(planes(shape), "picture", natural.map((i) => ({ grey: grey(i), letter: status[i] ?? "", text: channel(i) })));
    array.draw(planes(present), present.join(), order.slice(left).map((i) => ({ grey: grey(i), letter: status[i] ?? "" })));
    way.textContent = left < dim ? present.join(" × ") : "nothing";
    empty.hidden = left < dim;
    there.textContent = `${left} of ${dim}`;
    for (const group of groups) group.draw();
    [...track.children].forEach((node, k) => {
      node.classList.toggle("fl-done", k < depth);
      node.classList.toggle("fl-here", k === depth - 1);
    });
    bar.draw();
    digits.forEach((node, k) => node.setAttribute("aria-pressed", k === which));
    const marks = Object.keys(MARKS).filter((letter) => status.includes(letter));
    put(legend, {}, sample(unit() ? "0" : `−${REACH}`, 0), sample(unit() ? "1" : REACH, 1), ...marks.map((letter) => sample(meaning(letter, step?.kind), 0.3, letter)));
    tell(depth, pixel);
    bill.hidden = !step;
    worth.draw(step ? dets[which][depth - 1] : 0);
    const index = latent.indexOf(pixel);
    if (index !== goal) turn.draw(false, `This one becomes z[${index}].`);
    else if (depth > 0) turn.draw(false, `This is the one. Follow it back to the data.`);
    else turn.draw(true, `Done: z[${goal}] is the pixel at ${place(shape, pixel)}.`);
  });
}

export default { render };
