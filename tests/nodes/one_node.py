"""A node of its own for the tests of a file, which do on it what nobody would on one that others use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import engine as docker_engine
from testbed import image
from testbed.paths import cache_dir, state_dir

ROOT = Path(__file__).resolve().parents[2]
DEEP = [sys.executable, "-c", "from testbed.cli import main; main()", "testbed"]


@dataclass(frozen=True)
class Node:
    """A node, and the address at which it finds this machine."""

    testbed: str
    address: str
    gateway: str

    @property
    def container(self) -> str:
        return f"deep-{self.testbed}-node1"

    @property
    def ssh(self) -> Path:
        """Folder of the key and of the hosts that are known."""
        return state_dir(self.testbed) / "ssh"

    def run(self, script: str, *, fails: bool = False) -> str:
        done = subprocess.run(
            ["docker", "exec", self.container, "sh", "-ec", script], check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout.strip()

    def put(self, path: Path, target: str) -> None:
        self.run(f"mkdir -p {Path(target).parent}")
        subprocess.run(["docker", "cp", path, f"{self.container}:{target}"], check=True, capture_output=True)


@contextmanager
def raised(testbed: str, system: str = "debian12") -> Iterator[Node]:
    """A node of a testbed of this name, which is gone afterwards."""
    assert os.geteuid() == 0, "the tests of nodes are run by root"
    image.ensure(docker_engine.ensure_running(), image.named(system), cache_dir() / "images" / f"{system}.log")
    name = f"--name={testbed}"
    _deep("down", name)
    try:
        found = json.loads(
            _deep("up", name, "--nodes=1", f"--image={system}", "--until=nodes", "--no-artifacts", "--json")
        )
        yield Node(testbed, found["nodes"][0]["address"], found["gateway"])
    finally:
        _deep("down", name)


def _deep(*arguments: str) -> str:
    done = subprocess.run([*DEEP, *arguments], cwd=ROOT, check=False, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
