"""What the role writes for the orchestrator is what the orchestrator takes, and what its prechecks refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deep_orchestrator.settings import InfrastructureManager, Settings
from deep_orchestrator.steps import Limits
from testbed.paths import repo_root
from testbed.rendering import SiteVariables, role_path
from testbed.site_check import prechecks

ROLE = "orchestrator"
SECRETS = {"iam_seed": "5" * 32, "registry_password": "7" * 32}
FACTS: dict[str, Any] = {
    "os_family": "Debian", "distribution": "Debian", "architecture": "x86_64",
    "deephdc": {"listening": [{"port": 8444, "program": "python3"}], "addresses": ["192.0.2.11"], "python": "3.11"},
}  # fmt: skip


@pytest.fixture
def inventory(tmp_path: Path) -> list[Path]:
    """The site local with one host that has the IAM and the orchestrator."""
    groups: dict[str, Any] = {name: {"hosts": {"node1": {}}} for name in ("pki", "iam", "orchestrator")}
    hosts = {"node1": {"ansible_host": "192.0.2.11"}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    return [repo_root() / "inventories" / "common", repo_root() / "inventories" / "local", tmp_path]


def site(inventory: list[Path], **settings: Any) -> SiteVariables:
    found = SiteVariables(inventory, extra={**SECRETS, **settings})
    found.give_facts({**FACTS, "deephdc": FACTS["deephdc"] | settings.pop("deephdc", {})})
    return found


def written(inventory: list[Path], **settings: Any) -> Settings:
    variables = site(inventory, **settings)
    path = role_path(ROLE) / "templates/embedded/settings.json.j2"
    return Settings.model_validate(json.loads(variables.render_file(path, variables.variables("node1", ROLE))))


def refusals(inventory: list[Path], **settings: Any) -> str:
    verdicts = list(prechecks(site(inventory, **settings), "node1", ROLE))
    assert verdicts, "nothing was checked"
    assert None not in verdicts, "a check could not be worked out"
    return "\n".join(str(problem) for verdict in verdicts for problem in verdict or [])


def test_the_settings_are_those_of_the_site(inventory: list[Path]) -> None:
    found = written(inventory)
    assert found.url == "https://orchestrator.deep.test:8444"
    assert found.database == "sqlite:////var/lib/deep-orchestrator/orchestrator.sqlite"
    assert found.identity.issuer == "https://iam.deep.test:8443/realms/deep"
    assert {one.name: sorted(one.readers) for one in found.identity.organisations} == {
        "imaging": ["imaging-readers"],
        "climate": ["climate-readers"],
    }
    assert found.callback_hosts == frozenset()
    # What the role leaves to the program is what the program would do without it.
    assert found.limits == Limits()


def test_its_own_site_is_where_it_deploys(inventory: list[Path], tmp_path: Path) -> None:
    assert written(inventory).sites == {}
    groups = ("pki", "iam", "kubernetes_control_plane", "infrastructure_manager", "cloud_info_provider", "orchestrator")
    hosts: dict[str, Any] = {"hosts": {"node1": {"ansible_host": "192.0.2.11"}}}
    hosts["children"] = {name: {"hosts": {"node1": {}}} for name in groups}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": hosts}))
    found = written(inventory).sites["local"]
    assert isinstance(found, InfrastructureManager)
    assert (found.url, found.kubernetes) == ("https://im.deep.test:8800", "https://192.0.2.11:6443")
    assert str(found.information.file) == "/var/lib/deephdc/cloud-info/local.json"
    assert refusals(inventory) == ""
    assert found.ingress_domain == ""
    hosts["children"]["kubernetes_ingress"] = {"hosts": {"node1": {}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": hosts}))
    brought = {"infrastructure_manager": {"certificate": "a", "key": "b"}}
    own = written(inventory, site_certificates=brought).sites["local"]
    assert isinstance(own, InfrastructureManager)
    assert str(own.authority) == "/etc/ssl/certs/ca-certificates.crt"
    found = written(inventory, iam_backend="indigo_iam").sites["local"]
    assert isinstance(found, InfrastructureManager)
    assert (found.ingress_domain, found.ingress_port) == ("{namespace}.modules.deep.test", 8445)
    hosts["children"]["cloud_info_provider"] = {}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": hosts}))
    assert "nothing is known of a site (found its information in a file that no host writes" in refusals(inventory)


def test_secrets_are_the_sites_and_differ(inventory: list[Path]) -> None:
    found, other = written(inventory).delegation, written(inventory, iam_seed="6" * 32).delegation
    assert found is not None
    assert other is not None
    assert len({found.secret, found.client_secret, other.secret, other.client_secret}) == 4


def test_a_site_may_have_a_database_and_an_issuer_of_its_own(inventory: list[Path]) -> None:
    url = "postgresql+psycopg://deep@db.example.org/deep"
    found = written(
        inventory, orchestrator_database=url, iam_issuer="https://login.example/", iam_issuer_authority="system"
    )
    assert (found.database, found.identity.issuer, found.identity.authority) == (url, "https://login.example/", None)


def test_a_site_may_have_limits_of_its_own(inventory: list[Path]) -> None:
    names = {"attempt_seconds": 600, "stuck_seconds": 30, "removal_seconds": 60, "sites_tried": 5}
    found = written(inventory, **{f"orchestrator_{name}": value for name, value in names.items()})
    assert found.limits == Limits(attempt=600, stuck=30, removal=60, sites=5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({"deephdc": {"python": "3.9"}}, "found 3.9, needed 3.11 or 3.13"),
        ({"deephdc": {"listening": [{"port": 8444, "program": "java"}]}}, "found java listening"),
        ({"iam_issuer": ""}, "nobody to ask who people are"),
        ({"site_organisations": []}, "found no organisation"),
        (
            {"orchestrator_attempt_seconds": 0, "orchestrator_sites_tried": -1},
            "found orchestrator_attempt_seconds, orchestrator_sites_tried of 0 or less",
        ),
        ({"orchestrator_secret": "short"}, "found a secret of 5 characters"),
    ],
)
def test_what_stands_in_the_way_is_said_before(inventory: list[Path], settings: dict[str, Any], said: str) -> None:
    found = refusals(inventory, **settings)
    assert said in found
    assert bool(found) == bool(said)
