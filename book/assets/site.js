// What the book's pages do themselves, after the theme's own scripts.

// Explorers: each has its still picture, and behind it its state; its kind's code has come before. One
// comes to life when a reader is less than a screen away, or when the address names it; each in a task
// of its own.
const waiting = new Set(document.querySelectorAll("[data-explorer]"));
const near = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => setTimeout(enliven, 0, entry.target)),
  { rootMargin: "100% 0px" },
);
function enliven(root) {
  if (!waiting.delete(root)) return;
  near.unobserve(root);
  bring(window.flExplorers[root.dataset.explorer], root, JSON.parse(root.nextElementSibling.textContent));
}
function enlivenNamed() {
  const [key] = location.hash.slice(1).split("=");
  for (const root of waiting) if (root.dataset.key === key) enliven(root);
}
for (const root of waiting) near.observe(root);
addEventListener("hashchange", enlivenNamed);
enlivenNamed();

// The contents mark the section that one is in.
const entries = new Map();
for (const link of document.querySelectorAll(".bd-sidebar-secondary nav a[href^='#']")) {
  const section = document.getElementById(decodeURIComponent(link.hash.slice(1)));
  if (section) entries.set(section, link);
}
function markSection() {
  const read = [...entries.keys()].filter((section) => section.getBoundingClientRect().top < 0.3 * innerHeight);
  const here = entries.get(read.at(-1));
  for (const link of entries.values()) {
    if (link === here) link.setAttribute("aria-current", "location");
    else link.removeAttribute("aria-current");
  }
}
let marking = 0;
addEventListener("scroll", () => (marking ||= requestAnimationFrame(() => ((marking = 0), markSection()))), { passive: true });
requestAnimationFrame(markSection); // not now: it would have the page laid out once more

// On paper everything is open, and comes back as it was.
let shut = [];
addEventListener("beforeprint", () => {
  shut = [...document.querySelectorAll("article details:not([open])")];
  for (const node of shut) node.open = true;
});
addEventListener("afterprint", () => {
  for (const node of shut) node.open = false;
});

// One button opens all code, and shuts it again.
const allCode = document.querySelector(".fl-all-code");
allCode?.addEventListener("click", () => {
  const open = allCode.getAttribute("aria-pressed") !== "true";
  allCode.setAttribute("aria-pressed", open);
  for (const node of document.querySelectorAll("details:is(.fl-code, .fl-check)")) node.open = open;
});

// In the dark the printer gets light colours, too.
let theme = null;
addEventListener("beforeprint", () => {
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
addEventListener("afterprint", () => (document.documentElement.dataset.theme = theme));

// The search finds an equation by its number.
const equations = JSON.parse(document.getElementById("fl-equations")?.textContent ?? "null");
const asked = new URLSearchParams(location.search).get("q")?.trim().replace(/^\(|\)$/g, "");
if (equations?.[asked]) {
  const [place, section] = equations[asked];
  const link = Object.assign(document.createElement("a"), { href: place, textContent: `Equation (${asked})` });
  const line = document.createElement("p");
  line.className = "fl-found";
  line.append(link, ` in “${section}”`);
  document.getElementById("search-results").before(line);
}

// Who comes from a search sees where the word stands.
function showMarked() {
  const marked =
    document.querySelector("article span.highlighted:not(.fl-code *)") ??
    document.querySelector("article span.highlighted");
  if (!marked || location.hash) return;
  for (let node = marked.closest("details"); node; node = node.parentElement.closest("details")) node.open = true;
  marked.scrollIntoView({ block: "center" });
}
addEventListener("DOMContentLoaded", () => setTimeout(showMarked, 50)); // Sphinx marks it after 10 ms

// What is wider than its box is marked, and says that it scrolls until one has come to its end; formulas
// by themselves take the arrow keys, the others are reached by Tab. Of a table that scrolls the first
// column stays, where it leaves room for others. A box is asked when it is laid out, not before.
const TABLE = ".pst-scrollable-table-container";
const words = new Range();
function beyond(box) {
  if (!box.matches("pre")) return box.scrollWidth - box.clientWidth;
  words.selectNodeContents(box); // its lines alone, for browsers differ in whether its padding counts
  return words.getBoundingClientRect().right + box.scrollLeft - box.getBoundingClientRect().right;
}
function mark(box) {
  const left = beyond(box);
  if (left > 2) box.dataset.scrolls = box.scrollLeft < Math.min(left, box.scrollWidth - box.clientWidth) - 2 ? "on" : "end";
  else delete box.dataset.scrolls;
  return left > 2;
}
const boxes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const silent = target.matches(".output, :not(.cell_output *):is(pre)"); // code is known to scroll
    const wide = silent ? target.scrollWidth > target.clientWidth + 2 : mark(target);
    if (!target.matches(".katex-html")) target.tabIndex = wide ? 0 : -1;
    if (target.matches(TABLE)) {
      const first = target.querySelector("tr > :first-child");
      target.classList.toggle("fl-held", wide && first.offsetWidth < 0.4 * target.clientWidth);
    }
    if (wide && !silent) target.onscroll = () => mark(target);
  }
});
const KINDS = `.katex-display .katex-html, article pre, ${TABLE}, .cell_output > .output, .fl-sheet`;
function observe() {
  boxes.disconnect();
  for (const node of document.querySelectorAll(KINDS)) boxes.observe(node);
}
document.fonts.ready.then(() => {
  observe();
  document.fonts.addEventListener("loadingdone", observe); // those of formulas that come near
});
