"""What Ansible would see for a host, worked out on the controller: variables, templates, conditions, argument specs.

Uses Ansible's own inventory, variable manager and template engine, so precedence, vault, filters and lookups are
those of a real run. No host is contacted; facts are given by the caller or absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError, AnsibleTemplateError, AnsibleUndefinedVariable
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import get_file_vault_secret, is_encrypted_file
from ansible.plugins.loader import init_plugin_loader
from ansible.plugins.vars import host_group_vars
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from testbed.errors import CHECK_FAILED, DeepError
from testbed.paths import collections_path, repo_root

COLLECTION = "deephdc.testbed."
# A play of the prechecks may be narrowed to some of its hosts.
SCOPE = re.compile(r":&\{\{.*?\}\}")
FACTS = "'ansible_facts' is undefined"


@cache
def load_plugins() -> None:
    """Make the plugins of collections known to Ansible, once per process."""
    init_plugin_loader([str(folder) for folder in collections_path()])


@dataclass(frozen=True)
class Unknown:
    """A value or condition that cannot be worked out: a variable that nobody sets, or that only the host can tell.

    Where it is not ``missing``, nothing lacks: what is there cannot be worked with.
    """

    reason: str
    missing: bool = True


class _WithoutPassword(DataLoader):  # type: ignore[misc]  # Ansible's classes are untyped
    """Takes a file that only the vault's password opens for an empty one."""

    def load_from_file(self, file_name: str, *arguments: Any, **options: Any) -> Any:
        with Path(file_name).open("rb") as file:
            if is_encrypted_file(file):
                return {}
        return super().load_from_file(file_name, *arguments, **options)


class SiteVariables:
    """The inventory of a site as Ansible reads it, without its secrets where the password is not at hand.

    ``sources`` are inventory folders in order of rising precedence. ``extra`` stands for variables that are not there
    yet (secrets of a site that has none); it has the precedence of extra variables.
    """

    def __init__(
        self, sources: Sequence[Path], *, vault_password: Path | None = None, extra: Mapping[str, Any] | None = None
    ) -> None:
        load_plugins()
        # Kept by Ansible for the whole process: files that have appeared since would not be seen.
        host_group_vars.FOUND.clear()
        host_group_vars.NAK.clear()
        password = vault_password if vault_password is not None and vault_password.is_file() else None
        self._loader = DataLoader() if password else _WithoutPassword()
        # Not the current folder: a group_vars beside it must never be read by accident.
        self._loader.set_basedir(str(repo_root() / "playbooks"))
        if password:
            self._loader.set_vault_secrets([("default", _vault_secret(password, self._loader))])
        try:
            self._inventory = InventoryManager(loader=self._loader, sources=[str(source) for source in sources])
            self._manager = VariableManager(loader=self._loader, inventory=self._inventory)
            HostVars(inventory=self._inventory, variable_manager=self._manager, loader=self._loader)
        except AnsibleError as error:
            raise DeepError(f"the inventory cannot be read: {error}", exit_code=CHECK_FAILED) from error
        self._extra = dict(extra or {})
        self._systems: list[str] = []
        self._known: dict[str, dict[str, Any]] = {}
        self._files: dict[Path, Any] = {}

    @property
    def hosts(self) -> list[str]:
        """Names of all hosts."""
        return sorted(host.name for host in self._inventory.get_hosts())

    @property
    def groups(self) -> dict[str, list[str]]:
        """Group -> names of the hosts in it or in its children."""
        return {name: [str(host) for host in hosts] for name, hosts in self._inventory.get_groups_dict().items()}

    def hosts_of(self, pattern: str) -> list[str]:
        """Host names that a play's ``hosts:`` pattern selects."""
        return [host.name for host in self._inventory.list_hosts(pattern) if not host.implicit]

    def give_facts(self, facts: Mapping[str, Any]) -> None:
        """Let every host have these ``ansible_facts``."""
        self._systems = [str(facts[key]) for key in ("os_family", "distribution") if key in facts]
        self._known.clear()
        for host in self.hosts:
            self._manager.set_nonpersistent_facts(host, {"ansible_facts": dict(facts)})

    def variables(self, host: str, role: str | None = None, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All variables of ``host``, between defaults and vars of ``role``, under ``more`` (task variables)."""
        own = self._own(host)
        if role is None:
            return {**own, **(more or {}), **self._extra}
        folder = role_path(role)
        defaults = self.trusted_yaml(folder / "defaults" / "main.yml") or {}
        role_vars: dict[str, Any] = {}
        # Files named for a system begin with a capital; the others are every host's.
        for file in sorted((folder / "vars").glob("[a-z]*.yml")):
            role_vars.update(self.trusted_yaml(file) or {})
        # What the role's first task includes; without facts no host's distribution is known.
        os_vars: dict[str, Any] = {}
        for system in self._systems:
            os_vars.update(self.trusted_yaml(folder / "vars" / f"{system}.yml") or {})
        place = {"role_name": role, "role_path": str(folder)}
        return {**defaults, **own, **role_vars, **os_vars, **place, **(more or {}), **self._extra}

    def _own(self, host: str) -> dict[str, Any]:
        if host not in self._known:
            found = dict(self._manager.get_vars(host=self._inventory.get_host(host)))
            if not self._systems:
                # Absent rather than empty: what follows from facts is then seen to be unknown.
                found.pop("ansible_facts", None)
            self._known[host] = found
        return self._known[host]

    def trusted_yaml(self, path: Path) -> Any:
        """A YAML file whose strings may be templates; ``None`` where there is no such file."""
        if path not in self._files:
            self._files[path] = (
                self._loader.load_from_file(str(path), trusted_as_template=True) if path.is_file() else None
            )
        return self._files[path]

    def render(self, value: Any, variables: Mapping[str, Any]) -> Any:
        """``value`` with every template in it resolved, or ``Unknown`` where a variable is missing."""
        try:
            return self._templar(variables).template(value)
        except AnsibleTemplateError as error:
            return _unknown(error)

    def holds(self, condition: Any, variables: Mapping[str, Any]) -> bool | Unknown:
        """Whether a ``when:`` or ``that:`` condition (or every one of a list) holds."""
        templar = self._templar(variables)
        try:
            return all(
                templar.evaluate_conditional(one) for one in (condition if isinstance(condition, list) else [condition])
            )
        except AnsibleTemplateError as error:
            return _unknown(error)

    def render_file(self, template: Path, variables: Mapping[str, Any]) -> str:
        """The text that ``ansible.builtin.template`` would write from ``template``."""
        templar = self._templar(variables).copy_with_new_env(
            searchpath=[str(template.parent)], available_variables=dict(variables)
        )
        # The action plugin's own settings: a template tested with others would be another template.
        overrides = {"trim_blocks": True, "lstrip_blocks": False}
        text = trust_as_template(template.read_text(encoding="utf-8"))
        return str(templar.template(text, escape_backslashes=False, overrides=overrides) or "")

    def argument_errors(self, role: str, entry_point: str, variables: Mapping[str, Any]) -> list[str]:
        """What the role's argument spec says against the variables of a host.

        A value that follows from facts is passed over where none are given.
        """
        options = argument_spec(role, entry_point)
        given: dict[str, Any] = {}
        errors: list[str] = []
        for name in options.keys() & variables.keys():
            value = self.render(variables[name], variables)
            if not isinstance(value, Unknown):
                given[name] = value
                continue
            # Neither asked for nor replaced by the spec's default, which may be a template.
            options[name] = {key: value for key, value in options[name].items() if key not in ("required", "default")}
            if FACTS not in value.reason:
                errors.append(f"{name}: {value.reason}")
        result = ArgumentSpecValidator(options).validate(given, validate_role_argument_spec=True)
        return [*errors, *result.error_messages]

    def _templar(self, variables: Mapping[str, Any]) -> Any:
        return Templar(loader=self._loader, variables=dict(variables))


def _unknown(error: AnsibleTemplateError) -> Unknown:
    """With the innermost message: what a role's own check of a variable says, or which variable is undefined."""
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    missing = any(isinstance(one, AnsibleUndefinedVariable) for one in chain)
    return Unknown(str(getattr(chain[-1], "message", chain[-1])), missing)


def _vault_secret(path: Path, loader: Any) -> Any:
    secret = get_file_vault_secret(filename=str(path), loader=loader)
    secret.load()
    return secret


def roles() -> list[str]:
    """The short names of the project's roles."""
    return sorted(p.name for p in (repo_root() / "roles").glob("*") if (p / "tasks").is_dir())


def role_path(role: str) -> Path:
    """The folder of a role, by short name or as ``deephdc.testbed.NAME``."""
    return repo_root() / "roles" / role.removeprefix(COLLECTION)


def argument_spec(role: str, entry_point: str = "main") -> dict[str, dict[str, Any]]:
    """The options of one entry point of a role's argument spec (empty where it declares none)."""
    return dict(_argument_specs(role).get(entry_point, {}).get("options") or {})


@cache
def _argument_specs(role: str) -> dict[str, Any]:
    path = role_path(role) / "meta" / "argument_specs.yml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]) if path.is_file() else {}


def plays(playbook: Path) -> Iterator[tuple[str, str]]:
    """(hosts pattern, role) for every role that a playbook and the playbooks it imports apply."""
    for play in yaml.safe_load(playbook.read_text(encoding="utf-8")):
        imported = play.get("ansible.builtin.import_playbook") or play.get("import_playbook")
        if imported:
            yield from plays(playbook.parent / imported)
            continue
        for role in _roles_of(play):
            yield SCOPE.sub("", str(play["hosts"])), role


def _roles_of(play: Mapping[str, Any]) -> Iterator[str]:
    for role in play.get("roles") or []:
        yield str(role if isinstance(role, str) else role.get("role") or role.get("name")).removeprefix(COLLECTION)
    for section in ("pre_tasks", "tasks", "post_tasks"):
        for task in flatten(play.get(section) or []):
            for action in ("include_role", "import_role"):
                arguments = task.get(f"ansible.builtin.{action}") or task.get(action)
                if arguments and "{{" not in arguments["name"]:
                    yield str(arguments["name"]).removeprefix(COLLECTION)


def flatten(tasks: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Tasks in order, those inside blocks included."""
    for task in tasks:
        if "block" in task:
            for section in ("block", "rescue", "always"):
                yield from flatten(task.get(section) or [])
        else:
            yield task
