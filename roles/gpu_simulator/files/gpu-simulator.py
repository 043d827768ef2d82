#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Put the simulated NVIDIA driver of this host in place, from /etc/deephdc/gpu-simulator.conf.

    gpu-simulator start      libraries of every driver version, device nodes, the linker's cache
    gpu-simulator remove     take all of it away again
    gpu-simulator cdi FILE   let a CDI specification in JSON carry the configuration into containers

Runs at every boot, because device nodes do not outlive one. Refuses where a real driver is loaded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CONFIG = Path("/etc/deephdc/gpu-simulator.conf")
SOURCES = Path("/usr/lib/deephdc/gpu-simulator")
DEVICES = Path("/dev")
REAL_DRIVER = Path("/proc/driver/nvidia/version")
LIBRARIES = ("libnvidia-ml.so", "libcuda.so")
# NVIDIA's own major number for all of them: with no driver loaded, nothing answers there. The unified memory devices
# have a number of their own on real hosts, which elsewhere may belong to any other driver.
MAJOR = 195
CONTROL_NODES = {"nvidiactl": 255, "nvidia-uvm": 252, "nvidia-uvm-tools": 253}


class Settings(NamedTuple):
    """What the configuration file says to this program; the libraries read the rest."""

    driver_version: str
    extra_driver_versions: list[str]
    library_dir: Path
    minors: list[int]


def read_settings(text: str) -> Settings:
    """Settings from ``key = value`` lines; ``gpu`` may come several times. Raises ``KeyError`` for a missing key."""
    pairs = re.findall(r"^\s*([a-z_]+) = (.*?)\s*$", text, flags=re.MULTILINE)
    values = dict(pairs)
    return Settings(
        driver_version=values["driver_version"],
        extra_driver_versions=values.get("extra_driver_versions", "").split(),
        library_dir=Path(values["library_dir"]),
        minors=[int(value.split()[0]) for key, value in pairs if key == "gpu"],
    )


def same_file(source: Path, target: Path) -> bool:
    """Whether ``target`` is a file of its own with the content of ``source``."""
    return target.is_file() and not target.is_symlink() and source.read_bytes() == target.read_bytes()


def put_libraries(sources: Path, directory: Path, version: str) -> None:
    """Copy the libraries to ``directory`` under the names of driver ``version``, with their soname links."""
    directory.mkdir(parents=True, exist_ok=True)
    for library in LIBRARIES:
        target = directory / f"{library}.{version}"
        if not same_file(sources / library, target):
            fresh = target.with_name(f".{target.name}.new")
            shutil.copyfile(sources / library, fresh)
            fresh.chmod(0o644)
            fresh.replace(target)
        link = directory / f"{library}.1"
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)


def is_ours(library: Path) -> bool:
    """Whether a library is a simulated one: those read the configuration, whose path is in them."""
    return library.is_file() and str(CONFIG).encode() in library.read_bytes()


def drop_libraries(directory: Path, keep: str | None) -> None:
    """Remove our libraries of every version but ``keep`` from ``directory``, and the links if nothing is kept."""
    for library in LIBRARIES:
        for path in filter(is_ours, sorted(directory.glob(f"{library}.*"))):
            if path.name != f"{library}.{keep}" and (keep is None or path.name != f"{library}.1"):
                path.unlink()


def wanted_nodes(minors: list[int]) -> dict[str, int]:
    """Minor number by name of every device node."""
    return {**{f"nvidia{minor}": minor for minor in minors}, **CONTROL_NODES}


def put_nodes(devices: Path, wanted: dict[str, int]) -> None:
    """Make the nodes ``wanted`` under ``devices`` and remove those of other GPUs."""
    for path in devices.glob("nvidia[0-9]*"):
        if path.name not in wanted:
            path.unlink()
    for name, minor in wanted.items():
        path = devices / name
        number = os.makedev(MAJOR, minor)
        if not path.exists() or path.stat().st_rdev != number:
            path.unlink(missing_ok=True)
            os.mknod(path, stat.S_IFCHR | 0o666, number)
        path.chmod(0o666)


def start(settings: Settings) -> None:
    """Make the host look like one with the driver and the devices of the configuration."""
    if REAL_DRIVER.exists():
        sys.exit(f"gpu-simulator: a real NVIDIA driver is loaded ({REAL_DRIVER}); nothing is simulated here")
    drop_libraries(settings.library_dir, keep=settings.driver_version)
    put_libraries(SOURCES, settings.library_dir, settings.driver_version)
    for path in SOURCES.iterdir():
        if path.is_dir() and path.name not in settings.extra_driver_versions:
            shutil.rmtree(path)
    for version in settings.extra_driver_versions:
        put_libraries(SOURCES, SOURCES / version, version)
    subprocess.run(["/sbin/ldconfig"], check=True)
    put_nodes(DEVICES, wanted_nodes(settings.minors))


def remove(settings: Settings) -> None:
    """Take our libraries and, unless a real driver uses them by now, the device nodes away."""
    drop_libraries(settings.library_dir, keep=None)
    for version in settings.extra_driver_versions:
        shutil.rmtree(SOURCES / version, ignore_errors=True)
    subprocess.run(["/sbin/ldconfig"], check=True)
    for name in () if REAL_DRIVER.exists() else wanted_nodes(settings.minors):
        (DEVICES / name).unlink(missing_ok=True)


def carry_configuration(specification: Path) -> None:
    """Add the configuration file to the mounts that every device of a CDI specification brings."""
    spec = json.loads(specification.read_text(encoding="utf-8"))
    mounts = spec["containerEdits"].setdefault("mounts", [])
    if all(mount["containerPath"] != str(CONFIG) for mount in mounts):
        options = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
        mounts.append({"hostPath": str(CONFIG), "containerPath": str(CONFIG), "options": options})
    fresh = specification.with_name(f".{specification.name}.new")
    fresh.write_text(json.dumps(spec, indent=2), encoding="utf-8")
    fresh.replace(specification)


def main(arguments: list[str]) -> None:
    """Run one of the three commands."""
    if arguments in (["start"], ["remove"]):
        settings = read_settings(CONFIG.read_text(encoding="utf-8"))
        (start if arguments == ["start"] else remove)(settings)
    elif len(arguments) == 2 and arguments[0] == "cdi":
        carry_configuration(Path(arguments[1]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
