"""Keys that sign tokens: a new one for each rotation, the ones before for as long as what they signed is believed."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from plugins.module_utils import keycloak
from plugins.module_utils.keycloak import Keycloak
from plugins.modules.iam_keys import Keys, made, worn_out

Json = dict[str, Any]
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY = timedelta(days=1)
KEEP = 86400


def component(name: str, provider: str, priority: str = "100") -> Json:
    return {
        "id": f"id-{name}",
        "name": name,
        "providerId": provider,
        "parentId": "realm",
        "config": {"priority": [priority]},
    }


class Server(Keycloak):
    """The keys of a realm, in memory."""

    def __init__(self) -> None:
        super().__init__("https://iam.example.test", "admin", "secret")
        own = [component("rsa-generated", "rsa-generated"), component("hmac-generated-hs512", "hmac-generated")]
        self.components: dict[str, Json] = {one["id"]: one for one in own}
        self.requests: list[str] = []
        self._number = itertools.count(1)

    def ask(self, method: str, path: str, data: Any = None) -> Any:
        self.requests.append(method)
        identifier = path.rpartition("/")[2]
        if method == "GET":
            return [dict(one) for one in self.components.values()] if path.startswith("/deep/components?") else None
        if method == "POST":
            identifier = f"id-{next(self._number)}"
            self.components[identifier] = {**data, "id": identifier}
        elif method == "PUT":
            self.components[identifier] = data
        else:
            del self.components[identifier]
        return None

    def state(self) -> dict[str, str]:
        """Name of each key that signs tokens -> whether it may sign."""
        keys = (one for one in self.components.values() if one["providerId"] == "rsa-generated")
        return {key["name"]: key["config"].get("active", ["true"])[0] for key in keys}


def rotate(server: Server, now: datetime, keep: int = KEEP, *, check: bool = False) -> list[str]:
    keys = Keys(server, "deep", check)
    keys.rotate(now, keep)
    return keys.actions


@pytest.fixture
def server() -> Server:
    return Server()


def test_a_new_key_signs_and_the_one_before_is_still_believed(server: Server) -> None:
    actions = rotate(server, START)
    assert actions == ["make key signing-20260102T030405Z", "let key rsa-generated sign no more"]
    assert server.state() == {"rsa-generated": "false", "signing-20260102T030405Z": "true"}
    new = server.components["id-1"]
    assert (new["parentId"], new["config"]["priority"]) == ("realm", ["101"])


def test_the_key_that_signs_refresh_tokens_is_left_alone(server: Server) -> None:
    before = dict(server.components["id-hmac-generated-hs512"])
    rotate(server, START, 0)
    assert server.components["id-hmac-generated-hs512"] == before


def test_a_key_is_removed_when_it_has_not_signed_for_long_enough(server: Server) -> None:
    rotate(server, START)
    rotate(server, START + DAY - timedelta(seconds=1))
    assert len(server.state()) == 3, "the first key signed until a second less than a day ago"
    actions = rotate(server, START + DAY)
    assert "remove key rsa-generated" in actions
    assert list(server.state().values()) == ["false", "false", "true"]


def test_after_a_theft_only_the_new_key_is_left(server: Server) -> None:
    rotate(server, START)
    rotate(server, START + timedelta(seconds=5), 0)
    assert server.state() == {"signing-20260102T030410Z": "true"}


def test_the_new_key_is_there_before_another_one_stops(server: Server) -> None:
    rotate(server, START)
    assert server.requests == ["GET", "POST", "PUT"]


def test_a_rotation_that_was_cut_short_is_finished_by_the_next_one(server: Server) -> None:
    server.ask("POST", "/deep/components", Keys(server, "deep", False).new(list(server.components.values()), START))
    rotate(server, START + timedelta(seconds=9))
    assert [name for name, signs in server.state().items() if signs == "true"] == ["signing-20260102T030414Z"]


def test_check_mode_only_tells(server: Server) -> None:
    assert rotate(server, START, check=True)
    assert server.requests == ["GET"]


def test_no_realm_no_keys(server: Server) -> None:
    with pytest.raises(Exception, match="no realm other"):
        Keys(server, "other", False).rotate(START, KEEP)


def test_when_a_key_was_made_is_read_from_its_name_only() -> None:
    assert made({"name": "signing-20260102T030405Z"}) == START
    assert made({"name": "rsa-generated"}) is None


def test_a_key_of_somebody_else_ends_nothing() -> None:
    keys = [component("rsa-generated", "rsa-generated"), component("imported", "rsa", "200")]
    assert worn_out(keys, START, 0) == []


class Module:
    """As much of an Ansible module as a login needs."""

    def __init__(self, *, check: bool = False, timeout: int = 0) -> None:
        self.check_mode = check
        self.params = {"url": "https://iam.example.test/", "client": "admin", "secret": "s", "timeout": timeout}

    def fail_json(self, msg: str) -> None:
        raise SystemExit(msg)


def answering(monkeypatch: pytest.MonkeyPatch, *outcomes: Exception | None) -> list[float]:
    """Let logins have these outcomes, one after the other; returns how long was slept between them."""
    slept: list[float] = []
    left = iter(outcomes)

    def log_in(self: Keycloak) -> None:
        outcome = next(left)
        if outcome:
            raise outcome

    monkeypatch.setattr(Keycloak, "log_in", log_in)
    monkeypatch.setattr("plugins.module_utils.keycloak.time.sleep", slept.append)
    return slept


def starting(code: int = 503) -> HTTPError:
    from email.message import Message
    from io import BytesIO

    return HTTPError("https://iam.example.test", code, "no", Message(), BytesIO(b'{"error": "unauthorized_client"}'))


def test_a_keycloak_that_starts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = answering(monkeypatch, URLError("refused"), starting(), None)
    module: Any = Module(timeout=60)
    found = keycloak.connect(module)
    assert found is not None
    assert found.url == "https://iam.example.test"
    assert len(slept) == 2


def test_a_keycloak_that_never_answers_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, URLError("refused"), URLError("refused"))
    module: Any = Module(timeout=-1)
    with pytest.raises(SystemExit, match=r"does not answer .*refused.* Next: journalctl --unit keycloak"):
        keycloak.connect(module)


def test_check_mode_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = answering(monkeypatch, URLError("refused"))
    module: Any = Module(check=True, timeout=60)
    assert keycloak.connect(module) is None
    assert slept == []


def test_a_wrong_secret_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, starting(401))
    module: Any = Module(timeout=60)
    with pytest.raises(SystemExit, match=r"refuses its administrator admin .*401.* Next: "):
        keycloak.connect(module)
