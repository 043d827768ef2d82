"""Measure what ``deep bench run --quick`` costs, and what a container costs it: what docs/performance.md says of them.

The same four workloads on the bare machine, in a container without limits, and on the bare machine again, which tells
what such a comparison finds where nothing differs.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.sqa import Memory
from benchmarks.testbed import BIN, command, conclude, machine, parser, reached, table
from testbed import engine
from tests.artifacts.module_containers import benchmarks

PART = "quick"
# Seconds until there is a verdict, on two cores.
AIM = 180
BARE, CONTAINER, AGAIN = "bare", "container", "bare, again"


@dataclass(frozen=True)
class Found:
    """Seconds by command, the peak of memory in MiB, the container's ``waited`` and ``overhead`` in seconds.

    ``against``: outcomes of comparisons with the first run, and what else differed, by the run.
    """

    seconds: dict[str, float]
    memory: float
    way: dict[str, float]
    against: dict[str, dict[str, Any]]


def deep(*words: str, store: Path) -> Any:
    """What a command of ``deep bench`` says."""
    return json.loads(command(BIN / "deep", "bench", *words, f"--store={store}", "--json").splitlines()[-1])


def measure() -> Found:
    """Measure everything, on a machine that has nothing else to do."""
    try:
        with engine.in_use(), tempfile.TemporaryDirectory() as folder, benchmarks("measured") as image:
            return ran(Path(folder), image)
    finally:
        engine.stop_if_ours()


def ran(store: Path, image: str) -> Found:
    """What the runs in a store have cost, and how they compare."""
    ways = {BARE: [], CONTAINER: ["--on=docker", f"--option=image={image}"], AGAIN: []}
    runs: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    with Memory() as memory:
        for name, options in ways.items():
            began = time.monotonic()
            runs[name] = deep("run", "--quick", f"--label={name}", *options, store=store)["run"]
            seconds[name] = time.monotonic() - began
    began = time.monotonic()
    against = {
        name: deep("compare", runs[BARE]["id"], runs[name]["id"], store=store) for name in (AGAIN, CONTAINER)
    }  # fmt: skip
    seconds["two comparisons"] = time.monotonic() - began
    way = {name: runs[CONTAINER]["submission"][name] for name in ("waited", "overhead")}
    return Found(seconds, memory.peak, way, against)


def change(outcome: dict[str, Any]) -> str:
    """A change with its interval, and the verdict."""
    if outcome["change"] is None:
        return f"{outcome['verdict']}: {outcome['reason']}"
    figures = f"{outcome['change']:+.1%} ({outcome['low']:+.1%} to {outcome['high']:+.1%})"
    return f"{figures}, {outcome['verdict']}"


def render(found: Found, minutes: float) -> str:
    """What was measured, for docs/performance.md."""
    outcomes = {name: {one["workload"]: one for one in said["outcomes"]} for name, said in found.against.items()}
    verdict = found.seconds[BARE] + found.seconds["two comparisons"] / 2
    differences = [one.partition(": ")[2] for one in found.against[CONTAINER]["differences"]]
    return "\n".join([
        f"Measured on {datetime.now(UTC).date().isoformat()} in {minutes:.0f} minutes: {machine()}.",
        *table(
            ("what", "measured", "bound", ""),
            [("until there is a verdict, seconds", f"{verdict:.0f}", str(AIM), reached(verdict, AIM))],
        ),
        *table(
            ("what", "measured"),
            [
                ("in a container, seconds", f"{found.seconds[CONTAINER]:.0f}"),
                ("of these until the container has said its first word", f"{found.way['waited']:.1f}"),
                ("of these all that is not the run itself", f"{found.way['overhead']:.1f}"),
                ("memory of all processes on the bare machine at the peak, MiB", f"{found.memory:.0f}"),
            ],
        ),
        *table(
            ("change against the bare machine", AGAIN, f"in the {CONTAINER}"),
            [(name, change(one), change(outcomes[CONTAINER][name])) for name, one in outcomes[AGAIN].items()],
        ),
        "",
        f"What else differs in the container: {'; '.join(differences) or 'nothing'}.",
    ])  # fmt: skip


def main() -> None:
    """Measure, and write it into the page when told to."""
    conclude(PART, measure, render, write=parser(__doc__).parse_args().write)


if __name__ == "__main__":
    main()
