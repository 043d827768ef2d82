"""The runner: nothing passes without having been looked at, and what is remembered is what would be found."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sqa import gate, imports, junit, registry, scripts, tools
from sqa.cache import Cache
from sqa.check import InconclusiveError, Look, Report
from sqa.model import Finding, Outcome, Verdict, fingerprinted
from sqa.runner import Runner
from sqa.settings import Settings
from sqa.tree import Tree
from testbed.errors import DeepError
from tests.unit.sqa_toys import CHECK, after, commit, find_bad, registered, run, write


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three files, one of them with a defect on its second line."""
    return write(tmp_path / "tree", one="fine\nBAD\n", two="fine\n", three="fine\n")


def test_a_pass_says_what_was_looked_at(tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", one="fine\n", two="fine\n"))
    assert (found.verdict, found.selected, found.examined, found.work) == (Verdict.PASS, 2, 2, {"rules": 1})


def test_a_defect_is_a_failure_with_its_place(root: Path) -> None:
    found = run(root)
    assert found.verdict is Verdict.FAIL
    assert [(one.path, one.line, one.rule, one.check) for one in found.findings] == [("one.txt", 2, "bad-word", "toy")]


def test_without_a_file_of_its_kind_a_check_does_not_apply(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "x.py").write_text("")
    assert run(root).verdict is Verdict.NOT_APPLICABLE


def test_who_looked_at_nothing_does_not_pass(root: Path) -> None:
    def blind(look: Look) -> Report:
        seen = find_bad(look)
        return seen if look.files[0] in ("bad.txt", "good.txt") else Report()

    found = run(root, registered(inspect=blind))
    assert (found.verdict, found.reasons) == (
        Verdict.INCONCLUSIVE,
        ("the tool looked at none of the files it was asked to look at",),
    )


@pytest.mark.parametrize(
    ("inspect", "why"),
    [
        (lambda look: Report([], look.files), "does not find bad-word"),
        (lambda look: Report([look.finding(look.files[0], 1, "bad-word", "!")], look.files), "sample that has no"),
        (lambda look: Report(find_bad(look).findings, ()), "looked at no such file"),
        (lambda look: Report(find_bad(look).findings, set(look.files) - {"bad.txt"}), "looked at no such file"),
        (lambda look: Report([look.finding("", 0, "bad-word", "!")] * ("bad.txt" in look.files)), "looked at no such"),
        (lambda look: Report(find_bad(look).findings, set(look.files) - {"good.txt"}), "looked at no file"),
    ],
)  # fmt: skip
def test_who_does_not_find_its_canary_says_nothing_about_the_tree(root: Path, inspect: Any, why: str) -> None:
    found = run(root, registered(inspect=inspect))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert why in found.reasons[0]


def test_a_canary_with_several_defects_is_found_with_each_of_them(root: Path) -> None:
    canary = replace(CHECK.canary, bad={"bad.txt": "BAD one\nBAD two\n"}, says=("says BAD one", "says BAD two"))
    assert run(root, registered(canary=canary)).verdict is Verdict.FAIL

    def first(look: Look) -> Report:
        seen = find_bad(look)
        return Report(list(seen.findings)[:1], seen.examined)

    found = run(root, registered("2", canary=canary, inspect=first))
    assert found.reasons == (
        "it does not find bad-word (says BAD two) in the sample that has it: it finds nothing to rely on",
    )


@pytest.mark.parametrize("state", ["failure", "error"])
def test_the_canary_of_acceptance_tells_that_its_reader_is_blind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    root = tmp_path / "tree"
    (root / "reports").mkdir(parents=True)
    (root / "site.yml").write_text("---\n")
    (root / "reports" / "acceptance.xml").write_text('<testsuites><testcase name="a"/></testsuites>')
    assert run(root, registry.load()["acceptance"]).verdict is Verdict.PASS
    seeing = junit._case
    monkeypatch.setattr(
        junit, "_case", lambda one: junit.Case("a", "passed") if one.find(state) is not None else seeing(one)
    )
    found = run(root, replace(registry.load()["acceptance"], digest="another"))
    assert "it does not find failed (site.test" in found.reasons[0]


def test_a_canary_is_asked_once_for_each_version_of_a_check(root: Path) -> None:
    looked: list[str] = []

    def inspect(look: Look) -> Report:
        looked.extend(look.files)
        return find_bad(look)

    run(root, registered(inspect=inspect))
    run(write(root, one="BAD"), registered(inspect=inspect))
    assert looked.count("bad.txt") == 1
    run(root, registered("2", inspect=inspect))
    assert looked.count("bad.txt") == 2


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (("sh", "-c", "echo no idea >&2; exit 3"), "sh ended with 3: no idea"),
        (("sh", "-c", "kill -9 $$"), "sh was killed by SIGKILL"),
        (("sleep", "30"), "sleep did not end within 1 s"),
        (("no-such-program",), "no-such-program is not installed"),
        (("sh", "-c", "echo '{'"), "no JSON came back"),
    ],
)
def test_a_tool_that_fails_is_no_pass(root: Path, program: tuple[str, ...], why: str) -> None:
    found = run(root, registered(inspect=after(lambda look: look.run(*program).json()), timeout=1.0))
    assert (found.verdict, len(found.reasons)) == (Verdict.INCONCLUSIVE, 1)
    assert why in found.reasons[0]


def test_a_reason_is_the_same_in_each_run_and_with_any_number_of_processes(tmp_path: Path) -> None:
    root = write(tmp_path / "tree", **{f"f{number}": "x\n" for number in range(90)})
    fails = after(lambda look: look.run("sh", "-c", f"echo {look.root}/one.txt is odd >&2; exit 3"))
    assert run(root, registered(split=True, inspect=fails)).reasons == ("sh ended with 3: one.txt is odd",)


def test_a_tool_that_runs_wild_is_stopped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqa.check.LONGEST_OUTPUT", 1000)
    found = run(root, registered(inspect=after(lambda look: look.run("sh", "-c", "seq 1000; sleep 60"))))
    assert "said more than" in found.reasons[0]


def test_an_adapter_with_a_defect_is_no_pass(root: Path) -> None:
    found = run(root, registered(inspect=after(lambda _: dict[str, int]()["x"])))
    assert (found.verdict, found.reasons) == (Verdict.INCONCLUSIVE, ("the check itself failed: KeyError: 'x'",))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda look: (look.root / "one.txt").write_text("fine\n"), "changed one.txt"),
        (lambda look: (look.root / "one.txt").unlink(), "changed one.txt"),
        (lambda look: (look.root / "new.txt").write_text("x"), "wrote new.txt"),
    ],
)
def test_a_tool_that_writes_to_the_tree_is_no_pass_and_changes_nothing(root: Path, spoil: Any, why: str) -> None:
    def tolerant(look: Look) -> Report:
        left = tuple(name for name in look.files if (look.root / name).exists())
        return Report(find_bad(Look(**{**vars(look), "files": left})).findings, look.files)

    def inspect(look: Look) -> Report:
        if "one.txt" in look.files:
            spoil(look)
        return tolerant(look)

    found = run(root, registered(inspect=inspect))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert why in found.reasons[0]
    assert sorted(path.name for path in root.iterdir()) == ["one.txt", "three.txt", "two.txt"]
    assert (root / "one.txt").read_text() == "fine\nBAD\n"


def test_what_a_tool_may_leave_behind_is_declared(root: Path) -> None:
    spoiled = after(lambda look: (look.root / "left.cache").write_text("x"))
    assert run(root, registered(inspect=spoiled, leaves=("*.cache",))).verdict is Verdict.FAIL


def test_a_file_that_changes_meanwhile_is_said(root: Path) -> None:
    found = run(root, registered(inspect=after(lambda _: (root / "two.txt").write_text("BAD\nBAD\n"))))
    assert found.reasons == ("two.txt was changed while it was looked at; run this again",)


def test_what_changes_before_a_check_begins_is_not_remembered_as_what_it_was(root: Path, tmp_path: Path) -> None:
    write(root, two="BAD\n")
    first = registered(name="first", seconds=100, inspect=after(lambda _: write(root, two="fine\n")))
    runner = Runner(Tree(root), Settings(), jobs=1, cache=Cache(tmp_path / "results.db"))
    second = runner.run([first, registered()])[1]
    assert second.reasons == ("two.txt was changed while it was looked at; run this again",)
    write(root, two="BAD\n")
    assert ("two.txt", 1) in {(one.path, one.line) for one in run(root).findings}


def test_a_check_from_which_everything_is_excluded_is_no_pass(root: Path) -> None:
    found = run(root, checks={"toy": {"exclude": ["*"]}})
    assert (found.verdict, found.reasons) == (Verdict.INCONCLUSIVE, ("sqa.yml excludes every file of its kind",))


@pytest.mark.parametrize("scope", ["file", "tree"])
def test_a_finding_in_a_file_that_was_not_asked_about_is_no_pass(root: Path, scope: str) -> None:
    def stray(look: Look) -> Report:
        seen = find_bad(look)
        more = [] if {"bad.txt", "good.txt"} & set(look.files) else [look.finding("other.py", 1, "bad-word", "!")]
        return Report([*seen.findings, *more], seen.examined)

    found = run(root, registered(inspect=stray, scope=scope))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "in none of the files that were examined: other.py" in found.reasons[0]


def test_a_configuration_above_the_copies_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "toy.cfg").parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache" / "toy.cfg").write_text("bad = no")
    found = run(root)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "toy.cfg would decide too" in found.reasons[0]


def test_a_changed_file_that_the_tool_leaves_out_is_no_obstacle(root: Path) -> None:
    def partly(look: Look) -> Report:
        seen = find_bad(look)
        return Report(seen.findings, set(seen.examined) - {"two.txt"})

    check = registered(inspect=partly, scope="tree")
    assert run(root, check).verdict is Verdict.FAIL
    assert run(root, check, frozenset({"two.txt"})).verdict is Verdict.NOT_APPLICABLE


def test_a_huge_file_is_said_and_not_passed_over(root: Path) -> None:
    found = run(write(root, huge="x" * 2000), largest_file=1000)
    assert (found.verdict, found.examined) == (Verdict.INCONCLUSIVE, 0)
    assert "huge.txt: 2000 bytes, over the limit of 1000" in found.reasons[0]
    assert run(root, largest_file=1000, checks={"toy": {"exclude": ["huge.txt"]}}).verdict is Verdict.FAIL


def test_a_name_that_is_not_utf8_is_said(root: Path) -> None:
    (root / os.fsdecode(b"caf\xe9.txt")).write_text("fine\n")
    found = run(root)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert r"b'caf\xe9.txt': the name is not UTF-8" in found.reasons[0]


def test_a_file_that_cannot_be_read_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr("os.access", lambda path, mode: "two" not in str(path) and real(path, mode))
    found = run(root)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "two.txt: cannot be read" in found.reasons[0]


def test_content_that_is_not_utf8_is_looked_at(root: Path) -> None:
    (root / "latin.txt").write_bytes(b"caf\xe9\nBAD caf\xe9\n")
    assert ("latin.txt", 2) in {(one.path, one.line) for one in run(root).findings}


def compared(outcome: Outcome) -> dict[str, Any]:
    """What two runs have to agree on."""
    return outcome.as_dict()


@pytest.mark.parametrize("scope", ["file", "tree"])
def test_a_warm_run_finds_what_a_cold_one_found(root: Path, scope: str) -> None:
    cold, warm = run(root, registered(scope=scope)), run(root, registered(scope=scope))
    assert (cold.cached, warm.cached) == (False, True)
    assert compared(cold) == compared(warm)


def test_one_changed_file_costs_one_file(root: Path) -> None:
    looked: list[str] = []

    def inspect(look: Look) -> Report:
        looked.extend(look.files)
        return find_bad(look)

    run(root, registered(inspect=inspect))
    looked.clear()
    write(root, two="fine\n\nBAD\n")
    found = run(root, registered(inspect=inspect))
    assert looked == ["two.txt"]
    assert [(one.path, one.line) for one in found.findings] == [("one.txt", 2), ("two.txt", 3)]


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "toy.cfg").write_text("other"),
        lambda root: write(root, other="fine"),
    ],
)
def test_whatever_decides_on_a_result_makes_it_be_looked_for_again(root: Path, change: Any) -> None:
    run(root, registered(scope="tree"))
    change(root)
    assert not run(root, registered(scope="tree")).cached
    assert not run(root, registered("another version", scope="tree")).cached
    assert not run(root, registered(scope="tree"), checks={"toy": {"severity": "error"}}).cached


def test_related_files_decide_too(root: Path) -> None:
    seen: list[str] = []
    check = registered(
        related=lambda _tree, name: ["two.txt"] if name == "one.txt" else [],
        inspect=after(lambda look: seen.extend(look.files)),
    )
    run(root, check)
    seen.clear()
    write(root, two="changed\n")
    run(root, check)
    assert sorted(seen) == ["one.txt", "two.txt"]


@pytest.mark.parametrize("scope", ["file", "tree"])
def test_a_run_over_changed_files_is_the_full_run_restricted_to_them(root: Path, scope: str) -> None:
    write(root, two="BAD\n")
    changed = frozenset({"two.txt", "three.txt", "gone.txt"})
    few = run(root, registered(scope=scope), changed)
    full = run(root, registered("fresh", scope=scope))
    assert few.findings == tuple(one for one in full.findings if one.path in changed)
    assert (few.selected, few.examined, few.verdict) == (2, 2, Verdict.FAIL)
    assert run(root, registered(scope=scope), frozenset({"three.txt"})).verdict is Verdict.PASS
    assert run(root, registered(scope=scope), frozenset()).verdict is Verdict.NOT_APPLICABLE


def test_what_is_not_known_is_never_remembered(root: Path) -> None:
    assert run(root, registered(inspect=after(lambda _: dict[str, int]()["x"]))).verdict is Verdict.INCONCLUSIVE
    assert run(root, registered()).verdict is Verdict.FAIL


@pytest.mark.parametrize("asks", ["network", "of_repository"])
def test_what_others_decide_on_is_asked_each_time(root: Path, asks: str) -> None:
    asking: dict[str, Any] = {asks: True}
    check = registered(**asking)
    assert [run(root, check).cached for _ in range(2)] == [False, False]


def test_a_damaged_cache_is_begun_anew(tmp_path: Path, root: Path) -> None:
    (tmp_path / "results.db").write_bytes(b"not a database, " * 100)
    assert run(root).verdict is Verdict.FAIL
    assert run(root).cached


def test_results_that_nobody_asks_for_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c.db")
    cache.put({"old": 1})
    with sqlite3.connect(tmp_path / "c.db") as database:
        database.execute("UPDATE result SET used = used - 40 * 86400")
    cache.put({"new": 2})
    assert cache.get(["old", "new"]) == {"new": 2}


def test_the_severity_that_counts_is_a_setting(root: Path) -> None:
    def softly(look: Look) -> Report:
        seen = find_bad(look)
        return Report([Finding(**{**vars(one), "severity": "note"}) for one in seen.findings], seen.examined)

    assert run(root, registered(inspect=softly)).verdict is Verdict.FAIL
    assert run(root, registered(inspect=softly), checks={"toy": {"severity": "warning"}}).verdict is Verdict.PASS


def test_a_moved_line_keeps_its_fingerprint_and_equal_ones_are_told_apart() -> None:
    def prints(*lines: str) -> list[str]:
        findings = [Finding("f", number, "c", "r", "m") for number, text in enumerate(lines, 1) if "BAD" in text]
        return [one.fingerprint for one in fingerprinted(findings, lambda _, number: lines[number - 1])]

    before = prints("BAD one", "BAD two", "BAD one")
    assert len(set(before)) == 3
    assert prints("new", "  BAD   one", "", "BAD two", "BAD one") == before
    assert prints("BAD other", "BAD two", "BAD one")[1:] == [before[1], before[0]]


def test_only_what_git_knows_or_does_not_ignore_is_in_the_tree(tmp_path: Path) -> None:
    root = write(tmp_path / "tree", kept="x", ignored="x", removed="x")
    (root / ".gitignore").write_text("ignored.txt\n")
    commit(root)
    write(root, new="x")
    (root / "removed.txt").unlink()
    (root / "link.txt").symlink_to("kept.txt")
    assert Tree(root).files == (".gitignore", "kept.txt", "new.txt")
    assert Tree(root, ("n*.txt",)).files == (".gitignore", "kept.txt")
    assert Tree(root).changed_since("main") == {"new.txt"}


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """A repository with a submodule, in which there is a defect, and with a clone of another that nobody added."""
    part = write(tmp_path / "part", hidden="BAD\n")
    commit(part)
    root = write(tmp_path / "tree", one="fine\n")
    commit(root)
    git = ["git", "-c", "protocol.file.allow=always", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "submodule", "--quiet", "add", str(part), "vendor/part"], cwd=root, check=True)
    subprocess.run([*git, "clone", "-q", str(part), "beside"], cwd=root, check=True)
    return root


def test_repositories_within_a_tree_are_no_pass_unless_they_are_excluded(nested: Path) -> None:
    found = run(nested)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert [one.partition(" is a repository of its own")[0] for one in found.reasons] == ["beside", "vendor/part"]
    assert Tree(nested).files == (".gitmodules", "one.txt")
    for exclude in (["/vendor/", "/beside/"], ["/vendor/part", "beside"]):
        assert run(nested, checks={"toy": {"exclude": exclude}}).verdict is Verdict.PASS
        tree = Tree(nested, tuple(exclude))
        runner = Runner(tree, Settings(), jobs=1, cache=Cache(nested.parent / "results.db"))
        assert runner.run([registered()])[0].verdict is Verdict.PASS
    without = registered("2", files=("*.other",))
    assert run(nested, without).verdict is Verdict.INCONCLUSIVE  # there may be one in them


def test_a_submodule_that_was_not_fetched_is_no_pass_either(nested: Path, tmp_path: Path) -> None:
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@e.org", "commit", "-qm", "x"], cwd=nested, check=True
    )
    subprocess.run(["git", "clone", "-q", str(nested), str(tmp_path / "clone")], check=True)
    assert Tree(tmp_path / "clone").nested == ("vendor/part",)
    assert run(tmp_path / "clone").verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("instead", ["nothing", "a link"])
def test_a_submodule_is_one_whatever_is_in_its_place(nested: Path, instead: str) -> None:
    shutil.rmtree(nested / "vendor" / "part")
    if instead == "a link":
        (nested / "vendor" / "part").symlink_to(nested / "beside")
    assert Tree(nested).nested == ("beside", "vendor/part")


@pytest.mark.parametrize("name", ["vendor/part", "beside"])
def test_a_tree_with_another_commit_of_what_is_within_is_another_tree(nested: Path, name: str) -> None:
    before = gate.digest(Tree(nested))
    commit(nested / name)
    assert gate.digest(Tree(nested)) != before
    gate.refuse_unknown(Tree(nested))


@pytest.mark.parametrize("name", ["vendor/part", "beside"])
@pytest.mark.parametrize("file", ["hidden", "new"])
def test_nobody_vouches_for_what_no_commit_holds(nested: Path, name: str, file: str) -> None:
    """Also where the repository says that git need not look."""
    gate.refuse_unknown(Tree(nested))
    before = gate.digest(Tree(nested))
    write(nested / name, **{file: "changed"})
    for setting in (["status.showUntrackedFiles", "no"], ["diff.ignoreSubmodules", "all"]):
        subprocess.run(["git", "config", *setting], cwd=nested / name, check=True)
    assert gate.digest(Tree(nested)) != before
    with pytest.raises(DeepError, match=name):
        gate.refuse_unknown(Tree(nested))


def test_a_submodule_that_was_not_fetched_is_at_the_commit_by_the_index(nested: Path, tmp_path: Path) -> None:
    shutil.rmtree(nested / "beside")
    commit(nested)
    subprocess.run(["git", "clone", "-q", str(nested), str(tmp_path / "clone")], check=True)
    assert gate.digest(Tree(tmp_path / "clone")) == gate.digest(Tree(nested))
    write(tmp_path / "clone" / "vendor" / "part", new="x")
    with pytest.raises(DeepError, match="vendor/part"):
        gate.refuse_unknown(Tree(tmp_path / "clone"))


def test_the_environment_of_a_hook_is_not_taken_for_that_of_another_repository(
    nested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = gate.digest(Tree(nested))
    monkeypatch.setenv("GIT_DIR", str(nested / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(nested / ".git" / "index"))
    assert gate.digest(Tree(nested)) == before
    gate.refuse_unknown(Tree(nested))


def test_what_a_sparse_checkout_leaves_out_is_no_pass(root: Path) -> None:
    write(root / "away", hidden="BAD\n")
    write(root, one="fine\n")
    commit(root)
    subprocess.run(["git", "sparse-checkout", "set", "--no-cone", "/*.txt"], cwd=root, check=True)
    assert not (root / "away").exists()
    found = run(root)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reasons[0].startswith("1 files are not checked out, the first away/hidden.txt; next: git sparse-ch")
    assert Tree(root, ("/away/",)).left_out == ()
    subprocess.run(["git", "sparse-checkout", "disable"], cwd=root, check=True)
    assert run(root).verdict is Verdict.FAIL


def test_scripts_are_known_by_the_program_that_their_first_line_names(tmp_path: Path) -> None:
    lines = {
        "plain": "#!/usr/bin/python3", "env": "#!/usr/bin/env python3", "split": "#!/usr/bin/env -S python3.12 -I",
        "own": "#!/opt/x/bin/pypy3", "shell": "#!/bin/sh -eu", "bash": "#! /usr/bin/env bash", "zsh": "#!/bin/zsh",
        "words": "#!/usr/bin/env python3-config", "none": "x = 1", "empty": "", "data.txt": "#!/usr/bin/python3",
        "run.cgi": "#!/usr/bin/python3", "no-env": "#!/usr/bin/env", "clean": "#!/usr/bin/env -i python3",
        "sets": "#!/usr/bin/env -S VAR=1 python3 -u", "says": "#!/usr/bin/env -vS python3", "old": "#!/usr/bin/python2",
        "uv": "#!/usr/bin/env -S uv run --script", "system": "#!/usr/libexec/platform-python", "text.j2": "#!/bin/sh",
        "own-env": "#!.venv/bin/python", "box": "#!/bin/busybox sh", "mir": "#!/bin/mksh", "plain.cgi": "#!/bin/sh",
        "glued": "#!/usr/bin/env -Spython3", "unset": "#!/usr/bin/env -S -u bash ruby",
        "long": "#!/bin/env -S X=/bin/sh ruby",
    }  # fmt: skip
    for name, line in lines.items():
        (tmp_path / name).write_text(f"{line}\nimport other\n")
    (tmp_path / "run.cgi").chmod(0o755)
    (tmp_path / "no-end").write_bytes(b"#!/bin/sh")
    (tmp_path / "other.py").write_text("")
    tree = Tree(tmp_path)
    assert {name for name in tree.files if scripts.is_python(tree, name)} == {
        "plain", "env", "split", "own", "run.cgi", "clean", "sets", "says", "old", "uv", "system", "own-env", "glued",
    }  # fmt: skip
    assert {name for name in tree.files if scripts.is_shell(tree, name)} == {
        "shell", "bash", "box", "mir", "plain.cgi", "no-end",
    }  # fmt: skip
    assert imports.closure(tree, "plain") == {"other.py"}
    assert imports.closure(tree, "shell") == frozenset()


def test_parts_of_a_check_share_the_files(tmp_path: Path) -> None:
    root = write(tmp_path / "tree", **{f"f{number}": "BAD\n" for number in range(90)})
    seen: list[int] = []
    check = registered(split=True, inspect=after(lambda look: seen.append(len(look.files))))
    assert len(run(root, check).findings) == 90
    assert sorted(seen) == [45, 45]


@pytest.mark.parametrize(("seconds", "parts"), [(50, 2), (150, 1)])
def test_a_check_that_others_outlast_is_not_shared_out(tmp_path: Path, seconds: float, parts: int) -> None:
    root = write(tmp_path / "tree", **{f"f{number}": "fine\n" for number in range(90)})
    seen: list[int] = []
    check = registered(split=True, seconds=100, inspect=after(lambda look: seen.append(len(look.files))))
    other = registered(name="other", seconds=seconds)
    Runner(Tree(root), Settings(), jobs=2).run([check, other])
    assert seen == [90 // parts] * parts


def test_a_tool_that_cannot_be_installed_is_no_pass(root: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.txt").write_text("no-such-package-of-ours==1.0 --hash=sha256:" + "0" * 64 + "\n")
    check = registered()
    found = run(root, type(check)(CHECK, "1", tools.tool("broken", tmp_path)))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "the tool broken cannot be installed" in found.reasons[0]
    assert not tools.tool("broken", tmp_path).installed


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"colour": "red"}, "checks.toy.colour: no such setting; needed: one of colours, exclude, severity, timeout"),
        ({"colours": "red"}, "checks.toy.colours: found 'red', needed a list; next: correct it there"),
        ({"exclude": "one.txt"}, "checks.toy.exclude: found 'one.txt', needed a list"),
        ({"exclude": [1]}, "checks.toy.exclude: found 1, needed a text"),
        ({"exclude": ["!"]}, "checks.toy.exclude: found '!', needed a pattern as in .gitignore"),
        ({"timeout": True}, "checks.toy.timeout: found True, needed a number"),
    ],
)
def test_a_setting_that_a_check_does_not_take_is_no_pass(root: Path, settings: dict[str, Any], why: str) -> None:
    found = run(root, registered(takes={"colours": list}), checks={"toy": settings})
    assert found.verdict is Verdict.INCONCLUSIVE
    assert why in found.reasons[0]


def test_a_check_may_select_files_that_no_pattern_names(root: Path) -> None:
    (root / "plain").write_text("BAD\n")
    (root / "other").write_text("BAD\n")
    check = registered(selects=lambda _tree, name: name == "plain")
    assert {one.path for one in run(root, check).findings} == {"one.txt", "plain"}
    assert run(root, check, checks={"toy": {"exclude": ["plain", "one.txt"]}}).verdict is Verdict.PASS


def test_what_decides_outside_the_tree_makes_a_result_another(root: Path) -> None:
    around = ["1"]
    check = registered(environment=lambda _tree, settings: around[0] + settings.get("more", ""))
    assert (run(root, check).cached, run(root, check).cached) == (False, True)
    around[0] = "2"
    assert not run(root, check).cached


def test_an_environment_that_cannot_be_read_is_no_pass(root: Path) -> None:
    def environment(*_: object) -> str:
        raise InconclusiveError("no such environment")

    found = run(root, registered(environment=environment))
    assert (found.verdict, found.reasons) == (Verdict.INCONCLUSIVE, ("no such environment",))
