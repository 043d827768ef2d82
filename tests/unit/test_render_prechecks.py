"""Each thing that can stand in the way is refused by a precheck: host, value found, value needed, next step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.module_utils.artifact_spec import Declarations, Site, specification
from testbed.paths import repo_root
from testbed.rendering import SiteVariables, role_path
from testbed.site_check import prechecks

ROLES = (
    "cloud_info_provider",
    "common",
    "containerd",
    "registry",
    "kubernetes_control_plane",
    "kubernetes_organisations",
    "kubernetes_ingress",
    "kubernetes_node",
    "kubernetes_network",
)
FACTS: dict[str, Any] = {
    "distribution": "Debian",
    "distribution_version": "12",
    "distribution_major_version": "12",
    "os_family": "Debian",
    "architecture": "x86_64",
    "kernel": "6.1.0",
    "memtotal_mb": 8192,
    "swaptotal_mb": 0,
    "service_mgr": "systemd",
    "deephdc": {
        "cgroup_version": 2,
        "python": "3.11",
        "kernel_modules": True,
        "bridge_netfilter": True,
        "conntrack_settable": True,
        "capabilities": ["sys_time", "sys_resource"],
        "resolver_file": "/etc/resolv.conf",
        "addresses": ["192.0.2.11", "192.0.2.12"],
        "disk_free_mb": {"/": 9000, "/var/lib": 9000},
        "listening": [{"port": 6443, "address": "::", "protocol": "tcp6", "pid": 1, "program": "kube-apiserver"}],
    },
}
MIRROR = Site(["mirror"], "https://192.0.2.1", "/opt/deephdc", "x86_64")
SECRET = "0123456789abcdef"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Two hosts of the site local, as `deep testbed up` writes them."""
    groups: dict[str, Any] = {
        "kubernetes_control_plane": {"hosts": {"node1": {}}},
        "pki": {"hosts": {"node1": {}}},
        "registry": {"hosts": {"node1": {}}},
        "oidc_proxy": {"hosts": {"node1": {}}},
        "kubernetes_node": {"hosts": {"node2": {}}},
    }
    hosts = {"node1": {"ansible_host": "192.0.2.11"}, "node2": {"ansible_host": "192.0.2.12"}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text("artifact_mirror: https://192.0.2.1\n")
    return tmp_path


def role_vars() -> dict[str, Any]:
    """What the roles set for themselves, which no site can change."""
    paths = [path for role in ROLES if (path := role_path(role) / "vars" / "main.yml").is_file()]
    content = [item for path in paths for item in yaml.safe_load(path.read_text()).items()]
    return {name: value for name, value in content if "{{" not in str(value)}


def refusals(inventory: Path, role: str, host: str, facts: dict[str, Any] | None = None, **settings: Any) -> str:
    """What the prechecks of a role say against a host, with its advice; empty when they let it pass."""
    folders = [repo_root() / "inventories" / "common", repo_root() / "inventories" / "local", inventory]
    extra = {"registry_password": SECRET, "kubernetes_control_plane_first": "node1", **role_vars(), **settings}
    variables = SiteVariables(folders, extra=extra)
    variables.give_facts(facts or FACTS)
    verdicts = list(prechecks(variables, host, role))
    assert verdicts, "nothing was checked"
    assert None not in verdicts, "a check could not be worked out"
    problems = [problem for verdict in verdicts for problem in verdict or []]
    for problem in problems:
        assert problem["host"] == host
        assert problem["next_step"], problem
        assert "found" in problem["message"] or problem["found"], problem
        assert "needed" in problem["message"] or problem["needed"], problem
    return "\n".join(str(problem) for problem in problems)


def changed(*path: str, value: Any) -> dict[str, Any]:
    """The facts with one of them replaced."""
    facts = copy.deepcopy(FACTS)
    place = facts
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return facts


def listening(port: int, program: str) -> dict[str, Any]:
    row = {"port": port, "address": "0.0.0.0", "protocol": "tcp", "pid": 7, "program": program}
    return changed("deephdc", "listening", value=[row])


@pytest.mark.parametrize("role", ROLES)
def test_a_good_host_passes(inventory: Path, role: str) -> None:
    assert refusals(inventory, role, "node1") == ""


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (changed("distribution_major_version", value="10"), "unsupported distribution"),
        (changed("architecture", value="riscv64"), "unsupported processor"),
        (changed("service_mgr", value="unknown"), "not managed by systemd"),
        (changed("memtotal_mb", value=512), "too little memory"),
        (changed("deephdc", "disk_free_mb", "/var/lib", value=100), "too little free disk space"),
        (changed("deephdc", "addresses", value=["192.0.2.99"]), "not one of its own"),
    ],
)
def test_an_unsuitable_host_is_refused(inventory: Path, facts: dict[str, Any], said: str) -> None:
    assert said in refusals(inventory, "common", "node1", facts)


@pytest.mark.parametrize(
    ("host", "facts", "settings", "said"),
    [
        ("node2", None, {}, "cannot be looked at from here"),
        ("node1", changed("deephdc", "python", value="3.9"), {}, "does not run with this Python (found '3.9'"),
        ("node1", None, {"cloud_info_provider_validity": 90}, "stale before it is replaced (found 90 s"),
        (
            "node1",
            None,
            {"cloud_info_provider_agreements": [{"organisation": "a"}, {"organisation": "a"}]},
            "several agreements (found a, a",
        ),
    ],
)
def test_a_site_that_cannot_be_published_is_refused(
    inventory: Path, host: str, facts: Any, settings: dict[str, Any], said: str
) -> None:
    assert said in refusals(inventory, "cloud_info_provider", host, facts, **settings)


@pytest.mark.parametrize(
    ("host", "facts", "settings", "said"),
    [
        ("node2", None, {}, "gets no token here"),
        ("node1", listening(443, "nginx"), {}, "found nginx listening on 443"),
        ("node1", listening(443, "skipper"), {}, ""),
        ("node1", None, {"site_organisations": []}, "nobody may publish anything"),
        ("node1", None, {"modules_domain": "*.x"}, "nothing can be published under this domain (found '*.x'"),
        ("node1", None, {"iam_host": "node1", "iam_endpoint": "i.test:443"}, "login page listens on the same port"),
        ("node1", None, {"oidc_proxy_sites": [{"name": "a", "port": 443}]}, "login page listens on the same port"),
        ("node1", None, {"iam_host": "node2", "iam_endpoint": "i.test:443"}, ""),
    ],
)
def test_a_host_that_cannot_publish_is_refused(
    inventory: Path, host: str, facts: Any, settings: dict[str, Any], said: str
) -> None:
    found = refusals(inventory, "kubernetes_ingress", host, facts, **settings)
    assert said in found
    assert bool(said) is bool(found)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"site_domain": "no domain"}, "no usable name or domain"),
        ({"node_address": "gpu01.example.test"}, "not an IPv4 address"),
        ({"site_ca_host": "stranger"}, "not in the inventory"),
        ({"site_ca_host": ""}, "nobody signs"),
    ],
)
def test_a_wrong_inventory_is_refused(inventory: Path, settings: dict[str, Any], said: str) -> None:
    assert said in refusals(inventory, "common", "node1", **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"artifact_mirror": "http://192.0.2.1"}, "found artifact_mirror http://192.0.2.1 and no artifact_checksums"),
        ({"artifact_mirror": "http://192.0.2.1", "artifact_checksums": str(repo_root() / "artifacts")}, ""),
        ({"artifact_mirror": "http://192.0.2.1", "artifact_sources": ["upstream", "package"]}, ""),
        ({"artifact_mirror": "file:///mnt/mirror"}, ""),
        ({"artifact_checksums": "/absent"}, "found no folder '/absent'"),
    ],
)
def test_a_mirror_is_believed_only_where_it_cannot_be_exchanged(
    inventory: Path, settings: dict[str, Any], said: str
) -> None:
    found = refusals(inventory, "common", "node1", **settings)
    assert said in found
    assert bool(said) == bool(found)


def test_a_missing_variable_is_named_with_what_to_do() -> None:
    defaults = yaml.safe_load((role_path("common") / "defaults" / "main.yml").read_text())
    for name in ("site_name", "site_domain"):
        assert f"mandatory('{name} is not set" in defaults[f"common_{name}"]
        assert "Next: " in defaults[f"common_{name}"]


def test_a_value_of_the_wrong_type_is_refused(inventory: Path) -> None:
    folders = [repo_root() / "inventories" / "common", repo_root() / "inventories" / "local", inventory]
    variables = SiteVariables(folders, extra={"registry_password": SECRET, "common_minimum_memory_mb": "much"})
    variables.give_facts(FACTS)
    errors = variables.argument_errors("common", "precheck", variables.variables("node1", "common"))
    assert any("common_minimum_memory_mb" in error and "int" in error for error in errors)


def test_an_even_quorum_is_refused(inventory: Path) -> None:
    settings: dict[str, Any] = {
        "kubernetes_control_plane_hosts": ["node1", "node2"],
        "kubernetes_control_plane_endpoint": "api.test:6443",
    }
    said = refusals(inventory, "kubernetes_control_plane", "node1", **settings)
    assert "found 2 control planes: node1, node2; needed an odd number" in said


def test_several_control_planes_need_an_address_of_their_own(inventory: Path) -> None:
    hosts = ["node1", "node2", "node3"]
    said = refusals(inventory, "kubernetes_control_plane", "node1", kubernetes_control_plane_hosts=hosts)
    assert "load balancer" in said


@pytest.mark.parametrize(
    ("role", "port"),
    [
        ("kubernetes_control_plane", 6443),
        ("kubernetes_control_plane", 2379),
        ("kubernetes_node", 10250),
        ("registry", 5000),
    ],
)
def test_a_port_in_use_by_another_program_is_refused(inventory: Path, role: str, port: int) -> None:
    said = refusals(inventory, role, "node1", listening(port, "squatter"))
    assert "squatter" in said
    assert str(port) in said


@pytest.mark.parametrize(
    ("role", "port", "program"),
    [
        ("kubernetes_control_plane", 10257, "kube-controller"),
        ("kubernetes_node", 10250, "kubelet"),
        ("registry", 5000, "docker-registry"),
    ],
)
def test_a_port_in_use_by_its_own_program_is_fine(inventory: Path, role: str, port: int, program: str) -> None:
    assert refusals(inventory, role, "node1", listening(port, program)) == ""


def test_swap_is_refused_unless_the_site_allows_it(inventory: Path) -> None:
    facts = changed("swaptotal_mb", value=2048)
    assert "has swap" in refusals(inventory, "kubernetes_node", "node1", facts, kubernetes_swap_allowed=False)
    assert refusals(inventory, "kubernetes_node", "node1", facts, kubernetes_swap_allowed=True) == ""


def test_an_old_kernel_is_refused(inventory: Path) -> None:
    assert "kernel is too old" in refusals(inventory, "containerd", "node1", changed("kernel", value="4.18.0-553.el8"))


def test_a_short_password_is_refused(inventory: Path) -> None:
    assert "no usable password" in refusals(inventory, "containerd", "node1", registry_password="short")
    assert "too short" in refusals(inventory, "registry", "node1", registry_password="short")


def test_a_control_plane_needs_memory(inventory: Path) -> None:
    facts = changed("memtotal_mb", value=1024)
    assert "too little memory for a control plane" in refusals(inventory, "kubernetes_control_plane", "node1", facts)


@pytest.mark.parametrize(
    ("role", "settings", "said"),
    [
        ("control_plane", {"site_organisations": [{"name": "kube-vo"}]}, "namespace of the system"),
        ("control_plane", {"iam_issuer": "https://idp.test", "iam_prefix": "system:"}, "of the cluster's own"),
        (
            "control_plane",
            {"kubernetes_control_plane_abac_rules": [{"group": "oidc:a", "resource": "pods", "readonly": True}]},
            "readonly pods",
        ),
        ("control_plane", {"kubernetes_control_plane_abac_resources": {"": ["*"]}}, "writing *"),
        ("control_plane", {"kubernetes_control_plane_audiences": "kubernetes"}, 'audiences "kubernetes"'),
        ("control_plane", {"site_organisations": [{"name": "vo", "members": ["a", True]}]}, 'members: ["a", true]'),
        ("control_plane", {"kubernetes_control_plane_group_prefix": "idp:"}, "no issuer knows the groups"),
        ("organisations", {"site_organisations": [{"name": "vo", "quota": {"pods": "many"}}]}, "no usable quota"),
        (
            "organisations",
            {"kubernetes_organisations_there": {"stdout": '{"items": [{"metadata": {"name": "climate"}}]}'}},
            "found climate without label",
        ),
    ],
)
def test_rights_that_open_too_much_are_refused(inventory: Path, role: str, settings: dict[str, Any], said: str) -> None:
    assert said in refusals(inventory, f"kubernetes_{role}", "node1", **{"iam_issuer": "https://idp.test", **settings})


LOCAL_CLIENT = {"name": "own", "kind": "confidential", "flows": ["code"], "redirect_uris": ["https://a.test/back"]}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"iam_users": [{"name": "Someone"}]}, "cannot be called so"),
        ({"iam_users": [{"name": "one"}, {"name": "one"}]}, "declared twice"),
        ({"iam_users": [{"name": "one", "groups": ["nobody-declares"]}]}, "groups that nobody declares"),
        ({"iam_clients": [{**LOCAL_CLIENT, "name": "admin-cli"}]}, "Keycloak's own"),
        ({"iam_clients": [{**LOCAL_CLIENT, "scopes": ["unheard"]}]}, "services that nobody declares"),
        ({"iam_clients": [{**LOCAL_CLIENT, "redirect_uris": ["*"]}]}, "sent anywhere"),
        ({"iam_clients": [{**LOCAL_CLIENT, "redirect_uris": ["http://a.test/back"]}]}, "sent anywhere"),
        ({"iam_clients": [{**LOCAL_CLIENT, "redirect_uris": ["https://*.test/back"]}]}, "sent anywhere"),
        ({"iam_clients": [{**LOCAL_CLIENT, "flows": ["password"]}], "iam_password_login": False}, "take passwords"),
        # As --extra-vars gives it.
        ({"iam_clients": [{**LOCAL_CLIENT, "flows": ["password"]}], "iam_password_login": "false"}, "take passwords"),
        *(
            ({"iam_clients": [{"name": "own", "kind": "public", "flows": ["device", flow]}]}, "log in as a service")
            for flow in ("service", "exchange")
        ),
        ({"iam_clients": [{"name": "own", "kind": "confidential", "flows": ["service", "exchange"]}]}, ""),
        ({"iam_more_groups": ["guests/administrators"]}, "a group cannot be called so"),
        ({"iam_seed": "short"}, "too short"),
        ({"iam_clients": [LOCAL_CLIENT]}, ""),
    ],
)
def test_what_an_iam_is_told_has_to_fit(inventory: Path, settings: dict[str, Any], said: str) -> None:
    secrets = dict.fromkeys(("iam_admin_secret", "iam_database_password", "iam_seed"), "0" * 64)
    found = refusals(inventory, "iam", "node1", **{**secrets, **settings})
    assert said in found
    assert bool(said) == bool(found)


def test_calico_needs_a_verified_manifest(inventory: Path) -> None:
    said = refusals(inventory, "kubernetes_network", "node1", kubernetes_network_plugin="calico")
    assert "cannot be verified" in said
    assert "/calico.yaml)" in said
    known: dict[str, Any] = {
        "kubernetes_network_plugin": "calico",
        "kubernetes_network_calico_sha256": "a" * 64,
        "artifact_sources": ["upstream", "package"],
    }
    assert refusals(inventory, "kubernetes_network", "node1", **known) == ""


@pytest.mark.parametrize("plugin", ["flannel", "calico"])
def test_a_site_without_upstream_has_the_images_of_its_network_in_its_registry(inventory: Path, plugin: str) -> None:
    settings: dict[str, Any] = {"kubernetes_network_plugin": plugin, "kubernetes_network_calico_sha256": "a" * 64}
    upstream = {image["upstream"] for image in specification(Declarations(), plugin, MIRROR)["images"]}
    for repository in ("", "ghcr.example/flannel-io", "registry.deep.test:50000/x"):
        wrong = {**settings, "kubernetes_network_image_repository": repository}
        said = refusals(inventory, "kubernetes_network", "node1", **wrong)
        assert f"kubernetes_network_image_repository '{repository}'" in said
        assert upstream
        assert all(f"{image}:v" in said for image in upstream)
        assert "to registry.deep.test:5000/NAME" in said
    settings["kubernetes_network_image_repository"] = "registry.deep.test:5000/network"
    assert refusals(inventory, "kubernetes_network", "node1", **settings) == ""


def test_a_registry_needs_a_distribution_that_has_one(inventory: Path) -> None:
    facts = {**FACTS, "os_family": "RedHat", "distribution": "Rocky"}
    assert "no registry for this distribution" in refusals(inventory, "registry", "node1", facts)
