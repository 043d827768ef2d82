"""The fingerprint, from files as kernels write them and from the simulator's NVML; limits and what they decide."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmark import gpu, limits, machine
from testbed.paths import repo_root
from tests.unit.bench_toys import CPU, H200, MACHINE, simulated_nvml

# Two cores of two threads each, of a Xeon on metal.
XEON = "\n\n".join(
    f"""processor\t: {at}
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz
cpu MHz\t\t: 2000.000
physical id\t: 0
core id\t\t: {at % 2}
flags\t\t: fpu sse2 avx fma avx2 avx512f avx512_bf16"""
    for at in range(4)
)
# What the kernel says of a Neoverse in a virtual machine: no model name, no frequency.
NEOVERSE = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\n"
MEMORY = "MemTotal:       16000000 kB\nMemFree:        1000 kB\nMemAvailable:   12000000 kB\nHugePages_Total:   0\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    """A folder with files as the kernel has them."""
    for name, text in {"proc/meminfo": MEMORY, "proc/loadavg": "0.50 0.4 0.3 1/100 42\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cache(at: int, index: int, level: int, size: str, shared: str, kind: str = "Unified") -> dict[str, str]:
    base = f"sys/devices/system/cpu/cpu{at}/cache/index{index}"
    values = {"level": str(level), "size": size, "shared_cpu_list": shared, "type": kind}
    return {f"{base}/{name}": f"{value}\n" for name, value in values.items()}


def test_a_server(tmp_path: Path) -> None:
    frequency = "sys/devices/system/cpu/cpu0/cpufreq"
    root = tree(tmp_path, {
        "proc/cpuinfo": XEON,
        f"{frequency}/cpuinfo_max_freq": "3200000\n",
        f"{frequency}/scaling_governor": "powersave\n",
        **cache(0, 3, 3, "48M", "0-1"), **cache(1, 3, 3, "48M", "0-1"), **cache(2, 3, 3, "49152K", "2-3"),
        **cache(0, 2, 2, "1024K", "0"),
        "etc/os-release": 'PRETTY_NAME="Rocky Linux 9"\n',
    })  # fmt: skip
    found = machine.fingerprint(root)
    assert (found.cpu.model, found.cpu.count, found.cpu.cores) == ("Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz", 4, 2)
    assert (found.cpu.max_mhz, found.cpu.mhz, found.cpu.governor) == (3200, 2000, "powersave")
    assert found.cpu.flags == ("sse2", "avx", "avx2", "fma", "avx512f", "avx512_bf16")
    assert found.cpu.cache == 96 << 20
    assert not found.cpu.virtual
    assert (found.memory, found.memory_available, found.memory_limit) == (16000000 << 10, 12000000 << 10, None)
    assert (found.system, found.load, found.container) == ("Rocky Linux 9", 0.5, None)
    assert found.device("cpu") == "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz, 4 CPUs"
    assert machine.conditions(found, "cpu") == ["the frequency governor is powersave"]


def test_what_the_kernel_does_not_say_is_not_there(tmp_path: Path) -> None:
    found = machine.fingerprint(tree(tmp_path, {"proc/cpuinfo": NEOVERSE}))
    assert (found.cpu.count, found.cpu.cores, found.cpu.flags) == (1, 1, ("asimd", "sve"))
    assert (found.cpu.max_mhz, found.cpu.governor, found.cpu.cache, found.cpu.quota) == (None, None, None, None)
    assert limits.ceiling("gemm-fp64", found.cpu, 1) is None


V2 = {
    "proc/self/cgroup": "0::/kubepods/pod1/c1\n",
    "sys/fs/cgroup/kubepods/pod1/c1/cpu.max": "300000 100000\n",
    "sys/fs/cgroup/kubepods/cpu.max": "max 100000\n",
    "sys/fs/cgroup/kubepods/pod1/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/kubepods/pod1/c1/memory.max": "2147483648\n",
    "etc/hosts": "# Kubernetes-managed hosts file.\n127.0.0.1 localhost\n",
}
V1 = {
    "proc/self/cgroup": "4:memory:/job\n1:cpu,cpuacct:/job\n",
    "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "2147483648\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "run/systemd/container": "docker\n",
}
NAMESPACE = {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/memory.max": "2147483648\n",
    ".dockerenv": "",
}


@pytest.mark.parametrize(("files", "runtime"), [(V2, "kubernetes"), (V1, "docker"), (NAMESPACE, "docker")])
def test_limits_of_control_groups(tmp_path: Path, files: dict[str, str], runtime: str) -> None:
    root = tree(tmp_path, {"proc/cpuinfo": XEON, **files})
    found = machine.fingerprint(root)
    assert (found.cpu.quota, found.cpu.granted, found.memory_limit) == (1.5, 1, 2 << 30)
    assert found.container == runtime
    assert machine.memory_available(root) == 2 << 30
    assert "a control group grants 1.5 of 4 CPUs" in machine.conditions(found, "cpu")


@pytest.mark.parametrize(
    ("files", "variables", "runtime"),
    [
        ({".singularity.d/env": "", "run/systemd/container": "docker"}, (), "apptainer"),
        ({}, ("SINGULARITY_CONTAINER",), "apptainer"),
        ({}, ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"), "apptainer"),
        ({".dockerenv": ""}, ("container_execmode",), "udocker"),
        ({".dockerenv": ""}, (), "docker"),
        ({}, (), None),
    ],
)
def test_containers_of_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], variables: tuple[str, ...], runtime: str
) -> None:
    for name in variables:
        monkeypatch.setenv(name, "/images/torch.sif")
    assert machine.fingerprint(tree(tmp_path, {"proc/cpuinfo": XEON, **files})).container == runtime


TABLE = "2000000 1500000\n"


@pytest.mark.parametrize(
    ("boost", "driver", "table", "highest", "known"),
    [
        ("1", "acpi-cpufreq", TABLE, "2000000", None),
        ("1", "acpi-cpufreq", TABLE, "3400000", 3400),
        ("0", "acpi-cpufreq", TABLE, "2000000", 2000),
        ("1", "amd-pstate-epp", "", "3400000", 3400),
        ("1", "never-heard-of", "", "3400000", None),
        ("", "intel_pstate", "", "3400000", 3400),
        ("", "intel_pstate", "", "", None),
    ],
)
def test_a_clock_without_boost_is_no_ceiling(
    tmp_path: Path, boost: str, driver: str, table: str, highest: str, known: float | None
) -> None:
    cpus = "sys/devices/system/cpu"
    files = {"proc/cpuinfo": XEON, f"{cpus}/cpufreq/boost": boost}
    for at in range(4):
        files[f"{cpus}/cpu{at}/cpufreq/scaling_driver"] = driver
        files[f"{cpus}/cpu{at}/cpufreq/scaling_available_frequencies"] = table
        files[f"{cpus}/cpu{at}/cpufreq/cpuinfo_max_freq"] = highest
    found = machine.fingerprint(tree(tmp_path, files)).cpu
    assert found.max_mhz == known
    assert (limits.ceiling("gemm-fp64", found, 4) is None) == (known is None)


def test_the_fastest_core_is_the_ceiling(tmp_path: Path) -> None:
    base = "sys/devices/system/cpu/cpu{}/cpufreq/cpuinfo_max_freq"
    files = {"proc/cpuinfo": XEON, base.format(0): "5100000", base.format(3): "5300000"}
    assert machine.fingerprint(tree(tmp_path, files)).cpu.max_mhz == 5300


def test_what_others_did_meanwhile(tmp_path: Path) -> None:
    """Of 100 s of processors 50 were busy, 20 of them for us; 5 were stolen."""
    root = tree(tmp_path, {"proc/stat": "cpu  100 0 100 1000 0 0 0 0 0 0\nintr 9 0\n"})
    before = machine.ticks(root)
    hertz = os.sysconf("SC_CLK_TCK")
    assert before[:3] == (200 / hertz, 0, 1200 / hertz)
    after = machine.Ticks(before.busy + 50, before.stolen + 5, before.total + 100, before.own + 20)
    found = machine.activity(before, after)
    assert found.others == pytest.approx(0.3)
    assert found.stolen == pytest.approx(0.05)
    assert machine.activity(before, before).others == 0
    assert limits.disturbed(found) == [
        "other programs used 30% of the processors meanwhile",
        "the hypervisor gave 5% of the processors to other machines meanwhile",
    ]
    assert machine.ticks().total > machine.ticks().busy > 0


def test_other_work_is_that_on_the_processors_that_this_process_may_use(tmp_path: Path) -> None:
    """Of 64 processors two are ours, and others take one of them wholly: half, and not a hundredth."""

    def after(seconds: int, cpus: Collection[int]) -> machine.Ticks:
        busy, idle = f" {seconds * hertz} 0 0 0 0 0 0 0 0 0\n", f" 0 0 0 {seconds * hertz} 0 0 0 0 0 0\n"
        lines = [f"cpu{at}{busy if at == 7 else idle}" for at in range(64)]
        total = f"cpu {seconds * hertz} 0 0 {63 * seconds * hertz} 0 0 0 0 0 0\n"
        return machine.ticks(tree(tmp_path, {"proc/stat": total + "".join(lines)}), cpus)

    hertz = os.sysconf("SC_CLK_TCK")
    for cpus, share in {(6, 7): 1 / 2, (8, 9): 0, (7, 99): 1 / 64}.items():
        found = machine.activity(after(0, cpus)._replace(own=0), after(100, cpus)._replace(own=0))
        assert found.others == pytest.approx(share), cpus


@pytest.mark.parametrize(
    ("quota", "device", "threads"), [(None, "Toy, 4 CPUs", 4), (2.0, "Toy, 2 CPUs", 2), (0.5, "Toy, 0.5 CPUs", 1)]
)
def test_a_part_of_a_processor_is_not_called_a_whole_one(quota: float | None, device: str, threads: int) -> None:
    cpu = CPU.model_copy(update={"quota": quota})
    one = MACHINE.model_copy(update={"cpu": cpu})
    assert (one.device("cpu"), cpu.granted) == (device, threads)


def test_how_often_the_kernel_has_killed_for_memory(tmp_path: Path) -> None:
    assert machine.memory_kills(tmp_path) == 0
    assert machine.memory_kills(tree(tmp_path, {"proc/vmstat": "oom_kill_x 9\noom_kill 7\n"})) == 7


def test_this_machine() -> None:
    found = machine.fingerprint()
    assert 1 <= found.cpu.granted <= found.cpu.usable <= len(os.sched_getaffinity(0))
    assert found.memory > found.memory_available > 0
    assert {"python", "numpy", "scipy", "blas"} <= found.libraries.keys()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_simulated_gpu_is_known_by_nvml_itself(tmp_path: Path) -> None:
    """NVIDIA's own Python library on the simulator's NVML, which answers some questions and refuses others."""
    simulated_nvml(tmp_path)
    code = "from pipelines.benchmark.gpu import gpus; found, why = gpus(); print(found[0].model_dump_json(), why)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root(), capture_output=True, text=True, check=True, timeout=120,
        env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(repo_root())},
    )  # fmt: skip
    text, _, problem = done.stdout.strip().rpartition(" ")
    found = json.loads(text)
    assert problem == "None"
    assert found["simulated"] is True
    assert (found["model"], found["driver"], found["cuda"]) == ("NVIDIA Simulated T4", "580.95.05", "13.0")
    assert found["memory"] == 15360 << 20


def test_without_a_driver_there_is_no_gpu_and_no_problem() -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has NVIDIA's driver")
    assert gpu.gpus() == ((), None)


def test_why_a_gpu_may_be_slow() -> None:
    slow: dict[str, Any] = {
        "slowed": gpu.slowed(0x44 | 0x1), "processes": 2, "mig": True, "ecc_errors": 1, "mps": 3, "pcie": "PCIe 3 x8",
        "max_pcie": "PCIe 5 x16",
    }  # fmt: skip
    shown = MACHINE.model_copy(update={"gpus": (H200.model_copy(update=slow),)})
    assert machine.conditions(shown, "gpu") == [
        "its clock is held down: power cap, heat (hardware)",
        "2 other processes on it",
        "MIG is on: only a part of it is used",
        "MPS: 3 clients on it",
        "1 uncorrected memory error",
        "its PCIe link is PCIe 3 x8, it can do PCIe 5 x16",
    ]
    assert machine.conditions(MACHINE.model_copy(update={"gpus": (H200,)}), "gpu") == []


def test_each_gpu_of_several_has_its_reasons() -> None:
    slow = H200.model_copy(update={"index": 1, "processes": 1, "mps": 1, "ecc_errors": 2})
    shown = MACHINE.model_copy(update={"gpus": (H200, slow, slow.model_copy(update={"index": 2}))})
    reasons = ["1 other process on it", "MPS: 1 client on it", "2 uncorrected memory errors"]
    assert machine.conditions(shown, "gpu", 2) == [f"GPU 1: {one}" for one in reasons]
    assert machine.conditions(shown, "gpu") == []


@pytest.mark.parametrize(
    ("now", "most", "said"),
    [
        ("PCIe 1 x16", "PCIe 5 x16", ["its PCIe link is PCIe 1 x16, it can do PCIe 5 x16 (it may have been resting)"]),
        ("PCIe 5 x8", "PCIe 5 x16", ["its PCIe link is PCIe 5 x8, it can do PCIe 5 x16"]),
        ("PCIe 5 x16", "PCIe 5 x16", []),
        (None, "PCIe 5 x16", []),
        ("PCIe 5 x16", None, []),
    ],
)
def test_a_narrow_link_is_a_reason_and_a_resting_one_says_so(
    now: str | None, most: str | None, said: list[str]
) -> None:
    linked = H200.model_copy(update={"pcie": now, "max_pcie": most})
    assert machine.conditions(MACHINE.model_copy(update={"gpus": (linked,)}), "gpu") == said


@pytest.mark.parametrize(
    ("flags", "threads", "limit"),
    [
        (("sse2",), 4, 4 * 3 * 4),
        (("sse2", "avx"), 2, 2 * 3 * 8),
        (("avx", "fma"), 9, 4 * 3 * 16),
        (("fma", "avx512f"), 1, 96),
    ],
)
def test_the_ceiling_of_processors(flags: tuple[str, ...], threads: int, limit: float) -> None:
    cpu = CPU.model_copy(update={"max_mhz": 3000.0, "flags": flags})
    double, single = limits.ceiling("gemm-fp64", cpu, threads), limits.ceiling("gemm-fp32", cpu, threads)
    assert double is not None
    assert single is not None
    assert (double.limit, single.limit) == (limit, 2 * limit)
    assert limits.ceiling("memory-copy", cpu, threads) is None
    assert limits.ceiling("gemm-fp64", CPU, threads) is None


GPU_MACHINE = MACHINE.model_copy(update={"gpus": (H200,)})


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("memory-copy", 4000.0, "valid"),
        ("memory-copy", 4801.0, "invalid"),
        ("memory-copy", 2405.0, "suspect"),
        ("gemm-bf16", 1_071_000.0, "invalid"),
        ("gemm-bf16", 700_000.0, "valid"),
        ("host-to-device", 65.0, "invalid"),
        ("resnet50-train-amp", 99_999.0, "valid"),
        ("never-heard-of", 1e99, "valid"),
    ],
)
def test_figures_of_an_h200(name: str, value: float, status: str) -> None:
    known = limits.quantity(name, "gpu", GPU_MACHINE, 1)
    unit = known.unit if known else "GB/s"
    found, reasons = limits.judged(value, unit, known, GPU_MACHINE, "gpu")
    assert found == status
    assert bool(reasons) == (status != "valid")


def test_a_suspect_figure_says_what_may_be_the_reason() -> None:
    known = limits.quantity("memory-copy", "gpu", GPU_MACHINE, 1)
    assert limits.judged(2000.0, "GB/s", known, GPU_MACHINE, "gpu")[1][-1] == "nothing is seen that explains it"
    hot = MACHINE.model_copy(update={"gpus": (H200.model_copy(update={"slowed": ("heat (driver)",)}),)})
    reasons = limits.judged(2000.0, "GB/s", known, hot, "gpu")[1]
    assert reasons == [
        "2000 GB/s is 50% of 4010 (Azure/AI-benchmarking-guide, ND_H200_v5, BabelStream copy)",
        "its clock is held down: heat (driver)",
    ]


def test_every_known_figure_has_its_source_and_can_be() -> None:
    for device in limits.known().devices:
        for name, one in device.quantities.items():
            assert bool(one.limit) == bool(one.limit_source), name
            assert bool(one.published) == bool(one.published_source), name
            assert one.limit or one.published, name
            assert (one.published or 0) < (one.limit or float("inf")), name
