"""Containers of modules as a deployment has them, and what tests ask their images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import docker
import httpx
from docker.errors import ImageNotFound
from docker.models.containers import Container

from testbed import engine, modules
from testbed.artifacts import api

BENCHMARKS = "deephdc/benchmark"
# One CPU compiles and imports SciPy, three times, beside whatever else the machine does.
PATIENCE = 180
# The rights that a container of ours needs.
RESTRICTED: dict[str, Any] = {
    "read_only": True, "tmpfs": {"/tmp": ""}, "cap_drop": ["ALL"],  # nosec B108  # in the container
    "security_opt": ["no-new-privileges"],
}  # fmt: skip
# Of what is imported from a folder (the first argument) by importing modules (the others), what had to be compiled.
COMPILED_THERE = """import importlib, pathlib, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
found = [getattr(module, "__cached__", None) for module in list(sys.modules.values())]
files = {one for one in found if isinstance(one, str)}
print(len(files), *sorted(file for file in files if not pathlib.Path(file).exists()))
"""


@contextmanager
def benchmarks(tag: str) -> Iterator[str]:
    """The image of benchmarks under a name of the caller's own, since others may use it at the same time."""
    api.ensure(["benchmark"])
    version, images = api.version("benchmark"), engine.client().images
    given = f"{BENCHMARKS}:{version}"
    names = [f"{BENCHMARKS}:{tag}", *[given] * all(given not in one.tags for one in images.list(BENCHMARKS))]
    with (api.mirror_dir() / "benchmark" / version / "benchmark.tar").open("rb") as archive:
        (loaded,) = images.load(archive)
    loaded.tag(BENCHMARKS, tag)
    try:
        yield names[0]
    finally:
        for name in names:
            with suppress(ImageNotFound):
                images.remove(name, force=True)


@contextmanager
def running(client: docker.DockerClient, one: modules.Module, version: str) -> Iterator[tuple[Container, httpx.Client]]:
    """A container as a deployment has it, and a client that waited until it is healthy."""
    needs = one.deployment
    container = client.containers.run(
        f"{needs['image']}:{version}",
        detach=True,
        mem_limit=f"{needs['memory_mib']}m",
        nano_cpus=int(needs["cpus"] * 1e9),
        ports={f"{needs['port']}/tcp": ("127.0.0.1", 0)},
        **RESTRICTED,
    )
    try:
        container.reload()
        (bound,) = container.ports[f"{needs['port']}/tcp"] or []
        with httpx.Client(base_url=f"http://127.0.0.1:{bound['HostPort']}", timeout=60, trust_env=False) as http:
            wait(container, http, needs["health"])
            yield container, http
    finally:
        container.remove(force=True)


def wait(container: Container, http: httpx.Client, health: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if http.get(health).status_code == 200:
                return
        except httpx.TransportError:
            pass
        container.reload()
        said = container.logs(tail=20).decode(errors="replace")
        assert container.status == "running", said
        assert time.monotonic() < deadline, said
        time.sleep(0.3)
