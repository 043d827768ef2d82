"""Logging in at a site: every way in, the tokens that are kept, what programs are given, and what can go wrong."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from plugins.filter.secrets import derived_secret
from testbed import iam_flows, login, secrets, site_check, sites
from testbed.cli import ROOMS
from testbed.cli.login import app, complete_user
from testbed.errors import DeepError
from testbed.iam import Client, NoAnswerError, RefusedError, Tokens
from testbed.login import Place
from testbed.paths import repo_root, site_state_dir, state_dir
from tests.unit.login_issuer import Authority, Issuer, serving

NAME = "iam.deep.test"
PEOPLE = sorted(
    user["name"]
    for user in yaml.safe_load((repo_root() / "inventories/local/group_vars/all/main.yml").read_text())["iam_users"]
)
HOSTS = {"node1": {"ansible_host": "127.0.0.1"}, "node2": {"ansible_host": "127.0.0.2"}}
GROUPS = {"pki": ["node1"], "iam": ["node1"], "kubernetes_control_plane": ["node2"]}
runner = CliRunner()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority) -> Path:
    """The state of a deployed testbed ``x``."""
    shutil.copytree(repo_root() / "inventories", tmp_path / "inventories", ignore=shutil.ignore_patterns("secrets.yml"))
    monkeypatch.setattr(sites, "inventories", lambda: tmp_path / "inventories")
    monkeypatch.setenv("DEEP_STATE_DIR", str(tmp_path / "state"))
    folder = state_dir("x")
    children = {group: {"hosts": dict.fromkeys(hosts)} for group, hosts in GROUPS.items()}
    variables(folder, {})
    (folder / "inventory" / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": HOSTS, "children": children}}))
    sites.secrets("local", "x")
    (folder / "public").mkdir()
    (folder / "public" / "ca.crt").write_bytes(authority.pem)
    (folder / "public" / "kubernetes-ca.crt").write_bytes(b"the cluster's")
    return folder


def variables(folder: Path, more: dict[str, Any]) -> None:
    """Set variables of the testbed."""
    file = folder / "inventory" / "group_vars" / "all" / "own.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(more))


@pytest.fixture
def issuer(testbed: Path, authority: Authority, tmp_path: Path) -> Iterator[Issuer]:
    """The identity provider of the testbed, which knows its people."""
    with serving(Issuer(NAME), authority.context(NAME, tmp_path)) as found:
        variables(testbed, {"iam_endpoint": f"{NAME}:{found.port}"})
        secret_file = testbed / "inventory" / "group_vars" / "all" / "secrets.yml"
        seed = secrets.read(secret_file, testbed / "vault-password")["iam_seed"]
        found.passwords = {user: derived_secret(seed, "user", user) for user in ("member", "admin")}
        yield found


def place() -> Place:
    """The testbed, its inventory read afresh."""
    return Place("local", "x")


def quiet(line: str) -> None:
    """Show nothing."""


def member() -> dict[str, Any]:
    return login.log_in(place(), quiet, user="member")


def aged(seconds: float, **more: Any) -> None:
    """Let the token that is kept have so many seconds left."""
    kept = login._kept(place())
    assert kept is not None
    login._keep(place(), replace(kept, tokens=replace(kept.tokens, until=time.time() + seconds, **more)))


# --- ways in -------------------------------------------------------------------------------------------------------


def test_one_of_the_testbeds_people_logs_in(issuer: Issuer, testbed: Path) -> None:
    found = member()
    assert (found["user"], found["groups"], found["issuer"]) == ("member", ["a", "b"], issuer.url)
    assert found["until"].endswith("Z")
    # The name of the testbed is known to no resolver here, and still the one that the server sees.
    assert issuer.hosts == {f"{NAME}:{issuer.port}"}
    ((_, asked), _) = issuer.asked
    assert asked["scope"] == "openid profile"
    assert (testbed / "login.json").stat().st_mode & 0o777 == 0o600
    assert login.who(place()) == found


def test_a_password_of_the_inventory_is_used(issuer: Issuer, testbed: Path) -> None:
    people = [{"name": "member", "password": "chosen"}]
    variables(testbed, {"iam_endpoint": f"{NAME}:{issuer.port}", "iam_users": people})
    issuer.passwords["member"] = "chosen"
    assert member()["user"] == "member"


def test_an_unknown_user_is_told_who_there_is(issuer: Issuer) -> None:
    with pytest.raises(DeepError, match="no user nobody") as refused:
        login.log_in(place(), quiet, user="nobody")
    assert refused.value.needed == f"one of: {', '.join(PEOPLE)}"
    assert issuer.asked == []


def test_people_of_a_production_site_are_not_chosen_by_name(testbed: Path) -> None:
    with pytest.raises(DeepError, match="only the people of a testbed") as refused:
        login.log_in(Place("ifca"), quiet, user="member")
    assert refused.value.next_step == "log in as yourself: deep login ifca"


def test_a_refused_password_is_told(issuer: Issuer) -> None:
    issuer.passwords["member"] = "another"
    with pytest.raises(DeepError, match="the login of member is refused") as refused:
        member()
    assert (refused.value.found, refused.value.exit_code) == ("Invalid user credentials", 1)
    assert not (place().folder / "login.json").exists()


def test_a_client_that_may_not_is_told(issuer: Issuer, testbed: Path) -> None:
    variables(testbed, {"iam_endpoint": f"{NAME}:{issuer.port}", "iam_client": "other"})
    with pytest.raises(RefusedError, match="invalid_client"):
        member()


def test_a_device_is_asked_for_until_it_is_confirmed(issuer: Issuer) -> None:
    issuer.device_answers = ["authorization_pending", "slow_down", "down", "authorization_pending", ""]
    issuer.device["interval"] = 2
    shown: list[str] = []
    waited: list[float] = []
    with Client(login.provider(place())) as client:
        tokens = iam_flows.by_device(client, shown.append, waited.append)
    assert shown == [f"Open {issuer.url}/device", "and confirm the code ABCD-EFGH"]
    assert waited == [2, 2, 7, 12, 12]
    assert tokens.access == "access-1"


def test_the_default_is_a_device(issuer: Issuer) -> None:
    issuer.device["verification_uri_complete"] = "https://complete"
    shown: list[str] = []
    assert login.log_in(place(), shown.append)["user"] == "member"
    assert shown[0] == "Open https://complete"
    assert login.token(place()).access == "access-1"


@pytest.mark.parametrize(
    ("answers", "expires_in", "found"),
    [
        (["access_denied"], 60, "it was refused in the browser"),
        (["authorization_pending", "expired_token"], 60, "nobody confirmed it in time"),
        ([], 0, "nobody confirmed it in time"),
    ],
)
def test_a_device_that_is_not_confirmed_is_told(
    issuer: Issuer, answers: list[str], expires_in: int, found: str
) -> None:
    issuer.device_answers, issuer.device["expires_in"] = answers, expires_in
    with pytest.raises(DeepError, match="the login was not confirmed") as refused:
        login.log_in(place(), quiet)
    assert (refused.value.found, refused.value.exit_code) == (found, 1)


def test_what_else_a_device_is_answered_is_told(issuer: Issuer) -> None:
    issuer.device_answers = ["unauthorized_client"]
    with pytest.raises(RefusedError, match="unauthorized_client"):
        login.log_in(place(), quiet)


def browse(issuer: Issuer, *first: tuple[str, dict[str, str]], **changed: str) -> Any:
    """A browser in which the person logs in at once, after requests ``first`` (path, changes to the answer) by others.

    ``changed`` is what the browser brings back otherwise. ``statuses`` of what is returned are those of all requests.
    """

    def open_(url: str) -> None:
        asked = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
        issuer.challenge = asked["code_challenge"]
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        home = asked["redirect_uri"]
        assert home.startswith("http://127.0.0.1:")
        brings = {"code": "c", "state": asked["state"], **changed}

        def back() -> None:
            with socket.create_connection(("127.0.0.1", urlsplit(home).port)):
                # Nothing comes over this connection, and it blocks nobody.
                for path, others in [*first, ("", {})]:
                    query = {key: value for key, value in {**brings, **others}.items() if value}
                    statuses.append(httpx.get(home + path, params=query, timeout=5).status_code)

        pool.submit(back)

    pool = ThreadPoolExecutor(1)
    statuses: list[int] = []
    return SimpleNamespace(open=open_, statuses=statuses, end=pool.shutdown)


def test_a_browser_brings_the_code_back(issuer: Issuer) -> None:
    browser = browse(issuer)
    with Client(login.provider(place())) as client:
        tokens = iam_flows.by_browser(client, quiet, browser.open)
    browser.end()
    assert tokens.access == "access-1"
    assert issuer.grants() == ["authorization_code"]
    assert browser.statuses == [200]


@pytest.mark.parametrize(
    ("path", "others", "status"),
    [
        ("favicon.ico", {}, 404),
        ("", {"state": "another"}, 400),
        ("", {"state": "", "code": "stolen"}, 400),
        ("", {"state": "another", "code": "", "error": "access_denied"}, 400),
        ("", {"code": ""}, 400),
    ],
)
def test_what_others_bring_is_sent_away_and_the_browser_waited_for(
    issuer: Issuer, path: str, others: dict[str, str], status: int
) -> None:
    browser = browse(issuer, (path, others))
    with Client(login.provider(place())) as client:
        tokens = iam_flows.by_browser(client, quiet, browser.open)
    browser.end()
    assert tokens.access == "access-1"
    assert browser.statuses == [status, 200]


def test_a_refusal_in_the_browser_is_told(issuer: Issuer) -> None:
    browser = browse(issuer, code="", error="access_denied")
    with Client(login.provider(place())) as client, pytest.raises(DeepError, match="not confirmed") as refused:
        iam_flows.by_browser(client, quiet, browser.open)
    assert refused.value.found == "it was refused in the browser"
    assert issuer.grants() == []


def test_a_browser_that_never_comes_back_is_told(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iam_flows, "BROWSER_PATIENCE", 0.1)
    with Client(login.provider(place())) as client, pytest.raises(DeepError) as refused:
        iam_flows.by_browser(client, quiet, quiet)
    assert refused.value.found == "nobody confirmed it in time"


def ask_by_password(client: Client) -> None:
    iam_flows.by_password(client, "member", "chosen")


def ask_by_device(client: Client) -> None:
    iam_flows.by_device(client, quiet, lambda _: None)


@pytest.mark.parametrize("audience", [[], ["kubernetes", "registry"]])
@pytest.mark.parametrize(
    ("ask", "requests"), [(ask_by_password, ["token"]), (ask_by_device, ["device_authorization", "token"])]
)
def test_each_request_names_the_services_that_a_token_is_for(
    issuer: Issuer, testbed: Path, ask: Any, requests: list[str], audience: list[str]
) -> None:
    variables(testbed, {"iam_endpoint": f"{NAME}:{issuer.port}", "iam_audience": audience})
    issuer.passwords["member"] = "chosen"
    with Client(login.provider(place())) as client:
        ask(client)
        client.grant("refresh_token", refresh_token="refresh-1")
        url = client.authorization_url("http://127.0.0.1/", "state", "verifier")
    assert [what for what, _ in issuer.asked] == [*requests, "token"]
    expected = [" ".join(audience)] if audience else []
    asked = [[fields["audience"]] if "audience" in fields else [] for _, fields in issuer.asked]
    assert [*asked, parse_qs(urlsplit(url).query).get("audience", [])] == [expected] * (len(requests) + 2)


# --- tokens --------------------------------------------------------------------------------------------------------


def test_a_token_with_time_left_is_given_without_asking(issuer: Issuer) -> None:
    member()
    issuer.asked.clear()
    aged(40)
    assert login.token(place()).access == "access-1"
    assert issuer.asked == []


@pytest.mark.parametrize("left", [20, -5])
def test_a_token_near_its_end_is_renewed(issuer: Issuer, testbed: Path, left: float) -> None:
    member()
    aged(left)
    found = login.token(place())
    assert (found.access, found.refresh) == ("access-2", "refresh-2")
    assert login.token(place()) == found
    assert issuer.grants() == ["password", "refresh_token"]
    assert (testbed / "login.json").stat().st_mode & 0o777 == 0o600


def test_a_refresh_token_that_stays_the_same_is_kept(issuer: Issuer) -> None:
    issuer.rotates = False
    member()
    for number in (2, 3):
        aged(0)
        found = login.token(place())
        assert (found.access, found.refresh) == (f"access-{number}", "refresh-1")


def test_commands_side_by_side_renew_once(issuer: Issuer) -> None:
    member()
    aged(5)
    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(lambda _: login.token(place()).access, range(6)))
    assert found == {"access-2"}
    assert issuer.grants() == ["password", "refresh_token"]


def test_a_lock_that_is_never_given_back_is_told(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "LOCK_PATIENCE", 0.1)
    with login.alone(place()), pytest.raises(DeepError, match="another command is working on the login") as refused:
        login.token(place())
    assert refused.value.found == f"process {os.getpid()}"


def test_a_token_is_given_until_its_end_while_the_provider_is_down(issuer: Issuer) -> None:
    member()
    issuer.down = True
    aged(10)
    assert login.token(place()).access == "access-1"
    assert login.credential(place())["status"]["token"] == "access-1"
    aged(-1)
    with pytest.raises(NoAnswerError, match="node1: the identity provider does not answer") as lost:
        login.token(place())
    assert "HTTP status 503" in str(lost.value.found)
    issuer.down = False
    assert login.token(place()).access == "access-2"


@pytest.mark.parametrize(("left", "refresh"), [(10, "spent"), (-1, "spent"), (-1, "")])
def test_a_login_that_has_ended_is_told(issuer: Issuer, left: float, refresh: str) -> None:
    member()
    aged(left, refresh=refresh)
    with pytest.raises(DeepError, match="the login at local --name x has ended") as ended:
        login.token(place())
    assert ended.value.next_step == "deep login local --name x --as USER"
    assert ended.value.exit_code == 1


def test_a_token_that_cannot_be_renewed_is_given_until_its_end(issuer: Issuer) -> None:
    member()
    aged(10, refresh="")
    assert login.token(place()).access == "access-1"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sites whose inventory was read, as often as it was."""
    found: list[str] = []
    read = site_check.settings

    def counted(site: str, *arguments: Any) -> Any:
        found.append(site)
        return read(site, *arguments)

    monkeypatch.setattr(site_check, "settings", counted)
    return found


def test_the_inventory_is_read_only_after_it_has_changed(issuer: Issuer, testbed: Path, reads: list[str]) -> None:
    member()
    reads.clear()
    assert login.token(place()).access == "access-1"
    assert reads == []
    variables(testbed, {"iam_endpoint": f"{NAME}:{issuer.port}", "motd": "changed"})
    assert [login.token(place()).access for _ in range(3)] == ["access-1"] * 3
    assert reads == ["local"]


@pytest.mark.parametrize(
    ("changed", "needed"),
    [
        ({"iam_client": "other"}, f"tokens for client other by https://{NAME}:PORT/realms/deep"),
        ({"iam_issuer": "https://other.example"}, "tokens for client deep by https://other.example"),
        ({"iam_issuer": ""}, "tokens for client deep by nobody, as iam_issuer is empty"),
    ],
)
@pytest.mark.parametrize("left", [100, 10, -1])
def test_a_login_of_before_the_inventory_changed_is_not_used(
    issuer: Issuer, testbed: Path, changed: dict[str, str], needed: str, left: int
) -> None:
    member()
    aged(left)
    issuer.asked.clear()
    variables(testbed, {"iam_endpoint": f"{NAME}:{issuer.port}", **changed})
    for call in (login.token, login.who, login.credential):
        with pytest.raises(DeepError, match="is one of before the inventory changed") as refused:
            call(place())
        assert refused.value.found == f"tokens for client deep by {issuer.url}"
        assert refused.value.needed == needed.replace("PORT", str(issuer.port))
        assert refused.value.next_step == "deep login local --name x --as USER"
    assert issuer.asked == []


def test_a_refresh_token_goes_to_nobody_but_its_issuer(issuer: Issuer, testbed: Path) -> None:
    member()
    kept = login._kept(place())
    assert kept is not None
    login._keep(place(), replace(kept, issuer="https://before.example"))
    aged(10)
    issuer.asked.clear()
    with pytest.raises(DeepError, match="is one of before the inventory changed"):
        login.token(place())
    assert login.log_out(place()) == {"ok": True, "site": "local", "logged_out": True, "revoked": False}
    assert issuer.asked == []
    assert not (testbed / "login.json").exists()


def test_a_refusal_that_is_not_about_the_login_is_told(issuer: Issuer) -> None:
    member()
    aged(10)
    issuer.client = "another"
    with pytest.raises(RefusedError, match="invalid_client"):
        login.token(place())


def test_nobody_is_logged_in(testbed: Path) -> None:
    with pytest.raises(DeepError, match="not logged in at local --name x") as refused:
        login.token(place())
    assert refused.value.exit_code == 1


UNREADABLE = (
    "{}",
    "junk",
    '{"issuer": "i", "client": "c", "inventory": "", "tokens": {"access": "a", "until": "soon"}}',
    '{"issuer": "i", "client": "c", "inventory": "", "tokens": {"access": "a", "until": null}}',
)


@pytest.mark.parametrize("content", UNREADABLE)
def test_unreadable_tokens_are_told(testbed: Path, content: str) -> None:
    (testbed / "login.json").write_text(content)
    with pytest.raises(DeepError, match=r"the tokens in .*login.json cannot be read") as refused:
        login.token(place())
    assert refused.value.next_step == "deep login local --name x --as USER"


@pytest.mark.parametrize("content", UNREADABLE)
def test_unreadable_tokens_are_forgotten_by_a_logout(testbed: Path, content: str) -> None:
    (testbed / "login.json").write_text(content)
    assert login.log_out(place()) == {"ok": True, "site": "local", "logged_out": True, "revoked": False}
    assert not (testbed / "login.json").exists()


def test_a_token_that_is_no_longer_accepted_is_told(issuer: Issuer) -> None:
    member()
    issuer.usable.clear()
    with pytest.raises(DeepError, match="is no longer accepted"):
        login.who(place())


def test_logging_out_ends_the_login_and_removes_the_tokens(issuer: Issuer, testbed: Path) -> None:
    member()
    assert login.log_out(place()) == {"ok": True, "site": "local", "logged_out": True, "revoked": True}
    assert issuer.revoked == ["refresh-1"]
    assert not (testbed / "login.json").exists()
    assert login.log_out(place()) == {"ok": True, "site": "local", "logged_out": False, "revoked": False}


def test_logging_out_does_not_need_the_provider(issuer: Issuer, testbed: Path) -> None:
    member()
    issuer.down = True
    assert login.log_out(place())["revoked"] is False
    assert not (testbed / "login.json").exists()


def test_tokens_are_never_shown_by_accident() -> None:
    assert "secret" not in repr(Tokens("secret", 1.0, "secret"))


def test_tokens_lie_in_the_state_of_the_site(testbed: Path) -> None:
    assert place().folder == state_dir("x")
    assert Place("ifca").folder == site_state_dir("ifca")


# --- where the provider is, and whether it is the right one ---------------------------------------------------------


def test_a_certificate_of_another_authority_is_not_accepted(issuer: Issuer, testbed: Path) -> None:
    (testbed / "public" / "ca.crt").write_bytes(Authority().pem)
    with pytest.raises(DeepError, match="the certificate of the identity provider is not accepted") as refused:
        member()
    assert not isinstance(refused.value, NoAnswerError)
    assert "certificate" in str(refused.value.found)
    assert "ca.crt" in str(refused.value.needed)


def test_a_certificate_for_another_name_is_not_accepted(testbed: Path, authority: Authority, tmp_path: Path) -> None:
    with serving(Issuer(NAME), authority.context("other.deep.test", tmp_path)) as found:
        variables(testbed, {"iam_endpoint": f"{NAME}:{found.port}"})
        with pytest.raises(DeepError, match="is not accepted") as refused:
            member()
    assert "mismatch" in str(refused.value.found)


def test_a_missing_authority_is_told(issuer: Issuer, testbed: Path) -> None:
    (testbed / "public" / "ca.crt").unlink()
    with pytest.raises(DeepError, match=r"ca\.crt of the site is not on this machine") as refused:
        member()
    assert "deep site deploy local --name x" in str(refused.value.next_step)


def test_nobody_at_the_address_is_told(testbed: Path) -> None:
    variables(testbed, {"iam_endpoint": f"{NAME}:1"})
    with pytest.raises(NoAnswerError) as lost:
        member()
    assert (lost.value.host, lost.value.exit_code) == ("node1", 1)
    assert str(lost.value.found).startswith("127.0.0.1:1: ")


def test_another_issuer_is_not_taken(issuer: Issuer) -> None:
    issuer.told_issuer = "https://elsewhere.example"
    with pytest.raises(DeepError, match="the identity provider is another one") as refused:
        member()
    assert refused.value.found == "issuer https://elsewhere.example"


def test_an_endpoint_without_tls_is_not_used(issuer: Issuer) -> None:
    with Client(login.provider(place())) as client:
        client.endpoints["userinfo_endpoint"] = "http://iam.deep.test/userinfo"
        with pytest.raises(DeepError, match="offers no userinfo"):
            client.person("access-1")


@pytest.mark.parametrize("issuer_", ["", "http://iam.deep.test"])
def test_a_site_without_an_identity_provider_is_told(testbed: Path, issuer_: str) -> None:
    variables(testbed, {"iam_issuer": issuer_})
    with pytest.raises(DeepError, match="it has no identity provider"):
        member()


def test_a_provider_elsewhere_is_reached_by_its_name(testbed: Path) -> None:
    variables(testbed, {"iam_issuer": "https://login.example/", "iam_issuer_authority": "system"})
    found = login.provider(place())
    assert (found.address, found.authority, found.name) == ("", None, "login.example")


def test_people_need_no_password_of_the_vault(testbed: Path) -> None:
    sites.secrets("ifca")
    sites.vault_password_file("ifca").unlink()
    (sites.public_dir("ifca")).mkdir()
    (sites.public_dir("ifca") / "ca.crt").touch()
    found = login.provider(Place("ifca"))
    assert (found.name, found.address) == ("iam.ifca.example", "192.0.2.21")
    assert found.scopes == ("openid", "profile", "offline_access")
    assert found.audience == ("kubernetes",)


@pytest.mark.parametrize("call", [login.token, login.who, login.log_out, login.credential, login.kubeconfig])
def test_an_unknown_site_and_testbed_are_told(testbed: Path, call: Any) -> None:
    with pytest.raises(DeepError, match="no site nowhere"):
        call(Place("nowhere"))
    with pytest.raises(DeepError, match="there is no testbed other"):
        call(Place("local", "other"))


def test_a_site_without_hosts_is_told(testbed: Path) -> None:
    (testbed / "inventory" / "hosts.yml").write_text("all: {}\n")
    with pytest.raises(DeepError, match="the site local has no host"):
        login.provider(place())


def test_a_variable_that_is_missing_is_told(testbed: Path) -> None:
    variables(testbed, {"iam_issuer": "{{ nobody_set_this }}"})
    with pytest.raises(DeepError, match="lacks something: 'nobody_set_this' is undefined") as missing:
        login.provider(place())
    assert missing.value.next_step == "deep site check local --name x"


def test_a_deployment_is_told_where_to_leave_what_everybody_may_know(testbed: Path, tmp_path: Path) -> None:
    shutil.rmtree(testbed / "public")
    playbook = tmp_path / "play.yml"
    copy = "ansible.builtin.copy: {content: told, dest: '{{ site_public_dir }}/ca.crt'}"
    playbook.write_text(f"- hosts: node1\n  gather_facts: false\n  connection: local\n  tasks:\n    - {copy}\n")
    variables(testbed, {"ansible_python_interpreter": sys.executable})
    sites.play("local", str(playbook), name="x")
    assert (sites.public_dir("local", "x") / "ca.crt").read_text() == "told"


# --- kubectl -------------------------------------------------------------------------------------------------------


def test_kubectl_is_given_the_token(issuer: Issuer) -> None:
    member()
    found = login.credential(place())
    until = found["status"].pop("expirationTimestamp")
    assert until == login.who(place())["until"]
    assert found == {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "access-1"},
    }


def test_kubectl_waits_for_no_library_that_a_token_at_hand_does_not_need(issuer: Issuer, tmp_path: Path) -> None:
    member()
    program = (
        "import pathlib, sys\nfrom testbed import cli, sites\n"
        f"sites.inventories = lambda: pathlib.Path({str(tmp_path / 'inventories')!r})\n"
        "try:\n    cli.main()\nfinally:\n    print(*sys.modules, file=sys.stderr)\n"
    )
    argv = [sys.executable, "-c", program, "kube-credential", "local", "--name", "x"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["status"]["token"] == "access-1"
    loaded = set(done.stderr.split())
    assert "typer" in loaded
    assert not loaded & {"ansible", "docker", "httpx", "jinja2", "http.server", "rich.progress", "rich.table"}
    assert not loaded & {f"testbed.cli.{room}" for room in ROOMS}


def test_a_kubeconfig_calls_this_program_and_holds_no_secret(issuer: Issuer, testbed: Path) -> None:
    member()
    text = login.kubeconfig(place())
    assert "access-" not in text
    assert "refresh-" not in text
    config = yaml.safe_load(text)
    (cluster,), (user,) = config["clusters"], config["users"]
    assert cluster["cluster"] == {
        "server": "https://127.0.0.2:6443",
        "certificate-authority-data": base64.b64encode(b"the cluster's").decode(),
    }
    plugin = user["user"]["exec"]
    assert plugin["command"] == str(Path(sys.executable).parent / "deep")
    assert plugin["args"] == ["kube-credential", "local", "--name", "x"]
    assert plugin["env"] == [{"name": "DEEP_STATE_DIR", "value": os.environ["DEEP_STATE_DIR"]}]
    assert (plugin["interactiveMode"], plugin["provideClusterInfo"]) == ("IfAvailable", False)
    assert config["current-context"] == config["contexts"][0]["name"] == cluster["name"] == user["name"] == "x"


def test_a_name_that_only_the_nodes_know_is_still_what_the_certificate_has_to_say(testbed: Path) -> None:
    variables(testbed, {"kubernetes_control_plane_endpoint": "api.deep.test:6443"})
    (cluster,) = yaml.safe_load(login.kubeconfig(place()))["clusters"]
    assert cluster["cluster"]["server"] == "https://127.0.0.2:6443"
    assert cluster["cluster"]["tls-server-name"] == "api.deep.test"


def test_a_production_cluster_is_reached_by_its_name(testbed: Path) -> None:
    sites.public_dir("ifca").mkdir(parents=True)
    (sites.public_dir("ifca") / "kubernetes-ca.crt").touch()
    (cluster,) = yaml.safe_load(login.kubeconfig(Place("ifca")))["clusters"]
    assert cluster["cluster"]["server"] == "https://api.ifca.example:6443"
    assert "tls-server-name" not in cluster["cluster"]


def test_a_site_without_kubernetes_is_told(testbed: Path) -> None:
    variables(testbed, {"kubernetes_control_plane_endpoint": ""})
    with pytest.raises(DeepError, match="local --name x has no Kubernetes"):
        login.kubeconfig(place())


# --- the command line ----------------------------------------------------------------------------------------------


def test_the_commands(issuer: Issuer, testbed: Path, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        done = runner.invoke(app, [*words, "--name", "x"])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "logged in at local --name x as member (a, b)" in run("login", "--as", "member")
    assert json.loads(run("whoami", "--json"))["user"] == "member"
    assert run("token") == "access-1\n"
    assert json.loads(run("token", "local", "--json"))["access_token"] == "access-1"
    assert json.loads(run("kube-credential"))["status"]["token"] == "access-1"
    assert yaml.safe_load(run("kubeconfig"))["kind"] == "Config"
    assert run("kubeconfig", "-o", str(tmp_path / "config")) == f"export KUBECONFIG={tmp_path / 'config'}\n"
    assert (tmp_path / "config").stat().st_mode & 0o777 == 0o600
    assert run("logout") == "logged out of local\n"
    assert run("logout") == "nobody was logged in at local\n"


def test_the_code_goes_to_people_and_not_into_the_result(issuer: Issuer) -> None:
    done = runner.invoke(app, ["login", "--name", "x", "--json"])
    assert json.loads(done.stdout)["user"] == "member"
    assert "ABCD-EFGH" in done.stderr


def test_two_ways_to_log_in_are_one_too_many(testbed: Path) -> None:
    done = runner.invoke(app, ["login", "--as", "member", "--browser"])
    assert isinstance(done.exception, DeepError)


def test_kubectl_sees_an_error_and_what_to_do(testbed: Path) -> None:
    argv = [str(Path(sys.executable).parent / "deep"), "kube-credential", "local", "--name", "x"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "next: deep login local --name x --as USER" in done.stderr


def test_people_are_completed(testbed: Path) -> None:
    def complete(start: str, **given: Any) -> list[str]:
        return complete_user(SimpleNamespace(params=given), start)  # type: ignore[arg-type]  # all it looks at

    assert complete("m", site="local", name="x") == ["member"]
    assert complete("", name="x") == PEOPLE
    assert complete("", site="nowhere") == []
