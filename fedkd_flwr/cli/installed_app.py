"""The Flower app of the installed package, where a user has no folder of it: doors and config, written when needed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fedkd_flwr.config.documentation import as_toml

_PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fedkd-flwr"
version = "{version}"
description = "The installed fedkd-flwr as a Flower app"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedkd-flwr"
fab-include = ["/client_app.py", "/server_app.py"]

[tool.flwr.app.components]
serverapp = "server_app:app"
clientapp = "client_app:app"

{config}"""

_DOOR = '''"""The door that Flower opens; the installed package is behind it."""

from fedkd_flwr.{side} import app as {side}

app = {side}.app
'''


@contextmanager
def installed_app() -> Iterator[Path]:
    """A temporary folder with the app."""
    with tempfile.TemporaryDirectory(prefix="fedkd-app-") as folder:
        path = Path(folder, "fedkd-flwr")
        path.mkdir()
        write_app(path)
        yield path


def write_app(folder: Path) -> None:
    """Write the app into an empty folder."""
    try:
        number = version("fedkd-flwr")
    except PackageNotFoundError:
        number = "0.0.0"
    project = _PROJECT.format(version=number, config=as_toml("tool.flwr.app.config"))
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    for side in ("client", "server"):
        (folder / f"{side}_app.py").write_text(_DOOR.format(side=side), encoding="utf-8")
