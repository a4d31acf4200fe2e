// WarpExplorer, the linear half: z = A x, a matrix that one takes by its columns.

const PRESETS = {
  identity: [[1, 0], [0, 1]],
  rotation: [[0.8, -0.6], [0.6, 0.8]],
  stretch: [[1.5, 0], [0, 0.75]],
  shear: [[1, 1], [0, 1]],
  flip: [[0, 1], [1, 0]],
  flat: [[1, 0.5], [0.5, 0.25]],
};
const SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1]];
const LOG_2PI = Math.log(2 * Math.PI);

const apply = (a, [x, y]) => [a[0][0] * x + a[0][1] * y, a[1][0] * x + a[1][1] * y];
const determinant = (a) => a[0][0] * a[1][1] - a[0][1] * a[1][0];

function measure(a, point) {
  const det = determinant(a);
  const z = apply(a, point);
  const log_det = Math.log(Math.abs(det));
  const log_pz = -0.5 * (z[0] * z[0] + z[1] * z[1]) - LOG_2PI;
  return { det, area: Math.abs(det), log_det, log_pz, log_px: log_pz + log_det, z };
}

// How far A is from keeping all lengths and angles.
function distortion(a) {
  const [[p, q], [r, s]] = a;
  return Math.max(Math.abs(p * p + r * r - 1), Math.abs(q * q + s * s - 1), Math.abs(p * q + r * s));
}

const circle = (radius) =>
  Array.from({ length: 73 }, (_, i) => [radius * Math.cos((i * Math.PI) / 36), radius * Math.sin((i * Math.PI) / 36)]);

function gridLines(half) {
  const lines = [];
  for (let k = -half; k <= half; k++) lines.push([[k, -half], [k, half]], [[-half, k], [half, k]]);
  return lines;
}

function render({ model, el }) {
  const start = { matrix: model.get("matrix"), point: model.get("point") };
  const read = () => model.get("matrix");
  const write = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
  const setEntry = (i, j, value) =>
    write({ matrix: read().map((row, r) => row.map((v, c) => (r === i && c === j ? value : v))) });
  const setColumn = (j, [top, bottom]) =>
    write({ matrix: read().map((row, r) => row.map((v, c) => (c === j ? [top, bottom][r] : v))) });

  const data = plane(3, "Data space: a square, and the density that the map gives it");
  const latent = plane(3, "Latent space: the square's image and the standard normal");
  const stroke = (color, width, more = {}) => ({ fill: "none", stroke: color, "stroke-width": width, ...more });
  const add = (panel, attributes) => panel.add("path", attributes);

  add(data, stroke("var(--fl-data)", 0.8, { opacity: 0.35, d: gridLines(3).map((l) => data.path(l)).join("") }));
  const ellipses = [1, 2].map(() => add(data, stroke("var(--fl-data)", 1.6, { opacity: 0.9 })));
  add(data, { d: data.path(SQUARE, true), fill: "var(--fl-data)", "fill-opacity": 0.35, stroke: "var(--fl-data)", "stroke-width": 2 });

  const image = add(latent, stroke("var(--fl-data)", 0.8, { opacity: 0.45 }));
  for (const radius of [1, 2]) add(latent, stroke("var(--fl-latent)", 1.6, { d: latent.path(circle(radius), true) }));
  const body = add(latent, { fill: "var(--fl-data)", "fill-opacity": 0.35, stroke: "var(--fl-data)", "stroke-width": 2 });
  const arrows = [0, 1].map(() => add(latent, stroke("var(--fl-ink)", 3, { "stroke-linecap": "round" })));
  const names = [1, 2].map((j) => {
    const text = make("svg:text", { class: "fl-math" }, "a", make("svg:tspan", { dy: 4, "font-size": 11 }, `${j}`));
    latent.svg.append(text);
    return text;
  });
  const zDot = latent.svg.appendChild(make("svg:circle", { r: 6, fill: "var(--fl-latent)", stroke: "var(--fl-panel)", "stroke-width": 2 }));
  const label = (panel, text) => panel.svg.appendChild(make("svg:text", { class: "fl-math" }, text));
  const [xName, zName] = [label(data, "x"), label(latent, "z")];

  const drawHandles = [
    ...[0, 1].map((j) =>
      handle(latent, {
        name: `column-${j + 1}`, label: `Column ${j + 1} of the matrix`, color: "var(--fl-ink)",
        get: () => read().map((row) => row[j]), move: (p) => setColumn(j, p),
      })),
    handle(data, {
      name: "point", label: "The point x", color: "var(--fl-data)",
      get: () => model.get("point"), move: (point) => write({ point }),
    }),
  ];
  const entries = [[0, 0], [0, 1], [1, 0], [1, 1]].map(([i, j]) =>
    slider({
      name: `a${i + 1}${j + 1}`, symbol: ["a", sub(`${i + 1}${j + 1}`)],
      label: `Matrix entry, row ${i + 1}, column ${j + 1}`,
      min: -3, max: 3, step: 0.05, get: () => read()[i][j], set: (v) => setEntry(i, j, v),
    }));

  const sum = ledger([-6, 2], [
    { name: "det", text: ["det A"] },
    { name: "area", text: ["area"] },
    { name: "log_pz", text: ["log ", "p", sub("Z"), "(z)"], color: "var(--fl-latent)" },
    { name: "log_det", text: ["+ log |det A|"], color: "var(--fl-third)" },
    { name: "log_px", text: ["= log p(x)"], color: "var(--fl-data)" },
  ]);
  const say = make("p", { class: "fl-say" });
  const shear = task("shear", "Make the determinant 1 without a rotation.");

  el.replaceChildren(
    make("div", { class: "fl-panels" },
      make("div", {}, panelTitle("var(--fl-data)", "data x"), data.svg),
      make("div", {}, panelTitle("var(--fl-latent)", "latent z = A x"), latent.svg)),
    make("div", { class: "fl-sliders" }, ...entries.map((e) => e.node)),
    sum.node,
    say,
    shear.node,
    make("div", { class: "fl-row" },
      ...Object.entries(PRESETS).map(([name, matrix]) => button(name, { "data-preset": name }, () => write({ matrix }))),
      button("reset", { "data-action": "reset" }, () => write(start))),
  );

  function draw() {
    const [a, point] = [read(), model.get("point")];
    const m = measure(a, point);
    sum.draw(m);
    Object.assign(el.dataset, { matrix: a.flat().join(","), point: point.join(",") });

    put(image, { d: gridLines(3).map((line) => latent.path(line.map((p) => apply(a, p)))).join("") });
    put(body, { d: latent.path(SQUARE.map((p) => apply(a, p)), true) });
    arrows.forEach((arrow, j) => put(arrow, { d: latent.path([[0, 0], a.map((row) => row[j])]) }));
    names.forEach((text, j) => {
      const [x, y] = latent.at(a.map((row) => row[j]));
      put(text, { x: Math.min(x + 11, 296), y: Math.max(y - 11, 18) });
    });
    // The points that land on a circle: A's inverse carries it back as an ellipse.
    const back = [[a[1][1] / m.det, -a[0][1] / m.det], [-a[1][0] / m.det, a[0][0] / m.det]];
    ellipses.forEach((path, i) =>
      put(path, { d: m.area > 1e-6 ? data.path(circle(i + 1).map((p) => apply(back, p)), true) : "" }));
    const [zx, zy] = latent.at(m.z);
    put(zDot, { cx: zx, cy: zy });
    put(zName, { x: zx + 10, y: zy + 5 });
    const [px, py] = data.at(point);
    put(xName, { x: px + 12, y: py + 5 });

    const times = m.area >= 1 ? `${show(m.area)} times larger` : `${show(1 / m.area)} times smaller`;
    say.textContent =
      m.area < 1e-9
        ? "The square is flat: two different x share one z, and there is no density to speak of."
        : `The square becomes ${Math.abs(m.area - 1) < 0.005 ? "no larger and no smaller" : times}` +
          `${m.det < 0 ? ", and is turned over, which no density can see" : ""}: ` +
          `the density of x is that of z times ${show(m.area)}.`;
    const [one, bent] = [Math.abs(m.det - 1) < 0.02, distortion(a) > 0.1];
    shear.draw(one && bent, one
      ? bent
        ? "Done: the square has lost its shape and kept its area."
        : "The determinant is 1, but lengths and angles are all kept: that is a rotation."
      : `The determinant is ${show(m.det)}.`);
    entries.forEach((e) => e.draw());
    drawHandles.forEach((redraw) => redraw());
  }
  return frame(el, model, ["matrix", "point"], draw);
}

export default { render };
