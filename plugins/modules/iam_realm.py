#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Bring a realm of Keycloak to what the inventory says, in one call."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.keycloak import (
    OPTIONS,
    Json,
    Keycloak,
    RefusedError,
    connect,
)

DOCUMENTATION = r"""
module: iam_realm
short_description: Bring a realm of Keycloak to what the inventory says
description:
  - Takes a realm as Keycloak represents it and makes, changes and removes what differs. What the representation does
    not say is left as it is.
  - The realm remembers what this module has made. What is no longer said is removed; what others have made never is.
  - Groups are told by their place. Those that are managed are at the top. One below another that is called like a
    managed group is left alone and told as an impostor, because claims name groups without their place.
  - A password is set when its user is made, and not again, so that people keep the one that they chose.
  - One remote call instead of one for every user, group, client and scope.
options:
  realm:
    description: >-
      A RealmRepresentation. Its C(clientScopes), C(clients), C(groups) and C(users) are what this module manages.
      Scopes have C(protocolMappers), clients C(defaultClientScopes) and C(optionalClientScopes), and users
      C(groups) by name.
    type: dict
    required: true
  secrets:
    description: >-
      What O(realm) leaves out, because it would be logged: secrets of confidential C(clients) by C(clientId), and first
      passwords of C(users) by C(username).
    type: dict
    default: {}
    suboptions:
      clients:
        description: Secrets of clients.
        type: dict
        default: {}
      users:
        description: First passwords. Temporary where the first entry of the user's C(credentials) says so.
        type: dict
        default: {}
attributes:
  check_mode:
    support: full
    description: Tells what would be done; of a Keycloak that does not answer, that everything would be made.
  diff_mode:
    support: none
    description: Representations hold secrets.
  idempotent:
    support: full
    description: A second call changes nothing.
extends_documentation_fragment: [deephdc.testbed.keycloak]
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Bring the realm to what the inventory says
  deephdc.testbed.iam_realm:
    url: https://iam.example.org:8443
    client: admin
    secret: "{{ admin_secret }}"
    realm:
      realm: example
      enabled: true
      groups: [{name: users}]
      users: [{username: someone, enabled: true, groups: [users]}]
    secrets:
      users: {someone: "{{ first_password }}"}
"""

RETURN = r"""
actions:
  description: What was (or, in check mode, would be) done, such as C(make user someone).
  returned: always
  type: list
  elements: str
impostors:
  description: Paths of groups below others that are called like a managed group, such as C(/guests/administrators).
  returned: always
  type: list
  elements: str
"""

Names = dict[str, set[str]]
# Attribute of the realm with the names that this module has made, by kind.
RECORD = "deephdc.managed"
# What has endpoints of its own, and is compared there.
APART = ("protocolMappers", "defaultClientScopes", "optionalClientScopes", "groups", "credentials")


def differs(wanted: Any, found: Any) -> bool:
    """Whether ``found`` lacks something of ``wanted``: objects may have more keys, lists of texts are sets."""
    if isinstance(wanted, dict):
        return not isinstance(found, dict) or any(differs(value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        return sorted(map(str, wanted)) != sorted(map(str, found or []))
    # Keycloak leaves empty texts out.
    return bool((wanted if wanted != "" else None) != (found if found != "" else None))


def without(representation: Json, keys: Container[str]) -> Json:
    """A representation less ``keys``."""
    return {key: value for key, value in representation.items() if key not in keys}


def merged(found: Json, wanted: Json) -> Json:
    """``found`` with what ``wanted`` says, attributes one by one."""
    both = {**found, **wanted}
    if isinstance(found.get("attributes"), dict) and isinstance(wanted.get("attributes"), dict):
        both["attributes"] = {**found["attributes"], **wanted["attributes"]}
    return both


class Kind(NamedTuple):
    """Where things of one kind are found, and what they are called."""

    label: str
    key: str
    path: str
    identity: str


SCOPES = Kind("scope", "clientScopes", "/client-scopes", "name")
CLIENTS = Kind("client", "clients", "/clients", "clientId")
GROUPS = Kind("group", "groups", "/groups", "name")
USERS = Kind("user", "users", "/users", "username")
# Clients have scopes, users have groups.
ORDER = (SCOPES, CLIENTS, GROUPS, USERS)


class Realm:
    """One realm on its way to what is wanted; ``actions`` tells what was done."""

    def __init__(self, server: Keycloak, wanted: Json, check: bool) -> None:
        self.server = server
        self.wanted = wanted
        self.check = check
        self.name = quote(wanted["realm"])
        self.actions: list[str] = []

    def converge(self) -> None:
        """Make, change and remove what differs. Killed at any moment, the next run finishes."""
        found = self.settle()
        before = {
            key: {*names} for key, names in json.loads((found.get("attributes") or {}).get(RECORD) or "{}").items()
        }
        named = {kind.key: {item[kind.identity] for item in self.items(kind)} for kind in ORDER}
        # First remembered, then made: what is not there yet is ours, what others have made is not.
        there = {kind: self.listed(kind, self.items(kind)) for kind in ORDER}
        ours = {kind.key: before.get(kind.key, set()) | named[kind.key] - {*there[kind]} for kind in ORDER}
        self.remember(ours, before)
        scopes = self.all_of(SCOPES, there[SCOPES], self.scope)
        self.all_of(CLIENTS, there[CLIENTS], lambda item, found: self.scopes_of(item, found, scopes))
        groups = self.all_of(GROUPS, there[GROUPS])
        self.all_of(USERS, there[USERS], lambda item, found: self.groups_of(item, found, groups))
        for kind in reversed(ORDER):
            for name in sorted(ours[kind.key] - named[kind.key]):
                self.remove(kind, name)
        self.remember({key: names & named[key] for key, names in ours.items()}, ours)

    def items(self, kind: Kind) -> list[Json]:
        """What is wanted of a kind."""
        return self.wanted.get(kind.key) or []

    # The realm itself

    def settle(self) -> Json:
        """Make the realm or change its settings; returns what was found, or made."""
        settings = without(self.wanted, [kind.key for kind in ORDER])
        found: Json | None = self.server.ask("GET", f"/{self.name}")
        if found is None:
            self.change(f"make realm {self.wanted['realm']}", "POST", "", settings)
            return {}
        if differs(settings, found):
            self.change(f"change realm {self.wanted['realm']}", "PUT", f"/{self.name}", merged(found, settings))
        return found

    def remember(self, names: Names, known: Names) -> None:
        """Keep the names that this module has made in the realm, unless they are ``known``."""
        if self.check or names == known:
            return
        found = self.server.ask("GET", f"/{self.name}")
        text = json.dumps({key: sorted(held) for key, held in names.items()}, sort_keys=True)
        wanted = {"attributes": {RECORD: text}}
        self.server.ask("PUT", f"/{self.name}", merged({**found, "attributes": found.get("attributes") or {}}, wanted))

    # Things in the realm

    def all_of(
        self, kind: Kind, there: dict[str, Json], further: Callable[[Json, Json], None] | None = None
    ) -> dict[str, str]:
        """Bring every thing of a kind, and what ``further`` sees to, to what is wanted; returns identifiers by name."""
        for item in self.items(kind):
            found = self.one(kind, item, there.get(item[kind.identity]))
            there[item[kind.identity]] = found
            if found and further:
                further(item, found)
        return {name: found["id"] for name, found in there.items() if found}

    def listed(self, kind: Kind, items: list[Json]) -> dict[str, Json]:
        """What there is of a kind, by name; of users, who may be many, those that are asked for."""
        if kind is not USERS:
            return {one[kind.identity]: one for one in self.server.ask("GET", self.path(kind, "?max=-1")) or []}
        found = [self.user(item["username"]) for item in items]
        return {one["username"]: one for one in found if one}

    def user(self, name: str) -> Json | None:
        """A user by name."""
        query = urlencode({"username": name, "exact": "true", "briefRepresentation": "false"})
        return next(iter(self.server.ask("GET", self.path(USERS, f"?{query}")) or []), None)

    def one(self, kind: Kind, item: Json, found: Json | None) -> Json:
        """Make or change one thing; returns it as it is now, empty where check mode did not make it."""
        name = item[kind.identity]
        wanted = without(item, APART)
        if found is None:
            self.change(f"make {kind.label} {name}", "POST", self.path(kind), self.first(kind, item))
            return {} if self.check else self.again(kind, name)
        if differs(wanted, found):
            self.change(f"change {kind.label} {name}", "PUT", self.path(kind, f"/{found['id']}"), merged(found, wanted))
        return found

    @staticmethod
    def first(kind: Kind, item: Json) -> Json:
        """A thing as it is made: groups of a user follow by their identifiers, and scopes of a client."""
        return without(item, ("groups", "defaultClientScopes", "optionalClientScopes")) if kind is not GROUPS else item

    def again(self, kind: Kind, name: str) -> Json:
        """What was just made."""
        return self.listed(kind, [{kind.identity: name}])[name]

    def remove(self, kind: Kind, name: str) -> None:
        """Remove what this module had made and nobody wants any more."""
        found = self.listed(kind, [{kind.identity: name}]).get(name)
        if found:
            self.change(f"remove {kind.label} {name}", "DELETE", self.path(kind, f"/{found['id']}"))

    # What belongs to them

    def scope(self, item: Json, found: Json) -> None:
        """The protocol mappers of a scope."""
        path = self.path(SCOPES, f"/{found['id']}/protocol-mappers/models")
        there = {one["name"]: one for one in found.get("protocolMappers") or []}
        label = f"scope {item['name']}"
        for mapper in item.get("protocolMappers") or []:
            known = there.pop(mapper["name"], None)
            if known is None:
                self.change(f"make mapper {mapper['name']} of {label}", "POST", path, mapper)
            elif differs(mapper, known):
                wanted = {**known, **mapper, "config": {**known.get("config", {}), **mapper.get("config", {})}}
                self.change(f"change mapper {mapper['name']} of {label}", "PUT", f"{path}/{known['id']}", wanted)
        for name, known in there.items():
            self.change(f"remove mapper {name} of {label}", "DELETE", f"{path}/{known['id']}")

    def scopes_of(self, item: Json, found: Json, scopes: dict[str, str]) -> None:
        """The scopes of a client. Those that it has to lose go first: a scope cannot be both default and optional."""
        ways = {"defaultClientScopes": "default-client-scopes", "optionalClientScopes": "optional-client-scopes"}
        for key, way in ways.items():
            for name in sorted({*found.get(key, [])} - {*item.get(key, found.get(key, []))}):
                path = self.path(CLIENTS, f"/{found['id']}/{way}/{scopes[name]}")
                self.change(f"take scope {name} from client {item['clientId']}", "DELETE", path)
        for key, way in ways.items():
            for name in sorted({*item.get(key, [])} - {*found.get(key, [])}):
                path = self.path(CLIENTS, f"/{found['id']}/{way}/{scopes.get(name)}")
                self.change(f"give scope {name} to client {item['clientId']}", "PUT", path, {})

    def groups_of(self, item: Json, found: Json, groups: dict[str, str]) -> None:
        """The groups of a user, exactly those that are wanted, by place: one below another may be called the same."""
        path = self.path(USERS, f"/{found['id']}/groups")
        there = {one["path"].removeprefix("/"): one["id"] for one in self.server.ask("GET", f"{path}?max=-1") or []}
        wanted = {*item.get("groups", [])}
        for name in sorted(wanted - {*there}):
            self.change(f"put user {item['username']} into group {name}", "PUT", f"{path}/{groups.get(name)}", {})
        for name in sorted({*there} - wanted):
            self.change(f"take user {item['username']} out of group {name}", "DELETE", f"{path}/{there[name]}")

    def impostors(self) -> list[str]:
        """Paths of groups below others that are called like one of ours."""
        names = {item["name"] for item in self.items(GROUPS)}
        return sorted(one["path"] for one in self.inner(self.path(GROUPS)) if one["name"] in names)

    def inner(self, path: str, inside: bool = False) -> Iterator[Json]:
        """Every group that has another one above it."""
        for one in self.server.ask("GET", f"{path}?max=-1") or []:
            if inside:
                yield one
            if one.get("subGroupCount") != 0:
                yield from self.inner(self.path(GROUPS, f"/{one['id']}/children"), inside=True)

    def path(self, kind: Kind, rest: str = "") -> str:
        """A path below /admin/realms."""
        return f"/{self.name}{kind.path}{rest}"

    def change(self, action: str, method: str, path: str, data: Any = None) -> None:
        """One request that changes something, unless it is only to be told."""
        self.actions.append(action)
        if not self.check:
            self.server.ask(method, path, data)


def complete(realm: Json, secrets: Json) -> Json:
    """A realm with the secrets that its representation leaves out."""
    clients, users = (secrets.get(key) or {} for key in ("clients", "users"))
    return {
        **realm,
        "clients": [
            {**client, "secret": clients[client["clientId"]]} if client["clientId"] in clients else client
            for client in realm.get("clients") or []
        ],
        "users": [
            {**user, "credentials": [{"type": "password", **first(user), "value": users[user["username"]]}]}
            if user["username"] in users
            else user
            for user in realm.get("users") or []
        ],
    }


def first(user: Json) -> Json:
    """What a representation says of the first password."""
    return next(iter(user.get("credentials") or []), {})


def converged(server: Keycloak | None, module: AnsibleModule) -> Json:
    """Bring the realm to what is asked for; returns what was done, and whose names may be mistaken."""
    wanted = complete(module.params["realm"], module.params["secrets"])
    if server is None:
        return {"actions": [f"make realm {wanted['realm']}"], "impostors": []}
    realm = Realm(server, wanted, module.check_mode)
    realm.converge()
    return {"actions": realm.actions, "impostors": realm.impostors()}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "realm": {"type": "dict", "required": True},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    server = connect(module)
    try:
        done = converged(server, module)
    except RefusedError as error:
        module.fail_json(msg=f"Keycloak refused: {error}")
    else:
        module.exit_json(changed=bool(done["actions"]), **done)


if __name__ == "__main__":
    main()
