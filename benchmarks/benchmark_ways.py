"""Measure what the way to a machine costs by each back end of ``deep bench``: what docs/performance.md says of it.

One small workload in one process, again and again: in a container of Docker, as a training of DEEPaaS, in a Job of a
testbed's cluster, and in a job of Slurm on a node, over ssh. All are on this machine: no network is part of it.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.testbed import BIN, command, conclude, machine, parser, table
from pipelines.benchmark import backends
from testbed import engine
from testbed.artifacts import api
from testbed.login import Place
from testbed.modules import image as image_of
from testbed.modules import module
from tests.artifacts.module_containers import BENCHMARKS, benchmarks, running
from tests.nodes import slurm_cluster

PART = "ways"
ROUNDS = 5
TESTBED = "bench-ways"
MEASURED = "measured"  # the tag of the image
INTERVAL = "5"  # seconds between two looks at a job of Slurm, as without an option


@dataclass(frozen=True)
class Run:
    """How one has come: ``waited`` and ``overhead`` as of a submission, in seconds."""

    waited: float
    overhead: float


@dataclass(frozen=True)
class Found:
    """Runs by the way they have come."""

    ways: dict[str, list[Run]]


def went(name: str, options: dict[str, str]) -> list[Run]:
    """How several runs have come."""
    found = []
    for _ in range(ROUNDS):
        done = backends.run(backends.load(name, options), slurm_cluster.SPECIFICATION)
        if done.submission is None or not done.ok:
            raise SystemExit(f"{name}: there is no figure: {[one.reasons for one in done.results]}")
        found.append(Run(done.submission.waited, done.submission.overhead))
    return found


def docker() -> list[Run]:
    """In a container without limits."""
    with engine.in_use(), benchmarks(MEASURED) as image:
        return went("docker", {"image": image})


def deepaas() -> list[Run]:
    """As a training of the module, whose container is there already."""
    with engine.in_use() as client, benchmarks(MEASURED), running(client, module("benchmark"), MEASURED) as (_, http):
        return went("deepaas", {"url": str(http.base_url)})


def kubernetes() -> list[Run]:
    """In Jobs that a member of an organisation makes, on a testbed of its own; the first pulls the image."""
    api.ensure(["benchmark"])
    name = f"--name={TESTBED}"
    command(BIN / "deep", "testbed", "up", name, "--until=deploy", '--set=registry_more_images=["benchmark"]')
    try:
        command(BIN / "deep", "login", "local", name, "--as=member")
        image = image_of(Place("local", TESTBED), BENCHMARKS)
        place = {"site": "local", "testbed": TESTBED, "namespace": "imaging", "cpus": "1", "memory": "1Gi"}
        return went("kubernetes", {**place, "image": image})
    finally:
        command(BIN / "deep", "testbed", "down", name)


def slurm() -> list[Run]:
    """In jobs of Slurm, whose commands are run over ssh."""
    with tempfile.TemporaryDirectory() as folder, slurm_cluster.raised(TESTBED, Path(folder)) as cluster:
        return went("slurm", cluster.options | {"interval": INTERVAL})


WAYS: dict[str, Callable[[], list[Run]]] = {
    "a container of Docker": docker, "a training of DEEPaaS": deepaas, "a Job of Kubernetes": kubernetes,
    "a job of Slurm, over ssh": slurm,
}  # fmt: skip


def measure() -> Found:
    """Measure each way, on a machine that has nothing else to do."""
    try:
        return Found({name: way() for name, way in WAYS.items()})
    finally:
        engine.stop_if_ours()


def seconds(values: list[float]) -> str:
    """The median, and all."""
    return f"{statistics.median(values):.1f} ({', '.join(f'{one:.1f}' for one in values)})"


def render(found: Found, minutes: float) -> str:
    """What was measured, for docs/performance.md."""
    rows = [
        (name, seconds([one.waited for one in runs]), seconds([one.overhead for one in runs]))
        for name, runs in found.ways.items()
    ]
    head = ("in", "until its first word, seconds (median, all)", "all that is not the run, seconds (median, all)")
    said = f"Measured on {datetime.now(UTC).date().isoformat()} in {minutes:.0f} minutes: {machine()}."
    return "\n".join([said, *table(head, rows)])


def main() -> None:
    """Measure, and write it into the page when told to."""
    conclude(PART, measure, render, write=parser(__doc__).parse_args().write)


if __name__ == "__main__":
    main()
