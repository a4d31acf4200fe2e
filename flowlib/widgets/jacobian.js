// JacobianExplorer: a flow's Jacobian at a point, of each step and of all steps up to it.

const TRAITS = ["point", "step", "composed", "sort", "axes", "custom"];
const SMALLEST = 1e-4; // where the colours start
const WRITTEN = 6; // up to so many coordinates the numbers stand in their cells
const strongest = (size) => (size <= WRITTEN ? 0.5 : 0.9); // a colour's opacity, so that they are legible

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
  if (size < 0.005 || size >= 1000) return (v < 0 ? "−" : "") + powerOfTen(Math.round(Math.log10(size)));
  return show(v, size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

const list = (letter, indices) => indices.map((i) => letter + subscript(i + 1)).join(", ");
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
    return `The coordinates are in their own order, and ${sums}. Sort them, and ` +
      `${lone ? "every entry comes to lie on the diagonal" : "one side of the diagonal becomes empty"}.`;
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
  const last = i < 0 ? "" : ` One step before, z${subscript(i + 1)} did not yet depend on x${subscript(before[i].indexOf(0) + 1)}.`;
  return [true, `Done: it takes ${first + 1} steps.${last}`];
}

function judgeGrow(steps, table, { step, composed }) {
  const whole = (all) => logAbsDet(all.at(-1).jacobian[1]);
  const [all, here] = [table.map(whole), whole(steps)];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  if (!(step === steps.length - 1 && (composed || step === 0))) return [false, "Show all steps together first."];
  if (high - low < 1e-6) return [true, "Here it is the same everywhere: the map is affine."];
  if (here > high - 1e-9) return [true, `Done: volume grows by a factor of ${show(Math.exp(here))}.`];
  const way = here < 0 ? "shrinks" : "grows";
  return [false, `Here volume ${way} by a factor of ${show(Math.exp(here))}; somewhere it is ${show(Math.exp(high))}.`];
}

// --- the points -----------------------------------------------------------------------------

// Data space by two of its coordinates. A point is taken from where it is: with a kernel to
// anywhere, without one to the nearest of the points given.
function space(axes, ranges, width, height, page, flow) {
  const { points, names, live } = flow;
  const it = axesPanel({ x: ranges[0], y: ranges[1], width, height, label: `The points by ${names[axes[0]]} and ${names[axes[1]]}` });
  const place = (x) => axes.map((i) => x[i]);
  const here = () => place(flow.x());
  it.add("path", line("var(--fl-faint)", 1, { d: `M0.5 0.5H${width - 0.5}V${height - 0.5}H0.5Z` }));
  scales(it, height);
  const dots = points.map((x, k) => {
    const [cx, cy] = it.at(place(x));
    it.add("circle", { cx, cy, r: 6, fill: "var(--fl-data)", "fill-opacity": 0.45, "data-point": k });
    // Its number stands beside it, where no other point is.
    const beside = [[13, -3], [13, 13], [-13, -3], [-13, 13]].map(([dx, dy]) => [cx + dx, cy + dy]);
    const isFree = ([u, v]) => points.every((y) => {
      const [px, py] = it.at(place(y));
      return Math.hypot(px - u, py - (v - 4.5)) > 11;
    });
    return it.text(beside.find(isFree) ?? beside[0], `${k + 1}`, { class: "fl-small fl-cased", "text-anchor": "middle" });
  });
  const nearest = (spot) => {
    const [px, py] = it.at(spot);
    const far = points.map((x) => Math.hypot(it.at(place(x))[0] - px, it.at(place(x))[1] - py));
    const k = far.indexOf(Math.min(...far));
    return [k, far[k]];
  };
  const putAt = (spot) => page.set({ custom: flow.x().map((v, i) => (axes.includes(i) ? spot[axes.indexOf(i)] : v)) });
  const byPercent = (way, count) => putAt(here().map((v, i) => v + (way[i] * count * (ranges[i][1] - ranges[i][0])) / 100));
  const toNext = ([right, up]) => {
    const next = ahead(points.map((x) => it.at(place(x))), it.at(here()), [right, -up]);
    if (next >= 0) flow.choose(next);
  };
  const hand = handle(it, {
    name: "point", label: "The point", color: "var(--fl-data)",
    get: here,
    move: (spot) => (live ? putAt(spot) : flow.choose(nearest(spot)[0])),
    keys: live ? byPercent : toNext,
    value: (at) => `${flow.where()}, ${axes.map((i, k) => `${names[i]} ${show(at[k])}`).join(", ")}`,
  });
  let from = [0, 0];
  it.svg.addEventListener("pointerdown", (event) => (from = [event.clientX, event.clientY]));
  it.svg.addEventListener("click", (event) => {
    if (Math.hypot(event.clientX - from[0], event.clientY - from[1]) > 5) return; // that was a drag
    const spot = it.locate(event);
    const [k, far] = nearest(spot);
    if (!live || far < 16) flow.choose(k);
    else if (!event.target.closest(".fl-grab")) putAt(spot);
  });
  const draw = () => {
    dots.forEach((dot, k) => dot.classList.toggle("fl-strong", k === page.get("point") && !page.get("custom").length));
    hand.draw();
  };
  return { node: it.svg, draw };
}

// Round numbers along the lower and the left edge of a panel.
function scales(it, height) {
  for (const [v, words] of ticks(it.x)) {
    const [x] = it.at([v, 0]);
    if (x < 32) continue; // the corner is the other scale's
    it.add("path", line("var(--fl-muted)", 1, { d: `M${x} ${height}v-5` }));
    it.text([x, height - 9], words, { class: "fl-small fl-cased", "text-anchor": "middle" });
  }
  for (const [v, words] of ticks(it.y)) {
    const [, y] = it.at([0, v]);
    it.add("path", line("var(--fl-muted)", 1, { d: `M0 ${y}h5` }));
    it.text([9, y + 4.5], words, { class: "fl-small fl-cased" });
  }
}

// --- the heat map ---------------------------------------------------------------------------

// The matrix, built for a width in pixels. `look` gets what finds the entry that is looked at, from
// the one before; `most` says what has the full colour.
function heat(size, width, most, look) {
  const [left, top] = [50, 44];
  const cell = Math.min(84, (width - left - 3) / size);
  const svg = make("svg:svg", {
    viewBox: `0 0 ${width} ${top + size * cell + 3}`, class: "fl-heat", style: `width:${width}px`, tabindex: 0, role: "application",
    "aria-label": "The Jacobian; the arrow keys go from entry to entry", "data-matrix": size,
  });
  const titles = [0, 1].map(() => svg.appendChild(make("svg:g")));
  const on = heatGrid(svg.appendChild(make("svg:g", { transform: `translate(${left} ${top})` })), size, cell);
  const spot = (event) => {
    const [x, y] = pointerAt(svg, event);
    const found = [Math.floor((y - top) / cell), Math.floor((x - left) / cell)];
    return found.every((k) => k >= 0 && k < size) ? found : null;
  };
  svg.onpointermove = svg.onpointerdown = (event) => look(() => spot(event));
  svg.onpointerleave = (event) => event.pointerType === "mouse" && document.activeElement !== svg && look(() => null);
  takeKeys(svg, arrowKeys(([right, down]) => {
    look((old) => (old ? [old[0] + down, old[1] + right].map((k) => clamp(k, [0, size - 1])) : [0, 0]));
  }));

  function draw({ jacobian, rows, columns, support, kept, wrong, at }) {
    rows.forEach((i, r) => columns.forEach((j, c) => drawEntry(on.cells[r][c], jacobian[i][j], most(), size)));
    on.rows.forEach((node, r) => node.replaceChildren(...indexed("z", rows[r] + 1)));
    on.columns.forEach((node, c) => node.replaceChildren(...(cell < 22 ? [`${columns[c] + 1}`] : indexed("x", columns[c] + 1))));
    const { inner, outer } = cellEdges([size, size], cell, (r, c) => support[rows[r]][columns[c]] === "0");
    put(on.contour, { d: inner + outer, stroke: wrong ? "var(--fl-wrong)" : "var(--fl-muted)", "stroke-width": wrong ? 4 : 1.6 });
    titles.forEach((title, turn) => title.replaceChildren(...blockTitles(kept, size, cell, [left, top], turn)));
    put(on.split, { d: kept ? `M0 ${kept * cell}h${size * cell}M${kept * cell} 0v${size * cell}` : "" });
    put(on.cursor, { x: (at?.[1] ?? 0) * cell, y: (at?.[0] ?? 0) * cell, visibility: at ? "visible" : "hidden" });
    [on.rows, on.columns].forEach((nodes, k) => nodes.forEach((node, i) => node.classList.toggle("fl-strong", at?.[k] === i)));
  }
  return { node: svg, draw };
}

// The cells of the matrix, its heads, and the lines above them.
function heatGrid(group, size, cell) {
  const add = (tag, attributes) => group.appendChild(make(`svg:${tag}`, attributes));
  const [each, side, written] = [range(size), size * cell, size <= WRITTEN];
  const middle = (k) => (k + 0.5) * cell;
  const head = (x, y, anchor) =>
    add("text", { x, y, "text-anchor": anchor, style: `font-size:${clamp(cell * 0.5, [10, 17])}px` });
  const columns = each.map((c) => head(middle(c), -8, "middle"));
  const rows = each.map((r) => head(-8, middle(r) + 5, "end"));
  const cells = each.map((r) => each.map((c) => [
    add("rect", { x: c * cell, y: r * cell, width: cell, height: cell, stroke: "var(--fl-panel)", "stroke-width": size > 8 ? 1 : 2 }),
    add("text", { class: "fl-entry", x: middle(c), y: middle(r) + 4.5, "text-anchor": "middle" }),
  ]));
  add("path", line("var(--fl-faint)", 1, { d: `M0 0H${side}V${side}H0Z` }));
  add("path", line("var(--fl-ink)", written ? 1.6 : 1.2, {
    d: each.map((k) => `M${k * cell + 1.5} ${k * cell + 1.5}h${cell - 3}v${cell - 3}h${3 - cell}z`).join(""), opacity: 0.8,
  }));
  const contour = add("path", line("var(--fl-muted)", 1.6, { "stroke-dasharray": "5 4" }));
  const split = add("path", line("var(--fl-ink)", 2));
  const cursor = add("rect", { ...line("var(--fl-latent)", 3), width: cell, height: cell, rx: 2 });
  return { columns, rows, cells, contour, split, cursor };
}

// An entry: its colour, and its number where there is room, or its sign.
function drawEntry([rect, text], v, most, size) {
  const written = size <= WRITTEN;
  const strength = clamp(Math.log(Math.abs(v) / SMALLEST) / Math.log(most / SMALLEST), [0, 1]);
  const opacity = v === 0 ? 0 : 0.07 + (strongest(size) - 0.07) * strength;
  put(rect, filled(v > 0 ? "var(--fl-third)" : "var(--fl-ink)", opacity));
  setText(text, written ? short(v) : v === 0 ? "·" : v < 0 ? "−" : "");
  text.classList.toggle("fl-zero", v === 0);
  text.classList.toggle("fl-onto", !written && v < 0 && strength > 0.55);
}

// Where the kept ones end and the moved ones begin, in words: above, and with a `turn` at the side.
function blockTitles(count, size, cell, [left, top], turn) {
  const parts = count ? [["kept", 0, count], ["moved", count, size]] : [];
  return parts.flatMap(([words, from, to]) => {
    const [a, b] = [from * cell + 3, to * cell - 3];
    const at = turn ? { d: `M${left - 31} ${top + a}v${b - a}` } : { d: `M${left + a} ${top - 25}h${b - a}` };
    const text = turn
      ? { transform: `translate(${left - 36} ${top + (a + b) / 2}) rotate(-90)` }
      : { x: left + (a + b) / 2, y: top - 30 };
    return [
      make("svg:path", line("var(--fl-muted)", 1.5, at)),
      make("svg:text", { class: "fl-small", "text-anchor": "middle", ...text }, words),
    ];
  });
}

// What the colours mean, from the largest negative number by zero to the largest positive one.
function scale(most, size) {
  const ends = [0, 1].map(() => make("span", {}));
  const part = (...nodes) => make("span", { class: "fl-part" }, ...nodes);
  const style = `--fl-full:${100 * strongest(size)}%`;
  const edge = powerOfTen(Math.log10(SMALLEST));
  return {
    node: make("div", { class: "fl-scale", "aria-hidden": "true" },
      part(make("i", { class: "fl-minus", style }), make("span", { class: "fl-ends" }, ends[0], make("span", {}, `−${edge}`))),
      part(make("i"), make("span", {}, "exactly 0")),
      part(make("i", { class: "fl-plus", style }), make("span", { class: "fl-ends" }, make("span", {}, edge), ends[1]))),
    draw: () => ends.forEach((end, k) => (end.textContent = (k ? "" : "−") + short(most()))),
  };
}

// --- the explorer ---------------------------------------------------------------------------

// What is known of the flow: its steps at the points given, and what the kernel says of a custom one.
function flowOf(page) {
  const { get } = page;
  const [table, infos, names] = [get("table"), get("steps"), get("names")];
  const points = table.map((steps) => steps[0].input);
  const biggest = (all) => Math.max(...all.flatMap((steps) => steps.flatMap((s) => s.jacobian.flat(2).map(Math.abs))));
  const most_given = biggest(table);
  // Until the kernel has answered, the numbers are those of before.
  let known = null;
  const answer = () => {
    const custom = get("custom");
    const { at, steps, error } = get("answer");
    const fresh = !custom.length || `${at}` === `${custom}`;
    if (fresh) known = custom.length && steps ? steps : null;
    return { steps: known ?? table[get("point")], waiting: !fresh, error: fresh && custom.length ? error : null };
  };
  const choose = (point) => page.set({ point, custom: [] });
  const claimed = (composed) => Math.max(...table.flatMap((steps) => steps.map((s) => Math.abs(s.claimed[composed]))));
  const widest = Math.max(0.5, claimed(0)); // the scale of one step, and of all steps together
  return {
    table, infos, names, points, answer, choose, widest, farthest: Math.max(widest, claimed(1)), live: get("_kernel") === true,
    x: () => (get("custom").length ? get("custom") : points[get("point")]),
    where: () => (get("custom").length ? "a point of your own" : `point ${get("point") + 1} of ${points.length}`),
    turn: (way) => () => choose((get("point") + way + points.length) % points.length),
    most: () => Math.max(1e-2, most_given, known ? biggest([known]) : 0),
  };
}

// Ranges of all coordinates; they grow where a custom point needs it, and stay until `reset`.
function reaches(page, { names, points }) {
  let ranges = null;
  const given = () => names.map((_, i) => {
    const values = points.map((x) => x[i]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = 0.25 * (high - low) || 1;
    return [low - room, high + room];
  });
  const now = () => {
    ranges ??= given();
    const custom = page.get("custom");
    if (custom.length)
      ranges = ranges.map(([low, high], i) => {
        const [v, edge] = [custom[i], 0.05 * (high - low)];
        return v < low || v > high ? [Math.min(low, v - edge), Math.max(high, v + edge)] : [low, high];
      });
    return page.get("axes").map((i) => ranges[i]);
  };
  return { now, reset: () => (ranges = null) };
}

// A button for each step, with a bar for its log-determinant.
function stepStrip(page, { infos, widest }) {
  const last = infos.length - 1;
  const strip = infos.map(({ name }, k) => {
    const [fill, value] = [make("i", {}), make("span", {})];
    const node = button("", { "data-step": k }, () => page.set({ step: k }));
    node.append(make("span", { class: "fl-det" }, make("b", {}, `${k + 1}`), value), make("span", {}, name),
      make("span", { class: "fl-bar", "aria-hidden": "true", style: "--fl-zero:50%" }, fill));
    return { node, fill, value };
  });
  const group = { class: "fl-steps", role: "group", "aria-label": "Steps, with their log-determinants" };
  const node = make("div", group, ...strip.map((one) => one.node));
  const go = (way) => () => {
    page.set({ step: clamp(page.get("step") + way, [0, last]) });
    strip[page.get("step")].node.focus();
  };
  takeKeys(node, { ArrowLeft: go(-1), ArrowRight: go(1) });
  const draw = (steps, step, composed) => strip.forEach((one, k) => {
    const det = steps[k].claimed[0];
    put(one.node, { "aria-pressed": k === step });
    one.node.classList.toggle("fl-within", composed ? k <= step : k === step);
    one.value.textContent = show(det);
    const share = (50 * Math.min(1, Math.abs(det) / widest)).toFixed(2);
    put(one.fill, { style: `left:${det < 0 ? 50 - share : 50}%;width:${share}%;background:var(--fl-latent)` });
  });
  return { node, draw };
}

// What is shown: one step or all up to it, and in which order of the coordinates.
function modes(page, last) {
  const { get, set } = page;
  const two = choice(
    [[false, "this step alone"], [true, "all steps up to it"]].map(([on, words]) => [words, on, { "data-composed": on }]),
    () => get("composed"), (composed) => set({ composed }));
  const all = button("all", { "data-action": "all" }, () => set({ composed: true, step: last }));
  const sort = button("sorted", { "data-action": "sort" }, () => set({ sort: !get("sort") }));
  const views = make("div", { class: "fl-views fl-two", role: "group", "aria-label": "What is shown" }, ...two.nodes);
  const draw = () => {
    two.draw();
    put(all, { "aria-pressed": get("composed") && get("step") === last });
    put(sort, { "aria-pressed": get("sort") });
  };
  return { node: row(...(last ? [views, all] : []), sort), draw };
}

// The matrix with its title, its scale, and what is read from it. `cell` is the place looked at.
function matrixPart(page, { names, most }) {
  const size = names.length;
  let [cell, map] = [null, null];
  const look = (find) => {
    const next = find(cell);
    if (`${next}` === `${cell}`) return;
    cell = next;
    page.redraw();
  };
  const [title, node, key, ramp] = [make("span", {}), make("div", {}), make("div", {}), scale(most, size)];
  const said = make("output", { class: "fl-cell", "data-cell": "" });
  const count = make("output", { "data-readout": "zeros" });
  const worst = make("output", { "data-readout": "zero_block" });
  const promised = make("span", {}, ". Largest inside the dashes, where the structure says 0: ", worst);
  const build = whenNew((width) => {
    map = heat(size, width, most, look);
    put(node, {}, panelTitle("var(--fl-third)", title), map.node, said);
    const longest = `exactly zero: ${size * size} of ${size * size}. Largest inside the dashes, where the structure says 0: 0.0000`;
    put(key, {}, ramp.node, roomy(fine("exactly zero: ", count, promised), longest));
  });
  const entry = ({ jacobian, rows, columns, ofData }) => {
    const [i, j] = [rows[cell[0]], columns[cell[1]]];
    return `$∂z_{${i + 1}}/∂x_{${j + 1}}$ = ${`${Number(jacobian[i][j].toPrecision(7))}`.replace("-", "−")}` +
      (ofData && names[j] !== `x${subscript(j + 1)}` ? ` ($x_{${j + 1}}$: ${names[j]})` : "");
  };
  function draw(now, m) {
    const { step, info, composed } = now;
    title.textContent = composed && step ? `Jacobian of steps 1 to ${step + 1} together` : `Jacobian of step ${step + 1}, ${info.name}`;
    map.draw({ ...now, wrong: m.zero_block > 0, at: cell });
    ramp.draw();
    setSpelled(said, cell ? entry(now) : "Point at an entry to read it.");
    put(count, { "data-value": m.zeros }, `${m.zeros} of ${size * size}`);
    put(worst, { "data-value": m.zero_block ?? 0 }, short(m.zero_block ?? 0));
    promised.hidden = m.zero_block === null;
  }
  return { nodes: [node, next(key)], build, draw, reset: () => (cell = null) };
}

// The points, by two of their coordinates, and the ways from one to the next.
function pointsPart(page, flow) {
  const [node, where, whole, reach] = [make("div", {}), make("span", { class: "fl-where" }), fine(), reaches(page, flow)];
  const pick = axesPicker(flow.names, page);
  const some = vector(flow.names.map(() => -0.25));
  const longest = `x = ${some}${flow.infos.length > 1 ? `, which enters step 2 as ${some}` : ""}`;
  let map = null;
  const build = whenNew(([width, height, axes, ranges]) => {
    map = space(axes, ranges, width, height, page, flow);
    put(node, {}, panelTitle("var(--fl-data)", "data ", math("x")), map.node, ...pick.nodes,
      row(
        button("‹", { "data-action": "previous", "aria-label": "Previous point" }, flow.turn(-1)), where,
        button("›", { "data-action": "next", "aria-label": "Next point" }, flow.turn(1))),
      roomy(whole, longest));
  });
  function draw({ step, composed, steps, waiting, error }) {
    map.draw();
    pick.draw();
    where.textContent = flow.where();
    const into = !composed && step ? `, which enters step ${step + 1} as ${vector(steps[step].input)}` : "";
    whole.textContent =
      error ? `The flow has no Jacobian there: ${error}`
      : waiting ? "waiting for the kernel"
      : `x = ${vector(flow.x())}${into}`;
  }
  return { node, draw, reset: reach.reset, build: (width, height) => build([width, height, page.get("axes"), reach.now()]) };
}

// The state as it is shown: the step's Jacobian, and the order of its rows and columns.
function present(page, { infos, names, answer }) {
  const { step, composed, sort } = page.state();
  const { steps, waiting, error } = answer();
  const info = infos[step];
  const structure = info.structure[+composed];
  const [natural, count] = [range(names.length), info.kept.length];
  const [rows, columns] = sort ? [structure.rows, structure.columns] : [natural, natural];
  const alone = !composed || step === 0;
  const contiguous = count && alone && rows.slice(0, count).every((i) => info.kept.includes(i));
  return {
    step, composed, sort, steps, waiting, error, info, structure, rows, columns,
    jacobian: steps[step].jacobian[+composed], claimed: steps[step].claimed[+composed], support: structure.support,
    kept: contiguous ? count : 0, ofData: composed || !step, // the columns are coordinates of the data
    natural: [structure.rows, structure.columns].every((o) => o.every((i, k) => i === k)),
  };
}

// Is the flow one that fills its Jacobian step by step? Then that is the task, else volume is.
function turnOf(page, { table }) {
  const full = table.map((steps) => steps.findIndex((s) => zeros(s.jacobian[1]) === 0));
  const fills = full.some((step) => step > 0 && step !== page.start.step); // and not at the press of one button
  const it = fills
    ? task(page, "fill", "After how many steps does every output depend on every input? " +
      "Show all steps up to the first at which no zero is left.",
      "Nothing is zero here, but nothing was one step before, either.")
    : task(page, "grow", "Of the points, find the one at which all steps together make volume grow the most.");
  return { node: it.node, draw: (now) => it.draw(...(fills ? judgeFill(now.steps, now) : judgeGrow(now.steps, table, now))) };
}

function render({ model, el }) {
  const page = openPage(el, model, TRAITS);
  const flow = flowOf(page);
  const [strip, mode, turn, say] = [stepStrip(page, flow), modes(page, flow.infos.length - 1), turnOf(page, flow), saying()];
  const [matrix, points] = [matrixPart(page, flow), pointsPart(page, flow)];
  const sum = ledger([-1.3 * flow.farthest, 1.3 * flow.farthest], [
    { name: "diagonal", text: ["sum of ", math("log"), " |diagonal|"], color: "var(--fl-third)", digits: 3 },
    { name: "slogdet", text: [math("log |det J|"), ", eliminated"], color: "var(--fl-third)", digits: 3 },
    { name: "claimed", text: ["the library’s log_det"], color: "var(--fl-latent)", digits: 3 },
  ]);
  const ends = tools(page, TRAITS, () => {
    matrix.reset();
    points.reset();
  });
  const terms = flow.infos.map(() => "0.00").join(" + ");
  const longest = `Steps 1 to ${flow.infos.length} together: no entry is zero, and no order makes it triangular. The diagonal's sum is not ` +
    `log |det J| any more. Nobody needs it: determinants multiply, so the steps' log-determinants add up: ${terms} = 0.00.`;
  el.replaceChildren(frame(
    [next(strip.node), next(mode.node), ...matrix.nodes, next(roomy(say, longest))],
    [points.node, sum.node, turn.node, ends.node]));

  return page.run((width) => {
    const now = present(page, flow);
    const m = measure(now, now.structure, now.rows, now.columns);
    // Both are built for a width in pixels, so that text and handles have their size on a phone.
    const beside = width >= BESIDE;
    matrix.build(beside ? 316 : width);
    points.build(beside ? RAIL - 20 : width, beside ? 150 : 0.62 * width);
    strip.draw(now.steps, now.step, now.composed);
    mode.draw();
    matrix.draw(now, m);
    points.draw(now);
    sum.draw(m);
    const terms = now.steps.slice(0, now.step + 1).map((s) => show(s.claimed[0])).join(" + ").replaceAll("+ −", "− ");
    setSpelled(say, describe(now.info, { ...now, terms }, m, now.natural));
    turn.draw(now);
    ends.draw();
    mirror(el, page.state());
  }, ["answer"]);
}

// Which two coordinates the points are drawn by; of two there is nothing to choose.
function axesPicker(names, { get, set }) {
  if (names.length < 3) return { nodes: [], draw: () => {} };
  const picks = [["→", "across"], ["↑", "up"]].map(([way, words], k) => {
    const attributes = { "aria-label": `Coordinate that goes ${words}`, "data-axis": k, "data-lm-suppress-shortcuts": "true" };
    const node = make("select", attributes, ...names.map((name, i) => make("option", { value: i }, name)));
    node.onchange = () => {
      const [here, other] = [Number(node.value), get("axes")[1 - k]];
      const next = here === other ? [...get("axes")].reverse() : k ? [other, here] : [here, other];
      set({ axes: next });
    };
    return { node, way };
  });
  return {
    nodes: [make("div", { class: "fl-row fl-fine" }, ...picks.map(({ node, way }) => make("label", {}, `${way} `, node)))],
    draw: () => picks.forEach(({ node }, k) => (node.value = get("axes")[k])),
  };
}

export default { render };
