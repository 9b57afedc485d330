"""How a report looks. Here and not in a file of its own, because Flower bundles Python files only."""

PALETTES = {
    "light": {
        "page": "#fafaf8", "card": "#ffffff", "ink": "#1d1f23", "muted": "#63686f", "line": "#e5e5e1",
        "c0": "#1f6cb0", "c1": "#c25417", "c2": "#2f8a6b", "c3": "#7d5bb0", "c4": "#a97f14", "c5": "#b23f6c",
        "c6": "#3f8aa6", "c7": "#6f7430", "rest": "#c3c6ca", "heat0": "#f0f3f7", "heat1": "#7fb3e3",
    },
    "dark": {
        "page": "#131416", "card": "#1a1c1f", "ink": "#e8e8e4", "muted": "#9ba0a8", "line": "#2d3034",
        "c0": "#6fb0ea", "c1": "#f09660", "c2": "#62c6a0", "c3": "#b79ce6", "c4": "#dcb652", "c5": "#e886ac",
        "c6": "#7cc4de", "c7": "#b4ba6b", "rest": "#4a4e54", "heat0": "#22262b", "heat1": "#2c6ca6",
    },
}  # fmt: skip
"""Theme -> name of a colour -> the colour: runs and models are `c0` to `c7`, apart for colour-blind readers, too."""


def style() -> str:
    """The style sheet of the page."""
    light, dark = (
        "".join(f"--{name}:{colour};" for name, colour in PALETTES[theme].items()) for theme in ("light", "dark")
    )
    return (
        f":root{{color-scheme:light dark;{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        + _RULES
    )


_RULES = """
* { box-sizing: border-box }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; -webkit-text-size-adjust: 100%;
}
main { max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px }
h1 {
  font-size: 28px; line-height: 1.2; font-weight: 650; letter-spacing: -.01em; margin: 2px 0 4px;
  overflow-wrap: anywhere;
}
h2 { font-size: 18px; font-weight: 650; margin: 44px 0 12px }
h3 { font-size: 14.5px; font-weight: 650; margin: 0 }
p { margin: 0 0 8px }
.over { color: var(--muted); font-size: 13px; margin: 0 }
.kind { color: var(--muted); margin: 0 0 16px }
.lede { font-size: 17px; max-width: 46em; margin: 0 0 20px }
.note { color: var(--muted); font-size: 13px; margin: 0 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 0; padding: 0 }
.tile, .chart { background: var(--card); border: 1px solid var(--line); border-radius: 8px }
.tile { padding: 12px 14px; margin: 0 }
.tile dt { color: var(--muted); font-size: 12.5px; line-height: 1.3 }
.tile dd { margin: 0 }
.tile .value {
  font-size: 22px; font-weight: 620; letter-spacing: -.02em; line-height: 1.35; white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
.tile .aside { color: var(--muted); font-size: 12px; line-height: 1.3 }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px }
.chart { margin: 0; padding: 14px 14px 6px; min-width: 0 }
.chart.wide { grid-column: 1 / -1 }
figcaption { position: relative; padding-right: 44px }
.save {
  position: absolute; top: -2px; right: 0; font: inherit; font-size: 11.5px; color: var(--muted); background: none;
  border: 1px solid var(--line); border-radius: 5px; padding: 1px 7px; cursor: pointer;
}
.save:hover, .save:focus-visible { color: var(--ink); border-color: var(--muted) }
.plot { width: 100%; min-height: 80px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums }
th {
  text-align: left; font-weight: 600; color: var(--muted); font-size: 12.5px; line-height: 1.3;
  vertical-align: bottom;
}
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line) }
td { vertical-align: top }
.number { text-align: right }
td.number { white-space: nowrap }
td.words { color: var(--muted); min-width: 16em }
td.trouble { color: var(--muted); font-size: 12.5px; padding-left: 14px }
code { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: break-word }
td:first-child { white-space: nowrap }
td:nth-child(2) { min-width: 7em }
td.key { white-space: nowrap }
.key { white-space: nowrap; margin-right: 16px }
.swatch {
  display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 7px;
  print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
details { margin-top: 12px }
summary { cursor: pointer; color: var(--muted); font-size: 13.5px }
footer { margin-top: 48px; color: var(--muted); font-size: 12.5px }
.problem { border: 1px solid var(--c1); border-radius: 8px; padding: 10px 14px }
@media (max-width: 720px) {
  main { padding: 24px 14px 40px }
  .charts { grid-template-columns: minmax(0, 1fr) }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)) }
  h1 { font-size: 23px }
  .lede { font-size: 16px }
}
@media print {
  @page { size: A4; margin: 13mm }
  body { background: none; font-size: 10.5px }
  main { max-width: none; padding: 0 }
  h1 { font-size: 21px }
  h2 { font-size: 14px; margin: 16px 0 8px; break-after: avoid }
  h3 { font-size: 11.5px }
  .lede { font-size: 12.5px; margin-bottom: 12px }
  .note, .over, .kind, .tile dt, .tile .aside, th, summary { font-size: 9.5px }
  .charts { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px }
  .tiles { grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 6px }
  .tile { padding: 7px 8px }
  .tile .value { font-size: 14px }
  .chart { padding: 9px 10px 0 }
  .tile, .chart, tr { break-inside: avoid }
  table { font-size: 9.5px }
  th, td { padding: 3px 10px 3px 0 }
  code { font-size: 9px }
  .scroll { overflow: visible }
  .no-print { display: none }
}
"""
