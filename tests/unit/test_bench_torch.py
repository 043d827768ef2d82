"""Workloads of PyTorch without PyTorch: which there are, what is refused and left out, what its failures mean."""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, override

import numpy as np
import pytest

from pipelines.benchmark import backends, cpu, engine, limits, machine, products, pytorch, worker, workload
from pipelines.benchmark.model import UNITS, Device, Gpu, Plan, Run, Specification
from pipelines.benchmark.pytorch import arrays, collective, networks
from pipelines.benchmark.workload import Resources
from testbed.cli import bench as cli
from testbed.errors import DeepError
from testbed.paths import repo_root
from tests.unit import bench_torch_toy as toy
from tests.unit.bench_toys import H200, MACHINE, run

NUMPYS = ["gemm-fp64", "gemm-fp32", "memory-copy", "memory-triad"]
SIMULATED = H200.model_copy(update={"simulated": True, "model": "NVIDIA Simulated T4"})
HOPPER = H200.model_copy(update={"capability": (9, 0)})
TURING = H200.model_copy(update={"capability": (7, 5), "model": "Tesla T4"})


def here(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, torch: bool = True) -> None:
    """A machine with these GPUs, with PyTorch or without."""
    monkeypatch.setattr(engine, "fingerprint", lambda: MACHINE.model_copy(update={"gpus": gpus}))
    monkeypatch.setattr(pytorch, "find_spec", lambda name: object() if torch else None)


def test_every_workload_is_where_it_is_said_to_be() -> None:
    for device, there in workload.WORKLOADS.items():
        for name, place in there.items():
            one = workload.load(place)
            assert (one.name, one.unit in UNITS) == (name, True), device


def test_numpys_workloads_are_still_numpys() -> None:
    there = workload.WORKLOADS["cpu"]
    assert [name for name, place in there.items() if place.startswith(f"{cpu.__name__}:")] == NUMPYS
    assert len({name.lower() for name in there}) == len(there)


def test_networks_of_deeps_benchmark_are_trained_and_asked_on_both_devices() -> None:
    for device, precisions in {"cpu": ["fp32"], "gpu": ["amp", "tf32"]}.items():
        for network in ("googlenet", "inception3", "resnet50", "vgg16"):
            for precision in precisions:
                for kind in ("train", "inference"):
                    assert f"{network}-{kind}-{precision}" in workload.WORKLOADS[device]  # type: ignore[index]


def test_batches_are_of_the_device_and_not_of_its_memory() -> None:
    made = networks._all()
    assert made["vgg16-train-amp"].batches == {"gpu": 64, "cpu": 16}
    assert made["resnet50-train-amp"].batches["gpu"] == 256
    assert made["resnet50-train-tf32"].batches["gpu"] == 128
    assert made["resnet50-inference-amp"].batches["gpu"] == 96


def test_what_is_known_of_gpus_is_known_of_workloads() -> None:
    for device in limits.known().devices:
        for name, quantity in device.quantities.items():
            assert workload.load(workload.WORKLOADS["gpu"][name]).unit == quantity.unit


@pytest.mark.parametrize(
    ("name", "value"), [("device-to-host", 65.0), ("gemm-tf32", 536_000.0), ("gemm-fp32", 68_000.0)]
)
def test_figures_that_no_h200_has(name: str, value: float) -> None:
    shown = MACHINE.model_copy(update={"gpus": (H200,)})
    known = limits.quantity(name, "gpu", shown, 1)
    assert known is not None
    assert limits.judged(value, known.unit, known, shown, "gpu")[0] == "invalid"


@pytest.mark.parametrize(
    ("model", "memory"),
    [
        ("NVIDIA H100 80GB HBM3", 3350), ("NVIDIA A100-SXM4-80GB", 2039), ("NVIDIA A100 80GB PCIe", 1935),
        ("A100-PCIE-40GB", 1555), ("Tesla V100-SXM2-16GB", 900), ("Tesla T4", 320), ("NVIDIA Simulated T4", None),
    ],
)  # fmt: skip
def test_gpus_are_known_by_their_names(model: str, memory: int | None) -> None:
    shown = MACHINE.model_copy(update={"gpus": (H200.model_copy(update={"model": model}),)})
    known = limits.quantity("memory-copy", "gpu", shown, 1)
    assert (known and known.limit) == memory


def test_processors_have_the_same_ceiling_whoever_multiplies() -> None:
    fast = MACHINE.cpu.model_copy(update={"max_mhz": 3000.0})
    for name in ("gemm-fp64", "gemm-fp32"):
        known = limits.ceiling(f"torch-{name}", fast, 4)
        assert known is not None
        assert known == limits.ceiling(name, fast, 4)


def test_only_processes_that_measure_import_torch() -> None:
    code = (
        "import sys; from pipelines.benchmark import engine, workload; from pipelines.benchmark.model import Plan\n"
        "[workload.load(place) for there in workload.WORKLOADS.values() for place in there.values()]\n"
        "engine.runnable((), Plan()); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root(), capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False"


def test_without_torch_the_rest_is_measured_and_the_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, torch=False)
    notes: list[str] = []
    assert list(engine.runnable((), Plan(), notes.append)) == NUMPYS
    note = " and ".join(notes)
    left = [name for name in workload.WORKLOADS["cpu"] if name not in NUMPYS]
    assert note.startswith(f"left out {', '.join(left)}: toy: PyTorch is not installed")


def test_with_torch_everything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)
    notes: list[str] = []
    assert engine.runnable((), Plan(), notes.append) == workload.WORKLOADS["cpu"]
    assert notes == []


@pytest.mark.parametrize(("names", "device"), [(["resnet50-train-fp32"], "cpu"), (["gemm-bf16"], "gpu"), ([], "gpu")])
def test_what_needs_torch_is_refused_without(monkeypatch: pytest.MonkeyPatch, names: list[str], device: Device) -> None:
    here(monkeypatch, HOPPER, torch=False)
    with pytest.raises(DeepError, match="PyTorch is not installed") as refused:
        engine.runnable(names, Plan(device=device))
    assert refused.value.found == "no torch"
    assert refused.value.needed == "the extra 'torch'"
    assert refused.value.next_step == "pip install 'deep-testbed[torch]'"


def test_what_was_named_is_not_left_out_beside_what_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, torch=False)
    with pytest.raises(DeepError, match="PyTorch is not installed"):
        engine.runnable(["gemm-fp64", "gemm-bf16"], Plan())


@pytest.mark.parametrize("names", [[], ["gemm-bf16"], ["resnet50-train-amp"]])
def test_a_simulated_gpu_is_refused_before_torch_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    here(monkeypatch, SIMULATED)
    monkeypatch.setattr(pytorch, "find_spec", lambda name: pytest.fail("it looked for torch"))
    monkeypatch.setattr(engine, "_process", lambda *_: pytest.fail("it measured"))
    places = workload.chosen(names, "gpu")
    for call in (lambda plan: engine.runnable(names, plan), lambda plan: engine.run(places, plan)):
        with pytest.raises(DeepError, match="a simulated GPU computes nothing"):
            call(Plan(device="gpu", processes=1))


def test_arithmetic_that_a_gpu_has_not_is_left_out_and_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, TURING)
    notes: list[str] = []
    there = engine.runnable((), Plan(device="gpu"), notes.append)
    lacking = {name for name in workload.WORKLOADS["gpu"] if "tf32" in name} | {"gemm-fp8", "all-reduce"}
    assert set(there) == set(workload.WORKLOADS["gpu"]) - lacking
    assert all(any(name in note for note in notes) for name in lacking)
    with pytest.raises(DeepError, match=r"arithmetic of gemm-fp8 .*found: compute capability 7.5; needed: .* 8.9"):
        engine.runnable(["gemm-fp8"], Plan(device="gpu"))
    here(monkeypatch, HOPPER)
    assert list(engine.runnable(["gemm-fp8", "gemm-tf32"], Plan(device="gpu"))) == ["gemm-fp8", "gemm-tf32"]
    here(monkeypatch, TURING, HOPPER)  # which one CUDA uses is seen in the process
    assert list(engine.runnable(["gemm-fp8"], Plan(device="gpu"))) == ["gemm-fp8"]


@pytest.mark.parametrize(("used", "refused"), [("GPU-AA-0", True), ("GPU-AA-1", False)])
def test_a_gpu_without_the_arithmetic_is_refused_where_there_are_others_with_it(
    monkeypatch: pytest.MonkeyPatch, used: str, refused: bool
) -> None:
    gpus = tuple(one.model_copy(update={"uuid": f"GPU-AA-{at}"}) for at, one in enumerate((TURING, HOPPER)))
    shown = cuda((used.removeprefix("GPU-").lower(), "toy"))
    fake(monkeypatch, cuda=shown, set_num_threads=lambda _: None, manual_seed=lambda _: None)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    here(monkeypatch, *gpus)
    monkeypatch.setattr(machine, "fingerprint", lambda: MACHINE.model_copy(update={"gpus": gpus}))
    monkeypatch.setattr(pytorch, "choose_arithmetic", lambda **_: None)
    for name in ("prepare", "finish"):
        monkeypatch.setattr(arrays.GemmFp8, name, lambda self: None)
    with pytest.raises(DeepError, match="arithmetic of gemm-fp8") if refused else nullcontext():
        arrays.GemmFp8().setup(Resources(1, "gpu"))


@pytest.mark.parametrize("size", [16, 64, 512])
def test_single_precision_is_told_from_the_ten_bits_of_tf32(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """At 8192 rows, too: what is allowed grows as the root of their number, and what TF32 is off does not shrink."""
    shares = {}
    for name, multiply in {"fp32": np.matmul, "tf32": lambda *both: np.matmul(*map(toy.ten_bits, both))}.items():
        monkeypatch.setitem(sys.modules, "torch", toy.torch(multiply))
        one = arrays.HostGemm32(size)
        one.setup(Resources(1))
        one.run()
        said = one.check()
        assert bool(said) == (name == "tf32"), said
        share = re.fullmatch(r".*off by (\S+), rounding explains (\S+)", said) if said else None
        shares[name] = float(share[1]) / float(share[2]) if share else 0.0
    assert shares["tf32"] > 2 * (8192 / size) ** 0.5


def test_single_precision_is_allowed_five_times_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sums one by one, which no BLAS exceeds."""

    def one_by_one(left: Any, right: Any) -> Any:
        total = np.zeros((len(left), len(left)), np.float32)
        for column, row in zip(left.T, right, strict=True):
            total += np.outer(column, row)
        return total

    monkeypatch.setitem(sys.modules, "torch", toy.torch(one_by_one))
    monkeypatch.setattr(products, "DEVIATIONS", products.DEVIATIONS / 5)
    one = arrays.HostGemm32(256)
    one.setup(Resources(1))
    one.run()
    assert one.check() is None


@pytest.mark.parametrize("name", ["torch-gemm-fp32", "torch-memory-copy", "torch-memory-triad", "host-to-host"])
def test_what_works_only_once_gives_no_figure(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "torch", toy.torch())
    kind: Any = workload.load(workload.WORKLOADS["cpu"][name])
    one = kind(64) if "gemm" in name else kind(1 << 16)
    one.setup(Resources(1))
    assert "wrong" in one.check()
    one.run()
    assert one.check() is None
    one.spoil()
    assert "wrong" in one.check()
    one.run()
    assert one.check() is None


def test_processors_have_no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)
    assert arrays.GemmTf32.lacking(Resources(1), MACHINE) is not None


@pytest.mark.parametrize(("there", "asked", "able"), [(1, 1, False), (2, 1, False), (2, 2, True), (2, 3, False)])
def test_sums_need_several_gpus(monkeypatch: pytest.MonkeyPatch, there: int, asked: int, able: bool) -> None:
    here(monkeypatch, *[HOPPER] * there)
    plan = Plan(device="gpu", gpus=asked)
    assert ("all-reduce" in engine.runnable((), plan)) == able
    if not able:
        with pytest.raises(DeepError, match=rf"all-reduce .*{asked} of {there} GPUs .*at least 2"):
            engine.runnable(["all-reduce"], plan)


class OutOfMemoryError(RuntimeError):
    """What torch raises, by its name."""


CUDA_FULL = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 14.56 GiB of which 1.12 GiB is free."
    " Process 1 has 13.4 GiB memory in use."
)
CPU_FULL = (
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4096 bytes. Error code 12 (Cannot allocate memory)"
)


class Full(arrays.Launch):
    """Has no room for its data."""

    failure: Exception = OutOfMemoryError(CUDA_FULL)

    @override
    def setup(self, resources: Resources) -> None:
        raise self.failure


JOB = {
    "place": f"{__name__}:Full", "parameters": {}, "threads": 1, "device": "gpu", "gpus": 1, "repeats": 1, "limit": 1,
}  # fmt: skip


def test_memory_that_runs_out_is_a_refusal_and_no_figure() -> None:
    error = worker.work(JOB)["error"]
    assert error["message"] == "the memory of the device is too small for kernel-launch"
    assert (error["found"], error["needed"]) == ("1.12 GiB free of 14.56 GiB", "2.50 GiB more")
    assert error["next_step"]


def test_memory_of_processors_that_runs_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_available", lambda: 3 << 30)
    told = Full().explained(RuntimeError(CPU_FULL))
    assert told is not None
    assert (told.found, told.needed) == ("3.0 GiB available", "4096 bytes more")


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_memory_that_runs_out_within_cuda_is_told(said: str) -> None:
    told = Full().explained(RuntimeError(f"{said}\nCUDA kernel errors might be reported later."))
    assert told is not None
    assert told.message == "the memory of the device is too small for kernel-launch"
    assert (told.found, told.needed) == (said, "more memory")


def test_another_failure_is_none_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Full, "failure", RuntimeError("CUDA error: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal"):
        worker.work(JOB)


def fake(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> Any:
    """A torch that has only what is asked for."""
    made = SimpleNamespace(__version__="2.9", version=SimpleNamespace(cuda="12.8"), **parts)
    monkeypatch.setitem(sys.modules, "torch", made)
    return made


def test_data_that_do_not_fit_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, cuda=SimpleNamespace(mem_get_info=lambda: (1 << 30, 16 << 30)))
    one = arrays.Triad()
    one.resources = Resources(1, "gpu")
    one.require(1 << 30)
    with pytest.raises(DeepError, match=r"too small for memory-triad.*1.0 GiB free of 16.0 GiB; needed: 1.5 GiB"):
        one.require(3 << 29)


def cuda(*shown: tuple[str, str]) -> Any:
    """What torch shows of GPUs, by their UUIDs and names."""
    properties = [SimpleNamespace(uuid=uuid, name=name) for uuid, name in shown]
    return SimpleNamespace(
        is_available=lambda: bool(shown), device_count=lambda: len(shown), get_device_properties=properties.__getitem__
    )


TWINS = [HOPPER.model_copy(update={"uuid": f"GPU-AA-{at}", "index": at}) for at in range(3)]
SLICED = HOPPER.model_copy(update={"uuid": "GPU-AA-0", "mig": True, "slices": ("MIG-BB-1", "MIG-BB-2")})
SLICE = "NVIDIA H200 MIG 1g.18gb"


@pytest.mark.parametrize(
    ("gpus", "shown", "said"),
    [(TWINS, [], "sees no GPU"), (TWINS, [("cc-1", SLICE)], f"does not show.*{SLICE} cc-1; needed: one of GPU-AA-0,")],
)
def test_a_gpu_that_is_not_known_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu], shown: list[tuple[str, str]], said: str
) -> None:
    fake(monkeypatch, cuda=cuda(*shown))
    with pytest.raises(DeepError, match=said):
        pytorch.used_gpus(MACHINE.model_copy(update={"gpus": tuple(gpus)}), 1)


def test_fewer_gpus_than_were_asked_for_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    fake(monkeypatch, cuda=cuda(("aa-2", "NVIDIA H200")))
    with pytest.raises(DeepError, match=r"CUDA shows 1 GPU .found: CUDA_VISIBLE_DEVICES=2; needed: 2 GPUs"):
        pytorch.used_gpus(MACHINE.model_copy(update={"gpus": tuple(TWINS)}), 2)


@pytest.mark.parametrize(
    ("gpus", "shown", "count", "used"),
    [
        (TWINS, ["aa-1"], 1, ["GPU-AA-1"]),
        (TWINS, ["aa-2", "aa-0"], 2, ["GPU-AA-2", "GPU-AA-0"]),
        (TWINS, ["aa-2", "aa-0"], 1, ["GPU-AA-2"]),
        ([SLICED], ["bb-2"], 1, ["GPU-AA-0"]),
        ([SLICED], ["aa-0"], 1, ["GPU-AA-0"]),
    ],
)
def test_the_gpus_that_cuda_uses_are_found_among_those_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu], shown: list[str], count: int, used: list[str]
) -> None:
    fake(monkeypatch, cuda=cuda(*((uuid, "NVIDIA H200") for uuid in shown)))
    found = pytorch.used_gpus(MACHINE.model_copy(update={"gpus": tuple(gpus)}), count)
    assert found == tuple((uuid, "NVIDIA H200") for uuid in used)


@pytest.mark.parametrize(("said", "told"), [("OutOfMemoryError: CUDA out of memory", "CUDA out of memory"), (0, "")])
def test_what_another_process_has_failed_of_is_told_and_not_that_it_did_not_come(
    monkeypatch: pytest.MonkeyPatch, said: str | int, told: str
) -> None:
    def started(_: collective.Rank) -> tuple[None, Any]:
        here, there = multiprocessing.Pipe()
        there.send(said)
        return None, here

    def alone(_: collective.Rank) -> None:
        raise TimeoutError("alone")

    monkeypatch.setattr(collective, "_started", started)
    monkeypatch.setattr(collective, "Member", alone)
    one = collective.AllReduce(1 << 12, 1)
    one.resources = Resources(2)
    with pytest.raises(DeepError if told else TimeoutError, match=told or "alone"):
        one.prepare()


OUTCOME = {"parameters": {}, "work": 1.0, "traffic": None, "samples": [1.0] * 5, "dropped": 0}


def ran(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, name: str = "memory-copy", **outcome: Any) -> Run:
    """A run of one workload on a machine with these GPUs whose process says this."""
    here(monkeypatch, *gpus)
    monkeypatch.setattr(engine, "_process", lambda *_: OUTCOME | outcome)
    return engine.run({name: workload.WORKLOADS["gpu"][name]}, Plan(device="gpu", processes=1))


def test_a_figure_is_of_the_gpu_that_cuda_has_used(monkeypatch: pytest.MonkeyPatch) -> None:
    done = ran(monkeypatch, *TWINS, gpus=[["GPU-AA-2", "NVIDIA H200"], ["GPU-AA-0", "NVIDIA H200"]])
    assert [one.uuid for one in done.machine.gpus] == ["GPU-AA-2", "GPU-AA-0", "GPU-AA-1"]
    assert done.results[0].device == "NVIDIA H200"


def test_a_slice_is_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With figures that would be suspect, or a mistake, of the whole one."""
    done = ran(monkeypatch, SLICED, gpus=[["GPU-AA-0", SLICE]])
    assert (done.results[0].device, done.results[0].status) == (SLICE, "valid")
    assert done.machine.kind(SLICE) == "gpu"
    assert limits.quantity("memory-copy", "gpu", done.machine, 1) is None
    whole = ran(monkeypatch, TWINS[0], gpus=[["GPU-AA-0", "NVIDIA H200"]])
    assert (whole.results[0].device, whole.results[0].status) == ("NVIDIA H200", "suspect")


@pytest.mark.parametrize("nccl", [True, False])
def test_versions_that_only_torch_knows(monkeypatch: pytest.MonkeyPatch, nccl: bool) -> None:
    fake(
        monkeypatch,
        backends=SimpleNamespace(cudnn=SimpleNamespace(version=lambda: 91002)),
        cuda=SimpleNamespace(nccl=SimpleNamespace(version=lambda: (2, 27, 3))),
        distributed=SimpleNamespace(is_available=lambda: True, is_nccl_available=lambda: nccl),
    )
    one = arrays.Launch()
    one.resources = Resources(1, "gpu")
    known = {"torch": "2.9", "cuda-runtime": "12.8", "cudnn": "91002"}
    assert one.versions() == (known | {"nccl": "2.27.3"} if nccl else known)
    one.resources = Resources(1)
    assert one.versions() == {"torch": "2.9"}


@pytest.mark.parametrize("new", [True, False])
def test_tf32_is_only_used_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, new: bool) -> None:
    products = SimpleNamespace(fp32_precision="none") if new else SimpleNamespace()
    cudnn = SimpleNamespace(conv=SimpleNamespace(fp32_precision="none"))
    fake(monkeypatch, backends=SimpleNamespace(cuda=SimpleNamespace(matmul=products), cudnn=cudnn))
    for tf32 in (True, False):
        pytorch.choose_arithmetic(tf32=tf32)
        if new:
            wanted = "tf32" if tf32 else "ieee"
            assert (products.fp32_precision, cudnn.conv.fp32_precision) == (wanted, wanted)
            assert not hasattr(products, "allow_tf32")
        else:
            assert (products.allow_tf32, cudnn.allow_tf32) == (tf32, tf32)
        assert (cudnn.benchmark, cudnn.deterministic) == (True, False)
        assert products.allow_fp16_reduced_precision_reduction is False
        assert products.allow_bf16_reduced_precision_reduction is False


def test_tf32_is_used_by_what_is_named_so() -> None:
    made = {name: workload.load(place) for name, place in workload.WORKLOADS["gpu"].items()}
    strict = {name for name, one in made.items() if not getattr(one, "tf32", False)}
    assert {name for name in made if name.startswith("gemm-")} - strict == {"gemm-tf32"}
    assert all((name in strict) == ("tf32" not in name) for name in made if "-amp" not in name)
    assert not any(one.tf32 for name, one in networks._all().items() if name.endswith("-fp32"))


def test_versions_of_libraries_come_back_from_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = OUTCOME | {"libraries": {"cudnn": "91002", "cuda-runtime": "12.8"}}
    monkeypatch.setattr(engine, "_process", lambda *_: outcome)
    done = engine.run({"memory-copy": workload.WORKLOADS["cpu"]["memory-copy"]}, Plan(threads=1, processes=1))
    assert done.machine.libraries["cudnn"] == "91002"
    assert done.machine.libraries["cuda-runtime"] == "12.8"
    assert "python" in done.machine.libraries


def test_what_a_library_prints_is_no_part_of_the_result() -> None:
    done = engine._process("chatty", "tests.unit.bench_toys:Chatty", Plan(limit=0.01, processes=1), 1)
    assert done["parameters"] == {}


def test_the_place_where_it_runs_decides_what_can_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A back end's machine may have PyTorch where this one has none."""
    monkeypatch.setenv("DEEP_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(cli, "_backend", lambda *_: object())
    monkeypatch.setattr(engine, "runnable", lambda *_: pytest.fail("it looked here"))
    asked: list[Specification] = []

    def instead(backend: Any, specification: Specification, note: Any) -> Any:
        asked.append(specification)
        return run(day=len(asked), machine=MACHINE.model_copy(update={"gpus": (HOPPER,)}))

    monkeypatch.setattr(backends, "run", instead)
    cli.run(device="gpu", where="toy")
    cli.run(["gemm-fp8"], device="gpu", where="toy")
    assert [one.workloads for one in asked] == [(), ("gemm-fp8",)]
