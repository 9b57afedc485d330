"""Write the run-config keys from the code into pyproject.toml and docs/configuration.md: `make config`."""

import re
from pathlib import Path

from fedkd_flwr.config.documentation import as_markdown, as_toml

ROOT = Path(__file__).parent.parent
TABLE = "tool.flwr.app.config"


def main() -> None:
    """Write both files."""
    path = ROOT / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    block = re.compile(rf"^\[{re.escape(TABLE)}\]\n.*?(?=^\[(?!{re.escape(TABLE)}\.))", re.MULTILINE | re.DOTALL)
    path.write_text(block.sub(lambda _: as_toml(TABLE) + "\n", text, count=1), encoding="utf-8")
    (ROOT / "docs" / "configuration.md").write_text(as_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
