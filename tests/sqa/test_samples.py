"""Whole repositories of others: every planted defect is found, by its check, and held against its criterion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from sqa import gate
from sqa.model import Finding, Verdict
from tests.sqa.real_checks import write
from tests.unit.sqa_toys import commit

# As text, so that they are defects in the planted files alone.
SHELL, TOKEN = "shell=" + "True", "ghp" + "_R7kQ2mZx9LwT4vNb8YcJ1sHd6FgUe3PaKi5o"


@dataclass(frozen=True)
class Planted:
    """A defect: which check has to find it where, and a criterion that is then not met."""

    check: str
    path: str
    line: int
    criterion: str


PACKAGE = {
    "pyproject.toml": '[project]\nname = "sample"\nversion = "1.0.0"\nlicense = "MIT"\n\n[tool.mypy]\nstrict = true\n',
    "src/sample/__init__.py": '"""A sample."""\n',
    "src/sample/core.py": (
        '"""The core."""\n\nimport os\nimport subprocess\n\n\n'
        'def show(name: str) -> int:\n    """Show a file."""\n'
        f'    subprocess.run("cat " + name, {SHELL}, check=False)\n'
        '    return "done"\n'
    ),
    "tests/test_core.py": '"""Tests."""\n\n\ndef test_nothing() -> None:\n    """Nothing."""\n',
    "README.md": "# Sample\n\nSee [the manual](docs/manual.md).\n",
}
ROLE = {
    "meta/main.yml": (
        "---\ngalaxy_info:\n  author: somebody\n  description: A role.\n  license: MIT\n  min_ansible_version: '2.16'\n"
        "  platforms:\n    - name: Debian\n      versions: [all]\ndependencies: []\n"
    ),
    "tasks/main.yml": "---\n- name: Look at the host\n  ansible.builtin.shell: ps aux | grep nginx\n",
    "vars/main.yml": "---\nsample_port: 80\nsample_port: 81\n",
    "files/start.sh": '#!/bin/sh\ncd "$1"\nrm -r $2\n',
    "README.md": "# A role\n",
}
MIXED = {
    "Dockerfile": "FROM debian:latest\nRUN apt-get install curl\n",
    "deploy/pod.yml": (
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: sample\nspec:\n  containers:\n    - name: sample\n"
        "      image: sample:latest\n      securityContext:\n        privileged: true\n"
    ),
    "app/settings.ini": f"[default]\ntoken = {TOKEN}\n",
    "app/fetch.py": '"""Fetch."""\n\nimport requests\n\nrequests.get("https://example.org", verify=False, timeout=5)\n',
    "app/run.sh": "#!/bin/bash\necho $1\n",
    "README.md": "# Mixed\n\n![A picture](no-such.png)\n",
}
TREES: dict[str, tuple[dict[str, str], tuple[Planted, ...]]] = {
    "package": (
        PACKAGE,
        (
            Planted("ruff", "src/sample/core.py", 3, "QC.Sty01"),
            Planted("bandit", "src/sample/core.py", 9, "QC.Sec02"),
            Planted("pylint", "src/sample/core.py", 3, "QC.Sty01"),
            Planted("mypy", "src/sample/core.py", 10, "QC.Sec02"),
            Planted("doc-links", "README.md", 3, "QC.Doc01"),
            Planted("files", "", 0, "QC.Lic01.1"),
        ),
    ),
    "role": (
        ROLE,
        (
            Planted("ansible-lint", "tasks/main.yml", 2, "QC.Sty01"),
            Planted("yamllint", "vars/main.yml", 3, "QC.Sty01"),
            Planted("shellcheck", "files/start.sh", 3, "QC.Sec02"),
            Planted("files", "", 0, "QC.Doc06.2"),
        ),
    ),
    "mixed": (
        MIXED,
        (
            Planted("hadolint", "Dockerfile", 1, "QC.Sty01"),
            Planted("secrets", "app/settings.ini", 2, "QC.Sec01"),
            Planted("bandit", "app/fetch.py", 5, "QC.Sec02"),
            Planted("semgrep", "app/fetch.py", 5, "QC.Sec02"),
            Planted("shellcheck", "app/run.sh", 2, "QC.Sty01"),
            Planted("doc-links", "README.md", 3, "QC.Doc01"),
            Planted("files", "", 0, "QC.Doc06.3"),
        ),
    ),
}


@pytest.fixture(params=TREES, scope="module")
def assessed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The name of a tree and the document of a whole run over it."""
    root = write(tmp_path_factory.mktemp("samples") / request.param, TREES[request.param][0])
    commit(root)
    repo = gate.repository(root)
    return request.param, gate.document(repo, gate.run(repo))


def test_every_planted_defect_is_found_and_held_against_its_criterion(assessed: tuple[str, dict[str, Any]]) -> None:
    name, made = assessed
    checks = {one["check"]: one for one in made["checks"]}
    verdicts = {one["id"]: one["verdict"] for one in made["criteria"]}
    for one in TREES[name][1]:
        found = [Finding(**each) for each in checks[one.check]["findings"]]
        said = [(each.path, each.line, each.rule) for each in found] or checks[one.check]["reasons"]
        by_rule = bool(checks[one.check]["rules"])
        assert any(
            each.rule == one.criterion if by_rule else (each.path, each.line) == (one.path, one.line) for each in found
        ), (one, said)
        assert verdicts[one.criterion] == Verdict.FAIL, one


def test_such_a_tree_is_held_back(assessed: tuple[str, dict[str, Any]]) -> None:
    _, made = assessed
    assert (made["ok"], made["badge"]) == (False, "none")
    assert len(made["criteria"]) == 93


def test_what_does_not_concern_it_does_not_apply(assessed: tuple[str, dict[str, Any]]) -> None:
    name, made = assessed
    absent = {"package": {"hadolint", "shellcheck"}, "role": {"mypy", "bandit"}, "mixed": {"ansible-lint"}}[name]
    verdicts = {one["check"]: one["verdict"] for one in made["checks"]}
    assert {verdicts[check] for check in absent} == {Verdict.NOT_APPLICABLE}
