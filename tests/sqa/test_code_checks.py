"""The checks of code: each finds what was planted, and never passes without having looked."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqa.model import Outcome, Verdict
from tests.sqa.real_checks import places, run, write

SHELL = "shell=" + "True"  # as text, so that it is a defect in the planted files alone
PLANTED = {
    "bandit": ({"pkg/run.py": f"import subprocess\n\nsubprocess.run(input(), {SHELL})\n"}, ("pkg/run.py", 3, "B602")),
    "shellcheck": ({"bin/tool": "#!/usr/bin/env bash\ncd /tmp\nls $1\n"}, ("bin/tool", 3, "SC2086")),
    "hadolint": ({"docker/Dockerfile": "FROM debian:12\nRUN cd /\n"}, ("docker/Dockerfile", 2, "DL3003")),
}
CLEAN = {
    "bandit": {"pkg/clean.py": "print(1)\n"},
    "shellcheck": {"clean.sh": "#!/bin/sh\nexit 0\n"},
    "hadolint": {"Dockerfile": "FROM debian:12\n"},
}
# A configuration that cannot be used, and what is said of it.
BROKEN = {
    "bandit": ("pyproject.toml", "[tool.bandit]\nskips = ['B999']\n", "B999"),
    "shellcheck": (".shellcheckrc", "frobnicate\n", "Failed to process .shellcheckrc"),
    "hadolint": (".hadolint.yaml", "ignored: DL3003\n", "parsing your config file"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found_in_its_line(name: str, tmp_path: Path) -> None:
    files, place = PLANTED[name]
    found = run(write(tmp_path / "tree", files), name)
    assert place in places(found), found.reasons
    assert (found.verdict, found.examined) == (Verdict.FAIL, 1)


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_tree_passes(name: str, tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", CLEAN[name]), name)
    assert (found.verdict, found.reasons, found.examined) == (Verdict.PASS, (), len(CLEAN[name]))


@pytest.mark.parametrize("name", BROKEN)
def test_a_configuration_that_cannot_be_used_is_no_pass(name: str, tmp_path: Path) -> None:
    config, text, why = BROKEN[name]
    found = run(write(tmp_path / "tree", {**CLEAN[name], config: text}), name)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert why in found.reasons[0]
    assert str(tmp_path) not in found.reasons[0]


@pytest.mark.parametrize("name", CLEAN)
def test_a_setting_that_a_check_does_not_take_is_no_pass(name: str, tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", CLEAN[name]), name, pyhton=1)
    assert (found.verdict, f"checks.{name}.pyhton" in found.reasons[0]) == (Verdict.INCONCLUSIVE, True)


@pytest.mark.parametrize("name", ["bandit", "hadolint"])
def test_one_file_at_a_time_finds_what_all_together_do(name: str, tmp_path: Path) -> None:
    files, _ = PLANTED[name]
    root = write(tmp_path / "all" / "tree", {**files, **CLEAN[name]})
    cold, warm = run(root, name), run(root, name)
    assert warm.cached
    assert said(cold) == said(warm)
    single = write(tmp_path / "single" / "tree", {**files, **CLEAN[name]})
    for file in (*files, *CLEAN[name]):
        run(single, name, frozenset({file}))
    pieced = run(single, name)
    assert pieced.cached
    assert said(pieced) == said(cold)


def said(found: Outcome) -> object:
    """What must not differ."""
    return found.verdict, found.findings, found.examined, found.work


def test_bandit_leaves_what_the_repository_leaves(tmp_path: Path) -> None:
    files, place = PLANTED["bandit"]
    root = write(tmp_path / "tree", {**files, **CLEAN["bandit"], "pyproject.toml": ""})
    assert place in places(run(root, "bandit"))
    write(root, {"pyproject.toml": "[tool.bandit]\nexclude_dirs = ['./pkg/run.py']\n"})
    found = run(root, "bandit")
    assert (found.verdict, found.selected, found.examined) == (Verdict.PASS, 2, 1)


def test_a_file_that_bandit_cannot_parse_is_no_pass(tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", {**CLEAN["bandit"], "pkg/broken.py": "def ("}), "bandit")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "pkg/broken.py: syntax error" in found.reasons[0]


def test_scripts_are_known_by_their_first_line(tmp_path: Path) -> None:
    script = "#!/bin/sh\nls $1\n"
    files = {
        "plain": script,
        "dotted.d": script,
        "env": "#!/usr/bin/env -S bash -e\nls $1\n",
        "python": "#!/usr/bin/env python3\nx = 1\n",
        "zsh": "#!/bin/zsh\nls $1\n",
        "data": "ls $1\n",
    }
    found = run(write(tmp_path / "tree", files), "shellcheck")
    assert {one.path for one in found.findings} == {"plain", "dotted.d", "env"}
    assert found.selected == 3
