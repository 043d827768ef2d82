"""Workloads of PyTorch, the same on GPUs (CUDA) and on processors. Only processes that measure import torch."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from importlib.util import find_spec
from typing import ClassVar, override

from pipelines.benchmark import machine
from pipelines.benchmark.cpu import require_memory
from pipelines.benchmark.model import Device, Machine, counted
from pipelines.benchmark.workload import Resources, Workload
from testbed.errors import DeepError
from testbed.files import human
from testbed.host import machine_name

SEED = 20180301
LONGEST = 300
# How torch says that there is no memory: of a GPU (an exception of its own, or what CUDA and its libraries say), and
# of processors.
OUT_OF_MEMORY = "OutOfMemoryError"
CUDA_OUT_OF_MEMORY = re.compile(r"CUDA error: out of memory|CU\w+_STATUS_ALLOC_FAILED")
CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"
ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)
CAPACITY = re.compile(r"total capac\w+ of ([\d.]+ \w+) of which ([\d.]+ \w+) is free")


class Torch(Workload):
    """Anything that runs by PyTorch; ``device`` is what torch calls it.

    ``capability``: the least compute capability of a GPU that can do it; nothing where any device can.
    """

    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    capability: ClassVar[tuple[int, int] | None] = None
    tf32: ClassVar[bool] = False
    resources: Resources

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        return "cuda" if self.resources.device == "gpu" else "cpu"

    @property
    def devices(self) -> int:
        """How many GPUs it uses."""
        return 1

    @classmethod
    @override
    def lacking(cls, resources: Resources, machine: Machine) -> DeepError | None:
        """The libraries, or the arithmetic that no GPU has; which one of several is used only CUDA knows."""
        absent = next((one for one in cls.libraries if find_spec(one) is None), None)
        if absent:
            return DeepError(
                "PyTorch is not installed, or not all of it", host=machine.host, found=f"no {absent}",
                needed="the extra 'torch'", next_step="pip install 'deep-testbed[torch]'",
            )  # fmt: skip
        if cls.capability is None:
            return None
        gpus = machine.gpus if resources.device == "gpu" else ()
        known = max((one.capability for one in gpus if one.capability), default=None)
        if known is not None and known >= cls.capability:
            return None
        return DeepError(
            f"this device has not the arithmetic of {cls.name}", host=machine.host,
            found=f"compute capability {_dotted(known)}" if known else f"the {resources.device.upper()}",
            needed=f"a GPU of compute capability {_dotted(cls.capability)} or newer",
        )  # fmt: skip

    @override
    def setup(self, resources: Resources) -> None:
        """The same numbers in every process; cuDNN picks the fastest algorithm, TF32 is only used by what says so."""
        found = machine.fingerprint()
        self._require(resources, found)
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # NVML's, by which figures are attributed
        import torch

        self.resources = resources
        torch.set_num_threads(resources.threads)
        if resources.device == "gpu":
            self.gpus = used_gpus(found, self.devices)
            used = {uuid for uuid, _ in self.gpus}
            gpus = tuple(one for one in found.gpus if one.uuid in used)
            self._require(resources, found.model_copy(update={"gpus": gpus}))
        choose_arithmetic(tf32=self.tf32)
        torch.manual_seed(SEED)
        self.prepare()
        self.finish()

    def _require(self, resources: Resources, machine: Machine) -> None:
        if refused := self.lacking(resources, machine):
            raise refused

    @abstractmethod
    def prepare(self) -> None:
        """Make the data on the device."""

    def finish(self) -> None:
        """Return when the device has done all that it was given; a processor always has."""
        if self.resources.device == "gpu":
            import torch

            torch.cuda.synchronize()

    @override
    def versions(self) -> dict[str, str]:
        """What only torch knows; ``cuda-runtime`` is what it was built for, the driver's is the GPU's ``cuda``."""
        import torch

        found = {"torch": str(torch.__version__)}
        if self.resources.device == "gpu":
            found["cuda-runtime"] = str(torch.version.cuda)
            found["cudnn"] = str(torch.backends.cudnn.version())
            if torch.distributed.is_available() and torch.distributed.is_nccl_available():
                found["nccl"] = ".".join(str(part) for part in torch.cuda.nccl.version())
        return found

    @override
    def explained(self, failure: Exception) -> DeepError | None:
        """Memory that ran out."""
        said = str(failure)
        of_gpu = type(failure).__name__ == OUT_OF_MEMORY or CUDA_OUT_OF_MEMORY.search(said)
        if not of_gpu and CPU_OUT_OF_MEMORY not in said:
            return None
        asked, capacity = ASKED.search(said), CAPACITY.search(said)
        found = f"{capacity[2]} free of {capacity[1]}" if capacity else said.partition("\n")[0][:LONGEST]
        if CPU_OUT_OF_MEMORY in said:
            found = f"{human(machine.memory_available())} available"
        return DeepError(
            f"the memory of the device is too small for {self.name}", host=machine_name(), found=found,
            needed=f"{asked[1]} more" if asked else "more memory",
            next_step="end what else uses it; nvidia-smi lists processes on GPUs",
        )  # fmt: skip

    def require(self, needed: int) -> None:
        """Raise ``DeepError`` where the device cannot hold so many bytes."""
        if self.resources.device == "cpu":
            require_memory(self.name, needed)
            return
        import torch

        free, total = torch.cuda.mem_get_info()
        if needed > free:
            raise DeepError(
                f"the memory of the device is too small for {self.name}", host=machine_name(),
                found=f"{human(free)} free of {human(total)}", needed=human(needed),
                next_step="end what else uses it; nvidia-smi lists processes on GPUs",
            )  # fmt: skip


def by_device(asked: int | None, sizes: dict[Device, int], device: Device) -> int:
    """What was asked for, else what fits a device of this kind."""
    return sizes[device] if asked is None else asked


def used_gpus(machine: Machine, count: int) -> tuple[tuple[str, str], ...]:
    """The first GPUs that CUDA uses, or slices of them: the UUIDs of the whole ones by NVML, and CUDA's names.

    Raises ``DeepError`` where there is none, or NVML knows nothing of it: the figure would be no GPU's.
    """
    import torch

    if not torch.cuda.is_available():
        raise DeepError(
            "PyTorch sees no GPU", host=machine.host, found=f"torch {torch.__version__}, CUDA {torch.version.cuda}",
            needed="a build for CUDA that the driver can run",
            next_step="python3 -m torch.utils.collect_env says what it finds",
        )  # fmt: skip
    whole = {_bare(uuid): one.uuid for one in machine.gpus for uuid in (one.uuid, *one.slices)}
    there = torch.cuda.device_count()
    if there < count:
        raise DeepError(
            f"CUDA shows {counted(there, 'GPU')}", host=machine.host,
            found=f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}", needed=counted(count, "GPU"),
            next_step=f"--gpus {there}, or let CUDA see more of them",
        )  # fmt: skip
    shown = [torch.cuda.get_device_properties(at) for at in range(count)]
    unknown = next((one for one in shown if _bare(str(one.uuid)) not in whole), None)
    if unknown is not None:
        raise DeepError(
            "CUDA uses a GPU that NVML does not show", host=machine.host, found=f"{unknown.name} {unknown.uuid}",
            needed=f"one of {', '.join(whole.values())}", next_step="nvidia-smi -L says what is there; for a slice MIG "
            "has to be on, and CUDA_VISIBLE_DEVICES to name it",
        )  # fmt: skip
    return tuple((whole[_bare(str(one.uuid))], one.name) for one in shown)


def _bare(uuid: str) -> str:
    """A UUID as torch writes it: without what NVML puts before it."""
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")


def choose_arithmetic(*, tf32: bool) -> None:
    """Say explicitly what torch has defaults for, which differ between its versions."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = False
    products = torch.backends.cuda.matmul
    products.allow_fp16_reduced_precision_reduction = False
    products.allow_bf16_reduced_precision_reduction = False
    if hasattr(products, "fp32_precision"):  # since 2.9, where the names below are deprecated
        products.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "tf32" if tf32 else "ieee"
    else:
        products.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(str(part) for part in version)
