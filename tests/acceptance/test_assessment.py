"""The site as an attacker finds it. Only with ``--assess`` (``deep sqa assess SITE``), for it takes longer."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sqa import tools
from tests.acceptance.probes import endpoints, exposure, inlets, strangers
from tests.acceptance.probes.cluster import Cluster
from tests.acceptance.probes.site import Site

pytestmark = pytest.mark.assess

# What installations are left with most often; three passwords for a name at most, so that nobody is locked out.
COMMON = (
    ("admin", "admin"), ("admin", "password"), ("admin", "changeme"), ("root", "root"), ("guest", "guest"),
    ("test", "test"), ("user", "user"), ("registry", "registry"), ("postgres", "postgres"),
)  # fmt: skip
PATHS = ("/", "/v2/", "/api")
SCAN_SECONDS = 120
# Suspected by ssh-audit, approved by NIST (SP 800-186) and in Mozilla's guidelines for OpenSSH.
NIST_CURVE = re.compile(r"nistp(256|384|521)")


def encrypted(site: Site, hostname: str) -> list[endpoints.Endpoint]:
    """Those of a host's endpoints that speak TLS."""
    return [one for one in endpoints.of_host(site, hostname) if one.speaks == "tls"]


@pytest.mark.check("tls")
def test_whatever_can_be_reached_is_encrypted(site: Site, hostname: str) -> None:
    """Every port that others can reach speaks TLS, or ssh, or is declared as plain."""
    found = list(endpoints.of_host(site, hostname))
    allowed = endpoints.plain(site, hostname)
    open_ones = [one for one in found if one.port not in allowed and one.speaks not in ("tls", "ssh")]
    assert not open_ones, f"{hostname}: not encrypted: {', '.join(map(str, open_ones))}"


@pytest.mark.check("tls")
def test_encryption_is_strong(site: Site, hostname: str) -> None:
    """No endpoint takes a version of TLS before 1.2 or a cipher suite without forward secrecy or authentication."""
    found = encrypted(site, hostname)
    if not found:
        pytest.skip(f"{hostname} has no endpoint that speaks TLS")
    scanned = [scan(one) for one in found]
    weak = [f"{one}: {', '.join(wrong)}" for one, wrong in zip(found, scanned, strict=True) if wrong]
    assert not weak, f"{hostname}: weak: {'; '.join(weak)}"


OLD = ("ssl_2_0_cipher_suites", "ssl_3_0_cipher_suites", "tls_1_0_cipher_suites", "tls_1_1_cipher_suites")
NEW = ("tls_1_2_cipher_suites", "tls_1_3_cipher_suites")


def scan(endpoint: endpoints.Endpoint) -> list[str]:
    """What sslyze finds wrong with an endpoint; fails where it could not look."""
    sslyze = tools.tool("sslyze")
    tools.install(sslyze)
    flags = ["--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--heartbleed"]
    done = subprocess.run(
        [sslyze.programs / "sslyze", "--mozilla_config=disable", *flags, "--json_out=-", endpoint.place],
        capture_output=True, text=True, check=False, timeout=SCAN_SECONDS,
    )  # fmt: skip
    results = json.loads(done.stdout)["server_scan_results"][0]
    assert results["scan_status"] == "COMPLETED", f"{endpoint}: sslyze could not look: {results}"
    commands = results["scan_result"]
    wrong = [name.removesuffix("_cipher_suites") for name in OLD if _accepted(commands, name)]
    suites = [suite for name in NEW for suite in _accepted(commands, name)]
    assert suites, f"{endpoint}: sslyze saw no cipher suite"
    wrong += [name for name in suites if not _strong(name)]
    if commands["heartbleed"]["result"]["is_vulnerable_to_heartbleed"]:
        wrong.append("heartbleed")
    return wrong


def _accepted(commands: dict[str, Any], name: str) -> list[str]:
    assert commands[name]["status"] == "COMPLETED", f"sslyze did not finish {name}: {commands[name]}"
    return [one["cipher_suite"]["name"] for one in commands[name]["result"]["accepted_cipher_suites"]]


def _strong(suite: str) -> bool:
    """Forward secrecy and a cipher that nobody has broken: what NIST SP 800-52 Rev. 2 allows, and Camellia."""
    modern = suite.startswith(("TLS_AES_", "TLS_CHACHA20_"))
    ephemeral = suite.startswith(("TLS_ECDHE_", "TLS_DHE_"))
    return modern or (ephemeral and any(cipher in suite for cipher in ("_AES_", "_CHACHA20_", "_CAMELLIA_")))


@pytest.mark.check("ssh")
def test_ssh_is_strong(site: Site, hostname: str) -> None:
    """The ssh server offers no algorithm that ssh-audit calls broken, and takes keys only."""
    audit = tools.tool("ssh-audit")
    tools.install(audit)
    done = subprocess.run(
        [audit.programs / "ssh-audit", "--json", "--skip-rate-test", "--port", _ssh_port(site, hostname),
         site.address(hostname)],
        capture_output=True, text=True, check=False, timeout=SCAN_SECONDS,
    )  # fmt: skip
    found = json.loads(done.stdout)
    offered = [one for kind in ("kex", "key", "enc", "mac") for one in found[kind]]
    assert offered, f"{hostname}: ssh-audit saw nothing"
    notes = {one["algorithm"]: one.get("notes", {}).get("fail", []) for one in offered}
    broken = [f"{name}: {'; '.join(fail)}" for name, fail in notes.items() if fail and not NIST_CURVE.search(name)]
    assert not broken, f"{hostname}: {', '.join(broken)}"


def _ssh_port(site: Site, hostname: str) -> str:
    return str(site.value(hostname, "ansible_port")) if site.has(hostname, "ansible_port") else "22"


@pytest.mark.check("ssh")
def test_ssh_takes_no_password(site: Site, hostname: str) -> None:
    """Nobody gets in with a password, so there is none to guess."""
    done = subprocess.run(
        ["ssh", "-F", "/dev/null", "-p", _ssh_port(site, hostname), "-o", "PreferredAuthentications=none",
         "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
         "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", f"operator@{site.address(hostname)}", "true"],
        capture_output=True, text=True, check=False, timeout=SCAN_SECONDS,
    )  # fmt: skip
    offered = done.stderr.rpartition("(")[2].partition(")")[0].split(",")
    assert done.returncode == 255, f"{hostname}: somebody without a key gets in"
    assert offered == ["publickey"], f"{hostname}: ssh offers {', '.join(offered)}: {done.stderr.strip()}"


@pytest.mark.check("hardening")
def test_no_secret_can_be_read_by_others(host: Any, hostname: str) -> None:
    """No key, token or hash of a password is in a file that every user of the host can read."""
    seen = exposure.look(host, exposure.SECRETS, exposure.DATA)
    assert seen["seen"] > 100, f"{hostname}: only {seen['seen']} files were seen"
    assert not seen["found"], f"{hostname}: everybody can read {_listed(seen['found'])}"


@pytest.mark.check("hardening")
def test_nothing_can_be_written_by_everybody(host: Any, hostname: str) -> None:
    """No file or folder of configuration, programs, data or logs can be changed by every user of the host."""
    seen = exposure.look(host, exposure.WRITABLE, exposure.DATA + exposure.PROGRAMS)
    assert seen["seen"] > 100, f"{hostname}: only {seen['seen']} files were seen"
    assert not seen["found"], f"{hostname}: everybody can write {_listed(seen['found'])}"


def _listed(found: list[list[str]]) -> str:
    return "; ".join(f"{path} ({what})" for path, what in found)


def test_no_common_password_opens_anything(site: Site, hostname: str) -> None:
    """No endpoint lets in somebody with a name and password that installations are left with most often."""
    asked, opened = 0, []
    with strangers.stranger() as client:
        for one in endpoints.of_host(site, hostname):
            for attempt, entered in attempts(client, one):
                asked += 1
                opened += [f"{one} {attempt}"] if entered else []
    if not asked:
        pytest.skip(f"{hostname} has no endpoint that asks for a name and a password")
    assert not opened, f"{hostname}: a common password is taken: {', '.join(opened)}"


def attempts(client: httpx.Client, endpoint: endpoints.Endpoint) -> Iterator[tuple[str, bool]]:
    """What was tried, and whether it was let in: HTTP's basic authentication, and administrators of Keycloak."""
    url = endpoint.url
    for path in PATHS:
        answer = _get(client, url + path)
        if (
            answer is not None
            and answer.status_code == 401
            and "basic" in answer.headers.get("www-authenticate", "").lower()
        ):
            for pair in COMMON:
                again = _get(client, url + path, auth=pair)
                assert again is not None, f"{endpoint}: {path} gave no answer, so nothing is known of it"
                yield f"{path} as {pair[0]}", again.is_success or again.is_redirect
            return
    token = f"{url}/realms/master/protocol/openid-connect/token"
    if (answer := _get(client, f"{url}/realms/master")) is not None and answer.is_success and '"realm"' in answer.text:
        for name, password in COMMON:
            form = {"client_id": "admin-cli", "grant_type": "password", "username": name, "password": password}
            yield f"realm master as {name}", client.post(token, data=form).is_success


def _get(client: httpx.Client, url: str, **more: Any) -> httpx.Response | None:
    try:
        return client.get(url, **more)
    except (httpx.HTTPError, ValueError):
        return None


def test_every_endpoint_asks_who_it_is(site: Site, hostname: str) -> None:
    """Nobody gets in without a login or with a made-up token, but to what is declared public with a reason."""
    found = list(endpoints.of_host(site, hostname))
    wrong = endpoints.open_or_unknown(site, hostname, found)
    if not wrong and all(one.speaks == "ssh" for one in found):
        pytest.skip(f"{hostname} has no endpoint but ssh")
    assert not wrong, (
        f"{hostname}: {'; '.join(wrong)}. Next: have it ask for a login, or declare the path public with a reason "
        "(declared_http, or http in tests/acceptance/declared.yml), or that it does not speak HTTP (not_http in "
        "declared_listeners, or listeners there)"
    )


@pytest.mark.check("hardening")
def test_no_way_into_the_cluster_is_undeclared(site: Site, cluster: Cluster) -> None:
    """No Service and no pod can be reached from outside, by a forwarded port or its host's network, undeclared."""
    services = cluster.core.list_service_for_all_namespaces().items
    pods = cluster.core.list_pod_for_all_namespaces().items
    assert services, "the cluster shows no Service, not even that of its API"
    assert pods, "the cluster shows no pod, not even its own"
    declared = site.declared_for(cluster.control_plane, "inlets")
    extra = inlets.undeclared([*inlets.of_services(services), *inlets.of_pods(pods)], declared)
    assert not extra, (
        f"not declared: {'; '.join(map(str, extra))}. Next: remove it, or declare it with its reason (declared_inlets, "
        "or inlets in tests/acceptance/declared.yml)"
    )
