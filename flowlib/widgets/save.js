// An explorer as one SVG file: its drawings, its words and its bars, where they stand and as they look.

const LOOK = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linejoin", "stroke-linecap",
  "opacity", "paint-order", "text-anchor", "font-family", "font-size", "font-style", "font-weight",
];
const LEFT_OUT = ".fl-task, .fl-unseen, .fl-halo, .fl-more, button, input, select, script, style";

const pictureOf = (el) => {
  const outer = el.getBoundingClientRect();
  const place = (box) => ({ x: box.left - outer.left, y: box.top - outer.top, width: box.width, height: box.height });
  const parts = [];
  walk(el, (node) => {
    const box = node.getBoundingClientRect?.();
    if (node.nodeType === Node.TEXT_NODE) parts.push(...linesOf(node, place));
    else if (!box.width || !box.height) return false;
    else if (node instanceof SVGElement) parts.push(put(frozen(node), place(box)));
    else if (node instanceof HTMLImageElement) parts.push(make("svg:image", { ...place(box), href: node.src }));
    else if (node instanceof HTMLCanvasElement) parts.push(make("svg:image", { ...place(box), href: node.toDataURL() }));
    else {
      if (node !== el) parts.push(...boxOf(node, place(box)));
      return true;
    }
    return false;
  });
  const ends = parts.map((part) => Number(part.getAttribute("y")) + Number(part.getAttribute("height") ?? 0));
  const height = Math.ceil(Math.max(...ends) + 34);
  const { backgroundColor, color, fontFamily } = getComputedStyle(el);
  const from = make("svg:text", { x: 12, y: height - 12, "font-size": 12, "font-family": fontFamily, fill: color }, document.title);
  const sheet = make("svg:rect", { width: outer.width, height, fill: backgroundColor });
  return make("svg:svg", { xmlns: SVG, viewBox: `0 0 ${outer.width} ${height}`, width: outer.width, height }, sheet, ...parts, from);
};

// All nodes under one, from above to below, as far as `enter` says so.
function walk(node, enter) {
  for (const child of node.childNodes) {
    if (child.nodeType !== Node.TEXT_NODE && (child.nodeType !== Node.ELEMENT_NODE || child.matches(LEFT_OUT))) continue;
    if (enter(child)) walk(child, enter);
  }
}

// A copy of a drawing that needs no style sheet.
function frozen(svg) {
  const copy = svg.cloneNode(true);
  const [from, to] = [svg, copy].map((one) => [one, ...one.querySelectorAll("*")]);
  from.forEach((node, k) => {
    const look = getComputedStyle(node);
    for (const name of ["class", "style", "tabindex", "role"]) to[k].removeAttribute(name);
    for (const name of LOOK) to[k].setAttribute(name, look.getPropertyValue(name));
    if (look.visibility === "hidden" || look.display === "none" || node.matches(LEFT_OUT)) to[k].setAttribute("display", "none");
  });
  return copy;
}

// The lines of a text, one element each.
function linesOf(node, place) {
  const { fontFamily, fontSize, fontStyle, fontWeight, color } = getComputedStyle(node.parentElement);
  const [range, lines] = [document.createRange(), []];
  for (const { 0: word, index } of node.data.matchAll(/\S+\s*/g)) {
    range.setStart(node, index);
    range.setEnd(node, index + word.trimEnd().length);
    const box = place(range.getBoundingClientRect());
    const last = lines.at(-1);
    if (last && Math.abs(last.y - box.y) < 3) last.words += word;
    else if (box.width) lines.push({ ...box, words: word });
  }
  const style = { "font-family": fontFamily, "font-size": fontSize, "font-style": fontStyle, "font-weight": fontWeight, fill: color };
  const base = (line) => line.y + line.height / 2 + 0.35 * parseFloat(fontSize);
  return lines.map((line) => make("svg:text", { x: line.x, y: base(line), ...style }, line.words.trimEnd()));
}

// What is filled or framed: swatches, bars, cells.
function boxOf(node, box) {
  const { backgroundColor, borderTopWidth, borderTopColor, borderTopStyle, borderTopLeftRadius } = getComputedStyle(node);
  const edge = borderTopStyle !== "none" && parseFloat(borderTopWidth);
  if (!edge && /, 0\)$|transparent/.test(backgroundColor)) return [];
  const look = { fill: backgroundColor, rx: borderTopLeftRadius.endsWith("%") ? box.height / 2 : parseFloat(borderTopLeftRadius) };
  return [make("svg:rect", { ...box, ...look, ...(edge && { stroke: borderTopColor, "stroke-width": edge }) })];
}

function savePicture(el) {
  const text = new XMLSerializer().serializeToString(pictureOf(el));
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  make("a", { href: url, download: `${el.dataset.explorer ?? "explorer"}.svg` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
