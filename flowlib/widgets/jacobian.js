// JacobianExplorer: a flow's Jacobian at a point, of each step and of all steps up to it.

const TRAITS = ["point", "step", "composed", "sort", "axes", "custom"];
const SMALLEST = 1e-4; // where the colours start
const WRITTEN = 6; // up to so many coordinates the numbers stand in their cells
const strongest = (size) => (size <= WRITTEN ? 0.5 : 0.9); // a colour's opacity, so that they are legible
const small = (digits, n) => [...`${n}`].map((d) => digits["-0123456789".indexOf(d)]).join("");
const below = (n) => small("₋₀₁₂₃₄₅₆₇₈₉", n);
const power = (n) => `10${small("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", n)}`;
const clamp = (v, [low, high]) => Math.max(low, Math.min(high, v));
const line = (color, width, more = {}) => ({ fill: "none", stroke: color, "stroke-width": width, ...more });

// --- numbers --------------------------------------------------------------------------------

// log |det| by elimination, the largest entry of each column first; of a singular matrix it is -∞.
function logAbsDet(matrix) {
  const rows = matrix.map((row) => [...row]);
  return rows.reduce((sum, _, k) => {
    const best = rows.reduce((b, row, i) => (i > k && Math.abs(row[k]) > Math.abs(rows[b][k]) ? i : b), k);
    [rows[k], rows[best]] = [rows[best], rows[k]];
    const pivot = rows[k][k];
    if (pivot === 0) return -Infinity;
    for (let i = k + 1; i < rows.length; i++) {
      const share = rows[i][k] / pivot;
      for (let j = k; j < rows.length; j++) rows[i][j] -= share * rows[k][j];
    }
    return sum + Math.log(Math.abs(pivot));
  }, 0);
}

const zeros = (matrix) => matrix.flat().filter((v) => v === 0).length;

// All that is shown of a Jacobian; `rows` and `columns` are the order in which it is looked at.
function measure({ jacobian, claimed }, { support }, rows, columns) {
  const forced = jacobian.flatMap((row, i) => row.filter((_, j) => support[i][j] === "0").map(Math.abs));
  return {
    zeros: zeros(jacobian),
    zero_block: forced.length ? Math.max(...forced) : null,
    diagonal: rows.reduce((sum, i, k) => sum + Math.log(Math.abs(jacobian[i][columns[k]])), 0),
    slogdet: logAbsDet(jacobian),
    claimed,
  };
}

// --- words ----------------------------------------------------------------------------------

function short(v) {
  if (v === 0) return "0";
  const size = Math.abs(v);
  if (size < 0.005 || size >= 1000) return (v < 0 ? "−" : "") + power(Math.round(Math.log10(size)));
  return show(v, size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

const list = (letter, indices) => indices.map((i) => letter + below(i + 1)).join(", ");
const vector = (x) => `(${x.slice(0, 6).map((v) => show(v)).join(", ")}${x.length > 6 ? ", …" : ""})`;
const same = (a, b) => a === b || Math.abs(a - b) < 1e-6 * Math.max(1, Math.abs(b));
const entries = (n) => `${n} ${n === 1 ? "entry" : "entries"}`;

// What the structure is, and why its determinant is cheap or not.
function describe({ kept, structure }, { composed, sort, step, terms }, m, natural) {
  const { support, triangular } = structure[+composed];
  const size = support.length;
  const alone = !composed || step === 0;
  const lone = support.every((row) => [...row].filter((v) => v === "1").length === 1);
  const straight = support.every((row, i) => row[i] === "1");
  const value = show(m.slogdet, 3);
  const sums = same(m.diagonal, m.slogdet)
    ? `the sum of log |diagonal|, ${value}, is the log-determinant`
    : `the sum of log |diagonal| is ${show(m.diagonal, 3)} and log |det J| is ${value}`;
  const sorted = sort || natural || !triangular;
  if (m.zero_block > 0)
    return `The structure says that the outlined entries are zero, and the largest is ${short(m.zero_block)}: that structure is wrong.`;
  if (!sorted)
    return `The coordinates are in their own order, and ${sums}. Sort them, and ${lone ? "every entry comes to lie on the diagonal" : "one side of the diagonal becomes empty"}.`;
  if (alone && kept.length) {
    const moved = support.map((_, i) => i).filter((i) => !kept.includes(i));
    return `Triangular in blocks. The coupling keeps ${list("x", kept)}: a 1 on the diagonal, nothing beside it. It moves ` +
      `${list("x", moved)}, each by a scale of its own. However wild the block below the ones is, ${sums}.`;
  }
  if (lone && straight) return `Diagonal: every coordinate is moved by itself, and ${sums}.`;
  if (lone && alone) return "A permutation only moves coordinates about: one 1 in each row and column, and no volume changes.";
  if (triangular)
    return `Triangular: each output depends on its own input and on earlier ones only, and ${sums}. It costs ${size} logarithms.`;
  const empty = m.zeros ? `${entries(m.zeros)} of ${size * size} ${m.zeros === 1 ? "is" : "are"} zero` : "no entry is zero";
  const not = same(m.diagonal, m.slogdet) ? "happens to be log |det J|" : "is not log |det J| any more";
  if (alone)
    return `No zero is promised here, and ${empty}. The sum of log |diagonal|, ${show(m.diagonal, 3)}, ` +
      `${not.replace(" any more", "")}, ${value}. ` +
      (same(m.claimed, m.slogdet) ? "The layer knows it from how it is built." : `The layer says ${show(m.claimed, 3)}.`);
  return `Steps 1 to ${step + 1} together: ${empty}, and no order makes it triangular. The diagonal's sum ${not}. ` +
    `Nobody needs it: determinants multiply, so the steps' log-determinants add up: ${terms} = ${show(m.claimed)}.`;
}

function judgeFill(steps, { step, composed }) {
  const first = steps.findIndex((s) => zeros(s.jacobian[1]) === 0);
  const left = zeros(steps[step].jacobian[1]);
  if (!composed) return [false, "This is one step by itself."];
  if (left) return [false, `After ${step + 1} of ${steps.length}, ${entries(left)} ${left === 1 ? "is" : "are"} still zero.`];
  if (step > first) return [false, "Nothing is zero here, but nothing was one step before, either."];
  const before = first ? steps[first - 1].jacobian[1] : [];
  const [i] = [before.findIndex((row) => row.includes(0))];
  const last = i < 0 ? "" : ` One step before, z${below(i + 1)} did not yet depend on x${below(before[i].indexOf(0) + 1)}.`;
  return [true, `Done: it takes ${first + 1} steps.${last}`];
}

function judgeGrow(steps, table, { step, composed }) {
  const whole = (all) => logAbsDet(all.at(-1).jacobian[1]);
  const [all, here] = [table.map(whole), whole(steps)];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  if (!(step === steps.length - 1 && (composed || step === 0))) return [false, "Show all steps together first."];
  if (high - low < 1e-6) return [true, "Here it is the same everywhere: the map is affine."];
  if (here > high - 1e-9) return [true, `Done: volume grows by a factor of ${show(Math.exp(here))}.`];
  return [false, `Here volume ${here < 0 ? "shrinks" : "grows"} by a factor of ${show(Math.exp(here))}; somewhere it is ${show(Math.exp(high))}.`];
}

// --- the points -----------------------------------------------------------------------------

// Data space by two of its coordinates. A point is taken from where it is: with a kernel to
// anywhere, without one to the nearest of the points given.
function space(ranges, width, height, { points, names, get, act, live }) {
  const axes = get("axes");
  const it = panel({ x: ranges[0], y: ranges[1], width, height, label: `The points by ${names[axes[0]]} and ${names[axes[1]]}` });
  const place = (x) => axes.map((i) => x[i]);
  it.add("path", line("var(--fl-faint)", 1, { d: `M0.5 0.5H${width - 0.5}V${height - 0.5}H0.5Z` }));
  for (const [v, words] of ticks(it.x)) {
    const [x] = it.at([v, 0]);
    if (x < 32) continue; // the corner is the other scale's
    it.add("path", line("var(--fl-muted)", 1, { d: `M${x} ${height}v-5` }));
    it.add("text", { class: "fl-tick fl-cased", x, y: height - 9, "text-anchor": "middle" }, words);
  }
  for (const [v, words] of ticks(it.y)) {
    const [, y] = it.at([0, v]);
    it.add("path", line("var(--fl-muted)", 1, { d: `M0 ${y}h5` }));
    it.add("text", { class: "fl-tick fl-cased", x: 9, y: y + 4.5 }, words);
  }
  const dots = points.map((x, k) => {
    const [cx, cy] = it.at(place(x));
    it.add("circle", { cx, cy, r: 6, fill: "var(--fl-data)", "fill-opacity": 0.45, "data-point": k });
    return it.add("text", { class: "fl-tick fl-cased", x: cx + 10, y: cy - 7 }, `${k + 1}`);
  });
  const pixels = (a, b) => Math.hypot(...it.at(a).map((v, i) => v - it.at(b)[i]));
  const nearest = (spot) => {
    const far = points.map((x) => pixels(place(x), spot));
    const k = far.indexOf(Math.min(...far));
    return [k, far[k]];
  };
  const put_at = (spot) => act.custom(act.x().map((v, i) => (axes.includes(i) ? spot[axes.indexOf(i)] : v)));
  const redraw = handle(it, {
    name: "point", label: "The point", color: "var(--fl-data)",
    get: () => place(act.x()),
    move: (spot) => (live ? put_at(spot) : act.point(nearest(spot)[0])),
    value: () => `${act.where()}, ${axes.map((i, k) => `${names[i]} ${show(place(act.x())[k])}`).join(", ")}`,
  });
  const node = it.svg.lastChild;
  node.onkeydown = (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    const here = place(act.x());
    if (live) {
      const share = (event.shiftKey ? 5 : 1) / 100;
      return put_at(here.map((v, i) => v + way[i] * share * (ranges[i][1] - ranges[i][0])));
    }
    const flat = (spot) => it.at(spot).map((v, i) => (i ? -v : v));
    const next = ahead(points.map((x) => flat(place(x))), flat(here), way);
    if (next >= 0) act.point(next);
  };
  let from = [0, 0];
  it.svg.addEventListener("pointerdown", (event) => (from = [event.clientX, event.clientY]));
  it.svg.addEventListener("click", (event) => {
    if (Math.hypot(event.clientX - from[0], event.clientY - from[1]) > 5) return; // that was a drag
    const spot = it.locate(event);
    const [k, far] = nearest(spot);
    if (!live || far < 16) act.point(k);
    else if (!event.target.closest(".fl-grab")) put_at(spot);
  });
  return {
    node: it.svg,
    draw: () => {
      dots.forEach((dot, k) => dot.classList.toggle("fl-strong", k === get("point") && !get("custom").length));
      redraw();
    },
  };
}

// --- the heat map ---------------------------------------------------------------------------

// Along the edges of the cells that are `inside` and whose neighbour is not.
function outline(inside, size, cell) {
  const has = (r, c) => r >= 0 && c >= 0 && r < size && c < size && inside(r, c);
  let d = "";
  for (let r = 0; r < size; r++)
    for (let c = 0; c < size; c++) {
      if (!has(r, c)) continue;
      const [x, y] = [c * cell, r * cell];
      if (!has(r - 1, c)) d += `M${x} ${y}h${cell}`;
      if (!has(r + 1, c)) d += `M${x} ${y + cell}h${cell}`;
      if (!has(r, c - 1)) d += `M${x} ${y}v${cell}`;
      if (!has(r, c + 1)) d += `M${x + cell} ${y}v${cell}`;
    }
  return d;
}

function heat(size, width, most, look) {
  const full = strongest(size);
  const [left, top] = [50, 44];
  const cell = Math.min(84, (width - left - 3) / size);
  const side = cell * size;
  const written = size <= WRITTEN;
  const label = "The Jacobian; the arrow keys go from entry to entry";
  const svg = make("svg:svg", {
    viewBox: `0 0 ${width} ${top + side + 3}`, class: "fl-heat", tabindex: 0, role: "application", "aria-label": label, "data-matrix": size,
  });
  const add = (parent, tag, attributes, ...children) => parent.appendChild(make(`svg:${tag}`, attributes, ...children));
  const titles = [0, 1].map(() => add(svg, "g", {}));
  const grid = add(svg, "g", { transform: `translate(${left} ${top})` });
  const each = Array.from({ length: size }, (_, k) => k);
  const middle = (k) => (k + 0.5) * cell;
  const font = `font-size:${clamp(cell * 0.5, [10, 17])}px`;
  const columns = each.map((c) => add(grid, "text", { class: "fl-math", x: middle(c), y: -8, "text-anchor": "middle", style: font }));
  const rows = each.map((r) => add(grid, "text", { class: "fl-math", x: -8, y: middle(r) + 5, "text-anchor": "end", style: font }));
  const cells = each.map((r) => each.map((c) => [
    add(grid, "rect", { x: c * cell, y: r * cell, width: cell, height: cell, stroke: "var(--fl-panel)", "stroke-width": size > 8 ? 1 : 2 }),
    add(grid, "text", { class: "fl-entry", x: middle(c), y: middle(r) + 4.5, "text-anchor": "middle" }),
  ]));
  add(grid, "path", line("var(--fl-faint)", 1, { d: `M0 0H${side}V${side}H0Z` }));
  add(grid, "path", line("var(--fl-ink)", written ? 1.6 : 1.2, {
    d: each.map((k) => `M${k * cell + 1.5} ${k * cell + 1.5}h${cell - 3}v${cell - 3}h${3 - cell}z`).join(""), opacity: 0.8,
  }));
  const contour = add(grid, "path", line("var(--fl-muted)", 1.6, { "stroke-dasharray": "5 4" }));
  const split = add(grid, "path", line("var(--fl-ink)", 2));
  const cursor = add(grid, "rect", { ...line("var(--fl-latent)", 3), width: cell, height: cell, rx: 2 });

  const spot = (event) => {
    const box = svg.getBoundingClientRect();
    const at = [event.clientY - box.top, event.clientX - box.left].map((v) => (v * width) / box.width);
    const found = [Math.floor((at[0] - top) / cell), Math.floor((at[1] - left) / cell)];
    return found.every((k) => k >= 0 && k < size) ? found : null;
  };
  svg.onpointermove = svg.onpointerdown = (event) => look(() => spot(event));
  svg.onpointerleave = (event) => event.pointerType === "mouse" && document.activeElement !== svg && look(() => null);
  svg.onkeydown = (event) => {
    const way = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    look((old) => (old ? old.map((k, i) => clamp(k + way[i], [0, size - 1])) : [0, 0]));
  };

  // Where the kept ones end and the moved ones begin, in words, above and at the side.
  function blocks(count) {
    const parts = count ? [["kept", 0, count], ["moved", count, size]] : [];
    const marks = (turn) => parts.flatMap(([words, from, to]) => {
      const [a, b] = [from * cell + 3, to * cell - 3];
      const at = turn ? { d: `M${left - 31} ${top + a}v${b - a}` } : { d: `M${left + a} ${top - 25}h${b - a}` };
      const text = turn
        ? { transform: `translate(${left - 36} ${top + (a + b) / 2}) rotate(-90)` }
        : { x: left + (a + b) / 2, y: top - 30 };
      return [
        make("svg:path", line("var(--fl-muted)", 1.5, at)),
        make("svg:text", { class: "fl-tick", "text-anchor": "middle", ...text }, words),
      ];
    });
    put(titles[0], {}, ...marks(false));
    put(titles[1], {}, ...marks(true));
    if (!parts.length) titles.forEach((title) => title.replaceChildren());
    put(split, { d: count ? `M0 ${count * cell}h${side}M${count * cell} 0v${side}` : "" });
  }

  function draw({ jacobian, rows: down, columns: across, support, kept, wrong, at }) {
    down.forEach((i, r) => across.forEach((j, c) => {
      const v = jacobian[i][j];
      const strength = clamp(Math.log(Math.abs(v) / SMALLEST) / Math.log(most() / SMALLEST), [0, 1]);
      const [rect, text] = cells[r][c];
      put(rect, { fill: v > 0 ? "var(--fl-third)" : "var(--fl-ink)", "fill-opacity": v === 0 ? 0 : 0.07 + (full - 0.07) * strength });
      const mark = written ? short(v) : v === 0 ? "·" : v < 0 ? "−" : "";
      if (text.textContent !== mark) text.textContent = mark;
      text.classList.toggle("fl-zero", v === 0);
      text.classList.toggle("fl-onto", !written && v < 0 && strength > 0.55);
    }));
    rows.forEach((node, r) => (node.textContent = `z${below(down[r] + 1)}`));
    columns.forEach((node, c) => (node.textContent = cell < 22 ? across[c] + 1 : `x${below(across[c] + 1)}`));
    const empty = (r, c) => support[down[r]][across[c]] === "0";
    put(contour, { d: outline(empty, size, cell), stroke: wrong ? "var(--fl-wrong)" : "var(--fl-muted)", "stroke-width": wrong ? 4 : 1.6 });
    blocks(kept);
    put(cursor, { x: (at?.[1] ?? 0) * cell, y: (at?.[0] ?? 0) * cell, visibility: at ? "visible" : "hidden" });
    for (const [nodes, k] of [[rows, 0], [columns, 1]]) nodes.forEach((node, i) => node.classList.toggle("fl-strong", at?.[k] === i));
  }
  return { node: svg, draw };
}

// What the colours mean, from the largest negative number by zero to the largest positive one.
function scale(most, size) {
  const ends = [0, 1].map(() => make("span", {}));
  const part = (...nodes) => make("span", { class: "fl-part" }, ...nodes);
  const style = `--fl-full:${100 * strongest(size)}%`;
  const edge = power(Math.log10(SMALLEST));
  return {
    node: make("div", { class: "fl-scale", "aria-hidden": "true" },
      part(make("i", { class: "fl-minus", style }), make("span", { class: "fl-ends" }, ends[0], make("span", {}, `−${edge}`))),
      part(make("i", { class: "fl-none" }), make("span", {}, "exactly 0")),
      part(make("i", { class: "fl-plus", style }), make("span", { class: "fl-ends" }, make("span", {}, edge), ends[1]))),
    draw: () => ends.forEach((end, k) => (end.textContent = (k ? "" : "−") + short(most()))),
  };
}

// --- the explorer ---------------------------------------------------------------------------

function render({ model, el }) {
  const get = (name) => model.get(name);
  const [table, infos, names] = [get("table"), get("steps"), get("names")];
  const live = get("_kernel") === true;
  const points = table.map((steps) => steps[0].input);
  const size = names.length;
  const start = Object.fromEntries(TRAITS.map((name) => [name, get(name)]));
  const write = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
  // What the kernel has said of the custom point; until it has, the numbers are those of before.
  let known = null;
  const answer = () => {
    const custom = get("custom");
    const { at, steps, error } = get("answer");
    const fresh = !custom.length || `${at}` === `${custom}`;
    if (fresh) known = custom.length && steps ? steps : null;
    return { steps: known ?? table[get("point")], waiting: !fresh, error: fresh && custom.length ? error : null };
  };
  const act = {
    x: () => (get("custom").length ? get("custom") : points[get("point")]),
    point: (point) => write({ point, custom: [] }),
    custom: (custom) => write({ custom }),
    where: () => (get("custom").length ? "a point of your own" : `point ${get("point") + 1} of ${points.length}`),
  };
  const biggest = (all) => Math.max(...all.flatMap((steps) => steps.flatMap((s) => s.jacobian.flat(2).map(Math.abs))));
  const most_given = biggest(table);
  const most = () => Math.max(1e-2, most_given, known ? biggest([known]) : 0);

  const goStep = (step) => write({ step: clamp(step, [0, infos.length - 1]) });
  const widest = Math.max(0.5, ...table.flatMap((steps) => steps.map((s) => Math.abs(s.claimed[0]))));
  const farthest = Math.max(widest, ...table.flatMap((steps) => steps.map((s) => Math.abs(s.claimed[1]))));
  const strip = infos.map(({ name }, k) => {
    const [fill, value] = [make("i", {}), make("span", {})];
    const node = button("", { "data-step": k }, () => write({ step: k }));
    node.append(make("span", { class: "fl-det" }, make("b", {}, `${k + 1}`), value), make("span", {}, name),
      make("span", { class: "fl-bar", "aria-hidden": "true", style: "--fl-zero:50%" }, fill));
    const draw = (det, on, within) => {
      put(node, { "aria-pressed": on });
      node.classList.toggle("fl-within", within);
      value.textContent = show(det);
      const share = (50 * Math.min(1, Math.abs(det) / widest)).toFixed(2);
      put(fill, { style: `left:${det < 0 ? 50 - share : 50}%;width:${share}%;background:var(--fl-latent)` });
    };
    return { node, draw };
  });
  const steps_row = make("div", { class: "fl-steps", role: "group", "aria-label": "Steps, with their log-determinants" }, ...strip.map((s) => s.node));
  steps_row.onkeydown = (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    goStep(get("step") + way);
    strip[get("step")].node.focus();
  };
  const modes = [[false, "this step alone"], [true, "all steps up to it"]].map(([composed, words]) => ({
    composed, node: button(words, { "data-composed": composed }, () => write({ composed })),
  }));
  const all = button("all", { "data-action": "all" }, () => write({ composed: true, step: infos.length - 1 }));
  const sort = button("sorted", { "data-action": "sort" }, () => write({ sort: !get("sort") }));

  const where = make("span", { class: "fl-where" });
  const turn = (way) => () => act.point((get("point") + way + points.length) % points.length);
  const whole = make("p", { class: "fl-fine" });
  const pick = axesPicker(names, get, write);
  const title = make("span", {});
  const said = make("output", { class: "fl-cell", "data-cell": "" });
  const ramp = scale(most, size);
  const count = make("output", { "data-readout": "zeros" });
  const worst = make("output", { "data-readout": "zero_block" });
  const promised = make("span", {}, ". Largest inside the dashes, where the structure says 0: ", worst);
  const sum = ledger([-1.3 * farthest, 1.3 * farthest], [
    { name: "diagonal", text: ["sum of log |diagonal|"], color: "var(--fl-third)", digits: 3 },
    { name: "slogdet", text: ["log |det J|, by elimination"], color: "var(--fl-third)", digits: 3 },
    { name: "claimed", text: ["log_det of the library"], color: "var(--fl-latent)", digits: 3 },
  ]);
  const say = make("p", { class: "fl-say" });
  const fills = table.some((steps) => steps.findIndex((s) => zeros(s.jacobian[1]) === 0) > 0);
  const goal = fills
    ? task("fill", "After how many steps does every output depend on every input? Show all steps up to the first at which no zero is left.")
    : task("grow", "Of the points, find the one at which all steps together make volume grow the most.");
  const [left, right] = [make("div", {}), make("div", {})];
  el.replaceChildren(
    steps_row,
    make("div", { class: "fl-row" }, ...(infos.length === 1 ? [] : [
      make("div", { class: "fl-views fl-two", role: "group", "aria-label": "What is shown" }, ...modes.map((m) => m.node)), all]), sort),
    make("div", { class: "fl-jacobian" }, right, left),
    sum.node, say, goal.node,
    make("div", { class: "fl-row" }, button("reset", { "data-action": "reset" }, () => {
      [cell, ranges] = [null, null];
      write(start);
    })));

  let cell = null; // the entry that is looked at, by its place in the matrix
  const look = (find) => {
    const next = find(cell);
    if (`${next}` !== `${cell}`) {
      cell = next;
      draw();
    }
  };

  // Ranges of all coordinates; they grow where a custom point needs it, and stay until reset.
  let ranges = null;
  function reach() {
    ranges ??= names.map((_, i) => {
      const values = points.map((x) => x[i]);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const room = 0.25 * (high - low) || 1;
      return [low - room, high + room];
    });
    if (get("custom").length)
      ranges = ranges.map(([low, high], i) => {
        const [v, edge] = [get("custom")[i], 0.05 * (high - low)];
        return v < low || v > high ? [Math.min(low, v - edge), Math.max(high, v + edge)] : [low, high];
      });
    return get("axes").map((i) => ranges[i]);
  }

  // The charts are built for a width in pixels, so that text and handles have their size on a phone.
  let [charts, built] = [{}, ""];
  const room = () => (el.clientWidth > 120 ? el.clientWidth - 24 : 640); // a kernel's page may render before it shows
  function build() {
    const [width, seen] = [room(), reach()];
    const key = JSON.stringify([width, seen, get("axes")]);
    if (key === built) return;
    built = key;
    const wide = width >= 540;
    const part = wide ? width * 0.4 : width;
    charts = {
      heat: heat(size, wide ? width * 0.6 - 20 : width, most, look),
      space: space(seen, part, wide ? 0.86 * part : 0.62 * part, { points, names, get, act, live }),
    };
    right.replaceChildren(
      make("p", { class: "fl-panel-title" }, swatch("var(--fl-third)"), title),
      charts.heat.node, said, ramp.node,
      make("p", { class: "fl-fine" }, "exactly zero: ", count, promised));
    left.replaceChildren(
      panelTitle("var(--fl-data)", "data x"),
      charts.space.node, ...pick.nodes,
      make("div", { class: "fl-row" },
        button("‹", { "data-action": "previous", "aria-label": "Previous point" }, turn(-1)), where,
        button("›", { "data-action": "next", "aria-label": "Next point" }, turn(1))),
      whole);
  }

  function draw() {
    const [step, composed, sorted] = [get("step"), get("composed"), get("sort")];
    const { steps, waiting, error } = answer();
    build();
    const info = infos[step];
    const structure = info.structure[+composed];
    const natural = names.map((_, i) => i);
    const [rows, columns] = sorted ? [structure.rows, structure.columns] : [natural, natural];
    const unsorted = [structure.rows, structure.columns].every((o) => o.every((i, k) => i === k));
    const shown = { jacobian: steps[step].jacobian[+composed], claimed: steps[step].claimed[+composed] };
    const m = measure(shown, structure, rows, columns);
    const contiguous = info.kept.length && (!composed || step === 0) && rows.slice(0, info.kept.length).every((i) => info.kept.includes(i));

    strip.forEach((s, k) => s.draw(steps[k].claimed[0], k === step, composed ? k <= step : k === step));
    modes.forEach((mode) => put(mode.node, { "aria-pressed": mode.composed === composed }));
    put(all, { "aria-pressed": composed && step === infos.length - 1 });
    put(sort, { "aria-pressed": sorted });
    title.textContent = composed && step ? `Jacobian of steps 1 to ${step + 1} together` : `Jacobian of step ${step + 1}, ${info.name}`;
    charts.heat.draw({ ...shown, ...structure, rows, columns, kept: contiguous ? info.kept.length : 0, wrong: m.zero_block > 0, at: cell });
    charts.space.draw();
    ramp.draw();
    pick.draw();
    where.textContent = act.where();
    const into = !composed && step ? `, which enters step ${step + 1} as ${vector(steps[step].input)}` : "";
    whole.textContent = error ? `The flow has no Jacobian there: ${error}` : waiting ? "waiting for the kernel" : `x = ${vector(act.x())}${into}`;

    const [i, j] = cell ? [rows[cell[0]], columns[cell[1]]] : [];
    const of = composed || !step ? names[j] : "";
    said.textContent = cell
      ? `∂z${below(i + 1)}/∂x${below(j + 1)} = ${`${Number(shown.jacobian[i][j].toPrecision(7))}`.replace("-", "−")}` +
        (of && of !== `x${below(j + 1)}` ? ` (x${below(j + 1)}: ${of})` : "")
      : "Point at an entry to read it.";
    put(count, { "data-value": m.zeros }, `${m.zeros} of ${size * size}`);
    put(worst, { "data-value": m.zero_block ?? 0 }, short(m.zero_block ?? 0));
    promised.hidden = m.zero_block === null;
    sum.draw(m);
    const terms = steps.slice(0, step + 1).map((s) => show(s.claimed[0])).join(" + ").replaceAll("+ −", "− ");
    say.textContent = describe(info, { composed, sort: sorted, step, terms }, m, unsorted);
    goal.draw(...(fills ? judgeFill(steps, { step, composed }) : judgeGrow(steps, table, { step, composed })));
    for (const name of TRAITS) el.dataset[name] = [get(name)].flat().join(",");
  }

  const resized = new ResizeObserver(() => {
    if (el.clientWidth && !built.startsWith(`[${room()},`)) draw();
  });
  const end = frame(el, model, [...TRAITS, "answer"], draw);
  resized.observe(el);
  return () => {
    resized.disconnect();
    end();
  };
}

// Which two coordinates the points are drawn by; of two there is nothing to choose.
function axesPicker(names, get, write) {
  if (names.length < 3) return { nodes: [], draw: () => {} };
  const picks = ["across", "up"].map((way, k) => {
    const node = make("select", { "aria-label": `Coordinate that goes ${way}`, "data-axis": k, "data-lm-suppress-shortcuts": "true" },
      ...names.map((name, i) => make("option", { value: i }, name)));
    node.onchange = () => {
      const [here, other] = [Number(node.value), get("axes")[1 - k]];
      const next = here === other ? [...get("axes")].reverse() : k ? [other, here] : [here, other];
      write({ axes: next });
    };
    return { node, way };
  });
  return {
    nodes: [make("div", { class: "fl-row fl-fine" }, ...picks.map(({ node, way }) => make("label", {}, `${way} `, node)))],
    draw: () => picks.forEach(({ node }, k) => (node.value = get("axes")[k])),
  };
}

export default { render };
