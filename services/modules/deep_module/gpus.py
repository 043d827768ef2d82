"""Which GPUs this process could use, as NVIDIA's management library (NVML) says; none of it is taken for granted."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
# How the simulator's driver begins the name of every device.
SIMULATED = "NVIDIA Simulated "
DEVICE = re.compile(r"^nvidia\d+$")
TEXT = 96


def report(folder: Path = Path("/dev")) -> dict[str, Any]:
    """``{computed_on, gpus: {devices, names, driver, simulated}}``.

    ``computed_on`` is what did the calculation: these modules know of the CPU only, however many GPUs there are.
    ``driver`` is empty and ``simulated`` is ``None`` where there is no NVML, whatever devices there are.
    """
    devices = sorted(str(path) for path in folder.glob("nvidia*") if DEVICE.match(path.name))
    driver, names = _managed()
    simulated = any(name.startswith(SIMULATED) for name in names) if names else None
    return {
        "computed_on": "cpu",
        "gpus": {"devices": devices, "names": names, "driver": driver, "simulated": simulated},
    }


@cache
def _managed() -> tuple[str, list[str]]:
    """The driver's version and the names of the devices; empty where NVML is not here or does not answer."""
    try:
        nvml = ctypes.CDLL(LIBRARY)
    except OSError:
        return "", []
    if nvml.nvmlInit_v2() != 0:
        return "", []
    try:
        return _text(nvml.nvmlSystemGetDriverVersion), _names(nvml)
    finally:
        nvml.nvmlShutdown()


def _names(nvml: ctypes.CDLL) -> list[str]:
    count = ctypes.c_uint(0)
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    found = []
    for index in range(count.value):
        device = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)) == 0:
            found.append(_text(nvml.nvmlDeviceGetName, device))
    return found


def _text(function: Any, *arguments: Any) -> str:
    buffer = ctypes.create_string_buffer(TEXT)
    failed = function(*arguments, buffer, ctypes.c_uint(TEXT)) != 0
    return "" if failed else buffer.value.decode("utf-8", "replace")
