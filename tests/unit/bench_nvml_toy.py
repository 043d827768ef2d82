"""An NVML whose GPUs say what a test wants: what they are not given an answer for, they do not know."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """What NVIDIA's library raises."""


class Nvml:
    """The functions of ``pynvml`` by their names: ``answers`` of each GPU by what follows ``nvmlDeviceGet``.

    An answer may be a list of which each question takes one, until the last one stays.
    """

    NVMLError = NVMLError
    NVMLError_LibraryNotFound = NVMLError_DriverNotLoaded = type("Missing", (NVMLError,), {})
    NVML_CLOCK_SM = NVML_CLOCK_MEM = NVML_MEMORY_ERROR_TYPE_UNCORRECTED = NVML_VOLATILE_ECC = 0

    def __init__(self, *gpus: dict[str, Any]) -> None:
        self.gpus, self.open = gpus, 0
        self.functions: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: self.opened(1),
            "nvmlShutdown": lambda: self.opened(-1),
            "nvmlDeviceGetCount": lambda: len(gpus),
            "nvmlDeviceGetHandleByIndex": gpus.__getitem__,
            "nvmlDeviceGetMigDeviceHandleByIndex": lambda gpu, at: {"UUID": gpu["slices"][at]},
            "nvmlSystemGetDriverVersion": lambda: "580.95.05",
            "nvmlSystemGetCudaDriverVersion": lambda: 13000,
        }

    def opened(self, by: int) -> None:
        self.open += by

    def __getattr__(self, name: str) -> Any:
        question = name.removeprefix("nvmlDeviceGet")

        def ask(gpu: dict[str, Any], *_: Any) -> Any:
            told = gpu.get(question)
            if isinstance(told, Answers):
                told = told.pop(0) if len(told) > 1 else told[0]
            return refuse() if told is None else told

        return self.functions.get(name, ask)


def refuse() -> Any:
    raise NVMLError


class Answers(list[Any]):
    """One after the other."""


def processes(*numbers: int, instance: int = 0xFFFFFFFF) -> list[Any]:
    return [SimpleNamespace(pid=one, gpuInstanceId=instance, computeInstanceId=instance) for one in numbers]
