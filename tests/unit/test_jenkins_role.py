"""Jenkins's configuration, units and proxy, as far as that goes without Jenkins; it is not exercised here."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.jenkins.jenkinsfile import validate
from pipelines.jenkins.jenkinsfile.syntax import credentials, syntax
from testbed.paths import repo_root
from testbed.rendering import role_path
from tests.unit.container_programs import (
    ask,
    certificate,
    free_port,
    need,
    nginx,
    service_of,
    something_behind,
    systemd_says,
)
from tests.unit.jenkins_site import AGENT, CONTROLLER, NEEDED, ROLE, SEED, Hosts
from tests.unit.jenkinsfile_samples import OURS, library, read

pytestmark = pytest.mark.usefixtures("distribution_programs")


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path / "inventory")


# --- configuration as code ---


def test_login_is_the_sites_own_and_nobody_has_a_password_of_jenkins(hosts: Hosts) -> None:
    jenkins = hosts.configuration()["jenkins"]
    (realm,) = jenkins["securityRealm"].items()
    assert realm[0] == "oic"
    assert realm[1]["clientId"] == "jenkins"
    assert realm[1]["serverConfiguration"]["wellKnown"] == {
        "wellKnownOpenIDConfigurationUrl": (
            "https://iam.site.example:8443/realms/deep/.well-known/openid-configuration"
        ),
        "scopesOverride": "openid profile",
    }
    assert (realm[1]["userNameField"], realm[1]["groupsFieldName"]) == ("preferred_username", "groups")
    assert realm[1]["disableSslVerification"] is False
    assert realm[1]["properties"] == ["pkce"], "among them would be an account beside the IAM (escapeHatch)"
    indigo = hosts.configuration(iam_backend="indigo_iam")["jenkins"]["securityRealm"]["oic"]["serverConfiguration"]
    where = indigo["wellKnown"]["wellKnownOpenIDConfigurationUrl"]
    assert where == "https://iam.site.example/.well-known/openid-configuration"


def rights(configuration: dict[str, Any]) -> dict[str, list[str]]:
    """Group -> what its members may do; nobody else is named."""
    (strategy,) = configuration["jenkins"]["authorizationStrategy"].items()
    assert strategy[0] == "globalMatrix"
    assert all(set(entry) == {"group"} for entry in strategy[1]["entries"])
    return {entry["group"]["name"]: entry["group"]["permissions"] for entry in strategy[1]["entries"]}


def test_strangers_and_people_without_a_group_may_do_nothing(hosts: Hosts) -> None:
    found = rights(hosts.configuration(jenkins_developer_groups=["imaging"], jenkins_sync_groups=["robots"]))
    assert set(found) == {"administrators", "imaging", "robots"}
    assert set(rights(hosts.configuration())) == {"administrators"}


def test_each_group_may_do_what_it_has_to(hosts: Hosts) -> None:
    found = rights(hosts.configuration(jenkins_developer_groups=["imaging"], jenkins_sync_groups=["robots"]))
    assert found["administrators"] == ["Overall/Administer"]
    changing = {"Job/Configure", "Job/Create", "Job/Delete", "Run/Replay", "Run/Update", "Credentials/View"}
    assert not set(found["imaging"]) & changing
    assert {"Job/Build", "Job/Read", "Overall/Read"} <= set(found["imaging"])
    assert {"Job/Create", "Job/Configure", "Job/Delete", "Overall/Read"} <= set(found["robots"])
    others = found["imaging"] + found["robots"]
    assert not [right for right in others if right.split("/")[0] in {"Agent", "Credentials"} or "Administer" in right]


def test_nothing_is_built_on_the_controller_and_no_agent_comes_by_itself(hosts: Hosts) -> None:
    jenkins = hosts.configuration()["jenkins"]
    assert (jenkins["numExecutors"], jenkins["mode"], jenkins["slaveAgentPort"]) == (0, "EXCLUSIVE", -1)
    assert jenkins["crumbIssuer"] == {"standard": {"excludeClientIPFromCrumb": False}}
    assert "remotingSecurity" not in jenkins, "it cannot be switched off, and newer releases know no such setting"


def test_agents_are_reached_by_a_key_and_known_beforehand(hosts: Hosts) -> None:
    found = hosts.configuration()
    (node,) = (entry["permanent"] for entry in found["jenkins"]["nodes"])
    assert (node["name"], node["remoteFS"], node["numExecutors"]) == (AGENT, "/var/lib/jenkins-agent", 2)
    launcher = node["launcher"]["ssh"]
    assert (launcher["host"], launcher["port"], launcher["credentialsId"]) == ("192.0.2.12", 22, "agents")
    (strategy,) = launcher["sshHostKeyVerificationStrategy"].items()
    assert strategy == (
        "manuallyProvidedKeyVerificationStrategy",
        {"key": " ".join(hosts.key("host").read_text().split()[:2])},
    )
    (credential,) = found["credentials"]["system"]["domainCredentials"][0]["credentials"]
    assert credential["basicSSHUserPrivateKey"]["scope"] == "SYSTEM"
    assert hosts.configuration(jenkins_host_keys={"results": []})["jenkins"]["nodes"] == []


def test_secrets_are_in_files_that_the_configuration_names(hosts: Hosts) -> None:
    text = hosts.rendered("jenkins.yaml.j2")
    named = set(re.findall(r"\$\{(\w+)\}", text))
    tasks = "".join((role_path(ROLE) / "tasks" / f"{name}.yml").read_text() for name in ("agents", "service"))
    assert named == {"oic_client_secret", "agent_key"}
    assert not [name for name in named if f"}}}}/secrets/{name}" not in tasks]
    site = hosts.site()
    variables = site.variables(CONTROLLER, ROLE)
    secret = site.render(variables["jenkins_client_secret"], variables)
    written = [hosts.rendered(path.name) for path in (role_path(ROLE) / "templates").glob("*.j2")]
    assert len(secret) == 40
    assert not [one for one in written if secret in one or SEED in one]


def test_what_is_not_known_is_an_error(hosts: Hosts) -> None:
    site = hosts.site()
    with pytest.raises(Exception, match="jenkins_host_keys"):
        site.render_file(role_path(ROLE) / "templates" / "jenkins.yaml.j2", site.variables(CONTROLLER, ROLE))


# --- what the pipelines need ---

# What brings a kind of credentials; that of secret files comes with their bindings.
KEEPERS = {"ssh key": "ssh-credentials", "secret file": "credentials-binding"}


def wanted() -> set[str]:
    """The plug-ins of what our pipelines and their library call, beside those that Pipeline consists of."""
    known = syntax()
    parts = (known.steps, known.options, known.triggers, known.parameters, known.when, known.agents, known.values)
    trees = [*(read()[path.name] for path in OURS), *library()]
    called = {node.name for tree in trees for node in tree.walk() if node.is_call()}
    found = {part[name].plugin for part in parts for name in called & set(part)} - {""}
    return found | ({"credentials-binding"} if "credentials" in called else set())


def test_every_plugin_that_the_pipelines_need_is_asked_for() -> None:
    asked = {one["artifactId"] for one in NEEDED}
    assert {"junit", "timestamper", "warnings-ng"} <= wanted(), "the trees were not read"
    assert wanted() <= asked
    assert "workflow-aggregator" in asked, "it brings all of Pipeline"
    assert {KEEPERS[one.kind] for one in credentials().values()} <= asked


def test_the_page_of_the_jenkinsfiles_names_these_plugins() -> None:
    text = (repo_root() / "docs" / "jenkinsfiles.md").read_text()
    table = text.split("| Plug-in | For |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([\w-]+)`", table, flags=re.MULTILINE)) == wanted()


REPOSITORY = "https://git.example.org/deep/deep-testbed.git"


def test_the_library_is_that_of_the_pipelines_and_of_one_version(hosts: Hosts) -> None:
    found = hosts.configuration(jenkins_library_repository=REPOSITORY, jenkins_library_version="v1.2.0")
    assert "globalLibraries" not in found["unclassified"], "that one is trusted, and runs outside the sandbox"
    (one,) = found["unclassified"]["globalUntrustedLibraries"]["libraries"]
    assert (one["name"], one["defaultVersion"]) == (validate.LIBRARY_NAME, "v1.2.0")
    assert one["allowVersionOverride"] is False
    place = one["retriever"]["modernSCM"]
    assert repo_root() / place["libraryPath"] == validate.LIBRARY
    assert place["scm"]["git"]["remote"] == REPOSITORY
    default = hosts.configuration(jenkins_library_repository=REPOSITORY)["unclassified"]["globalUntrustedLibraries"]
    assert default["libraries"][0]["defaultVersion"] == "main"


def test_without_an_address_there_is_no_library_nor_one_left_of_before(hosts: Hosts) -> None:
    assert hosts.configuration()["unclassified"]["globalUntrustedLibraries"] == {"libraries": []}


def test_the_controller_has_what_fetches_the_library(hosts: Hosts) -> None:
    site = hosts.site()
    variables = site.variables(CONTROLLER, ROLE)
    assert "git" in site.render(variables["jenkins_packages"], variables)


# --- units and proxy ---


def test_systemd_accepts_the_units(hosts: Hosts, tmp_path: Path) -> None:
    vendors = "[Unit]\nDescription=Jenkins\n[Service]\nType=notify\nExecStart=/usr/bin/jenkins\nUser=root\n"
    dropin = vendors + hosts.rendered("service.conf.j2")
    assert systemd_says(dropin, tmp_path) == []
    assert systemd_says(hosts.rendered("proxy.service.j2"), tmp_path) == []
    assert systemd_says(dropin.replace("ProtectSystem=", "ProtectSystme="), tmp_path)


def test_jenkins_is_alone_on_the_loopback_address_and_may_do_little(hosts: Hosts) -> None:
    text = hosts.rendered("service.conf.j2")
    service = service_of(text)
    assert service["ProtectSystem"] == "strict"
    assert (service["CapabilityBoundingSet"], service["NoNewPrivileges"]) == ("", "true")
    environment = dict(re.findall(r'^Environment="(\w+)=(.*)"$', text, flags=re.MULTILINE))
    assert (environment["JENKINS_LISTEN_ADDRESS"], environment["JENKINS_PORT"]) == ("127.0.0.1", "8081")
    assert "-Djenkins.install.runSetupWizard=false" in environment["JAVA_OPTS"].split()
    assert environment["CASC_JENKINS_CONFIG"] == "/etc/deephdc/jenkins/casc"
    assert environment["SECRETS"] == "/etc/deephdc/jenkins/secrets"


@pytest.fixture
def door(hosts: Hosts, tmp_path: Path) -> Iterator[int]:
    """Nginx with the site's server before something that answers; its port."""
    certificate(tmp_path / "proxy", "jenkins.site.example")
    port = free_port()
    with something_behind() as behind:
        own = hosts.rendered(
            "server.conf.j2",
            jenkins_folder=str(tmp_path), jenkins_address="127.0.0.1", jenkins_port=port, jenkins_local_port=behind,
        )  # fmt: skip
        with nginx(tmp_path, own, port):
            yield port


def test_what_a_client_says_of_itself_is_not_believed(door: int) -> None:
    forged = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-For": "192.0.2.99",
              "X-Forwarded-Proto": "http", "Forwarded": "host=evil.example"}  # fmt: skip
    status, got = ask(door, "/job/a/", {**forged, "Authorization": "Basic YTpi"})
    assert (status, got["path"]) == (200, "/job/a/")
    headers = got["headers"]
    assert "evil.example" not in str(headers)
    assert headers["host"] == headers["x-forwarded-host"] == f"jenkins.site.example:{door}"
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("127.0.0.1", "https")
    assert headers["authorization"] == "Basic YTpi", "programs log in with tokens of Jenkins"


def test_nginx_accepts_its_whole_configuration(hosts: Hosts, tmp_path: Path) -> None:
    certificate(tmp_path / "proxy", "jenkins.site.example")
    given = {"jenkins_folder": str(tmp_path), "jenkins_address": "127.0.0.1", "jenkins_port": free_port()}
    (tmp_path / "server.conf").write_text(hosts.rendered("server.conf.j2", **given))
    text = hosts.rendered("nginx.conf.j2", **given, jenkins_proxy_user="root")
    (tmp_path / "nginx.conf").write_text(text.replace("/run/deephdc-jenkins-proxy", str(tmp_path)))
    argv = [need("nginx"), "-e", "stderr", "-c", str(tmp_path / "nginx.conf"), "-t"]
    assert subprocess.run(argv, capture_output=True, text=True, check=False).returncode == 0
