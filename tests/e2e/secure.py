"""The federation of docs/deploy.md, command by command: TLS, node keys, a ServerApp of its own, restart policies."""

import csv
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from e2e.machine import ROOT, Machine, answers, as_toml, free_port, until

SILOS = ("north", "south")


def commands(heading: str) -> list[str]:
    """The shell blocks under a heading of the page."""
    (section,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", (ROOT / "docs/deploy.md").read_text(), re.M | re.S)
    return re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)


class Host(Machine):
    """A machine of the page: its names and paths stand for this machine's."""

    def __init__(self, home: Path, launch: str, port: int, silo: str = "north") -> None:
        super().__init__(home, launch)
        self.silo = silo
        self._loops: dict[str, subprocess.Popen[bytes]] = {}
        self._words = {
            "/opt/fedkd-flwr": str(ROOT),
            "/etc/fedkd": str(home / "etc"),
            "/var/lib/fedkd": str(home),
            "fed.example.org": "localhost",
            "8000": str(port),
            "9094": str(free_port()),
            "north": silo,
        }

    def here(self, text: str) -> str:
        return re.sub("|".join(map(re.escape, self._words)), lambda match: self._words[match[0]], text)

    def serve(self, name: str, command: str) -> None:
        """A daemon under the page's restart policy."""
        (self.home / f"{name}.sh").write_text(self.here(command))
        policy = commands("When something dies")[0].replace("DAEMON", name)
        self._loops[name] = self.start(name, "bash", "-c", policy)

    def kill(self, name: str) -> None:
        """SIGKILL the daemon; the policy is left."""
        self.daemon(name).send_signal(signal.SIGKILL)

    def received(self, kind: str) -> int:
        """How many messages its SuperNode has received, "query", "train" or "evaluate"."""
        return self.log("supernode").count(f"Receiving: {kind} message")

    def daemon(self, name: str) -> psutil.Process:
        """The process that the policy starts again."""
        policy = psutil.Process(self._loops[name].pid)

        def flower() -> psutil.Process | None:
            match policy.children():
                case [child]:
                    with suppress(psutil.Error):
                        return child if "flower-" in " ".join(child.cmdline()) else None
            return None

        return until(flower, 60, self.logs)

    def app(self, name: str, kind: str) -> psutil.Process | None:
        """The process of a `clientapp` or `serverapp` that works for the daemon, if there is one now."""
        for process in self.daemon(name).children(recursive=True):
            with suppress(psutil.Error):
                if any(word.endswith(f"flwr-{kind}") for word in process.cmdline()):
                    return process
        return None


def _tiny(policy: str) -> str:
    """The default policy, for few texts, long trainings, and a model whose names and shapes are most of an update."""
    for limit, tiny in (
        ("min-examples = 256", "min-examples = 64"),
        ("min-compression = 128.0", "min-compression = 7.5"),
        ("max-epochs = 20", "max-epochs = 100"),
    ):
        assert limit in policy
        policy = policy.replace(limit, tiny)
    return policy


class Federation:
    """The server with the operator's settings, and two silos with slices of the tweets."""

    def __init__(self, folder: Path, tweets: Path) -> None:
        self.launch = str(folder)
        self.port = free_port()
        self.server = Host(folder / "server", self.launch, self.port)
        self.silos = {name: Host(folder / name, self.launch, self.port, name) for name in SILOS}
        with tweets.open(newline="") as file:
            head, *rows = csv.reader(file)
        for index, silo in enumerate(self.silos.values()):
            with (silo.home / f"{silo.silo}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([head, *rows[index :: len(SILOS)]])

    def start(self) -> None:
        server, etc = self.server, self.server.home / "etc"
        server_keys, silo_keys = commands("Certificates and keys")
        server.sh(server.here(server_keys))
        superlink, superexec = commands("The server")
        server.serve("superlink", superlink)
        until(lambda: answers(self.port), 60, server.logs)
        server.serve("superexec", superexec)

        page = (ROOT / "docs/deploy.md").read_text()
        (settings,) = re.findall(r"^```toml\n(\[superlink\].*?)^```$", page, re.M | re.S)
        (server.home / "config.toml").write_text(server.here(settings))
        for silo in self.silos.values():
            silo.sh(silo.here(silo_keys))
            for name, source, target in (
                ("ca.crt", etc, silo.home / "etc"),
                (f"{silo.silo}.pub", silo.home / "etc", etc),
            ):
                (target / name).write_bytes((source / name).read_bytes())
            (silo.home / "etc" / "policy.toml").write_text(_tiny((ROOT / "docker/policy.toml").read_text()))
            server.sh(silo.here(commands("The operator")[0]).replace(str(silo.home), str(server.home)))
            pin, supernode, _ = commands("A silo")
            silo.sh(silo.here(pin))
            silo.serve("supernode", supernode)

    def run(self, config: dict[str, Any]) -> str:
        """`flwr run` of the page; returns the run's id."""
        before = self._run_ids()
        self._operate(0, config)
        return until(lambda: self._run_ids() - before, 60, self.server.logs).pop()

    def federate(self, config: dict[str, Any]) -> subprocess.Popen[bytes]:
        """The page's command that exits with the verdict."""
        return self._operate(1, config)

    def _operate(self, command: int, config: dict[str, Any]) -> subprocess.Popen[bytes]:
        path = self.server.home / "run.toml"
        path.write_text(as_toml(config))
        script = commands("A run")[command].replace("run.toml", str(path))
        return self.server.start("run", "bash", "-c", f"cd {ROOT} && {script}")

    def _run_ids(self) -> set[str]:
        return {str(run["run-id"]) for run in self.server.flwr("ls", "fed")["runs"]}

    def verdict(self, run_id: str) -> str:
        return str(self.server.wait("fed", run_id, 1200)["status"])

    def folder(self, settings: dict[str, Any]) -> Path:
        return Path(settings["run.runs-dir"]) / settings["run.name"]

    def logs(self) -> str:
        return "\n".join(machine.logs() for machine in (self.server, *self.silos.values()))
