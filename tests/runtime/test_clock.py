import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedkd_flwr.runtime.clock import Clock

SCRIPT = """
from time import sleep
from fedkd_flwr.runtime.clock import start_seconds
sleep(0.5)
print(start_seconds())
"""


def test_parts_add_up_and_empty_ones_are_left_out() -> None:
    clock = Clock()
    with clock("train"):
        pass
    once = clock.seconds["train"]
    clock.add("train", 2.0)
    clock.add("import", 0.0)
    assert clock.seconds == {"train": once + 2.0}


@pytest.mark.parametrize("command", ["flwr-clientapp", "ray-worker"])
def test_only_a_process_for_one_message_counts_its_start(command: str, tmp_path: Path) -> None:
    script = tmp_path / command
    script.write_text(SCRIPT)
    begin = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    counted = float(subprocess.check_output([sys.executable, script], env=environment))
    elapsed = time.monotonic() - begin
    assert 0.5 <= counted <= elapsed + 0.1 if command == "flwr-clientapp" else counted == 0
