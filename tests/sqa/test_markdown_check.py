"""The check of Markdown's style with the real tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqa.model import Verdict
from tests.sqa.real_checks import places, run, write

PAGES = {"a.md": "# A\n\n### Too deep\n", "sub/b.md": "# B\n\nText.\n"}
OFF = "[tool.pymarkdown]\nplugins.md001.enabled = false\n"


def test_a_defect_is_found_in_its_line(tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", PAGES), "markdown")
    assert (found.verdict, found.examined, found.criteria) == (Verdict.FAIL, 2, ("QC.Doc02.2",))
    assert places(found) == {("a.md", 3, "MD001")}


def test_cold_warm_and_one_by_one_agree(tmp_path: Path) -> None:
    root = write(tmp_path / "tree", PAGES)
    alone = {place for name in PAGES for place in places(run(root, "markdown", frozenset({name})))}
    cold = run(write(tmp_path / "other/tree", PAGES), "markdown")
    warm = run(root, "markdown")
    assert warm.cached
    assert not cold.cached
    assert places(cold) == places(warm) == alone


def test_the_repository_s_own_configuration_counts(tmp_path: Path) -> None:
    root = write(tmp_path / "tree", PAGES)
    assert run(root, "markdown").verdict is Verdict.FAIL
    assert run(write(root, {"pyproject.toml": OFF}), "markdown").verdict is Verdict.PASS


@pytest.mark.parametrize("text", ["[tool.pymarkdown\n", "[tool.pymarkdown]\nplugins.md013.line_length = 'long'\n"])
def test_a_broken_configuration_is_inconclusive(tmp_path: Path, text: str) -> None:
    found = run(write(tmp_path / "tree", {**PAGES, "pyproject.toml": text}), "markdown")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "pymarkdown ended with" in found.reasons[0]
