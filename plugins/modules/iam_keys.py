#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Give a realm of Keycloak a new key that signs tokens; the one before stays valid for as long as its tokens live."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
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
module: iam_keys
short_description: Rotate the keys with which a realm of Keycloak signs tokens
description:
  - Makes a new key that signs from now on. The keys before sign no more, but what they have signed is still believed.
  - Removes keys that have not signed for O(keep) seconds, so that nobody has a token of theirs any more.
  - Only keys for signatures that others verify (RSA) are rotated. Refresh tokens and logins in browsers are signed by a
    key that never leaves Keycloak and go on.
options:
  realm:
    description: Name of the realm.
    type: str
    required: true
  keep:
    description: >-
      Seconds for which a key is kept after it has signed for the last time. V(0) removes all but the new one at once,
      as after a theft.
    type: int
    required: true
attributes:
  check_mode:
    support: full
    description: Tells what would be done.
  diff_mode:
    support: none
    description: Says in RV(actions) what it did.
  idempotent:
    support: none
    description: Each call makes a new key.
extends_documentation_fragment: [deephdc.testbed.keycloak]
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Sign with a new key
  deephdc.testbed.iam_keys:
    url: https://iam.example.org:8443
    client: admin
    secret: "{{ admin_secret }}"
    realm: example
    keep: 86400
"""

RETURN = r"""
actions:
  description: What was (or, in check mode, would be) done, such as C(make key signing-20260102T030405Z).
  returned: always
  type: list
  elements: str
"""

PROVIDERS = {"type": "org.keycloak.keys.KeyProvider"}
SIGNING = ("rsa-generated", "rsa", "java-keystore")
# The name of a key says since when it signs: Keycloak itself does not remember.
NAME = "signing-%Y%m%dT%H%M%SZ"
OURS = re.compile(r"signing-\d{8}T\d{6}Z")


def made(key: Json) -> datetime | None:
    """When a key was made; ``None`` for one that the realm was made with, or somebody else's."""
    return datetime.strptime(key["name"], NAME).replace(tzinfo=UTC) if OURS.fullmatch(key["name"]) else None


def priority(key: Json) -> int:
    """The key of the highest priority signs."""
    return int((key.get("config", {}).get("priority") or ["0"])[0])


def signs(key: Json) -> bool:
    """Whether a key may still sign."""
    return bool((key.get("config", {}).get("active") or ["true"])[0] == "true")


def worn_out(keys: list[Json], now: datetime, keep: int) -> list[Json]:
    """Keys that have not signed for ``keep`` seconds: each one signed until the one after it was made."""
    ordered = sorted(keys, key=priority)
    pairs = zip(ordered, ordered[1:], strict=False)
    return [key for key, after in pairs if (until := made(after)) is not None and (now - until).total_seconds() >= keep]


class Keys:
    """The keys of one realm that sign tokens; ``actions`` tells what was done."""

    def __init__(self, server: Keycloak, realm: str, check: bool) -> None:
        self.server = server
        self.realm = realm
        self.path = f"/{quote(realm)}/components"
        self.check = check
        self.actions: list[str] = []

    def rotate(self, now: datetime, keep: int) -> None:
        """New key first, so that there always is one that signs; killed at any moment, the next call finishes."""
        keys = self.there()
        new = self.new(keys, now)
        self.change(f"make key {new['name']}", "POST", self.path, new)
        gone = worn_out([*keys, new], now, keep)
        for key in keys:
            if key in gone:
                self.change(f"remove key {key['name']}", "DELETE", f"{self.path}/{key['id']}")
            elif signs(key):
                passive = {**key, "config": {**key["config"], "active": ["false"]}}
                self.change(f"let key {key['name']} sign no more", "PUT", f"{self.path}/{key['id']}", passive)

    def there(self) -> list[Json]:
        """The keys that sign, or have signed, what others verify."""
        found = self.server.ask("GET", f"{self.path}?{urlencode(PROVIDERS)}")
        if found is None:
            raise RefusedError(f"there is no realm {self.realm}. Next: deploy the IAM first")
        return [key for key in found if key["providerId"] in SIGNING]

    def new(self, keys: list[Json], now: datetime) -> Json:
        """A key that signs before all others."""
        parent = {"parentId": keys[0]["parentId"]} if keys else {}
        above = max(map(priority, keys), default=0) + 1
        config = {"priority": [str(above)], "active": ["true"], "enabled": ["true"], "algorithm": ["RS256"]}
        kind = {"providerId": "rsa-generated", "providerType": PROVIDERS["type"]}
        return {**parent, **kind, "name": now.strftime(NAME), "config": config}

    def change(self, action: str, method: str, path: str, data: Any = None) -> None:
        """One request that changes something, unless it is only to be told."""
        self.actions.append(action)
        if not self.check:
            self.server.ask(method, path, data)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "realm": {"type": "str", "required": True},
            "keep": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    server = connect(module)
    if server is None:
        module.exit_json(changed=True, actions=["make key"])
    keys = Keys(server, module.params["realm"], module.check_mode)
    try:
        keys.rotate(datetime.now(UTC), module.params["keep"])
    except RefusedError as error:
        module.fail_json(msg=f"Keycloak refused: {error}", actions=keys.actions)
    module.exit_json(changed=True, actions=keys.actions)


if __name__ == "__main__":
    main()
