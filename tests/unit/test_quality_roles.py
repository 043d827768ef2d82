"""Every role has the same anatomy, and its contract says what its defaults say."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.paths import repo_root
from tools.role_docs import specs

ROOT = repo_root()
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
# Modules that look and do not touch.
READERS = {
    "ansible.builtin.assert",
    "ansible.builtin.command",
    "ansible.builtin.fail",
    "ansible.builtin.getent",
    "ansible.builtin.import_tasks",
    "ansible.builtin.include_tasks",
    "ansible.builtin.include_vars",
    "ansible.builtin.package_facts",
    "ansible.builtin.service_facts",
    "ansible.builtin.set_fact",
    "ansible.builtin.setup",
    "ansible.builtin.slurp",
    "ansible.builtin.stat",
    "ansible.builtin.uri",
    "ansible.builtin.wait_for",
}

each_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: str(role.name))


@functools.cache
def load(path: Path) -> Any:
    """The content of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tasks(path: Path) -> Iterator[dict[str, Any]]:
    """The tasks of a file, those inside blocks included."""
    waiting = list(load(path) or [])
    while waiting:
        task = waiting.pop(0)
        inside = [inner for name in ("block", "rescue", "always") for inner in task.get(name, [])]
        waiting += inside
        if not inside:
            yield task


def test_there_are_roles_and_playbooks() -> None:
    assert ROLES
    assert PLAYBOOKS


@each_role
def test_contract_has_both_entry_points_with_the_same_options(role: Path) -> None:
    entries = specs(role)
    assert {"main", "precheck"} <= set(entries)
    assert entries["main"].get("options", {}) == entries["precheck"].get("options", {})
    assert entries["main"]["short_description"]


@each_role
def test_every_variable_is_described_and_prefixed(role: Path) -> None:
    options = specs(role)["main"].get("options", {})
    assert [name for name, option in options.items() if not option.get("description")] == []
    assert [name for name in options if not name.startswith(f"{role.name}_")] == []


@each_role
def test_defaults_and_contract_name_the_same_variables(role: Path) -> None:
    options = specs(role)["main"].get("options", {})
    path = role / "defaults" / "main.yml"
    defaults = (load(path) if path.is_file() else None) or {}
    optional = {name for name, option in options.items() if not option.get("required")}
    assert set(defaults) - set(options) == set(), "a default that the contract does not know"
    assert optional - set(defaults) == set(), "an optional variable without a default"
    for name, option in options.items():
        # A default that is taken from the site is a template, of which the contract shows the usual outcome.
        if "default" in option and "{{" not in str(defaults.get(name)):
            assert option["default"] == defaults.get(name), name


@each_role
def test_main_only_imports_one_file_per_verb(role: Path) -> None:
    found = list(tasks(role / "tasks" / "main.yml"))
    includes = {"ansible.builtin.import_tasks", "ansible.builtin.include_tasks", "ansible.builtin.include_vars"}
    assert [task for task in found if not includes & set(task)] == []
    assert "precheck" in str(found[0]) or "include_vars" in str(found[0])


@each_role
def test_precheck_only_looks(role: Path) -> None:
    for task in tasks(role / "tasks" / "precheck.yml"):
        used = {name for name in task if name.count(".") >= 2}
        assert used, task
        touching = {name for name in used - READERS if not re.fullmatch(r"deephdc\.testbed\.\w+_facts", name)}
        assert not touching, f"{task.get('name')}: {touching}"
        if "ansible.builtin.command" in task:
            assert task.get("changed_when") is False, task["name"]


@each_role
def test_every_refusal_says_what_to_do_next(role: Path) -> None:
    for task in tasks(role / "tasks" / "precheck.yml"):
        if {"ansible.builtin.assert", "ansible.builtin.fail"} & set(task):
            # The text of the message, or of the list of checks that it is made from.
            text = str(task)
            if re.search(r"deephdc\.testbed\.\w+_problems", text):
                continue  # the sentences come from a filter, which has tests of its own
            assert "Next:" in text, task["name"]
            assert "inventory_hostname" in text, task["name"]
            assert "found" in text, task["name"]


@each_role
def test_a_role_has_its_page_and_its_metadata(role: Path) -> None:
    assert (role / "README.md").is_file(), "run `make docs`"
    meta = load(role / "meta" / "main.yml")
    assert meta["galaxy_info"]["platforms"]
    assert not meta.get("dependencies")


# Numbers that are no text are none of it: seconds, modes.
ADDRESS = re.compile(r"[a-z]+://(?!\{\{|/)")
VERSION = re.compile(r"(?<![\w.])v?\d+\.\d+(?:[.\w-]*)|\w+[-_=]\d+\.\d+")


def fixed(task: dict[str, Any]) -> list[str]:
    """Addresses and versions that a task itself says, its messages to people left out."""
    module = next((name for name in task if name.count(".") >= 2), "")
    told = {"ansible.builtin.assert", "ansible.builtin.fail"}
    arguments = {} if module in told else task.get(module) or {}
    settings = {key: value for key, value in task.items() if key in ("vars", "environment", "loop")}
    text = str([word for word in scalars([arguments, settings]) if isinstance(word, str)])
    return ADDRESS.findall(text) + VERSION.findall(text)


def scalars(value: Any) -> Iterator[Any]:
    """Everything in a nested value that is neither list nor dictionary."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from scalars(inner)
    else:
        yield value


@each_role
def test_no_version_or_address_in_a_task(role: Path) -> None:
    for path in (role / "tasks").rglob("*.yml"):
        for task in tasks(path):
            assert fixed(task) == [], f"{path.name}: {task.get('name')}"


@pytest.mark.parametrize(
    "argument",
    [
        {"deb": "{{ address }}/cuda-keyring_1.1-1_all.deb"},
        {"name": ["containerd=1.7.2"]},
        {"argv": ["crane", "pull", "pause:3.10.2"]},
        {"url": "https://nvidia.github.io/gpgkey"},
    ],
)
def test_a_version_or_an_address_in_a_task_is_found(argument: dict[str, Any]) -> None:
    assert fixed({"name": "Do it", "ansible.builtin.apt": argument})
    assert fixed({"name": "Do it", "ansible.builtin.apt": {"name": "{{ it }}"}, "vars": {"it": argument}})


@each_role
def test_no_task_hides_its_failure(role: Path) -> None:
    for path in [*(role / "tasks").rglob("*.yml"), *(role / "handlers").rglob("*.yml")]:
        for task in tasks(path):
            assert "ignore_errors" not in task, task["name"]
            assert task.get("failed_when") is not False, task["name"]


def syntax_check(*playbooks: Path) -> subprocess.CompletedProcess[str]:
    """Let Ansible read playbooks against the groups that every inventory has."""
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "--syntax-check", "-i", "inventories/common"]
    return subprocess.run([*argv, *map(str, playbooks)], cwd=ROOT, capture_output=True, text=True, check=False)


def test_playbooks_pass_the_syntax_check() -> None:
    done = syntax_check(*PLAYBOOKS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("playbook: ") == len(PLAYBOOKS), done.stdout


def test_the_syntax_check_can_fail(tmp_path: Path) -> None:
    playbook = tmp_path / "bad.yml"
    playbook.write_text("- hosts: all\n  roles: [deephdc.testbed.no_such_role]\n")
    assert syntax_check(playbook).returncode != 0
