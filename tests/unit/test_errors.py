"""What cannot be met fails before anything is changed, and says which host, what was found, what is needed, what to do.

The prechecks are those of the project, run by Ansible as in a deployment. Only the facts are given: they stand for
hosts that this machine is not.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import typer
import yaml

from plugins.modules import gpu_facts
from testbed import cli, files, host
from testbed.artifacts import api
from testbed.errors import DeepError
from testbed.paths import repo_root
from testbed.playbook import PlaybookResult, playbook_error, run_playbook
from testbed.rendering import SiteVariables, plays
from testbed.site_check import prechecks

ROOT = repo_root()

FACTS: dict[str, Any] = {
    "distribution": "Debian",
    "distribution_version": "12",
    "distribution_major_version": "12",
    "distribution_release": "bookworm",
    "os_family": "Debian",
    "architecture": "x86_64",
    "kernel": "6.1.0-18-amd64",
    "hostname": "host",
    "nodename": "host",
    "memtotal_mb": 16384,
    "swaptotal_mb": 0,
    "processor_vcpus": 4,
    "pkg_mgr": "apt",
    "service_mgr": "systemd",
    "default_ipv4": {"interface": "eth0", "gateway": "192.0.2.1", "mtu": 1500, "address": "192.0.2.11"},
    "deephdc": {
        "cgroup_version": 2,
        "capabilities": ["sys_time", "sys_resource"],
        "kernel_modules": True,
        "conntrack_settable": True,
        "bridge_netfilter": True,
        "nameservers": ["192.0.2.1"],
        "resolver_file": "/etc/resolv.conf",
        "addresses": ["192.0.2.11", "192.0.2.12", "192.0.2.13"],
        "disk_free_mb": {"/": 50000, "/var/lib": 50000, "/opt": 50000},
        "listening": [],
    },
}
GROUPS = {"kubernetes_control_plane": ["node1"], "pki": ["node1"], "registry": ["node1"], "kubernetes_node": ["node2"]}
VARIABLES: dict[str, Any] = {
    "site_name": "example",
    "site_domain": "example.org",
    "registry_password": "0123456789abcdef",
    "kubernetes_network_plugin": "bridge",
    "artifact_sources": ["mirror", "package"],
    "artifact_mirror": "https://192.0.2.1:8080",
    "ansible_connection": "local",
    "ansible_python_interpreter": sys.executable,
    "ansible_facts_modules": ["given_facts"],
}
GIVEN_FACTS = """#!/usr/bin/python
import json
from ansible.module_utils.basic import AnsibleModule
AnsibleModule(argument_spec={}, supports_check_mode=True).exit_json(ansible_facts=json.loads(%r))
"""

Site = Callable[..., PlaybookResult]
Refused = Callable[..., dict[str, Any]]


def facts_with(changes: dict[str, Any]) -> dict[str, Any]:
    """The facts of a good host, with some of them changed."""
    return {**FACTS, **changes, "deephdc": {**FACTS["deephdc"], **changes.get("deephdc", {})}}


def write_inventory(
    folder: Path,
    groups: dict[str, list[str]] | None = None,
    variables: dict[str, Any] | None = None,
    without: str = "",
) -> Path:
    """An inventory of two hosts, with other groups or variables where given; returns its folder."""
    members = groups or GROUPS
    names = sorted({name for hosts in members.values() for name in hosts})
    hosts = {name: {"node_address": f"192.0.2.1{number}"} for number, name in enumerate(names, start=1)}
    children = {group: {"hosts": dict.fromkeys(chosen)} for group, chosen in members.items()}
    known = {key: value for key, value in {**VARIABLES, **(variables or {})}.items() if key != without}
    inventory = folder / "inventory"
    (inventory / "group_vars/all").mkdir(parents=True, exist_ok=True)
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": children}}))
    (inventory / "group_vars/all/main.yml").write_text(yaml.safe_dump(known))
    return inventory


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Run ``playbooks/precheck.yml`` against a site of two hosts; arguments as for ``write_inventory``, and facts."""

    def run(**changes: Any) -> PlaybookResult:
        library = tmp_path / "library"
        library.mkdir()
        (library / "given_facts.py").write_text(GIVEN_FACTS % json.dumps(facts_with(changes.pop("facts", {}))))
        monkeypatch.setenv("ANSIBLE_LIBRARY", str(library))
        return run_playbook(
            "precheck",
            ["-i", str(ROOT / "inventories/common"), "-i", str(write_inventory(tmp_path, **changes))],
            log=tmp_path / "log",
            facts=tmp_path / "facts",
            quiet=True,
            must_succeed=False,
        )

    return run


def refusal(result: PlaybookResult) -> DeepError:
    """The error that a user gets of a refused deployment; nothing may have been changed."""
    assert not result.ok
    assert result.failures, result.log.read_text()
    assert result.changed == 0
    return playbook_error(result, 2)


def test_a_site_without_a_fault_passes(site: Site) -> None:
    result = site()
    assert result.ok, result.log.read_text()
    assert set(result.hosts) == {"node1", "node2"}
    assert result.changed == 0


def test_prechecks_come_first_and_none_is_left_out() -> None:
    site_playbook = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())
    assert site_playbook[0]["ansible.builtin.import_playbook"] == "precheck.yml"
    deployed = {role for _, role in plays(ROOT / "playbooks/site.yml")}
    checked = {role for _, role in plays(ROOT / "playbooks/precheck.yml")}
    assert {path.name for path in (ROOT / "roles").iterdir()} - deployed == set(), "a role that no layer applies"
    assert deployed - checked == set(), "a role whose precheck is not run before the first change"


def test_missing_variable(site: Site) -> None:
    error = refusal(site(without="site_name"))
    assert error.host == "node1"
    assert "site_name is not set" in str(error)
    assert "needed" in str(error)
    assert "inventories/SITE/group_vars/all/main.yml" in str(error.next_step)


def test_wrong_type(site: Site) -> None:
    error = refusal(site(variables={"common_minimum_memory_mb": "plenty"}))
    assert error.host == "node1"
    assert "common_minimum_memory_mb" in str(error)
    assert "plenty" in str(error) or "str" in str(error)
    assert "int" in str(error)
    assert error.next_step


def test_unsupported_distribution(site: Site) -> None:
    facts = {"distribution": "Debian", "distribution_version": "10", "distribution_major_version": "10"}
    error = refusal(site(facts=facts))
    assert error.host == "node1"
    assert "unsupported distribution (found Debian 10, needed one of" in " ".join(str(error).split())
    assert error.next_step


def test_unreachable_host(site: Site) -> None:
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_user": "deploy"}
    error = refusal(site(variables=away))
    assert error.host in {"node1", "node2"}
    assert "cannot be reached" in str(error)
    assert "needed: ssh as deploy to 127.0.0.1" in " ".join(str(error).split())
    assert "ssh deploy@127.0.0.1" in str(error.next_step)


Complaints = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def complaints(tmp_path: Path) -> Complaints:
    """What the precheck of one role says of one host: the same assertions and templates, without starting Ansible."""

    def look(role: str, name: str, extra: dict[str, Any] | None = None, **changes: Any) -> list[dict[str, Any]]:
        facts = changes.pop("facts", {})
        inventory = write_inventory(tmp_path, **changes)
        variables = SiteVariables([ROOT / "inventories/common", inventory], extra=extra)
        variables.give_facts(facts_with(facts))
        verdicts = list(prechecks(variables, name, role))
        assert verdicts
        assert None not in verdicts, "an assertion that could not be evaluated"
        return [complaint for verdict in verdicts for complaint in verdict or []]

    return look


def test_even_quorum(complaints: Complaints) -> None:
    groups = {"kubernetes_control_plane": ["node1", "node2"], "pki": ["node1"], "registry": ["node1"]}
    endpoint = {"kubernetes_control_plane_endpoint": "api.example.org:6443"}
    (found,) = complaints("kubernetes_control_plane", "node2", groups=groups, variables=endpoint)
    assert found["host"] == "node2"
    assert "found 2 control planes: node1, node2; needed an odd number" in found["message"]
    assert "add a host to group" in found["next_step"]


@pytest.mark.parametrize(
    ("role", "name", "setting", "found"),
    [
        ("kubernetes_node", "node2", "kubernetes_version", "1.35.0"),
        ("kubernetes_node", "node1", "kubernetes_version", "1.35.0"),
        ("kubernetes_control_plane", "node1", "kubernetes_pod_subnet", "10.1.0.0/16"),
    ],
)
def test_what_a_running_cluster_keeps(complaints: Complaints, role: str, name: str, setting: str, found: str) -> None:
    """A newer version would come to all kubelets first: it is no setting to be changed in place."""
    facts = {"deephdc": {"cluster_member": {"settings": {setting: found}}}}
    (refused,) = complaints(role, name, facts=facts)
    assert refused["host"] == name
    wanted = api.version("kubernetes") if setting == "kubernetes_version" else "10.244.0.0/16"
    assert f"{{'{setting}': '{found}'}}, needed {{'{setting}': '{wanted}'}}" in " ".join(refused["message"].split())
    assert "reset.yml" in refused["next_step"]
    same = {"deephdc": {"cluster_member": {"settings": {setting: wanted}}}}
    assert complaints(role, name, facts=same) == []


def test_port_in_use(complaints: Complaints) -> None:
    busy = {"port": 6443, "address": "::", "protocol": "tcp", "pid": 7, "program": "haproxy"}
    facts = {"deephdc": {"listening": [busy]}}
    (found,) = complaints("kubernetes_control_plane", "node1", facts=facts)
    assert found["host"] == "node1"
    assert "found haproxy on 6443, needed the port free" in found["message"]
    assert "stop that program" in found["next_step"]
    assert complaints("kubernetes_control_plane", "node1") == []


def test_disk_full_on_a_host(complaints: Complaints) -> None:
    (found,) = complaints("common", "node2", facts={"deephdc": {"disk_free_mb": {"/": 100, "/var/lib": 100}}})
    assert found["host"] == "node2"
    assert "found 100 MiB, needed 2048 MiB" in found["message"]
    assert "free space" in found["next_step"]
    assert complaints("common", "node2") == []


GPU_GROUPS = {"kubernetes_control_plane": ["node1"], "pki": ["node1"], "registry": ["node1"], "gpu_real": ["node2"]}
NO_GPU = {
    "driver_version": "",
    "driver_installed": "",
    "driver_open": False,
    "nouveau": False,
    "pci": [],
    "nodes": [],
    "devices": [],
    "devices_error": "",
    "simulated": False,
}
ONE_GPU = {**NO_GPU, "pci": [{"address": "0000:01:00.0", "device": 0, "architecture": "ampere"}]}


def test_the_given_gpu_facts_are_those_of_the_module() -> None:
    assert set(NO_GPU) == set(yaml.safe_load(gpu_facts.RETURN))


def test_gpu_asked_and_none_usable(complaints: Complaints) -> None:
    key = {"nvidia_driver_vendor_key_sha256": "a" * 64}
    (found,) = complaints("nvidia_driver", "node2", {"nvidia_driver_gpus": NO_GPU}, groups=GPU_GROUPS, variables=key)
    assert found["host"] == "node2"
    assert "GPU asked and none usable (found no NVIDIA GPU on the PCI bus, needed at least one)" in found["message"]
    assert "take the host out of group gpu_real" in found["next_step"]
    extra = {"nvidia_driver_gpus": ONE_GPU}
    assert complaints("nvidia_driver", "node2", extra, groups=GPU_GROUPS, variables=key) == []


@pytest.mark.parametrize(("driver", "cuda", "accepted"), [("470.82.01", "13.0", False), ("580.95.05", "13.0", True)])
def test_driver_too_old_for_the_cuda_asked(complaints: Complaints, driver: str, cuda: str, accepted: bool) -> None:
    gpus = {**ONE_GPU, "driver_version": driver, "nodes": [0]}
    asked = {"nvidia_driver_source": "present", "nvidia_driver_cuda_version": cuda}
    found = complaints("nvidia_driver", "node2", {"nvidia_driver_gpus": gpus}, groups=GPU_GROUPS, variables=asked)
    if accepted:
        assert found == []
        return
    assert found[0]["host"] == "node2"
    assert f"driver too old for CUDA {cuda} (found driver {driver}, needed 580" in found[0]["message"]
    assert "update the driver" in found[0]["next_step"]


# --- the machine that testbeds run on ---


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run ``deep ... --json``, expect it to be refused with 2 before it has written anything, and return the error."""
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DEEP_STATE_DIR", str(tmp_path / "state"))

    def run(*words: str) -> dict[str, Any]:
        monkeypatch.setattr("sys.argv", ["deep", *words, "--json"])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 2
        answer = json.loads(capsys.readouterr().out)
        assert answer["ok"] is False
        error: dict[str, Any] = answer["error"]
        assert all(error[fact] for fact in ("host", "message", "found", "needed", "next_step")), error
        return error

    return run


def test_not_root(deep: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    error = deep("testbed", "up")
    assert (error["found"], error["needed"]) == ("user id 1000", "user id 0")
    assert error["next_step"].endswith("deep testbed up --json")
    assert error["next_step"].startswith("sudo /")
    assert not list(tmp_path.iterdir())


def test_unsupported_distribution_of_this_machine(
    deep: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host, "os_release", lambda _root: {"ID": "alpine", "VERSION_ID": "3.20"})
    error = deep("testbed", "up")
    assert error["message"] == "unsupported distribution"
    assert error["found"] == "alpine 3.20"
    assert "debian 12" in error["needed"]
    assert error["next_step"]
    assert not list(tmp_path.iterdir())


def test_docker_absent(deep: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "preflight", host.facts)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    error = deep("testbed", "up")
    assert error["message"] == "Docker Engine does not answer"
    assert error["found"]
    assert error["needed"] == "a running Docker Engine"
    assert "systemctl start docker" in error["next_step"]
    assert not list(tmp_path.iterdir())


def test_docker_neither_installed_nor_running(deep: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**_: Any) -> None:
        raise DeepError("Docker Engine does not answer")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host, "preflight", host.facts)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("testbed.engine.client", refuse)
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: None)
    error = deep("testbed", "up")
    assert error["message"] == "Docker Engine is not installed"
    assert "make install" in error["next_step"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        (docker.errors.APIError("500 Server Error: no space left"), 1, "no space left"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/testbed.json"), 1, "/x/testbed.json: No space left"),
        (requests.exceptions.ReadTimeout("Read timed out."), 1, "Read timed out."),
        (typer.BadParameter("not a number"), 2, "not a number"),
    ],
)
def test_errors_of_libraries_are_json_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: Exception, status: int, said: str
) -> None:
    def fail(**_: Any) -> None:
        raise failure

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr("sys.argv", ["deep", "testbed", "down", "--json"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == status
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert said in answer["error"]["message"]
    assert answer["error"]["next_step"]


@pytest.mark.parametrize("as_json", [True, False])
def test_who_interrupts_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Room, "get_command", interrupt)
    monkeypatch.setattr("sys.argv", ["deep", "bench", "list", *(["--json"] if as_json else [])])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 130
    said = capsys.readouterr()
    if as_json:
        assert json.loads(said.out)["error"]["message"] == "interrupted"
    else:
        assert "error: interrupted" in said.err


@pytest.mark.parametrize("words", [["testbed", "up", "--nodes", "x"], ["testbed", "nothing"], ["testbed", "up", "-x"]])
def test_wrong_usage_is_json_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["deep", *words, "--json"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "--help" in json.loads(capsys.readouterr().out)["error"]["next_step"]


def test_disk_full_in_the_store(deep: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _path: 1000)
    error = deep("artifacts", "build", "gpu-simulator")
    assert "1000 bytes" in error["found"]
    assert error["needed"]
    assert "DEEP_CACHE_DIR" in error["next_step"]
    store = tmp_path / "cache/artifacts"
    assert [path for path in store.rglob("*") if path.is_file() and "locks" not in path.parts] == []
