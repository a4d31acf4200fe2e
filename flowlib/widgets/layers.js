// LayersExplorer: points on their way through a flow, and what each layer is worth.

const TRAITS = ["depth", "point"];
const SPEED = 0.8; // layers a second
const EDGE = 2; // standard deviations, of the outer circle and of the task
const WAIT = 900; // milliseconds at either end, before the play goes back
const SHADES = 12;
// What a point's colour says: where it lay among the data, from left to right. In the dark it begins lighter.
const shade = (k) => {
  const t = k / (SHADES - 1);
  return `oklch(calc(var(--fl-first) * ${(1 - t).toFixed(3)} + ${(0.75 * t).toFixed(3)}) 0.15 ${((300 + 130 * t) % 360).toFixed(0)})`;
};

const pairs = (flat) => range(flat.length / 2).map((i) => [flat[2 * i], flat[2 * i + 1]]);
const logNormal = ([u, v]) => -0.5 * (u * u + v * v) - LOG_2PI;
const mean = (values) => sumOf(values) / values.length;

// Which coordinates a layer moves, as the points see it: [first, second].
const moves = (from, to) => [0, 1].map((i) => from.some((p, k) => Math.abs(p[i] - to[k][i]) > 1e-9));

function tellStory(names, moved, depth) {
  const count = names.length;
  const k = Math.floor(depth);
  const layer = depth === k ? k - 1 : k;
  if (depth === 0) return "The data, before the first layer.";
  const [first, second] = moved[layer];
  const how =
    first && second ? "both coordinates move."
    : first ? "the points move left and right only."
    : second ? "the points move up and down only."
    : "nothing moves.";
  const when = depth === k ? `After layer ${k} of ${count}` : `In layer ${layer + 1} of ${count}`;
  return `${when}, ${names[layer]}: ${how}${depth === count ? " This is latent space." : ""}`;
}

function judge(depth, end) {
  const radius = Math.hypot(...end);
  if (depth > 0) return [false, "These are not the data any more."];
  const far = `${show(radius)} deviations from the middle.`;
  if (radius > EDGE) return [true, `Done: it ends ${far} Look where it lay among the data.`];
  return [false, `This one will end ${far}`];
}

// What is known of the flow: of each point its places and its log-determinants after 0, 1, ... layers.
function journey(page) {
  const [places, dets, names] = [page.get("places").map(pairs), page.get("log_dets"), page.get("layers")];
  const lines = page.get("grid").map((layer) => layer.map(pairs));
  const nll = places.map((place, k) => -mean(place.map((p, i) => logNormal(p) + dets[k][i])));
  const count = names.length;
  const whole = () => Math.floor(page.get("depth") + 1e-9);
  // Where things are now, between two layers on a straight line.
  const between = (ways) => {
    const [k, share] = [whole(), page.get("depth") - whole()];
    return share <= 0 || k >= count ? ways(k) : ways(k).map((p, i) => p.map((v, c) => v + share * (ways(k + 1)[i][c] - v)));
  };
  const all = () => between((k) => places[k]);
  const here = (i) => between((k) => [places[k][i]])[0];
  const grid = () => range(lines[0]?.length ?? 0).map((l) => between((k) => lines[k][l]));
  const moved = places.slice(1).map((place, k) => moves(places[k], place));
  return { places, dets, names, count, nll, moved, whole, here, all, grid };
}

// The ways through the flow: a slider, jumps, and a play that goes there and back by itself.
function travel(page, count) {
  let timer = 0;
  const play = button("play", { "data-action": "play" }, () => (timer ? stop() : begin()));
  const go = (depth, save) => page.set({ depth: clamp(Math.round(depth * 100) / 100, [0, count]) }, save);
  function stop() {
    if (timer) page.save(); // a kernel need not hear of every frame
    cancelAnimationFrame(timer);
    timer = 0;
    setText(play, "play");
  }
  function begin() {
    let [from, way, began] = [page.get("depth"), 1, null];
    if (from >= count) way = -1;
    setText(play, "stop");
    const tick = (now) => {
      began ??= now;
      const at = from + way * Math.max(0, (now - began) / 1000) * SPEED;
      go(clamp(isCalm() ? Math.floor(at + 1e-9) : at, [0, count]), false); // calm: from layer to layer
      if (way > 0 ? at >= count : at <= 0) [from, way, began] = [way > 0 ? count : 0, -way, now + WAIT];
      if (page.el.isConnected) timer = requestAnimationFrame(tick);
      else stop();
    };
    timer = requestAnimationFrame(tick);
  }
  const jump = (depth) => {
    stop();
    go(depth);
  };
  const bar = slider({
    name: "depth", symbol: [""], label: "Layers passed", min: 0, max: count, step: 0.05,
    get: () => page.get("depth"), set: jump, text: (v) => `${show(v, 1)} of ${count}`,
  });
  const stops = Object.entries({ data: 0, halfway: count / 2, latent: count });
  const buttons = row(play, ...stops.map(([name, depth]) => preset(name, () => jump(depth))));
  return { nodes: [make("div", { class: "fl-long" }, bar.node), buttons], jump, stop, draw: bar.draw };
}

// What is seen of the plane: of each coordinate nearly all that the points and the outer circle need.
function seenOf({ places }) {
  return [0, 1].map((c) => {
    const all = places.flat().map((p) => p[c]).sort((a, b) => a - b);
    const at = (share) => all[Math.round(share * (all.length - 1))];
    const [least, most] = [Math.max(at(0), at(0.002) - 0.5), Math.min(at(1), at(0.998) + 0.5)]; // all but what is far out
    const [low, high] = [Math.min(least, -1.08 * EDGE), Math.max(most, 1.08 * EDGE)];
    const margin = 0.04 * (high - low);
    return [low - margin, high + margin];
  });
}

// The plane: all points, the grid that is carried along, and the way of the chosen one.
function cloudPlane(page, { places, here, all, grid }, width) {
  const [x, y] = seenOf({ places });
  const unit = Math.min(width / (x[1] - x[0]), 430 / (y[1] - y[0]));
  const more = (width / unit - (x[1] - x[0])) / 2; // to the left and right, where the height is the limit
  const it = axesPanel({ x: [x[0] - more, x[1] + more], y, width, height: unit * (y[1] - y[0]), label: "The points of the plane" });
  const net = it.add("path", line("var(--fl-muted)", 1, { opacity: 0.4 }));
  const middle = it.at([0, 0]);
  for (const r of [1, EDGE])
    it.add("circle", { cx: middle[0], cy: middle[1], r: r * unit, ...line("var(--fl-latent)", 1.4, { opacity: 0.8 }) });
  for (const r of [1, EDGE]) it.text([middle[0] + 0.71 * r * unit + 3, middle[1] + 0.71 * r * unit + 12], `${r}`, { class: "fl-small fl-cased" });
  const order = places[0].map((_, i) => i).sort((a, b) => places[0][a][0] - places[0][b][0]);
  const groups = range(SHADES).map((k) => order.filter((_, i) => Math.floor((i * SHADES) / order.length) === k));
  const dots = { "stroke-width": 5, "stroke-linecap": "round", "stroke-opacity": 0.85, fill: "none" };
  const clouds = groups.map((members, k) => it.add("path", { ...dots, stroke: shade(k), "data-cloud": members.join() }));
  const trail = it.add("path", line("var(--fl-ink)", 1.5, { "stroke-dasharray": "4 3" }));
  const choose = (point) => page.set({ point });
  const nearest = (spot) => {
    const far = all().map((p) => Math.hypot(...p.map((v, c) => v - spot[c])));
    return far.indexOf(Math.min(...far));
  };
  const chosen = handle(it, {
    name: "point", label: "The chosen point", color: "var(--fl-ink)",
    get: () => here(page.get("point")),
    move: (spot) => choose(nearest(spot)),
    keys: (way) => {
      const next = ahead(all(), here(page.get("point")), way);
      if (next >= 0) choose(next);
    },
    value: ([u, v]) => `point ${page.get("point") + 1}, at (${show(u)}, ${show(v)})`,
  });
  it.svg.addEventListener("click", (event) => {
    if (!event.target.closest(".fl-grab")) choose(nearest(it.locate(event)));
  });
  const draw = () => {
    const at = all().map(it.at);
    const dot = (i) => `M${at[i][0].toFixed(1)} ${at[i][1].toFixed(1)}h0`;
    groups.forEach((members, k) => put(clouds[k], { d: members.map(dot).join("") }));
    put(net, { d: grid().map((l) => it.path(l)).join("") });
    put(trail, { d: it.path(places.map((place) => place[page.get("point")])) });
    chosen.draw();
  };
  put(it.svg, { "data-unit": unit, "data-middle": middle.join() });
  return { svg: it.svg, draw };
}

// The curve of the nats a point, if the flow ended after each of its layers.
function natsChart(page, { nll, count }, jump, width) {
  const truth = page.get("truth");
  const levels = truth === null ? nll : [...nll, truth];
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  const margin = 0.12 * Math.max(high - low, 0.1);
  const it = axesPanel({
    x: [-0.16 * count, 1.06 * count], y: [low - 2.8 * margin, high + margin], width, height: 168,
    label: "Nats a point if the flow ended here",
  });
  if (truth !== null) {
    const [, y] = it.at([0, truth]);
    it.add("path", line("var(--fl-muted)", 1.2, { d: `M0 ${y}H${width}`, "stroke-dasharray": "2 3" }));
    it.text([width / 7 + 4, y + 16], `truth ${show(truth)}`, { class: "fl-small fl-cased" });
  }
  it.add("path", line("var(--fl-third)", 2.4, { d: it.path(nll.map((v, k) => [k, v])) }));
  for (const [v, words] of ticks(it.y)) it.text([2, it.at([0, v])[1] + 4.5], words);
  nll.forEach((v, k) => {
    const [cx, cy] = it.at([k, v]);
    it.add("circle", { cx, cy, r: 3.4, fill: "var(--fl-third)" });
    it.text([cx, 164], `${k}`, { class: "fl-small fl-cased", "text-anchor": "middle" });
  });
  const level = (depth) => {
    const k = Math.min(count - 1, Math.floor(depth));
    return nll[k] + (depth - k) * (nll[k + 1] - nll[k]);
  };
  const marker = handle(it, {
    name: "depth", label: "How far through the flow", color: "var(--fl-third)", step: 0.25,
    get: () => [page.get("depth"), level(page.get("depth"))],
    move: ([depth]) => jump(depth),
    value: ([depth]) => `${show(depth)} of ${count} layers, ${show(level(depth))} nats`,
  });
  return { svg: it.svg, draw: marker.draw };
}

// The chosen point's log-likelihood and its two parts, if the flow ended after the layers so far.
function account({ places, dets, whole }) {
  const shares = places.flatMap((place, k) => place.flatMap((p, i) => [logNormal(p), dets[k][i]]));
  const sum = ledger([Math.max(-9, Math.min(...shares)), Math.max(3, Math.min(9, Math.max(...shares)))], [
    { name: "base", text: [math("log p_Z(z)")], color: "var(--fl-latent)" },
    { name: "det", text: [math("+ log |det|")], color: "var(--fl-third)" },
    { name: "sum", text: [math("= log p(x)")], color: "var(--fl-data)" },
  ]);
  const whose = make("p", { class: "fl-panel-title fl-whose" });
  const draw = (point) => {
    const k = whole();
    const [base, det] = [logNormal(places[k][point]), dets[k][point]];
    setText(whose, `the chosen point, if it ended after layer ${k}`);
    sum.draw({ base, det, sum: base + det });
  };
  return { nodes: [whose, sum.node], draw };
}

function render({ model, el }) {
  const page = openPage(el, model, TRAITS);
  const flow = journey(page);
  const { places, names, moved, count } = flow;
  const way = travel(page, count);
  const sum = account(flow);
  const [dot, where, nats, story, ends] = [swatch(""), make("span", { class: "fl-stage" }), readout("nll"), saying(), tools(page, TRAITS, way.stop)];
  story.classList.add("fl-story");
  const turn = task(page, "edge", "Among the data, before the first layer, find a point that will end outside of the circle of 2.",
    judge(0, [2.5, 0])[1]);
  const longest = `After layer ${count} of ${count}, ${names.at(-1)}: the points move left and right only. This is latent space.`;
  const [plane, chart] = [make("div", {}), make("div", {})];
  const ramp = make("span", { class: "fl-shades", style: `background:linear-gradient(90deg, ${range(SHADES).map(shade).join()})` });
  el.replaceChildren(frame([
    legend([dot, where], [ramp, "left to right in the data"], [dashes("var(--fl-ink)"), "its whole way"]),
    plane, ...way.nodes, roomy(story, longest),
  ], [
    panelTitle("var(--fl-third)", "nats a point, if it ended here: ", nats.node), chart,
    ...sum.nodes, turn.node, ends.node,
  ]));

  let [space, curve] = [null, null];
  const build = whenNew((width) => {
    space = cloudPlane(page, flow, pictureWidth(width));
    curve = natsChart(page, flow, way.jump, width >= BESIDE ? RAIL - 20 : width);
    plane.replaceChildren(space.svg);
    chart.replaceChildren(curve.svg);
  });
  return page.run((width) => {
    build(width);
    const { depth, point } = page.state();
    mirror(el, page.state());
    dot.style.background = `color-mix(in srgb, var(--fl-latent) ${((100 * depth) / count).toFixed(0)}%, var(--fl-data))`;
    setText(where, depth === 0 ? "data" : depth === count ? "latent" : "on the way");
    space.draw();
    curve.draw();
    way.draw();
    nats.draw(flow.nll[flow.whole()]);
    sum.draw(point);
    setText(story, tellStory(names, moved, depth));
    turn.draw(...judge(depth, places[count][point]));
    ends.draw();
  });
}

export default { render };
