"""The fingerprint of a machine: what decides about figures, read from the kernel and from NVML."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, cast

from pipelines.benchmark import gpu
from pipelines.benchmark.model import Activity, Cpu, Gpu, Machine, counted
from testbed.host import machine_name, os_release

ROOT = Path("/")
LIBRARIES = ("numpy", "scipy", "torch", "torchvision", "triton")
# What widens a processor's arithmetic, by the names of /proc/cpuinfo.
FLAGS = ("sse2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
IN_CONTAINER = {".dockerenv": "docker", "run/.containerenv": "podman"}
# Of Apptainer and Singularity: the folder in their images, and variables. udocker only has a variable.
APPTAINER = (".singularity.d", "APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
UDOCKER = "container_execmode"
# How a kubelet begins the hosts file of a pod, whether or not it gives the pod a token.
KUBELETS_HOSTS = "# Kubernetes-managed hosts file"
# A machine is idle up to this load for each processor.
IDLE = 0.25
# Limits as large as these are the kernel's way of saying none.
NO_LIMIT = 1 << 60


def fingerprint(root: Path = ROOT) -> Machine:
    """Everything about this machine, or about one whose files were recorded below ``root``."""
    found, problem = gpu.gpus()
    memory = _meminfo(root)
    groups = _control_groups(root)
    return Machine(
        host=machine_name(),
        kernel=f"{platform.system()} {platform.release()}",
        system=os_release(root).get("PRETTY_NAME", ""),
        container=_container(root),
        load=float(_text(root / "proc/loadavg", "0").split()[0]),
        cpu=_cpu(root, groups),
        memory=memory["MemTotal"],
        memory_available=memory["MemAvailable"],
        memory_limit=_memory_limit(groups, memory["MemTotal"]),
        libraries=_libraries(),
        gpus=found,
        gpu_problem=problem,
    )


def conditions(machine: Machine, kind: str, gpus: int = 1) -> list[str]:
    """What may slow down a workload of this kind on this machine, the likelier first; of so many GPUs, of each."""
    if kind != "gpu":
        return _of_cpu(machine)
    if gpus == 1:
        return _of_gpu(machine.gpus[0])
    return [f"GPU {one.index}: {said}" for one in machine.gpus[:gpus] for said in _of_gpu(one)]


class Ticks(NamedTuple):
    """Seconds of processor time since the kernel has started, on the processors that this process may use.

    Of everybody; ``own``: of this process and its children.
    """

    busy: float
    stolen: float
    total: float
    own: float


def ticks(root: Path = ROOT, cpus: Collection[int] = ()) -> Ticks:
    """How much time of these processors, else of all that this process may use, was used until now (proc_stat(5))."""
    lines = [line.split() for line in _text(root / "proc/stat").splitlines()]
    times = {line[0]: [int(one) for one in line[1:9]] for line in lines if line[0].startswith("cpu")}
    names = [f"cpu{at}" for at in cpus or os.sched_getaffinity(0)]
    if not times.keys() >= set(names):
        names = ["cpu"]  # LXCFS, for one, numbers those of a container anew
    user, nice, system, idle, iowait, irq, softirq, steal = map(sum, zip(*(times[name] for name in names), strict=True))
    busy, hertz = user + nice + system + irq + softirq, os.sysconf("SC_CLK_TCK")
    total = busy + idle + iowait + steal
    return Ticks(busy / hertz, steal / hertz, total / hertz, own=sum(os.times()[:4]))


def activity(before: Ticks, after: Ticks) -> Activity:
    """What happened between two moments beside this process and its children."""
    busy, stolen, total, own = (now - then for now, then in zip(after, before, strict=True))
    if total <= 0:
        return Activity(others=0.0, stolen=0.0)
    return Activity(others=max(0.0, busy - own) / total, stolen=stolen / total)


def memory_available(root: Path = ROOT) -> int:
    """Bytes that this process can still get, by the kernel and by its control group."""
    memory = _meminfo(root)
    limit = _memory_limit(_control_groups(root), memory["MemTotal"])
    return min(memory["MemAvailable"], limit or memory["MemAvailable"])


def memory_kills(root: Path = ROOT) -> int:
    """How many processes the kernel has killed since it has started, because a limit or the machine had no memory."""
    found = re.search(r"^oom_kill (\d+)$", _text(root / "proc/vmstat"), re.MULTILINE)
    return int(found[1]) if found else 0


def caches(root: Path = ROOT) -> int | None:
    """Bytes of all last-level caches together, ``None`` where the kernel does not say."""
    found: dict[int, dict[str, int]] = {}
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cache/index[0-9]*"):
        level, size = _text(folder / "level"), _text(folder / "size")
        if level.isdigit() and re.fullmatch(r"\d+[KM]", size) and _text(folder / "type") != "Instruction":
            amount = int(size[:-1]) << (10 if size.endswith("K") else 20)
            found.setdefault(int(level), {})[_text(folder / "shared_cpu_list")] = amount
    return sum(found[max(found)].values()) if found else None


def _of_cpu(machine: Machine) -> list[str]:
    cpu, found = machine.cpu, []
    if machine.load > IDLE * cpu.usable:
        found.append(f"other work: load {machine.load:.1f} on {cpu.usable} CPUs before the first call")
    if cpu.quota and cpu.quota < cpu.usable:
        found.append(f"a control group grants {cpu.quota:g} of {cpu.usable} CPUs")
    if cpu.governor not in (None, "performance"):
        found.append(f"the frequency governor is {cpu.governor}")
    if cpu.virtual:
        found.append("a virtual machine: its host may have other work")
    return found


def _of_gpu(one: Gpu) -> list[str]:
    found = []
    if one.slowed:
        found.append(f"its clock is held down: {', '.join(one.slowed)}")
    if one.processes:
        found.append(f"{counted(one.processes, 'other process')} on it")
    if one.mig:
        found.append("MIG is on: only a part of it is used")
    if one.mps:
        found.append(f"MPS: {counted(one.mps, 'client')} on it")
    if one.ecc_errors:
        found.append(counted(one.ecc_errors, "uncorrected memory error"))
    if one.pcie and one.max_pcie and one.pcie != one.max_pcie:
        found.append(f"its PCIe link is {one.pcie}, it can do {one.max_pcie}{_resting(one.pcie, one.max_pcie)}")
    return found


def _resting(now: str, most: str) -> str:
    """What is added where only the generation is lower, which GPUs that rest do to save power."""
    return " (it may have been resting)" if now.rpartition(" ")[2] == most.rpartition(" ")[2] else ""


def _cpu(root: Path, groups: list[Path]) -> Cpu:
    text = _text(root / "proc/cpuinfo")
    blocks = [dict(re.findall(r"^([^:\n]+?)\s*:[ \t]*(.*)$", block, re.MULTILINE)) for block in text.split("\n\n")]
    blocks = [one for one in blocks if "processor" in one] or [{}]
    first = blocks[0]
    flags = set((first.get("flags") or first.get("Features") or "").split())
    cores = {(one.get("physical id", ""), one.get("core id", one.get("processor", ""))) for one in blocks}
    return Cpu(
        model=first.get("model name") or first.get("Hardware") or platform.machine(),
        architecture=platform.machine(),
        count=len(blocks),
        cores=len(cores),
        usable=min(len(os.sched_getaffinity(0)), len(blocks)) if root == ROOT else len(blocks),
        quota=_quota(groups),
        mhz=float(first["cpu MHz"]) if "cpu MHz" in first else None,
        max_mhz=_highest_clock(root / "sys/devices/system/cpu"),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        flags=tuple(one for one in FLAGS if one in flags),
        cache=caches(root),
        virtual="hypervisor" in flags,
    )


def _highest_clock(cpus: Path) -> float | None:
    """MHz of the fastest core. Unknown where there is boost and the driver only tells the clock without it.

    acpi-cpufreq does where the firmware tells it no more; else its clock is above its own table of clocks.
    """
    folders = list(cpus.glob("cpu[0-9]*/cpufreq"))
    highest = max((int(text) for one in folders if (text := _text(one / "cpuinfo_max_freq")).isdigit()), default=None)
    if highest is None:
        return None
    if _text(cpus / "cpufreq/boost") == "1" and not _text(folders[0] / "scaling_driver").startswith("amd-pstate"):
        table = {int(text) for one in folders for text in _text(one / "scaling_available_frequencies").split()}
        if not table or highest <= max(table):
            return None
    return highest / 1000


def _control_groups(root: Path) -> list[Path]:
    """The folders of this process's control groups and of those above, of both versions."""
    base, found = root / "sys/fs/cgroup", []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        for mount in (base / (names or "unified"), base):
            folder = mount / path.lstrip("/")
            found += [mount, *(one for one in (folder, *folder.parents) if one.is_relative_to(mount))]
    return [one for one in dict.fromkeys(found) if one.is_dir()]


def _quota(groups: list[Path]) -> float | None:
    found = []
    for group in groups:
        quota, period = [*_text(group / "cpu.max", "max").split(), "0"][:2]
        pairs = ((quota, period), (_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")))
        found += [int(one) / int(other) for one, other in pairs if one.isdigit() and other.isdigit() and int(other)]
    return min(found, default=None)


def _memory_limit(groups: list[Path], total: int) -> int | None:
    texts = [_text(group / name) for group in groups for name in ("memory.max", "memory.limit_in_bytes")]
    limits = [int(one) for one in texts if one.isdigit() and int(one) < min(total, NO_LIMIT)]
    return min(limits, default=None)


def _meminfo(root: Path) -> dict[str, int]:
    pairs = re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    return {"MemTotal": 0, "MemAvailable": 0} | {name: int(value) * 1024 for name, value in pairs}


def _container(root: Path) -> str | None:
    """The innermost one: users' containers may run in those of an engine, and see its files."""
    if (root / APPTAINER[0]).is_dir() or any(name in os.environ for name in APPTAINER[1:]):
        return "apptainer"
    if UDOCKER in os.environ:
        return "udocker"
    found = [name for mark, name in IN_CONTAINER.items() if (root / mark).exists()]
    if _text(root / "etc/hosts").startswith(KUBELETS_HOSTS):
        found.append("kubernetes")
    return _text(root / "run/systemd/container") or (found[-1] if found else None)


def _libraries() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "numpy" in found:
        import numpy as np

        shown = cast(dict[str, Any], np.show_config(mode="dicts"))
        blas = shown.get("Build Dependencies", {}).get("blas", {})
        found["blas"] = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    return found


def _text(path: Path, default: str = "") -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or default
    except OSError:
        return default
