"""GPUs as NVIDIA's management library (NVML) describes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.benchmark.model import Gpu, Machine
from testbed.errors import DeepError

# What is in the name of every GPU of the project's simulator: docs/gpu-simulation.md.
SIMULATED = "simulated"
# Why a clock is held down, by the bits of nvmlClocksEventReasons; being idle is none.
SLOWED = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat (driver)",
    0x40: "heat (hardware)",
    0x80: "power brake",
    0x100: "display clock",
}


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

    def ask(question: Callable[..., Any], *more: Any) -> Any:
        """The answer, ``None`` where the device or the driver has none."""
        try:
            return question(handle, *more)
        except nvml.NVMLError:
            return None

    model = _plain(nvml.nvmlDeviceGetName(handle))
    memory, mig, ecc = (
        ask(getattr(nvml, f"nvmlDeviceGet{name}")) for name in ("MemoryInfo", "MigMode", "EccMode")
    )  # fmt: skip
    reasons = ask(nvml.nvmlDeviceGetCurrentClocksEventReasons) or 0
    clients = ask(nvml.nvmlDeviceGetMPSComputeRunningProcesses)
    processes = ask(nvml.nvmlDeviceGetComputeRunningProcesses)
    capability = ask(nvml.nvmlDeviceGetCudaComputeCapability)
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
        slowed=slowed(reasons),
        mig=bool(mig[0]) if mig else None,
        slices=tuple(_slices(nvml, ask)) if mig and mig[0] else (),
        mps=len(clients) if clients is not None else None,
        ecc=bool(ecc[0]) if ecc else None,
        ecc_errors=ask(
            nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
        processes=len([one for one in processes if one.pid != os.getpid()]) if processes is not None else None,
        pcie=_link(ask(nvml.nvmlDeviceGetCurrPcieLinkGeneration), ask(nvml.nvmlDeviceGetCurrPcieLinkWidth)),
        max_pcie=_link(ask(nvml.nvmlDeviceGetMaxPcieLinkGeneration), ask(nvml.nvmlDeviceGetMaxPcieLinkWidth)),
    )


def slowed(reasons: int) -> tuple[str, ...]:
    """The names of the reasons that a mask holds."""
    return tuple(name for bit, name in SLOWED.items() if reasons & bit)


def _slices(nvml: Any, ask: Callable[..., Any]) -> Iterator[str]:
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
