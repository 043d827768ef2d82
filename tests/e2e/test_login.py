"""A testbed without Kubernetes: people log in with a browser, and a service of a site comes behind the same login.

From the second test on the proxy has a certificate of the site's own; the IAM and the registry have the authority's.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from testbed import sites
from testbed.at_address import AtAddress
from tests.acceptance.probes.iam import Administration, Iam, submit
from tests.acceptance.probes.identity import issuer_of, site_trust
from tests.acceptance.probes.site import Site
from tests.e2e.support import deep_json, kill_deep, run_deep, wait_for
from tests.unit.login_issuer import Authority

pytestmark = pytest.mark.live

NAME = "e2e-login"
PORT = 8444
PAGE = {"Accept": "text/html"}
STATE = "/var/lib/keycloak"
# Says what of a request has come through.
ECHO = """
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(self.headers)).encode())
http.server.HTTPServer(("127.0.0.1", 8080), Echo).serve_forever()
"""
BEHIND = f"""
- "{{{{ registry_login }}}}"
- name: echo
  server_name: "{{{{ registry_name }}}}"
  port: {PORT}
  backend: http://127.0.0.1:8080/
  client_id: registry
  client_secret: "{{{{ registry_login.client_secret }}}}"
  readers: [imaging]
"""
# One client for both: what keeps the services' sessions apart is not whom a token was meant for.
CLIENTS = f"""
- name: registry
  kind: confidential
  flows: [code]
  redirect_uris:
    - "https://{{{{ registry_login_endpoint }}}}/redirect_uri"
    - "https://{{{{ registry_name }}}}:{PORT}/redirect_uri"
"""
SPOOFED = (
    "X-Forwarded-User", "X-Forwarded-Groups", "X-Remote-User", "Remote-User", "X-WebAuth-User", "Forwarded",
    "X-Real-IP", "OIDC_CLAIM_sub", "OIDC-CLAIM-groups", "OIDC_access_token",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def verdict() -> Iterator[dict[str, Any]]:
    """The verdict of the acceptance suite on one node; it is removed afterwards."""
    run_deep("testbed", "down", f"--name={NAME}")
    yield deep_json("testbed", "up", f"--name={NAME}", "--profile=login")["verdict"]
    run_deep("testbed", "down", f"--name={NAME}")


@pytest.fixture(scope="module")
def site(verdict: dict[str, Any]) -> Site:
    """The testbed as its inventory describes it."""
    assert verdict
    folders = [sites.inventories() / "common", sites.inventories() / "local", sites.generated_inventory(NAME)]
    return Site("local", folders, sites.vault_password_file("local", NAME))


@pytest.fixture(scope="module")
def iam(site: Site) -> Iterator[Iam]:
    """The issuer."""
    with issuer_of(site, "node1") as found:
        yield found


@pytest.fixture(scope="module")
def registry(site: Site) -> str:
    """An address of the registry, behind the login."""
    return f"https://{site.value('node1', 'registry_login_endpoint')}/v2/_catalog"


@pytest.fixture(scope="module")
def trust(site: Site, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Who signs certificates once a service without a login is behind the site's, with one of the site's own."""
    own, folder = Authority(), tmp_path_factory.mktemp("own")
    own.context(str(site.value("node1", "registry_name")), folder)
    key, begin, certificate = (folder / "server.pem").read_text().partition("-----BEGIN CERTIFICATE")
    brought = {"oidc_proxy": {"certificate": begin + certificate + own.pem.decode(), "key": key}}
    on("systemd-run", "--unit=echo", "python3", "-c", ECHO)
    deploy(f"oidc_proxy_sites={BEHIND}", f"iam_clients={CLIENTS}", f"site_certificates={json.dumps(brought)}")
    found = site_trust(site, "node1")
    found.load_verify_locations(cadata=own.pem.decode())
    return found


@pytest.fixture
def echo(trust: ssl.SSLContext, site: Site) -> str:
    """An address of that service."""
    assert trust.verify_mode is ssl.CERT_REQUIRED
    return f"https://{site.value('node1', 'registry_name')}:{PORT}/anything"


@pytest.fixture
def program(site: Site, trust: ssl.SSLContext) -> Iterator[httpx.Client]:
    """A client that follows nobody, without cookies of anybody."""
    with client(site, trust) as found:
        yield found


@pytest.fixture
def browser(site: Site, trust: ssl.SSLContext) -> Iterator[httpx.Client]:
    """A new person's browser."""
    with client(site, trust, follow_redirects=True, headers=PAGE) as found:
        yield found


def client(site: Site, trust: ssl.SSLContext, **options: Any) -> httpx.Client:
    """A client that finds the site's services and checks their certificates."""
    names = [str(site.value("node1", name)) for name in ("registry_name", "iam_name")]
    return httpx.Client(transport=AtAddress(dict.fromkeys(names, site.address("node1")), trust), timeout=20, **options)


def log_in(browser: httpx.Client, address: str, iam: Iam) -> httpx.Response:
    """A member opens a page, is sent to the login, and comes back; returns what is seen then."""
    page = browser.get(address)
    assert str(page.url).startswith(iam.issuer), f"{page.status_code} {page.url} {page.text[:300]}"
    return submit(browser, page, username="member", password=iam.password_of("member"))


def bearer(token: str) -> dict[str, str]:
    """The header with a token."""
    return {"Authorization": f"Bearer {token}"}


def on(*command: str) -> str:
    """What a program on the node says."""
    return run_deep("testbed", "shell", "node1", f"--name={NAME}", "--", *command).stdout


def deploy(*settings: str) -> None:
    """Bring the testbed to other settings."""
    run_deep("testbed", "up", f"--name={NAME}", "--until=deploy", *(f"--set={setting}" for setting in settings))


def listening() -> str:
    """Sockets of the proxy."""
    return on("ss", "-Hltn", f"sport = :{PORT}")


def test_people_log_in(verdict: dict[str, Any]) -> None:
    """The suite passes, in the browser too, and keeps pictures of what was seen."""
    assert verdict["ok"], verdict["failures"]
    outcomes = {
        one["id"]: one["outcome"] for one in verdict["checks"] if one["id"].startswith(("login_page", "oidc_proxy"))
    }
    assert len(outcomes) > 10
    assert set(outcomes.values()) == {"passed"}, outcomes
    pictures = {path.stem: path.stat().st_size for path in Path(verdict["report"]).glob("*.png")}
    assert {f"login-page-{name}" for name in ("before", "member", "wrong-password", "no-group", "logged-out")} == set(
        pictures
    )
    assert min(pictures.values()) > 1000, "an empty picture shows nobody anything"


def test_a_service_is_told_who_asks_by_the_proxy_alone(echo: str, program: httpx.Client, iam: Iam) -> None:
    """Of what a client says about itself nothing arrives, nor its token or cookie; the person's name does."""
    token = iam.token("member", scope="openid registry")
    headers = {**dict.fromkeys(SPOOFED, "spoofed"), **bearer(token), "Cookie": "own=1; __Host-echo=spoofed"}
    arrived = program.get(echo, headers=headers).json()
    assert "spoofed" not in json.dumps(arrived)
    assert token not in json.dumps(arrived)
    assert (arrived["X-Forwarded-User"], arrived["X-Forwarded-Proto"]) == ("member", "https")
    assert arrived["X-Forwarded-Host"] == urlsplit(echo).netloc
    assert arrived["Cookie"] == "own=1"
    assert "Authorization" not in arrived


def test_a_proxy_with_a_certificate_of_the_sites_own_still_trusts_the_others(
    site: Site, echo: str, registry: str, browser: httpx.Client, program: httpx.Client, iam: Iam
) -> None:
    """People log in at the IAM, and the registry is reached, both with certificates by the authority."""
    stranger = client(site, site_trust(site, "node1"))
    with stranger, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        stranger.get(echo)
    assert log_in(browser, echo, iam).json()["X-Forwarded-User"] == "member"
    assert program.get(registry, headers=bearer(iam.token("member", scope="openid registry"))).status_code == 200


def test_a_session_is_for_one_service(
    echo: str, registry: str, browser: httpx.Client, program: httpx.Client, iam: Iam
) -> None:
    """A service that keeps its people's cookies gets in nowhere else, though both have the same host and client."""
    log_in(browser, echo, iam)
    session = browser.cookies["__Host-echo"]
    assert program.get(echo, headers={"Cookie": f"__Host-echo={session}"}).status_code == 200
    for name in ("__Host-registry", "__Host-echo"):
        assert program.get(registry, headers={"Cookie": f"{name}={session}"}).status_code == 401, name


def test_what_a_stolen_key_has_signed_is_refused(
    echo: str, browser: httpx.Client, program: httpx.Client, iam: Iam
) -> None:
    """The proxy has seen the token, and forgets the key as the IAM does; people go on without a password."""
    stolen = bearer(iam.token("member", scope="openid registry"))
    log_in(browser, echo, iam)
    assert program.get(echo, headers=stolen).status_code == 200
    run_deep("site", "run", "local", "rotate_iam_keys", f"--name={NAME}", "--extra-vars=iam_key_keep_seconds=0")
    wait_for(lambda: program.get(echo, headers=stolen).status_code == 401, "the proxy forgets", seconds=20)
    assert program.get(echo, headers=bearer(iam.token("member", scope="openid registry"))).status_code == 200
    assert browser.get(echo).json()["X-Forwarded-User"] == "member"


def test_while_the_iam_is_down_sessions_go_on_and_others_are_told(
    site: Site, trust: ssl.SSLContext, echo: str, browser: httpx.Client, program: httpx.Client, iam: Iam
) -> None:
    """A proxy that has started meanwhile shows its own page; once the IAM is back, people log in again."""
    log_in(browser, echo, iam)
    on("systemctl", "stop", "keycloak")
    try:
        assert browser.get(echo).json()["X-Forwarded-User"] == "member"
        on("systemctl", "restart", "deephdc-oidc-proxy")
        wait_for(lambda: program.get(echo, headers=PAGE).status_code == 500, "the proxy's own page", seconds=60)
        told = program.get(echo, headers=PAGE)
        assert told.headers["Content-Type"].partition(";")[0] == "text/html"
        assert f"No login is possible: as a rule because {iam.issuer}," in " ".join(told.text.split())
        assert program.get(echo).status_code == 401
    finally:
        on("systemctl", "start", "keycloak")
    wait_for(lambda: program.get(echo, headers=PAGE).status_code == 302, "a login that works again")
    with client(site, trust, follow_redirects=True, headers=PAGE) as other:
        assert log_in(other, echo, iam).json()["X-Forwarded-User"] == "member"


def test_a_service_that_is_taken_back_is_gone(echo: str) -> None:
    """Without the service in the inventory nothing listens for it; the authority signs for the proxy again."""
    assert listening(), echo
    deploy("oidc_proxy_sites=", "iam_clients=", "site_certificates=")
    assert listening() == ""
    assert "DEEP site" in on("openssl", "x509", "-in", "/etc/deephdc/oidc-proxy/tls.crt", "-noout", "-issuer")


def answers(iam: Iam) -> None:
    """Wait until the IAM has started."""
    wait_for(lambda: iam.client.get(f"{iam.issuer}/.well-known/openid-configuration").is_success, "an IAM that answers")


def test_a_database_in_a_file_is_restored(site: Site, iam: Iam) -> None:
    """As one of a server is: also after a restore that was killed, and one that failed."""
    restore = ("site", "run", "local", "restore", f"--name={NAME}", "--extra-vars=confirm=local")
    run_deep("site", "run", "local", "backup", f"--name={NAME}")
    # A file is copied while Keycloak is stopped.
    answers(iam)
    administration = Administration(iam, "deephdc-admin", str(site.value("node1", "iam_admin_secret")))
    administration.set_password("member", chosen := token_urlsafe())
    # One look that lasts: a look now and then may come too late.
    begun = f"timeout 300 sh -c 'until test -e {STATE}/before; do sleep 0.1; done'"
    kill_deep(*restore, once=lambda: on("sh", "-c", begun) == "")
    assert "before" in on("ls", STATE), "killed before its end"
    said = run_deep(*restore, "--extra-vars=iam_timeout=1", status=1).stderr
    assert "the database of before is in use again" in said
    answers(iam)
    assert iam.login("member", password=chosen).is_success
    run_deep(*restore)
    assert not iam.login("member", password=chosen).is_success
    assert iam.login("member").is_success
    assert not {"before", "restored"} & {*on("ls", STATE).split()}
