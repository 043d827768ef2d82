"""The IAM in use and in trouble: every way to a token, people who come and go, outages, new keys, a lost database."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_urlsafe

import httpx
import pytest

from plugins.filter.secrets import derived_secret
from testbed import secrets, sites
from testbed.at_address import AtAddress
from testbed.paths import state_dir
from tests.acceptance.probes.iam import Administration, Iam, kid, pkce
from tests.e2e.support import deep_json, kill_deep, run_deep, wait_for

pytestmark = pytest.mark.live

NAME = "e2e-iam"
ISSUER = "https://iam.deep.test:8443/realms/deep"
# Long enough for a check, short enough to be waited for.
TOKEN_SECONDS = 20


def on(*command: str) -> str:
    """What a program on the node says."""
    return run_deep("testbed", "shell", "node1", f"--name={NAME}", "--", *command).stdout.strip()


def deploy(*settings: str) -> None:
    """Bring the testbed to other settings."""
    run_deep("testbed", "up", f"--name={NAME}", "--until=deploy", *(f"--set={setting}" for setting in settings))


def operate(playbook: str, *variables: str, status: int = 0) -> str:
    """Run an operation on the site; returns what it says of a failure."""
    options = [f"--extra-vars={variable}" for variable in variables]
    return run_deep("site", "run", "local", playbook, f"--name={NAME}", *options, status=status).stderr


def main_pid() -> str:
    """The process of Keycloak that runs now."""
    return on("systemctl", "show", "keycloak", "--property=MainPID", "--value")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the node of a testbed with nothing but an IAM is reached; it is removed afterwards."""
    run_deep("testbed", "down", f"--name={NAME}")
    up = ("testbed", "up", f"--name={NAME}", "--profile=iam", "--until=deploy")
    yield deep_json(*up, f"--set=iam_access_token_seconds={TOKEN_SECONDS}")["nodes"][0]["address"]
    run_deep("testbed", "down", f"--name={NAME}")


@pytest.fixture(scope="module")
def authority(address: str) -> str:
    """The certificate of the site's authority, as a deployment leaves it on the control machine."""
    assert address
    return (sites.public_dir("local", NAME) / "ca.crt").read_text(encoding="ascii")


@pytest.fixture(scope="module")
def known_secrets(address: str) -> dict[str, str]:
    """The secrets of the testbed."""
    assert address
    folder = state_dir(NAME)
    return secrets.read(folder / "inventory" / sites.SECRETS_FILE, folder / "vault-password")


@pytest.fixture
def iam(address: str, authority: str, known_secrets: dict[str, str]) -> Iterator[Iam]:
    """The realm, with connections of this test's own."""
    trust = ssl.create_default_context(cadata=authority)
    with Iam(ISSUER, address, trust, known_secrets["iam_seed"]) as found:
        yield found


@pytest.fixture
def administration(iam: Iam, known_secrets: dict[str, str]) -> Administration:
    """What only the site's own administrator may do."""
    return Administration(iam, "deephdc-admin", known_secrets["iam_admin_secret"])


def recovers(iam: Iam) -> None:
    """People can log in again."""
    wait_for(lambda: iam.client.get(f"{ISSUER}/.well-known/openid-configuration").is_success, "an answer")
    wait_for(lambda: iam.login("member").is_success, "a login works again")


def refused(answer: httpx.Response, *errors: str) -> None:
    """The answer is one of these OAuth errors."""
    assert answer.status_code in {400, 401, 403}, f"{answer.status_code} {answer.text[:300]}"
    assert answer.json()["error"] in errors, answer.text


# --- what the issuer says, and to whom ---


def test_discovery_says_what_the_site_says(iam: Iam) -> None:
    """The issuer is the site's, every endpoint is below it, and people's flows and PKCE are there."""
    found = iam.discovery()
    assert found["issuer"] == ISSUER
    assert all(found[key].startswith(ISSUER) for key in found if key.endswith(("_endpoint", "_uri")))
    assert {"authorization_code", "client_credentials", "urn:ietf:params:oauth:grant-type:device_code"} <= {
        *found["grant_types_supported"]
    }
    assert "S256" in found["code_challenge_methods_supported"]


def test_the_certificate_is_for_its_name_by_the_sites_authority(address: str, authority: str) -> None:
    """Whoever does not know the authority, or looks for another server there, does not connect."""
    path = "/realms/deep/.well-known/openid-configuration"
    trust = ssl.create_default_context(cadata=authority)
    names = dict.fromkeys(("iam.deep.test", "registry.deep.test"), address)
    with httpx.Client(transport=AtAddress(names, trust), timeout=30) as client:
        assert client.get(f"https://iam.deep.test:8443{path}").is_success
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            client.get(f"https://registry.deep.test:8443{path}")
    stranger = AtAddress(names, ssl.create_default_context())
    with (
        httpx.Client(transport=stranger, timeout=30) as client,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.get(f"https://iam.deep.test:8443{path}")


@pytest.mark.parametrize("port", [9000, 5432, 8080])
def test_only_the_login_is_reached_from_outside(address: str, port: int) -> None:
    """Health, metrics and the database are for the host itself; nothing is served without TLS."""
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}:{port}/", trust_env=False, timeout=5)
    if port == 9000:
        assert json.loads(on("curl", "--silent", "http://127.0.0.1:9000/health/ready"))["status"] == "UP"


def test_the_interface_for_administrators_refuses_people(iam: Iam, administration: Administration) -> None:
    """Nor does the site's administrator administer the IAM by a token for its services."""
    assert administration.request("GET", "/users").is_success
    for user in ("member", "admin"):
        token = iam.person(user)["access_token"]
        assert administration.request("GET", "/users", token=token).status_code == 403, user
    assert administration.request("GET", "/users", token=pkce()[0]).status_code == 401


# --- ways to a token ---


def test_a_code_is_worth_nothing_without_its_verifier(iam: Iam) -> None:
    """Authorization code with PKCE: asked for without a challenge, or redeemed without the verifier, it is refused."""
    assert iam.code("member")["error"] == "invalid_request"
    verifier, challenge = pkce()
    refused(iam.redeem(iam.code("member", challenge)["code"]), "invalid_grant")
    refused(iam.redeem(iam.code("member", challenge)["code"], code_verifier=pkce()[0]), "invalid_grant")
    code = iam.code("member", challenge)["code"]
    answer = iam.redeem(code, code_verifier=verifier)
    assert iam.claims(answer.json()["access_token"])["preferred_username"] == "member"
    refused(iam.redeem(code, code_verifier=verifier), "invalid_grant")


def test_a_browser_is_sent_nowhere_else(iam: Iam) -> None:
    """A code goes to a program on the person's own machine only."""
    with pytest.raises(AssertionError, match="redirect_uri"):
        iam.code("member", pkce()[1], back="https://elsewhere.deep.test/callback")


def test_a_terminal_gets_a_token_when_its_person_agrees(iam: Iam) -> None:
    """Device code, from the terminal's question to the page in the browser and back."""
    verifier, challenge = pkce()
    shown = iam.device(challenge)
    refused(iam.poll(shown["device_code"], verifier), "authorization_pending")
    assert "Device Login Successful" in iam.approve(shown["verification_uri_complete"], "reader")
    time.sleep(shown["interval"])
    claims = iam.claims(iam.poll(shown["device_code"], verifier).json()["access_token"])
    assert (claims["preferred_username"], claims["groups"]) == ("reader", ["imaging-readers"])
    assert claims["aud"] == "kubernetes"


def test_passwords_are_taken_from_one_client_only(iam: Iam) -> None:
    """The password grant is for the testbed's own people's program."""
    assert iam.login("member").is_success
    refused(iam.login("member", password="wrong" * 4), "invalid_grant")
    form = {"grant_type": "password", "username": "member", "password": iam.password_of("member")}
    answer = iam.ask(client_id="orchestrator", client_secret=iam.secret_of("orchestrator"), **form)
    refused(answer, "unauthorized_client")
    # Keycloak makes it in every realm.
    refused(iam.ask(client_id="admin-cli", **form), "unauthorized_client")


def test_a_service_logs_in_with_its_secret(iam: Iam) -> None:
    """Client credentials: only with the right secret, and only for clients that are services."""
    token = iam.service("orchestrator").json()["access_token"]
    assert iam.claims(token)["azp"] == "orchestrator"
    refused(iam.service("orchestrator", client_secret="0" * 40), "unauthorized_client", "invalid_client")
    refused(iam.ask(grant_type="client_credentials", client_id="deep"), "unauthorized_client")


def test_the_orchestrator_acts_for_the_person_who_asked_it(iam: Iam) -> None:
    """Token exchange: of a token that was meant for it, for the person's own rights, and by nobody else."""
    meant = iam.person("member", scope="openid orchestrator")["access_token"]
    answer = iam.exchange("orchestrator", meant, scope="openid kubernetes")
    assert answer.is_success, answer.text
    claims = iam.claims(answer.json()["access_token"])
    assert (claims["preferred_username"], claims["groups"]) == ("member", ["imaging"])
    assert (claims["aud"], claims["azp"]) == ("kubernetes", "orchestrator")
    refresh = "urn:ietf:params:oauth:token-type:refresh_token"
    longer = iam.exchange("orchestrator", meant, scope="openid kubernetes", requested_token_type=refresh)
    assert longer.is_success, longer.text
    renewed = iam.refresh(longer.json()["refresh_token"], "orchestrator")
    assert renewed.is_success, renewed.text
    assert iam.claims(renewed.json()["access_token"])["aud"] == "kubernetes"
    refused(iam.exchange("orchestrator", iam.person("member")["access_token"]), "access_denied", "invalid_request")
    refused(iam.exchange("deep", meant), "invalid_request", "unauthorized_client")
    refused(iam.exchange("orchestrator", meant, client_secret="0" * 40), "unauthorized_client", "invalid_client")


def test_a_refresh_token_is_good_once(iam: Iam) -> None:
    """Who uses one a second time ends the session: one of the two has stolen it."""
    first = iam.person("member")["refresh_token"]
    second = iam.refresh(first).json()["refresh_token"]
    refused(iam.refresh(first), "invalid_grant")
    refused(iam.refresh(second), "invalid_grant")


def test_guessing_passwords_locks_the_person(iam: Iam, administration: Administration) -> None:
    """After wrong passwords the right one is refused too, until an administrator looks at it or time has passed."""
    for attempt in range(12):
        refused(iam.login("outsider", password=f"guess-{attempt}-wrong"), "invalid_grant")
    refused(iam.login("outsider"), "invalid_grant")
    assert iam.login("member").is_success
    administration.change("DELETE", "/attack-detection/brute-force/users")
    assert iam.login("outsider").is_success


# --- people who come and go ---


def test_the_realm_follows_the_inventory_and_leaves_what_is_others(iam: Iam, administration: Administration) -> None:
    """Taken out of a group, disabled and removed people lose their rights with their token; others' things stay."""
    administration.change("POST", "/groups", {"name": "others"})
    administration.change("POST", "/clients", {"clientId": "others-client", "publicClient": True})
    administration.change("POST", "/users", {"username": "others-guest", "enabled": True, "groups": ["others"]})
    before = {user: iam.person(user) for user in ("member", "outsider", "reader")}
    people = [
        {"name": "member", "groups": ["visitors"]},
        {"name": "outsider", "groups": ["climate"], "enabled": False},
        {"name": "admin", "groups": ["administrators"]},
        {"name": "newcomer", "groups": ["imaging", "visitors"]},
    ]
    portal = [{"name": "portal", "kind": "confidential", "flows": ["service"]}]
    deploy(f"iam_users={json.dumps(people)}", "iam_more_groups=[visitors]", f"iam_clients={json.dumps(portal)}")

    now = iam.refresh(before["member"]["refresh_token"]).json()
    assert iam.claims(now["access_token"])["groups"] == ["visitors"]
    for user in ("outsider", "reader"):
        refused(iam.refresh(before[user]["refresh_token"]), "invalid_grant")
        refused(iam.login(user), "invalid_grant")
        assert before[user]["expires_in"] <= TOKEN_SECONDS
    assert iam.claims(iam.person("newcomer")["access_token"])["groups"] == ["imaging", "visitors"]
    assert iam.service("portal").is_success

    deploy("iam_users=", "iam_more_groups=", "iam_clients=")

    assert iam.claims(iam.person("reader")["access_token"])["groups"] == ["imaging-readers"]
    assert iam.login("outsider").is_success
    refused(iam.login("newcomer"), "invalid_grant")
    refused(iam.service("portal"), "invalid_client", "unauthorized_client")
    assert "visitors" not in administration.groups()
    assert "others" in administration.groups()
    assert "others-client" in administration.clients()
    assert administration.user("others-guest")


def test_a_group_inside_another_gives_no_rights_by_its_name(iam: Iam, administration: Administration) -> None:
    """A deployment takes the site's people out of it and fails; others are told who is in it."""
    administration.change("POST", "/groups", {"name": "guests"})
    guests = administration.get("/groups?search=guests&exact=true")[0]["id"]
    administration.change("POST", f"/groups/{guests}/children", {"name": "imaging"})
    inner = administration.get(f"/groups/{guests}/children")[0]["id"]
    administration.change("PUT", f"/users/{administration.user('outsider')['id']}/groups/{inner}")
    assert "imaging" in iam.claims(iam.person("outsider")["access_token"])["groups"], "what this is about"
    assert "/guests/imaging" in operate("iam", status=1)
    assert iam.claims(iam.person("outsider")["access_token"])["groups"] == ["climate"]
    administration.change("PUT", f"/groups/{inner}", {"name": "imaging-guests"})
    operate("iam")
    administration.change("DELETE", f"/groups/{guests}")


# --- keys ---


def test_new_keys_log_nobody_out(iam: Iam) -> None:
    """Both keys are believed, the new one signs, sessions go on, and a second rotation at once removes nothing."""
    before = iam.person("member")
    operate("rotate_iam_keys")
    issued = time.time()
    assert iam.claims(before["access_token"], at=issued - 1)["preferred_username"] == "member"
    after = iam.refresh(before["refresh_token"]).json()
    assert kid(after["access_token"]) != kid(before["access_token"])
    assert iam.claims(after["access_token"])["preferred_username"] == "member"
    operate("rotate_iam_keys")
    assert {kid(before["access_token"]), kid(after["access_token"])} < {*iam.keys()}
    # Whoever has got hold of a key: all that it has signed is refused at once, and sessions still go on.
    operate("rotate_iam_keys", "iam_key_keep_seconds=0")
    assert len(iam.keys()) == 1
    with pytest.raises(AssertionError, match="unknown key"):
        iam.claims(after["access_token"])
    assert iam.refresh(after["refresh_token"]).is_success


# --- outages ---


def test_while_it_is_down_nobody_logs_in_and_then_everything_goes_on(iam: Iam) -> None:
    """Sessions survive a stop; a program sees that it cannot connect."""
    before = iam.person("member")
    on("systemctl", "stop", "keycloak")
    with pytest.raises(httpx.ConnectError):
        iam.login("member")
    on("systemctl", "start", "keycloak")
    recovers(iam)
    assert iam.refresh(before["refresh_token"]).is_success


def test_killed_it_comes_back_by_itself(iam: Iam) -> None:
    """SIGKILL, as the kernel does where memory is short."""
    before = main_pid()
    on("systemctl", "kill", "--signal=KILL", "keycloak")
    wait_for(lambda: main_pid() not in {"0", before}, "another process")
    recovers(iam)


def test_a_restart_of_the_database_needs_no_other(iam: Iam) -> None:
    """Connections are made anew under a running Keycloak."""
    before = main_pid()
    session = iam.person("member")["refresh_token"]
    on("systemctl", "restart", "postgresql")
    wait_for(lambda: iam.login("reader").is_success, "a login works again")
    assert iam.refresh(session).is_success
    assert main_pid() == before


def test_it_comes_back_with_its_host(iam: Iam) -> None:
    """A reboot of the host ends no session."""
    session = iam.person("member")["refresh_token"]
    subprocess.run(["docker", "restart", "--time=20", f"deep-{NAME}-node1"], check=True, capture_output=True)
    recovers(iam)
    assert iam.refresh(session).is_success
    assert on("getent", "hosts", "iam.deep.test"), "a node keeps its names"


# --- a lost database ---


@pytest.fixture(scope="module")
def backup(address: str) -> Path:
    """A backup, made while the IAM runs."""
    assert address
    operate("backup")
    return max(sites.backup_dir("local", NAME).iterdir())


def destroy() -> None:
    """As a new host has it: no service, no configuration, no data."""
    script = """
    systemctl stop keycloak
    runuser -u postgres -- dropdb --force keycloak
    runuser -u postgres -- dropuser keycloak
    rm -rf /etc/systemd/system/keycloak.service /etc/deephdc/iam /var/lib/keycloak
    systemctl daemon-reload
    """
    on("sh", "-ec", script)


def test_the_backup_brings_back_people_passwords_and_keys(iam: Iam, administration: Administration) -> None:
    """The database and the service are destroyed; what was issued before is believed, and sessions go on."""
    chosen = token_urlsafe()
    administration.set_password("reader", chosen)
    administration.change("POST", "/groups", {"name": "made-by-others"})
    session = iam.person("reader", password=chosen)
    issued = time.time()
    keys = {*iam.keys()}
    operate("backup")
    destroy()
    with pytest.raises(httpx.TransportError):
        iam.login("member")

    operate("restore", "confirm=local")

    assert {*iam.keys()} == keys
    assert iam.claims(session["access_token"], at=issued)["preferred_username"] == "reader"
    refused(iam.login("reader"), "invalid_grant")
    claims = iam.claims(iam.person("reader", password=chosen)["access_token"])
    assert claims["groups"] == ["imaging-readers"]
    assert iam.refresh(session["refresh_token"]).is_success
    assert "made-by-others" in administration.groups()
    assert iam.claims(iam.service("orchestrator").json()["access_token"])["azp"] == "orchestrator"


def test_backups_are_for_their_owner_and_encrypted(backup: Path) -> None:
    """Nobody else reads the files, and nothing of the database is readable in them."""
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (backup.parent, backup, *backup.iterdir())}
    assert modes == {"backups": "0o700", backup.name: "0o700", "manifest.json": "0o600", "database.enc": "0o600"}
    content = (backup / "database.enc").read_bytes()
    assert content.startswith(b"Salted__")
    assert b"keycloak" not in content
    assert b"PGDMP" not in content
    left = on("find", "/var", "/root", "-newer", "/etc/deephdc/iam/keycloak.conf", "-name", "*database*")
    assert left == ""


def test_only_so_many_backups_are_kept(backup: Path) -> None:
    """The oldest go, and so does one that was cut short."""
    cut = backup.with_name("iam-local-20200101T000000Z")
    cut.mkdir()
    operate("backup", "iam_backup_keep=2")
    operate("backup", "iam_backup_keep=2")
    found = sorted(path.name for path in backup.parent.iterdir())
    assert len(found) == 2
    assert cut.name not in found


@pytest.fixture
def newest(address: str, tmp_path: Path) -> Path:
    """A copy of the newest backup, to be spoilt."""
    assert address
    return Path(shutil.copytree(max(sites.backup_dir("local", NAME).iterdir()), tmp_path / "spoilt"))


def respell(backup: Path, seed: str, **changes: str) -> None:
    """A manifest that says something else, signed as the site does."""
    file = backup / "manifest.json"
    content = {**json.loads(file.read_text(encoding="utf-8")), **changes}
    content.pop("signature")
    signature = derived_secret(seed, "backup", json.dumps(content, sort_keys=True))
    file.write_text(json.dumps({**content, "signature": signature}), encoding="utf-8")


def test_what_cannot_be_restored_is_refused_before_anything_is_touched(
    iam: Iam, newest: Path, known_secrets: dict[str, str]
) -> None:
    """No confirmation, no backup, another seed's, a newer Keycloak's, a damaged one."""
    before, seed = main_pid(), known_secrets["iam_seed"]
    chosen = f"iam_restore_from={newest}"
    assert "confirm=local" in operate("restore", status=1)
    assert "no backup to restore" in operate("restore", "confirm=local", f"iam_restore_from={newest}/no", status=1)
    respell(newest, "0" * 64)
    assert "another signature" in operate("restore", "confirm=local", chosen, status=1)
    respell(newest, seed, keycloak="99.0.0")
    assert "99.0.0" in operate("restore", "confirm=local", chosen, status=1)
    respell(newest, seed, keycloak="1.0.0")
    (newest / "database.enc").write_bytes(b"Salted__" + bytes(64))
    assert "is damaged" in operate("restore", "confirm=local", chosen, status=1)
    assert main_pid() == before
    assert iam.login("member").is_success


def test_a_restore_that_fails_leaves_the_database_of_before(iam: Iam, administration: Administration) -> None:
    """The restored one is not up in time: the IAM goes on with what it had."""
    chosen = token_urlsafe()
    administration.set_password("outsider", chosen)
    said = operate("restore", "confirm=local", "iam_timeout=1", status=1)
    assert "the database of before is in use again" in said
    recovers(iam)
    assert iam.login("outsider", password=chosen).is_success
    assert "keycloak_" not in databases()


def test_a_restore_that_is_killed_is_undone_by_the_next(iam: Iam, administration: Administration, backup: Path) -> None:
    """While the backup is in use already: what was there before is neither lost nor mixed with it."""
    mode = backup.parent.stat().st_mode
    backup.parent.chmod(0o750)
    operate("backup")
    assert backup.parent.stat().st_mode & 0o777 == 0o750, "the site's own folder"
    backup.parent.chmod(mode)
    chosen = token_urlsafe()
    administration.set_password("guest", chosen)
    kill_amid_restore()
    said = operate("restore", "confirm=local", "iam_timeout=1", status=1)
    assert "the database of before is in use again" in said
    recovers(iam)
    assert iam.login("guest", password=chosen).is_success
    kill_amid_restore()
    operate("restore", "confirm=local")
    assert "keycloak_" not in databases()
    refused(iam.login("guest", password=chosen), "invalid_grant")
    assert iam.login("guest").is_success


def databases() -> str:
    """Names of the databases on the node."""
    return on("runuser", "-u", "postgres", "--", "psql", "--csv", "--command=SELECT datname FROM pg_database")


def kill_amid_restore() -> None:
    """Kill a restore once the backup is in use."""
    restore = ("site", "run", "local", "restore", f"--name={NAME}", "--extra-vars=confirm=local")
    kill_deep(*restore, once=lambda: "keycloak_before" in databases())
    assert "keycloak_before" in databases(), "killed before its end"
