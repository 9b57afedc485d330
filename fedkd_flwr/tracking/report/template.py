"""The page around charts and tables, for Jinja with autoescaping: whatever a node says of itself is text."""

TEMPLATE = """<!doctype html>
{%- macro cell(value, index, first, last, tag="td") -%}
<{{ tag }}{% if tag == "th" %} scope="col"{% endif %}{% if first < index <= last %} class="number"{% endif %}>
{{- caller() if caller else value }}</{{ tag }}>
{%- endmacro %}
{%- macro table(name, headings, first, last) -%}
<div class="scroll" tabindex="0" role="region" aria-label="{{ name }}"><table>
{%- if headings %}
<thead><tr>{% for heading in headings %}{{ cell(heading, loop.index, first, last, "th") }}{% endfor %}</tr></thead>
{%- endif %}
<tbody>{{ caller() }}</tbody></table></div>
{%- endmacro %}
{%- macro swatch(colour) -%}
<span class="swatch" style="background:var(--{{ colour | replace("@", "") }})"></span>
{%- endmacro %}
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="referrer" content="no-referrer">
<title>{{ title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<header>
<p class="over">fedkd-flwr report</p>
<h1>{{ title }}</h1>
{%- if sources | length == 1 %}
<p class="kind">{{ kind }}</p>
<p class="lede">{{ sentence }}</p>
<dl class="tiles">
{%- for tile in tiles %}
<div class="tile"><dt>{{ tile.name }}</dt>
<dd class="value">{{ tile.value }}</dd><dd class="aside">{{ tile.note }}</dd></div>
{%- endfor %}
</dl>
{%- else %}
{%- call table("Runs", runs[0], 2, 99) %}
{%- for colour, cells in runs[1] %}
<tr>{% for value in cells %}{% call cell(value, loop.index, 2, 99) %}
{%- if loop.first %}{{ swatch(colour) }}{% endif %}{{ value }}{% endcall %}{% endfor %}</tr>
{%- endfor %}
{%- endcall %}
{%- endif %}
</header>
<p id="problem" class="problem" role="alert" hidden></p>
<noscript><p class="problem">The plots need JavaScript, which lies in this file. The tables are complete.</p></noscript>
{%- for heading, charts in sections if charts %}
<section><h2>{{ heading }}</h2>
<div class="charts">
{%- for key, chart in charts %}
<figure class="chart{{ ' wide' if chart.wide }}">
<figcaption><h3>{{ chart.title }}</h3>
<button class="save no-print" type="button" hidden aria-label="Save the plot {{ chart.title }} as SVG">SVG</button>
<p class="note">{{ chart.note }}</p>
{%- if chart.legend %}
<p class="note">
{%- for name, colour in chart.legend %}<span class="key">{{ swatch(colour) }}{{ name }}</span>{% endfor %}</p>
{%- endif %}
</figcaption>
<div class="plot" role="img" aria-label="{{ chart.alt }}" data-chart="{{ key }}"></div>
</figure>
{%- endfor %}
</div></section>
{%- endfor %}
<section><h2>Nodes</h2>
<p class="note">{{ models_note }}</p>
{%- for source in sources %}
{%- set headings, rows = nodes[loop.index0] %}
{%- if sources | length > 1 %}
<details><summary>{{ source.name }}</summary>
{%- endif %}
{%- call table("Nodes of " ~ source.name, headings, 2, headings | length - 1) %}
{%- for row in rows %}
<tr>{% for value in row.cells %}{{ cell(value, loop.index, 2, headings | length - 1) }}{% endfor %}</tr>
{%- for line in row.trouble %}
<tr><td class="trouble" colspan="{{ headings | length }}">{{ line }}</td></tr>
{%- endfor %}
{%- endfor %}
{%- endcall %}
{%- if sources | length > 1 %}
</details>
{%- endif %}
{%- endfor %}
</section>
<section><h2>Config</h2>
{%- for caption, rows in config if rows %}
<details{% if loop.first %} open{% endif %}><summary>{{ caption }}</summary>
{%- call table(caption, ["key"] + columns + ["default", "meaning"], 0, 0) %}
{%- for row in rows %}
<tr><td><code>{{ row[0] }}</code></td>
{%- for value in row[1:-1] %}<td><code>{{ value }}</code></td>{% endfor %}<td class="words">{{ row[-1] }}</td></tr>
{%- endfor %}
{%- endcall %}
</details>
{%- endfor %}
</section>
<section><h2>Environment</h2>
{%- for name, starts in environment %}
{%- for heading, pairs in starts %}
{%- if sources | length > 1 or starts | length > 1 %}
<p class="note">{{ name }}, {{ heading }}</p>
{%- endif %}
{%- call table("Environment of " ~ name ~ ", " ~ heading, [], 0, 0) %}
{%- for key, value in pairs %}
<tr><th scope="row">{{ key }}</th><td><code>{{ value }}</code></td></tr>
{%- endfor %}
{%- endcall %}
{%- endfor %}
{%- endfor %}
</section>
<footer>Written by fedkd-flwr {{ version }}. This page asks nothing of other machines.
Its plots are drawn by plotly.js (MIT licence).</footer>
</main>
<script type="application/json" id="palettes">{{ palettes | safe }}</script>
<script type="application/json" id="charts">{{ figures | safe }}</script>
<script type="application/octet-stream" id="plotly">{{ plotly | safe }}</script>
<script>{{ script | safe }}</script>
</body>
</html>
"""
