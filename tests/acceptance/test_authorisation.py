"""Each person with each kind of token gets what is theirs and is refused the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.acceptance.probes.authorisation import (
    FORBIDDEN,
    NONE,
    PERSONS,
    UNKNOWN,
    VALID,
    ApiServer,
    Case,
    cases,
    requests,
    write_report,
)
from tests.acceptance.probes.cluster import Cluster, pod, ready
from tests.acceptance.probes.identity import claims, forged, issuer_of, tampered, wait_for_end
from tests.acceptance.probes.site import Site

Tokens = dict[tuple[str, str], str]
MOST_SECONDS = 60
# A forged token makes the API server ask the issuer for its keys again.
AT_ONCE = 8


@pytest.fixture(scope="module")
def people(site: Site, cluster: Cluster) -> dict[str, str]:
    """User names of the site's test people, by the part that they play."""
    if not site.has(cluster.control_plane, "acceptance_people"):
        pytest.skip("the site names no test people (acceptance_people)")
    found = dict(site.value(cluster.control_plane, "acceptance_people"))
    missing = sorted(set(PERSONS) - set(found))
    if missing:
        pytest.skip(f"acceptance_people names nobody for: {', '.join(missing)}")
    return found


@pytest.fixture(scope="module")
def namespaces(site: Site, cluster: Cluster) -> tuple[str, str]:
    """The namespace that the member belongs to, and the outsider's."""
    names = [str(one["name"]) for one in site.value(cluster.control_plane, "site_organisations")]
    if len(names) < 2:
        pytest.skip(f"the site has {len(names)} organisations, and it takes two to refuse one what is the other's")
    return names[0], names[1]


@pytest.fixture(scope="module")
def tokens(site: Site, cluster: Cluster, people: dict[str, str]) -> Tokens:
    """A token for each person and state."""
    host = str(site.value(cluster.control_plane, "iam_host"))
    if not host:
        pytest.skip("the site has no host in group iam, so the passwords of its people are not known here")
    clients = site.value(cluster.control_plane, "iam_client"), "acceptance-short", "acceptance-other"
    with issuer_of(site, host) as iam:
        issued = {client: {person: iam.token(people[person], client) for person in PERSONS} for client in clients}
    valid, expired, other = (issued[client] for client in clients)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    groups = [str(site.value(cluster.control_plane, "site_administrators")), "system:masters"]
    wait_for_end(expired)
    return {
        (person, state): token
        for person in PERSONS
        for state, token in {
            VALID: valid[person],
            "expired": expired[person],
            "other issuer": forged(valid[person], key, iss=f"{claims(valid[person])['iss']}-other"),
            "other key": forged(valid[person], key),
            "other audience": other[person],
            "tampered group": tampered(valid[person], groups=groups),
            NONE: "",
        }.items()
    }


@pytest.fixture(scope="module")
def target(cluster: Cluster, namespaces: tuple[str, str], acceptance_image: str) -> Iterator[str]:
    """A running pod in the member's namespace."""
    namespace, name = namespaces[0], f"acceptance-{cluster.run_id}"
    cluster.create(namespace, pod(name, acceptance_image, "sleep 600"))
    try:
        cluster.wait_for_pods(namespace, [name], ready, 60, "ready")
        yield name
    finally:
        cluster.delete_pods(namespace, [name])


@pytest.fixture(scope="module")
def apis(site: Site, cluster: Cluster) -> dict[str, ApiServer]:
    """The API servers of all control planes, the first one first."""
    settings = cluster.api.configuration
    return {
        host: ApiServer(site.address(host), cluster.server, settings.ssl_ca_cert, settings.tls_server_name or "")
        for host in site.group("kubernetes_control_plane")
    }


@pytest.fixture(scope="module")
def stranger(site: Site, cluster: Cluster) -> int:
    """What is answered to a request without a token: with flags it is let in as far as nobody's rights go."""
    flags = site.value(cluster.control_plane, "kubernetes_control_plane_oidc") == "flags"
    return FORBIDDEN if flags else UNKNOWN


@pytest.fixture(scope="module")
def results(
    apis: dict[str, ApiServer],
    tokens: Tokens,
    namespaces: tuple[str, str],
    target: str,
    stranger: int,
    report_folder: Path | None,
) -> list[Case]:
    """Every case with the status that was seen; the table is in the report, whatever it says."""
    asked = requests(*namespaces, target)
    api = next(iter(apis.values()))
    started = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(
            pool.map(lambda case: case.asked(api, asked[case.action], tokens[case.person, case.token]), cases(stranger))
        )
    seconds = time.monotonic() - started
    if report_folder:
        write_report(report_folder, found, seconds)
    assert seconds < MOST_SECONDS, f"{len(found)} cases took {seconds:.0f} s"
    return found


def test_the_tokens_are_what_they_are_called(
    site: Site, cluster: Cluster, people: dict[str, str], tokens: Tokens
) -> None:
    """Tokens that are to be refused are so for the one reason that their name says."""
    audiences = set(site.value(cluster.control_plane, "kubernetes_control_plane_audiences"))
    now = time.time()
    for person in PERSONS:
        valid, expired = claims(tokens[person, VALID]), claims(tokens[person, "expired"])
        other = claims(tokens[person, "other audience"])
        for content in (valid, expired, other):
            assert content["iss"] == valid["iss"]
            assert content["preferred_username"] == people[person]
        assert valid["exp"] > now, f"{person}'s token was over before the requests were"
        assert expired["exp"] < now
        assert _audiences(valid) & audiences, f"{person}'s token is for {_audiences(valid)}"
        assert _audiences(expired) & audiences, f"{person}'s short token is for {_audiences(expired)}"
        assert not _audiences(other) & audiences, f"{person}'s token for another service is for {_audiences(other)}"
        assert claims(tokens[person, "other key"]) == valid
        assert claims(tokens[person, "other issuer"])["iss"] != valid["iss"]
        better = claims(tokens[person, "tampered group"])
        assert better["groups"] != valid["groups"]
        assert {**better, "groups": valid["groups"]} == valid


def _audiences(content: dict[str, object]) -> set[str]:
    found = content.get("aud", [])
    return {found} if isinstance(found, str) else set(map(str, found if isinstance(found, list) else []))


def test_everybody_gets_what_is_theirs_and_no_more(results: list[Case]) -> None:
    """Person, token and action together decide what the API server answers."""
    wrong = [str(case) for case in results if not case.ok]
    assert not wrong, f"{len(wrong)} of {len(results)} cases: {'; '.join(wrong[:20])}"


def test_every_control_plane_says_the_same(
    apis: dict[str, ApiServer], tokens: Tokens, namespaces: tuple[str, str], target: str, results: list[Case]
) -> None:
    """Policies and issuers are files of each host: all servers answer valid tokens as the first one does."""
    _, *others = apis.items()
    if not others:
        pytest.skip("the site has one control plane")
    asked = requests(*namespaces, target)
    wrong = [
        f"{host}: {case}"
        for host, api in others
        for one in results
        if one.token == VALID and not (case := one.asked(api, asked[one.action], tokens[one.person, VALID])).ok
    ]
    assert not wrong, "; ".join(wrong[:20])


def test_a_reader_runs_nothing_in_pods(results: list[Case]) -> None:
    """Who may only read is refused to run commands in pods and to reach their ports, over SPDY and over WebSocket."""
    seen = {
        case.action: case.seen
        for case in results
        if (case.person, case.token) == ("reader", VALID) and (" over " in case.action)
    }
    assert len(seen) == 4
    assert set(seen.values()) == {403}, seen
