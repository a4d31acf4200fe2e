// MaskExplorer: MADE's degrees, masks and their product, moved by hand.

const WORK = ["dim", "widths", "order", "degrees", "flips", "seed"];
const TRAITS = [...WORK, "chosen", "step", "by_rank"];
const WIDEST = 430; // pixels of the drawing of the network

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const x = (j) => `$x_${j + 1}$`; // in a sentence
const xName = (j) => indexed("x", j + 1); // in a drawing
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const plural = (n, word) => `${n || "no"} ${word}${n === 1 ? "" : "s"}`;

// --- degrees: flowlib.made's ------------------------------------------------------------------

// One unit of each degree first, where the width permits, the others uniform; in a deeper layer
// none below the lowest before, or it would see nothing.
function randomDegrees(widths, high, seed) {
  const draw = random(seed);
  let low = 1;
  return widths.map((width) => {
    const count = high - low + 1;
    const sure = width >= count ? range(count, low) : [];
    const others = range(width - sure.length).map(() => low + Math.floor(draw() * count));
    const layer = [...sure, ...others].sort((a, b) => a - b);
    low = layer[0];
    return layer;
  });
}

const ORDERS = {
  natural: (dim) => range(dim, 1),
  reversed: (dim) => range(dim, 1).reverse(),
  // neither of the others, where there are more than those two
  random: (dim, seed) => {
    const draw = random(seed + 0.5 * 2 ** 32);
    for (;;) {
      const ranks = range(dim, 1);
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

const times = (a, b) => a.map((row) => b[0].map((_, j) => sumOf(row.map((v, k) => v * b[k][j]))));

// In each layer the units from which a unit is reached, and those that it reaches.
function back(masks, k, unit) {
  const sets = [];
  sets[k] = new Set([unit]);
  for (let l = k - 1; l >= 0; l--)
    sets[l] = new Set(range(masks[l][0].length).filter((c) => [...sets[l + 1]].some((r) => masks[l][r][c])));
  return sets;
}
function forth(masks, k, unit) {
  const sets = [];
  sets[k] = new Set([unit]);
  for (let l = k; l < masks.length; l++)
    sets[l + 1] = new Set(range(masks[l].length).filter((r) => [...sets[l]].some((c) => masks[l][r][c])));
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
  let left = range(counts.length);
  for (;;) {
    const next = left.filter((i) => left.some((j) => counts[i][j]));
    if (next.length === left.length) return left.length > 0;
    left = next;
  }
}

// All that is drawn of a state, and what of it is lit.
function measure(s, what) {
  const { order, degrees, flips } = s;
  const masks = masksOf(s);
  const last = masks.length; // the outputs' layer
  const layers = [order, ...degrees, order];
  const one = order.map((_, i) => order.map((_, j) => Number(i === j)));
  const counts = masks.reduce((product, mask) => times(mask, product), one);
  const all = order.flatMap((_, i) => order.map((_, j) => [i, j]));
  return {
    ...s, masks, layers, last, counts, what,
    illegal: all.filter(([i, j]) => counts[i][j] && order[j] >= order[i]),
    missing: all.filter(([i, j]) => !counts[i][j] && order[j] < order[i]),
    bad: forbidden(masks, order),
    lit: what && lights(masks, what),
    turned: new Set(flips.map(String)),
    seen: latest(masks, order),
    // in a draw: in which step a unit is computed, or an input becomes known
    when: (k, u) => layers[k][u] + (k > 0 && k < last ? 1 : 0),
  };
}

// --- words ------------------------------------------------------------------------------------

const named = (k, u, last) => (k === 0 ? x(u) : k === last ? `output ${u + 1}` : `unit ${u + 1}${last > 2 ? ` of layer ${k}` : ""}`);

// What is lit, in a sentence.
function tell(now) {
  if (now.what.unit) return tellUnit(now, ...now.what.unit);
  if (now.what.pair) return tellPair(now, ...now.what.pair);
  return tellLink(now, ...now.what.link);
}

function tellUnit({ order, counts, layers, last, lit }, k, u) {
  if (k === 0) {
    const seers = range(order.length).filter((i) => counts[i][u]).map((i) => i + 1);
    const who = seers.length ? `output${seers.length > 1 ? "s" : ""} ${listed(seers)}` : "no output";
    return `${x(u)}, of rank ${order[u]}, is seen by ${who}.`;
  }
  const inputs = [...lit.units].filter((unit) => unit.startsWith("0,")).map((unit) => Number(unit.slice(2))).sort();
  const sees = inputs.length ? listed(inputs.map(x)) : "no input";
  return `${capital(named(k, u, last))}, of ${k === last ? "rank" : "degree"} ${layers[k][u]}, sees ${sees}.`;
}

function tellPair({ order, counts }, i, j) {
  const paths = capital(plural(counts[i][j], "path"));
  const rule = order[j] < order[i] ? `may see it: rank ${order[i]} > ${order[j]}` : `must not see it: rank ${order[i]} ≤ ${order[j]}`;
  return `${paths} from ${x(j)} to output ${i + 1}, which ${rule}.`;
}

function tellLink({ masks, layers, last, turned }, l, r, c) {
  const [a, b] = [layers[l][c], layers[l + 1][r]];
  const out = l === last - 1;
  const may = out ? b > a : b >= a;
  const because = may ? `${b} ${out ? ">" : "≥"} ${a}` : `${b} ${out ? "≤" : "<"} ${a}`;
  const by = turned.has(`${l},${r},${c}`) ? `flipped by hand: the rule says ${may ? "a link" : "none"}, ` : "";
  return `From ${named(l, c, last)} to ${named(l + 1, r, last)}: ${masks[l][r][c] ? "a link" : "no link"}, ${by}for ${because}.`;
}

// The verdict on the masks.
function judge({ flips, counts, illegal, missing }) {
  const some = (all, words) => {
    const more = all.length > 3 ? ` and ${all.length - 3} more` : "";
    return all.slice(0, 3).map(([i, j]) => `output ${i + 1} ${words} input ${j + 1}`).join(", ") + more;
  };
  const parts = [];
  if (illegal.length) {
    const worse = circular(counts) ? "the loss can fall below the entropy" : "no circle as yet, but not this ordering any more";
    parts.push(`${some(illegal, "now sees")}: ${worse}.`);
  }
  if (missing.length) parts.push(`${some(missing, flips.length ? "no longer sees" : "does not see")}, though it may.`);
  if (!parts.length) parts.push("each output sees all inputs of smaller rank, and no other.");
  return parts.map(capital).join(" ");
}

// The two tasks: of the network by itself, which degrees solve, and of the one with its masks.
const ends = ({ order, dim }) => [order.indexOf(dim), order.indexOf(dim - 1)];
const TASKS = {
  lose: {
    text: (s) => {
      const [i, j] = ends(s);
      return `Click hidden units, which raises their degrees, until output ${i + 1} no longer sees ${x(j)} and all else is as it was.`;
    },
    judge: ({ dim, order, counts, illegal, missing }) => {
      const [i, j] = ends({ order, dim });
      if (counts[i][j]) return [false, `As yet there ${counts[i][j] === 1 ? "is 1 path" : `are ${counts[i][j]} paths`} between them.`];
      const others = [...illegal, ...missing].filter((pair) => !same(pair, [i, j]));
      if (others.length) return [false, "That pair is apart, but not that pair alone."];
      return [true, `Done: no unit has degree ${dim - 1} now. Somebody has to carry ${x(j)}.`];
    },
  },
  cut: {
    text: () => "Disconnect output 3 from input 1, and leave every other pair connected, or not, as it was.",
    judge: ({ dim, order, counts, illegal, missing }) => {
      const others = [...illegal, ...missing].filter((pair) => !same(pair, [2, 0]));
      if (dim < 3) return [false, "There is no output 3: reset."];
      if (order[0] > order[2]) return [false, "In this ordering output 3 must not see input 1 anyway."];
      if (counts[2][0]) return [false, `As yet there ${counts[2][0] === 1 ? "is 1 path" : `are ${counts[2][0]} paths`} between them.`];
      const wrong = others.length === 1 ? "another pair is" : `${others.length} other pairs are`;
      if (others.length) return [false, `They are apart, but ${wrong} not as the rule has it.`];
      return [true, "Done: no ordering does that, only masks by hand."];
    },
  },
};

// How far a draw is, and how many units and outputs it has computed.
function count({ dim, order, widths, layers, step, illegal, when }) {
  const total = sumOf(widths) + dim;
  const done = sumOf(layers.slice(1).map((layer, k) => layer.filter((_, u) => when(k + 1, u) <= step).length));
  const stuck = step > 0 && illegal.find(([i, j]) => order[i] === step && order[j] >= step);
  const passes = step === 1 ? "A full pass computes" : `${step} full passes compute`;
  return [done,
    step === 0 ? "To draw a sample, take one value after the other, in the order of their ranks."
    : stuck ? `Step ${step}: output ${stuck[0] + 1} needs input ${stuck[1] + 1}, which is not known as yet. No draw with these masks.`
    : `Step ${step} of ${dim}: ${x(order.indexOf(step))} is drawn. Computed so far: ${done} of the ${total} units and ` +
      `outputs, each once. ${passes} ${step * total}.`];
}

// --- hands ------------------------------------------------------------------------------------

// What hands can do.
function actions(page) {
  const { state, set } = page;
  const afresh = { flips: [], step: 0 };
  return {
    // Other sizes, with the same kinds of ordering and degrees.
    resize: (dim, widths) => {
      const s = state();
      const order = dim === s.dim ? s.order : ORDERS[orderKind(s.order)](dim, s.seed);
      const degrees = (DEGREES[degreesKind(s)] ?? DEGREES.cyclic)(dim, widths, s.seed);
      set({ dim, widths, ...afresh, chosen: -1, order, degrees });
    },
    // Of what is random, another draw; where nothing is, random degrees.
    again: () => {
      const s = state();
      const seed = s.seed + 1;
      const reorder = s.dim > 2 && orderKind(s.order) === "random";
      set({
        seed, ...afresh,
        ...(reorder && { order: ORDERS.random(s.dim, seed) }),
        ...((!reorder || degreesKind(s) === "random") && { degrees: DEGREES.random(s.dim, s.widths, seed) }),
      });
    },
    order: (kind) => set({ order: ORDERS[kind](state().dim, state().seed), ...afresh }),
    degrees: (kind) => set({ degrees: DEGREES[kind](state().dim, state().widths, state().seed), ...afresh }),
    flip: (link) => {
      const { flips } = state();
      const rest = flips.filter((other) => !same(other, link));
      set({ flips: rest.length < flips.length ? rest : [...flips, link] });
    },
    raise: (l, u) => {
      const { degrees, dim } = state();
      set({ degrees: degrees.map((layer, k) => layer.map((m, i) => (k === l && i === u ? 1 + (m % (dim - 1)) : m))) });
    },
    choose: (i) => set({ chosen: state().chosen === i ? -1 : i }),
  };
}

// What is lit, a unit, a link or a pair: what the mouse is on, else what has the focus, else the
// chosen output.
function lighting({ el, state, soon }) {
  let [pointed, focused] = [null, null];
  const present = ({ chosen, widths }) => pointed ?? focused ?? (chosen < 0 ? null : { unit: [widths.length + 1, chosen] });
  const point = (to) => ((pointed = to), soon());
  const focus = (to) => ((focused = to), soon());
  // Not every browser gives a tapped unit the focus, and so takes it away again.
  el.onpointerdown = (event) => {
    if (!event.target.closest(".fl-unit, .fl-link")) focus(null);
  };
  // Light `what` with this node. `act` gets whether it was lit before: a finger's first tap on a unit
  // lights it only.
  const live = (node, what, act = () => {}) => {
    let lit = false;
    put(node, {
      onpointerenter: (event) => event.pointerType !== "touch" && point(what),
      onpointerleave: () => point(null),
      onpointerdown: () => (lit = same(present(state()), what)),
      onclick: (event) => {
        if (event.pointerType !== "mouse") focused = what;
        act(lit);
        soon();
      },
      onfocus: () => node.matches(":focus-visible") && focus(what),
      onblur: () => focus(null),
    });
    const press = () => act(true);
    takeKeys(node, { Enter: press, " ": press });
  };
  const forget = () => ([pointed, focused] = [null, null]); // what they are may be gone
  return { present, live, forget };
}

// Things of which one is reached by tab and the others by arrow keys from there.
function rove(nodes, points) {
  const stop = (k) => nodes.forEach((node, i) => put(node, { tabindex: i === k ? 0 : -1 }));
  nodes.forEach((node, k) => {
    node.addEventListener("focus", () => stop(k));
    takeKeys(node, arrowKeys((way) => {
      const next = ahead(points, points[k], way);
      if (next >= 0) nodes[next].focus();
    }));
  });
  stop(0);
}

// A class for each flag that holds, beside the base.
const mark = (node, base, flags) =>
  setClass(node, [base, ...Object.keys(flags).filter((name) => flags[name]).map((name) => `fl-${name}`)].join(" "));

// --- the network ------------------------------------------------------------------------------

// Where the units of layers of those sizes are drawn, from the inputs below to the outputs above.
function placesOf(sizes, wide) {
  const gap = [112, 74, 60][sizes.length - 3];
  const height = 76 + gap * (sizes.length - 1);
  const radius = Math.min(17, wide / Math.max(...sizes) / 2 - 2.2);
  const spot = (k, u) => {
    const pitch = Math.min(0.18 * wide, wide / sizes[k]);
    return [wide / 2 + (u - (sizes[k] - 1) / 2) * pitch, height - 38 - k * gap];
  };
  return { height, radius, spot };
}

function unitNode(k, u, kind, pitch, radius, point) {
  const degree = make("svg:text", { class: "fl-degree", y: 5 });
  const name = (y, ...words) => [make("svg:text", { class: "fl-name fl-cased", y }, ...words)];
  const role = kind === "input" ? "img" : "button";
  const node = make("svg:g", { transform: `translate(${point.join(" ")})`, role, "data-unit": `${k},${u}` },
    make("svg:circle", { class: "fl-reach", r: Math.min(22, pitch / 2) }),
    make("svg:circle", { class: "fl-body", r: radius }),
    make("svg:circle", { class: "fl-hop", r: radius + 2.6 }),
    degree,
    ...(kind === "input" ? name(radius + 18, ...xName(u)) : []),
    ...(kind === "output" ? name(-radius - 8, `out ${u + 1}`) : []));
  return { key: `${k},${u}`, k, u, kind, node, degree, point };
}

// All links that there could be, hidden where there is none, and the units above them.
function network(act, light) {
  const net = make("svg:svg", { class: "fl-net", role: "group", "aria-label": "The network" });
  const wires = make("svg:g", {});
  let [edges, units] = [[], []];
  const lay = whenNew(([dim, widths, wide]) => {
    light.forget();
    const sizes = [dim, ...widths, dim];
    const { height, radius, spot } = placesOf(sizes, wide);
    edges = sizes.slice(1).flatMap((rows, l) => range(rows).flatMap((r) => range(sizes[l]).map((c) => {
      const d = `M${spot(l, c).join(" ")}L${spot(l + 1, r).join(" ")}`;
      return { key: `${l},${r},${c}`, link: [l, r, c], node: make("svg:path", { d }) };
    })));
    units = sizes.flatMap((size, k) => range(size).map((u) => {
      const kind = k === 0 ? "input" : k === sizes.length - 1 ? "output" : "hidden";
      const unit = unitNode(k, u, kind, wide / size, radius, spot(k, u));
      light.live(unit.node, { unit: [k, u] }, (lit) => {
        if (kind === "output") act.choose(u);
        else if (kind === "hidden" && lit) act.raise(k - 1, u);
      });
      return unit;
    }));
    rove(units.map((unit) => unit.node), units.map((unit) => unit.point));
    put(wires, {}, ...edges.map((edge) => edge.node));
    const layerName = (l) =>
      make("svg:text", { class: "fl-row-name fl-cased", x: 0, y: spot(l + 1, 0)[1] - radius - 7 }, `layer ${l + 1}`);
    put(net, { viewBox: `0 0 ${wide} ${height}` },
      wires, ...widths.map((_, l) => layerName(l)), ...units.map((unit) => unit.node));
  });
  function draw(now) {
    edges.forEach((edge) => drawEdge(edge, now));
    // above the others what stands out, and uppermost what is wrong
    wires.append(...edges.filter(({ key }) => now.lit?.links.has(key)).map((edge) => edge.node));
    wires.append(...edges.filter(({ key }) => now.bad.has(key)).map((edge) => edge.node));
    units.forEach((unit) => drawUnit(unit, now));
  }
  return { node: net, draw, lay: ({ dim, widths }, width) => lay([dim, widths, Math.min(WIDEST, pictureWidth(width))]) };
}

function drawEdge({ key, link: [l, r, c], node }, { masks, bad, turned, lit, what, step, when }) {
  const on = masks[l][r][c] === 1;
  const due = when(l + 1, r);
  mark(node, "fl-edge", {
    off: !on, bad: bad.has(key), flipped: turned.has(key), lit: lit ? lit.links.has(key) : step > 0 && due === step,
    dim: lit ? !lit.links.has(key) : step > 0 && due > step, ghost: !on && key === String(what?.link),
  });
}

function drawUnit({ key, k, u, kind, node, degree }, { layers, seen, lit, step, chosen, when }) {
  const [m, due] = [layers[k][u], when(k, u)];
  const early = k > 0 && seen[k][u] > m - (kind === "output" ? 1 : 0);
  degree.textContent = m;
  mark(node, `fl-unit fl-${kind}`, {
    lit: lit?.units.has(key), dim: lit && !lit.units.has(key), bad: early && (kind === "output" || (step > 0 && due <= step)),
    later: step > 0 && due > step, now: step > 0 && due === step && kind !== "input", final: step > 0 && due < step,
  });
  put(node, { "aria-label": kind === "hidden" ? `unit ${u + 1} of layer ${k}, degree ${m}` : `${kind} ${u + 1}, rank ${m}` });
  if (kind === "output") put(node, { "aria-pressed": chosen === u });
}

// --- matrices ---------------------------------------------------------------------------------

// A matrix: cells under and beside their heads, each {text, of}. `enliven` gets a cell's node, its
// row and its column, and says what more there is to know of it.
function matrix(svg, { rows, columns, cell, left, enliven }) {
  const top = 24;
  const [width, height] = [left + columns.length * cell + 3, top + rows.length * cell + 3];
  const at = (r, c) => [left + c * cell, top + r * cell];
  const head = ({ text, of }, px, py) => make("svg:text", { class: `fl-head fl-of-${of}`, x: px, y: py }, ...[text].flat().map((part) => (part.nodeType ? part : `${part}`)));
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
    ...rows.map((one, r) => head(one, left / 2, top + (r + 0.5) * cell)),
    ...cells.map((one) => one.node));
  return { cells, corner: at(0, 0) };
}

// The masks, a matrix each.
function maskMatrices(act, light) {
  const node = make("div", { class: "fl-matrices" });
  let links = [];
  const lay = whenNew(([order, degrees, width]) => {
    const layers = [order, ...degrees, order];
    const last = layers.length - 1;
    const of = (k) => (k === 0 ? "input" : k === last ? "output" : "hidden");
    const title = (k) => (k === 0 ? "inputs" : k === last ? "outputs" : last > 2 ? `layer ${k}` : "hidden layer");
    const heads = (k) => layers[k].map((text) => ({ text, of: of(k) }));
    // All beside one another, where that leaves them large enough for a mouse; below one another for a finger.
    const columns = layers.slice(0, -1).map((layer) => layer.length);
    const fitting = (width - 14 * (last - 1) - 29 * last) / sumOf(columns);
    const cell = width >= 460 ? clamp(Math.floor(fitting), [21, 28]) : clamp(Math.floor((width - 30) / Math.max(...columns)), [24, 40]);
    const enliven = (l) => (entry, r, c) => {
      const link = [l, r, c];
      put(entry, { role: "checkbox", "data-link": link.join() });
      light.live(entry, { link }, () => act.flip(link));
      return { key: link.join(), link };
    };
    links = [];
    put(node, {}, ...range(last).map((l) => {
      const words = `${title(l)} → ${title(l + 1)}`;
      const svg = make("svg:svg", { class: "fl-entries", role: "group", "aria-label": `Mask, ${words}`, "data-mask": l });
      links.push(...matrix(svg, { rows: heads(l + 1), columns: heads(l), cell, left: 26, enliven: enliven(l) }).cells);
      const rule = `link: row ${l === last - 1 ? ">" : "≥"} column`;
      return make("div", { class: "fl-matrix", style: `--fl-natural:${svg.style.width}` }, titled(words), fine(rule), svg);
    }));
  });
  const draw = ({ masks, layers, turned, bad, lit }) => {
    for (const { key, link: [l, r, c], node } of links) {
      const [on, flipped, wrong] = [masks[l][r][c] === 1, turned.has(key), bad.has(key)];
      mark(node, "fl-link", { on, flipped, bad: wrong, lit: lit?.links.has(key), dim: lit && !lit.links.has(key) });
      put(node, {
        "aria-checked": on,
        "aria-label": `row ${r + 1} of degree ${layers[l + 1][r]}, column ${c + 1} of degree ${layers[l][c]}` +
          `${flipped ? ", flipped" : ""}${wrong ? ", on a path against the rule" : ""}`,
      });
    }
  };
  return { node, draw, lay: ({ order, degrees }, width) => lay([order, degrees, pictureWidth(width)]) };
}

// The paths from each input to each output, and the line between what may be linked and what must not.
function pathMatrix(light) {
  const label = "Paths from inputs to outputs";
  const table = make("svg:svg", { class: "fl-entries", role: "group", "aria-label": label, "data-product": "" });
  let pairs = [];
  const lay = whenNew(([order, by_rank, width]) => {
    const dim = order.length;
    const room = width >= BESIDE ? RAIL - 20 : width;
    const cell = Math.min(width >= BESIDE ? 34 : 40, Math.floor((room - 50) / dim));
    const places = range(dim);
    if (by_rank) places.sort((i, j) => order[i] - order[j]);
    const { cells, corner } = matrix(table, {
      rows: places.map((i) => ({ text: `out ${i + 1}`, of: "output" })),
      columns: places.map((j) => ({ text: xName(j), of: "input" })),
      cell, left: 46,
      enliven: (node, r, c) => {
        const pair = [places[r], places[c]];
        const text = make("svg:text", { x: cell / 2, y: cell / 2 + 1 });
        node.append(text);
        put(node, { role: "img", "data-pair": pair.join() });
        light.live(node, { pair });
        return { key: pair.join(), pair, text };
      },
    });
    pairs = cells;
    const { inner } = cellEdges([dim, dim], cell, (r, c) => order[places[c]] < order[places[r]]);
    table.append(make("svg:path", { class: "fl-rule", d: inner || "M0 0", transform: `translate(${corner.join(" ")})` }));
  });
  const draw = ({ order, counts, lit }) => {
    for (const { key, pair: [i, j], node, text } of pairs) {
      const [count, may] = [counts[i][j], order[j] < order[i]];
      const status = may ? (count ? "allowed" : "allowed but cut") : count ? "forbidden" : "as it must be";
      text.textContent = count;
      mark(node, "fl-link fl-pair", {
        may, missing: may && !count, bad: !may && count, lit: lit?.pairs.has(key), dim: lit && !lit.pairs.has(key),
      });
      put(node, { "data-count": count, "aria-label": `${plural(count, "path")} from input ${j + 1} to output ${i + 1}, ${status}` });
    }
  };
  return { node: table, draw, lay: ({ order, by_rank }, width) => lay([order, by_rank, width]) };
}

// --- controls ---------------------------------------------------------------------------------

// How many inputs, layers and units.
function sizeSliders({ state }, { resize }) {
  const sized = (name, symbol, label, [min, max], get, set) =>
    slider({
      name, symbol: [symbol], label, min, max, step: 1,
      get: () => get(state()), set: (v) => set(v, state()), text: (v) => `${v}`,
    });
  const units = range(3).map((l) =>
    sized(`width-${l + 1}`, `units, layer ${l + 1}`, `How many units in layer ${l + 1}`, [1, 12], (s) => s.widths[l] ?? 1,
      (v, { dim, widths }) => resize(dim, widths.map((w, k) => (k === l ? v : w)))));
  const all = [
    sized("dim", math("D"), "How many inputs D", [2, 8], (s) => s.dim, (v, { widths }) => resize(v, widths)),
    sized("layers", "hidden layers", "How many hidden layers", [1, 3], (s) => s.widths.length,
      (v, { dim, widths }) => resize(dim, range(v).map((l) => widths[l] ?? widths.at(-1)))),
    ...units,
  ];
  const draw = ({ widths }) => {
    for (const one of all) one.draw();
    units.forEach((one, l) => (one.node.hidden = l >= widths.length));
  };
  return { node: make("div", { class: "fl-sliders fl-sizes" }, ...all.map((one) => one.node)), draw };
}

// The kinds of ordering and of degrees, and the ways back.
function kindButtons({ state, set }, act) {
  const kinds = (all, name, words, get, choose) =>
    choice(Object.keys(all).map((kind) => [kind, kind, { [`data-${name}`]: kind, "aria-label": `${words}: ${kind}` }]), get, choose);
  const orders = kinds(ORDERS, "order", "ordering", () => orderKind(state().order), act.order);
  const wirings = kinds(DEGREES, "degrees", "degrees", () => degreesKind(state()), act.degrees);
  const unflip = button("clear flips", { "data-action": "unflip" }, () => set({ flips: [] }));
  const node = make("div", { class: "fl-presets" },
    make("span", {}, "ordering"), row(...orders.nodes),
    make("span", {}, "degrees"), row(...wirings.nodes, button("draw again", { "data-action": "again" }, act.again), unflip));
  const draw = () => {
    orders.draw();
    wirings.draw();
  };
  return { node, draw };
}

// The order in which the paths are shown, and a draw, value after value.
function drawButtons({ get, set }) {
  const views = choice(
    [["data order", false, "data"], ["by rank", true, "rank"]].map(([text, by_rank, view]) => [text, by_rank, { "data-view": view }]),
    () => get("by_rank"), (by_rank) => set({ by_rank }));
  const counter = make("p", { class: "fl-fine fl-counter", "data-counter": "", role: "status" });
  const next = button("next value", { "data-action": "next" }, () => set({ step: Math.min(get("dim"), get("step") + 1) }));
  const stop = button("end the draw", { "data-action": "stop" }, () => set({ step: 0 }));
  const draw = (now) => {
    const [done, words] = count(now);
    put(counter, { "data-done": done });
    setSpelled(counter, words);
    views.draw();
  };
  return { nodes: [row(...views.nodes), row(next, stop), counter], draw };
}

function marksKey(simple) {
  const key = (kind, text) => make("span", {}, make("i", { class: `fl-key fl-key-${kind}` }), text);
  const missing = key("missing", "allowed pair, cut");
  const all = [key("on", "link"), key("off", "no link"), key("flip", "flipped by hand"), key("bad", "on a path against the rule"), missing];
  return make("div", { class: "fl-legend fl-fine" }, ...(simple ? [missing] : all));
}

// --- the page ---------------------------------------------------------------------------------

function render({ model, el }) {
  const page = openPage(el, model, TRAITS, WORK);
  const simple = page.get("simple");
  const [act, light] = [actions(page), lighting(page)];
  const [net, paths, masks] = [network(act, light), pathMatrix(light), maskMatrices(act, light)];
  const [sizes, kinds, steps] = [sizeSliders(page, act), kindButtons(page, act), drawButtons(page)];
  const [told, bottom] = [make("p", { class: "fl-lit-says", "data-lit": "" }), tools(page)];
  const verdict = make("p", { class: "fl-say fl-legal", role: "status" });
  const name = simple ? "lose" : "cut";
  const turn = task(page, name, TASKS[name].text(page.start));
  const small = (words) => make("span", { class: "fl-fine" }, words);
  const how = fine("Click an entry to flip it, a hidden unit, by touch twice, to raise its degree.");
  el.replaceChildren(frame(
    [titled("the network ", small("with degrees and ranks")), net.node, told, ...(simple ? [] : [
      next(masks.node),
      later(folded("sizes, orderings and degrees", sizes.node, kinds.node)),
    ])],
    [
      titled("paths ", small("from each input to each output")), paths.node, verdict, turn.node,
      ...(simple ? [bottom.node] : [
        bottom.node, how,
        folded("draw value by value", ...steps.nodes),
      ]),
      marksKey(simple),
    ]));

  return page.run((width) => {
    const s = page.state();
    // A kernel sends one trait after the other: until they fit there is nothing to draw.
    if (s.order.length !== s.dim || !same(s.degrees.map((layer) => layer.length), s.widths)) return;
    for (const part of [net, masks, paths]) part.lay(s, width);
    const now = measure(s, light.present(s));
    for (const part of [net, masks, paths, sizes, kinds, steps]) part.draw(now);
    setSpelled(told, now.lit ? tell(now)
      : "Point at a unit, an entry or a number: what belongs to it lights up in every view. By touch: tap.");
    put(verdict, { "data-legal": !now.illegal.length });
    setText(verdict, judge(now));
    turn.draw(...TASKS[name].judge(now));
    bottom.draw();
    const { by_rank, ...others } = s;
    for (const [name, value] of Object.entries({ ...others, byRank: by_rank, illegal: now.illegal, missing: now.missing }))
      el.dataset[name] = JSON.stringify(value);
  });
}

export default { render };
