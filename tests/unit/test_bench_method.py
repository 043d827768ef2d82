"""How is measured: warm-up by a clock of the test, wrong results, the workloads themselves, processes of their own."""

from __future__ import annotations

import gc
import itertools
import json
import re
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.benchmark import cpu, engine, machine, worker, workload
from pipelines.benchmark.method import InvalidError, measure
from pipelines.benchmark.model import Activity, Parameters, Plan
from pipelines.benchmark.workload import Resources
from testbed.errors import DeepError
from testbed.paths import repo_root
from tests.unit import bench_toys
from tests.unit.bench_toys import Clock, Scripted

SIMULATED = bench_toys.H200.model_copy(update={"simulated": True, "model": "NVIDIA Simulated T4"})
PLACE = "tests.unit.bench_toys:"


def measured(seconds: Any, *, repeats: int = 30, limit: float = 60.0, wrong: str | None = None) -> tuple[Any, Scripted]:
    """What a scripted workload gives, and the workload."""
    clock = Clock()
    one = Scripted(clock, seconds, wrong)
    return measure(one, Resources(3), repeats=repeats, limit=limit, clock=clock), one


def test_the_warm_up_is_left_out() -> None:
    series, one = measured(itertools.chain([1.0] * 20, itertools.cycle([0.125, 0.25])))
    assert series.dropped == 20
    assert len(series.seconds) >= 30
    assert set(series.seconds) == {0.125, 0.25}
    assert one.state == ["set up for 3", "torn down"]


def test_it_goes_on_until_there_are_as_many_steady_calls_as_asked_for() -> None:
    assert len(measured(itertools.repeat(0.125), repeats=100)[0].seconds) == 100


def test_what_never_is_steady_gives_no_figure_but_a_reason() -> None:
    with pytest.raises(InvalidError, match=r"not steady within 60 s: \d+ calls of 0.01 to .* s, .* needed: 30"):
        measured(0.01 * (1 + at / 20) for at in itertools.count())


def test_what_is_too_slow_for_its_limit_is_told() -> None:
    with pytest.raises(InvalidError, match="2 calls of 40 to 40 s, 0 of them steady, needed: 30"):
        measured(itertools.repeat(40.0))


def test_a_wrong_result_gives_no_figure() -> None:
    with pytest.raises(InvalidError, match="off by one"):
        measured(itertools.repeat(0.125), wrong="off by one")


@pytest.mark.parametrize("name", ["gemm-fp64", "gemm-fp32", "memory-copy", "memory-triad"])
def test_what_works_only_once_gives_no_figure(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Its buffers still hold the right result of the first call, which is none of the last one."""
    kind: Any = workload.load(CPU[name])
    works, clock, calls = kind.run, Clock(), itertools.count()

    def once(one: Any) -> None:
        clock.now += 0.125
        if next(calls) == 0:
            works(one)

    monkeypatch.setattr(kind, "run", once)
    with pytest.raises(InvalidError, match="wrong"):
        measure(kind(**SMALL[name]), Resources(1), repeats=30, limit=60, clock=clock)


def test_the_call_that_is_checked_does_not_count() -> None:
    calls = itertools.count()
    series, _ = measured((0.125 for _ in calls), repeats=30)
    assert next(calls) == len(series.seconds) + series.dropped + 1


def test_a_call_that_the_clock_does_not_see_gives_no_figure() -> None:
    with pytest.raises(InvalidError, match="too short"):
        measured(itertools.repeat(0.0))


def test_the_collector_is_as_before_and_what_was_taken_is_given_back_whatever_happens() -> None:
    clock = Clock()
    one = Scripted(clock, [])
    with pytest.raises(StopIteration):
        measure(one, Resources(1), repeats=30, limit=1, clock=clock)
    assert one.state[-1] == "torn down"
    assert gc.isenabled()


CPU = {name: place for name, place in workload.WORKLOADS["cpu"].items() if place.startswith("pipelines.benchmark.cpu:")}
SMALL: dict[str, Parameters] = {
    "gemm-fp64": {"size": 64},
    "gemm-fp32": {"size": 64},
    "memory-copy": {"array_bytes": 1 << 16},
}
SMALL["memory-triad"] = SMALL["memory-copy"]


@pytest.mark.parametrize("name", CPU)
def test_a_workload_does_what_it_says_and_notices_when_not(name: str) -> None:
    one: Any = workload.load(CPU[name])(**SMALL[name])
    assert one.name == name
    one.setup(Resources(3))
    one.run()
    assert one.check() is None
    assert one.work == {"memory-copy": 2 << 16, "memory-triad": 3 << 16}.get(name, 2 * 64**3)
    target = one.product if name.startswith("gemm") else one.data[0]
    target.flat[7] += 1
    assert "wrong" in one.check()
    target.flat[7] = np.nan
    assert "wrong" in one.check()
    one.teardown()


def of_bfloat16(one: Any) -> None:
    """A product of factors that have lost half of their digits."""
    left, right = ((each.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32) for each in (one.left, one.right))
    np.matmul(left, right, out=one.product)


def smaller_column(one: Any) -> None:
    one.product[:, 5] *= 0.999


def smaller_element(one: Any) -> None:
    one.product[np.unravel_index(np.abs(one.product).argmax(), one.product.shape)] *= 0.99


@pytest.mark.parametrize("size", [100, 1024])
@pytest.mark.parametrize("spoil", [of_bfloat16, smaller_column, smaller_element])
def test_a_product_of_another_precision_or_with_a_wrong_part_is_wrong(spoil: Callable[[Any], None], size: int) -> None:
    one = cpu.Gemm32(size)
    one.setup(Resources(2))
    one.run()
    assert one.check() is None
    spoil(one)
    assert "wrong" in (one.check() or "")


def test_without_a_call_the_result_is_wrong() -> None:
    for name, place in CPU.items():
        one: Any = workload.load(place)(**SMALL[name])
        one.setup(Resources(2))
        assert "wrong" in one.check()
        one.teardown()


def test_figures_are_work_by_time() -> None:
    assert cpu.Gemm64(1000).value(0.5) == 4.0
    assert Scripted(Clock(), []).value(0.25) == 250.0


def test_arrays_are_far_larger_than_the_caches() -> None:
    assert cpu.array_size(32 << 20) == 128 << 20
    assert cpu.array_size(1 << 20) == cpu.SMALLEST_ARRAY
    assert cpu.array_size(None) == cpu.WITHOUT_CACHE_SIZE


def test_a_machine_without_room_for_the_arrays_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_available", lambda: 100 << 20)
    with pytest.raises(DeepError, match=r"not enough memory for memory-triad.*found: .*100.*needed:"):
        cpu.Triad(64 << 20).setup(Resources(1))


def test_an_unknown_workload_is_told_with_those_there_are() -> None:
    with pytest.raises(DeepError, match=r"gemm-fp65.*gemm-fp64"):
        workload.chosen(["gemm-fp64", "gemm-fp65"], "cpu")
    assert list(workload.chosen(["memory-copy", "memory-copy"], "cpu")) == ["memory-copy"]


def test_a_network_of_deep_is_trained_in_the_precision_that_is_meant() -> None:
    assert workload.by_network("resnet50", "cpu", mixed=False) == "resnet50-train-fp32"
    assert workload.by_network("resnet50", "gpu", mixed=False) == "resnet50-train-tf32"
    assert workload.by_network("resnet50", "gpu", mixed=True) == "resnet50-train-amp"
    assert workload.by_network("gemm-fp64", "cpu", mixed=True) == "gemm-fp64"
    with pytest.raises(DeepError, match="processors train in single precision"):
        workload.by_network("vgg16", "cpu", mixed=True)
    for device, precision in (("cpu", "fp32"), ("gpu", "tf32"), ("gpu", "amp")):
        assert set(workload.training(precision)) <= workload.WORKLOADS[device].keys()  # type: ignore[index]


def test_a_process_says_why_there_are_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {
        "place": "pipelines.benchmark.cpu:Gemm64",
        "parameters": {"size": 16},
        "threads": 1,
        "device": "cpu",
        "gpus": 1,
        "repeats": 30,
        "limit": 9,
    }
    assert worker.work(job, clock=Clock())["invalid"].endswith("too short to be measured")
    monkeypatch.setattr(machine, "memory_available", lambda: 1)
    refused = worker.work(job | {"place": "pipelines.benchmark.cpu:Copy", "parameters": {}}, clock=Clock())
    assert refused["error"]["message"] == "not enough memory for memory-copy"


def test_a_run_measures_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    notes: list[str] = []
    plan = Plan(threads=1, processes=2, parameters=SMALL, label="here")
    done = engine.run({"gemm-fp64": CPU["gemm-fp64"]}, plan, notes.append)
    one = done.results[0]
    if one.status != "invalid":  # a busy machine may not let it become steady, and then says so
        assert one.summary is not None
        assert len(one.samples) == len(one.dropped) == 2
        assert min(len(process) for process in one.samples) >= 30
    else:
        assert one.reasons[0].startswith("not steady within")
    assert (one.parameters, one.threads, done.label) == ({"size": 64}, 1, "here")
    assert notes == ["gemm-fp64, process 1 of 2", "gemm-fp64, process 2 of 2"]
    assert json.loads(done.model_dump_json())["machine"]["libraries"]["numpy"] == np.__version__


@pytest.mark.parametrize(("others", "stolen", "said"), [(0.06, 0.0, "other programs used 6%"), (0.0, 0.02, "gave 2%")])
def test_other_work_meanwhile_makes_a_figure_suspect(
    monkeypatch: pytest.MonkeyPatch, others: float, stolen: float, said: str
) -> None:
    outcome = {"parameters": {}, "work": 1.0, "traffic": None, "samples": [1.0] * 30, "dropped": 0}
    monkeypatch.setattr(engine, "_process", lambda *_: outcome)
    for busy, status in ((Activity(others=others, stolen=stolen), "suspect"), (Activity(others=0, stolen=0), "valid")):
        monkeypatch.setattr(engine, "activity", lambda *_, busy=busy: busy)
        (one,) = engine.run({"memory-copy": CPU["memory-copy"]}, Plan(threads=1)).results
        assert one.status == status
        assert one.summary is not None
        assert (said in " ".join(one.reasons)) == (status == "suspect")


def test_the_number_of_threads_is_told_to_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    def instead(*_: object, env: dict[str, str], **__: object) -> Any:
        seen.update(env)
        raise subprocess.TimeoutExpired("worker", 1)

    monkeypatch.setattr(subprocess, "run", instead)
    for name in workload.ARITHMETIC_VARIABLES:
        monkeypatch.setenv(name, "1")
    done = engine.run({"gemm-fp64": CPU["gemm-fp64"]}, Plan(threads=3, processes=1))
    assert {seen[name] for name in workload.THREAD_VARIABLES} == {"3"}
    assert not seen.keys() & set(workload.ARITHMETIC_VARIABLES), "libraries would compute otherwise than they are told"
    assert done.results[0].status == "invalid"
    assert "a call hangs" in done.results[0].reasons[0]
    assert not done.ok


def test_a_process_that_dies_makes_the_result_invalid() -> None:
    done = engine.run({"dies": f"{PLACE}Dies"}, Plan(threads=1, processes=1))
    assert done.results[0].status == "invalid"
    assert "RuntimeError: no such luck" in done.results[0].reasons[0]
    assert done.results[0].summary is None


LOST = DeepError("the processes do not find together", found="process 7 ended with -9")


@pytest.mark.parametrize("kills", [(3, 4), (3, 3)])
@pytest.mark.parametrize(
    ("status", "output", "said"),
    [
        (-signal.SIGKILL, "", "its process ended with -9: it said nothing"),
        (
            0,
            json.dumps({"error": LOST.as_dict()}),
            "the processes do not find together (found: process 7 ended with -9)",
        ),
    ],
)
def test_a_process_that_the_kernel_kills_for_memory_is_told_so(
    kills: tuple[int, int], status: int, output: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that measures, or one that it has started."""
    counted = iter(kills)
    monkeypatch.setattr(engine, "memory_kills", lambda: next(counted))
    ended = subprocess.CompletedProcess([], status, output, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    (found,) = engine.run({"gemm-fp64": CPU["gemm-fp64"]}, Plan(processes=1)).results
    assert found.status == "invalid"
    more = "; memory ran out: the kernel has killed a process meanwhile" if kills == (3, 4) else ""
    assert found.reasons == (said + more,)


CUDA_FAILURE = """Traceback (most recent call last):
  File "worker.py", line 1, in work
KeyError: 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "worker.py", line 3, in work
    torch.cuda.synchronize()
    ~~~~~~~~~~~~~~~~~~~~~~^^
torch.AcceleratorError: CUDA error: an illegal memory access was encountered
CUDA kernel errors might be asynchronously reported at some other API call.
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.

[W1129 init.cpp:9] Warning: something at the end
"""


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        (CUDA_FAILURE, "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"),
        ("loading\nSegmentation fault\n", "Segmentation fault"),
        ("", "it said nothing"),
    ],
)
def test_a_process_that_fails_is_told_by_its_exception(monkeypatch: pytest.MonkeyPatch, stderr: str, said: str) -> None:
    ended = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    outcome = engine._process("gemm-fp64", CPU["gemm-fp64"], Plan(), 1)
    assert outcome == {"invalid": f"its process ended with 1: {said}"}


@pytest.mark.parametrize("theirs", [None, "/somewhere:/else"])
def test_modules_of_the_user_are_found_after_ours(monkeypatch: pytest.MonkeyPatch, theirs: str | None) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if theirs:
        monkeypatch.setenv("PYTHONPATH", theirs)
    paths = engine._environment(1)["PYTHONPATH"].split(":")
    assert paths == [str(repo_root()), *(theirs.split(":") if theirs else [])]


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ((), "no GPU to measure"),
        (
            (SIMULATED,),
            "a simulated GPU computes nothing.*NVIDIA Simulated T4",
        ),
    ],
)
def test_no_figure_is_made_without_a_real_gpu(monkeypatch: pytest.MonkeyPatch, gpus: Any, said: str) -> None:
    monkeypatch.setattr(engine, "fingerprint", lambda: bench_toys.MACHINE.model_copy(update={"gpus": gpus}))
    with pytest.raises(DeepError, match=said):
        engine.run({"scripted": f"{PLACE}Scripted"}, Plan(device="gpu", processes=1))


def test_what_a_process_refuses_is_the_reason_and_costs_no_other_figure() -> None:
    notes: list[str] = []
    plan = Plan(threads=1, processes=2, parameters=SMALL | {"memory-copy": {"array_bytes": 1 << 50}})
    done = engine.run({name: CPU[name] for name in ("memory-copy", "gemm-fp64")}, plan, notes.append)
    refused, other = done.results
    assert (refused.status, refused.summary) == ("invalid", None)
    assert re.search(r"not enough memory for memory-copy .*found: .* available; needed:", refused.reasons[0])
    assert len(refused.reasons) == 1
    assert len(other.samples) == 2 or other.reasons[0].startswith("not steady within")
    assert [one for one in notes if "memory-copy" in one] == ["memory-copy, process 1 of 2"], "it is not asked again"
