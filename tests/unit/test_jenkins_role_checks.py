"""What is refused of Jenkins before anything is changed, at its host and at its agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.paths import repo_root
from testbed.rendering import SiteVariables, Unknown
from tests.unit.jenkins_site import AGENT, CONTROLLER, LOCK, ROLE, Hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path / "inventory")


def test_a_good_site_passes(hosts: Hosts) -> None:
    assert hosts.refusals(ROLE) == ""
    assert hosts.refusals("jenkins_agent") == ""
    assert hosts.refusals(ROLE, iam_backend="indigo_iam", iam_clients=[]) == "", "its clients are not in the inventory"


@pytest.mark.parametrize("version", ["main", "release/1.x", "v1.2.0", "a" * 40])
@pytest.mark.parametrize("address", ["https://git.example/a/b.git", "ssh://git@git.example:2222/~deep/a-b.git"])
def test_a_library_of_the_pipelines_passes(hosts: Hosts, address: str, version: str) -> None:
    assert hosts.refusals(ROLE, jenkins_library_repository=address, jenkins_library_version=version) == ""


SHORT = [{**one, "version": "1.0"} if one["name"] == "git" else one for one in LOCK]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"iam_issuer": ""}, "nobody to ask who people are"),
        ({"iam_issuer": "http://login.example"}, "nobody to ask who people are"),
        ({"iam_clients": []}, "the IAM does not know Jenkins (found clients (none)"),
        ({"site_ca_host": ""}, "nobody signs the certificate"),
        ({"iam_seed": "short"}, "too short"),
        ({"jenkins_client_secret": "secret"}, "too short"),
        ({"jenkins_admin_groups": []}, "nobody may administer"),
        ({"jenkins_developer_groups": ["authenticated"]}, "cannot have rights (found authenticated"),
        ({"jenkins_sync_groups": ["anonymous"]}, "cannot have rights (found anonymous"),
        ({"jenkins_admin_groups": ["${readFile:/etc/shadow}"]}, "cannot have rights"),
        ({"jenkins_developer_groups": ["administrators"]}, "has rights twice"),
        ({"jenkins_key_fingerprint": "7198F4B714ABFC68"}, "needed 40"),
        ({"jenkins_repository_url": "http://pkg.example"}, "cannot be fetched so"),
        ({"jenkins_plugins_url": "https://plugins.example/"}, "without a slash"),
        ({"jenkins_plugins": []}, "plugins are not locked (found 0"),
        ({"jenkins_plugins": SHORT}, "needed also git:5.10.1"),
        ({"jenkins_plugins": [*LOCK, {**LOCK[0], "name": "../../x"}]}, "the lock of the plugins is damaged"),
        ({"jenkins_plugins": [*LOCK, LOCK[0]]}, "a plugin twice"),
        ({"jenkins_plugins": [{**one, "sha256": "a"} for one in LOCK]}, "SHA-256 sum of each"),
        ({"jenkins_library_repository": "http://git.example/a"}, "library of the pipelines cannot be had so"),
        ({"jenkins_library_repository": "git@git.example:a/b.git"}, "needed an https or ssh address"),
        ({"jenkins_library_repository": "file:///srv/git/a"}, "found 'file:///srv/git/a'"),
        ({"jenkins_library_repository": "https://git.example"}, "found 'https://git.example'"),
        ({"jenkins_library_repository": "https://git.example/a\n"}, "library of the pipelines"),
        ({"jenkins_library_repository": "https://git.example/${oic_client_secret}"}, "library of the pipelines"),
        ({"jenkins_library_repository": "ssh://git@-oProxyCommand=id/a"}, "library of the pipelines"),
        ({"jenkins_library_repository": "https://me:word@git.example/a"}, "found 'https://...@git.example/a'"),
        ({"jenkins_library_repository": "ssh://me:word@git.example/a"}, "found 'ssh://...@git.example/a'"),
        ({"jenkins_library_repository": "https://git.example/a", "jenkins_library_version": ""}, "version ''"),
        ({"jenkins_library_repository": "https://git.example/a", "jenkins_library_version": "-u"}, "version '-u'"),
        ({"jenkins_nodes": []}, "found no host"),
        ({"jenkins_nodes": [CONTROLLER]}, "whose secrets builds could read"),
    ],
)
def test_a_wrong_inventory_is_refused(hosts: Hosts, settings: dict[str, Any], said: str) -> None:
    assert said in hosts.refusals(ROLE, **settings)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"distribution_major_version": "12", "distribution_version": "12"},
            "no Java for Jenkins in this distribution",
        ),
        ({"distribution": "Gentoo"}, "no Java for Jenkins in this distribution"),
        ({"memtotal_mb": 2000}, "too little memory"),
        ({"deephdc": {"listening": [{"port": 443, "program": "apache2"}]}}, "found apache2 on 443"),
        ({"deephdc": {"listening": [{"port": 8081, "program": "nginx"}]}}, "found nginx on 8081"),
        ({"deephdc": {"listening": [{"port": 443, "program": "nginx"}, {"port": 8081, "program": "java"}]}}, ""),
    ],
)
def test_an_unsuitable_controller_is_refused(hosts: Hosts, facts: dict[str, Any], said: str) -> None:
    found = hosts.refusals(ROLE, facts)
    assert said in found
    assert bool(said) == bool(found)


@pytest.mark.parametrize(
    ("facts", "settings", "said"),
    [
        ({}, {"jenkins_host": ""}, "nobody to build for"),
        ({}, {"jenkins_host": AGENT}, "nobody to build for"),
        ({}, {"group_names": ["jenkins_agents", "iam"]}, "keeps secrets of the site (found it in iam"),
        ({}, {"jenkins_node_account": "root"}, "builds cannot run so"),
        ({}, {"jenkins_node_home": "/"}, "builds cannot run so"),
        ({}, {"jenkins_node_home": "/home"}, "builds cannot run so"),
        ({"distribution_major_version": "12"}, {}, "no Java for agents"),
        ({"memtotal_mb": 1000}, {}, "too little memory to build"),
    ],
)
def test_an_unsuitable_agent_is_refused(
    hosts: Hosts, facts: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    assert said in hosts.refusals("jenkins_agent", facts, **settings)


def test_wrong_types_are_named(hosts: Hosts) -> None:
    site = hosts.site(jenkins_port="https", jenkins_plugins=[{"name": "git", "version": "1"}])
    errors = "\n".join(site.argument_errors(ROLE, "main", site.variables(CONTROLLER, ROLE)))
    assert "jenkins_port" in errors
    assert "missing required arguments: sha256 found in jenkins_plugins" in errors


def test_a_site_without_jenkins_needs_nothing_of_it(hosts: Hosts) -> None:
    (hosts.folder / "hosts.yml").write_text("all: {hosts: {a: {ansible_host: 192.0.2.1}}}\n")
    site = SiteVariables([repo_root() / "inventories" / "common", hosts.folder], extra={"site_domain": "a.test"})
    variables = site.variables("a", ROLE)
    assert site.groups["jenkins"] == site.groups["jenkins_agents"] == []
    assert site.render(variables["jenkins_host"], variables) == ""
    assert not isinstance(site.render(variables["jenkins_plugins"], variables), Unknown)
