"""The site's Jenkins: who gets in, what runs, whether agents are there. Written from documentation, never run here."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from testbed.at_address import AtAddress
from tests.acceptance.probes.site import Site

HOME = "/var/lib/jenkins"
REFUSED = {401, 403}


@pytest.fixture
def jenkins(site: Site, host: Any, hostname: str) -> Iterator[httpx.Client]:
    """A client that reaches Jenkins by its host's address and checks its certificate for its own name."""
    endpoint = str(site.value(hostname, "jenkins_endpoint"))
    trust = ssl.create_default_context(cadata=host.file("/etc/deephdc/jenkins/proxy/ca.crt").content_string)
    transport = AtAddress({endpoint.rpartition(":")[0]: site.address(hostname)}, trust)
    with httpx.Client(base_url=f"https://{endpoint}", transport=transport, timeout=30) as client:
        yield client


@pytest.mark.group("jenkins")
def test_the_declared_version_answers_over_verified_tls(site: Site, jenkins: httpx.Client, hostname: str) -> None:
    """The certificate is right for the name, and the running version is the declared one."""
    answer = jenkins.get("/login")
    assert answer.headers["X-Jenkins"] == site.value(hostname, "jenkins_artifact")["version"]


@pytest.mark.group("jenkins")
def test_strangers_see_nothing(jenkins: httpx.Client) -> None:
    """Without a login there is neither a page nor an answer of the API."""
    paths = ("/", "/api/json", "/view/all/", "/computer/api/json", "/manage/", "/script", "/asynchPeople/api/json")
    found = {path: jenkins.get(path).status_code for path in paths}
    assert set(found.values()) <= REFUSED, found


@pytest.mark.group("jenkins")
def test_the_api_wants_a_token_that_jenkins_gave(jenkins: httpx.Client) -> None:
    """Made-up tokens, and passwords that are tried first, open nothing."""
    for user in (("admin", "admin"), ("admin", "11" + "0" * 32), ("jenkins", "jenkins")):
        assert jenkins.get("/api/json", auth=user).status_code in REFUSED, user[0]
    assert jenkins.post("/createItem?name=acceptance", content="<project/>").status_code in REFUSED


@pytest.mark.group("jenkins")
def test_the_login_is_that_of_the_iam(site: Site, jenkins: httpx.Client, hostname: str) -> None:
    """Whoever wants to log in is sent to the site's issuer, with the site's client and PKCE."""
    sent = httpx.URL(jenkins.get("/securityRealm/commenceLogin").headers["Location"])
    assert sent.host == httpx.URL(str(site.value(hostname, "jenkins_issuer"))).host
    assert {"code_challenge", "state", "nonce"} <= set(sent.params)
    assert sent.params["client_id"] == site.value(hostname, "jenkins_client")


@pytest.mark.group("jenkins")
def test_there_is_no_wizard_and_no_first_administrator(host: Any, jenkins: httpx.Client) -> None:
    """Nobody can set Jenkins up a second time, with a password from a file."""
    assert not host.file(f"{HOME}/secrets/initialAdminPassword").exists
    assert "initialAdminPassword" not in jenkins.get("/login").text
    assert jenkins.get("/setupWizard/").status_code in {403, 404}


@pytest.mark.group("jenkins")
def test_plugins_are_those_of_the_lock(site: Site, host: Any, hostname: str) -> None:
    """Each plugin is there with the hash of the lock, and no other."""
    done = host.run(f"cd {HOME}/plugins && sha256sum ./*.jpi")
    found = {line.split("/")[-1].removesuffix(".jpi"): line.split()[0] for line in done.stdout.splitlines()}
    assert found == {one["name"]: one["sha256"] for one in site.value(hostname, "jenkins_plugins")}


@pytest.mark.group("jenkins")
def test_it_runs_as_nobody_of_importance(host: Any) -> None:
    """The service has an account of its own without capabilities, and its secrets are closed to others."""
    process = host.run("systemctl show jenkins --property=MainPID --value").stdout.strip()
    status = host.run(f"cat /proc/{process}/status").stdout
    assert host.run(f"stat --format=%U /proc/{process}").stdout.strip() == "jenkins"
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    for name, expected in {"agent_key": ("jenkins", "0o600"), "oic_client_secret": ("root", "0o640")}.items():
        secret = host.file(f"/etc/deephdc/jenkins/secrets/{name}")
        assert (secret.user, oct(secret.mode), secret.group) == (*expected, "jenkins"), name


@pytest.mark.group("jenkins_agents")
def test_the_agent_is_connected(site: Site, host: Any, hostname: str) -> None:
    """Jenkins has logged in and runs its program there, under the account that builds have."""
    account = site.value(hostname, "jenkins_agent_user")
    assert host.run(f"pgrep --uid {account} --full remoting.jar").rc == 0, f"{hostname}: Jenkins is not connected"


@pytest.mark.group("jenkins_agents")
def test_builds_cannot_let_anybody_in(site: Site, host: Any, hostname: str) -> None:
    """The only key is that of Jenkins, from its address, in a file that builds cannot change; and none becomes root."""
    account, home = site.value(hostname, "jenkins_agent_user"), site.value(hostname, "jenkins_agent_folder")
    keys = host.file(f"{home}/.ssh/authorized_keys")
    assert (keys.user, oct(keys.mode), host.file(f"{home}/.ssh").user) == ("root", "0o644", "root")
    (line,) = keys.content_string.splitlines()
    assert line.startswith('restrict,from="')
    assert host.run(f"runuser -u {account} -- sudo -n true").rc != 0
