"""GPUs as NVIDIA's management library (NVML) describes them."""

from __future__ import annotations

import functools
import operator
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Self

from pipelines.benchmark.model import Gpu, GpuActivity, Machine
from testbed.errors import DeepError

# Seconds between two looks at the GPUs while something is measured.
EVERY = 1.0
# What is in the name of every GPU of the project's simulator: docs/gpu-simulation.md.
SIMULATED = "simulated"
# Why a clock is held down, by the bits of nvmlClocksEventReasons; being idle is none.
SLOWED = {
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat (driver)",
    0x40: "heat (hardware)",
    0x80: "power brake",
    0x100: "display clock",
}


Ask = Callable[..., Any]


class Look(NamedTuple):
    """What NVML says of a GPU at a moment; ``reasons`` is its mask of why the clock is down, ``processes`` all."""

    reasons: int | None
    processes: int | None
    mps: int | None
    ecc_errors: int | None


class Watch:
    """Looks at the GPUs of the machine each second, by a thread, until it is left."""

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
        self._nvml: Any = None
        self._count = 0
        self._looks: dict[str, list[Look]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)

    def __enter__(self) -> Self:
        """Begin; nothing is seen where NVML does not answer."""
        try:
            import pynvml
        except ImportError:
            return self
        with suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            self._count = pynvml.nvmlDeviceGetCount()
            self._nvml = pynvml
            self._look()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look for the last time."""
        if self._nvml is None:
            return
        self._over.set()
        self._thread.join()
        self._look()
        self._nvml.nvmlShutdown()

    @property
    def seen(self) -> tuple[GpuActivity, ...]:
        """What there was on each GPU."""
        return tuple(activity(uuid, looks) for uuid, looks in self._looks.items())

    def _keep_looking(self) -> None:
        while not self._over.wait(self._every):
            self._look()

    def _look(self) -> None:
        """At each GPU that answers; one that has gone from the bus does not."""
        nvml = self._nvml
        for index in range(self._count):
            with suppress(nvml.NVMLError):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = _plain(nvml.nvmlDeviceGetUUID(handle))
                self._looks.setdefault(uuid, []).append(_looked(nvml, _asking(nvml, handle)))


def activity(uuid: str, looks: Iterable[Look]) -> GpuActivity:
    """All looks at a GPU together.

    Of the processes one is ours. Their numbers do not tell which: in a container they are those of the host.
    """
    looks = tuple(looks)
    reasons, processes, mps, ecc = ([one for one in told if one is not None] for told in zip(*looks, strict=True))
    return GpuActivity(
        uuid=uuid, looks=len(looks), slowed=slowed(functools.reduce(operator.or_, reasons)) if reasons else None,
        processes=max(0, max(processes) - 1) if processes else None, mps=max(mps, default=None),
        ecc_errors=max(0, ecc[-1] - ecc[0]) if ecc else None,
    )  # fmt: skip


def gpus() -> tuple[tuple[Gpu, ...], str | None]:
    """The GPUs of this machine, and why nothing is known of them where a driver is there and does not answer."""
    try:
        import pynvml
    except ImportError:
        return (), None
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return (), None
    except pynvml.NVMLError as refused:
        return (), f"NVML: {refused}"
    try:
        count = pynvml.nvmlDeviceGetCount()
        return tuple(_gpu(pynvml, index) for index in range(count)), None
    except pynvml.NVMLError as refused:
        return (), f"NVML: {refused}"
    finally:
        pynvml.nvmlShutdown()


def require_real(machine: Machine) -> None:
    """Raise ``DeepError`` where a workload cannot run on a real GPU: no figure is ever made by a simulated one."""
    if not machine.gpus:
        raise DeepError(
            "no GPU to measure", host=machine.host, found=machine.gpu_problem or "NVML finds none",
            needed="a GPU with its driver", next_step="nvidia-smi says what the driver sees",
        )  # fmt: skip
    simulated = [one.model for one in machine.gpus if one.simulated]
    if simulated:
        raise DeepError(
            "a simulated GPU computes nothing and is not measured", host=machine.host, found=simulated[0],
            needed="a real GPU", next_step="run this on a host of the group gpu_real",
        )  # fmt: skip


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    ask = _asking(nvml, handle)
    model = _plain(nvml.nvmlDeviceGetName(handle))
    memory, mig, ecc = (
        ask(getattr(nvml, f"nvmlDeviceGet{name}")) for name in ("MemoryInfo", "MigMode", "EccMode")
    )  # fmt: skip
    now = _looked(nvml, ask)
    processes = ask(nvml.nvmlDeviceGetComputeRunningProcesses)
    capability = ask(nvml.nvmlDeviceGetCudaComputeCapability)
    milliwatts = ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
    return Gpu(
        index=index,
        model=model,
        uuid=_plain(nvml.nvmlDeviceGetUUID(handle)),
        simulated=SIMULATED in model.lower(),
        memory=memory.total if memory else None,
        capability=tuple(capability) if capability else None,
        driver=_plain(nvml.nvmlSystemGetDriverVersion()),
        cuda=_cuda(nvml),
        clock=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
        max_clock=ask(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
        memory_clock=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
        power_limit=milliwatts // 1000 if milliwatts else None,
        slowed=None if now.reasons is None else slowed(now.reasons),
        mig=bool(mig[0]) if mig else None,
        slices=tuple(_slices(nvml, ask)) if mig and mig[0] else (),
        mps=now.mps,
        ecc=bool(ecc[0]) if ecc else None,
        ecc_errors=now.ecc_errors,
        processes=len([one for one in processes if one.pid != os.getpid()]) if processes is not None else None,
        pcie=_link(ask(nvml.nvmlDeviceGetCurrPcieLinkGeneration), ask(nvml.nvmlDeviceGetCurrPcieLinkWidth)),
        max_pcie=_link(ask(nvml.nvmlDeviceGetMaxPcieLinkGeneration), ask(nvml.nvmlDeviceGetMaxPcieLinkWidth)),
    )


def _asking(nvml: Any, handle: Any) -> Ask:
    """Questions to a device, whose answer is ``None`` where it or the driver has none."""

    def ask(question: Callable[..., Any], *more: Any) -> Any:
        try:
            return question(handle, *more)
        except nvml.NVMLError:
            return None

    return ask


def _looked(nvml: Any, ask: Ask) -> Look:
    reasons = ask(nvml.nvmlDeviceGetCurrentClocksEventReasons)
    if reasons is None:  # drivers before 535 have the same by its former name
        reasons = ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    clients = ask(nvml.nvmlDeviceGetMPSComputeRunningProcesses)
    processes = ask(nvml.nvmlDeviceGetComputeRunningProcesses)
    ecc = ask(nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
    return Look(
        reasons, None if processes is None else _most(processes), None if clients is None else len(clients), ecc
    )


def _most(processes: Iterable[Any]) -> int:
    """How many there are on a GPU, or on the slice of it that has the most."""
    there = Counter((one.gpuInstanceId, one.computeInstanceId) for one in processes)
    return max(there.values(), default=0)


def slowed(reasons: int) -> tuple[str, ...]:
    """The names of the reasons that a mask holds."""
    return tuple(name for bit, name in SLOWED.items() if reasons & bit)


def _slices(nvml: Any, ask: Ask) -> Iterator[str]:
    """The UUIDs of the parts that MIG has made of a GPU."""
    for at in range(ask(nvml.nvmlDeviceGetMaxMigDeviceCount) or 0):
        part = ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, at)
        if part is not None:
            yield _plain(nvml.nvmlDeviceGetUUID(part))


def _cuda(nvml: Any) -> str | None:
    try:
        version = nvml.nvmlSystemGetCudaDriverVersion()
    except nvml.NVMLError:
        return None
    return f"{version // 1000}.{version % 1000 // 10}"


def _link(generation: int | None, width: int | None) -> str | None:
    return f"PCIe {generation} x{width}" if generation and width else None


def _plain(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else text
