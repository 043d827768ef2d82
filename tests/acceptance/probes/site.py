"""The site under test, as its inventory describes it, and connections to its hosts."""

from __future__ import annotations

import json
import shlex
import ssl
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import testinfra

from testbed.rendering import SiteVariables, Unknown, role_path, roles

DECLARED = Path(__file__).resolve().parent.parent / "declared.yml"
# How long an idle ssh connection is kept for the next check.
SHARED_SECONDS = 30


class Site:
    """One inventory, read once. Variables are those of a host, over the defaults of every role applied to it."""

    def __init__(self, name: str, sources: Sequence[Path], vault_password: Path | None) -> None:
        self.name = name
        self._inventory = SiteVariables(sources, vault_password=vault_password)
        self._variables: dict[str, dict[str, Any]] = {}
        self._hosts: dict[str, Any] = {}
        # Of this run alone: an address may have been another host's a minute ago. Short, as sockets' paths must be.
        self._sockets = TemporaryDirectory(prefix="deep-", ignore_cleanup_errors=True)  # pylint: disable=consider-using-with
        self._defaults = _all_defaults(self._inventory)
        self.groups = self._inventory.groups
        self.names = self._inventory.hosts
        self.declared: dict[str, Any] = self._inventory.trusted_yaml(DECLARED)

    @property
    def simulated(self) -> bool:
        """Whether any GPU of the site is simulated: every report has to say so."""
        return bool(self.groups.get("gpu_simulated"))

    def group(self, name: str) -> list[str]:
        """Host names of a group, in inventory order; empty for a group the inventory does not have."""
        return list(self.groups.get(name, []))

    def matching(self, pattern: str) -> list[str]:
        """Host names that a pattern of hosts and groups selects, as Ansible's ``--limit`` does."""
        return self._inventory.hosts_of(pattern)

    def groups_of(self, host: str) -> list[str]:
        """The groups that hold ``host``."""
        return sorted(name for name, hosts in self.groups.items() if host in hosts)

    def has(self, host: str, variable: str) -> bool:
        """Whether ``host`` knows ``variable``."""
        return variable in self._of(host)

    def value(self, host: str, variable: str) -> Any:
        """A variable of ``host`` with its templates resolved; ``KeyError`` for one that nobody declares."""
        return self.render(host, self._of(host)[variable])

    def render(self, host: str, value: Any) -> Any:
        """``value`` with its templates resolved for ``host``; ``KeyError`` where a variable is missing."""
        rendered = self._inventory.render(value, self._of(host))
        if isinstance(rendered, Unknown):
            raise KeyError(rendered.reason)
        return rendered

    def _of(self, host: str) -> dict[str, Any]:
        if host not in self._variables:
            self._variables[host] = {**self._defaults, **self._inventory.variables(host)}
        return self._variables[host]

    def declared_for(self, host: str, kind: str) -> list[Any]:
        """What ``declared.yml`` and the inventory variable ``declared_<kind>`` say for the groups of ``host``."""
        entries: list[Any] = []
        for group in ["all", *(g for g in self.groups_of(host) if g != "all")]:
            entries += self.declared.get(group, {}).get(kind) or []
        entries = [rendered for entry in entries if (rendered := self.render(host, entry)) != ""]
        return entries + (list(self.value(host, f"declared_{kind}")) if self.has(host, f"declared_{kind}") else [])

    def image(self, host: str) -> str:
        """The image with a shell for pods of the checks: ``acceptance_image``, else the toolbox of the registry."""
        return str(
            self.value(host, "acceptance_image")
            if self.has(host, "acceptance_image")
            else self.render(host, self.declared["image"])
        )

    def address(self, host: str) -> str:
        """Where ``host`` is reached."""
        return str(self.value(host, "ansible_host")) if self.has(host, "ansible_host") else host

    def host(self, name: str) -> Any:
        """A testinfra host over one shared ssh connection, with privileges as the inventory says."""
        if name not in self._hosts:
            self._hosts[name] = testinfra.get_host(**self._connection(name))
        return self._hosts[name]

    def authority(self) -> ssl.SSLContext:
        """Trust in the site's certificate authority, and in no other; each caller may narrow its own further."""
        host = self.names[0]
        path = f"{self.value(host, 'site_ca_dir')}/ca.crt"
        return ssl.create_default_context(cadata=self.host(self.value(host, "site_ca_host")).file(path).content_string)

    def _connection(self, name: str) -> dict[str, Any]:
        def variable(key: str, default: Any = "") -> Any:
            return self.value(name, key) if self.has(name, key) else default

        sudo = bool(variable("ansible_become", False))
        if variable("ansible_connection", "ssh") == "local":
            return {"hostspec": "local://", "sudo": sudo}
        user, port = variable("ansible_user"), variable("ansible_port")
        arguments = [str(variable("ansible_ssh_common_args")), str(variable("ansible_ssh_extra_args"))]
        return {
            "hostspec": f"ssh://{f'{user}@' if user else ''}{self.address(name)}{f':{port}' if port else ''}",
            "ssh_identity_file": variable("ansible_ssh_private_key_file") or None,
            "ssh_extra_args": " ".join(["-o BatchMode=yes", "-o ConnectTimeout=10", *filter(None, arguments)]),
            # Percent signs are doubled: the value goes through a format string.
            "controlpath": f"{self._sockets.name}/%%C",
            "controlpersist": SHARED_SECONDS,
            "sudo": sudo,
        }


def _all_defaults(inventory: SiteVariables) -> dict[str, Any]:
    """The defaults of every role: names are prefixed by role, so they cannot collide."""
    merged: dict[str, Any] = {}
    for role in roles():
        merged.update(inventory.trusted_yaml(role_path(role) / "defaults" / "main.yml") or {})
    return merged


def python_on(host: Any, script: str, *arguments: str) -> Any:
    """Run a Python script on a host and return the JSON it prints; fails the check when it cannot run."""
    command = " ".join(["python3", "-", *map(shlex.quote, arguments)])
    done = host.run(f"{command} <<'PROBE'\n{script}\nPROBE")
    if done.rc != 0:
        raise AssertionError(f"the probe could not look (exit status {done.rc}): {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout)
