"""What the GPU roles render and the simulator exports, held against NVIDIA's own programs out of the artefact store."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.filter.gpu import gpu_sharing_nodes
from testbed.artifacts import api
from testbed.paths import repo_root
from testbed.rendering import SiteVariables, role_path

pytestmark = pytest.mark.live

ROLE = "nvidia_device_plugin"
HOSTS: dict[str, dict[str, Any]] = {
    "gpu1": {"gpu_sharing": "exclusive"},
    "gpu2": {"gpu_sharing": "time_slicing", "gpu_sharing_replicas": 4},
    "gpu3": {"gpu_sharing": "mps", "gpu_sharing_replicas": 8},
    "gpu4": {"gpu_sharing": "mig", "gpu_mig_strategy": "mixed"},
}
PROFILES = ["exclusive", "mig-mixed", "mps-8", "time-slicing-4"]


@pytest.fixture(scope="session")
def store() -> Path:
    """The artefact store with everything that the tests of this file look at. Built, if it is not there yet."""
    api.ensure(["gpu-simulator", "nvidia-container-toolkit", "nvidia-device-plugin"])
    return api.mirror_dir()


def stored(store: Path, name: str) -> Path:
    """The file ARTEFACT/NAME of the version that is declared."""
    artefact, file = name.split("/")
    return store / artefact / api.version(artefact) / file


@pytest.fixture(scope="module")
def configurations() -> dict[str, str]:
    """The device plugin's configuration by way of sharing."""
    site = SiteVariables([repo_root() / "inventories" / "common"], extra={"site_name": "t", "site_domain": "t.test"})
    common = yaml.safe_load((repo_root() / "inventories/common/group_vars/all.yml").read_text())
    nodes = gpu_sharing_nodes(list(HOSTS), {host: {**common, **wish} for host, wish in HOSTS.items()}, [])
    more = {"nvidia_device_plugin_nodes": nodes, "nvidia_device_plugin_image": "image"}
    path = role_path(ROLE) / "templates" / "nvidia-device-plugin.yaml.j2"
    text = site.render_file(path, {**site.trusted_yaml(role_path(ROLE) / "defaults" / "main.yml"), **more})
    (config,) = [one for one in yaml.safe_load_all(text) if one and one["kind"] == "ConfigMap"]
    return dict(config["data"])


@pytest.fixture(scope="module")
def device_plugin(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NVIDIA's device plugin, executable."""
    program = tmp_path_factory.mktemp("plugin") / "nvidia-device-plugin"
    shutil.copy(stored(store, "nvidia-device-plugin/nvidia-device-plugin"), program)
    program.chmod(0o755)
    return program


def judge(program: Path, config: str, folder: Path) -> tuple[bool, str]:
    """Whether NVIDIA's device plugin takes a configuration, and what it prints.

    It says "Running with config" once a configuration is valid. Without a driver it then ends or tries again for ever.
    """
    (folder / "config.yaml").write_text(config)
    argv = [str(program), f"--config-file={folder / 'config.yaml'}", f"--kubelet-socket={folder / 'kubelet.sock'}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if "Running with config" in line:
                process.kill()
                return True, "".join(lines)
        process.wait(timeout=20)
    assert process.returncode != 0
    return False, "".join(lines)


def test_there_is_a_configuration_for_every_way_of_sharing(configurations: dict[str, str]) -> None:
    assert sorted(configurations) == PROFILES


@pytest.mark.parametrize("profile", PROFILES)
def test_nvidias_plugin_takes_every_configuration(
    device_plugin: Path, configurations: dict[str, str], profile: str, tmp_path: Path
) -> None:
    config = configurations[profile]
    taken, said = judge(device_plugin, config, tmp_path)
    assert taken, said


@pytest.mark.parametrize(
    ("profile", "right", "wrong", "complaint"),
    [
        ("time-slicing-4", "replicas: 4", "replicas: 1", "number of replicas must be >= 2"),
        ("mps-8", "mpsRoot: /run/nvidia/mps", "mpsRoot: ''", "using MPS requires --mps-root"),
        ("mps-8", "replicas: 8", "replicas: eight", "cannot unmarshal"),
        ("mig-mixed", "migStrategy: mixed", "migStrategy: halves", "unknown MIG strategy: halves"),
        ("exclusive", "[volume-mounts]", "[by-mail]", "invalid --device-list-strategy option"),
    ],
)
def test_nvidias_plugin_refuses_a_broken_configuration(
    device_plugin: Path,
    configurations: dict[str, str],
    profile: str,
    right: str,
    wrong: str,
    complaint: str,
    tmp_path: Path,
) -> None:
    config = configurations[profile]
    assert right in config
    taken, said = judge(device_plugin, config.replace(right, wrong), tmp_path)
    assert not taken
    assert complaint in said


def symbols(library: Path, *options: str) -> set[str]:
    """Names of NVML functions in the dynamic symbol table."""
    done = subprocess.run(["nm", "-D", *options, str(library)], capture_output=True, text=True, check=True, timeout=60)
    return set(re.findall(r"\b(nvml[A-Z]\w+)$", done.stdout, flags=re.MULTILINE))


@pytest.mark.parametrize(
    "program",
    [
        "nvidia-container-toolkit/nvidia-ctk",
        "nvidia-device-plugin/nvidia-device-plugin",
        "nvidia-device-plugin/gpu-feature-discovery",
    ],
)
def test_every_function_that_nvidias_programs_may_call_is_simulated(store: Path, program: str) -> None:
    called = symbols(stored(store, program))
    assert len(called) > 100
    assert called - symbols(stored(store, "gpu-simulator/libnvidia-ml.so"), "--defined-only") == set()
