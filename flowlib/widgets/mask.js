// MaskExplorer: MADE's degrees, masks and their product, moved by hand.

const TRAITS = ["dim", "widths", "order", "degrees", "flips", "seed", "chosen", "step", "by_rank"];
const WIDE = 348; // the units of the drawing's width: pixels on a phone
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const span = (count, from = 0) => Array.from({ length: count }, (_, i) => from + i);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const x = (j) => `x${"₁₂₃₄₅₆₇₈"[j]}`;
const list = (words) => words.join(", ").replace(/, ([^,]*)$/, " and $1");
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const plural = (n, word) => `${n || "no"} ${word}${n === 1 ? "" : "s"}`;

// --- degrees: flowlib.made's ------------------------------------------------------------------

// Half to the even neighbour, as torch rounds.
function rounded(v) {
  const low = Math.floor(v);
  return v - low === 0.5 ? low + (low % 2) : Math.round(v);
}

function cyclicDegrees(width, high) {
  if (width === 1) return [high];
  if (width < high) return span(width).map((k) => rounded(1 + (k * (high - 1)) / (width - 1)));
  return span(width).map((k) => 1 + (k % high)).sort((a, b) => a - b);
}

// A generator of numbers in [0, 1): mulberry32.
function random(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// One unit of each degree first, where the width permits, the others uniform; in a deeper layer
// none below the lowest before, or it would see nothing.
function randomDegrees(widths, high, seed) {
  const draw = random(seed);
  let low = 1;
  return widths.map((width) => {
    const count = high - low + 1;
    const sure = width >= count ? span(count, low) : [];
    const others = span(width - sure.length).map(() => low + Math.floor(draw() * count));
    const layer = [...sure, ...others].sort((a, b) => a - b);
    low = layer[0];
    return layer;
  });
}

const ORDERS = {
  natural: (dim) => span(dim, 1),
  reversed: (dim) => span(dim, 1).reverse(),
  // neither of the others, where there are more than those two
  random: (dim, seed) => {
    const draw = random(seed + 0.5 * 2 ** 32);
    for (;;) {
      const ranks = span(dim, 1);
      for (let i = dim - 1; i > 0; i--) {
        const k = Math.floor(draw() * (i + 1));
        [ranks[i], ranks[k]] = [ranks[k], ranks[i]];
      }
      if (dim < 3 || orderKind(ranks) === "random") return ranks;
    }
  },
};
const orderKind = (order) => ["natural", "reversed"].find((kind) => same(order, ORDERS[kind](order.length))) ?? "random";

const DEGREES = {
  cyclic: (dim, widths) => widths.map((width) => cyclicDegrees(width, dim - 1)),
  random: (dim, widths, seed) => randomDegrees(widths, dim - 1, seed),
};
const degreesKind = ({ dim, widths, degrees, seed }) =>
  Object.keys(DEGREES).find((kind) => same(degrees, DEGREES[kind](dim, widths, seed))) ?? "hand";

// --- masks ------------------------------------------------------------------------------------

// Masks after the flips, as 0 and 1, [layer][row][column]; the inputs are layer 0 of the units.
function masksOf({ order, degrees, flips }) {
  const layers = [order, ...degrees];
  const masks = degrees.map((layer, l) => layer.map((m) => layers[l].map((before) => Number(m >= before))));
  masks.push(order.map((rank) => layers.at(-1).map((before) => Number(rank > before))));
  for (const [l, row, column] of flips) masks[l][row][column] ^= 1;
  return masks;
}

const times = (a, b) => a.map((row) => b[0].map((_, j) => sum(row.map((v, k) => v * b[k][j]))));

// In each layer the units from which a unit is reached, and those that it reaches.
function back(masks, k, unit) {
  const sets = [];
  sets[k] = new Set([unit]);
  for (let l = k - 1; l >= 0; l--)
    sets[l] = new Set(span(masks[l][0].length).filter((c) => [...sets[l + 1]].some((r) => masks[l][r][c])));
  return sets;
}
function forth(masks, k, unit) {
  const sets = [];
  sets[k] = new Set([unit]);
  for (let l = k; l < masks.length; l++)
    sets[l + 1] = new Set(span(masks[l].length).filter((r) => [...sets[l]].some((c) => masks[l][r][c])));
  return sets;
}

// What lights up with a unit, a link or a pair: links "layer,row,column", units "layer,unit", pairs
// "output,input". A unit shows what it sees, an input who sees it, a link and a pair their paths.
function lights(masks, what) {
  const lit = { links: new Set(), units: new Set(), pairs: new Set() };
  const last = masks.length;
  const add = (of, has) => of.forEach((set, l) => set.forEach((u) => has(l, u) && lit.units.add(`${l},${u}`)));
  const link = (has) => masks.forEach((mask, l) => mask.forEach((row, r) => row.forEach((on, c) => {
    if (on && has(l, r, c)) lit.links.add(`${l},${r},${c}`);
  })));
  const pairs = (from, to) => to?.forEach((i) => from?.forEach((j) => lit.pairs.add(`${i},${j}`)));
  const always = () => true;
  if (what.unit) {
    const [k, u] = what.unit;
    const [sees, seen] = [back(masks, k, u), forth(masks, k, u)];
    const of = k ? sees : seen;
    add(of, always);
    link((l, r, c) => (k ? of[l + 1]?.has(r) : of[l].has(c)));
    pairs(sees[0], seen[last]);
  } else if (what.link) {
    const [l0, r0, c0] = what.link;
    const [sees, seen] = [back(masks, l0, c0), forth(masks, l0 + 1, r0)];
    add(sees, always);
    add(seen, always);
    link((l, r, c) => (l < l0 ? sees[l + 1].has(r) : l > l0 ? seen[l].has(c) : r === r0 && c === c0));
    if (masks[l0][r0][c0]) pairs(sees[0], seen[last]);
  } else {
    const [i, j] = what.pair;
    const [sees, seen] = [back(masks, last, i), forth(masks, 0, j)];
    add(sees, (l, u) => seen[l].has(u));
    link((l, r, c) => seen[l].has(c) && sees[l + 1].has(r));
    for (const end of [`0,${j}`, `${last},${i}`]) lit.units.add(end);
    lit.pairs.add(`${i},${j}`);
  }
  return lit;
}

// The links on paths from an input to an output of no larger rank.
function forbidden(masks, order) {
  const found = new Set();
  order.forEach((rank, j) => {
    const seen = forth(masks, 0, j);
    let after = [...seen.at(-1)].filter((i) => order[i] <= rank);
    for (let l = masks.length - 1; l >= 0; l--) {
      const before = new Set();
      for (const r of after) {
        for (const c of seen[l]) {
          if (!masks[l][r][c]) continue;
          found.add(`${l},${r},${c}`);
          before.add(c);
        }
      }
      after = before;
    }
  });
  return found;
}

// Of each unit the largest rank that it sees, 0 for none, layer by layer.
const latest = (masks, order) => {
  const layers = [order];
  for (const mask of masks) layers.push(mask.map((row) => Math.max(0, ...row.map((on, c) => on * layers.at(-1)[c]))));
  return layers;
};

// Whether some outputs see one another, or themselves, in a circle.
function circular(counts) {
  let left = span(counts.length);
  for (;;) {
    const next = left.filter((i) => left.some((j) => counts[i][j]));
    if (next.length === left.length) return left.length > 0;
    left = next;
  }
}

// --- the page ---------------------------------------------------------------------------------

// Things of which one is reached by tab and the others by arrow keys from there.
function rove(nodes, points) {
  const stop = (k) => nodes.forEach((node, i) => node.setAttribute("tabindex", i === k ? 0 : -1));
  nodes.forEach((node, k) => {
    node.addEventListener("focus", () => stop(k));
    node.addEventListener("keydown", (event) => {
      const way = ARROWS[event.key];
      if (!way) return;
      event.preventDefault();
      event.stopPropagation();
      const next = ahead(points, points[k], way);
      if (next >= 0) nodes[next].focus();
    });
  });
  stop(0);
}

function render({ model, el }) {
  const now = () => Object.fromEntries(TRAITS.map((name) => [name, model.get(name)]));
  const start = structuredClone(now());
  const set = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
  const afresh = { flips: [], step: 0 };
  // Other sizes, with the same kinds of ordering and degrees.
  const resize = (dim, widths) => {
    const s = now();
    const kind = degreesKind(s);
    set({
      dim, widths, ...afresh, chosen: -1,
      order: dim === s.dim ? s.order : ORDERS[orderKind(s.order)](dim, s.seed),
      degrees: (DEGREES[kind] ?? DEGREES.cyclic)(dim, widths, s.seed),
    });
  };
  const again = () => {
    const s = now();
    const seed = s.seed + 1;
    const reorder = s.dim > 2 && orderKind(s.order) === "random";
    set({
      seed, ...afresh,
      ...(reorder && { order: ORDERS.random(s.dim, seed) }),
      ...((!reorder || degreesKind(s) === "random") && { degrees: DEGREES.random(s.dim, s.widths, seed) }),
    });
  };
  const flip = (link) => {
    const { flips } = now();
    const rest = flips.filter((other) => !same(other, link));
    set({ flips: rest.length < flips.length ? rest : [...flips, link] });
  };
  const raise = (l, u) => {
    const { degrees, dim } = now();
    set({ degrees: degrees.map((layer, k) => layer.map((m, i) => (k === l && i === u ? 1 + (m % (dim - 1)) : m))) });
  };
  const choose = (i) => set({ chosen: now().chosen === i ? -1 : i });

  // What is lit: what the mouse is on, else what has the focus, else the chosen output.
  let [pointed, focused, frames] = [null, null, 0];
  const soon = () => (frames ||= requestAnimationFrame(() => ((frames = 0), draw())));
  const present = ({ chosen, widths }) => pointed ?? focused ?? (chosen < 0 ? null : { unit: [widths.length + 1, chosen] });
  // `act` gets whether this was lit before: a finger's first tap on a unit lights it only.
  const live = (node, what, act = () => {}) => {
    let lit = false;
    const point = (to) => ((pointed = to), soon());
    put(node, {
      onpointerenter: (event) => event.pointerType !== "touch" && point(what),
      onpointerleave: () => point(null),
      onpointerdown: () => (lit = same(present(now()), what)),
      onclick: (event) => {
        if (event.pointerType !== "mouse") focused = what;
        act(lit);
        soon();
      },
      onfocus: () => node.matches(":focus-visible") && ((focused = what), soon()),
      onblur: () => ((focused = null), soon()),
      onkeydown: (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        event.stopPropagation();
        act(true);
      },
    });
  };

  // Not every browser gives a tapped unit the focus, and so takes it away again.
  el.onpointerdown = (event) => {
    if (!event.target.closest(".fl-unit, .fl-link")) (focused = null), soon();
  };

  // the drawing: all links that there could be, hidden where there is none
  const net = make("svg:svg", { class: "fl-net", role: "group", "aria-label": "The network" });
  const wires = make("svg:g", {});
  let [edges, units] = [[], []];
  const layNet = ({ dim, widths }) => {
    const sizes = [dim, ...widths, dim];
    const gap = [118, 92, 80][widths.length - 1];
    const height = 76 + gap * (sizes.length - 1);
    const radius = Math.min(15, WIDE / Math.max(...sizes) / 2 - 2.2);
    const spot = (k, u) => {
      const pitch = Math.min(62, WIDE / sizes[k]);
      return [WIDE / 2 + (u - (sizes[k] - 1) / 2) * pitch, height - 38 - k * gap];
    };
    edges = sizes.slice(1).flatMap((rows, l) => span(rows).flatMap((r) => span(sizes[l]).map((c) => {
      const [[x1, y1], [x2, y2]] = [spot(l, c), spot(l + 1, r)];
      return { key: `${l},${r},${c}`, link: [l, r, c], node: make("svg:path", { d: `M${x1} ${y1}L${x2} ${y2}` }) };
    })));
    const top = sizes.length - 1;
    units = sizes.flatMap((size, k) => span(size).map((u) => {
      const kind = k === 0 ? "input" : k === top ? "output" : "hidden";
      const degree = make("svg:text", { class: "fl-degree", y: 5 });
      const node = make("svg:g", { transform: `translate(${spot(k, u).join(" ")})`, role: kind === "input" ? "img" : "button", "data-unit": `${k},${u}` },
        make("svg:circle", { class: "fl-reach", r: Math.min(22, WIDE / size / 2) }),
        make("svg:circle", { class: "fl-body", r: radius }),
        make("svg:circle", { class: "fl-hop", r: radius + 2.6 }),
        degree,
        ...(k === 0 ? [make("svg:text", { class: "fl-name fl-cased", y: radius + 18 }, x(u))] : []),
        ...(k === top ? [make("svg:text", { class: "fl-name fl-cased", y: -radius - 8 }, `out ${u + 1}`)] : []),
      );
      live(node, { unit: [k, u] }, (lit) => {
        if (kind === "output") choose(u);
        else if (kind === "hidden" && lit) raise(k - 1, u);
      });
      return { key: `${k},${u}`, k, u, kind, node, degree, point: spot(k, u) };
    }));
    rove(units.map((unit) => unit.node), units.map((unit) => unit.point));
    put(wires, {}, ...edges.map((edge) => edge.node));
    put(net, { viewBox: `0 0 ${WIDE} ${height}` },
      wires,
      ...widths.map((_, l) => make("svg:text", { class: "fl-row-name fl-cased", x: 0, y: spot(l + 1, 0)[1] - radius - 7 }, `layer ${l + 1}`)),
      ...units.map((unit) => unit.node));
  };

  // a matrix: cells with headers; `lay` gives the cells, first rows then columns
  const lay = (svg, { rows, columns, cell, left, live: enliven }) => {
    const top = 24;
    const [width, height] = [left + columns.length * cell + 3, top + rows.length * cell + 3];
    const at = (r, c) => [left + c * cell, top + r * cell];
    const head = ({ text, of }, px, py) => make("svg:text", { class: `fl-head fl-of-${of}`, x: px, y: py }, `${text}`);
    const cells = rows.flatMap((_, r) => columns.map((_, c) => {
      const size = cell - 3;
      const node = make("svg:g", { transform: `translate(${at(r, c).join(" ")})` },
        make("svg:rect", { class: "fl-reach", width: cell, height: cell }),
        make("svg:rect", { class: "fl-box", x: 1.5, y: 1.5, width: size, height: size }),
        make("svg:path", { class: "fl-flip", d: `M${cell - 13} 0h13v13z` }),
        make("svg:rect", { class: "fl-hop", x: 0.5, y: 0.5, width: cell - 1, height: cell - 1 }),
      );
      return { node, point: at(r, c), ...enliven(node, r, c) };
    }));
    rove(cells.map((one) => one.node), cells.map((one) => one.point));
    put(svg, { viewBox: `0 0 ${width} ${height}`, style: `width:${width}px;max-width:100%` },
      ...columns.map((column, c) => head(column, left + (c + 0.5) * cell, top - 11)),
      ...rows.map((row, r) => head(row, left / 2, top + (r + 0.5) * cell)),
      ...cells.map((one) => one.node));
    return { cells, at };
  };

  const matrices = make("div", { class: "fl-matrices" });
  let links = [];
  const layMasks = ({ order, degrees }) => {
    const layers = [order, ...degrees, order];
    const last = layers.length - 1;
    const of = (k) => (k === 0 ? "input" : k === last ? "output" : "hidden");
    const named = (k) => (k === 0 ? "inputs" : k === last ? "outputs" : last > 2 ? `layer ${k}` : "hidden layer");
    const heads = (k) => layers[k].map((text) => ({ text, of: of(k) }));
    const cell = Math.max(...degrees.map((layer) => layer.length)) > 10 ? 25 : 28; // two beside one another
    links = [];
    matrices.replaceChildren(...span(last).map((l) => {
      const title = `${named(l)} → ${named(l + 1)}`;
      const svg = make("svg:svg", { class: "fl-entries", role: "group", "aria-label": `Mask, ${title}`, "data-mask": l });
      const { cells } = lay(svg, {
        rows: heads(l + 1), columns: heads(l), cell, left: 26,
        live: (node, r, c) => {
          const link = [l, r, c];
          put(node, { role: "checkbox", "data-link": link.join() });
          live(node, { link }, () => flip(link));
          return { key: link.join(), link };
        },
      });
      links.push(...cells);
      const rule = `link: row ${l === last - 1 ? ">" : "≥"} column`;
      return make("div", { class: "fl-matrix", style: `--fl-natural:${svg.style.width}` }, make("p", { class: "fl-panel-title" }, title), make("p", { class: "fl-fine" }, rule), svg);
    }));
  };

  const table = make("svg:svg", { class: "fl-entries", role: "group", "aria-label": "Paths from inputs to outputs", "data-product": "" });
  let pairs = [];
  const layPairs = ({ dim, order, by_rank }) => {
    const places = span(dim);
    if (by_rank) places.sort((i, j) => order[i] - order[j]);
    const cell = 34;
    const { cells, at } = lay(table, {
      rows: places.map((i) => ({ text: `out ${i + 1}`, of: "output" })),
      columns: places.map((j) => ({ text: x(j), of: "input" })),
      cell, left: 46,
      live: (node, r, c) => {
        const pair = [places[r], places[c]];
        const text = make("svg:text", { x: cell / 2, y: cell / 2 + 1 });
        node.append(text);
        put(node, { role: "img", "data-pair": pair.join() });
        live(node, { pair });
        return { key: pair.join(), pair, text };
      },
    });
    pairs = cells;
    // the rule: a line between what may be linked and what must not
    const may = (r, c) => order[places[c]] < order[places[r]];
    const lines = places.flatMap((_, r) => places.map((_, c) => {
      const [px, py] = at(r, c);
      const right = c + 1 < dim && may(r, c) !== may(r, c + 1) ? `M${px + cell} ${py}v${cell}` : "";
      const below = r + 1 < dim && may(r, c) !== may(r + 1, c) ? `M${px} ${py + cell}h${cell}` : "";
      return right + below;
    }));
    table.append(make("svg:path", { class: "fl-rule", d: lines.join("") || "M0 0" }));
  };

  // controls
  const sized = (name, symbol, label, min, max, read, write) =>
    slider({ name, symbol: [symbol], label, min, max, step: 1, get: () => read(now()), set: write, text: (v) => `${v}` });
  const dims = sized("dim", "D", "How many inputs D", 2, 8, (s) => s.dim, (v) => resize(v, now().widths));
  const depth = sized("layers", "hidden layers", "How many hidden layers", 1, 3, (s) => s.widths.length, (v) => {
    const { dim, widths } = now();
    resize(dim, span(v).map((l) => widths[l] ?? widths.at(-1)));
  });
  const widthSliders = span(3).map((l) => sized(`width-${l + 1}`, `units, layer ${l + 1}`, `How many units in layer ${l + 1}`, 1, 12, (s) => s.widths[l] ?? 1, (v) => {
    const { dim, widths } = now();
    resize(dim, widths.map((w, k) => (k === l ? v : w)));
  }));
  const orders = Object.keys(ORDERS).map((kind) =>
    button(kind, { "data-order": kind, "aria-label": `ordering: ${kind}` }, () => set({ order: ORDERS[kind](now().dim, now().seed), ...afresh })));
  const wirings = Object.keys(DEGREES).map((kind) =>
    button(kind, { "data-degrees": kind, "aria-label": `degrees: ${kind}` }, () => set({ degrees: DEGREES[kind](now().dim, now().widths, now().seed), ...afresh })));
  const views = [["data order", false], ["by rank", true]].map(([text, by_rank]) =>
    button(text, { "data-view": by_rank ? "rank" : "data" }, () => set({ by_rank })));
  const next = button("next value", { "data-action": "next" }, () => set({ step: Math.min(now().dim, now().step + 1) }));
  const stop = button("end the draw", { "data-action": "stop" }, () => set({ step: 0 }));
  const unflip = button("undo flips", { "data-action": "unflip" }, () => set({ flips: [] }));

  const told = make("p", { class: "fl-lit-says", "data-lit": "" });
  const counter = make("p", { class: "fl-fine fl-counter", "data-counter": "", role: "status" });
  const verdict = make("p", { class: "fl-say fl-verdict", role: "status" });
  const turn = task("cut", "Disconnect output 3 from input 1, and leave every other pair connected, or not, as it was.");
  const key = (kind, text) => make("span", {}, make("i", { class: `fl-key fl-key-${kind}` }), text);

  el.replaceChildren(
    make("div", { class: "fl-made" },
      make("div", {},
        make("p", { class: "fl-panel-title" }, "the network ", make("span", { class: "fl-fine" }, "with degrees and ranks")),
        net, told),
      make("div", {},
        make("p", { class: "fl-panel-title" }, "paths ", make("span", { class: "fl-fine" }, "from each input to each output")),
        table,
        make("div", { class: "fl-row" }, ...views),
        make("div", { class: "fl-row" }, next, stop),
        counter),
    ),
    verdict,
    matrices,
    make("div", { class: "fl-legend fl-fine" },
      key("on", "link"), key("off", "none"), key("flip", "flipped by hand"), key("bad", "on a path against the rule"), key("missing", "allowed pair, cut"),
      make("span", {}, "Click an entry to flip it. Click a hidden unit, by touch twice, to raise its degree.")),
    turn.node,
    make("div", { class: "fl-sliders fl-sizes" }, dims.node, depth.node, ...widthSliders.map((one) => one.node)),
    make("div", { class: "fl-presets" },
      make("span", {}, "ordering"), make("div", { class: "fl-row" }, ...orders),
      make("span", {}, "degrees"), make("div", { class: "fl-row" }, ...wirings, button("draw again", { "data-action": "again" }, again)),
      make("span", {}, ""), make("div", { class: "fl-row" }, unflip, button("reset", { "data-action": "reset" }, () => set(start))),
    ),
  );

  // What is lit, in a sentence.
  function tell(what, { order, degrees, flips }, masks, counts, lit) {
    const layers = [order, ...degrees, order];
    const last = masks.length;
    const named = (k, u) => (k === 0 ? x(u) : k === last ? `output ${u + 1}` : `unit ${u + 1}${last > 2 ? ` of layer ${k}` : ""}`);
    const capital = (text) => text[0].toUpperCase() + text.slice(1);
    const inputs = [...new Set([...lit.units].filter((unit) => unit.startsWith("0,")).map((unit) => Number(unit.slice(2))))].sort();
    if (what.unit) {
      const [k, u] = what.unit;
      if (k === 0) {
        const seers = span(order.length).filter((i) => counts[i][u]).map((i) => i + 1);
        return `${x(u)}, of rank ${order[u]}, is seen by ${seers.length ? `output${seers.length > 1 ? "s" : ""} ${list(seers)}` : "no output"}.`;
      }
      const sees = inputs.length ? list(inputs.map(x)) : "no input";
      return `${capital(named(k, u))}, of ${k === last ? "rank" : "degree"} ${layers[k][u]}, sees ${sees}.`;
    }
    if (what.pair) {
      const [i, j] = what.pair;
      const paths = capital(plural(counts[i][j], "path"));
      const rule = order[j] < order[i] ? `may see it: rank ${order[i]} > ${order[j]}` : `must not see it: rank ${order[i]} ≤ ${order[j]}`;
      return `${paths} from ${x(j)} to output ${i + 1}, which ${rule}.`;
    }
    const [l, r, c] = what.link;
    const [a, b] = [layers[l][c], layers[l + 1][r]];
    const out = l === last - 1;
    const may = out ? b > a : b >= a;
    const because = may ? `${b} ${out ? ">" : "≥"} ${a}` : `${b} ${out ? "≤" : "<"} ${a}`;
    const by = flips.some((other) => same(other, what.link)) ? `, flipped by hand: the rule says ${may ? "a link" : "none"}, for ${because}` : `, for ${because}`;
    return `From ${named(l, c)} to ${named(l + 1, r)}: ${masks[l][r][c] ? "a link" : "no link"}${by}.`;
  }

  const some = (all, words) => {
    const more = all.length > 3 ? ` and ${all.length - 3} more` : "";
    return all.slice(0, 3).map(([i, j]) => `output ${i + 1} ${words} input ${j + 1}`).join(", ") + more;
  };
  function judge({ flips }, counts, illegal, missing) {
    const parts = [];
    if (illegal.length) {
      const worse = circular(counts) ? "the loss can fall below the entropy" : "no circle as yet, but not this ordering any more";
      parts.push(`${some(illegal, "now sees")}: ${worse}.`);
    }
    if (missing.length) parts.push(`${some(missing, flips.length ? "no longer sees" : "does not see")}, though it may.`);
    if (!parts.length) parts.push("each output sees all inputs of smaller rank, and no other.");
    return parts.map((part) => part[0].toUpperCase() + part.slice(1)).join(" ");
  }
  function judgeTask({ dim, order }, counts, illegal, missing) {
    const others = [...illegal, ...missing].filter((pair) => !same(pair, [2, 0]));
    if (dim < 3) return [false, "There is no output 3: reset."];
    if (order[0] > order[2]) return [false, "In this ordering output 3 must not see input 1 anyway."];
    if (counts[2][0]) return [false, `As yet there ${counts[2][0] === 1 ? "is 1 path" : `are ${counts[2][0]} paths`} between them.`];
    if (others.length) return [false, `They are apart, but ${others.length === 1 ? "another pair is" : `${others.length} other pairs are`} not as the rule has it.`];
    return [true, "Done: no ordering does that, only masks by hand."];
  }

  const plan = {}; // what was laid out, and for which state
  const layout = (name, key, build, state) => {
    if (plan[name] === key) return;
    plan[name] = key;
    if (name === "net") [pointed, focused] = [null, null]; // they may be gone
    build(state);
  };
  const mark = (node, base, flags) => {
    const names = [base, ...Object.keys(flags).filter((name) => flags[name]).map((name) => `fl-${name}`)].join(" ");
    if (node.getAttribute("class") !== names) node.setAttribute("class", names);
  };

  function draw() {
    const s = now();
    const { dim, widths, order, degrees, flips, chosen, step, by_rank } = s;
    // A kernel sends one trait after the other: until they fit there is nothing to draw.
    if (order.length !== dim || !same(degrees.map((layer) => layer.length), widths)) return;
    layout("net", `${dim},${widths}`, layNet, s);
    layout("masks", JSON.stringify([order, degrees]), layMasks, s);
    layout("pairs", JSON.stringify([order, by_rank]), layPairs, s);
    const masks = masksOf(s);
    const counts = masks.reduce((product, mask) => times(mask, product), order.map((_, i) => order.map((_, j) => Number(i === j))));
    const all = order.flatMap((_, i) => order.map((_, j) => [i, j]));
    const illegal = all.filter(([i, j]) => counts[i][j] && order[j] >= order[i]);
    const missing = all.filter(([i, j]) => !counts[i][j] && order[j] < order[i]);
    const bad = forbidden(masks, order);
    const what = present(s);
    const lit = what && lights(masks, what);
    const layers = [order, ...degrees, order];
    const top = masks.length;
    Object.assign(el.dataset, {
      ...Object.fromEntries(TRAITS.map((name) => [name === "by_rank" ? "byRank" : name, JSON.stringify(s[name])])),
      illegal: JSON.stringify(illegal), missing: JSON.stringify(missing),
    });

    // In a draw: in which step a unit is computed, or an input becomes known.
    const when = (k, u) => layers[k][u] + (k > 0 && k < top ? 1 : 0);
    const turned = new Set(flips.map(String));
    const seen = latest(masks, order);
    for (const { key, link: [l, r, c], node } of edges) {
      const on = masks[l][r][c] === 1;
      const fed = step > 0 && when(l + 1, r) === step;
      mark(node, "fl-edge", {
        off: !on, bad: bad.has(key), flipped: turned.has(key), lit: lit ? lit.links.has(key) : fed,
        dim: lit ? !lit.links.has(key) : step > 0 && when(l + 1, r) > step,
        ghost: !on && key === String(what?.link),
      });
    }
    // above the others what stands out, and uppermost what is wrong
    wires.append(...edges.filter(({ key }) => lit?.links.has(key)).map((edge) => edge.node));
    wires.append(...edges.filter(({ key }) => bad.has(key)).map((edge) => edge.node));
    for (const unit of units) {
      const { k, u, kind, node, degree, key } = unit;
      const [m, due] = [layers[k][u], when(k, u)];
      const early = k > 0 && seen[k][u] > m - (kind === "output" ? 1 : 0);
      degree.textContent = m;
      mark(node, `fl-unit fl-${kind}`, {
        lit: lit?.units.has(key), dim: lit && !lit.units.has(key), bad: early && (kind === "output" || (step > 0 && due <= step)),
        later: step > 0 && due > step, now: step > 0 && due === step && kind !== "input", final: step > 0 && due < step,
      });
      const says = kind === "input" ? `input ${u + 1}, rank ${m}` : kind === "output" ? `output ${u + 1}, rank ${m}` : `unit ${u + 1} of layer ${k}, degree ${m}`;
      node.setAttribute("aria-label", says);
      if (kind === "output") node.setAttribute("aria-pressed", chosen === u);
    }
    for (const { key, link: [l, r, c], node } of links) {
      const on = masks[l][r][c] === 1;
      const flipped = turned.has(key);
      mark(node, "fl-link", { on, flipped, bad: bad.has(key), lit: lit?.links.has(key), dim: lit && !lit.links.has(key) });
      put(node, {
        "aria-checked": on,
        "aria-label": `row ${r + 1} of degree ${layers[l + 1][r]}, column ${c + 1} of degree ${layers[l][c]}${flipped ? ", flipped" : ""}${bad.has(key) ? ", on a path against the rule" : ""}`,
      });
    }
    for (const { key, pair: [i, j], node, text } of pairs) {
      const [count, may] = [counts[i][j], order[j] < order[i]];
      text.textContent = count;
      mark(node, "fl-link fl-pair", { may, missing: may && !count, bad: !may && count, lit: lit?.pairs.has(key), dim: lit && !lit.pairs.has(key) });
      put(node, {
        "data-count": count,
        "aria-label": `${plural(count, "path")} from input ${j + 1} to output ${i + 1}, ${may ? (count ? "allowed" : "allowed but cut") : count ? "forbidden" : "as it must be"}`,
      });
    }

    told.textContent = lit ? tell(what, s, masks, counts, lit)
      : "Point at a unit, an entry or a number: what belongs to it lights up in all three views. By touch: tap.";
    const total = sum(widths) + dim;
    const done = sum(layers.slice(1).map((layer, k) => layer.filter((_, u) => when(k + 1, u) <= step).length));
    const drawn = order.indexOf(step);
    const stuck = step > 0 && illegal.find(([i, j]) => order[i] === step && order[j] >= step);
    put(counter, { "data-done": done },
      step === 0 ? "To draw a sample, take one value after the other, in the order of their ranks."
      : stuck ? `Step ${step}: output ${stuck[0] + 1} needs input ${stuck[1] + 1}, which is not known as yet. No draw with these masks.`
      : `Step ${step} of ${dim}: ${x(drawn)} is drawn. Computed so far: ${done} of the ${total} units and outputs, each once. ${step === 1 ? "A full pass computes" : `${step} full passes compute`} ${step * total}.`);
    const words = judge(s, counts, illegal, missing);
    put(verdict, { "data-legal": !illegal.length });
    if (verdict.textContent !== words) verdict.textContent = words;
    turn.draw(...judgeTask(s, counts, illegal, missing));
    for (const one of [dims, depth, ...widthSliders]) one.draw();
    widthSliders.forEach((one, l) => (one.node.hidden = l >= widths.length));
    const [kind, wiring] = [orderKind(order), degreesKind(s)];
    orders.forEach((node) => node.setAttribute("aria-pressed", node.dataset.order === kind));
    wirings.forEach((node) => node.setAttribute("aria-pressed", node.dataset.degrees === wiring));
    views.forEach((node) => node.setAttribute("aria-pressed", (node.dataset.view === "rank") === by_rank));
  }

  return frame(el, model, TRAITS, draw);
}

export default { render };
