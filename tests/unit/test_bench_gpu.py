"""GPUs by NVML: what it says of them before a run and meanwhile, and what that makes of figures."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from pipelines.benchmark import engine, gpu, limits, pytorch, workload
from pipelines.benchmark.gpu import Look
from pipelines.benchmark.model import Activity, GpuActivity, Plan, Result, Run
from tests.unit.bench_nvml_toy import Answers, Nvml, processes, refuse
from tests.unit.bench_toys import H200, MACHINE, noise, result, run

CLOCKS, FORMER = "CurrentClocksEventReasons", "CurrentClocksThrottleReasons"
OTHER = H200.model_copy(update={"uuid": "GPU-2", "index": 1})
QUIET = Activity(others=0, stolen=0)


def nvml(monkeypatch: pytest.MonkeyPatch, *gpus: dict[str, Any]) -> Nvml:
    made = Nvml(*({"Name": "NVIDIA H200", "UUID": f"GPU-{at}", **one} for at, one in enumerate(gpus, start=1)))
    monkeypatch.setitem(sys.modules, "pynvml", made)
    return made


@pytest.mark.parametrize(
    ("told", "slowed"),
    [
        ({CLOCKS: 0x40}, ("heat (hardware)",)),
        ({CLOCKS: 0x3}, ("application clocks",)),
        ({FORMER: 0x80}, ("power brake",)),
        ({CLOCKS: 1, FORMER: 8}, ()),
        ({}, None),
    ],
)
def test_why_a_clock_is_down_is_asked_by_both_names_and_may_be_unknown(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], slowed: tuple[str, ...] | None
) -> None:
    nvml(monkeypatch, told)
    ((found,), problem) = gpu.gpus()
    assert (found.slowed, problem) == (slowed, None)


def test_what_holds_a_gpu_back_is_part_of_its_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(monkeypatch, {"EnforcedPowerLimit": 699_900, "ClockInfo": 1980}, {})
    (limited, silent), _ = gpu.gpus()
    assert (limited.power_limit, limited.clock, limited.memory_clock) == (699, 1980, 1980)
    assert (silent.power_limit, silent.memory_clock) == (None, None)


def test_slices_are_known_by_their_uuids(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = {"slices": ["MIG-1", "MIG-2"], "MaxMigDeviceCount": 2}
    nvml(monkeypatch, slices | {"MigMode": (1, 1)}, slices | {"MigMode": (0, 0)})
    assert [one.slices for one in gpu.gpus()[0]] == [("MIG-1", "MIG-2"), ()]


def test_a_gpu_is_looked_at_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the thread, too: the heat in between is seen by no other look."""
    looks = Answers([0x1, 0x40, 0x4])
    hot = {CLOCKS: looks, "ComputeRunningProcesses": Answers([processes(7), processes(7, 8)])}
    told = nvml(monkeypatch, hot | {"TotalEccErrors": Answers([3, 3, 5])}, {})
    with gpu.Watch(every=0.001) as watch:
        for _ in range(1000):  # patience, for a thread of its own
            time.sleep(0.01 if len(looks) > 1 else 0)
    first, second = watch.seen
    assert (first.uuid, first.slowed) == ("GPU-1", ("power cap", "heat (hardware)"))
    assert (first.processes, first.mps, first.ecc_errors) == (1, None, 2)
    assert first.looks == second.looks >= 3
    assert second == GpuActivity(uuid="GPU-2", looks=first.looks)
    assert told.open == 0


@pytest.mark.parametrize(
    ("looks", "seen"),
    [
        ([Look(0, 0, 0, 0), Look(0, 1, 0, 0)], (0, 0, 0)),
        ([Look(0, 1, 2, 4), Look(0, 3, None, 9), Look(0, 1, 1, None)], (2, 2, 5)),
        ([Look(0, None, None, None)], (None, None, None)),
        ([Look(0, 0, 0, 9), Look(0, 0, 0, 1)], (0, 0, 0)),
    ],
)
def test_looks_together(looks: list[Look], seen: tuple[int | None, ...]) -> None:
    """One of the processes is ours; errors from before are none of the run's."""
    found = gpu.activity("GPU-1", looks)
    assert (found.processes, found.mps, found.ecc_errors) == seen


def test_processes_on_other_slices_are_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    there = processes(7, instance=1) + processes(8, instance=2)
    nvml(
        monkeypatch,
        {"ComputeRunningProcesses": there},
        {"ComputeRunningProcesses": [*there, *processes(9, instance=2)]},
    )
    with gpu.Watch() as watch:
        pass
    assert [one.processes for one in watch.seen] == [0, 1]


def test_without_nvml_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Nvml()
    refusing.functions["nvmlInit"] = refuse
    for module in (None, refusing):
        monkeypatch.setitem(sys.modules, "pynvml", module)
        with gpu.Watch() as watch:
            pass
        assert watch.seen == ()


def measured(monkeypatch: pytest.MonkeyPatch, name: str, meanwhile: Activity, value: float, *used: str) -> Result:
    """The result of a workload on a machine with two GPUs on which that happened."""
    outcome = {
        "parameters": {}, "work": 1.0, "traffic": None, "samples": [value] * 5, "dropped": 0,
        "gpus": [[one, "NVIDIA H200"] for one in used],
    }  # fmt: skip
    monkeypatch.setattr(engine, "fingerprint", lambda: MACHINE.model_copy(update={"gpus": (H200, OTHER)}))
    monkeypatch.setattr(pytorch, "find_spec", lambda name: object())
    monkeypatch.setattr(engine, "_process", lambda *_: outcome)
    monkeypatch.setattr(engine, "activity", lambda *_: meanwhile)
    monkeypatch.setattr(gpu.Watch, "seen", meanwhile.gpus)
    done = engine.run({name: workload.WORKLOADS["gpu"][name]}, Plan(device="gpu", processes=1))
    assert done.activity == meanwhile
    return done.results[0]


def happened(uuid: str = "GPU-1", **what: Any) -> Activity:
    return Activity(others=0, stolen=0, gpus=(GpuActivity(uuid=uuid, looks=9, **what),))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"slowed": ("power cap", "heat (driver)")}, "its clock was held down meanwhile: heat (driver)"),
        ({"slowed": ("hardware slowdown", "power brake")}, "held down meanwhile: hardware slowdown, power brake"),
        ({"processes": 1}, "1 other process on it meanwhile"),
        ({"processes": 2}, "2 other processes on it meanwhile"),
        ({"mps": 1}, "MPS served it meanwhile, with 1 client"),
        ({"ecc_errors": 2}, "2 new uncorrected memory errors"),
    ],
)
def test_what_happened_on_a_gpu_makes_its_figures_suspect(
    monkeypatch: pytest.MonkeyPatch, what: dict[str, Any], said: str
) -> None:
    found = measured(monkeypatch, "memory-copy", happened(**what), 4000.0, "GPU-1")
    assert found.status == "suspect"
    assert said in found.reasons[0]


@pytest.mark.parametrize(
    ("used", "reason"),
    [(["GPU-1"], None), (["GPU-2"], "its clock"), (["GPU-1", "GPU-2"], "GPU 1: its clock"), ([], None)],
)
def test_what_happened_on_a_gpu_is_of_those_who_used_it(
    monkeypatch: pytest.MonkeyPatch, used: list[str], reason: str | None
) -> None:
    hot = happened("GPU-2", slowed=("heat (driver)",))
    found = measured(monkeypatch, "memory-copy", hot, 4000.0, *used)
    assert found.status == ("suspect" if reason else "valid")
    assert not reason or found.reasons[0].startswith(reason)


def test_a_power_cap_is_usual_and_explains_what_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    capped = happened(slowed=("power cap",), processes=0, mps=0, ecc_errors=0)
    assert measured(monkeypatch, "memory-copy", capped, 4000.0, "GPU-1").status == "valid"
    slow = measured(monkeypatch, "memory-copy", capped, 2000.0, "GPU-1")
    assert slow.reasons[1:] == ("its clock was held down meanwhile: power cap",)
    assert measured(monkeypatch, "memory-copy", capped, 9999.0, "GPU-1").status == "invalid"


def test_what_gpus_did_meanwhile_is_said_of_those_that_were_measured() -> None:
    machine = MACHINE.model_copy(update={"gpus": (H200.model_copy(update={"processes": 1}), OTHER)})
    capped = GpuActivity(uuid="GPU-2", looks=9, slowed=("application clocks",))
    one = run(machine=machine, activity=QUIET.model_copy(update={"gpus": (capped,)}))
    assert limits.slowing(one, "gpu") == ["1 other process on it"]
    both = one.model_copy(update={"results": (result(noise(1.0), parameters={"processes": 2}),)})
    assert limits.slowing(both, "gpu") == [
        "GPU 0: 1 other process on it", "GPU 1: its clock was held down meanwhile: application clocks",
    ]  # fmt: skip
    assert limits.slowing(both, "cpu") == []


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("kernel-launch", 3.0, "suspect"), ("host-to-device", 50.0, "suspect"), ("device-to-host", 50.0, "suspect"),
        ("memory-copy", 4000.0, "valid"),
    ],
)  # fmt: skip
def test_other_work_of_the_host_counts_where_the_host_takes_part(
    monkeypatch: pytest.MonkeyPatch, name: str, value: float, status: str
) -> None:
    assert measured(monkeypatch, name, Activity(others=0.2, stolen=0), value, "GPU-1").status == status
    assert measured(monkeypatch, name, QUIET, value, "GPU-1").status == "valid"


def test_runs_from_before_there_was_a_watch_can_be_read() -> None:
    old = run(machine=MACHINE.model_copy(update={"gpus": (H200,)})).model_dump(mode="json")
    del old["activity"]["gpus"], old["machine"]["gpus"][0]["slices"], old["machine"]["gpus"][0]["slice"]
    old["machine"]["gpus"][0]["slowed"] = []
    read = Run.model_validate(old)
    assert (read.activity.gpus, read.machine.gpus[0].slowed) == ((), ())
