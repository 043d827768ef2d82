"""The Infrastructure Manager: who comes in by a token of the IAM, how it runs, and what it keeps."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from testbed.at_address import AtAddress
from tests.acceptance.probes.iam import Iam
from tests.acceptance.probes.identity import forged
from tests.acceptance.probes.site import Site

pytestmark = pytest.mark.group("infrastructure_manager")

AUDIENCE = "im"
UNIT = "deephdc-infrastructure-manager"
DATABASE = "/var/lib/infrastructure-manager/infrastructures.sqlite"
LIST = "/infrastructures"
# One of another organisation comes in too, and sees only what is its own.
COMES_IN = {"member": 200, "outsider": 200, "reader": 401, "admin": 401, "guest": 401}
EMPTY = "system front ()\ndeploy front 1\n"
Token = Callable[[str], str]


@pytest.fixture
def manager(site: Site, hostname: str, authority: ssl.SSLContext) -> Iterator[httpx.Client]:
    """A client that reaches the service by its host's address and checks its certificate for its own name."""
    endpoint = str(site.value(hostname, "infrastructure_manager_endpoint"))
    transport = AtAddress({endpoint.rpartition(":")[0]: site.address(hostname)}, authority)
    with httpx.Client(base_url=f"https://{endpoint}", transport=transport, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def token(site: Site, iam: Iam) -> Token:
    """Part that somebody plays in the checks -> a new token of theirs for this service."""
    people: dict[str, str] = site.value(site.group("iam")[0], "acceptance_people")
    client = str(site.value(site.group("iam")[0], "iam_client"))

    def of(part: str) -> str:
        if part not in people:
            pytest.skip(f"acceptance_people names nobody for: {part}")
        return iam.token(people[part], client, f"openid {AUDIENCE}")

    return of


def credentials(token: str, *lines: str) -> dict[str, str]:
    """The header with a token, and with the credentials for sites."""
    return {"Authorization": "\\n".join([f"id = im; type = InfrastructureManager; token = {token}", *lines])}


def test_it_says_its_version_over_verified_tls(manager: httpx.Client) -> None:
    """The certificate is right for the name, and the version is the declared one."""
    answer = manager.get("/version")
    assert (answer.status_code, answer.text) == (200, "2.0.0")


def test_nobody_comes_in_without_a_token(manager: httpx.Client) -> None:
    """No credentials, a password and rubbish are refused."""
    password = {"Authorization": "id = im; type = InfrastructureManager; username = admin; password = admin"}
    assert manager.get(LIST).status_code == 401
    assert manager.get(LIST, headers=password).status_code == 401
    assert manager.get(LIST, headers=credentials("rubbish")).status_code in {400, 401}


def test_members_of_organisations_come_in_and_nobody_else(manager: httpx.Client, token: Token) -> None:
    """Members of every organisation come in; readers, administrators and people of no organisation do not."""
    found = {part: manager.get(LIST, headers=credentials(token(part))).status_code for part in COMES_IN}
    assert found == COMES_IN


def test_no_other_token_opens_the_door(site: Site, manager: httpx.Client, iam: Iam, token: Token) -> None:
    """Tokens for other services, forged ones and those of other issuers are refused."""
    good, key = token("member"), rsa.generate_private_key(public_exponent=65537, key_size=2048)
    member = site.value(site.group("iam")[0], "acceptance_people")["member"]
    bad = {
        "another audience": iam.token(member, "acceptance-other"),
        "no audience": iam.token(member, str(site.value(site.group("iam")[0], "iam_client"))),
        "another key": forged(good, key),
        "another issuer": forged(good, key, iss="https://iam.example/realms/deep"),
    }
    found = {name: manager.get(LIST, headers=credentials(one)).status_code for name, one in bad.items()}
    assert found == dict.fromkeys(bad, 401)
    assert manager.get(LIST, headers=credentials(good)).status_code == 200


def test_credentials_go_to_sites_of_the_configuration_only(manager: httpx.Client, token: Token) -> None:
    """A site that the configuration does not name is refused before anything is sent there."""
    for line in ("type = Kubernetes; host = https://192.0.2.1:6443; token = x", "type = OpenNebula; host = x:2633"):
        answer = manager.post(LIST, headers=credentials(token("member"), f"id = s; {line}"), content=EMPTY)
        assert answer.status_code == 401, line
        assert "No site of this Infrastructure Manager" in answer.text


def test_templates_fetch_nothing(manager: httpx.Client, token: Token) -> None:
    """An import from elsewhere is refused, as is a file of the host; a template of nobody is not even read."""
    for place in ("https://192.0.2.1/types.yaml", "/etc/passwd"):
        text = f"tosca_definitions_version: tosca_simple_yaml_1_0\nimports: [{place}]\ntopology_template: {{}}\n"
        kind = {"Content-Type": "text/yaml"}
        answer = manager.post(LIST, headers={**credentials(token("member")), **kind}, content=text)
        assert answer.status_code == 400
        assert "imports are not fetched" in answer.text
        answer = manager.post(LIST, headers={**credentials(token("guest")), **kind}, content=text)
        assert answer.status_code == 401
        assert "imports" not in answer.text


def test_it_is_nobody_of_importance_and_keeps_its_data_to_itself(host: Any) -> None:
    """The service runs as its own user without capabilities, and only that user reads the database."""
    process = host.run(f"systemctl show {UNIT} --property=MainPID --value").stdout.strip()
    owner = host.run(f"stat --format=%U /proc/{process}").stdout.strip()
    assert owner == "infrastructure-manager"
    status = host.run(f"cat /proc/{process}/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    database = host.file(DATABASE)
    assert (database.user, oct(database.mode)) == (owner, "0o600")
    assert oct(host.file(DATABASE.rpartition("/")[0]).mode) == "0o700"
    key = host.file("/etc/deephdc/infrastructure-manager/tls.key")
    assert (key.user, key.group, oct(key.mode)) == ("root", owner, "0o640")
    assert host.run(f"runuser -u nobody -- cat {DATABASE}").rc != 0


def test_it_sees_no_package_of_the_host(host: Any) -> None:
    """The program runs on the packages of its artefact, which belong to root, and on nothing else."""
    process = host.run(f"systemctl show {UNIT} --property=MainPID --value").stdout.strip()
    program, options, folder = host.run(f"tr '\\0' '\\n' </proc/{process}/cmdline").stdout.splitlines()[:3]
    assert (program, options) == ("/usr/bin/python3", "-IS")
    assert host.run(f"find {folder} '(' -not -user root -o -perm /022 ')' -print -quit").stdout == ""
    seen = host.run(f"{program} {options} {folder} deep_infrastructure_manager /nowhere")
    assert "/nowhere: cannot be read" in seen.stderr
    assert "No module named" in host.run(f"{program} {options} {folder} no_such_module").stderr


def holds(host: Any, token: str) -> bool:
    """Whether a token is in a file of the service or in its journal."""
    files = f'printf %s "$token" | grep -rqF -f - {DATABASE.rpartition("/")[0]}'
    journal = f'journalctl --unit {UNIT} --output cat --no-pager | grep -qF -e "$token"'
    done = host.run(f"read -r token <<'TOKEN'\n{token}\nTOKEN\n{files} || {journal}")
    return bool(done.rc == 0)


def test_nothing_stays_of_what_was_destroyed(
    site: Site, host: Any, hostname: str, manager: httpx.Client, token: Token
) -> None:
    """What a member makes is nobody else's; destroyed, it leaves neither a row nor the token that made it."""
    if {"type": "Dummy"} not in site.value(hostname, "infrastructure_manager_connectors"):
        pytest.skip("infrastructure_manager_connectors has no Dummy: destroying is checked end to end")
    mine = token("member")
    made = manager.post(LIST, headers=credentials(mine, "id = d; type = Dummy"), content=EMPTY)
    assert made.status_code == 200, made.text
    place = f"{LIST}/{made.headers['InfID']}"
    assert holds(host, mine), "what is looked for below is really there before"
    assert manager.get(place, headers=credentials(token("outsider"))).status_code == 403
    assert manager.delete(place, headers=credentials(mine, "id = d; type = Dummy")).status_code == 200
    assert manager.get(place, headers=credentials(token("member"))).status_code == 404
    assert not holds(host, mine)
