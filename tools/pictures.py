"""Draw the six pictures of the landing page, one per method.

Run ``python tools/pictures.py``: it writes six SVG files into ``book/assets/pictures/``.  They are
meant to be inlined into the page, so every colour is a CSS variable of the page with a fallback.
Nothing is traced by hand: each picture shows numbers that numpy computes here.  All random draws
are seeded and all numbers are rounded, so that a second run writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parent.parent / "book" / "assets" / "pictures"

WIDTH, HEIGHT = 320, 200

# The page's colours: data space, latent space, a model's third thing, and three neutrals.
DATA = "var(--fl-data,#D55E00)"
LATENT = "var(--fl-latent,#0072B2)"
THIRD = "var(--fl-third,#009E73)"
INK = "var(--fl-ink,#444)"
FAINT = "var(--fl-faint,#bbb)"
PANEL = "var(--fl-panel,#f6f6f4)"

# Three stroke widths serve all six pictures.
THIN, LINE, BOLD = 1.2, 1.7, 2.4

Point = tuple[float, float]


# --- A small vocabulary of SVG ---------------------------------------------------------------


def num(value: float) -> str:
    """Write a coordinate with at most one decimal, and never a negative zero."""
    text = f"{float(value):.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def style(
    stroke: str | None = None,
    width: float = LINE,
    fill: str = "none",
    dash: str = "",
    opacity: float = 1.0,
    fill_opacity: float = 1.0,
) -> str:
    """Return a style attribute; a style, unlike an attribute, takes var() in every browser."""
    parts = [f"fill:{fill}"]
    if fill_opacity != 1.0:
        parts.append(f"fill-opacity:{fill_opacity:g}")
    if stroke:
        parts += [f"stroke:{stroke}", f"stroke-width:{width:g}"]
    if dash:
        parts.append(f"stroke-dasharray:{dash}")
    if opacity != 1.0:
        parts.append(f"opacity:{opacity:g}")
    return f'style="{";".join(parts)}"'


def path_data(points: Iterable[Point], closed: bool = False) -> str:
    """Return the path commands of a polyline."""
    body = "L".join(f"{num(x)} {num(y)}" for x, y in points)
    return f"M{body}{'Z' if closed else ''}"


def path(d: str, **look: object) -> str:
    return f'<path d="{d}" {style(**look)}/>'


def polyline(points: Iterable[Point], closed: bool = False, **look: object) -> str:
    return path(path_data(points, closed), **look)


def segments(pairs: Iterable[tuple[Point, Point]], **look: object) -> str:
    """Draw many separate line segments as one path."""
    return path("".join(path_data(pair) for pair in pairs), **look)


def dots(points: Iterable[Point], diameter: float, colour: str, **look: object) -> str:
    """Draw many dots as one path of zero-length strokes, whose round caps are the dots."""
    d = "".join(f"M{num(x)} {num(y)}h0" for x, y in points)
    return path(d, stroke=colour, width=diameter, **look)


def circle(x: float, y: float, r: float, **look: object) -> str:
    return f'<circle cx="{num(x)}" cy="{num(y)}" r="{num(r)}" {style(**look)}/>'


def rect(x: float, y: float, w: float, h: float, r: float = 0.0, **look: object) -> str:
    corner = f' rx="{num(r)}"' if r else ""
    size = f'width="{num(w)}" height="{num(h)}"'
    return f'<rect x="{num(x)}" y="{num(y)}" {size}{corner} {style(**look)}/>'


def letter(x: float, y: float, text: str, colour: str = INK, sub: str = "", size: int = 17) -> str:
    """Write a mathematical letter in serif italic, with an upright subscript if there is one."""
    font = f"font:italic {size}px KaTeX_Math,'Times New Roman',Tinos,serif"
    if sub:
        small = f"font:{max(size - 4, 13)}px KaTeX_Main,'Times New Roman',Tinos,serif"
        text += f'<tspan dx="1" dy="4" style="{small}">{sub}</tspan>'
    where = f'x="{num(x)}" y="{num(y)}" text-anchor="middle"'
    return f'<text {where} style="fill:{colour};stroke:none;{font}">{text}</text>'


def digit(x: float, y: float, text: str, colour: str) -> str:
    """Write an upright digit centred on a point."""
    font = "font:13px KaTeX_Main,'Times New Roman',Tinos,serif"
    where = f'x="{num(x)}" y="{num(y + 4.3)}" text-anchor="middle"'
    return f'<text {where} style="fill:{colour};stroke:none;{font}">{text}</text>'


def arrowhead(tip: Point, direction: Point, colour: str, size: float = 6.0) -> str:
    """Draw an open arrowhead at ``tip``, pointing along ``direction``."""
    along = np.asarray(direction, float) / np.hypot(*direction)
    across = np.array([-along[1], along[0]])
    back = np.asarray(tip) - size * along
    wing = 0.62 * size * across
    return polyline([back + wing, tip, back - wing], stroke=colour, width=LINE)


def arrow(start: Point, tip: Point, colour: str, width: float = LINE, size: float = 6.0) -> str:
    direction = (tip[0] - start[0], tip[1] - start[1])
    line = polyline([start, tip], stroke=colour, width=width)
    return line + arrowhead(tip, direction, colour, size)


def svg(label: str, parts: Iterable[str]) -> str:
    """Wrap the parts of one picture."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'class="fl-picture" role="img" aria-label="{label}">'
    )
    group = '<g stroke-linecap="round" stroke-linejoin="round">'
    return "\n".join([head, group, *parts, "</g>", "</svg>"]) + "\n"


# --- 1: change of variables ------------------------------------------------------------------


def change_of_variables() -> str:
    """A grid, its image under a smooth map, and how one cell's area changes."""
    side, cells = 122.0, 4
    top = (HEIGHT - side) / 2
    cell = np.array([2, 1])  # the filled cell: its column and its row

    def warp(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Map the unit square one to one: swell the middle, then bend and shear it."""
        a, b = 2 * u - 1, 2 * v - 1
        x = a + 0.25 * np.sin(np.pi * a) * np.cos(np.pi * b / 2)
        y = b + 0.23 * np.sin(np.pi * b) * np.cos(np.pi * a / 2)
        x, y = x + 0.16 * y**2 + 0.12 * y - 0.06, y - 0.20 * x**2 - 0.10 * x + 0.12
        return np.stack([0.5 + 0.45 * x, 0.5 + 0.45 * y], axis=-1)

    def left(p: np.ndarray) -> np.ndarray:
        return np.array([16.0, top]) + side * p

    def right(p: np.ndarray) -> np.ndarray:
        return np.array([WIDTH - 16.0 - side, top]) + side * p

    t = np.linspace(0, 1, 31)
    knots = np.linspace(0, 1, cells + 1)
    before, after = "", ""
    for k in knots:
        for u, v in ((np.full_like(t, k), t), (t, np.full_like(t, k))):
            line = np.stack([u, v], axis=-1)
            before += path_data(left(line[[0, -1]]))
            after += path_data(right(warp(u, v)))

    # The cell's outline, its image, and the parallelogram that the Jacobian makes of it.
    h = 1 / cells
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    loop = np.concatenate([np.linspace(a, b, 13)[:-1] for a, b in pairwise(corners)])
    loop = (loop + cell) * h
    image = warp(loop[:, 0], loop[:, 1])
    base = cell * h
    centre = base + h / 2
    eps = 1e-5
    jacobian = np.stack(
        [(warp(*(centre + eps * e)) - warp(*(centre - eps * e))) / (2 * eps) for e in np.eye(2)],
        axis=-1,
    )
    tangent = warp(*centre) + h * (corners[:-1] - 0.5) @ jacobian.T
    assert np.linalg.det(jacobian) > 1.5

    return svg(
        "A square grid in data space is bent by a map f, and one filled cell becomes a larger cell "
        "close to a parallelogram.",
        [
            rect(*left(base), h * side, h * side, fill=DATA, fill_opacity=0.55),
            path(before, stroke=DATA, width=THIN),
            polyline(right(image), closed=True, fill=LATENT, fill_opacity=0.45),
            path(after, stroke=LATENT, width=THIN),
            rect(*left(base), h * side, h * side, stroke=DATA, width=BOLD),
            polyline(right(image), closed=True, stroke=LATENT, width=2.0),
            polyline(right(tangent), closed=True, stroke=THIRD, width=BOLD, dash="5 4.5"),
            path("M147 96C155 85 169 85 178 94", stroke=INK, width=LINE),
            arrowhead((178.5, 94.6), (1, 1.15), INK),
            letter(162.5, 78, "f"),
        ],
    )


# --- 2: RealNVP ------------------------------------------------------------------------------


def two_moons(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw two interleaved half circles with a little noise."""
    angle = rng.uniform(0, np.pi, n)
    upper = np.arange(n) % 2 == 0
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    return np.stack([x, y], axis=-1) + rng.normal(0, 0.08, (n, 2))


def realnvp() -> str:
    """One affine coupling: x1 passes, and x2 is scaled and shifted by functions of x1."""
    rng = np.random.default_rng(2)
    sample = two_moons(6000, rng)
    shown = two_moons(230, rng)

    # The best affine coupling takes from x2 its conditional mean and deviation given x1, which
    # a kernel regression on a large sample gives.
    weight = np.exp(-0.5 * ((shown[:, :1] - sample[:, 0]) / 0.12) ** 2)
    weight /= weight.sum(axis=1, keepdims=True)
    mean = weight @ sample[:, 1]
    deviation = np.sqrt(weight @ sample[:, 1] ** 2 - mean**2)
    z2 = (shown[:, 1] - mean) / deviation

    w, h, margin = 106.0, 136.0, 14.0
    top = (HEIGHT - h) / 2
    right = WIDTH - margin - w

    def place(x0: float, x: np.ndarray, y: np.ndarray, limit: float, mid: float) -> np.ndarray:
        px = x0 + w / 2 + (x - 0.5) / 1.75 * (w / 2 - 8)
        py = top + h / 2 - (y - mid) / limit * (h / 2 - 8)
        return np.stack([px, py], axis=-1)

    # One strip of x1 is followed across the layer: it stays, its points move within it.
    strip = np.abs(shown[:, 0] + 0.72) < 0.15
    edge = place(0.0, np.array([-0.87, -0.57]), np.zeros(2), 1, 0)[:, 0]
    parts = []
    for x0, y, limit, mid, colour in (
        (margin, shown[:, 1], 1.15, 0.25, DATA),
        (right, z2, 2.5, 0.0, LATENT),
    ):
        points = place(x0, shown[:, 0], y, limit, mid)
        keep = (points[:, 1] > top + 3) & (points[:, 1] < top + h - 3)
        parts += [
            rect(x0, top, w, h, r=7, fill=PANEL, stroke=FAINT, width=THIN),
            rect(x0 + edge[0], top, edge[1] - edge[0], h, fill=THIRD, fill_opacity=0.22),
            dots(points[keep & ~strip], 3.2, colour),
            dots(points[keep & strip], 4.4, THIRD),
        ]

    # The layer: two lanes, and a box that reads x1 and sets the scale and the shift of x2.
    lane1, lane2 = top + 36, top + h - 32
    a, b = margin + w, right
    times, plus, r = 147.0, 173.0, 7.5
    box_top, box_h = 93.0, 20.0
    middle = (times + plus) / 2
    parts += [
        arrow((a + 3, lane1), (b - 3, lane1), INK),
        segments(
            [
                ((a + 3, lane2), (times - r, lane2)),
                ((times + r, lane2), (plus - r, lane2)),
            ],
            stroke=INK,
        ),
        arrow((plus + r, lane2), (b - 3, lane2), INK),
        polyline([(middle, lane1), (middle, box_top)], stroke=THIRD, width=LINE),
        dots([(middle, lane1)], 6, THIRD),
        segments(
            [((c, box_top + box_h), (c, lane2 - r)) for c in (times, plus)],
            stroke=THIRD,
        ),
        rect(times - 9, box_top, plus - times + 18, box_h, r=5, fill=PANEL, stroke=THIRD),
        letter(times, box_top + 14.3, "s", THIRD),
        letter(plus, box_top + 14.3, "t", THIRD),
    ]
    q = 3.3
    for c in (times, plus):
        parts.append(circle(c, lane2, r, stroke=INK, fill=PANEL))
    d = 0.75 * q
    parts.append(
        segments(
            [
                ((times - d, lane2 - d), (times + d, lane2 + d)),
                ((times - d, lane2 + d), (times + d, lane2 - d)),
                ((plus - q, lane2), (plus + q, lane2)),
                ((plus, lane2 - q), (plus, lane2 + q)),
            ],
            stroke=INK,
        )
    )
    parts += [
        letter(a + 16, lane1 - 9, "x", sub="1"),
        letter(a + 16, lane2 + 20, "x", sub="2"),
    ]
    return svg(
        "Two moons pass one coupling layer: the first coordinate goes straight through and sets "
        "how the second is scaled and shifted.",
        parts,
    )


# --- 3: MADE ---------------------------------------------------------------------------------


def made() -> str:
    """A masked network; what output 3 can see is drawn in green."""
    inputs = np.arange(1, 5)
    degrees = np.array([1, 1, 2, 2, 2, 3, 3])
    mask_w = degrees[:, None] >= inputs[None, :]  # hidden k sees input d
    mask_v = inputs[:, None] > degrees[None, :]  # output d sees hidden k

    chosen = 3
    seen_hidden = mask_v[chosen - 1]
    seen_input = (mask_w & seen_hidden[:, None]).any(axis=0)

    xs = (42.0, 160.0, 278.0)
    y_io = HEIGHT / 2 + 44.0 * (inputs - inputs.mean())
    y_hidden = HEIGHT / 2 + 25.5 * (np.arange(7) - 3)
    r = 10.5

    live, lit = [], []
    for k, d in np.argwhere(mask_w):
        pair = ((xs[0] + r, y_io[d]), (xs[1] - r, y_hidden[k]))
        (lit if seen_hidden[k] else live).append(pair)
    for d, k in np.argwhere(mask_v):
        pair = ((xs[1] + r, y_hidden[k]), (xs[2] - r, y_io[d]))
        (lit if d == chosen - 1 else live).append(pair)

    parts = [
        segments(live, stroke=FAINT, width=THIN),
        segments(lit, stroke=THIRD, width=2.0),
    ]

    def node(x: float, y: float, text: int, colour: str, filled: bool) -> None:
        parts.append(circle(x, y, r, stroke=colour, fill=colour if filled else PANEL))
        parts.append(digit(x, y, str(text), PANEL if filled else colour))

    for d in range(4):
        node(xs[0], y_io[d], d + 1, DATA, bool(seen_input[d]))
        is_chosen = d == chosen - 1
        node(xs[2], y_io[d], d + 1, THIRD if is_chosen else INK, is_chosen)
    for k in range(7):
        node(xs[1], y_hidden[k], degrees[k], THIRD if seen_hidden[k] else INK, False)
    return svg(
        "A network with four inputs, seven hidden units and four outputs, whose masks let output "
        "3 see only inputs 1 and 2.",
        parts,
    )


# --- 4: MAF and IAF --------------------------------------------------------------------------


def maf_iaf() -> str:
    """To draw a sample, MAF needs one pass for each coordinate and IAF one pass in all."""
    size = 5
    rng = np.random.default_rng(4)
    lower = np.tril(rng.normal(0, 0.8, (size, size)), -1)
    z = rng.normal(size=size)

    def scale_shift(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.exp(0.5 * np.tanh(lower @ v)), lower @ v

    # MAF solves x = s(x) z + t(x) by passes from zero.  We keep which coordinates are final.
    passes = [np.zeros(size)]
    for _ in range(2 * size):
        s, t = scale_shift(passes[-1])
        passes.append(s * z + t)
    final = np.abs(np.array(passes[1 : size + 1]) - passes[-1]) < 1e-12
    assert (final == np.tril(np.ones((size, size), bool))).all()

    rows = HEIGHT / 2 + 25.0 * (np.arange(size) - 2)
    r = 6.0
    maf_z, maf_x = 24.0, 59.0 + 27.0 * np.arange(size)
    iaf_z, iaf_x = 234.0, 296.0
    fans, parts = [], []

    # MAF: coordinate d of pass d reads z_d and the earlier coordinates of the pass before.
    wires = [((maf_z + r, rows[d]), (maf_x[d] - r, rows[d])) for d in range(size)]
    for d in range(1, size):
        for e in range(d):
            fans.append((e, d))
    maf_fans = [((maf_x[d - 1], rows[e]), (maf_x[d], rows[d])) for e, d in fans]
    # IAF: coordinate d reads z_d and the earlier coordinates of z, all known at once.
    iaf_fans = [((iaf_z, rows[e]), (iaf_x, rows[d])) for e, d in fans]
    iaf_wires = [((iaf_z + r, y), (iaf_x - r, y)) for y in rows]

    parts += [
        polyline([(202, 22), (202, HEIGHT - 22)], stroke=FAINT, width=THIN),
        segments(wires + iaf_wires, stroke=LATENT, width=THIN, opacity=0.55),
        segments(maf_fans + iaf_fans, stroke=THIRD, width=THIN),
    ]
    for y in rows:
        parts.append(circle(maf_z, y, r, stroke=LATENT, fill=LATENT))
        parts.append(circle(iaf_z, y, r, stroke=LATENT, fill=LATENT))
        parts.append(circle(iaf_x, y, r, stroke=DATA, fill=DATA))
    for k in range(size):
        for d in range(size):
            known = final[k, d]
            look = {"stroke": DATA, "fill": DATA} if known else {"stroke": FAINT, "fill": PANEL}
            parts.append(circle(maf_x[k], rows[d], r, **look))

    # Under each side a clock: one tick for each pass.
    base = 179.0
    ticks = [((x, base - 4), (x, base + 4)) for x in [maf_z, *maf_x, iaf_z, iaf_x]]
    parts += [
        polyline([(maf_z, base), (maf_x[-1], base)], stroke=INK),
        polyline([(iaf_z, base), (iaf_x, base)], stroke=INK),
        segments(ticks, stroke=INK),
        letter(maf_z, 31, "z", LATENT),
        letter(maf_x[-1], 31, "x", DATA),
        letter(iaf_z, 31, "z", LATENT),
        letter(iaf_x, 31, "x", DATA),
    ]
    return svg(
        "On the left five coordinates of a sample become known one by one in five passes; on the "
        "right all five become known in a single pass.",
        parts,
    )


# --- 5: i-ResNet -----------------------------------------------------------------------------


def iresnet() -> str:
    """A cobweb: iterating y -> z - g(y) winds in to the fixed point, the inverse of z."""
    z, lipschitz, start = 0.5, 0.88, -1.3

    def step(y: np.ndarray | float) -> np.ndarray | float:
        return z - lipschitz * np.tanh(y)

    unit = 73.0  # the same on both axes
    y_min, y_max = -1.9, 2.1
    v_min, v_max = -0.98, 1.32

    def at(y: float, value: float) -> Point:
        return WIDTH / 2 + unit * (y - 0.1), HEIGHT / 2 - unit * (value - 0.17)

    y, web = start, [at(start, 0.0)]
    for _ in range(40):
        new = step(y)
        web += [at(y, new), at(new, new)]
        y = new
    fixed = y
    for _ in range(2000):
        fixed = step(fixed)
    # The last turns would lie under the dot of the fixed point.
    shown = [p for p in web if np.hypot(*np.subtract(p, at(fixed, fixed))) > 6.5]

    ys = np.linspace(y_min, y_max, 81)
    curve = [at(v, step(v)) for v in ys]
    parts = [
        segments(
            [
                (at(y_min, 0), at(y_max, 0)),
                (at(0, v_min), at(0, v_max)),
            ],
            stroke=FAINT,
            width=THIN,
        ),
        polyline([at(v_min, v_min), at(v_max, v_max)], stroke=INK, width=LINE),
        polyline([at(-0.62, z), at(0, z)], stroke=LATENT, width=LINE, dash="3 4"),
        polyline([at(fixed, -0.55), at(fixed, fixed)], stroke=DATA, width=LINE, dash="3 4"),
        polyline(curve, stroke=LATENT, width=BOLD),
        polyline(shown, stroke=THIRD, width=LINE),
    ]
    # Arrowheads in the middle of the first, long legs.
    for a, b in list(pairwise(shown))[:4]:
        direction = (b[0] - a[0], b[1] - a[1])
        unit_along = np.asarray(direction) / np.hypot(*direction)
        tip = (np.asarray(a) + np.asarray(b)) / 2 + 3 * unit_along
        parts.append(arrowhead(tuple(tip), direction, THIRD))
    x_start, x_fixed = at(start, 0), at(fixed, fixed)
    parts += [
        circle(*x_start, 4.5, stroke=DATA, width=BOLD, fill=PANEL),
        circle(*at(0, z), 4.5, stroke=LATENT, width=BOLD, fill=PANEL),
        circle(*x_fixed, 5.5, stroke=DATA, fill=DATA),
        letter(at(-0.76, z)[0], at(0, z)[1] + 4, "z", LATENT),
        letter(x_fixed[0], at(0, -0.78)[1], "x", DATA),
    ]
    return svg(
        "A cobweb between a falling curve and the diagonal winds inwards to the point where they "
        "cross, which is the inverse of z.",
        parts,
    )


# --- 6: Residual Flow ------------------------------------------------------------------------


def residual_flow() -> str:
    """The log-determinant as a series, cut off at random and weighted to stay right on average."""
    eigenvalues = np.array([0.86, 0.70])
    count, sure, survive = 10, 3, 0.6
    k = np.arange(1, count + 1)
    terms = (-1.0) ** (k + 1) * (eigenvalues[:, None] ** k).sum(axis=0) / k
    exact = np.log1p(eigenvalues).sum()

    # Terms after the sure ones survive with probability 0.6 each; a survivor is divided by the
    # probability that the series has come so far.
    last = sure + 3
    weight = np.where(k <= sure, 1.0, survive ** -np.maximum(k - sure, 0.0))
    weighted = np.where(k <= last, terms * weight, 0.0)
    partial = np.cumsum(weighted)[:last]

    base, unit = 134.0, 68.0
    left, pitch, bar = 34.0, 28.0, 15.0
    xs = left + pitch * np.arange(count)

    def column(x: float, value: float, **look: object) -> str:
        height = abs(value) * unit
        return rect(x - bar / 2, base - height if value > 0 else base, bar, height, **look)

    divide = xs[sure - 1] + pitch / 2
    level = base - unit * exact
    parts = [
        rect(14, 16, divide - 14, HEIGHT - 32, r=7, fill=PANEL),
        polyline([(14, base), (WIDTH - 14, base)], stroke=FAINT, width=LINE),
    ]
    for i in range(count):
        if i < sure:
            parts.append(column(xs[i], terms[i], fill=LATENT, stroke=LATENT, width=THIN))
        elif i < last:
            parts.append(column(xs[i], terms[i], fill=LATENT, stroke=LATENT, width=THIN))
            parts.append(column(xs[i], weighted[i], stroke=THIRD, width=2.0))
        else:
            parts.append(column(xs[i], terms[i], fill=FAINT, stroke=FAINT, width=THIN))
            q, y = 5.0, base - np.sign(terms[i]) * unit * abs(terms[i]) / 2
            cross = [((xs[i] - q, y - q), (xs[i] + q, y + q))]
            cross.append(((xs[i] - q, y + q), (xs[i] + q, y - q)))
            parts.append(segments(cross, stroke=INK, width=LINE))
    path_points = list(zip(xs[:last], base - unit * partial, strict=True))
    parts += [
        polyline([(14, level), (WIDTH - 14, level)], stroke=DATA, width=THIN),
        polyline(path_points, stroke=DATA, width=LINE),
        dots(path_points, 8.5, DATA),
    ]
    return svg(
        "Bars of an alternating series shrink: three are sure, three more survive and are weighted "
        "up, the rest are struck out, and the running sums swing about the exact value.",
        parts,
    )


PICTURES: dict[str, Callable[[], str]] = {
    "1-change-of-variables": change_of_variables,
    "2-realnvp": realnvp,
    "3-made": made,
    "4-maf-iaf": maf_iaf,
    "5-iresnet": iresnet,
    "6-residual-flow": residual_flow,
}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        target = OUT / f"{name}.svg"
        target.write_text(draw(), encoding="utf-8", newline="\n")
        print(f"{target.name}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
