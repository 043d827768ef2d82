"""Measure releases: what docs/performance.md says of them.

On a clone of the checkout: a whole candidate by `deep release build`, from nothing and again, and the memory of all its
processes. With a candidate of many small packages: each step to production and a rollback, with everything checked that
they check.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks.sqa import Memory
from benchmarks.testbed import BIN, ROOT, command, conclude, machine, parser, reached, table, timed
from pipelines.release.state import Stage
from tests.unit.release_toys import Workshop, workshop

PART = "release"
ARTEFACTS, ROUNDS = 100, 5
STEP_SECONDS, AGAIN = 2.0, 0.05
MANIFEST = "deep-testbed-0.1"


@dataclass(frozen=True)
class Found:
    """Seconds, by step where there are several; memory of all processes together in MiB."""

    artefacts: int
    cold: float
    again: float
    memory: float
    steps: dict[str, list[float]]


def build(root: Path, output: Path) -> float:
    """Seconds in which `deep release build` makes a candidate of a clone."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    argv: list[str | Path] = [BIN / "deep", "release", "build", MANIFEST, "--output", output, "--root", root]
    began = time.monotonic()
    done = subprocess.run(argv, cwd=root, env=environment, check=False, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"deep release build failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - began


def steps(shop: Workshop, artefacts: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, with two versions of a candidate of so many packages."""
    products = {f"product-{number:03}": f"{number}\n" for number in range(artefacts // 2)}
    release = shop.release(shop.folder / "store")
    taken: dict[str, list[float]] = {"stage": [], "promote": [], "rollback": []}
    versions = [f"1.{number}.0" for number in range(rounds + 1)]
    stages: tuple[Stage, ...] = ("testing", "production")
    for version in versions:
        made = shop.candidate(version, products)
        taken["stage"].append(timed(partial(release.stage, made)))
        for stage in stages:
            taken["promote"].append(timed(partial(release.promote, version, stage)))
    for version in versions[:-1]:
        taken["rollback"].append(timed(partial(release.rollback, version, "production")))
    return taken


def measure(artefacts: int, rounds: int, *, built: bool) -> Found:
    """Measure everything, on a machine that has nothing else to do."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cold = again = peak = 0.0
        if built:
            root = folder / "main"
            command("git", "clone", "--quiet", str(ROOT), str(root))
            with Memory() as memory:
                cold = build(root, folder / "candidate")
            again = min(build(root, folder / "candidate") for _ in range(3))
            peak = memory.peak
        (folder / "shop").mkdir()
        with workshop(folder / "shop") as shop:
            return Found(artefacts, cold, again, peak, steps(shop, artefacts, rounds))


def render(found: Found, minutes: float) -> str:
    """What was measured, for docs/performance.md."""
    median = {name: statistics.median(seconds) for name, seconds in found.steps.items()}
    rows = [
        (
            f"{name}, {found.artefacts} packages, seconds (median)", f"{median[name]:.2f}", str(STEP_SECONDS),
            reached(median[name], STEP_SECONDS),
        )
        for name in ("promote", "rollback")
    ]  # fmt: skip
    rows.append(
        (
            "build again against cold",
            f"{found.again / found.cold:.2f}x",
            f"{AGAIN}x",
            reached(found.again / found.cold, AGAIN),
        )
    )
    return "\n".join([
        f"Measured on {datetime.now(UTC).date().isoformat()} in {minutes:.0f} minutes: {machine()}.",
        *table(("what", "measured", "bound", ""), rows),
        *table(
            ("what", "measured"),
            [
                ("whole candidate, cold, seconds", f"{found.cold:.1f}"),
                ("whole candidate, again, seconds", f"{found.again:.1f}"),
                (f"stage, {found.artefacts} packages, seconds (median)", f"{median['stage']:.2f}"),
                ("memory of all processes at the peak of a cold build, MiB", f"{found.memory:.0f}"),
            ],
        ),
    ])  # fmt: skip


def main() -> None:
    """Measure, and write it into the page when told to."""
    asked = parser(__doc__)
    asked.add_argument("--artefacts", type=int, default=ARTEFACTS, help="packages of the candidate that is promoted")
    asked.add_argument("--rounds", type=int, default=ROUNDS, help="promotions and rollbacks")
    asked.add_argument(
        "--steps-only", action="store_true", help="build no candidate of this repository; writes nothing"
    )
    options = asked.parse_args()
    built = not options.steps_only
    conclude(
        PART, partial(measure, options.artefacts, options.rounds, built=built), render, write=options.write and built
    )


if __name__ == "__main__":
    main()
