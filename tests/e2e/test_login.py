"""A testbed without Kubernetes: people log in with a browser, and a service of a site comes behind the same login."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from testbed import sites
from testbed.at_address import AtAddress
from tests.acceptance.probes.identity import issuer_of, site_trust
from tests.acceptance.probes.site import Site
from tests.e2e.support import deep_json, run_deep

pytestmark = pytest.mark.live

NAME = "e2e-login"
PORT = 8444
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


@pytest.fixture
def echo() -> Iterator[None]:
    """A service that has no login of its own, behind the site's."""
    run_deep("testbed", "shell", "node1", f"--name={NAME}", "--", "systemd-run", "--unit=echo", "python3", "-c", ECHO)
    run_deep("testbed", "up", f"--name={NAME}", "--until=deploy", f"--set=oidc_proxy_sites={BEHIND}")
    yield
    run_deep("testbed", "up", f"--name={NAME}", "--until=deploy", "--set=oidc_proxy_sites=")
    run_deep("testbed", "shell", "node1", f"--name={NAME}", "--", "systemctl", "stop", "echo")


def listening() -> str:
    """Sockets of the proxy."""
    return run_deep("testbed", "shell", "node1", f"--name={NAME}", "--", "ss", "-Hltn", f"sport = :{PORT}").stdout


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


def test_a_service_is_told_who_asks_by_the_proxy_alone(echo: None) -> None:
    """Of what a client says about itself nothing arrives, nor its token or cookie; the person's name does."""
    folders = [sites.inventories() / "common", sites.inventories() / "local", sites.generated_inventory(NAME)]
    site = Site("local", folders, sites.vault_password_file("local", NAME))
    with issuer_of(site, "node1") as iam:
        token = iam.token("member", scope="openid registry")
    headers = {
        **dict.fromkeys(SPOOFED, "spoofed"),
        "Authorization": f"Bearer {token}",
        "Cookie": "own=1; __Host-echo=spoofed",
    }
    name = str(site.value("node1", "registry_name"))
    with httpx.Client(transport=AtAddress({name: site.address("node1")}, site_trust(site, "node1"))) as client:
        arrived = client.get(f"https://{name}:{PORT}/anything", headers=headers).json()
    assert "spoofed" not in json.dumps(arrived)
    assert token not in json.dumps(arrived)
    assert (arrived["X-Forwarded-User"], arrived["X-Forwarded-Proto"]) == ("member", "https")
    assert arrived["X-Forwarded-Host"] == f"{name}:{PORT}"
    assert arrived["Cookie"] == "own=1"
    assert "Authorization" not in arrived
    assert listening()


def test_a_service_that_is_taken_back_is_gone() -> None:
    """Without the service in the inventory nothing listens for it any more."""
    assert listening() == ""
