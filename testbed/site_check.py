"""What is wrong with a site, as far as its files tell: groups, secrets, argument specs, prechecks that need no host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbed import secrets
from testbed.errors import DeepError
from testbed.paths import repo_root
from testbed.playbook import ansible_environment, sentences, tool
from testbed.rendering import SiteVariables, Unknown, flatten, plays, role_path
from testbed.run import run
from testbed.sites import (
    COMMON,
    declared_groups,
    inventories,
    inventory_args,
    inventory_sources,
    site_path,
    vault_password_file,
)


def settings(site: str, name: str | None = None, extra: Mapping[str, Any] | None = None) -> SiteVariables:
    """The inventory of a site as Ansible reads it, its secrets opened where the password is at hand."""
    return SiteVariables(inventory_sources(site, name), vault_password=vault_password_file(site, name), extra=extra)


def check(site: str, name: str | None = None, *, syntax: bool = True) -> dict[str, Any]:
    """Look for everything that can be wrong with a site before a host is contacted.

    Returns ``{ok, site, hosts, problems: [...], checked: {...}}``: groups, secrets, argument specs of every role on
    every host it is applied to, the prechecks that need no host, and Ansible's syntax check. ``checked`` counts
    what was looked at, so that nothing looked at is seen to be nothing.
    """
    site_path(site)
    missing = missing_secrets(site, name)
    variables = settings(site, name, extra=dict.fromkeys(missing, "0" * 32))
    problems = [*_group_problems(variables), *_secret_problems(site, missing)]
    role_problems, checked = _role_problems(variables)
    problems += role_problems
    if syntax:
        problems += _syntax_problems(site, name)
        checked["playbooks"] = 1
    ok = not problems and bool(variables.hosts) and checked["argument_specs"] > 0
    return {"ok": ok, "site": site, "hosts": len(variables.hosts), "problems": problems, "checked": checked}


def problem(
    what: str, *, host: str | None = None, found: str = "", needed: str = "", next_step: str = ""
) -> dict[str, Any]:
    """One finding of ``check``, with the facts that every message of the project carries."""
    return DeepError(what, host=host, found=found or None, needed=needed or None, next_step=next_step or None).as_dict()


def _group_problems(variables: SiteVariables) -> list[dict[str, Any]]:
    groups = variables.groups
    known = set(declared_groups(inventories() / COMMON)) | {"all", "ungrouped"}
    found = [
        problem(
            "unknown group", found=group, needed=f"one of: {', '.join(sorted(known))}", next_step="correct hosts.yml"
        )
        for group in sorted(set(groups) - known)
    ]
    if not variables.hosts:
        advice = "add hosts, or raise the testbed: deep testbed up"
        found.append(problem("the site has no host", needed="hosts in hosts.yml", next_step=advice))
    found += [
        problem(
            "host in no group",
            host=host,
            needed="a group of inventories/common/hosts.yml",
            next_step="correct hosts.yml",
        )
        for host in groups.get("ungrouped", [])
    ]
    found += [
        problem(
            "GPUs both real and simulated",
            host=host,
            needed="one of gpu_real, gpu_simulated",
            next_step="correct hosts.yml",
        )
        for host in sorted(set(groups.get("gpu_real", [])) & set(groups.get("gpu_simulated", [])))
    ]
    return found


def _secret_problems(site: str, missing: Sequence[str]) -> list[dict[str, Any]]:
    if not missing:
        return []
    return [problem("secrets are missing", found=", ".join(missing), next_step=f"deep site secrets {site}")]


def missing_secrets(site: str, name: str | None = None) -> list[str]:
    """Names of secrets that the site's inventory does not give (any host of the site is asked)."""
    variables = settings(site, name)
    if not variables.hosts:
        return []
    given = variables.variables(variables.hosts[0])
    return sorted(secret for secret in secrets.names() if secret not in given)


def _role_problems(variables: SiteVariables) -> tuple[list[dict[str, Any]], dict[str, int]]:
    found: list[dict[str, Any]] = []
    counts = {"argument_specs": 0, "prechecks": 0, "prechecks_that_need_the_host": 0}
    for pattern, role in dict.fromkeys(plays(repo_root() / "playbooks" / "site.yml")):
        for host in variables.hosts_of(pattern):
            known = variables.variables(host, role)
            counts["argument_specs"] += 1
            for message in variables.argument_errors(role, "main", known):
                found += _told(host, role, message)
            for verdict in prechecks(variables, host, role):
                counts["prechecks_that_need_the_host" if verdict is None else "prechecks"] += 1
                found += verdict or []
    return _unique(found), counts


def _unique(problems: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({(p["host"], p["message"]): p for p in problems}.values())


def prechecks(variables: SiteVariables, host: str, role: str) -> Iterator[list[dict[str, Any]] | None]:
    """Each assertion of a role's precheck: its problems, none where it holds, ``None`` where only the host can tell.

    What a check cannot work with, though all is there, is a problem.
    """
    tasks = variables.trusted_yaml(role_path(role) / "tasks" / "precheck.yml") or []
    for task in flatten(tasks):
        if "ansible.builtin.assert" not in task:
            continue
        known = variables.variables(host, role, task.get("vars"))
        looped = variables.render(task["loop"], known) if "loop" in task else [None]
        if isinstance(looped, Unknown):
            yield None if looped.missing else _told(host, role, looped.reason)
            continue
        for item in looped:
            yield _assertion(variables, host, role, task, {**known, "item": item})


def _assertion(
    variables: SiteVariables, host: str, role: str, task: Mapping[str, Any], known: Mapping[str, Any]
) -> list[dict[str, Any]] | None:
    applies = variables.holds(task.get("when", True), known)
    holds = variables.holds(task["ansible.builtin.assert"]["that"], known)
    for verdict in (applies, holds if applies else True):
        if isinstance(verdict, Unknown):
            return None if verdict.missing else _told(host, role, verdict.reason)
    if not applies or holds:
        return []
    said = variables.render(task["ansible.builtin.assert"].get("fail_msg", task.get("name", "")), known)
    return _told(host, role, str(said.reason if isinstance(said, Unknown) else said))


def _told(host: str, role: str, message: str) -> list[dict[str, Any]]:
    return [
        problem(f"{role}: {text}", host=host, next_step=advice or f"see roles/{role}/README.md")
        for text, advice in sentences(host, message)
    ]


def _syntax_problems(site: str, name: str | None) -> list[dict[str, Any]]:
    argv = [
        tool("ansible-playbook"),
        "--syntax-check",
        *inventory_args(site, name),
        str(repo_root() / "playbooks" / "site.yml"),
    ]
    done = run(argv, env=ansible_environment(), cwd=repo_root(), check=False, timeout=300)
    if done.returncode == 0:
        return []
    return [
        problem(
            "Ansible refuses the playbook",
            found=done.stdout.strip()[-1500:],
            next_step="read the message of ansible-playbook --syntax-check",
        )
    ]
