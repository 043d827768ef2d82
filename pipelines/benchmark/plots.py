"""Two plots of several workloads: the roofline of a device, and how a figure grows with threads or GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pipelines.benchmark import limits
from pipelines.benchmark.axes import Box, Label, LogAxis, Spot, along, around, dots, label
from pipelines.benchmark.model import GPU_COUNT, Device, Machine, Result, Run, figure

# Of a plot, in pixels: its size with its axes, and the space for what they say.
WIDTH, HEIGHT, LEFT, TOP, BELOW = 680, 320, 70, 22, 44
BYTES, FLOP = "GB/s", "GFLOP/s"
# By what is in their names: measures of memory, and products of matrices, which are as fast as arithmetic gets.
MEMORY = ("memory-copy", "memory-triad")
PRODUCTS = "gemm-"
# What says how many threads or GPUs a workload has used.
COUNTS: dict[Device, str] = {"cpu": "threads", "gpu": GPU_COUNT}
PLOT = Box(LEFT, TOP, WIDTH, HEIGHT - BELOW)


class Roof(NamedTuple):
    """What bounds figures: ``value`` in GB/s or GFLOP/s, measured or the device's limit."""

    text: str
    value: float
    measured: bool


def roofline(run: Run, results: Sequence[Result]) -> dict[str, Any] | None:
    """Where the workloads of one run whose work is FLOP stand below what memory and arithmetic allow.

    ``None`` where the run has not measured both. S. Williams, A. Waterman and D. Patterson (2009).
    """
    memory = [one for one in results if one.summary and one.unit == BYTES and one.workload.endswith(MEMORY)]
    work = [one for one in results if one.summary and one.unit == FLOP and one.traffic]
    if not memory or not work:
        return None
    slopes, flats = _slopes(run.machine, memory), _flats(run.machine, work)
    if not flats:
        return None
    x, y = _plane(slopes, flats, work)
    places = [(x.place(_intensity(one)), y.place(_median(one))) for one in work]
    top, steepest = max(one.value for one in flats), max(one.value for one in slopes)
    sloping = [_line(one, (max(x.low, y.low / one.value), top / one.value), x, y, one.value) for one in slopes]
    level = [_line(one, (one.value / steepest, x.high), x, y) for one in flats]
    taken = dots(places)
    for line in (*sloping, *level):
        taken += along((line["x1"], line["y1"]), (line["x2"], line["y2"]))
    for line in sloping:
        line["label"] = label(line["text"], _beside(line), PLOT, taken)
    marks = [
        {
            "x": place[0], "y": place[1], "status": one.status, "name": one.workload, "value": _median(one),
            "intensity": _intensity(one), "limit": _limit(one, run.machine),
            "label": label(one.workload, around(*place), PLOT, taken),
        }
        for place, one in zip(places, work, strict=True)
    ]  # fmt: skip
    for line in level:
        line["label"] = label(line["text"], _above(line), PLOT, taken) if line["text"] else None
    return {"run": run, "marks": marks, "lines": sloping + level, "x": x.ticks(), "y": y.ticks()}


def scaling(results: Sequence[Result], kind: Device) -> list[dict[str, Any]]:
    """How figures of one device change with the number of threads, or of GPUs, where all else is the same."""
    groups: dict[tuple[str, str, str], dict[int, Result]] = {}
    for one in results:
        others = {"threads": one.threads, **one.parameters}
        if one.summary and COUNTS[kind] in others:
            number = int(others.pop(COUNTS[kind]))
            text = ", ".join(f"{name} {value}" for name, value in sorted(others.items()))
            groups.setdefault((one.workload, one.unit, text), {})[number] = one
    return [
        _scaling(kind, dict(sorted(group.items()))) | {"settings": text}
        for (_, _, text), group in groups.items()
        if len(group) > 1
    ]


def _median(one: Result) -> float:
    if one.summary is None:
        raise ValueError(f"{one.workload} has no figure")
    return one.summary.median


def _intensity(one: Result) -> float:
    """FLOP for each byte that has to move."""
    if one.traffic is None:
        raise ValueError(f"nothing is known of what {one.workload} moves")
    return one.work / one.traffic


def _limit(one: Result, machine: Machine) -> float | None:
    known = limits.quantity(one.workload, machine.kind(one.device), machine, one.threads)
    return known.limit if known and known.unit == one.unit else None


def _slopes(machine: Machine, memory: Sequence[Result]) -> list[Roof]:
    """The fastest that was measured, and the limit where it is known."""
    best = max(memory, key=_median)
    said = "measured" if best.status == "valid" else f"measured, {best.status}"
    found = [Roof(f"{best.workload} {said}: {figure(_median(best))} {BYTES}", _median(best), measured=True)]
    if limit := _limit(best, machine):
        found.append(Roof(f"limit: {figure(limit)} {BYTES}", limit, measured=False))
    return found


def _flats(machine: Machine, work: Sequence[Result]) -> list[Roof]:
    """The limit of each workload that has one, what was measured of products of matrices that have none.

    The latter have no text: each has its dot on it, with its name.
    """
    found: dict[float, Roof] = {}
    for one in work:
        limit = _limit(one, machine)
        if limit:
            found.setdefault(limit, Roof(f"{one.workload} limit", limit, measured=False))
        elif PRODUCTS in one.workload:
            found[_median(one)] = Roof("", _median(one), measured=True)
    return list(found.values())


def _plane(slopes: Sequence[Roof], flats: Sequence[Roof], work: Sequence[Result]) -> tuple[LogAxis, LogAxis]:
    """Axes that show every dot and every corner of the roofs, with room for what they are called."""
    corners = [flat.value / slope.value for flat in flats for slope in slopes]
    intensities = [_intensity(one) for one in work]
    left, right = min(*corners, *intensities) / 8, max(*corners, *intensities) * 8
    highest = max(*(one.value for one in flats), *map(_median, work))
    lowest = min(min(_median(one) for one in work) / 2, left * 4 * min(one.value for one in slopes))
    return LogAxis(left, right, PLOT.left, PLOT.right), LogAxis(lowest, highest * 2, PLOT.bottom, PLOT.top)


def _line(roof: Roof, ends: tuple[float, float], x: LogAxis, y: LogAxis, slope: float | None = None) -> dict[str, Any]:
    """A roof between two intensities: a sloping one allows ``slope`` times the intensity, a level one its value."""
    begin, end = ((one * slope if slope else roof.value) for one in ends)
    return {
        "x1": x.place(ends[0]), "y1": y.place(begin), "x2": x.place(ends[1]), "y2": y.place(end),
        "measured": roof.measured, "text": roof.text,
    }  # fmt: skip


def _beside(line: dict[str, Any]) -> list[Spot]:
    """Spots for the name of a sloping roof: that of the limit stands on its left, what was measured is below it."""
    side, anchor = (10.0, "start") if line["measured"] else (-10.0, "end")
    x, y = line["x2"] - line["x1"], line["y2"] - line["y1"]
    shares = (0.5, 0.35, 0.65, 0.2, 0.8, 0.1)
    return [Spot(line["x1"] + x * share + side, line["y1"] + y * share + 4, anchor) for share in shares]


def _above(line: dict[str, Any]) -> list[Spot]:
    """Spots for the name of a level roof: above it or below, the farther to the right the better."""
    rows = (line["y1"] - 7, line["y1"] + 15)
    return [Spot(line["x2"] - shift, row, "end") for shift in range(4, 404, 40) for row in rows]


def _scaling(kind: Device, group: dict[int, Result]) -> dict[str, Any]:
    """Figures by number, beside the ideal: each one more does as much as the first ones do.

    Bytes that GPUs send to each other are ideal where they stay as fast as between the first ones.
    """
    numbers = list(group)
    first = group[numbers[0]]
    level = kind == "gpu" and first.unit == BYTES
    times = [1.0 if level else number / numbers[0] for number in numbers]
    ideals = [_median(first) * (one if first.direction == "higher" else 1 / one) for one in times]
    summaries = [one.summary for one in group.values() if one.summary]
    values = [*ideals, *(one.low for one in summaries), *(one.high for one in summaries)]
    x = LogAxis(numbers[0] / 1.15, numbers[-1] * 1.15, PLOT.left, PLOT.right)
    y = LogAxis(min(values) / 1.15, max(values) * 1.15, PLOT.bottom, PLOT.top)
    marks = [
        {
            "x": x.place(number), "y": y.place(one.median), "high": y.place(one.high), "low": y.place(one.low),
            "number": number, "summary": one, "status": group[number].status,
            "share": one.median / ideal if first.direction == "higher" else ideal / one.median,
        }
        for number, one, ideal in zip(numbers, summaries, ideals, strict=True)
    ]  # fmt: skip
    line = [(x.place(number), y.place(value)) for number, value in zip(numbers, ideals, strict=True)]
    return {
        "workload": first.workload, "unit": first.unit, "count": "GPUs" if kind == "gpu" else "threads", "marks": marks,
        "ideal": line, "ideal_label": _ideal_label(line, marks), "level": level, "x": _numbers(x, numbers),
        "y": y.ticks(), "first": numbers[0],
    }  # fmt: skip


def _ideal_label(ideal: Sequence[tuple[float, float]], marks: Sequence[dict[str, Any]]) -> Label:
    end_x, end_y = ideal[-1]
    spots = [Spot(end_x - shift, end_y + row, "end") for row in (4.0, -10.0, 18.0) for shift in (12, 24, 40, 60)]
    taken = dots((one["x"], one["y"]) for one in marks) + along(ideal[0], ideal[-1])
    return label("ideal", spots, PLOT, taken)


def _numbers(axis: LogAxis, numbers: Sequence[int]) -> list[tuple[float, int]]:
    """Ticks at what was measured, without those whose numbers would lie on the one before."""
    found: list[tuple[float, int]] = []
    for number in numbers:
        place = axis.place(number)
        if not found or place - found[-1][0] >= 30:
            found.append((place, number))
    return found
