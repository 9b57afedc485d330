"""A page in a real browser without a window."""

import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def opened(page: Path, home: Path, width: int = 1000) -> tuple[str, list[str]]:
    """Open a page; returns its DOM once it is drawn, and what its console says.

    Args:
        page: a file.
        home: a folder for the browser.
        width: of the window, in pixels.
    """
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={home}", "--no-first-run",
            f"--window-size={width},900", "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, re.findall(r"CONSOLE:\d+\] (.*)", done.stderr)
