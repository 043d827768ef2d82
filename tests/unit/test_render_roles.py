"""Every template of every role renders for every kind of host, and what it makes can be read."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.modules import host_facts
from testbed import secrets, sites
from testbed.paths import repo_root
from testbed.rendering import SiteVariables, Unknown, argument_spec, plays, role_path, roles

OS_RELEASES = {
    "debian12": 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n',
    "debian13": 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n',
    "ubuntu24": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n',
    "rhel9": 'ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.5"\n',
}
# A container on cgroup v1 as the testbed has it, and a host with its own kernel.
CONTAINER = {
    "cgroup_version": 1, "kernel_modules": False, "bridge_netfilter": False, "conntrack_settable": False,
    "capabilities": ["net_admin", "sys_admin"], "nameservers": ["127.0.0.11"], "resolver_file": "",
}  # fmt: skip
MACHINE = {
    "cgroup_version": 2, "kernel_modules": True, "bridge_netfilter": True, "conntrack_settable": True,
    "capabilities": ["net_admin", "sys_admin", "sys_resource", "sys_time"], "nameservers": ["192.0.2.53"],
    "resolver_file": "/etc/resolv.conf",
}  # fmt: skip
# Templates of a network plugin that a site may not have chosen.
NETWORKS = {"flannel.yaml.j2": "flannel", "kustomization.yaml.j2": "calico"}
PYTHONS = {"debian12": "3.11", "debian13": "3.13", "ubuntu24": "3.12", "rhel9": "3.9"}
KINDS = {"local": CONTAINER, "ifca": MACHINE}
HOSTS_PER_SITE = 2
CASES = [(site, system) for site in KINDS for system in OS_RELEASES]


def facts(system: str, kind: dict[str, Any]) -> dict[str, Any]:
    """Facts as the module host_facts gathers them."""
    extra = {
        "addresses": ["192.0.2.11"], "disk_free_mb": {"/": 9000, "/var/lib": 9000}, "listening": [],
        "python": PYTHONS[system],
    }  # fmt: skip
    return {
        **host_facts.distribution(OS_RELEASES[system]),
        "architecture": "x86_64",
        "kernel": "6.1.0",
        "hostname": "node1",
        "nodename": "node1",
        "memtotal_mb": 8192,
        "swaptotal_mb": 0,
        "processor_vcpus": 2,
        "pkg_mgr": "dnf" if system == "rhel9" else "apt",
        "service_mgr": "systemd",
        "default_ipv4": {"interface": "eth0", "gateway": "192.0.2.1", "address": "192.0.2.11"},
        "deephdc": {**kind, **extra},
    }


@pytest.fixture(scope="session")
def testbed_hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `deep testbed up` adds to the site local: two hosts, the second with simulated GPUs."""
    folder = tmp_path_factory.mktemp("generated")
    content = {
        "all": {
            "hosts": {"node1": {"ansible_host": "198.18.0.11"}, "node2": {"ansible_host": "198.18.0.12"}},
            "children": {
                "kubernetes_control_plane": {"hosts": {"node1": {}}},
                **{
                    group: {"hosts": {"node1": {}}}
                    for group in ("pki", "registry", "iam", "oidc_proxy", "orchestrator")
                },
                "kubernetes_node": {"hosts": {"node2": {}}},
                "gpu_simulated": {"hosts": {"node2": {}}},
            },
        }
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(content))
    (folder / "group_vars").mkdir()
    (folder / "group_vars" / "all.yml").write_text("artifact_mirror: http://198.18.0.1:8480\n")
    return folder


@pytest.fixture(scope="session")
def rendered_site(testbed_hosts: Path) -> Callable[[str, str], SiteVariables]:
    """A site whose hosts have the facts of a system; read once for all tests."""

    @cache
    def read(site: str, system: str) -> SiteVariables:
        folders = [sites.inventories() / "common", sites.inventories() / site]
        folders += [testbed_hosts] if site == sites.TESTBED_SITE else []
        found = SiteVariables(folders, extra=dict.fromkeys(secrets.names(), "0" * 64))
        found.give_facts(facts(system, KINDS[site]))
        return found

    return read


def hosts_of(site: SiteVariables, role: str) -> list[str]:
    """Hosts that the site applies a role to, or else any: a template has to render wherever the role is put."""
    patterns = [pattern for pattern, name in plays(repo_root() / "playbooks" / "site.yml") if name == role]
    found = dict.fromkeys(host for pattern in patterns for host in site.hosts_of(pattern))
    return (list(found) or site.hosts[-1:])[:HOSTS_PER_SITE]


def registered(site: SiteVariables) -> dict[str, Any]:
    """What earlier tasks found out and templates read."""
    nodes = {host: {"pod_cidr": f"10.244.{i}.0/24", "address": f"192.0.2.{i}"} for i, host in enumerate(site.hosts)}
    invited = {"invitation": {"token": "a.b", "ca_hash": "sha256:0a", "certificate_key": "0b"}}
    database = {"databases": ["a"], "user": "a", "password": "b", "character_set": "utf8mb4", "settings": {"c": "1M"}}
    return {
        # What the roles with a container give to those parts of role common.
        "common_mariadb": {**database, "collation": "utf8mb4_bin"},
        "common_image": {"name": f"registry.test/a@sha256:{'0' * 64}", "folder": "/etc/a", "registry": {}},
        # For the part that the device plugin's manifest renders once for every way of sharing.
        "node": {"sharing": "time_slicing", "replicas": 4, "mig_strategy": "none", "profile": "time-slicing-4"},
        # A host of the site, as if it were an agent.
        "jenkins_host_keys": {"results": [{"item": site.hosts[0], "content": "c3NoLWVkMjU1MTkgQUFBQSBhCg=="}]},
        "kubernetes_network_cluster": {"nodes": nodes},
        "kubernetes_node_invited": invited,
        "kubernetes_control_plane_invited": invited,
    }


def templates() -> Iterator[tuple[str, str]]:
    """(role, path below its folder templates)."""
    for role in roles():
        folder = role_path(role) / "templates"
        for path in sorted(folder.rglob("*.j2")):
            yield role, str(path.relative_to(folder))


@pytest.mark.parametrize(("site", "system"), CASES)
@pytest.mark.parametrize(("role", "template"), list(templates()))
def test_template_renders_and_parses(
    rendered_site: Callable[[str, str], SiteVariables], role: str, template: str, site: str, system: str
) -> None:
    inventory = rendered_site(site, system)
    path = role_path(role) / "templates" / template
    for host in hosts_of(inventory, role):
        more = {"kubernetes_network_kind": NETWORKS[template]} if template in NETWORKS else {}
        variables = inventory.variables(host, role, {**registered(inventory), **more})
        text = inventory.render_file(path, variables)
        assert "{{" not in text
        assert "{%" not in text
        parse(template.removesuffix(".j2"), text)


def parse(name: str, text: str) -> None:
    """Read ``text`` as the kind of file that its name says."""
    suffix = Path(name).suffix
    if suffix in (".yml", ".yaml"):
        assert any(document for document in yaml.safe_load_all(text)), f"{name} is empty"
    elif suffix in (".json", ".conflist", ".fact"):
        json.loads(text)
    elif suffix == ".toml":
        assert tomllib.loads(text)
    elif suffix in (".service", ".timer", ".path"):
        read = configparser.RawConfigParser(strict=False, allow_no_value=True)
        read.optionxform = str  # type: ignore[assignment, method-assign]
        read.read_string(text)
        assert {"Unit", "Install"} <= set(read.sections())
    elif text.startswith("#!/bin/"):
        subprocess.run(["sh", "-n"], input=text, text=True, check=True, timeout=10)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "a: [1"), ("a.yml", ""), ("a.json", "{"), ("a.conflist", "{,}"), ("a.toml", "a = "), ("a.toml", ""),
        ("a.service", "[Unit]\n"), ("start", "#!/bin/sh\nif true; then\n"),
    ],
)  # fmt: skip
def test_unreadable_results_are_noticed(name: str, text: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 # each format has its own
        parse(name, text)


@pytest.mark.parametrize(("site", "system"), CASES)
@pytest.mark.parametrize("role", roles())
def test_variables_agree_with_argument_spec(
    rendered_site: Callable[[str, str], SiteVariables], role: str, site: str, system: str
) -> None:
    inventory = rendered_site(site, system)
    for host in hosts_of(inventory, role):
        variables = inventory.variables(host, role)
        for entry_point in ("main", "precheck"):
            assert inventory.argument_errors(role, entry_point, variables) == []


WRONG = {"int": "several", "bool": "perhaps", "dict": "words"}


@pytest.mark.parametrize("role", roles())
def test_wrong_type_is_refused(rendered_site: Callable[[str, str], SiteVariables], role: str) -> None:
    inventory = rendered_site("local", "debian12")
    variables = inventory.variables(hosts_of(inventory, role)[0], role)
    options = {name: option["type"] for name, option in argument_spec(role).items() if option["type"] in WRONG}
    assert options
    for name, kind in options.items():
        # Of what has suboptions more than one thing is said.
        errors = inventory.argument_errors(role, "main", {**variables, name: WRONG[kind]})
        assert any(name in error for error in errors), errors


@pytest.mark.parametrize("switches", [True, False])
@pytest.mark.parametrize("template", [template for role, template in templates() if role == "iam"])
def test_numbers_and_switches_of_the_iam_may_be_texts(
    rendered_site: Callable[[str, str], SiteVariables], template: str, switches: bool
) -> None:
    """--extra-vars gives texts: a number's would be repeated instead of multiplied, and "false" would be true."""
    inventory = rendered_site("local", "debian12")
    variables = inventory.variables("node1", "iam", registered(inventory))
    given = {name: option["type"] for name, option in argument_spec("iam").items() if option["type"] in ("int", "bool")}
    typed = {
        name: switches if kind == "bool" else inventory.render(variables[name], variables)
        for name, kind in given.items()
    }
    texts = {name: str(value).lower() for name, value in typed.items()}
    path = role_path("iam") / "templates" / template
    rendered = [inventory.render_file(path, {**variables, **values}) for values in (typed, texts)]
    assert rendered[0] == rendered[1]


def test_hosts_of_local_and_ifca_are_found(rendered_site: Callable[[str, str], SiteVariables]) -> None:
    assert rendered_site("local", "debian12").hosts == ["node1", "node2"]
    ifca = rendered_site("ifca", "rhel9")
    assert len(ifca.groups["kubernetes_control_plane"]) == 3
    assert len(ifca.groups["gpu_real"]) > 1


def test_missing_variable_is_unknown(rendered_site: Callable[[str, str], SiteVariables]) -> None:
    inventory = rendered_site("local", "debian12")
    template = inventory.trusted_yaml(role_path("kubernetes_network") / "defaults" / "main.yml")[
        "kubernetes_network_kind"
    ]
    assert isinstance(inventory.render(template, {}), Unknown)
    assert inventory.render(template, {"kubernetes_network_plugin": "bridge"}) == "bridge"


def common_files(inventory: SiteVariables) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """What restarts the unit of role common, and the files that it writes, by path."""
    more = {"common_authority": {"stdout": "CERTIFICATE"}}
    variables = inventory.variables(inventory.hosts[0], "common", more)
    tasks = inventory.trusted_yaml(role_path("common") / "tasks" / "configure.yml")
    (task,) = (task["deephdc.testbed.service"] for task in tasks if "deephdc.testbed.service" in task)
    entries = []
    for item in task["files"]:
        entry = {key: inventory.render(item[key], variables) for key in ("path", "wanted", "block") if key in item}
        if entry.get("wanted", True) and "lookup" not in item["content"]:
            entry["content"] = inventory.render(item["content"], variables)
        entries.append(entry)
    wanted = {item["path"]: item for item in entries if item.get("wanted", True)}
    return inventory.render(task["restart_after"], variables), wanted


@pytest.mark.parametrize("system", ["debian12", "rhel9"])
def test_what_common_writes_is_put_into_force_by_comparing(
    rendered_site: Callable[[str, str], SiteVariables], system: str
) -> None:
    """A notification is lost with the run that was to act on it; a unit older than its files is not."""
    restart_after, wanted = common_files(rendered_site("ifca", system))
    assert not (role_path("common") / "handlers").exists()
    in_force = {path for path in wanted if re.match(r"/etc/(sysctl|modules-load)[.]d/|.*[.](crt|service)$", path)}
    assert len(in_force) == 4
    assert set(restart_after) == in_force


@pytest.mark.parametrize("tasks", ["authority.yml", "sign.yml"])
def test_half_written_keys_are_made_again(tasks: str) -> None:
    text = (role_path("pki") / "tasks" / tasks).read_text(encoding="utf-8")
    assert "creates:" not in text, "a file that is there may be unreadable"
    assert "[openssl, pkey, -in, " in text


@pytest.mark.parametrize(
    ("system", "configuration", "folder"),
    [("debian12", "/etc/chrony/chrony.conf", None), ("rhel9", "/etc/chrony.conf", "/etc/chrony.d")],
)
def test_chrony_reads_the_time_servers_of_the_site(
    rendered_site: Callable[[str, str], SiteVariables], system: str, configuration: str, folder: str | None
) -> None:
    _, wanted = common_files(rendered_site("ifca", system))
    assert (configuration in wanted) == (folder is not None), "Debian's own file reads the folder already"
    if folder is not None:
        assert wanted[configuration]["content"] == f"sourcedir {folder}"
        assert wanted[configuration]["block"]
        assert f"{folder}/deephdc.sources" in wanted


def test_a_program_is_the_one_that_the_artefact_installs() -> None:
    paths = [
        role_path("containerd") / "vars" / "main.yml",
        role_path("kubernetes_node") / "templates/kubelet.service.j2",
    ]
    assert not [path for path in paths if "/usr/bin/" in path.read_text(encoding="utf-8")]
