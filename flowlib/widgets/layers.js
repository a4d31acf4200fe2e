// LayersExplorer: points on their way through a flow, and what each layer is worth.

const TRAITS = ["depth", "point"];
const SPEED = 0.8; // layers a second
const EDGE = 2; // standard deviations, of the outer circle and of the task

const pairs = (flat) => range(flat.length / 2).map((i) => [flat[2 * i], flat[2 * i + 1]]);
const logNormal = ([u, v]) => -0.5 * (u * u + v * v) - LOG_2PI;
const mean = (values) => sumOf(values) / values.length;

// Which coordinates a layer moves, as the points see it: [first, second].
const moves = (from, to) => [0, 1].map((i) => from.some((p, k) => Math.abs(p[i] - to[k][i]) > 1e-9));

function story(names, moved, depth) {
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
  const nll = places.map((place, k) => -mean(place.map((p, i) => logNormal(p) + dets[k][i])));
  const count = names.length;
  const whole = () => Math.floor(page.get("depth") + 1e-9);
  // Where a point is now, between two layers on a straight line.
  const here = (i) => {
    const [k, share] = [whole(), page.get("depth") - whole()];
    if (share <= 0 || k >= count) return places[k][i];
    return places[k][i].map((v, c) => v + share * (places[k + 1][i][c] - v));
  };
  const all = () => places[0].map((_, i) => here(i));
  const moved = places.slice(1).map((place, k) => moves(places[k], place));
  return { places, dets, names, count, nll, moved, whole, here, all };
}

// The ways through the flow: a slider, jumps, and a play that goes by itself.
function travel(page, count) {
  let timer = 0;
  const play = button("play", { "data-action": "play" }, () => (timer ? stop() : begin()));
  const go = (depth, save) => page.set({ depth: clamp(Math.round(depth * 100) / 100, [0, count]) }, save);
  function stop() {
    if (timer) page.set({}); // saves: a kernel need not hear of every frame
    cancelAnimationFrame(timer);
    timer = 0;
    play.textContent = "play";
  }
  function begin() {
    const from = page.get("depth") >= count ? 0 : page.get("depth");
    let began = null;
    play.textContent = "stop";
    const tick = (now) => {
      began ??= now;
      const way = from + ((now - began) / 1000) * SPEED;
      go(Math.min(count, isCalm() ? Math.floor(way + 1e-9) : way), false); // calm: from layer to layer
      if (way >= count || !page.el.isConnected) stop();
      else timer = requestAnimationFrame(tick);
    };
    timer = requestAnimationFrame(tick);
  }
  const jump = (depth) => {
    stop();
    go(depth);
  };
  const reset = () => {
    stop();
    page.set(page.start);
  };
  const bar = slider({
    name: "depth", symbol: [""], label: "Layers passed", min: 0, max: count, step: 0.05,
    get: () => page.get("depth"), set: jump, text: (v) => `${show(v, 1)} of ${count}`,
  });
  const stops = Object.entries({ data: 0, halfway: count / 2, latent: count });
  const buttons = row(play, ...stops.map(([name, depth]) => preset(name, () => jump(depth))), resetButton(reset));
  return { nodes: [make("div", { class: "fl-long" }, bar.node), buttons], jump, draw: bar.draw };
}

// The plane: all points, and the way of the chosen one.
function cloudPlane(page, { places, here, all }) {
  const reach = places.flat().map((p) => Math.max(...p.map(Math.abs))).sort((a, b) => a - b);
  const half = 1.06 * Math.max(2.6, reach[Math.floor(0.998 * (reach.length - 1))]);
  const it = plane(half, "The points of the plane");
  it.add("path", { d: "M0.5 0.5H319.5V319.5H0.5Z", fill: "none", stroke: "var(--fl-faint)" });
  const radius = (r) => (r / half) * 160;
  for (const r of [1, EDGE])
    it.add("circle", { cx: 160, cy: 160, r: radius(r), ...line("var(--fl-latent)", 1.2, { opacity: 0.75 }) });
  for (const r of [1, EDGE]) it.text([163 + 0.71 * radius(r), 172 + 0.71 * radius(r)], `${r}`, { class: "fl-small fl-cased" });
  const dots = { "stroke-width": 4, "stroke-linecap": "round", "stroke-opacity": 0.6, fill: "none" };
  const cloud = it.add("path", { ...dots, "data-cloud": "" });
  const trail = it.add("path", line("var(--fl-ink)", 1.3, { "stroke-dasharray": "4 3" }));
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
  const draw = (color) => {
    const at = all().map(it.at);
    put(cloud, { d: at.map((p) => `M${p[0].toFixed(1)} ${p[1].toFixed(1)}h0`).join(""), style: `stroke:${color}` });
    put(trail, { d: it.path(places.map((place) => place[page.get("point")])) });
    chosen.draw();
  };
  return { svg: it.svg, draw };
}

// The curve of the nats a point, if the flow ended after each of its layers.
function natsChart(page, { nll, count }, jump) {
  const truth = page.get("truth");
  const levels = truth === null ? nll : [...nll, truth];
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  const margin = 0.12 * Math.max(high - low, 0.1);
  const it = axesPanel({
    x: [-0.14 * count, 1.06 * count], y: [low - 2.8 * margin, high + margin], width: 320, height: 210,
    label: "Nats a point if the flow ended here",
  });
  if (truth !== null) {
    const [, y] = it.at([0, truth]);
    it.add("path", line("var(--fl-muted)", 1.2, { d: `M0 ${y}H320`, "stroke-dasharray": "2 3" }));
    it.text([46, y + 16], `truth ${show(truth)}`, { class: "fl-small fl-cased" });
  }
  it.add("path", line("var(--fl-third)", 2.4, { d: it.path(nll.map((v, k) => [k, v])) }));
  for (const [v, words] of ticks(it.y)) it.text([2, it.at([0, v])[1] + 4.5], words);
  nll.forEach((v, k) => {
    const [cx, cy] = it.at([k, v]);
    it.add("circle", { cx, cy, r: 3.4, fill: "var(--fl-third)" });
    it.text([cx, 206], `${k}`, { class: "fl-small fl-cased", "text-anchor": "middle" });
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
    { name: "base", text: ["log p", sub("Z"), "(z)"], color: "var(--fl-latent)" },
    { name: "det", text: ["+ log |det|"], color: "var(--fl-third)" },
    { name: "sum", text: ["= log p(x)"], color: "var(--fl-data)" },
  ]);
  const whose = make("p", { class: "fl-panel-title fl-whose" });
  const draw = (point) => {
    const k = whole();
    const [base, det] = [logNormal(places[k][point]), dets[k][point]];
    whose.textContent = `The chosen point, if the flow ended after layer ${k}`;
    sum.draw({ base, det, sum: base + det });
  };
  return { nodes: [whose, sum.node], draw };
}

function render({ model, el }) {
  const page = openPage(el, model, TRAITS);
  const flow = journey(page);
  const { places, names, moved, count } = flow;
  const way = travel(page, count);
  const [space, curve, sum] = [cloudPlane(page, flow), natsChart(page, flow, way.jump), account(flow)];
  const [dot, where, nats, say] = [swatch(""), make("span", {}), readout("nll"), saying()];
  const turn = task("edge", "Among the data, before the first layer, find a point that will end outside of the circle of 2.");
  const title = panelTitle("var(--fl-third)", "nats a point, if it ended here: ", nats.node);
  el.replaceChildren(frame([titled(dot, where), space.svg],
    [title, curve.svg, ...way.nodes, say, ...sum.nodes, turn.node]));

  return page.run(() => {
    const { depth, point } = page.state();
    mirror(el, page.state());
    const color = `color-mix(in srgb, var(--fl-latent) ${((100 * depth) / count).toFixed(0)}%, var(--fl-data))`;
    dot.style.background = color;
    where.textContent = depth === 0 ? "data" : depth === count ? "latent" : "on the way";
    space.draw(color);
    curve.draw();
    way.draw();
    nats.draw(flow.nll[flow.whole()]);
    sum.draw(point);
    say.textContent = story(names, moved, depth);
    turn.draw(...judge(depth, places[count][point]));
  });
}

export default { render };
