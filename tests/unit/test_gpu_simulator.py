"""The simulated driver: what its libraries say, to whom, and that they never pretend to compute."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from testbed.paths import repo_root
from testbed.rendering import SiteVariables

SOURCES = repo_root() / "artifacts" / "gpu-simulator"
ROLE = repo_root() / "roles" / "gpu_simulator"
PROGRAM = ROLE / "files" / "gpu-simulator.py"
DRIVER, OTHER_DRIVER = "580.95.05", "535.183.01"
UUIDS = ["GPU-aaaaaaaa-0000-4000-8000-000000000000", "GPU-aaaaaaaa-0000-4000-8000-000000000001"]
CONFIG = f"""# two devices
driver_version = {DRIVER}
cuda_version = 13.0
extra_driver_versions = {OTHER_DRIVER}
library_dir = /nowhere
model = T4
memory_mib = 15360
compute_capability = 7.5
gpu = 0 {UUIDS[0]}
gpu = 1 {UUIDS[1]}
"""
SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, INSUFFICIENT_SIZE, TIMEOUT = 0, 1, 2, 3, 7, 10
CUDA_NO_DEVICE, CUDA_NOT_INITIALIZED = 100, 3
COMMON = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-s", "-Wl,--build-id=none", "-Wl,-z,now"]
LIBRARY = [*COMMON, "-fPIC", "-fvisibility=hidden", "-shared"]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


class Simulator:
    """Libraries that read their configuration and their device nodes below a folder of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "simulator.conf"
        self.devices = root / "dev"
        self.devices.mkdir()
        define = [f'-DSIMULATOR_CONFIG="{self.config}"', f'-DSIMULATOR_DEVICES="{self.devices}"']
        compile_c(root / "nvml", ["simulator.c", "nvml.c"], [*LIBRARY, *define, "-Wl,-soname,libnvidia-ml.so.1"])
        compile_c(root / "cuda", ["simulator.c", "cuda.c"], [*LIBRARY, *define, "-Wl,-soname,libcuda.so.1"])
        compile_c(root / "nvidia-smi", ["smi.c"], COMMON)

    def show(self, *minors: int) -> None:
        """Have the device nodes of these GPUs and no others."""
        shutil.rmtree(self.devices)
        self.devices.mkdir()
        for name in ["nvidiactl", *(f"nvidia{minor}" for minor in minors)]:
            (self.devices / name).touch()

    def libraries(self, version: str) -> Path:
        """A folder with the libraries under the names of a driver version."""
        folder = self.root / version
        folder.mkdir(exist_ok=True)
        for source, name in (("nvml", "libnvidia-ml.so"), ("cuda", "libcuda.so")):
            shutil.copy(self.root / source, folder / f"{name}.{version}")
            (folder / f"{name}.1").unlink(missing_ok=True)
            (folder / f"{name}.1").symlink_to(f"{name}.{version}")
        return folder

    def smi(self, *arguments: str, version: str = DRIVER) -> subprocess.CompletedProcess[str]:
        """Run nvidia-smi on the libraries of a driver version."""
        environment = {"LD_LIBRARY_PATH": str(self.libraries(version))}
        argv = [str(self.root / "nvidia-smi"), *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=20)


def compile_c(output: Path, sources: list[str], flags: list[str]) -> None:
    """Compile sources of the simulator as the artefact declares it."""
    subprocess.run(["gcc", *flags, "-o", str(output), *sources], cwd=SOURCES, check=True, timeout=120)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    return Simulator(tmp_path_factory.mktemp("simulator"))


@pytest.fixture
def simulator(compiled: Simulator) -> Simulator:
    compiled.config.write_text(CONFIG)
    compiled.show(0, 1)
    return compiled


@pytest.fixture
def nvml(simulator: Simulator, tmp_path: Path) -> ctypes.CDLL:
    # A file of its own: the loader would hand out the one it has already, initialised by an earlier test.
    copy = tmp_path / f"libnvidia-ml.so.{DRIVER}"
    shutil.copy(simulator.root / "nvml", copy)
    return ctypes.CDLL(str(copy))


def test_listing_names_every_device_as_simulated(simulator: Simulator) -> None:
    listed = simulator.smi("-L")
    assert listed.returncode == 0
    assert listed.stdout.splitlines() == [f"GPU {i}: NVIDIA Simulated T4 (UUID: {UUIDS[i]})" for i in (0, 1)]
    assert "simulated: nothing here computes" in simulator.smi().stdout


def test_query_gives_the_fields_that_were_asked_for(simulator: Simulator) -> None:
    fields = "index,uuid,name,driver_version,memory.total,compute_cap,count"
    with_header = simulator.smi(f"--query-gpu={fields}", "--format=csv").stdout.splitlines()
    assert with_header[0] == "index, uuid, name, driver_version, memory.total [MiB], compute_cap, count"
    assert with_header[2] == f"1, {UUIDS[1]}, NVIDIA Simulated T4, {DRIVER}, 15360 MiB, 7.5, 2"
    bare = simulator.smi("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    assert bare.stdout == "15360\n15360\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--query-gpu=index,colour", "--format=csv"), 2),
        (("--query-gpu=index",), 2),
        (("--query-gpu=index", "--format=xml"), 2),
        (("--reset",), 2),
        (("-L", "-L"), 2),
    ],
)
def test_wrong_usage_is_refused(simulator: Simulator, arguments: tuple[str, ...], code: int) -> None:
    assert simulator.smi(*arguments).returncode == code


def test_no_device_and_no_library_have_their_own_exit_codes(simulator: Simulator) -> None:
    simulator.show()
    assert simulator.smi("-L").returncode == 6
    argv = [str(simulator.root / "nvidia-smi")]
    alone = subprocess.run(argv, env={"LD_LIBRARY_PATH": "/nowhere"}, capture_output=True, check=False, timeout=20)
    assert alone.returncode in (12, 0 if Path("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").exists() else 12)


def test_a_container_sees_only_the_nodes_it_was_given(simulator: Simulator) -> None:
    simulator.show(1)
    listed = simulator.smi("--query-gpu=index,uuid,pci.bus_id", "--format=csv,noheader").stdout
    # The index is the process's own, the bus address is the device's.
    assert listed == f"0, {UUIDS[1]}, 0000FFFF:02:00.0\n"


def test_without_configuration_there_are_defaults(simulator: Simulator) -> None:
    simulator.config.unlink()
    simulator.show(0, 3)
    listed = simulator.smi("--query-gpu=name,uuid,memory.total", "--format=csv,noheader").stdout.splitlines()
    assert [line.split(", ")[0] for line in listed] == ["NVIDIA Simulated T4"] * 2
    assert len({line.split(", ")[1] for line in listed}) == 2
    assert all(re.search(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", line) for line in listed)


def test_no_model_hides_that_it_is_simulated(simulator: Simulator) -> None:
    simulator.config.write_text(CONFIG.replace("model = T4", "model = H100 80GB"))
    assert "NVIDIA Simulated H100 80GB" in simulator.smi("-L").stdout


def test_two_driver_versions_stand_side_by_side(simulator: Simulator) -> None:
    for version, cuda in ((DRIVER, "13.0"), (OTHER_DRIVER, "12.2"), ("470.256.02", "11.4")):
        table = simulator.smi(version=version).stdout
        assert f"Driver Version: {version}" in table
        assert f"CUDA Version: {cuda}" in table


def test_configured_cuda_version_counts_for_its_own_driver_only(simulator: Simulator) -> None:
    simulator.config.write_text(CONFIG.replace("cuda_version = 13.0", "cuda_version = 12.9"))
    assert "CUDA Version: 12.9" in simulator.smi().stdout
    assert "CUDA Version: 12.2" in simulator.smi(version=OTHER_DRIVER).stdout


def test_cuda_finds_a_driver_and_no_device(simulator: Simulator) -> None:
    cuda = ctypes.CDLL(str(simulator.libraries(DRIVER) / f"libcuda.so.{DRIVER}"))
    version, count, text = ctypes.c_int(), ctypes.c_int(), ctypes.c_char_p()
    assert cuda.cuInit(0) == CUDA_NO_DEVICE
    assert cuda.cuDriverGetVersion(ctypes.byref(version)) == SUCCESS
    assert version.value == 13000
    assert cuda.cuDeviceGetCount(ctypes.byref(count)) == CUDA_NOT_INITIALIZED
    assert cuda.cuGetErrorString(CUDA_NO_DEVICE, ctypes.byref(text)) == SUCCESS
    assert b"simulated" in (text.value or b"")
    assert not hasattr(cuda, "cuLaunchKernel")


def test_nvml_answers_only_between_init_and_shutdown(nvml: ctypes.CDLL) -> None:
    count = ctypes.c_uint()
    assert nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == UNINITIALIZED
    assert nvml.nvmlShutdown() == UNINITIALIZED
    assert nvml.nvmlInit_v2() == nvml.nvmlInit_v2() == SUCCESS
    assert nvml.nvmlShutdown() == SUCCESS
    assert nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == SUCCESS, "one user is left"
    assert count.value == 2
    assert nvml.nvmlShutdown() == SUCCESS
    assert nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == UNINITIALIZED


def test_nvml_refuses_what_is_no_device_and_what_does_not_fit(nvml: ctypes.CDLL) -> None:
    nvml.nvmlInit_v2()
    device, text = ctypes.c_void_p(), ctypes.create_string_buffer(80)
    assert nvml.nvmlDeviceGetHandleByIndex_v2(2, ctypes.byref(device)) == INVALID_ARGUMENT
    assert nvml.nvmlDeviceGetName(ctypes.c_void_p(8), text, 80) == INVALID_ARGUMENT
    assert nvml.nvmlDeviceGetHandleByUUID(UUIDS[1].encode(), ctypes.byref(device)) == SUCCESS
    assert nvml.nvmlDeviceGetName(device, text, 5) == INSUFFICIENT_SIZE
    assert nvml.nvmlDeviceGetMigMode(device, None, None) == NOT_SUPPORTED
    assert nvml.nvmlEventSetWait_v2(ctypes.c_void_p(1), text, 1) == TIMEOUT


def test_two_builds_are_the_same(tmp_path: Path) -> None:
    hashes = set()
    for name in ("one", "two"):
        compile_c(tmp_path / name, ["simulator.c", "nvml.c"], [*LIBRARY, "-Wl,-soname,libnvidia-ml.so.1"])
        hashes.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(hashes) == 1


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The program that puts the driver in place, with its sources in a folder of the test."""
    found = importlib.util.spec_from_file_location("gpu_simulator", PROGRAM)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    sources = tmp_path / "sources"
    sources.mkdir()
    for library in module.LIBRARIES:
        (sources / library).write_text(f"code of {library} that reads {module.CONFIG}")
    monkeypatch.setattr(module, "SOURCES", sources)
    return module


def test_settings_are_read_from_the_file_of_the_libraries(program: ModuleType) -> None:
    settings = program.read_settings(CONFIG)
    assert settings == (DRIVER, [OTHER_DRIVER], Path("/nowhere"), [0, 1])
    with pytest.raises(KeyError):
        program.read_settings("model = T4\n")


def test_libraries_are_copies_under_versioned_names(program: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    program.put_libraries(program.SOURCES, folder, DRIVER)
    library = folder / f"libcuda.so.{DRIVER}"
    assert not library.is_symlink(), "a link would lead the container away from the versioned name"
    assert (folder / "libcuda.so.1").readlink() == Path(library.name)
    written = library.stat().st_mtime_ns
    program.put_libraries(program.SOURCES, folder, DRIVER)
    assert library.stat().st_mtime_ns == written
    (program.SOURCES / "libcuda.so").write_text("newer code")
    program.put_libraries(program.SOURCES, folder, DRIVER)
    assert library.read_text() == "newer code"


def test_another_version_leaves_nothing_of_the_last(program: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    program.put_libraries(program.SOURCES, folder, OTHER_DRIVER)
    (folder / "libc.so.6").touch()
    program.drop_libraries(folder, keep=DRIVER)
    program.put_libraries(program.SOURCES, folder, DRIVER)
    names = {path.name for path in folder.iterdir()}
    assert names == {"libc.so.6", *(f"{lib}.{end}" for lib in program.LIBRARIES for end in ("1", DRIVER))}
    program.drop_libraries(folder, keep=None)
    assert {path.name for path in folder.iterdir()} == {"libc.so.6"}


def test_libraries_of_a_real_driver_are_left_alone(program: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    program.put_libraries(program.SOURCES, folder, DRIVER)
    real = folder / "libcuda.so.590.44.01"
    real.write_text("NVIDIA's own")
    (folder / "libcuda.so.1").unlink()
    (folder / "libcuda.so.1").symlink_to(real.name)
    program.drop_libraries(folder, keep=None)
    assert {path.name for path in folder.iterdir()} == {"libcuda.so.1", real.name}


def test_nodes_of_a_real_driver_are_left_alone(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "DEVICES", tmp_path)
    monkeypatch.setattr(program, "REAL_DRIVER", tmp_path / "version")
    monkeypatch.setattr(program.subprocess, "run", lambda argv, check: None)
    settings = program.read_settings(CONFIG)
    (tmp_path / "nvidia0").touch()
    (tmp_path / "version").touch()
    program.remove(settings)
    assert (tmp_path / "nvidia0").exists()
    (tmp_path / "version").unlink()
    program.remove(settings)
    assert not (tmp_path / "nvidia0").exists()


@pytest.mark.parametrize(
    ("smi", "removed"),
    [
        ({"exists": True, "lnk_target": "/opt/deephdc/gpu-simulator/1.0.0/nvidia-smi"}, True),
        ({"exists": True, "lnk_target": "/etc/alternatives/nvidia-smi"}, False),
        ({"exists": True}, False),
        ({"exists": False}, False),
    ],
)
def test_only_our_nvidia_smi_is_removed(smi: dict[str, Any], removed: bool) -> None:
    site = SiteVariables([repo_root() / "inventories" / "common"])
    (task,) = [task for task in site.trusted_yaml(ROLE / "tasks" / "remove.yml") if "deephdc.testbed.files" in task]
    known = {"artifact_dir": "/opt/deephdc", "gpu_simulator_smi": {"stat": smi}, **task["vars"]}
    files = site.render(task["deephdc.testbed.files"]["files"], known)
    assert all(file["state"] == "absent" for file in files)
    assert ("/usr/bin/nvidia-smi" in [file["path"] for file in files]) == removed
    assert len(files) == 6 + removed


def test_real_driver_is_never_covered_up(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "version"
    real.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05\n")
    monkeypatch.setattr(program, "REAL_DRIVER", real)
    with pytest.raises(SystemExit, match="a real NVIDIA driver is loaded"):
        program.start(program.read_settings(CONFIG))


def test_device_nodes_have_numbers_that_no_other_driver_answers(program: ModuleType) -> None:
    assert program.MAJOR == 195
    wanted = program.wanted_nodes([0, 1])
    assert wanted == {"nvidia0": 0, "nvidia1": 1, "nvidiactl": 255, "nvidia-uvm": 252, "nvidia-uvm-tools": 253}


def test_specification_carries_the_configuration_once(program: ModuleType, tmp_path: Path) -> None:
    specification = tmp_path / "nvidia.json"
    specification.write_text(json.dumps({"kind": "nvidia.com/gpu", "containerEdits": {"env": ["A=b"]}}))
    program.carry_configuration(specification)
    program.carry_configuration(specification)
    spec = json.loads(specification.read_text())
    assert [mount["containerPath"] for mount in spec["containerEdits"]["mounts"]] == [str(program.CONFIG)]
    assert spec["kind"] == "nvidia.com/gpu"


@pytest.mark.parametrize("arguments", [[], ["cdi"], ["begin"], ["start", "now"]])
def test_unknown_command_shows_the_usage(program: ModuleType, arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="gpu-simulator start"):
        program.main(arguments)


def test_a_module_says_that_its_gpus_are_simulated_and_claims_no_calculation(simulator: Simulator) -> None:
    code = "import json, pathlib, sys; from deep_module.gpus import report"
    code += "; print(json.dumps(report(pathlib.Path(sys.argv[1]))))"
    environment = {
        "LD_LIBRARY_PATH": str(simulator.libraries(DRIVER)),
        "PYTHONPATH": str(repo_root() / "services/modules"),
    }
    argv = [sys.executable, "-c", code, str(simulator.devices)]
    said = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=20).stdout
    assert json.loads(said) == {
        "computed_on": "cpu",
        "gpus": {
            "devices": [str(simulator.devices / "nvidia0"), str(simulator.devices / "nvidia1")],
            "names": ["NVIDIA Simulated T4", "NVIDIA Simulated T4"],
            "driver": DRIVER,
            "simulated": True,
        },
    }
