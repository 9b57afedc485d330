"""Real clients and a real server: what a proxy that does not answer would do to a launch."""

import http.server
import os
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fedkd_flwr.cli.child_environment import child_environment
from fedkd_flwr.cli.launcher import is_healthy

DEAD = "http://127.0.0.1:9"
SPELLINGS = [
    {"http_proxy": DEAD},
    {"HTTP_PROXY": DEAD, "HTTPS_PROXY": DEAD},
    {"all_proxy": DEAD, "Https_Proxy": DEAD},
    {"ALL_PROXY": "socks5://127.0.0.1:9"},
    {"http_proxy": DEAD, "no_proxy": "example.org"},
    {"http_proxy": DEAD, "NO_PROXY": "example.org, .local,"},
    {"http_proxy": DEAD, "no_proxy": "", "NO_PROXY": "*"},
]


class _Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(params=SPELLINGS, ids=lambda proxies: " ".join(proxies))
def proxies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for key in [key for key in os.environ if key.lower().endswith("_proxy")]:
        monkeypatch.delenv(key)
    for key, value in request.param.items():
        monkeypatch.setenv(key, value)
    return dict(request.param)


def test_a_child_reaches_this_machine_past_any_proxy(
    proxies: dict[str, str], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = child_environment(tmp_path)
    for key in proxies:
        monkeypatch.delenv(key)
    for key, value in child.items():
        monkeypatch.setenv(key, value)
    with urllib.request.urlopen(f"http://{address}/health", timeout=5) as response:
        assert response.status == 200
    assert httpx.get(f"http://{address}/health", timeout=5).status_code == 200


def test_the_users_proxies_and_exceptions_stay(proxies: dict[str, str], tmp_path: Path) -> None:
    child = child_environment(tmp_path)
    for key, value in proxies.items():
        if key.lower() != "no_proxy" and not value.startswith("socks"):
            assert child[key] == value
    assert child["no_proxy"] == child["NO_PROXY"]
    if "example.org" in "".join(proxies.values()):
        assert child["no_proxy"].startswith("example.org") and ",," not in child["no_proxy"]


def test_our_own_health_check_asks_no_proxy(proxies: dict[str, str], address: str) -> None:
    assert is_healthy(address)
    assert not is_healthy("127.0.0.1:9")
