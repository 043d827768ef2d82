"""The page "Add a check" does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sqa import gate
from sqa.model import Verdict
from testbed.errors import DeepError
from testbed.paths import repo_root

PAGE = (repo_root() / "docs" / "sqa-add-a-check.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^`(?P<name>[^`]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the files of the page."""
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    for block in BLOCK.finditer(PAGE):
        path = tmp_path / "tree" / block["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block["text"])
    return tmp_path / "tree"


def test_the_check_of_the_page_works(root: Path) -> None:
    (root / "work.py").write_text("x = 1\ny = 2  # FIXME: three\n")
    judged = gate.run(gate.repository(root), checks=["fixme"])
    assert [(one.path, one.line) for one in judged.open_findings] == [
        ("tools/checks/fixme.py", 1),
        *own(root),
        ("work.py", 2),
    ]
    (root / "work.py").write_text("x = 1\n")
    (root / "sqa.yml").write_text((root / "sqa.yml").read_text() + 'exclude: ["/tools/"]\n')
    judged = gate.run(gate.repository(root), checks=["fixme"])
    assert [(one.verdict, one.examined) for one in judged.outcomes] == [(Verdict.PASS, 1)]


def own(root: Path) -> list[tuple[str, int]]:
    """Where the check itself says the word, beside its first line."""
    lines = (root / "tools" / "checks" / "fixme.py").read_text().splitlines()
    return [("tools/checks/fixme.py", number) for number, line in enumerate(lines, 1) if "FIXME" in line and number > 1]


def test_a_check_of_the_repository_counts_for_the_criterion_it_names(root: Path) -> None:
    (root / "work.py").write_text("y = 2  # FIXME\n")
    repo = gate.repository(root)
    assert "fixme" in gate.wanted(repo, frozenset({"QC.Sty01"}))
    assert "fixme" not in gate.wanted(repo, frozenset({"QC.Lic01"}))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import nothing_of_the_kind\n", "cannot be loaded: ModuleNotFoundError"),
        ("CHECK = 1\n", "declares no CHECK"),
        (BLOCK.search(PAGE)["text"].replace('name="fixme"', 'name="ruff"'), "a check of this name exists"),  # type: ignore[index]
        (BLOCK.search(PAGE)["text"].replace('scope="file"', 'tool="fixme"'), "nothing pins"),  # type: ignore[index]
    ],
)
def test_a_plug_in_that_cannot_be_used_is_explained(root: Path, text: str, why: str) -> None:
    (root / "tools" / "checks" / "fixme.py").write_text(text)
    with pytest.raises(DeepError) as refused:
        gate.repository(root)
    assert why in str(refused.value)


def test_the_code_of_a_repository_runs_only_where_its_checks_do(root: Path) -> None:
    (root / "tools" / "checks" / "fixme.py").write_text("raise SystemExit('run')\n")
    assert "fixme" not in gate.repository(root, plugins=False).checks


def test_a_check_that_serves_no_criterion_is_refused(root: Path) -> None:
    path = root / "tools" / "checks" / "fixme.py"
    path.write_text(path.read_text().replace('criteria=("QC.Sty01",)', "criteria=()"))
    with pytest.raises(DeepError, match="serves no criterion"):
        gate.repository(root)


def test_a_folder_of_plug_ins_that_is_not_there_is_said(root: Path) -> None:
    (root / "sqa.yml").write_text("plugins: elsewhere\n")
    with pytest.raises(DeepError, match="no such folder"):
        gate.repository(root)
