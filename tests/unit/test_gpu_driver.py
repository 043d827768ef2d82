"""What is asked of a GPU driver, held against hosts and against NVIDIA's own table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.filter.gpu import gpu_driver_problems, gpu_kernel_module, is_older, version_key
from plugins.modules import gpu_facts
from testbed.paths import repo_root

ROLE = repo_root() / "roles" / "nvidia_driver"
TABLE: dict[str, Any] = yaml.safe_load((ROLE / "vars" / "compatibility.yml").read_text())["nvidia_driver_compatibility"]
DEBIAN = {
    "distribution": "Debian",
    "distribution_version": "12",
    "distribution_major_version": "12",
    "kernel": "6.1.0-31-amd64",
    "architecture": "x86_64",
}
REQUEST = {"source": "vendor", "branch": "580", "kernel_module": "auto", "cuda_version": "", "cuda_complete": False}


def host(*architectures: str, driver: str = "", nouveau: bool = False, simulated: bool = False) -> dict[str, Any]:
    """A host with one GPU of each architecture."""
    pci = [{"address": f"0000:0{i}:00.0", "device": "0000", "architecture": a} for i, a in enumerate(architectures)]
    return {"pci": pci, "driver_version": driver, "nouveau": nouveau, "simulated": simulated}


def problems(gpus: dict[str, Any], request: dict[str, Any] | None = None, **facts: str) -> list[str]:
    """The filter's answer for a request that differs from the usual one."""
    return gpu_driver_problems(gpus, {**REQUEST, **(request or {})}, {**DEBIAN, **facts}, TABLE)


@pytest.mark.parametrize(
    ("gpus", "request_", "facts"),
    [
        (host("turing"), {}, {}),
        (host("volta"), {}, {}),
        (host("hopper"), {"cuda_version": "13.0", "cuda_complete": True}, {}),
        (host("ampere"), {"branch": "535", "cuda_version": "12.8"}, {}),
        (host("blackwell"), {"branch": "570", "kernel_module": "open"}, {}),
        (host("ampere", driver="550.54.14"), {"source": "present", "cuda_version": "12.4"}, {"distribution": "Gentoo"}),
        (host("turing"), {"source": "distribution", "cuda_version": "12.2"}, {}),
        (host("ada"), {}, {"distribution": "Rocky", "distribution_major_version": "9", "kernel": "5.14.0-503.el9"}),
    ],
)
def test_what_goes_together_is_let_through(
    gpus: dict[str, Any], request_: dict[str, Any], facts: dict[str, str]
) -> None:
    assert problems(gpus, request_, **facts) == []


@pytest.mark.parametrize(
    ("gpus", "request_", "facts", "expected"),
    [
        (host(), {}, {}, ("GPU asked and none usable", "found no NVIDIA GPU on the PCI bus", "needed at least one")),
        (
            host("ampere", driver="470.256.02"),
            {"source": "present", "cuda_version": "12.8"},
            {},
            ("driver too old for CUDA 12.8", "found driver 470.256.02", "needed 525.60.13 or newer"),
        ),
        (
            host("ampere"),
            {"branch": "535", "cuda_version": "13.0"},
            {},
            ("driver too old for CUDA 13.0", "found driver 535", "needed 580.65.06", "raise nvidia_driver_branch"),
        ),
        (
            host("ampere"),
            {"branch": "550", "cuda_version": "12.8", "cuda_complete": True},
            {},
            ("driver too old for CUDA 12.8", "needed 570.26 or newer"),
        ),
        (host("ampere"), {"cuda_version": "14.1"}, {}, ("unknown CUDA version", "found 14.1", "one of 11, 12, 13")),
        (host("ampere"), {}, {"kernel": "5.10.0-30-amd64"}, ("unsupported kernel", "found 5.10.0-30", "6.1 or newer")),
        (
            host("ampere"),
            {},
            {"distribution": "Alpine", "distribution_version": "3.20", "distribution_major_version": "3"},
            ("unsupported distribution", "found Alpine 3.20", "Debian 12/13", "source to present"),
        ),
        (host("ampere"), {}, {"architecture": "aarch64"}, ("unsupported distribution", "aarch64")),
        (
            host("ampere"),
            {"source": "distribution"},
            {"distribution": "RedHat", "distribution_major_version": "9", "kernel": "5.14.0"},
            ("no driver in this distribution", "source to vendor"),
        ),
        (host("ampere", simulated=True), {}, {}, ("the GPU simulator is still there", "tasks_from=remove")),
        (host("ampere"), {"branch": "571"}, {}, ("unknown driver branch", "found 571")),
        (host("hopper"), {"branch": "470"}, {}, ("driver too old for GPU", "branch 525 or newer")),
        (host("volta"), {"branch": "590"}, {}, ("driver too new for GPU", "volta", "branch 580 or older")),
        (host("volta"), {"kernel_module": "open"}, {}, ("kernel module does not drive GPU", "needed proprietary")),
        (host("volta", "blackwell"), {}, {}, ("architecture blackwell", "found proprietary", "needed open")),
        (
            host("turing"),
            {"branch": "470", "kernel_module": "open"},
            {},
            ("no open kernel module in this branch", "found branch 470", "needed branch 515 or newer"),
        ),
        (
            host("turing", nouveau=True),
            {"source": "present"},
            {},
            ("the driver is not there", "found nouveau loaded", "set nvidia_driver_source"),
        ),
        (
            host("turing", driver="390.157"),
            {"source": "present"},
            {},
            ("driver too old for the container toolkit", "418.81.07"),
        ),
        (
            host("turing", driver="580.95.05"),
            {"source": "present"},
            {"kernel": "3.2.0"},
            ("kernel too old for the container toolkit", "found 3.2.0"),
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    gpus: dict[str, Any], request_: dict[str, Any], facts: dict[str, str], expected: tuple[str, ...]
) -> None:
    found = problems(gpus, request_, **facts)
    matching = [sentence for sentence in found if all(part in sentence for part in expected)]
    assert matching, found
    assert all("(found " in sentence and ", needed " in sentence and "). Next: " in sentence for sentence in found)


def test_module_follows_the_oldest_gpu() -> None:
    assert gpu_kernel_module(host("hopper"), "auto") == "open"
    assert gpu_kernel_module(host("hopper", "pascal"), "auto") == "proprietary"
    assert gpu_kernel_module(host("pascal"), "open") == "open"


@pytest.mark.parametrize(
    ("version", "needed", "older"),
    [
        ("580", "580.65.06", False),
        ("575", "580.65.06", True),
        ("580.60", "580.65.06", True),
        ("1000.1", "580.1", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, needed: str, older: bool) -> None:
    assert is_older(version, needed) is older


def test_text_without_numbers_has_no_version() -> None:
    assert version_key("6.1.0-31-amd64") == (6, 1, 0)
    assert version_key("unknown") == ()


def test_table_holds_together() -> None:
    assert all(version_key(TABLE["cuda"][v.split(".")[0]]) <= version_key(d) for v, d in TABLE["cuda_complete"].items())
    for releases in TABLE["distributions"].values():
        for release in releases.values():
            assert version_key(release["kernel"]) > version_key(TABLE["toolkit"]["kernel"])
            assert release.get("branch", "any") in {"any", *TABLE["branches"]}
    assert {module for row in TABLE["architectures"].values() for module in row["modules"]} == {"open", "proprietary"}
    names = {name for _, name in gpu_facts.FIRST_DEVICE_NUMBERS} - {"unknown"}
    assert names == set(TABLE["architectures"]), "an architecture is told from the bus and not in the table"


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (0x102D, "kepler"), (0x17FD, "maxwell"), (0x15F8, "pascal"), (0x1B38, "pascal"), (0x1DB1, "volta"),
        (0x1EB8, "turing"), (0x20B0, "ampere"), (0x2191, "turing"), (0x2204, "ampere"), (0x2335, "hopper"),
        (0x25B6, "ampere"), (0x27B8, "ada"), (0x2901, "blackwell"), (0x2B85, "blackwell"), (0x0100, "unknown"),
        (0x9999, "unknown"),
    ],
)  # fmt: skip
def test_architecture_is_told_by_the_device_number(device: int, name: str) -> None:
    assert gpu_facts.architecture(device) == name


def write(path: Path, text: str) -> None:
    """Make a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_facts_of_a_host_with_hardware(tmp_path: Path) -> None:
    bus = tmp_path / "sys/bus/pci/devices"
    for address, vendor, kind, device in (
        ("0000:3b:00.0", "0x10de", "0x030200", "0x1eb8"),
        ("0000:00:02.0", "0x1234", "0x030000", "0x1111"),
        ("0000:3b:00.1", "0x10de", "0x040300", "0x10f8"),
    ):
        for name, value in (("vendor", vendor), ("class", kind), ("device", device)):
            write(bus / address / name, f"{value}\n")
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\nGCC version: 12.2\n"
    write(tmp_path / "proc/driver/nvidia/version", version)
    for name in ("nvidia0", "nvidia10", "nvidiactl", "nvidia-uvm"):
        write(tmp_path / "dev" / name, "")
    found = gpu_facts.gather(tmp_path)
    assert found == {
        "driver_version": "580.95.05",
        "driver_open": True,
        "nouveau": False,
        "pci": [{"address": "0000:3b:00.0", "device": "1eb8", "architecture": "turing"}],
        "nodes": [0, 10],
    }


def test_facts_of_a_host_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "sys/module/nouveau").mkdir(parents=True)
    found = gpu_facts.gather(tmp_path)
    assert found == {"driver_version": "", "driver_open": False, "nouveau": True, "pci": [], "nodes": []}


def test_devices_are_read_from_the_listing() -> None:
    listing = "0, GPU-1, NVIDIA Simulated T4, 580.95.05, 15360\nNo devices were found\n1, GPU-2, Tesla T4, 1.2, [N/A]\n"
    assert gpu_facts.parse_devices(listing) == [
        {"index": 0, "uuid": "GPU-1", "name": "NVIDIA Simulated T4", "driver_version": "580.95.05", "memory_mib": 15360}
    ]


@pytest.mark.parametrize("system", ["Debian", "Ubuntu", "RedHat"])
def test_every_source_and_module_has_packages(system: str) -> None:
    packages = yaml.safe_load((ROLE / "vars" / f"{system}.yml").read_text())["nvidia_driver_packages"]
    sources = {"vendor"} if system == "RedHat" else {"vendor", "distribution"}
    assert set(packages) == sources
    assert all(set(kinds) == {"open", "proprietary"} and all(kinds.values()) for kinds in packages.values())
