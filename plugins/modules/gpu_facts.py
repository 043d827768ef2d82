#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""What a host has of NVIDIA: hardware on the bus, driver, device nodes, and the devices that can really be used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: gpu_facts
short_description: Look for NVIDIA GPUs, their driver and the devices that it offers
description:
  - Reads sysfs, procfs and the device nodes, and asks C(nvidia-smi) and C(modinfo) where they are installed.
  - Nothing is cached. What counts is the state now, before and after a driver was installed.
options: {}
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Nothing is changed.
  idempotent:
    support: full
    description: Changes nothing.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Look for GPUs
  deephdc.testbed.gpu_facts:
  register: gpu
"""

RETURN = r"""
driver_version:
  description: Version of the NVIDIA kernel module that is loaded, or empty.
  returned: always
  type: str
driver_installed:
  description: Version of the NVIDIA kernel module that is on the disk for the running kernel, or empty.
  returned: always
  type: str
driver_open:
  description: Whether the loaded module is the open one.
  returned: always
  type: bool
nouveau:
  description: Whether the module nouveau is loaded.
  returned: always
  type: bool
pci:
  description: GPUs on the bus, each with address, device (number) and architecture (name, or unknown).
  returned: always
  type: list
  elements: dict
nodes:
  description: Numbers of the device nodes /dev/nvidiaN.
  returned: always
  type: list
  elements: int
devices:
  description: What nvidia-smi lists, each with index, uuid, name, driver_version and memory_mib.
  returned: always
  type: list
  elements: dict
devices_error:
  description: Why RV(devices) is empty, in the words of nvidia-smi.
  returned: always
  type: str
simulated:
  description: Whether a device calls itself simulated.
  returned: always
  type: bool
"""

VENDOR = "0x10de"
DISPLAY_CLASSES = ("0x0300", "0x0302")
# First device number of each range of an architecture, from the PCI ID repository. A number belongs to the last range
# that does not start after it; from 0x3200 on nothing is known.
FIRST_DEVICE_NUMBERS = (
    (0x0FC0, "kepler"),
    (0x1340, "maxwell"),
    (0x15F0, "pascal"),
    (0x1600, "maxwell"),
    (0x1720, "pascal"),
    (0x1740, "maxwell"),
    (0x1B00, "pascal"),
    (0x1D80, "volta"),
    (0x1E00, "turing"),
    (0x2080, "ampere"),
    (0x2180, "turing"),
    (0x2200, "ampere"),
    (0x2300, "hopper"),
    (0x2400, "ampere"),
    (0x2680, "ada"),
    (0x2900, "blackwell"),
    (0x3200, "unknown"),
)
QUERY = ("index", "uuid", "name", "driver_version", "memory.total")


def read(path: Path) -> str:
    """The text of ``path``; empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def architecture(device: int) -> str:
    """Name of the architecture that a PCI device number belongs to."""
    return next((name for first, name in reversed(FIRST_DEVICE_NUMBERS) if device >= first), "unknown")


def pci_gpus(root: Path) -> list[dict[str, Any]]:
    """GPUs of NVIDIA under ``root``/sys/bus/pci/devices."""
    found = []
    for device in sorted(root.glob("sys/bus/pci/devices/*")):
        is_display = read(device / "class").strip().startswith(DISPLAY_CLASSES)
        if is_display and read(device / "vendor").strip() == VENDOR:
            number = int(read(device / "device").strip() or "0", 16)
            found.append({"address": device.name, "device": f"{number:04x}", "architecture": architecture(number)})
    return found


def driver(root: Path) -> tuple[str, bool]:
    """Version of the loaded kernel module (empty when there is none) and whether it is the open one."""
    text = read(root / "proc/driver/nvidia/version")
    version = re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", text)
    return (version.group(1) if version else "", "Open Kernel Module" in text)


def device_nodes(root: Path) -> list[int]:
    """Numbers N of ``root``/dev/nvidiaN."""
    names = [path.name.removeprefix("nvidia") for path in root.glob("dev/nvidia[0-9]*")]
    return sorted(int(name) for name in names if name.isdigit())


def parse_devices(text: str) -> list[dict[str, Any]]:
    """Devices from the CSV that nvidia-smi prints for ``QUERY``."""
    rows = [[field.strip() for field in line.split(",")] for line in text.splitlines()]
    return [
        {"index": int(row[0]), "uuid": row[1], "name": row[2], "driver_version": row[3], "memory_mib": int(row[4])}
        for row in rows
        if len(row) == len(QUERY) and row[0].isdigit() and row[4].isdigit()
    ]


def gather(root: Path) -> dict[str, Any]:
    """Everything that files tell."""
    version, is_open = driver(root)
    return {
        "driver_version": version,
        "driver_open": is_open,
        "nouveau": (root / "sys/module/nouveau").is_dir(),
        "pci": pci_gpus(root),
        "nodes": device_nodes(root),
    }


def listed(module: AnsibleModule) -> tuple[list[dict[str, Any]], str]:
    """Devices that nvidia-smi lists, or none and the reason."""
    program = module.get_bin_path("nvidia-smi")
    if not program:
        return [], "nvidia-smi is not installed"
    code, out, err = module.run_command([program, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"])
    if code != 0:
        return [], (err or out).strip() or f"nvidia-smi ended with {code}"
    return parse_devices(out), ""


def installed(module: AnsibleModule) -> str:
    """Version of the kernel module on the disk, or empty. Debian's own packages name the module otherwise."""
    program = module.get_bin_path("modinfo", opt_dirs=["/usr/sbin", "/sbin"])
    for name in ("nvidia", "nvidia-current") if program else ():
        code, out, _ = module.run_command([program, "--field=version", name])
        if code == 0 and out.strip():
            return str(out.strip())
    return ""


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    devices, error = listed(module)
    simulated = any("Simulated" in device["name"] for device in devices)
    found = gather(Path("/"))
    module.exit_json(
        changed=False,
        devices=devices,
        devices_error=error,
        simulated=simulated,
        driver_installed=installed(module),
        **found,
    )


if __name__ == "__main__":
    main()
