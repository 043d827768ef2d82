"""A realm is brought to what is wanted: made, changed, removed where it is ours, and left alone where it is not."""

from __future__ import annotations

import contextlib
import copy
import itertools
import re
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from plugins.module_utils.keycloak import Keycloak, RefusedError
from plugins.modules import iam_realm
from plugins.modules.iam_realm import RECORD, Realm, complete, differs, merged
from testbed.rendering import role_path

Json = dict[str, Any]
IDENTITY = {"client-scopes": "name", "clients": "clientId", "groups": "name", "users": "username"}
WANTED: Json = {
    "realm": "deep",
    "enabled": True,
    "accessTokenLifespan": 300,
    "clientScopes": [
        {"name": "kubernetes", "protocolMappers": [{"name": "audience", "config": {"aud": "kubernetes"}}]},
        {"name": "groups"},
    ],
    "clients": [
        {
            "clientId": "deep",
            "publicClient": True,
            "attributes": {"pkce": "S256", "lifespan": ""},
            "defaultClientScopes": ["groups"],
            "optionalClientScopes": ["kubernetes"],
        }
    ],
    "groups": [{"name": "imaging"}, {"name": "climate"}],
    "users": [
        {
            "username": "member",
            "enabled": True,
            "groups": ["imaging"],
            "credentials": [{"type": "password", "value": "x"}],
        }
    ],
}


class Server(Keycloak):
    """The part of Keycloak's administration interface that the module uses, in memory."""

    def __init__(self) -> None:
        super().__init__("https://iam.example.test", "admin", "secret")
        self.realm: Json | None = None
        self.things: dict[str, dict[str, Json]] = {kind: {} for kind in IDENTITY}
        self.members: dict[str, set[str]] = {}
        self.requests: list[str] = []
        self._number = itertools.count(1)

    def ask(self, method: str, path: str, data: Any = None) -> Any:
        if method != "GET":
            self.requests.append(f"{method} {path}")
        parts = urlsplit(path)
        words = parts.path.strip("/").split("/")
        if len(words) < 2:
            return self._realm(method, data)
        if words[-1] == "children":
            return self._inside(words[2])
        kind, rest = words[1], words[2:]
        if len(rest) < 2:
            return self._thing(method, kind, rest, data, parse_qs(parts.query))
        return self._part(method, kind, rest, data)

    def _realm(self, method: str, data: Any) -> Any:
        if method != "GET":
            self.realm = copy.deepcopy(data)
        return copy.deepcopy(self.realm)

    def _thing(self, method: str, kind: str, rest: list[str], data: Any, query: dict[str, list[str]]) -> Any:
        there = self.things[kind]
        if method == "POST":
            number = str(next(self._number))
            there[number] = {**copy.deepcopy(data), "id": number}
            for mapper in there[number].get("protocolMappers", []):
                mapper["id"] = str(next(self._number))
        elif method == "PUT":
            there[rest[0]] = copy.deepcopy(data)
        elif method == "DELETE":
            del there[rest[0]]
        if kind == "groups":
            return self._inside(None)
        name = query.get("username")
        return [one for one in copy.deepcopy(list(there.values())) if not name or one["username"] == name[0]]

    def _inside(self, number: str | None) -> list[Json]:
        """Groups below another one, or at the top."""
        found = [one for one in self.things["groups"].values() if one.get("parentId") == number]
        return [
            {**copy.deepcopy(one), "path": self._place(one), "subGroupCount": len(self._inside(one["id"]))}
            for one in found
        ]

    def _place(self, group: Json) -> str:
        """The path of a group."""
        above = self.things["groups"].get(group.get("parentId", ""))
        return f"{self._place(above) if above else ''}/{group['name']}"

    def inside(self, *names: str) -> str:
        """Make groups, each inside the one before, as somebody may who manages them; returns the last one's number."""
        number = None
        for name in names:
            there = [one["id"] for one in self._inside(number) if one["name"] == name]
            if not there:
                self.ask("POST", "/deep/groups", {"name": name, **({"parentId": number} if number else {})})
            number = next(str(one["id"]) for one in self._inside(number) if one["name"] == name)
        assert number
        return number

    def _part(self, method: str, kind: str, rest: list[str], data: Any) -> Any:
        if rest[1] == "groups":
            return self._groups(method, rest)
        one = self.things[kind][rest[0]]
        if rest[1] == "protocol-mappers":
            return self._mappers(method, one, rest, data)
        key = {"default-client-scopes": "defaultClientScopes", "optional-client-scopes": "optionalClientScopes"}[
            rest[1]
        ]
        name = self.things["client-scopes"][rest[2]]["name"]
        one[key] = sorted({*one.get(key, [])} | {name} if method == "PUT" else {*one[key]} - {name})
        return None

    def _mappers(self, method: str, one: Json, rest: list[str], data: Any) -> None:
        mappers = one.setdefault("protocolMappers", [])
        if method == "POST":
            mappers.append({**data, "id": str(next(self._number))})
        else:
            mappers[:] = [mapper for mapper in mappers if mapper["id"] != rest[-1]]
            mappers.extend([data] if method == "PUT" else [])

    def _groups(self, method: str, rest: list[str]) -> Any:
        held = self.members.setdefault(rest[0], set())
        if method == "PUT":
            held.add(rest[2])
        elif method == "DELETE":
            held.remove(rest[2])
        groups = [self.things["groups"][number] for number in sorted(held)]
        return [{"id": one["id"], "name": one["name"], "path": self._place(one)} for one in groups]

    def names(self, kind: str) -> list[str]:
        return sorted(one[IDENTITY[kind]] for one in self.things[kind].values())

    def groups_of(self, user: str) -> list[str]:
        (number,) = (number for number, one in self.things["users"].items() if one["username"] == user)
        return [one["path"] for one in self._groups("GET", [number])]

    def put(self, user: str, group: str) -> None:
        """Put a person into a group, by its number."""
        (number,) = (number for number, one in self.things["users"].items() if one["username"] == user)
        self.members.setdefault(number, set()).add(group)


def run(server: Server, wanted: Json, *, check: bool = False) -> list[str]:
    server.requests.clear()
    realm = Realm(server, copy.deepcopy(wanted), check)
    realm.converge()
    return realm.actions


def changed(**what: Any) -> Json:
    return {**copy.deepcopy(WANTED), **what}


@pytest.fixture
def server() -> Server:
    found = Server()
    # What Keycloak has of its own, in every realm.
    found.things["client-scopes"]["0"] = {"id": "0", "name": "profile"}
    run(found, WANTED)
    return found


def test_everything_is_made_and_a_second_run_changes_nothing(server: Server) -> None:
    assert server.names("clients") == ["deep"]
    assert server.names("groups") == ["climate", "imaging"]
    assert server.groups_of("member") == ["/imaging"]
    (client,) = server.things["clients"].values()
    assert (client["defaultClientScopes"], client["optionalClientScopes"]) == (["groups"], ["kubernetes"])
    assert run(server, WANTED) == []
    assert server.requests == []


def test_check_mode_tells_and_changes_nothing() -> None:
    empty = Server()
    told = run(empty, WANTED, check=True)
    assert {"make realm deep", "make client deep", "make group imaging", "make user member"} <= set(told)
    assert empty.requests == []


@pytest.mark.parametrize(
    ("what", "action"),
    [
        ({"accessTokenLifespan": 60}, "change realm deep"),
        ({"groups": [{"name": "imaging"}]}, "remove group climate"),
        ({"users": []}, "remove user member"),
        ({"users": [{**WANTED["users"][0], "enabled": False}]}, "change user member"),
        ({"users": [{**WANTED["users"][0], "groups": []}]}, "take user member out of group imaging"),
        ({"users": [{**WANTED["users"][0], "groups": ["imaging", "climate"]}]}, "put user member into group climate"),
        ({"clients": [{**WANTED["clients"][0], "attributes": {"pkce": ""}}]}, "change client deep"),
        ({"clients": [{**WANTED["clients"][0], "optionalClientScopes": []}]}, "take scope kubernetes from client deep"),
        ({"clients": []}, "remove client deep"),
        (
            {"clientScopes": [{**WANTED["clientScopes"][0], "protocolMappers": []}, WANTED["clientScopes"][1]]},
            "remove mapper audience of scope kubernetes",
        ),
    ],
)
def test_one_difference_is_one_change(server: Server, what: Json, action: str) -> None:
    assert run(server, changed(**what), check=True) == [action]
    assert run(server, changed(**what)) == [action]
    assert run(server, changed(**what)) == []
    run(server, WANTED)
    assert run(server, WANTED) == []


def test_what_others_made_is_not_removed_after_it_was_declared_for_a_while(server: Server) -> None:
    server.ask("POST", "/deep/groups", {"name": "theirs"})
    assert run(server, changed(groups=[*WANTED["groups"], {"name": "theirs"}])) == []
    assert run(server, WANTED) == []
    assert "theirs" in server.names("groups")


def test_secrets_come_apart_from_the_representation() -> None:
    realm = {
        "clients": [{"clientId": "a"}, {"clientId": "b"}],
        "users": [{"username": "u", "credentials": [{"type": "password", "temporary": True}]}, {"username": "v"}],
    }
    found = complete(realm, {"clients": {"a": "s"}, "users": {"u": "p"}})
    assert found["clients"] == [{"clientId": "a", "secret": "s"}, {"clientId": "b"}]
    assert found["users"][0]["credentials"] == [{"type": "password", "temporary": True, "value": "p"}]
    assert found["users"][1] == {"username": "v"}
    assert complete({"realm": "x"}, {}) == {"realm": "x", "clients": [], "users": []}


def test_the_representation_that_is_logged_holds_no_secret() -> None:
    template = role_path("iam") / "templates" / "keycloak" / "realm.yaml.j2"
    assert re.findall(r"(?m)^\s+(secret|value):|derived_secret", template.read_text(encoding="utf-8")) == []


def test_what_others_made_stays(server: Server) -> None:
    server.ask("POST", "/deep/groups", {"name": "guests"})
    server.ask("POST", "/deep/users", {"username": "guest"})
    run(server, changed(groups=[], users=[]))
    assert server.names("groups") == ["guests"]
    assert server.names("users") == ["guest"]
    assert "profile" in server.names("client-scopes")


def test_groups_are_told_by_their_place(server: Server) -> None:
    """Of two groups of one name the person gets that at the top, and leaves the other one."""
    inner = server.inside("guests", "imaging")
    server.members.clear()
    server.put("member", inner)
    assert sorted(run(server, WANTED)) == [
        "put user member into group imaging",
        "take user member out of group guests/imaging",
    ]
    assert server.groups_of("member") == ["/imaging"]
    assert run(server, WANTED) == []
    run(server, changed(groups=[], users=[]))
    assert server.names("groups") == ["guests", "imaging"], "what others have made stays, whatever it is called"


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([], []),
        ([["guests"], ["guests", "visitors"], ["imaging", "students"]], []),
        ([["guests", "imaging"]], ["/guests/imaging"]),
        (
            [["imaging", "old", "climate"], ["guests", "a", "b", "imaging"]],
            ["/guests/a/b/imaging", "/imaging/old/climate"],
        ),
    ],
)
def test_a_group_inside_another_that_is_called_like_ours_is_told_and_left_alone(
    server: Server, places: list[list[str]], told: list[str]
) -> None:
    for names in places:
        server.inside(*names)
    realm = Realm(server, copy.deepcopy(WANTED), check=False)
    before = server.names("groups")
    realm.converge()
    assert realm.impostors() == told
    assert server.names("groups") == before


def test_the_module_says_what_it_did_and_what_is_mistaken(server: Server) -> None:
    module = SimpleNamespace(params={"realm": WANTED, "secrets": {}}, check_mode=False)
    server.inside("guests", "climate")
    assert iam_realm.converged(server, module) == {"actions": [], "impostors": ["/guests/climate"]}
    assert iam_realm.converged(None, module) == {"actions": ["make realm deep"], "impostors": []}


def test_a_password_that_was_changed_is_kept(server: Server) -> None:
    assert (
        run(server, changed(users=[{**WANTED["users"][0], "credentials": [{"type": "password", "value": "y"}]}])) == []
    )


def test_a_scope_moves_from_optional_to_default(server: Server) -> None:
    moved = {**WANTED["clients"][0], "defaultClientScopes": ["groups", "kubernetes"], "optionalClientScopes": []}
    assert len(run(server, changed(clients=[moved]))) == 2
    assert run(server, changed(clients=[moved])) == []


@pytest.mark.parametrize("last", range(1, 12))
def test_a_run_that_was_killed_is_finished_by_the_next(server: Server, last: int) -> None:
    """After any number of requests; what the killed run had made is still known to be ours."""
    more = changed(
        groups=[*WANTED["groups"], {"name": "new"}], users=[*WANTED["users"], {"username": "new", "groups": ["new"]}]
    )

    class Killed(BaseException):
        """The end of the process."""

    ask, counted = server.ask, itertools.count(1)

    def stop(method: str, path: str, data: Any = None) -> Any:
        if method != "GET" and next(counted) == last:
            raise Killed
        return ask(method, path, data)

    server.ask = stop  # type: ignore[method-assign]
    with contextlib.suppress(Killed):
        run(server, more)
    server.ask = ask  # type: ignore[method-assign]
    run(server, WANTED)
    assert server.names("groups") == ["climate", "imaging"]
    assert server.names("users") == ["member"]
    assert run(server, WANTED) == []


def test_the_record_is_an_attribute_beside_those_of_others(server: Server) -> None:
    assert server.realm is not None
    server.realm["attributes"]["theirs"] = "kept"
    run(server, changed(groups=[], accessTokenLifespan=60))
    assert server.realm["attributes"]["theirs"] == "kept"
    assert "imaging" not in server.realm["attributes"][RECORD]


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": {"b": "x"}}, {"a": {"b": "y"}}, True),
        ({"a": {"b": ""}}, {"a": {}}, False),
        ({"a": ["x", "y"]}, {"a": ["y", "x"]}, False),
        ({"a": ["x"]}, {"a": ["x", "y"]}, True),
        ({"a": False}, {}, True),
        ({"a": {"b": 1}}, {"a": None}, True),
    ],
)
def test_difference(wanted: Json, found: Json, expected: bool) -> None:
    assert differs(wanted, found) is expected


def test_attributes_are_merged_one_by_one() -> None:
    found = {"name": "x", "attributes": {"a": "1", "b": "2"}}
    assert merged(found, {"attributes": {"b": "3"}})["attributes"] == {"a": "1", "b": "3"}


def test_a_refusal_names_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, **options: Any) -> Any:
        from io import BytesIO
        from urllib.error import HTTPError

        raise HTTPError(url, 409, "Conflict", {}, BytesIO(b'{"errorMessage": "exists"}'))  # type: ignore[arg-type]

    monkeypatch.setattr("plugins.module_utils.keycloak.open_url", refuse)
    with pytest.raises(RefusedError, match=re.escape("POST /deep/groups: HTTP 409")):
        Keycloak("https://iam.example.test", "admin", "secret").ask("POST", "/deep/groups", {"name": "x"})
