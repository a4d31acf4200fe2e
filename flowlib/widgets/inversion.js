// InversionExplorer: MAF and IAF as a clock, one network in two directions.

const WORK = ["values", "ranks", "layers", "way", "judge"];
const TRAITS = [...WORK, "tick", "guess", "chosen"];
const BEAT = 800; // milliseconds of a tick
const FLOWS = ["maf", "iaf"];
const WAYS = { sequential: "rank by rank", incremental: "each unit once", jacobi: "all at once" };

// The longest of what is told of a coordinate.
const LONGEST = "MAF: x5 asks for z5, which is given, and waits for x1, x2, x3 and x4, which its network needs. " +
  "IAF: x5 asks for z5 and for z1, z2, z3 and z4. All of them are known, and so one pass is enough.";

const isSlow = (flow, judge) => (flow === "maf") !== judge;
const paired = (dim) => (dim * (dim - 1)) / 2;
// The task: ranks shared as equally as they can be by so many ticks leave so many pairs linked.
const goalOf = (dim) => Math.ceil(dim / 2);
const enoughOf = (dim) => {
  const sizes = range(goalOf(dim)).map((k) => Math.ceil((dim - k) / goalOf(dim)));
  return (dim * dim - sumOf(sizes.map((n) => n * n))) / 2;
};

// Ranks from 1 without gaps.
function compact(ranks) {
  const taken = [...new Set(ranks)].sort((a, b) => a - b);
  return ranks.map((rank) => taken.indexOf(rank) + 1);
}

// --- the networks: flowlib's MADE with one hidden layer, and its Affine --------------------------

function networkOf(weights, ranks) {
  const { w1, b1, w2, b2, direct, low, width } = weights;
  const dim = ranks.length;
  const most = Math.max(...ranks);
  const degrees = cyclicDegrees(b1.length, most - 1, Math.min(most - 1, 1));
  const inside = degrees.map((m) => range(dim).filter((j) => m >= ranks[j]));
  const last = ranks.map((rank) => range(degrees.length).filter((k) => rank > degrees[k]));
  const before = ranks.map((rank) => range(dim).filter((j) => rank > ranks[j]));
  const across = direct.length ? before : ranks.map(() => []); // the direct links, if there are any
  const dot = (row, values, of) => sumOf(of.map((j) => row[j] * values[j]));
  // Log-scale and shift of each coordinate, from the values of those before it.
  const params = (values) => {
    const h = b1.map((b, k) => clamp(b + dot(w1[k], values, inside[k]), [-1, 1]));
    const out = (i, row) => b2[row] + dot(w2[row], h, last[i]) + dot(direct[row], values, across[i]);
    return ranks.map((_, i) => [low[i] + width[i] / (1 + Math.exp(-out(i, i))), out(i, dim + i)]);
  };
  const there = (u) => params(u).map(([s, t], i) => u[i] * Math.exp(s) + t);
  const back = (v, u) => params(u).map(([s, t], i) => (v[i] - t) * Math.exp(-s));
  // What the coordinates of one rank cost: their own links, and those of the units that end with it.
  const cost = (rank) =>
    sumOf(degrees.map((m, k) => (m === rank - 1 || (rank === 1 && m < 1) ? inside[k].length : 0))) +
    sumOf(ranks.map((other, i) => (other === rank ? 2 * (last[i].length + across[i].length) : 0)));
  const pass = sumOf(range(most, 1).map(cost));
  return { dim, ranks, degrees, most, inside, last, before, across, there, back, cost, pass };
}

// What a layer has after 0, 1, ... passes: the values, which of them are final, which are known to be.
function trace(net, slow, way, v) {
  const none = v.map(() => false);
  const all = v.map(() => true);
  if (!slow) return [{ u: null, final: none, known: none, cost: 0 }, { u: net.there(v), final: all, known: all, cost: net.pass }];
  let u = v.map(() => 0);
  const steps = [];
  for (let rank = 1; rank <= net.most; rank++) {
    const found = net.back(v, u);
    u = u.map((old, i) => (net.ranks[i] === rank ? found[i] : old));
    steps.push({ u, known: net.ranks.map((other) => other <= rank) });
  }
  const end = u;
  if (way !== "jacobi") {
    let cost = 0;
    return [{ u: null, final: none, known: none, cost: 0 }, ...steps.map(({ u: now, known }, k) => {
      cost += way === "sequential" ? net.pass : net.cost(k + 1);
      return { u: now, known, final: known, cost };
    })];
  }
  const made = [{ u: null, final: none, known: none, cost: 0 }];
  let now = v;
  for (let k = 1; k <= net.most; k++) {
    const before = now;
    now = net.back(v, before);
    const stop = now.every((value, i) => value === before[i]);
    const done = stop || k === net.most;
    const known = net.ranks.map((rank) => done || rank <= k);
    made.push({ u: now, final: now.map((value, i) => value === end[i]), known, cost: k * net.pass });
    if (stop) break;
  }
  return made;
}

// Both flows' whole runs: for each tick the rows of values from x, row 0, to z, and what is known of
// them; the layer that is worked on; and what it has cost.
function runOf(s, weights, flow) {
  const slow = isSlow(flow, s.judge);
  const ranks = compact(s.ranks);
  const most = Math.max(...ranks);
  const nets = range(s.layers).map((k) => networkOf(weights[k], k % 2 ? ranks.map((r) => most + 1 - r) : ranks));
  const route = s.judge ? range(s.layers) : range(s.layers).reverse();
  const [first, way] = s.judge ? [0, 1] : [s.layers, -1];
  const sure = s.values.map(() => true);
  const given = { u: s.values, known: sure, final: sure };
  let [rows, cost] = [range(s.layers + 1).map(() => null), 0];
  rows[first] = given;
  const ticks = [{ rows, layer: route[0], cost, step: 0 }];
  route.forEach((l, n) => {
    const [from, to] = [first + way * n, first + way * (n + 1)];
    const made = trace(nets[l], slow, s.way, rows[from].u);
    made.slice(1).forEach((one, k) => {
      rows = rows.slice();
      rows[to] = one;
      ticks.push({ rows, layer: l, cost: cost + one.cost, step: k + 1 });
    });
    cost += made.at(-1).cost;
  });
  return { flow, slow, nets, ticks, needed: ticks.length - 1, total: cost };
}

// --- words ------------------------------------------------------------------------------------

const named = (s, row, i) => (row === 0 ? `$x_${i + 1}$` : row === s.layers ? `$z_${i + 1}$` : `$u_${i + 1}$`);
const passes = (n) => `${n} pass${n === 1 ? "" : "es"}`;

// What a coordinate waits for, in the layer that is worked on.
function tell(s, run, tick) {
  const i = s.chosen;
  const here = run.ticks[Math.min(tick, run.needed)];
  const l = here.layer;
  const [from, to] = s.judge ? [l, l + 1] : [l + 1, l];
  const net = run.nets[l];
  const before = net.before[i];
  const who = run.flow.toUpperCase();
  const own = named(s, from, i);
  if (!run.slow) {
    const others = before.length ? ` and for ${listed(before.map((j) => named(s, from, j)))}` : "";
    return `${who}: ${named(s, to, i)} asks for ${own}${others}. All of them are known, and so one pass is enough.`;
  }
  if (!before.length) return `${who}: ${named(s, to, i)} asks for ${own} alone, and is found first.`;
  return `${who}: ${named(s, to, i)} asks for ${own}, which is given, and waits for ${listed(before.map((j) => named(s, to, j)))}, ` +
    "which its network needs.";
}

function story(s, runs, tick) {
  const slow = runs.find((run) => run.slow);
  const { rows, layer, step } = slow.ticks[Math.min(tick, slow.needed)];
  const what = s.judge ? "latent values" : "data";
  if (tick === 0) return s.judge ? "Data are given, and their latent values asked for." : "Latent values are given, and the data asked for.";
  if (tick >= slow.needed) return `After ${passes(slow.needed)} the ${what} of ${slow.flow.toUpperCase()} are known, too.`;
  const row = rows[s.judge ? layer + 1 : layer];
  const right = row.final.filter(Boolean).length;
  if (s.way !== "jacobi") return `Pass ${step}: ${right} of ${s.values.length} are known.`;
  const luck = row.final.some((yes, i) => yes && !row.known[i]);
  return `Pass ${step}: ${right} of ${s.values.length} are right${luck ? ", some before they had to be" : ""}.`;
}

// `told` is whether the reader knows how many ticks it takes, `isFresh` whether all is as at first.
function judgeTask(s, runs, told, isFresh) {
  const slow = runs.find((run) => run.slow);
  const net = slow.nets[0];
  const linked = sumOf(net.before.map((before) => before.length));
  const [goal, enough] = [goalOf(net.dim) * s.layers, enoughOf(net.dim)];
  if (linked < enough) return [false, `Only ${linked} of ${paired(net.dim)} pairs are linked: that network knows less.`];
  if (slow.needed > goal)
    return [false, told ? `It takes ${slow.needed} ticks.` : isFresh ? "Predict how long it takes, or let it run." : `It takes more than ${goal} ticks.`];
  const byRank = sumOf(slow.nets.map((one) => one.most));
  if (slow.needed < byRank) return [true, "Done: these values hardly depend on one another, and a guess is soon right."];
  return [true, "Done: coordinates of one rank wait for the same ones, and move together."];
}

// --- the picture ------------------------------------------------------------------------------

// One flow: rows of values, x below and z above, and between two rows the units of a layer's network.
function drawingOf(page, flow, most) {
  const svg = make("svg:svg", { role: "group", "aria-label": flow.toUpperCase(), "data-flow": flow });
  const [wires, lit] = [make("svg:path", { class: "fl-wires" }), make("svg:path", { class: "fl-wires-lit" })];
  let [cells, units] = [[], []];
  let [spot, digits] = [null, 2];
  const lay = whenNew(([dim, layers, hidden, width]) => {
    const pitch = Math.min(56, width / dim);
    const step = Math.max(84 * most, Math.min(128, 76 + width / 6)) / layers; // as high with fewer layers
    const radius = Math.min(18, pitch / 2 - 0.5);
    digits = radius < 16 ? 1 : 2;
    const height = 78 + layers * step;
    const x = (k, count) => width / 2 + (k - (count - 1) / 2) * Math.min(pitch, width / count);
    const y = (row) => height - 40 - row * step;
    spot = { row: (row, i) => [x(i, dim), y(row)], unit: (l, k) => [x(k, hidden), y(l) - step / 2] };
    put(svg, { viewBox: `0 0 ${width} ${height}` });
    units = range(layers).flatMap((l) => range(hidden).map((k) => {
      const [cx, cy] = spot.unit(l, k);
      return { l, k, node: make("svg:circle", { class: "fl-hid", cx, cy, r: Math.min(7, width / hidden / 2 - 1) }) };
    }));
    cells = range(layers + 1).flatMap((row) => range(dim).map((i) => {
      const name = make("svg:text", { class: "fl-small fl-value-name", y: row === 0 ? radius + 16 : -radius - 6 },
        ...(row === 0 || row === layers ? indexed(row ? "z" : "x", i + 1) : []));
      const words = make("svg:text", { class: "fl-value", y: 4, style: `font-size:${radius < 16 ? 11.2 : 12}px` });
      const node = make("svg:g", {
        class: "fl-cell", transform: `translate(${spot.row(row, i).join(" ")})`, role: "button", tabindex: -1, "data-cell": `${flow},${row},${i}`,
      }, make("svg:circle", { class: "fl-around", r: Math.min(22, pitch / 2) }), make("svg:circle", { class: "fl-body", r: radius }), words, name);
      const choose = () => page.set({ chosen: page.get("chosen") === i ? -1 : i });
      node.onclick = choose;
      takeKeys(node, { Enter: choose, " ": choose, ...arrowKeys(([right, down]) => {
        const to = ahead(cells.map((cell) => spot.row(cell.row, cell.i)), spot.row(row, i), [right, down]);
        if (to >= 0) cells[to].node.focus();
      }) });
      return { row, i, node, words };
    }));
    cells[0].node.setAttribute("tabindex", 0);
    svg.replaceChildren(wires, lit, ...units.map((unit) => unit.node), ...cells.map((cell) => cell.node));
  });
  const link = (a, b) => `M${a.join(" ")}L${b.join(" ")}`;
  const draw = (s, run, width) => {
    lay([s.values.length, s.layers, run.nets[0].degrees.length, width]);
    const tick = Math.min(s.tick, run.needed);
    const { rows, layer } = run.ticks[tick];
    const input = (l) => (flow === "maf" ? l : l + 1); // the row that the networks read
    const output = (l) => (flow === "maf" ? l + 1 : l);
    let [all, chosen] = ["", ""];
    run.nets.forEach((net, l) => {
      const seen = new Set(s.chosen < 0 ? [] : net.last[s.chosen]);
      net.inside.forEach((from, k) => from.forEach((j) => {
        const d = link(spot.row(input(l), j), spot.unit(l, k));
        if (seen.has(k) && l === layer) chosen += d;
        else all += d;
      }));
      net.last.forEach((from, i) => from.forEach((k) => {
        const d = link(spot.unit(l, k), spot.row(output(l), i));
        if (i === s.chosen && l === layer) chosen += d;
        else all += d;
      }));
    });
    if (s.chosen >= 0) // and straight from the inputs
      for (const j of run.nets[layer].across[s.chosen]) chosen += link(spot.row(input(layer), j), spot.row(output(layer), s.chosen));
    put(wires, { d: all });
    put(lit, { d: chosen });
    for (const { l, k, node } of units) {
      const reads = rows[input(l)];
      const sees = run.nets[l].inside[k];
      const final = reads && sees.every((j) => reads.known[j]);
      const busy = reads?.u && !final && s.way === "jacobi";
      setClass(node, `fl-hid${final ? " fl-final" : busy ? " fl-busy" : ""}`);
    }
    for (const { row, i, node, words } of cells) {
      const at = rows[row];
      const there = at?.u && (s.way === "jacobi" || at.known[i]);
      const right = there && at.final[i];
      const side = row === 0 ? "data" : row === s.layers ? "latent" : "between";
      const how = !there ? "waits" : !right ? "wrong" : at.known[i] ? "known" : "early";
      setClass(node, `fl-cell fl-${side} fl-${how}${s.chosen === i ? " fl-chosen" : ""}`);
      const written = there ? range(digits + 1).map((n) => show(at.u[i], digits - n)) : ["?"];
      setText(words, written.find((one) => one.length <= 4) ?? written.at(-1)); // as much as the circle holds
      const is = { waits: "not known yet", wrong: `${show(at?.u?.[i] ?? 0)}, still wrong`, early: `${show(at?.u?.[i] ?? 0)}, right`, known: `${show(at?.u?.[i] ?? 0)}, known` }[how];
      put(node, { "aria-label": `${flow.toUpperCase()} ${named(s, row, i).replace(/\$|_/g, "")}: ${is}`, "aria-pressed": s.chosen === i });
    }
  };
  return { svg, draw };
}

// --- the whole --------------------------------------------------------------------------------

// Play, step, and a slider of ticks; `told` is whether it may say how many there will be.
function clock(page, most, told) {
  let timer = 0;
  const play = button("play", { "data-action": "play" }, () => (timer ? stop() : begin()));
  const go = (tick) => page.set({ tick: clamp(tick, [0, most()]) });
  function stop() {
    clearInterval(timer);
    timer = 0;
    setText(play, "play");
  }
  function begin() {
    if (page.get("tick") >= most()) go(0);
    setText(play, "stop");
    timer = setInterval(() => {
      if (!page.el.isConnected || page.get("tick") >= most()) return stop();
      go(page.get("tick") + 1);
      if (page.get("tick") >= most()) stop();
    }, BEAT);
  }
  const by = (way) => () => {
    stop();
    go(Math.min(page.get("tick"), most()) + way);
  };
  const bar = slider({
    name: "tick", symbol: ["tick"], label: "Ticks", min: 0, max: 1, step: 1,
    get: () => Math.min(page.get("tick"), most()),
    set: (tick) => {
      stop();
      go(tick);
    },
    text: (tick) => (told() ? `${tick} of ${most()}` : `${tick}`),
  });
  const draw = () => {
    put(bar.node.querySelector("input"), { max: most() });
    bar.draw();
  };
  const buttons = row(play, button("back", { "data-action": "back" }, by(-1)), button("step", { "data-action": "step" }, by(1)));
  return { nodes: [make("div", { class: "fl-time" }, bar.node), buttons], stop, draw };
}

function render({ model, el }) {
  const page = openPage(el, model, TRAITS, ["ranks"]);
  const weights = page.get("weights");
  const dim = page.get("values").length;
  let runs = [];
  const compute = whenNew(() => (runs = FLOWS.map((flow) => runOf(page.state(), weights, flow))));
  const most = () => Math.max(...runs.map((run) => run.needed));
  const slowest = () => runs.find((run) => run.slow);
  // How long it takes is said to whoever has guessed, or has seen it.
  const told = () => page.get("guess") > 0 || page.get("tick") >= slowest().needed;
  const time = clock(page, most, told);
  const afresh = (changes) => {
    time.stop();
    page.set({ ...changes, tick: 0, guess: 0 });
  };
  const goal = choice([["draw: z to x", false, { "data-judge": "false" }], ["judge: x to z", true, { "data-judge": "true" }]],
    () => page.get("judge"), (judge) => afresh({ judge }));
  const way = choice(Object.entries(WAYS).map(([name, words]) => [words, name, { "data-way": name }]),
    () => page.get("way"), (name) => afresh({ way: name }));
  const depth = slider({
    name: "layers", symbol: ["layers"], label: "Layers", min: 1, max: weights.length, step: 1,
    get: () => page.get("layers"), set: (layers) => afresh({ layers }), text: (n) => `${n}`,
  });
  // Each coordinate's rank: a press gives it the next one.
  const ranks = range(dim).map((i) => button("", { "data-rank": i }, () => {
    const now = page.get("ranks").slice();
    now[i] = 1 + (now[i] % dim);
    afresh({ ranks: now });
  }));
  const orders = { natural: range(dim, 1), reversed: range(dim, 1).reverse() };
  const presets = Object.entries(orders).map(([name, order]) => preset(name, () => {
    time.stop();
    page.give({ ranks: order, tick: 0, guess: 0 });
  }));
  const others = button("other values", { "data-action": "values" }, () => {
    const draw = random(Math.round(1000 * Math.abs(page.get("values")[0])) + 1);
    const normal = () => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
    afresh({ values: range(dim).map(() => Math.round(100 * normal()) / 100) });
  });
  const guesses = make("div", { class: "fl-row fl-guess" });
  const drawGuesses = whenNew((count) => guesses.replaceChildren(make("span", { class: "fl-question" }, make("b", {}, "Predict. "), "The slow side is done after tick"),
    ...range(count, 1).map((n) => button(`${n}`, { "data-guess": n }, () => page.set({ guess: page.get("guess") === n ? 0 : n })))));
  const said = saying();
  const drawings = FLOWS.map((flow) => drawingOf(page, flow, weights.length));
  const heads = FLOWS.map(() => titled(""));
  const counts = FLOWS.map((flow) => make("p", { class: "fl-fine fl-passes", "data-count": flow }));
  const turn = task(page, "ticks",
    `Find ranks and a way of inverting under which the slow side is done after ${goalOf(dim)} ticks a layer, and at least ` +
    `${enoughOf(dim)} of the ${paired(dim)} pairs of coordinates are still linked.`,
    "Done: coordinates of one rank wait for the same ones, and move together.");
  const ends = tools(page, TRAITS, time.stop);
  el.replaceChildren(frame([
    next(row(...goal.nodes)),
    make("div", { class: "fl-both" }, ...FLOWS.map((_, k) => make("div", {}, heads[k], drawings[k].svg, counts[k]))),
    ...time.nodes, roomy(said, LONGEST), next(guesses),
  ], [
    next(row(make("span", { class: "fl-word" }, "the slow side inverts"), ...way.nodes)),
    next(row(make("span", { class: "fl-word" }, "ranks of ", math("x_1"), " to ", math(`x_${dim}`)), ...ranks)), next(row(...presets, others)),
    ...(weights.length > 1 ? [next(make("div", { class: "fl-time" }, depth.node))] : []), turn.node, ends.node,
  ]));

  return page.run((width) => {
    const s = page.state();
    compute(page.state(WORK));
    const inside = pictureWidth(width);
    const wide = (inside - 16) / 2;
    drawGuesses(dim * s.layers);
    mirror(el, { ...s, needed: runs.map((run) => run.needed), costs: runs.map((run) => run.total) });
    runs.forEach((run, k) => {
      const tick = Math.min(s.tick, run.needed);
      const way = s.judge ? "x → z" : "z → x";
      setSpelled(heads[k], `${run.flow.toUpperCase()}, $${way}$`);
      drawings[k].draw(s, run, wide);
      const made = told() || !run.slow ? `${tick} of ${passes(run.needed)}` : passes(tick);
      setText(counts[k], `${made}\n${run.ticks[tick].cost} of ${run.total} multiplications`);
      put(counts[k], { "data-cost": run.ticks[tick].cost, "data-needed": run.needed });
      put(drawings[k].svg, { "data-last": JSON.stringify(run.ticks[tick].rows[s.judge ? s.layers : 0]?.u ?? null) });
    });
    goal.draw();
    way.draw();
    depth.draw();
    time.draw();
    compact(s.ranks).forEach((rank, i) => {
      setText(ranks[i], `${rank}`);
      put(ranks[i], { "aria-label": `rank of x${i + 1}: ${rank}; press for the next` });
    });
    for (const node of guesses.querySelectorAll("button")) put(node, { "aria-pressed": Number(node.dataset.guess) === s.guess });
    const { needed } = slowest();
    const guessed = s.guess ? ` You said ${s.guess}: ${s.guess === needed ? "so it is." : `it is ${needed}.`}` : "";
    setSpelled(said, s.chosen >= 0 ? runs.map((run) => tell(s, run, s.tick)).join(" ") : story(s, runs, s.tick) + guessed);
    const isFresh = WORK.every((name) => `${s[name]}` === `${page.start[name]}`);
    turn.draw(...judgeTask(s, runs, told(), isFresh));
    ends.draw();
  });
}

export default { render };
