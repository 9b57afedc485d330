"""What a report does once it is open: it unpacks plotly, and draws in the reader's theme and at its width."""

SCRIPT = """
"use strict";
const stored = id => JSON.parse(document.getElementById(id).textContent);
const charts = stored("charts"), palettes = stored("palettes");
const dark = matchMedia("(prefers-color-scheme: dark)");

// The same data with each colour "@name" put in.
const painted = (value, palette) =>
  typeof value === "string" ? (value[0] === "@" && palette[value.slice(1)] || value)
  : Array.isArray(value) ? value.map(each => painted(each, palette))
  : value !== null && typeof value === "object"
    ? Object.fromEntries(Object.entries(value).map(([key, each]) => [key, painted(each, palette)]))
  : value;

function draw(printing) {
  const palette = palettes[dark.matches && !printing ? "dark" : "light"];
  for (const place of document.querySelectorAll("[data-chart]")) {
    const chart = painted(charts[place.dataset.chart], palette);
    chart.layout.width = printing ? (place.closest(".wide") ? 650 : 312) : place.clientWidth;
    if (printing) {
      chart.layout.height *= 0.8;
      chart.layout.font.size = 10;
    }
    Plotly.react(place, chart.data, chart.layout, {displayModeBar: false});
  }
}

function save(button) {
  const place = button.closest("figure").querySelector("[data-chart]");
  Plotly.downloadImage(place, {format: "svg", filename: place.dataset.chart});
}

async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

unpack().then(() => {
  draw(false);
  let later = 0;
  const again = () => { clearTimeout(later); later = setTimeout(draw, 100, false); };
  addEventListener("resize", again);
  dark.addEventListener("change", again);
  addEventListener("beforeprint", () => draw(true));
  addEventListener("afterprint", () => draw(false));
  for (const button of document.querySelectorAll(".save")) {
    button.hidden = false;
    button.addEventListener("click", () => save(button));
  }
}).catch(error => {
  const problem = document.getElementById("problem");
  problem.textContent = `The plots cannot be drawn in this browser (${error.message}). The tables are complete.`;
  problem.hidden = false;
});
"""
