"""What of a module decides on what is found in those that import it."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import warnings
from pathlib import Path

import pytest

from sqa import imports
from sqa.check import Canary, InconclusiveError, Look, Report
from sqa.model import Verdict
from sqa.tree import Tree
from tests.unit.sqa_toys import find_bad, registered, run

MODULE = b'"""Other."""\n\nX = (1, 2)\n\n\ndef f(a):\n    """F."""\n    return a\n'
SAME = {
    "a remark": MODULE.replace(b"X = (1, 2)", b"# of note\nX = (1, 2)  # a pair"),
    "an empty line": b"\n" + MODULE.replace(b"    return", b"\n    return"),
    "at the end": MODULE + b"\n# changed\n",
}
OTHER = {
    "a value": MODULE.replace(b"2", b"3"),
    "an argument": MODULE.replace(b"f(a)", b"f(a, b=1)"),
    "a docstring": MODULE.replace(b"F.", b"G."),
    "a body": MODULE.replace(b"return a", b"return None"),
    "one line of two": MODULE.replace(b"X = (1, 2)", b"X = (1,\n2)"),
    "a block": MODULE + b"if X:\n    Y = 1\n    Z = 1\n",
    "another block": MODULE + b"if X:\n    Y = 1\nZ = 1\n",
    "a type in a remark": MODULE.replace(b"(1, 2)", b"(1, 2)  # type: list"),
    "a word to a tool": MODULE.replace(b"(1, 2)", b"(1, 2)  # pylint: disable=all"),
    "no Python": MODULE + b"x = (\n",
    "no Python, with a remark": MODULE + b"x = (  # of note\n",
    "no text": MODULE + b"\xff\x00\n",
}


@pytest.mark.parametrize("what", SAME)
def test_remarks_and_empty_lines_say_nothing_to_others(what: str) -> None:
    assert imports.code(SAME[what]) == imports.code(MODULE)


def test_everything_else_does() -> None:
    assert len({imports.code(text) for text in (MODULE, *OTHER.values())}) == len(OTHER) + 1


@pytest.mark.parametrize("sign", [b"-", b"("])
def test_what_is_too_deep_for_the_parser_is_no_python(sign: bytes) -> None:
    deep = b"import other\nx = " + sign * 50_000 + b"1\n"
    assert imports.named(deep) == []
    assert imports.code(deep) == hashlib.sha256(deep).hexdigest()


def test_what_python_warns_of_is_for_the_tools_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert imports.named(b'import other\nx = "\\d"\n') == ["other"]
        assert imports.code(b'x = "\\d"\n') != imports.code(b'x = "\\e"\n')
    assert capsys.readouterr().err == ""


def test_what_was_read_by_another_python_is_read_again(tree: Path) -> None:
    assert imports.closure(Tree(tree), "use.py") == {"other.py"}
    with sqlite3.connect(tree.parent / "cache" / "sqa" / "results.db") as database:
        keys = [key for (key,) in database.execute("SELECT key FROM result")]
    assert keys
    assert all(f"({sys.version_info.major}, {sys.version_info.minor})" in key for key in keys)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that imports another, with a cache beside them."""
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    root = tmp_path / "tree"
    root.mkdir()
    (root / "other.py").write_bytes(MODULE)
    (root / "use.py").write_text("import other\n", encoding="utf-8")
    return root


def looked_at(root: Path) -> list[str]:
    """The files that a run had to look at."""
    seen: list[str] = []

    def inspect(look: Look) -> Report:
        seen.extend(look.files)
        return find_bad(look)

    canary = Canary("bad-word", bad={"bad.py": "BAD\n"}, good={"good.py": "fine\n"})
    check = registered(
        files=("*.py",), inspect=inspect, canary=canary, related=imports.closure, regards=imports.code_of
    )
    assert run(root, check).verdict is Verdict.PASS
    return sorted(set(seen) - {"bad.py", "good.py"})


def test_only_code_makes_those_that_import_it_be_looked_at_again(tree: Path) -> None:
    assert looked_at(tree) == ["other.py", "use.py"]
    assert not looked_at(tree)
    (tree / "other.py").write_bytes(SAME["a remark"])
    assert looked_at(tree) == ["other.py"]
    (tree / "other.py").write_bytes(OTHER["a value"])
    assert looked_at(tree) == ["other.py", "use.py"]


def test_code_of_a_file_that_changed_meanwhile_is_not_told(tree: Path) -> None:
    held = Tree(tree)
    imports.code_of(held, "other.py")
    (tree / "other.py").write_bytes(OTHER["a body"])
    with pytest.raises(InconclusiveError, match=r"other\.py was changed"):
        imports.code_of(held, "other.py")
