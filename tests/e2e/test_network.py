"""Three hosts with network stacks of their own on slow links: what an interface counts, and a link that is cut."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.conftest import Deployment, as_toml
from e2e.machine import Machine, until
from fedkd_flwr.cli.processes import end_all

CABLE = Path(__file__).parent / "delay.py"
HOSTS = {"server": "10.77.0.1", "north": "10.77.0.2", "south": "10.77.0.3"}

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(
        not (shutil.which("ip") and shutil.which("tc")), reason="ip and tc (iproute2) are not installed"
    ),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="TAP devices need /dev/net/tun"),
]


def ip(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
    return done.stdout


class Network:
    """A namespace for each host, one for the switch between them; nothing is seen in the machine's own."""

    def __init__(self) -> None:
        self._prefix = f"fedkd-{os.getpid()}"
        self._cable: subprocess.Popen[bytes] | None = None
        ip("ip", "netns", "add", self._name("switch"))
        self._in("switch", "ip", "link", "add", "switch", "type", "bridge")
        self._in("switch", "ip", "link", "set", "switch", "up")
        for host, address in HOSTS.items():
            ip("ip", "netns", "add", self._name(host))
            ip(
                "ip", "link", "add", "eth0", "netns", self._name(host),
                "type", "veth", "peer", "name", host, "netns", self._name("switch"),
            )  # fmt: skip
            self._in("switch", "ip", "link", "set", host, "master", "switch", "up")
            self._in(host, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self._in(host, "ip", "link", "set", device, "up")

    def slow_down(self, megabits: int, milliseconds: int) -> None:
        """Both directions of each host's link; the server's also takes its time, so that every way between hosts does.

        (By TAP devices, as few kernels of containers and CI have netem.)
        """
        for place, device in [*((host, "eth0") for host in HOSTS), *(("switch", host) for host in HOSTS)]:
            self._in(
                place, "tc", "qdisc", "replace", "dev", device, "root", "tbf",
                "rate", f"{megabits}mbit", "burst", "256kb", "latency", "400ms",
            )  # fmt: skip
        near, far = "near", "far"
        self._cable = subprocess.Popen(
            [*self.run_in("switch"), sys.executable, str(CABLE), near, far, str(milliseconds / 1000)]
        )
        until(lambda: far in self._in("switch", "ip", "link"), 30)
        self._in("switch", "ip", "link", "add", "socket", "type", "bridge")
        for device, bridge in (("server", "socket"), (near, "socket"), (far, "switch")):
            self._in("switch", "ip", "link", "set", device, "master", bridge, "up")
        self._in("switch", "ip", "link", "set", "socket", "up")

    def milliseconds(self, host: str, address: str) -> float:
        """From a host to a server's port and back."""
        where, _, port = address.partition(":")
        connect = f"socket.create_connection(({where!r}, {port}))"
        best = f"import socket, timeit; print(min(timeit.repeat({connect!r}, 'import socket', number=1)))"
        return 1000 * float(self._in(host, sys.executable, "-c", best))

    def run_in(self, host: str) -> tuple[str, ...]:
        """What a command starts with that runs on a host."""
        return "ip", "netns", "exec", self._name(host)

    def set_link(self, host: str, state: str) -> None:
        self._in("switch", "ip", "link", "set", host, state)

    def counted(self, host: str) -> dict[str, int]:
        """Bytes that a host's interface has received and sent."""
        (link,) = json.loads(self._in(host, "ip", "-json", "-statistics", "link", "show", "eth0"))
        return {"up": link["stats64"]["rx"]["bytes"], "down": link["stats64"]["tx"]["bytes"]}

    def remove(self) -> None:
        if self._cable is not None:
            self._cable.kill()
            self._cable.wait()
        for name in (*HOSTS, "switch"):
            subprocess.run(["ip", "netns", "delete", self._name(name)], capture_output=True)

    def _name(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def _in(self, host: str, *command: str) -> str:
        return ip(*self.run_in(host), *command)


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network()
    try:
        yield network
    finally:
        network.remove()


@pytest.fixture
def deployment(network: Network, tmp_path: Path) -> Iterator[Deployment]:
    home = tmp_path / "server"
    deployment = Deployment(home, HOSTS["server"], network.run_in("server"))
    try:
        yield deployment
    finally:
        end_all(deployment.launch)


def test_what_travels_is_what_the_codec_counts(
    network: Network, deployment: Deployment, tweets_csv: Path, tmp_path: Path
) -> None:
    """Traffic is what traffic.csv says plus at most 5 %, and a link that is cut for a while costs no round.

    Counted is all that the server's interface carries from before the first SuperNode to the end: Ethernet, IP, TCP
    and HTTP, polls and heartbeats, the app itself, what is sent twice. The stack hands the interface segments of up to
    64 kB, each with one header; packets of 1500 bytes on a real wire add 4.6 % of TCP/IP and Ethernet headers, and
    acknowledgements.
    """
    network.slow_down(megabits=100, milliseconds=20)
    deployment.superlink()
    there_and_back = network.milliseconds("north", deployment.address)
    print(f"north to server and back: {there_and_back:.1f} ms")
    assert there_and_back >= 2 * 20
    for index, name in enumerate(("north", "south")):
        node = Machine(tmp_path / name, deployment.launch, network.run_in(name))
        node.start(
            "supernode", "flower-supernode", "--insecure", "--superlink", deployment.address,
            "--node-config", f'partition-id={index} num-partitions=2 threads=1 state-dir="{tmp_path / name}"',
        )  # fmt: skip
    config = tmp_path / "run.toml"
    config.write_text(
        as_toml(
            {
                "data.dataset": f"csv:{tweets_csv}", "data.partition": "iid", "num-rounds": 3, "codec.budget": "2x",
                "train.batch-size": 8,
                "train.local-steps": 2, "data.max-test-examples": 8, "run.runs-dir": str(tmp_path / "runs"),
                "run.name": "run",
            }
        )
    )  # fmt: skip
    run_id = deployment.run(config)
    folder = tmp_path / "runs" / "run"
    until((folder / "checkpoints" / "00000002").is_dir, 600, deployment.logs)
    network.set_link("south", "down")
    time.sleep(20)
    network.set_link("south", "up")
    run = deployment.wait("dep", run_id, seconds=900)
    assert run["status"] == "finished:completed", deployment.logs()
    wire = network.counted("server")

    rounds = json.loads((folder / "history.json").read_text())["rounds"]
    assert [(entry["trained"], entry["failed"]) for entry in rounds] == [(2, {})] * 3
    ledger: Counter[str] = Counter()
    with (folder / "traffic.csv").open() as file:
        for row in csv.DictReader(file):
            ledger[row["direction"]] += int(row["bytes"])
    for direction, nbytes in ledger.items():
        overhead = wire[direction] / nbytes - 1
        print(f"{direction}: codec {nbytes:,} bytes, interface {wire[direction]:,} bytes, {overhead:.2%} more")
    for direction, nbytes in ledger.items():
        assert nbytes < wire[direction] <= 1.05 * nbytes
