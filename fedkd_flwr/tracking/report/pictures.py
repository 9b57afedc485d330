"""The plots of a report as PNG files, for papers: drawn by kaleido, which needs a Chrome or Chromium."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedkd_flwr.errors import ConfigError, RunError
from fedkd_flwr.runtime.one_line import one_line
from fedkd_flwr.tracking.report.page import charts_of
from fedkd_flwr.tracking.report.source import Source
from fedkd_flwr.tracking.report.style import PALETTES

_WIDTH, _WIDE, _SCALE = 520, 860, 3


def write_pictures(runs: Sequence[Path], folder: Path) -> list[Path]:
    """Write each plot of the report of these runs into a folder, in the light theme.

    Raises:
        ConfigError: kaleido is not installed.
        RunError: it cannot draw, for want of a Chrome, say.
        StateError: a folder holds no run of this version.
    """
    if find_spec("kaleido") is None:
        raise ConfigError("--png draws with kaleido, which is not installed: pip install 'fedkd-flwr[png]'")
    from plotly.io import to_image

    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for _, charts in charts_of([Source.read(run) for run in runs]):
        for name, chart in charts:
            figure = painted(chart.figure)
            figure["layout"] |= {"paper_bgcolor": "#ffffff", "width": _WIDE if chart.wide else _WIDTH}
            path = folder / f"{name}.png"
            try:
                path.write_bytes(to_image(figure, "png", scale=_SCALE))
            except (RuntimeError, ValueError, OSError) as error:
                raise RunError(f"cannot draw {path}: {one_line(str(error))}") from None
            written.append(path)
    return written


def painted(value: Any) -> Any:
    """The same with each colour `@name` put in."""
    if isinstance(value, str) and value.startswith("@"):
        return PALETTES["light"].get(value[1:], value)
    if isinstance(value, Mapping):
        return {key: painted(each) for key, each in value.items()}
    return [painted(each) for each in value] if isinstance(value, list) else value
