"""Plots of several workloads: where the roofs and the dots stand, what is compared by threads, labels and axes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmark import axes, plots, report
from pipelines.benchmark.axes import Box, LogAxis, Spot
from pipelines.benchmark.model import Machine, Result, figure
from pipelines.benchmark.store import Store
from tests.unit.bench_toys import H200, MACHINE, noise, result, run

GPU_MACHINE = MACHINE.model_copy(update={"gpus": (H200,)})
FLOP = 2.0e12


def copy(level: float = 100.0, **changes: Any) -> Result:
    return result(noise(level, scatter=0), **{"workload": "memory-copy", "unit": "GB/s", "parameters": {}} | changes)


def gemm(level: float, intensity: float, workload: str = "gemm-fp64", **changes: Any) -> Result:
    """A product of matrices with so many FLOP for each byte."""
    return result(noise(level, scatter=0), workload, work=FLOP, traffic=FLOP / intensity, **changes)


def roofline(*results: Result, machine: Machine = MACHINE) -> dict[str, Any]:
    drawn = plots.roofline(run(machine=machine), results)
    assert drawn is not None
    return drawn


def on_line(line: dict[str, Any], x: float) -> float:
    """How high a line is at a place."""
    share = (x - line["x1"]) / (line["x2"] - line["x1"])
    return float(line["y1"] + share * (line["y2"] - line["y1"]))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (794512.0, "794500"), (12345.6, "12350"), (4.32149, "4.321"), (100.0, "100"), (0.00012346, "0.0001235"),
        (0.000001, "1e-06"), (2.5e9, "2.5e+09"), (0.0, "0"),
    ],
)  # fmt: skip
def test_figures_have_four_digits_and_no_exponent_where_none_is_needed(value: float, said: str) -> None:
    assert figure(value) == said


def test_a_logarithmic_axis_and_its_ticks() -> None:
    axis = LogAxis(1.0, 1000.0, 100.0, 400.0)
    assert [axis.place(value) for value in (1, 10, 1000)] == [100.0, 200.0, 400.0]
    assert [value for _, value in axis.ticks()] == [1.0, 10.0, 100.0, 1000.0]
    assert [value for _, value in LogAxis(0.4, 22.0, 0, 1).ticks()] == [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    assert [value for _, value in LogAxis(9.0, 31.0, 0, 1).ticks()] == [10.0, 20.0, 30.0]


def test_a_label_stands_where_nothing_else_does() -> None:
    plot = Box(0, 0, 200, 100)
    spots = [Spot(190, 50, "start"), Spot(100, 50, "start"), Spot(100, 80, "end")]
    taken: list[Box] = []
    assert axes.label("gemm", spots, plot, taken) == ("gemm", 100, 50, "start")
    assert axes.label("gemm", spots, plot, taken) == ("gemm", 100, 80, "end")
    assert axes.label("gemm", spots, plot, taken) == ("gemm", 190, 50, "start")
    assert len(taken) == 3


def test_what_memory_bounds_lies_on_the_slope_and_what_arithmetic_bounds_on_the_flat_roof() -> None:
    bound = gemm(200.0, intensity=2.0, workload="stencil")
    drawn = roofline(copy(100.0), bound, gemm(1000.0, intensity=80.0), gemm(400.0, 80.0, "solver"))
    slope, flat = drawn["lines"]
    marks = {one["name"]: one for one in drawn["marks"]}
    assert on_line(slope, marks["stencil"]["x"]) == pytest.approx(marks["stencil"]["y"], abs=0.2)
    assert on_line(flat, marks["gemm-fp64"]["x"]) == marks["gemm-fp64"]["y"]
    assert marks["solver"]["y"] > flat["y1"], "below the roof: pixels count downwards"
    assert (slope["x2"], slope["y2"]) == pytest.approx((flat["x1"], flat["y1"]), abs=0.2), "they meet at a corner"
    assert (slope["text"], slope["measured"], flat["measured"]) == ("memory-copy measured: 100 GB/s", True, True)


def test_workloads_of_torch_are_roofs_as_well() -> None:
    drawn = roofline(copy(workload="torch-memory-triad"), gemm(1000.0, 80.0, "torch-gemm-fp64"))
    assert [one["text"] for one in drawn["lines"]] == ["torch-memory-triad measured: 100 GB/s", ""]


def test_the_limits_of_a_known_device_are_roofs() -> None:
    there = {"device": "NVIDIA H200"}
    drawn = roofline(copy(4000.0, **there), gemm(790000.0, 5000.0, "gemm-bf16", **there), machine=GPU_MACHINE)
    assert [one["text"] for one in drawn["lines"]] == [
        "memory-copy measured: 4000 GB/s", "limit: 4800 GB/s", "gemm-bf16 limit",
    ]  # fmt: skip
    assert [one["measured"] for one in drawn["lines"]] == [True, False, False]
    assert drawn["marks"][0]["limit"] == 1070000


def test_a_suspect_roof_says_so() -> None:
    assert "measured, suspect" in roofline(copy(status="suspect"), gemm(1000.0, 80.0))["lines"][0]["text"]


@pytest.mark.parametrize(
    "results",
    [
        (copy(),),
        (gemm(1000.0, 80.0),),
        (copy(), result(noise(10.0))),
        (copy(), gemm(10.0, 0.1, "stencil")),
        (copy(summary=None, status="invalid"), gemm(1000.0, 80.0)),
        (copy(workload="host-to-host"), gemm(1000.0, 80.0)),
    ],
    ids=["memory only", "arithmetic only", "unknown traffic", "no roof", "invalid", "other bytes"],
)
def test_there_is_no_roofline_of_one_kind_only(results: tuple[Result, ...]) -> None:
    assert plots.roofline(run(), results) is None


def test_no_label_lies_on_another_or_on_a_dot() -> None:
    there = {"device": "NVIDIA H200"}
    levels = {
        "gemm-bf16": (790000.0, 5461.0), "gemm-fp8": (1366000.0, 8192.0), "gemm-fp64": (60000.0, 683.0),
        "gemm-fp64-tensor": (59000.0, 683.0), "gemm-tf32": (400000.0, 1365.0), "attention-bf16": (390000.0, 1000.0),
        "layernorm-fp32": (1100.0, 0.33),
    }  # fmt: skip
    work = [gemm(level, intensity, name, **there) for name, (level, intensity) in levels.items()]
    drawn = roofline(copy(4010.0, **there), *work, machine=GPU_MACHINE)
    labels = [one["label"] for one in drawn["lines"] + drawn["marks"] if one["label"]]
    boxes = [axes.box(one.text, Spot(*one[1:])) for one in labels]
    points = axes.dots((one["x"], one["y"]) for one in drawn["marks"])
    assert len(boxes) == 13
    assert all(plots.PLOT.holds(one) for one in boxes)
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].meets(pair[1])]
    assert not [one for one in boxes if any(one.meets(point) for point in points)]


def test_figures_by_threads_are_held_against_the_ideal() -> None:
    results = [result(noise(level, scatter=0), threads=count) for count, level in ((4, 300.0), (1, 100.0), (2, 180.0))]
    (drawn,) = plots.scaling(results, "cpu")
    assert [(one["number"], round(one["share"], 3)) for one in drawn["marks"]] == [(1, 1.0), (2, 0.9), (4, 0.75)]
    assert drawn["ideal"][0] == (drawn["marks"][0]["x"], drawn["marks"][0]["y"])
    assert all(at < one["y"] for (_, at), one in zip(drawn["ideal"][1:], drawn["marks"][1:], strict=True))
    assert [number for _, number in drawn["x"]] == [1, 2, 4]


def test_times_by_gpus_are_ideal_where_they_halve() -> None:
    results = [
        result(noise(level, scatter=0), "step", unit="ms", direction="lower", parameters={"processes": count})
        for count, level in ((2, 10.0), (4, 8.0))
    ]
    (drawn,) = plots.scaling(results, "gpu")
    assert (drawn["count"], drawn["marks"][1]["share"]) == ("GPUs", pytest.approx(0.625))
    assert drawn["ideal"][1][1] > drawn["marks"][1]["y"]
    assert plots.scaling(results, "cpu") == []


def test_bytes_between_gpus_are_ideal_where_they_stay_as_fast(tmp_path: Path) -> None:
    there: dict[str, Any] = {"workload": "all-reduce", "unit": "GB/s", "device": "NVIDIA H200"}
    store = Store(tmp_path)
    for day, (count, level) in enumerate(((2, 400.0), (8, 300.0))):
        one = result(noise(level, scatter=0), parameters={"processes": count}, **there)
        store.append(run(one, day=day, machine=GPU_MACHINE))
    assert "(dashed: as much as with 2): 75 % with 8." in report.render(store)


def test_only_what_is_otherwise_the_same_is_compared_by_threads() -> None:
    one = result(noise(100.0), threads=1)
    assert plots.scaling([one], "cpu") == []
    assert plots.scaling([one, result(noise(100.0), threads=2, parameters={"size": 2048})], "cpu") == []
    assert plots.scaling([one, result(noise(100.0), "gemm-fp32", threads=2)], "cpu") == []
    invalid = result(noise(100.0), threads=2, status="invalid", summary=None)
    assert plots.scaling([one, invalid], "cpu") == []


def test_numbers_on_an_axis_do_not_lie_on_each_other() -> None:
    results = [result(noise(10.0 * count), threads=count) for count in (1, 2, *range(120, 129))]
    (drawn,) = plots.scaling(results, "cpu")
    assert [number for _, number in drawn["x"]] == [1, 2, 120]
    assert len(drawn["marks"]) == 11


def kept(tmp_path: Path, *results: list[Result]) -> str:
    """The report of runs with these results, a day apart."""
    store = Store(tmp_path)
    for day, each in enumerate(results):
        store.append(run(*each, day=day))
    return report.render(store)


def test_the_report_shows_the_plots_of_several_workloads(tmp_path: Path) -> None:
    text = kept(tmp_path, [copy(), gemm(1000.0, 80.0)], [gemm(1800.0, 80.0, threads=8, status="suspect")])
    assert "Roofline of Toy, 4 CPUs: memory-copy measured: 100 GB/s" in text
    assert "gemm-fp64: 80 FLOP/byte, 1000 GFLOP/s" in text
    assert "gemm-fp64 on Toy, 4 CPUs with 4, 8 threads" in text
    assert "90 % with 8 (suspect)" in text
    assert 'gemm-fp64 by threads <span class="faint">(size 1024)</span>' in text
    assert text.count("<svg") == text.count('role="img" aria-label="') == text.count("<figcaption>") == 8
    assert not re.search(r">[\d.]+e\+\d", text), "a figure with an exponent"


def test_the_report_has_no_plot_of_several_workloads_where_there_is_one(tmp_path: Path) -> None:
    text = kept(tmp_path, [gemm(1000.0, 80.0)])
    assert text.count("<svg") == 2
    assert "Roofline" not in text


def test_the_newest_run_that_has_both_kinds_has_the_roofline(tmp_path: Path) -> None:
    both = [copy(), gemm(1000.0, 80.0)]
    text = kept(tmp_path, both, [copy(90.0, threads=8), gemm(900.0, 80.0, threads=8)], [copy(80.0, threads=2)])
    assert 'Roofline <span class="faint">(run 20260102-toy)' in text
