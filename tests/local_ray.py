"""A real Ray cluster on this machine: a head, and nodes that join it over loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
_STORE_NBYTES = 100_000_000  # of each node's objects, of which a clip takes few
_START_S, _END_S = 180.0, 60.0


class Node:
    """A part of the cluster: `ray start --block`, and what that started."""

    def __init__(self, arguments: list[str], log: Path, cpus: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        command = [
            str(Path(sys.executable).with_name("ray")), "start", *arguments, "--node-ip-address",
            "127.0.0.1", "--num-cpus", str(cpus), "--block", "--object-store-memory", str(_STORE_NBYTES),
            "--disable-usage-stats",
        ]  # fmt: skip
        with log.open("w") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            self._wait(log)
        except BaseException:
            self.kill()
            raise

    def _wait(self, log: Path) -> None:
        """Waits until it runs."""
        until = time.monotonic() + _START_S
        while "Ray runtime started" not in log.read_text():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"Ray does not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)

    @property
    def processes(self) -> list[psutil.Process]:
        """Its own processes, those of its actors among them."""
        if self._process.poll() is not None:
            return []
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]

    def kill(self) -> None:
        """Ends all of it at once, as a machine that loses its power."""
        _end(self.processes)
        self._process.wait(_END_S)

    def end(self) -> None:
        """Ends it in order, and then what is left of it."""
        inner = self.processes[1:]
        self._process.terminate()
        self._process.wait(_END_S)
        _end(inner)


def _end(processes: list[psutil.Process]) -> None:
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.kill()


class Cluster:
    """`address`, and the nodes, the head first."""

    def __init__(self, address: str, nodes: list[Node]) -> None:
        self.address, self.nodes = address, nodes


@contextmanager
def local_cluster(logs: Path, cpus: tuple[int, ...] = (2, 2)) -> Iterator[Cluster]:
    """A cluster of a head and further nodes with so many CPUs each, while the block lasts.

    Args:
        logs: a folder for what the nodes print.

    Raises:
        RuntimeError: a node does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = Path("/tmp") / f"r{port}"  # the names of sockets may have 100 letters only
    head = ["--head", "--port", str(port), "--include-dashboard", "false", "--temp-dir", str(place)]
    nodes: list[Node] = []
    try:
        for number, count in enumerate(cpus):
            arguments = ["--address", f"127.0.0.1:{port}"] if number else head
            nodes.append(Node(arguments, logs / f"node-{number}.log", count))
        yield Cluster(f"127.0.0.1:{port}", nodes)
    finally:
        for node in reversed(nodes):
            node.end()
        shutil.rmtree(place, ignore_errors=True)
