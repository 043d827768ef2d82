"""The registry for people: who comes in by a token of the IAM, who may write, and what never gets through."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from testbed.at_address import AtAddress
from tests.acceptance.probes.iam import Iam
from tests.acceptance.probes.identity import claims, forged, tampered, wait_for_end
from tests.acceptance.probes.site import Site

pytestmark = pytest.mark.group("registry")

CATALOGUE = "/v2/_catalog"
UPLOADS = "/v2/acceptance/login/blobs/uploads/"
AUDIENCE = "registry"
READS = {"member": 200, "reader": 200, "outsider": 200, "admin": 200, "guest": 403}
WRITES = {"member": 403, "reader": 403, "outsider": 403, "admin": 202, "guest": 403}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
Token = Callable[[str], str]


@pytest.fixture
def proxy(site: Site, hostname: str, authority: ssl.SSLContext) -> Iterator[httpx.Client]:
    """A client that reaches the proxy by its host's address and checks its certificate for its own name."""
    if hostname not in site.group("oidc_proxy"):
        pytest.skip(f"{hostname} is not in group oidc_proxy: the registry has no login")
    endpoint = str(site.value(hostname, "registry_login_endpoint"))
    transport = AtAddress({endpoint.rpartition(":")[0]: site.address(hostname)}, authority)
    with httpx.Client(base_url=f"https://{endpoint}", transport=transport, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def token(site: Site, iam: Iam) -> Token:
    """Part that somebody plays in the checks -> their token for the registry."""
    people: dict[str, str] = site.value(site.group("iam")[0], "acceptance_people")
    client = str(site.value(site.group("iam")[0], "iam_client"))
    tokens: dict[str, str] = {}

    def of(part: str) -> str:
        if part not in people:
            pytest.skip(f"acceptance_people names nobody for: {part}")
        if part not in tokens:
            tokens[part] = iam.token(people[part], client, f"openid {AUDIENCE}")
        return tokens[part]

    return of


def bearer(token: str) -> dict[str, str]:
    """The header with a token."""
    return {"Authorization": f"Bearer {token}"}


def digest(content: bytes) -> str:
    """How a registry names ``content``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_program_without_a_token_is_refused(proxy: httpx.Client) -> None:
    """Without a token a program gets 401 and hears that it may send one as a password."""
    for path in ("/", "/v2/", CATALOGUE, "/redirect_uri/../v2/_catalog"):
        answer = proxy.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"].startswith("Basic realm="), path
        assert answer.headers["Server"] == "Apache", "the version is nobody's business"
    assert proxy.post(UPLOADS).status_code == 401


def test_a_browser_is_sent_to_the_login(site: Site, proxy: httpx.Client, hostname: str) -> None:
    """A browser is sent to the issuer for a code, with PKCE, and keeps the state where no script reads it."""
    answer = proxy.get(CATALOGUE, headers={"Accept": "text/html"})
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith(f"{site.value(hostname, 'iam_issuer')}/")
    asked = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert (asked["response_type"], asked["code_challenge_method"]) == (["code"], ["S256"])
    assert {"Secure", "HttpOnly", "SameSite=Lax"} <= set(answer.headers["Set-Cookie"].split("; "))
    # Scripts and images of a page cannot log in.
    background = proxy.get(CATALOGUE, headers={"Accept": "text/html", "Sec-Fetch-Mode": "cors"})
    assert (background.status_code, background.headers.get("WWW-Authenticate", "")) == (401, "")


def test_groups_decide_who_reads_and_who_writes(proxy: httpx.Client, token: Token) -> None:
    """Every organisation reads, administrators write, somebody in no group does neither: by header and by password."""
    seen_reads = {part: proxy.get(CATALOGUE, headers=bearer(token(part))).status_code for part in READS}
    assert seen_reads == READS
    assert {part: proxy.get(CATALOGUE, auth=("anybody", token(part))).status_code for part in READS} == READS
    assert {part: proxy.post(UPLOADS, headers=bearer(token(part))).status_code for part in WRITES} == WRITES
    member = bearer(token("member"))
    for method in ("PUT", "PATCH", "DELETE"):
        assert proxy.request(method, "/v2/acceptance/login/manifests/latest", headers=member).status_code == 403, method


def test_no_other_token_opens_the_door(site: Site, proxy: httpx.Client, iam: Iam, token: Token) -> None:
    """Expired, tampered, forged and unsigned tokens, and those for another service, are refused for everything."""
    good = token("admin")
    admin = site.value(site.group("iam")[0], "acceptance_people")["admin"]
    expired = {"expired": iam.token(admin, "acceptance-short")}
    assert AUDIENCE in claims(expired["expired"])["aud"]
    assert proxy.get(CATALOGUE, headers=bearer(expired["expired"])).status_code == 200, "it was good before"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    unsigned = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    wait_for_end(expired)
    bad = {
        **expired,
        "tampered": tampered(token("guest"), groups=claims(good)["groups"]),
        "another key": forged(good, key),
        "another issuer": forged(good, key, iss="https://iam.example/"),
        "another audience": iam.token(admin, str(site.value(site.group("iam")[0], "iam_client"))),
        "unsigned": f"{unsigned}.{good.split('.')[1]}.",
        "rubbish": "rubbish",
    }
    wanted = {name: 403 if name == "another audience" else 401 for name in bad}
    assert {name: proxy.get(CATALOGUE, headers=bearer(one)).status_code for name, one in bad.items()} == wanted
    assert {name: proxy.get(CATALOGUE, auth=("admin", one)).status_code for name, one in bad.items()} == wanted
    assert {name: proxy.post(UPLOADS, headers=bearer(one)).status_code for name, one in bad.items()} == wanted


def test_an_administrator_pushes_and_a_member_pulls(proxy: httpx.Client, token: Token) -> None:
    """An image that an administrator pushes through the proxy is pulled through it by a member, byte for byte."""
    admin, member = bearer(token("admin")), bearer(token("member"))
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    begun = proxy.post(UPLOADS, headers=admin)
    place = urlsplit(begun.headers["Location"])
    assert place.netloc == proxy.base_url.netloc.decode(), "the next request has to come by the proxy too"
    pushed = proxy.put(f"{place.path}?{place.query}&digest={digest(config)}", content=config, headers=admin)
    assert pushed.status_code == 201, pushed.text
    entry = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config), "digest": digest(config)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": entry, "layers": []}).encode()
    tag = "/v2/acceptance/login/manifests/latest"
    put = proxy.put(tag, content=manifest, headers={**admin, "Content-Type": MANIFEST})
    assert put.status_code == 201, put.text
    pulled = proxy.get(tag, headers={**member, "Accept": MANIFEST})
    assert (pulled.status_code, pulled.content) == (200, manifest)
    assert proxy.get(f"/v2/acceptance/login/blobs/{digest(config)}", headers=member).content == config


def test_a_program_for_images_logs_in_with_a_token(
    site: Site, host: Any, hostname: str, proxy: httpx.Client, token: Token
) -> None:
    """The program crane on the registry's host logs in with a token as the password and lists the images."""
    folder = site.value(hostname, "registry_artifact")["directory"]
    endpoint = str(site.value(hostname, "registry_login_endpoint"))
    crane = f"DOCKER_CONFIG=$(pwd) {shlex.quote(folder)}/crane"
    script = f"{crane} auth login {endpoint} --username member --password-stdin && {crane} catalog {endpoint}"
    done = host.run(
        f"cd $(mktemp -d) && ({script}) <<'TOKEN'; code=$?; rm -r \"$(pwd)\"; exit $code\n{token('member')}\nTOKEN"
    )
    assert done.rc == 0, done.stderr
    assert done.stdout.split(), "an empty registry would say nothing about who may read"


def test_the_proxys_own_credentials_stay_its_own(site: Site, hostname: str, proxy: httpx.Client, token: Token) -> None:
    """The registry's own user is refused here, and no answer has its password in it."""
    user, password = str(site.value(hostname, "registry_username")), str(site.value(hostname, "registry_password"))
    assert proxy.get(CATALOGUE, auth=(user, password)).status_code == 401
    secret = (password, base64.b64encode(f"{user}:{password}".encode()).decode())
    member = bearer(token("member"))
    asked = [proxy.get(path, headers=member) for path in ("/v2/", CATALOGUE, "/v2/no/such/manifests/image", "/nothing")]
    asked += [
        proxy.request("TRACE", "/v2/", headers=member),
        proxy.get(CATALOGUE),
        proxy.get("/redirect_uri?info=json"),
    ]
    for answer in asked:
        said = f"{answer.headers!s}{answer.text}"
        assert not [one for one in secret if one in said], f"{answer.request.method} {answer.request.url}"


def test_headers_of_the_proxy_cannot_be_spoofed(proxy: httpx.Client, token: Token) -> None:
    """Headers by which a proxy tells who asks and how get nobody in and change no address."""
    names = ("X-Forwarded-User", "X-Remote-User", "Remote-User", "OIDC_CLAIM_preferred_username", "OIDC-CLAIM-sub")
    spoofed = {
        **dict.fromkeys(names, "admin"),
        "OIDC_CLAIM_groups": "administrators",
        "X-Forwarded-Host": "spoofed.example",
    }
    assert proxy.get(CATALOGUE, headers=spoofed).status_code == 401
    assert proxy.get(CATALOGUE, headers={**spoofed, **bearer(token("guest"))}).status_code == 403
    assert proxy.post(UPLOADS, headers={**spoofed, **bearer(token("member"))}).status_code == 403
    begun = proxy.post(UPLOADS, headers={**spoofed, **bearer(token("admin"))})
    assert begun.status_code == 202
    assert urlsplit(begun.headers["Location"]).netloc == proxy.base_url.netloc.decode()


def test_logging_out_leads_nowhere_else(proxy: httpx.Client) -> None:
    """The logout address sends nobody to another site."""
    answer = proxy.get("/redirect_uri", params={"logout": "https://spoofed.example/"}, headers={"Accept": "text/html"})
    assert "spoofed.example" not in answer.headers.get("Location", "")
    # Module 2.4.12 says why, 2.4.17 says so in the host's log only.
    assert answer.status_code == 400 or "URL not allowed" in answer.text


@pytest.mark.parametrize(("version", "accepted"), [(ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)])
def test_old_encryption_is_refused(
    site: Site, proxy: httpx.Client, hostname: str, authority: ssl.SSLContext, version: ssl.TLSVersion, accepted: bool
) -> None:
    """TLS 1.2 is spoken, TLS 1.1 is not."""
    name, _, port = str(site.value(hostname, "registry_login_endpoint")).rpartition(":")
    # What this side would refuse by itself is no finding.
    authority.set_ciphers("ALL:@SECLEVEL=0")
    authority.minimum_version = authority.maximum_version = version
    with socket.create_connection((site.address(hostname), int(port)), timeout=10) as plain:
        try:
            authority.wrap_socket(plain, server_hostname=name).close()
        except (ssl.SSLError, ConnectionError):
            assert not accepted
        else:
            assert accepted
