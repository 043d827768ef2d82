"""The Infrastructure Manager's configuration as the role writes it, and what its prechecks refuse."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from deep_infrastructure_manager import settings
from testbed.paths import repo_root
from testbed.rendering import SiteVariables, role_path
from testbed.site_check import prechecks

ROLE = "infrastructure_manager"
SECRETS = {"iam_seed": "5" * 32}
FACTS: dict[str, Any] = {
    "os_family": "Debian", "distribution": "Debian", "architecture": "x86_64", "memtotal_mb": 4096,
    "deephdc": {"listening": [{"port": 8800, "program": "python3"}], "addresses": ["192.0.2.11"], "python": "3.11"},
}  # fmt: skip


@pytest.fixture
def inventory(tmp_path: Path) -> list[Path]:
    """The site local with one host that has everything."""
    names = ("pki", "iam", "kubernetes_control_plane", "infrastructure_manager")
    groups: dict[str, Any] = {name: {"hosts": {"node1": {}}} for name in names}
    hosts = {"node1": {"ansible_host": "192.0.2.11", "artifact_mirror": "https://192.0.2.1"}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    return [repo_root() / "inventories" / "common", repo_root() / "inventories" / "local", tmp_path]


def site(inventory: list[Path], **changes: Any) -> SiteVariables:
    found = SiteVariables(inventory, extra={**SECRETS, **changes})
    found.give_facts(FACTS)
    return found


def configuration(inventory: list[Path], **changes: Any) -> ConfigParser:
    variables = site(inventory, **changes)
    template = role_path(ROLE) / "templates" / "im.cfg.j2"
    parsed = ConfigParser()
    parsed.read_string(variables.render_file(template, variables.variables("node1", ROLE)))
    return parsed


def refusals(inventory: list[Path], **changes: Any) -> str:
    verdicts = list(prechecks(site(inventory, **changes), "node1", ROLE))
    assert verdicts, "nothing was checked"
    assert None not in verdicts, "a check could not be worked out"
    return "\n".join(str(problem) for verdict in verdicts for problem in verdict or [])


def test_the_guard_takes_what_the_role_writes(inventory: list[Path]) -> None:
    found = settings.read(configuration(inventory))
    assert found.groups == {"imaging", "climate"}
    assert found.sites == {("Kubernetes", "https://192.0.2.11:6443")}
    assert found.tosca_types == "/etc/deephdc/infrastructure-manager/types.yaml"


def test_signs_of_the_format_are_only_signs(inventory: list[Path]) -> None:
    found = settings.read(configuration(inventory, infrastructure_manager_groups=["50%(a)s", 'quo"ted']))
    assert found.groups == {"50%(a)s", 'quo"ted'}


@pytest.mark.parametrize(("python", "packed"), [("3.11", True), ("3.13", True), ("3.12", False)])
def test_each_python_gets_its_own_packages(
    inventory: list[Path], monkeypatch: pytest.MonkeyPatch, python: str, packed: bool
) -> None:
    monkeypatch.setitem(FACTS["deephdc"], "python", python)
    variables = site(inventory)
    known = variables.variables("node1", ROLE)
    found = variables.render(known["infrastructure_manager_artifact"], known)
    if packed:
        assert [(file["name"], file["unpack"]) for file in found["files"]] == [
            (f"python{python}.tar.gz", f"python{python}")
        ]
        assert refusals(inventory) == ""
    else:
        assert "found Debian with Python 3.12, needed 3.11 or 3.13" in refusals(inventory)


def test_a_good_host_passes(inventory: list[Path]) -> None:
    assert refusals(inventory) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"iam_issuer": ""}, "nobody to ask who people are"),
        ({"infrastructure_manager_issuer": "http://login.example"}, "nobody to ask who people are"),
        ({"site_organisations": []}, "nobody may use the Infrastructure Manager"),
        ({"infrastructure_manager_connectors": []}, "nowhere to deploy"),
        (
            {"infrastructure_manager_connectors": [{"type": "Kubernetes", "host": "http://api:6443"}]},
            "sites that credentials cannot be sent to (found http://api:6443",
        ),
        ({"infrastructure_manager_tosca_types": "/no/such/file"}, "no TOSCA types"),
        ({"infrastructure_manager_minimum_memory_mb": 9000}, "too little memory for the Infrastructure Manager"),
    ],
)
def test_what_cannot_work_is_refused(inventory: list[Path], changes: dict[str, Any], said: str) -> None:
    assert said in refusals(inventory, **changes)


def test_a_port_in_use_is_refused(inventory: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FACTS["deephdc"], "listening", [{"port": 8800, "program": "squatter"}])
    found = refusals(inventory)
    assert "port 8800 is in use (found squatter listening" in found
