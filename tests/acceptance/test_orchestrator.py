"""The PaaS orchestrator knows people by the site's IAM, and lets each do what is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from ssl import SSLContext
from typing import Any

import httpx
import pytest

from testbed.at_address import AtAddress
from tests.acceptance.probes.iam import Iam
from tests.acceptance.probes.identity import tampered
from tests.acceptance.probes.site import Site

SCOPE = "openid orchestrator"
SETTINGS = "/etc/deephdc/orchestrator/settings.json"
STATE = "/var/lib/deep-orchestrator"

pytestmark = pytest.mark.group("orchestrator")


@pytest.fixture
def service(site: Site, hostname: str, authority: SSLContext) -> Iterator[httpx.Client]:
    """A client that reaches it by its host's address and checks its certificate for its own name."""
    endpoint = str(site.value(hostname, "orchestrator_endpoint"))
    transport = AtAddress({endpoint.rpartition(":")[0]: site.address(hostname)}, authority)
    with httpx.Client(base_url=f"https://{endpoint}", transport=transport, timeout=20) as client:
        yield client


@pytest.fixture
def embedded(site: Site, hostname: str, service: httpx.Client) -> httpx.Client:
    """The client, where this collection's own orchestrator runs."""
    if site.value(hostname, "orchestrator_backend") != "embedded":
        pytest.skip("the embedded orchestrator is not here: the site's is INDIGO's")
    return service


@pytest.fixture
def indigo(site: Site, hostname: str, service: httpx.Client) -> httpx.Client:
    """The client, where INDIGO's orchestrator runs. Written from its documentation: it has never run here."""
    if site.value(hostname, "orchestrator_backend") != "indigo":
        pytest.skip("INDIGO's orchestrator is not exercised here: the site's is the embedded one")
    return service


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_it_answers_over_tls(embedded: httpx.Client) -> None:
    """The orchestrator answers over verified TLS, with its database."""
    assert embedded.get("/health").raise_for_status().json()["projectName"] == "deep-orchestrator"


def test_without_a_token_nobody_gets_in(service: httpx.Client) -> None:
    """The orchestrator refuses requests without a token, and with one that means nothing."""
    for headers in ({}, bearer("x.y.z"), {"Authorization": "Basic bWVtYmVyOng="}):
        for path in ("/deployments", "/configuration"):
            assert service.get(path, headers=headers).status_code == 401, (path, headers)


def test_a_token_for_another_service_or_with_other_claims_is_refused(
    site: Site, hostname: str, embedded: httpx.Client, iam: Iam
) -> None:
    """The orchestrator refuses a token that is for another service, and one whose groups were changed."""
    member = site.value(hostname, "acceptance_people")["member"]
    other = iam.token(member, scope="openid")
    changed = tampered(iam.token(member, scope=SCOPE), groups=[site.value(hostname, "site_administrators")])
    for token in (other, changed):
        assert embedded.get("/deployments", headers=bearer(token)).status_code == 401


def test_people_may_what_is_theirs(site: Site, hostname: str, embedded: httpx.Client, iam: Iam) -> None:
    """A member may deploy for the organisation; a reader and a guest may not."""
    people: dict[str, Any] = site.value(hostname, "acceptance_people")
    wrong = {"template": "no template"}
    # What is wrong with the template is said only to who may deploy.
    for part, status in {"member": 400, "reader": 403, "guest": 403}.items():
        headers = bearer(iam.token(people[part], scope=SCOPE))
        assert embedded.get("/deployments", headers=headers).status_code == 200, part
        assert embedded.post("/deployments", headers=headers, json=wrong).status_code == status, part


@pytest.mark.usefixtures("embedded")
def test_it_runs_as_nobody_special_and_keeps_its_secrets(host: Any) -> None:
    """The orchestrator is no administrator of its host, and nobody else reads its settings and its database."""
    pid = host.check_output("systemctl show --property=MainPID --value deep-orchestrator")
    assert host.file(f"/proc/{pid}").user == "deep-orchestrator"
    settings, state = host.file(SETTINGS), host.file(STATE)
    assert (settings.user, settings.group, settings.mode) == ("root", "deep-orchestrator", 0o640)
    assert (state.user, state.mode) == ("deep-orchestrator", 0o700)


def test_indigo_answers_over_tls(indigo: httpx.Client) -> None:
    """INDIGO's orchestrator answers over verified TLS, under the embedded one's name and port."""
    assert indigo.get("/info").raise_for_status().json()
    assert indigo.get("/configuration").status_code in (200, 401)


@pytest.mark.usefixtures("indigo")
def test_indigo_runs_as_nobody_special_and_keeps_its_secrets(host: Any) -> None:
    """INDIGO's orchestrator is no administrator of its host, and nobody else reads its settings."""
    (pid,) = host.check_output("podman inspect --format {{.State.Pid}} indigo-orchestrator").split()
    assert host.file(f"/proc/{pid}").user == "indigo-orchestrator"
    for name, user in {"application.yml": "indigo-orchestrator", "indigo-orchestrator.env": "root"}.items():
        file = host.file(f"/etc/deephdc/orchestrator/{name}")
        assert (file.user, file.mode) == (user, 0o600)
