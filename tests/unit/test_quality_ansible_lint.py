"""The gate around ansible-lint refuses bad content, and a run that looked at nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from testbed.paths import repo_root
from tools import ansible_lint

BAD = """---
- name: Run what must be refused
  hosts: all
  tasks:
    - name: Print with a shell and hide the failure
      shell: echo hi
      ignore_errors: true
    - name: Mount without saying what
      ansible.posix.mount:
        fstype: ext4
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copy(repo_root() / ".ansible-lint", tmp_path)
    (tmp_path / "playbooks").mkdir()
    return tmp_path


def test_bad_content_is_refused_under_the_rules_of_the_project(tree: Path) -> None:
    (tree / "playbooks/bad.yml").write_text(BAD)
    verdict = ansible_lint.check(tree)
    assert not verdict.ok
    assert verdict.processed >= 1
    rules = "\n".join(verdict.problems)
    for rule in ("fqcn[action-core]", "ignore-errors", "no-changed-when", "command-instead-of-shell", "args[module]"):
        assert rule in rules


def test_an_empty_tree_is_refused(tree: Path) -> None:
    verdict = ansible_lint.check(tree)
    assert verdict.problems == [f"no Ansible file found below {tree.name}/ (needed: playbooks or roles)"]


@pytest.mark.parametrize(("status", "processed"), [(0, 0), (0, 1), (2, 2)])
def test_a_run_that_looked_at_too_little_is_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch, status: int, processed: int
) -> None:
    for name in ("one", "two"):
        (tree / f"playbooks/{name}.yml").write_text("---\n- name: Nothing\n  hosts: all\n  tasks: []\n")
    monkeypatch.setattr(ansible_lint, "run_linter", lambda _root: (status, [], processed))
    verdict = ansible_lint.check(tree)
    assert len(verdict.problems) == 1
    assert "too few files" in verdict.problems[0] or "named no violation" in verdict.problems[0]


def test_a_module_that_is_not_installed_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    playbook = "- hosts: all\n  tasks:\n    - block:\n        - {nowhere.nothing.thing: {}, name: x}\n"
    (tree / "playbooks/one.yml").write_text(playbook)
    monkeypatch.setattr(ansible_lint, "run_linter", lambda _root: (0, [], 1))
    assert ansible_lint.check(tree).problems == ["module nowhere.nothing.thing cannot be resolved"]


def test_installed_modules_and_actions_are_resolved() -> None:
    assert ansible_lint.unresolved({"ansible.builtin.command", "ansible.builtin.assert", "ansible.posix.mount"}) == []


def test_vaulted_values_do_not_stop_the_search(tmp_path: Path) -> None:
    tasks = tmp_path / "main.yml"
    tasks.write_text("- name: x\n  ansible.builtin.debug: {msg: !vault 'x'}\n  vars: {a.b.c: 1}\n")
    assert list(ansible_lint.modules_in(tasks)) == ["ansible.builtin.debug"]
