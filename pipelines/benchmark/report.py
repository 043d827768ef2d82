"""The report for people: one HTML file with its plots in it, of the latest figures and of how they came to be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.benchmark import history, limits, plots
from pipelines.benchmark.axes import scale, ticks
from pipelines.benchmark.model import Device, Result, Run, figure
from pipelines.benchmark.store import Series, Store, settings

TEMPLATE = Path(__file__).resolve().parent / "report.html.j2"
# Of a plot, in pixels: its size, and the space left of and below it for what the axes say.
WIDTH, HEIGHT, LEFT, BELOW, ROW = 680, 200, 70, 26, 26
# Runs that a plot shows; the file stays small however long there have been runs.
MOST_RUNS = 200


def render(store: Store, workload: str | None = None, device: str | None = None) -> str:
    """The report of what a store holds of a workload and of a device, of all where none is named."""
    import jinja2  # slow, and most commands write no report

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    series = store.history(workload, device)
    runs = {name: store.get(name) for name in dict.fromkeys(one.points[-1].run for one in series)}
    sections = [_section(one, runs[one.points[-1].run]) for one in series]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        devices=[_device(name, [one for one in sections if one["device"] == name]) for name in _devices(series)],
        machines=[_machine(run) for run in runs.values()],
        baselines=store.baselines(),
        damaged=store.damaged(),
        figure=figure, width=WIDTH, height=HEIGHT, left=LEFT, below=BELOW, row=ROW, plot=plots.PLOT,
        plot_height=plots.HEIGHT,
    )  # fmt: skip


def _device(name: str, sections: list[dict[str, Any]]) -> dict[str, Any]:
    """One device model: its workloads, and the plots of several of them."""
    runs = {one["run"].id: one["run"] for one in sections}
    results = {key: [one["latest"] for one in sections if one["run"].id == key] for key in runs}
    newest = sorted(runs, key=lambda key: runs[key].started, reverse=True)
    kind = sections[0]["run"].machine.kind(name)
    rooflines = (plots.roofline(runs[key], results[key]) for key in newest)
    return {
        "name": name, "sections": sections, "roofline": next((one for one in rooflines if one), None),
        "scaling": plots.scaling([one["latest"] for one in sections], kind),
    }  # fmt: skip


def _devices(series: Sequence[Series]) -> list[str]:
    return list(dict.fromkeys(one.device for one in series))


def _section(series: Series, run: Run) -> dict[str, Any]:
    """One workload: the latest figure, its history and how its samples lie."""
    latest = next(one for one in run.results if (one.workload, one.device) == (series.workload, series.device))
    points = series.points[-MOST_RUNS:]
    return {
        "workload": series.workload, "device": series.device, "settings": settings(latest), "unit": series.unit,
        "better": series.direction, "latest": latest, "run": run, "runs": len(series.points),
        "history": _history(series._replace(points=points)), "samples": _samples(latest),
    }  # fmt: skip


def _history(series: Series) -> dict[str, Any]:
    """Places of the medians with their intervals, of changes of level, and of the axis."""
    points = series.points
    bottom, top = scale(min(one.low for one in points), max(one.high for one in points))
    step = (WIDTH - LEFT) / (len(points) + 1)

    def y(value: float) -> float:
        return round(HEIGHT * (top - value) / (top - bottom), 1)

    marks = [
        {
            "x": round(LEFT + step * (at + 1), 1),
            "y": y(one.median),
            "high": y(one.high),
            "low": y(one.low),
            "point": one,
        }
        for at, one in enumerate(points)
    ]
    changes = [
        {"x": round(LEFT + step * (at + 0.5), 1), "started": points[at].started[:10]}
        for at in history.changes([one.median for one in points])
    ]
    return {"marks": marks, "changes": changes, "ticks": [(y(one), one) for one in ticks(bottom, top)]}


def _samples(result: Result) -> dict[str, Any]:
    """Places of all samples, a row for each process, with the middle half and the median of all."""
    summary = result.summary
    if summary is None:
        raise ValueError(f"{result.workload} has no figure")
    left, right = scale(min(result.pooled), max(result.pooled))

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT) * (value - left) / (right - left), 1)

    rows = [[x(value) for value in process] for process in result.samples]
    box = {"from": x(summary.p25), "to": x(summary.p75), "median": x(summary.median)}
    return {"rows": rows, "box": box, "ticks": [(x(one), one) for one in ticks(left, right)]}


def _machine(run: Run) -> dict[str, Any]:
    kinds: tuple[Device, ...] = ("cpu", "gpu") if run.machine.gpus else ("cpu",)
    notes = [one for kind in kinds for one in limits.slowing(run, kind)]
    return {"run": run, "machine": run.machine, "notes": notes}
