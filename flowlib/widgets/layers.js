// LayersExplorer: points on their way through a flow, and what each layer is worth.

const TRAITS = ["depth", "point"];
const LOG_2PI = Math.log(2 * Math.PI);
const SPEED = 0.8; // layers a second
const EDGE = 2; // standard deviations, of the outer circle and of the task

const pairs = (flat) => Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
const logNormal = ([u, v]) => -0.5 * (u * u + v * v) - LOG_2PI;
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

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

function render({ model, el }) {
  const get = (name) => model.get(name);
  const [places, dets, names] = [get("places").map(pairs), get("log_dets"), get("layers")];
  const truth = get("truth");
  const count = names.length;
  const start = { depth: get("depth"), point: get("point") };
  const nll = places.map((place, k) => -mean(place.map((p, i) => logNormal(p) + dets[k][i])));
  const moved = places.slice(1).map((place, k) => moves(places[k], place));
  const whole = () => Math.floor(get("depth") + 1e-9);
  const set = (values, save = true) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    if (save) model.save_changes();
  };
  const go = (depth, save) => set({ depth: Math.max(0, Math.min(count, Math.round(depth * 100) / 100)) }, save);
  const here = (i) => {
    const [k, share] = [whole(), get("depth") - whole()];
    if (share <= 0 || k >= count) return places[k][i];
    return places[k][i].map((v, c) => v + share * (places[k + 1][i][c] - v));
  };

  // the plane
  const reach = places.flat().map((p) => Math.max(...p.map(Math.abs))).sort((a, b) => a - b);
  const half = 1.06 * Math.max(2.6, reach[Math.floor(0.998 * (reach.length - 1))]);
  const space = plane(half, "The points of the plane");
  space.add("path", { d: "M0.5 0.5H319.5V319.5H0.5Z", fill: "none", stroke: "var(--fl-faint)" });
  for (const r of [1, EDGE])
    space.add("circle", { cx: 160, cy: 160, r: (r / half) * 160, fill: "none", stroke: "var(--fl-latent)", "stroke-width": 1.2, opacity: 0.75 });
  for (const r of [1, EDGE])
    space.add("text", { class: "fl-tick fl-cased", x: 160 + (r / half) * 160 * 0.71 + 3, y: 160 + (r / half) * 160 * 0.71 + 12 }, `${r}`);
  const cloud = space.add("path", { "stroke-width": 4, "stroke-linecap": "round", "stroke-opacity": 0.6, fill: "none", "data-cloud": "" });
  const trail = space.add("path", { fill: "none", stroke: "var(--fl-ink)", "stroke-width": 1.3, "stroke-dasharray": "4 3" });
  const nearest = (spot) => {
    const far = places[0].map((_, i) => Math.hypot(...here(i).map((v, c) => v - spot[c])));
    return far.indexOf(Math.min(...far));
  };
  const chosen = handle(space, {
    name: "point", label: "The chosen point", color: "var(--fl-ink)",
    get: () => here(get("point")),
    move: (spot) => set({ point: nearest(spot) }),
    value: ([u, v]) => `point ${get("point") + 1}, at (${show(u)}, ${show(v)})`,
  });
  space.svg.lastChild.onkeydown = (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    const next = ahead(places[0].map((_, i) => here(i)), here(get("point")), way);
    if (next >= 0) set({ point: next });
  };
  space.svg.addEventListener("click", (event) => {
    if (!event.target.closest(".fl-grab")) set({ point: nearest(space.locate(event)) });
  });

  // the curve
  const levels = truth === null ? nll : [...nll, truth];
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  const margin = 0.12 * Math.max(high - low, 0.1);
  const chart = panel({
    x: [-0.14 * count, 1.06 * count], y: [low - 2.8 * margin, high + margin], width: 320, height: 210,
    label: "Nats a point if the flow ended here",
  });
  if (truth !== null) {
    const [, y] = chart.at([0, truth]);
    chart.add("path", { d: `M0 ${y}H320`, stroke: "var(--fl-muted)", "stroke-width": 1.2, "stroke-dasharray": "2 3" });
    chart.add("text", { class: "fl-tick fl-cased", x: 46, y: y + 16 }, `truth ${show(truth)}`);
  }
  chart.add("path", { d: chart.path(nll.map((v, k) => [k, v])), fill: "none", stroke: "var(--fl-third)", "stroke-width": 2.4 });
  for (const [v, words] of ticks(chart.y)) {
    const [, y] = chart.at([0, v]);
    chart.add("text", { class: "fl-tick", x: 2, y: y + 4.5 }, words);
  }
  nll.forEach((v, k) => {
    const [cx, cy] = chart.at([k, v]);
    chart.add("circle", { cx, cy, r: 3.4, fill: "var(--fl-third)" });
    chart.add("text", { class: "fl-tick fl-cased", x: cx, y: 206, "text-anchor": "middle" }, `${k}`);
  });
  const level = (depth) => {
    const k = Math.min(count - 1, Math.floor(depth));
    return nll[k] + (depth - k) * (nll[k + 1] - nll[k]);
  };
  const marker = handle(chart, {
    name: "depth", label: "How far through the flow", color: "var(--fl-third)", step: 0.25,
    get: () => [get("depth"), level(get("depth"))],
    move: ([depth]) => stop(go, depth),
    value: ([depth]) => `${show(depth)} of ${count} layers, ${show(level(depth))} nats`,
  });

  // the second ways, and the numbers
  const bar = slider({
    name: "depth", symbol: [""], label: "Layers passed", min: 0, max: count, step: 0.05,
    get: () => get("depth"), set: (v) => stop(go, v), text: (v) => `${show(v, 1)} of ${count}`,
  });
  let timer = 0;
  const play = button("play", { "data-action": "play" }, () => (timer ? stop() : begin()));
  function stop(then, ...rest) {
    if (timer) model.save_changes(); // a kernel need not hear of every frame
    cancelAnimationFrame(timer);
    timer = 0;
    play.textContent = "play";
    then?.(...rest);
  }
  function begin() {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches; // then from layer to layer
    const from = get("depth") >= count ? 0 : get("depth");
    let began = null;
    play.textContent = "stop";
    const tick = (now) => {
      began ??= now;
      const way = from + ((now - began) / 1000) * SPEED;
      const depth = Math.min(count, calm ? Math.floor(way + 1e-9) : way);
      go(depth, false);
      if (way >= count || !el.isConnected) stop();
      else timer = requestAnimationFrame(tick);
    };
    timer = requestAnimationFrame(tick);
  }
  const jump = (text, name, depth) => button(text, { "data-preset": name }, () => stop(go, depth));
  const reset = button("reset", { "data-action": "reset" }, () => stop(set, start));
  const shares = places.flatMap((place, k) => place.map((p, i) => [logNormal(p), dets[k][i]]).flat());
  const sum = ledger([Math.max(-9, Math.min(...shares)), Math.max(3, Math.min(9, Math.max(...shares)))], [
    { name: "base", text: ["log p", sub("Z"), "(z)"], color: "var(--fl-latent)" },
    { name: "det", text: ["+ log |det|"], color: "var(--fl-third)" },
    { name: "sum", text: ["= log p(x)"], color: "var(--fl-data)" },
  ]);
  const nats = readout("nll");
  const say = make("p", { class: "fl-say" });
  const turn = task("edge", "Among the data, before the first layer, find a point that will end outside of the circle of 2.");

  const title = make("p", { class: "fl-panel-title" });
  const dot = swatch("");
  const titled = make("span", {});
  title.append(dot, titled);
  const whose = make("p", { class: "fl-panel-title fl-whose" });
  el.replaceChildren(
    make("div", { class: "fl-layers" },
      make("div", {}, title, space.svg),
      make("div", {},
        make("p", { class: "fl-panel-title" }, swatch("var(--fl-third)"), "nats a point, if it ended here: ", nats.node),
        chart.svg,
        make("div", { class: "fl-long" }, bar.node),
        make("div", { class: "fl-row" }, play, jump("data", "data", 0), jump("halfway", "halfway", count / 2), jump("latent", "latent", count), reset),
      ),
    ),
    say,
    whose,
    sum.node,
    turn.node,
  );

  return frame(el, model, TRAITS, () => {
    const [depth, point, k] = [get("depth"), get("point"), whole()];
    Object.assign(el.dataset, { depth, point });
    const color = `color-mix(in srgb, var(--fl-latent) ${((100 * depth) / count).toFixed(0)}%, var(--fl-data))`;
    const at = places[0].map((_, i) => space.at(here(i)));
    cloud.setAttribute("d", at.map((p) => `M${p[0].toFixed(1)} ${p[1].toFixed(1)}h0`).join(""));
    cloud.setAttribute("style", `stroke:${color}`);
    dot.style.background = color;
    titled.textContent = depth === 0 ? "data" : depth === count ? "latent" : "on the way";
    trail.setAttribute("d", space.path(places.map((place) => place[point])));
    chosen();
    marker();
    bar.draw();
    nats.draw(nll[k]);
    const [base, det] = [logNormal(places[k][point]), dets[k][point]];
    whose.textContent = `The chosen point, if the flow ended after layer ${k}`;
    sum.draw({ base, det, sum: base + det });
    say.textContent = story(names, moved, depth);
    const radius = Math.hypot(...places[count][point]);
    if (depth > 0) turn.draw(false, "These are not the data any more.");
    else if (radius > EDGE) turn.draw(true, `Done: it ends ${show(radius)} deviations from the middle. Look where it lay among the data.`);
    else turn.draw(false, `This one will end ${show(radius)} deviations from the middle.`);
  });
}

export default { render };
