// What a reader can do with the page beyond reading it: sort tables by a column, see a picture in its own pixels.
// Without scripts nothing is missing.
"use strict";
// Sizes and lengths of time stand in the largest unit that fits.
const units = { kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, min: 60, h: 3600, d: 86400 };
function value(cell) {
  const text = cell ? cell.textContent.trim() : "";
  const number = parseFloat(text.replace(/,/g, "").replace("−", "-"));
  return Number.isNaN(number) ? text : number * (units[text.split(" ")[1]] || 1);
}
function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return typeof a === "number" ? a - b : a.localeCompare(b);
}
function sort(table, column, head) {
  const falling = head.getAttribute("aria-sort") !== "descending";
  const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[column]), row]);
  // Rows without a value, and that of the average, stay at the end.
  const last = ([one, row]) => one === "" || one === "–" || row.classList.contains("average");
  const sorted = rows.filter((row) => !last(row)).sort(([a], [b]) => (falling ? compare(b, a) : compare(a, b)));
  table.tBodies[0].append(...[...sorted, ...rows.filter(last)].map(([, row]) => row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
}
for (const table of document.querySelectorAll(".numeric")) {
  if (table.tBodies[0].rows.length < 3) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.tabIndex = 0;
    head.title = "sort by this column";
    head.classList.add("sorts");
    head.addEventListener("click", () => sort(table, column, head));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter") sort(table, column, head);
    });
  });
}
const view = document.createElement("dialog");
view.className = "zoom";
view.addEventListener("click", () => view.close());
document.body.append(view);
for (const image of document.querySelectorAll(".picture img")) {
  image.title = "click to enlarge";
  image.addEventListener("click", () => {
    const large = image.cloneNode();
    const factor = Math.max(1, Math.floor((1.5 * innerWidth) / image.naturalWidth));
    large.style.width = `${factor * image.naturalWidth}px`;
    view.replaceChildren(large);
    view.showModal();
  });
}
// Charts are drawn again when they come into view: as wide as their place, whenever that changes, and with values under the pointer.
const theme = JSON.parse(document.getElementById("theme").textContent);
// "ast": the page's policy lets no text become code.
const options = { config: theme, renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: { disableDefaultStyle: true } };
const drawn = new WeakMap();
async function draw(chart) {
  const width = chart.clientWidth;
  const former = drawn.get(chart);
  // Within closed details a chart has no width.
  if (!width || (former && former.width === width)) return;
  drawn.set(chart, { width });
  const spec = JSON.parse(chart.querySelector("script").textContent);
  // As high as the SVG was: nothing below moves.
  const size = { width, height: (spec.height * width) / spec.width };
  const view = await vegaEmbed(chart.querySelector(".drawn"), { ...spec, ...size }, options);
  if (former && former.view) former.view.finalize();
  drawn.set(chart, { width, view });
}
const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => draw(target)));
const seen = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) resized.observe(target);
  },
  { rootMargin: "400px" },
);
for (const chart of document.querySelectorAll(".vega")) seen.observe(chart);
