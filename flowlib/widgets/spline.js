// SplineExplorer: a rising curve of rational-quadratic pieces, whose knots and slopes are moved by hand.

const TRAITS = ["knots", "slopes", "probe", "chosen"];
const WORK = ["knots", "slopes", "probe"];
const BOUND = 3; // where the curve ends; beyond it is the identity
const GAP = 0.1; // no two knots come closer, in x or in z
const SLOPES = [0.05, 8];
const SLANT = [26, 38]; // pixels from a knot to the end of its tangent, which is taken; less on a phone
const CURVES = {
  identity: { knots: [[-2, -2], [-1, -1], [0, 0], [1, 1], [2, 2]], slopes: [1, 1, 1, 1, 1] },
  step: { knots: [[-1.6, -2], [-0.6, -1.6], [0, 0], [0.6, 1.6], [1.6, 2]], slopes: [0.4, 0.6, 5, 0.6, 0.4] },
  gap: { knots: [[-2, -1.8], [-1.2, -0.4], [0, 0], [1.2, 0.4], [2, 1.8]], slopes: [1.4, 0.9, 0.12, 0.9, 1.4] },
  skew: { knots: [[-2.4, -2.6], [-1.5, -1], [-0.6, 0.2], [0.6, 1], [1.8, 1.7]], slopes: [1.5, 1.6, 1, 0.6, 0.6] },
};

// --- the curve --------------------------------------------------------------------------------

// The map through the knots, and the identity beyond the bound: x to [f(x), f′(x)], and z back to x.
function curve(knots, slopes) {
  const ends = [[-BOUND, -BOUND], ...knots, [BOUND, BOUND]];
  const leans = [1, ...slopes, 1];
  const piece = (v, axis) => {
    let k = 0;
    while (k < knots.length && v >= ends[k + 1][axis]) k++;
    const [[x, z], [right, high]] = [ends[k], ends[k + 1]];
    const [width, height] = [right - x, high - z];
    return { x, z, width, height, slope: height / width, first: leans[k], last: leans[k + 1] };
  };
  const at = (v) => {
    if (Math.abs(v) >= BOUND) return [v, 1];
    const { x, z, width, height, slope, first, last } = piece(v, 0);
    const t = (v - x) / width;
    const both = t * (1 - t);
    const below = slope + (first + last - 2 * slope) * both;
    const above = last * t * t + 2 * slope * both + first * (1 - t) ** 2;
    return [z + (height * (slope * t * t + first * both)) / below, (slope * slope * above) / (below * below)];
  };
  const inverse = (v) => {
    if (Math.abs(v) >= BOUND) return v;
    const { x, z, width, height, slope, first, last } = piece(v, 1);
    const up = v - z;
    const bend = up * (first + last - 2 * slope);
    const [a, b, c] = [height * (slope - first) + bend, height * first - bend, -slope * up];
    return x + (width * 2 * c) / (-b - Math.sqrt(Math.max(0, b * b - 4 * a * c)));
  };
  return { at, inverse, way: 1, flat: [false, false] };
}

// A knot moved as far as its neighbours let it, to the right and up.
function moved(knots, k, point) {
  const ends = [[-BOUND, -BOUND], ...knots, [BOUND, BOUND]];
  const to = point.map((v, i) => {
    const [low, high] = [ends[k][i] + GAP, ends[k + 2][i] - GAP];
    return low > high ? knots[k][i] : clamp(v, [low, high]); // set from Python, closer than a hand may
  });
  return knots.map((knot, i) => (i === k ? to : knot));
}

// How many hills the density has, if a valley must be 30 % lower than the hills beside it.
const DEEP = 0.7;
function hillsOf(p) {
  const least = 0.1 * Math.max(...p);
  let [count, rising, extreme] = [0, true, 0];
  for (const v of p) {
    if (rising ? v > extreme : v < extreme) extreme = v;
    else if (rising && v < DEEP * extreme && extreme > least) [count, rising, extreme] = [count + 1, false, v];
    else if (!rising && v > extreme / DEEP) [rising, extreme] = [true, v];
  }
  return count;
}

const NUMBERS = ["no", "one", "two", "three", "four", "five", "six"];
function judgeThree(count) {
  if (count >= 3)
    return [true, `Done: ${NUMBERS[count]} hills from one bell. A line, $z = ax + b$, can only make it wider and move it.`];
  return [false, `So far they have ${NUMBERS[count]}. A valley counts where it is 30 % lower than the hills beside it.`];
}

// --- the view ---------------------------------------------------------------------------------

function render({ model, el }) {
  const page = openPage(el, model, TRAITS, WORK);
  const { get, set } = page;
  const setSlope = (v) => set({ slopes: get("slopes").map((old, i) => (i === get("chosen") ? clamp(v, SLOPES) : old)) });
  const named = (k) => `knot ${k + 1}`;

  // Each knot is a handle; of the chosen one the tangent's end is another, which turns it.
  const hands = (it) => {
    const ways = (k) => {
      const [[x0, y0], [x1, y1]] = [[0, 0], [1, get("slopes")[k]]].map(it.at);
      const length = Math.hypot(x1 - x0, y1 - y0);
      return [(x1 - x0) / length, (y1 - y0) / length];
    };
    const tip = (k, far) => it.at(get("knots")[k]).map((v, i) => v + far * ways(k)[i]);
    const tangents = get("knots").map(() => it.add("path", line("var(--fl-ink)", 2, { "stroke-linecap": "round" })));
    const unit = it.at([0, 0])[1] - it.at([0, 1])[1]; // pixels of a z
    const wide = it.at([1, 0])[0] - it.at([0, 0])[0];
    const slant = clamp(0.72 * wide, SLANT);
    const place = () => {
      const [px, py] = tip(get("chosen"), slant);
      const [ox, oy] = it.at([0, 0]);
      return [(px - ox) / wide, (oy - py) / unit];
    };
    const knots = get("knots").map((_, k) => {
      const hand = handle(it, {
        name: `knot-${k + 1}`, label: named(k), color: "var(--fl-third)", range: [-BOUND, BOUND],
        get: () => get("knots")[k], move: (point) => set({ knots: moved(get("knots"), k, point), chosen: k }),
      });
      hand.node.addEventListener("focus", () => set({ chosen: k }));
      return hand;
    });
    const turn = grip(it, {
      name: "slope", label: "The slope at the chosen knot", color: "var(--fl-ink)", range: SLOPES, up: true,
      get: () => get("slopes")[get("chosen")], set: setSlope, place,
      found: ([x, z]) => {
        const [x0, z0] = get("knots")[get("chosen")];
        return (z - z0) / Math.max(x - x0, 0.01);
      },
      nudge: (v, count) => v * 1.1 ** count,
    });
    const draw = () => {
      tangents.forEach((path, k) => {
        const far = k === get("chosen") ? slant : 20;
        const [ends, width] = [[tip(k, -far), tip(k, far)], k === get("chosen") ? 2.4 : 1.4];
        put(path, { d: pixelPath(ends), "stroke-width": width, opacity: k === get("chosen") ? 1 : 0.55 });
      });
      knots.forEach((hand) => hand.draw());
      turn.draw();
    };
    return [{ draw }];
  };

  const steep = logSlider({
    name: "slope", symbol: ["slope"], label: "The slope at the chosen knot", min: SLOPES[0], max: SLOPES[1],
    get: () => get("slopes")[get("chosen")], set: setSlope,
  });
  const which = choice(
    get("knots").map((_, k) => [`${k + 1}`, k, { "data-knot": k, "aria-label": named(k) }]),
    () => get("chosen"), (chosen) => set({ chosen }));
  const presets = Object.fromEntries(Object.entries(CURVES).map(([name, state]) => [name, () => structuredClone(state)]));
  const board = lineBoard(page, {
    traits: TRAITS, name: math("z = f(x)"), presets,
    read: () => curve(get("knots"), get("slopes")), hands,
    turn: task(page, "three", "Make three hills out of the one bell at the left.", judgeThree(1)[1]), judge: (p) => judgeThree(hillsOf(p)),
    extras: [
      { node: make("div", { class: "fl-row fl-knots" }, make("span", {}, "knot"), ...which.nodes), draw: which.draw },
      { node: make("div", { class: "fl-steep" }, steep.node), draw: steep.draw },
    ],
  });
  el.replaceChildren(board.node);
  return page.run((width) => {
    board.draw(width);
    mirror(el, page.state());
  });
}

export default { render };
