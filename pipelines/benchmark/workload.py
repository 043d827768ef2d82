"""What a workload is, and those there are: each in a module that is imported when it is run."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

from pipelines.benchmark.model import UNITS, Device, Machine, Parameters
from testbed.errors import DeepError

PYTORCH = "pipelines.benchmark.pytorch"
# The networks of DEEP's benchmark, by its names.
NETWORKS = ("googlenet", "inception3", "resnet50", "vgg16")


def training(precision: str) -> list[str]:
    """The workloads that train DEEP's networks in a precision."""
    return [f"{name}-train-{precision}" for name in NETWORKS]


def _networks(precision: str) -> dict[str, str]:
    """Training and inference of DEEP's networks, and a transformer's training, in a precision."""
    kinds = [f"{name}-{kind}" for name in NETWORKS for kind in ("train", "inference")]
    names = [f"{kind}-{precision}" for kind in (*kinds, "transformer-train")]
    return {name: f"{PYTORCH}.networks:{name}" for name in names}


# Where each is defined, by the device it runs on. They are imported by the processes that measure: libraries read
# their number of threads once.
WORKLOADS: dict[Device, dict[str, str]] = {
    "cpu": {
        "gemm-fp64": "pipelines.benchmark.cpu:Gemm64",
        "gemm-fp32": "pipelines.benchmark.cpu:Gemm32",
        "memory-copy": "pipelines.benchmark.cpu:Copy",
        "memory-triad": "pipelines.benchmark.cpu:Triad",
        "torch-gemm-fp64": f"{PYTORCH}.arrays:HostGemm64",
        "torch-gemm-fp32": f"{PYTORCH}.arrays:HostGemm32",
        "gemm-bf16": f"{PYTORCH}.arrays:GemmBf16",
        "torch-memory-copy": f"{PYTORCH}.arrays:HostCopy",
        "torch-memory-triad": f"{PYTORCH}.arrays:HostTriad",
        "host-to-host": f"{PYTORCH}.arrays:HostToHost",
        "operation-call": f"{PYTORCH}.arrays:Operation",
        "all-reduce": f"{PYTORCH}.collective:AllReduce",
    }
    | _networks("fp32"),
    "gpu": {
        "gemm-fp64": f"{PYTORCH}.arrays:Gemm64",
        "gemm-fp32": f"{PYTORCH}.arrays:Gemm32",
        "gemm-tf32": f"{PYTORCH}.arrays:GemmTf32",
        "gemm-bf16": f"{PYTORCH}.arrays:GemmBf16",
        "gemm-fp16": f"{PYTORCH}.arrays:GemmFp16",
        "gemm-fp8": f"{PYTORCH}.arrays:GemmFp8",
        "memory-copy": f"{PYTORCH}.arrays:Copy",
        "memory-triad": f"{PYTORCH}.arrays:Triad",
        "host-to-device": f"{PYTORCH}.arrays:HostToDevice",
        "device-to-host": f"{PYTORCH}.arrays:DeviceToHost",
        "kernel-launch": f"{PYTORCH}.arrays:Launch",
        "all-reduce": f"{PYTORCH}.collective:AllReduce",
    }
    | _networks("amp")
    | _networks("tf32"),
}
# A few of each device that say most of it, and run on all models.
QUICK: dict[Device, tuple[str, ...]] = {
    "cpu": ("gemm-fp64", "gemm-fp32", "memory-copy", "memory-triad"),
    "gpu": (
        "gemm-fp32", "gemm-fp16", "memory-copy", "memory-triad", "host-to-device", "kernel-launch",
        "resnet50-train-amp", "resnet50-inference-amp",
    ),
}  # fmt: skip
# Variables by which the libraries that may be below numpy are told how many threads to use.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
# Variables by which libraries compute otherwise than a program asks them to, or than the device can: figures are those
# of a device, not of the shell that somebody has measured in.
ARITHMETIC_VARIABLES = (
    "ATEN_CPU_CAPABILITY", "BLIS_ARCH_TYPE", "CUBLAS_EMULATE_DOUBLE_PRECISION", "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUDA_LAUNCH_BLOCKING", "DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS", "NPY_DISABLE_CPU_FEATURES", "NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip


class Resources(NamedTuple):
    """What a workload may use: threads of processors, and how many GPUs where the device is ``gpu``."""

    threads: int
    device: Device = "cpu"
    gpus: int = 1


class Workload(ABC):
    """Something that is done again and again, with a known amount of work.

    ``unit`` is that of its figure, one of ``UNITS``; where less is better it is the time of one call, or of one of the
    ``work`` things that a call does. ``work``: FLOP, bytes or examples of one call, known after ``setup``.
    ``traffic``: bytes that a call has to move at least, where its work is FLOP.
    ``host_bound``: of a GPU, but the host's processors are a part of it.
    ``gpus``: those that it uses, UUIDs by NVML and names by CUDA, known after ``setup``.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    host_bound: ClassVar[bool] = False
    work: float = 1.0
    traffic: float | None = None
    gpus: tuple[tuple[str, str], ...] = ()

    @property
    @abstractmethod
    def parameters(self) -> Parameters:
        """What makes figures comparable: sizes and types."""

    @classmethod
    def lacking(cls, resources: Resources, machine: Machine) -> DeepError | None:  # noqa: ARG003 # of those that lack something
        """Why it cannot run here with these, by what is known without importing its libraries."""
        return None

    @abstractmethod
    def setup(self, resources: Resources) -> None:
        """Make the data; raises ``DeepError`` where the machine has no room for them."""

    @abstractmethod
    def run(self) -> None:
        """Do the work once, and return when it is done."""

    def spoil(self) -> None:  # noqa: B027 # of those whose results outlive a call
        """Make the result wrong, so that it is right again only by a further call.

        Nothing where ``check`` already sees each call by itself.
        """

    @abstractmethod
    def check(self) -> str | None:
        """What is wrong with the result of the last call; ``None`` where it is right."""

    @abstractmethod
    def teardown(self) -> None:
        """Give back what ``setup`` has taken."""

    def versions(self) -> dict[str, str]:
        """Of libraries, what only they know themselves."""
        return {}

    def explained(self, failure: Exception) -> DeepError | None:  # noqa: ARG002 # of those that know some
        """What a failure of a library means to a user; nothing where it is none of those that are known."""
        return None

    def value(self, seconds: float) -> float:
        """The figure of a call that took so long, in ``unit``."""
        direction, one = UNITS[self.unit]
        return self.work / seconds / one if direction == "higher" else seconds / self.work / one


def load(place: str) -> type[Workload]:
    """The workload defined at ``MODULE:CLASS``."""
    module, _, name = place.partition(":")
    found: type[Workload] = getattr(importlib.import_module(module), name)
    return found


def by_network(name: str, device: Device, *, mixed: bool) -> str:
    """The workload that trains a network of DEEP's, in mixed precision or not; any other name is a workload's own."""
    if name not in NETWORKS:
        return name
    if mixed and device == "cpu":
        raise DeepError("processors train in single precision", found="mixed precision", needed="a GPU")
    return f"{name}-train-{'fp32' if device == 'cpu' else 'amp' if mixed else 'tf32'}"


def chosen(names: Iterable[str], device: Device) -> dict[str, str]:
    """The workloads of these names and where they are; all of a device where none is named."""
    there, names = WORKLOADS[device], tuple(names)
    unknown = [name for name in names if name not in there]
    if unknown:
        raise DeepError(
            f"no such workload for the {device.upper()}", found=", ".join(unknown),
            needed=f"some of {', '.join(there)}", next_step="deep bench run --help",
        )  # fmt: skip
    return {name: there[name] for name in dict.fromkeys(names or there)}
