"""The part of the inventory that only the testbed knows: addresses, keys and the URL of its artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testbed import cgroups, secrets
from testbed.artifacts import api
from testbed.files import write_atomic
from testbed.nodes import Node, NodeState, known_hosts
from testbed.profiles import Profile
from testbed.state import State

KEY = Path("ssh/id_ed25519")
KNOWN_HOSTS = Path("ssh/known_hosts")
HOSTS = Path("inventory/hosts.yml")
SETTINGS = Path("inventory/group_vars/all/main.yml")
SECRETS = Path("inventory/group_vars/all/secrets.yml")
VAULT_PASSWORD = Path("vault-password")
HEADER = "# Written by 'deep testbed up'; changes are lost.\n"


def ensure_key(folder: Path) -> str:
    """The public half of the testbed's ssh key, which is made where there is none (private half of mode 0600)."""
    private, public = folder / KEY, folder / f"{KEY}.pub"
    if not public.is_file():
        key = Ed25519PrivateKey.generate()
        clear = serialization.NoEncryption()
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, clear)
        shared = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        write_atomic(private, secret.decode("ascii"), 0o600)
        write_atomic(public, f"{shared.decode('ascii')} deep-testbed\n")
    return public.read_text(encoding="ascii")


def write(
    folder: Path,
    state: State,
    profile: Profile,
    nodes: Sequence[Node],
    states: Sequence[NodeState],
    cgroup_version: int,
) -> None:
    """Write a testbed's inventory and known_hosts below ``folder``; what is right already is not touched."""
    content = hosts(folder, state, profile, nodes, cgroup_version)
    write_atomic(folder / HOSTS, HEADER + yaml.safe_dump(content, explicit_start=True, sort_keys=False))
    artifacts = {"artifact_mirror": state.artifact_mirror, "artifact_checksums": str(api.mirror_dir())}
    settings = {**artifacts, **state.settings}
    write_atomic(folder / SETTINGS, HEADER + yaml.safe_dump(settings, explicit_start=True))
    write_atomic(folder / KNOWN_HOSTS, known_hosts(states))
    secrets.ensure(folder / SECRETS, folder / VAULT_PASSWORD)


def hosts(folder: Path, state: State, profile: Profile, nodes: Sequence[Node], cgroup_version: int) -> dict[str, Any]:
    """The content of hosts.yml: variables of every host, then the groups that the profile gives each."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for number, node in enumerate(nodes, start=1):
        for group in profile.groups(number):
            groups.setdefault(group, {"hosts": {}})["hosts"][node.name] = {}
    own = {
        node.name: {
            "ansible_host": node.address,
            "kubernetes_cgroup_root": _cgroup_root(state.name, node.name, cgroup_version),
        }
        for node in nodes
    }
    connection = {
        "ansible_connection": "ssh",
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(folder / KEY),
        "ansible_ssh_common_args": " ".join(f"-o {option}" for option in ssh_options(folder)),
        # Of this testbed alone: its addresses may have been another's a minute ago.
        "ansible_control_path_dir": state.control_path,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    return {"all": {"hosts": own, "vars": connection, "children": groups}}


def ssh_options(folder: Path) -> list[str]:
    """Options with which ssh knows the nodes of the testbed whose state is in ``folder``, and no others."""
    return [f"UserKnownHostsFile={folder / KNOWN_HOSTS}", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]


def _cgroup_root(testbed: str, node: str, version: int) -> str:
    return cgroups.root_of(testbed, node) if version == 1 else ""
