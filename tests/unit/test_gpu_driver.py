"""What is asked of a GPU driver, held against hosts and against NVIDIA's own table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template

from plugins.filter.gpu import gpu_driver_problems, gpu_kernel_module, is_older, version_key
from plugins.modules import gpu_facts
from testbed.paths import repo_root
from testbed.rendering import SiteVariables, plays
from testbed.site_check import prechecks

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


class FakeModule:
    """Stands for AnsibleModule; knows the versions of modules on the disk, by name."""

    def __init__(self, versions: dict[str, str] | None) -> None:
        self.versions = versions

    def get_bin_path(self, name: str, opt_dirs: list[str]) -> str | None:
        return None if self.versions is None else f"/usr/sbin/{name}"

    def run_command(self, argv: list[str]) -> tuple[int, str, str]:
        version = (self.versions or {}).get(argv[-1])
        return (0, f"{version}\n", "") if version else (1, "", "Module not found")


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        (None, ""),
        ({}, ""),
        ({"nvidia": "580.95.05"}, "580.95.05"),
        ({"nvidia-current": "535.183.01"}, "535.183.01"),
    ],
)
def test_installed_driver_is_the_module_on_the_disk(versions: dict[str, str] | None, found: str) -> None:
    assert gpu_facts.installed(FakeModule(versions)) == found


@pytest.fixture
def gpu_host(tmp_path: Path) -> SiteVariables:
    """A site with one host of NVIDIA hardware."""
    groups: dict[str, Any] = {"gpu_real": {"hosts": {"gpu1": {}}}, "kubernetes_node": {"hosts": {"gpu1": {}}}}
    own = {"site_name": "t", "site_domain": "t.test", "artifact_sources": ["package"]}
    content = {"all": {"hosts": {"gpu1": {}}, "vars": own, "children": groups}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(content))
    site = SiteVariables([repo_root() / "inventories" / "common", tmp_path])
    site.give_facts({**DEBIAN, "os_family": "Debian"})
    return site


def worked_out(site: SiteVariables, expression: str, role: str = "nvidia_driver", **more: Any) -> Any:
    """The value of an expression on the host, as tasks of the role see it."""
    return site.render(trust_as_template("{{ " + expression + " }}"), site.variables("gpu1", role, more))


@pytest.mark.parametrize(
    ("loaded", "installed", "nouveau", "restart", "replaced"),
    [
        ("", "", False, False, False),
        ("", "580.95.05", False, False, False),
        ("580.95.05", "580.95.05", False, False, False),
        # An older branch on the disk too: it is replaced first, and the disk then differs from what is loaded.
        ("570.124.06", "570.124.06", False, False, True),
        ("570.124.06", "580.95.05", False, True, True),
        ("580.65.06", "580.95.05", False, True, True),
        ("", "580.95.05", True, True, True),
    ],
)
def test_restart_follows_from_what_is_on_the_disk_and_what_is_loaded(
    gpu_host: SiteVariables, loaded: str, installed: str, nouveau: bool, restart: bool, replaced: bool
) -> None:
    gpus = {"driver_version": loaded, "driver_installed": installed, "nouveau": nouveau}
    assert worked_out(gpu_host, "nvidia_driver_restart", nvidia_driver_loaded=gpus) is restart
    assert worked_out(gpu_host, "nvidia_driver_replaced", nvidia_driver_loaded=gpus) is replaced
    present: dict[str, Any] = {"nvidia_driver_loaded": gpus, "nvidia_driver_source": "present"}
    assert worked_out(gpu_host, "nvidia_driver_replaced", **present) is False, "a driver of others is theirs"


def role_tasks(name: str, role: Path = ROLE) -> list[dict[str, Any]]:
    """The tasks of a file of a role."""
    return list(yaml.safe_load((role / "tasks" / f"{name}.yml").read_text()))


@pytest.mark.parametrize(
    ("installed", "state"), [("", "latest"), ("570.124.06", "latest"), ("580.65.06", "present"), ("590.1", "latest")]
)
def test_installed_driver_moves_with_its_branch_only(gpu_host: SiteVariables, installed: str, state: str) -> None:
    site = gpu_host
    trusted = site.trusted_yaml(ROLE / "tasks" / "install.yml")
    (package,) = [task["ansible.builtin.package"] for task in trusted if "ansible.builtin.package" in task]
    more = {"nvidia_driver_before": {"driver_installed": installed}}
    assert site.render(package["state"], site.variables("gpu1", "nvidia_driver", more)) == state
    assert package["allow_downgrade"] is True


@pytest.mark.parametrize("system", ["Debian", "Ubuntu", "RedHat"])
def test_branch_is_kept_to_before_the_driver_is_chosen(system: str) -> None:
    packages = yaml.safe_load((ROLE / "vars" / f"{system}.yml").read_text())["nvidia_driver_packages"]["vendor"]
    assert not any("pinning" in package for kind in packages.values() for package in kind)
    names = [task["name"] for task in role_tasks("install")]
    family = "RedHat" if system == "RedHat" else "Debian"
    assert role_tasks(f"repository_{family}")[-1]["name"] == "Keep to the branch of the driver"
    assert names.index("Add NVIDIA's package repository") < names.index(
        "Install the driver and the headers that its module is built with"
    )


@pytest.mark.parametrize(
    ("ramdisk", "config", "modules", "built"), [(9, 5, 7, False), (6, 5, 7, True), (6, 8, 5, True)]
)
def test_ramdisk_is_built_where_it_is_older(
    gpu_host: SiteVariables, ramdisk: int, config: int, modules: int, built: bool
) -> None:
    (task,) = [
        task
        for task in gpu_host.trusted_yaml(ROLE / "tasks" / "install.yml")
        if "initial ramdisk before" in task["name"]
    ]
    ages = {"results": [{"stat": {"exists": True, "mtime": age}} for age in (ramdisk, config, modules)]}
    known = gpu_host.variables("gpu1", "nvidia_driver", {"nvidia_driver_ages": ages})
    assert gpu_host.holds(task["when"], known) is built


@pytest.mark.parametrize("role", ["nvidia_driver", "nvidia_container_toolkit"])
@pytest.mark.parametrize(("repository", "lists", "seconds"), [(5.0, 9.0, 86400), (9.0, 5.0, 0)])
def test_package_lists_are_read_where_they_are_older_than_the_repository(
    gpu_host: SiteVariables, role: str, repository: float, lists: float, seconds: int
) -> None:
    trusted = gpu_host.trusted_yaml(repo_root() / "roles" / role / "tasks" / "repository_Debian.yml")
    (task,) = [task for task in trusted if "cache_valid_time" in task.get("ansible.builtin.apt", {})]
    ages = {"results": [{"stat": {"exists": True, "mtime": age}} for age in (repository, lists)]}
    known = gpu_host.variables("gpu1", role, {f"{role}_lists": ages, **task["vars"]})
    assert int(gpu_host.render(task["ansible.builtin.apt"]["cache_valid_time"], known)) == seconds


@pytest.mark.parametrize(
    ("role", "repository", "expected"),
    [
        ("nvidia_driver", "nvidia_driver_vendor_url", ("repository", "/debian12/x86_64")),
        ("nvidia_driver", "nvidia_driver_vendor_url", ("repository_key", "/debian12/x86_64/3bf863cc.pub")),
        ("nvidia_container_toolkit", "nvidia_container_toolkit_repository", ("repository_key", "/gpgkey")),
    ],
)
def test_a_mirror_is_the_only_place_asked(
    gpu_host: SiteVariables, role: str, repository: str, expected: tuple[str, str]
) -> None:
    mirror = "https://mirror.t.test/nvidia"
    table = {"nvidia_driver_compatibility": TABLE}
    found = worked_out(gpu_host, f"{role}_{expected[0]}", role, **{repository: mirror, **table})
    assert found == mirror + expected[1]


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_packages_are_those_of_the_processor(gpu_host: SiteVariables, machine: str, name: str) -> None:
    gpu_host.give_facts({**DEBIAN, "os_family": "Debian", "architecture": machine})
    assert worked_out(gpu_host, "nvidia_container_toolkit_architecture", "nvidia_container_toolkit") == name


@pytest.mark.parametrize("role", ["nvidia_driver", "nvidia_container_toolkit"])
@pytest.mark.parametrize("family", ["Debian", "RedHat"])
def test_key_of_a_repository_is_verified_before_it_is_trusted(role: str, family: str) -> None:
    fetch, add, *_ = role_tasks(f"repository_{family}", repo_root() / "roles" / role)
    assert fetch["ansible.builtin.get_url"]["checksum"].startswith("sha256:{{ ")
    added = add.get("ansible.builtin.deb822_repository") or add["ansible.builtin.yum_repository"]
    trusted = added.get("signed_by") or added["gpgkey"].removeprefix("file://")
    assert trusted == fetch["ansible.builtin.get_url"]["dest"]


def refusals(site: SiteVariables, role: str, **more: Any) -> list[str]:
    """What the precheck of a role says on the host."""
    settings = {"nvidia_driver_gpus": host("turing"), "nvidia_driver_compatibility": TABLE, **more}
    site._extra = settings
    return [one["message"] for verdict in prechecks(site, "gpu1", role) for one in verdict or []]


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("nvidia_driver", "nvidia_driver_vendor_key_sha256"),
        ("nvidia_container_toolkit", "nvidia_container_toolkit_key_sha256"),
    ],
)
def test_packages_that_cannot_be_verified_are_refused(gpu_host: SiteVariables, role: str, name: str) -> None:
    (said,) = refusals(gpu_host, role)
    assert "cannot be verified" in said
    assert f"found {name} ''" in said
    assert refusals(gpu_host, role, **{name: "a" * 64}) == []


POLICY = "{}:\n  Installed: (none)\n  Candidate: {}\n  Version table:\n"
NAMES = [
    "linux-headers-amd64",
    "nvidia-open-kernel-dkms",
    "nvidia-smi",
    "libcuda1",
    "libnvidia-ml1",
    "nvidia-persistenced",
]


@pytest.mark.parametrize(
    ("policy", "lacking"),
    [
        ("".join(POLICY.format(name, "535.183.01-1") for name in NAMES), ""),
        ("".join(POLICY.format(name, "(none)" if name == "nvidia-smi" else "535") for name in NAMES), "nvidia-smi"),
        (POLICY.format(NAMES[0], "6.1"), ", ".join(NAMES[1:])),
    ],
)
def test_driver_that_apt_does_not_know_is_refused(gpu_host: SiteVariables, policy: str, lacking: str) -> None:
    found = refusals(
        gpu_host,
        "nvidia_driver",
        nvidia_driver_source="distribution",
        nvidia_driver_policy={"stdout": policy},
    )
    assert [message for message in found if f"no candidate for {lacking}," in message] == (found if lacking else [])
    assert bool(found) == bool(lacking)


def test_hosts_that_are_restarted_go_one_after_the_other() -> None:
    playbook = yaml.safe_load((repo_root() / "playbooks" / "gpu.yml").read_text())
    driver = {play["hosts"]: play for play in playbook if "nvidia_driver" in str(play)}
    assert driver["gpu_driver_restart"]["serial"] == 1
    parallel = next(play for hosts, play in driver.items() if hosts == "gpu_real:!gpu_driver_restart")
    assert "serial" not in parallel
    assert ("gpu_real", "nvidia_driver") in list(plays(repo_root() / "playbooks" / "gpu.yml"))


def test_pods_leave_before_the_restart_and_come_back_after_a_killed_run() -> None:
    names = [task["name"] for task in role_tasks("restart")]
    assert names.index("Move the pods away") < names.index("Restart the host") < names.index("Let pods come back")
    drained = [str(task) for task in role_tasks("drain")]
    remembered = next(i for i, task in enumerate(drained) if "deephdc.testbed.files" in task)
    assert remembered < next(i for i, task in enumerate(drained) if "'drain'" in task)
    (load,) = [task for task in role_tasks("service") if task.get("ansible.builtin.include_tasks") == "restart.yml"]
    assert "nvidia_driver_unfinished.stat.exists" in load["when"]
