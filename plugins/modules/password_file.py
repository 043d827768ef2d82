#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep a file with one user and the bcrypt hash of its password."""

from __future__ import annotations

import ctypes
import hmac
import os
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.managed_files import FilesError, apply

DOCUMENTATION = r"""
module: password_file
short_description: Keep a file with one user and the bcrypt hash of its password
description:
  - A hash that verifies the password stays. Any other is made anew, with a random salt.
  - Uses the host's libcrypt, which every Debian and Ubuntu has.
options:
  path:
    description: Absolute path on the host.
    type: path
    required: true
  user:
    description: The one user.
    type: str
    required: true
  password:
    description: Password of the user, at most 72 bytes.
    type: str
    required: true
  rounds:
    description: Cost of one guess and of one check, as a power of two. A hash of another cost is made anew.
    type: int
    default: 10
  group:
    description: Group that may read the file.
    type: str
    default: root
attributes:
  check_mode:
    support: full
    description: Tells whether the file would change.
  diff_mode:
    support: none
    description: The content is secret.
  idempotent:
    support: full
    description: A second call changes nothing.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Let one user in
  deephdc.testbed.password_file:
    path: /etc/example/users
    user: deep
    password: "{{ example_password }}"
"""

RETURN = r"""
paths:
  description: The path, where the file changed.
  returned: always
  type: list
  elements: str
"""

# As long as bcrypt looks; the rest would count for nothing.
LONGEST = 72
SALT_BYTES = 16


class HashError(Exception):
    """libcrypt cannot do what is asked for."""


def _crypt(password: str, setting: bytes) -> str:
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    found = library.crypt(password.encode(), setting) or b"*"
    if found.startswith(b"*"):
        raise HashError("libcrypt knows no bcrypt (found an error of crypt, needed a hash)")
    return str(found.decode())


def new_hash(password: str, rounds: int) -> str:
    """A bcrypt hash with a salt that nothing tells."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt_gensalt.restype = ctypes.c_char_p
    setting = library.crypt_gensalt(b"$2b$", ctypes.c_ulong(rounds), os.urandom(SALT_BYTES), SALT_BYTES)
    return _crypt(password, setting or b"*")


def verifies(line: str, user: str, password: str, rounds: int) -> bool:
    """Whether ``line`` of a password file lets ``user`` in with ``password``, at this cost."""
    match = re.fullmatch(rf"{re.escape(user)}:([$]2b[$]{rounds:02}[$][./A-Za-z0-9]{{53}})", line)
    return match is not None and hmac.compare_digest(_crypt(password, match[1].encode()), match[1])


def wanted_line(path: str, user: str, password: str, rounds: int) -> str:
    """The line that the file has if it is right, else a new one."""
    try:
        with open(path, encoding="utf-8", errors="replace") as source:
            known = source.read().rstrip("\n")
    except FileNotFoundError:
        known = ""
    return known if verifies(known, user, password, rounds) else f"{user}:{new_hash(password, rounds)}"


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "rounds": {"type": "int", "default": 10},
            "group": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    if len(asked["password"].encode()) > LONGEST:
        module.fail_json(msg=f"password: found more than {LONGEST} bytes, needed at most as many as bcrypt looks at")
    try:
        line = wanted_line(asked["path"], asked["user"], asked["password"], asked["rounds"])
        file = {"path": asked["path"], "state": "file", "content": None, "secret_content": line, "wanted": True}
        file |= {"block": None, "replace": True, "mode": "0640", "owner": "root", "group": asked["group"]}
        changes = apply([file], module.check_mode)
    except (HashError, OSError, FilesError) as error:
        module.fail_json(msg=f"{asked['path']}: {error}")
    else:
        module.exit_json(changed=bool(changes), paths=[change.path for change in changes])


if __name__ == "__main__":
    main()
