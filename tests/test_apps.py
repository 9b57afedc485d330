"""The two doors that Flower opens, in one process as in a simulation."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

IN_TWO_THREADS = """
import sys
import threading

import server_app
from fedkd_flwr.errors import ModelError
from fedkd_flwr.models.hub import read_config

found = []


def serve():
    while "transformers" not in sys.modules:
        pass
    try:
        read_config("/there/is/no/such/model")
    except ModelError as error:
        found.append(str(error))


thread = threading.Thread(target=serve)
thread.start()
import client_app

thread.join()
print(*found)
"""


def test_the_server_reads_models_while_the_client_app_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", IN_TWO_THREADS], cwd=ROOT, capture_output=True, text=True)

    assert "there is no folder /there/is/no/such/model" in done.stdout, done.stderr
