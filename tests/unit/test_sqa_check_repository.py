"""Checks of what a repository consists of, of its history and of its evidence, each run as the gate runs it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sqa import spdx, standard
from sqa.checks import files as files_check
from sqa.checks import git_history
from sqa.model import Outcome, Verdict
from tests.sqa.real_checks import places, run, write

MINE = ("acceptance", "coverage", "diff-cover", "doc-links", "files", "git-history", "idempotence", "molecule")


def git(root: Path, *arguments: str) -> str:
    """Run git as somebody who is nobody's account."""
    identity = ("-c", "user.name=one", "-c", "user.email=one@sample.test", "-c", "init.defaultBranch=main")
    environment = {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def commit(root: Path, message: str, *arguments: str) -> None:
    """Everything in the folder as a commit."""
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--allow-empty", f"--message={message}", *arguments)


def without(files: Mapping[str, str], *names: str, **more: str) -> dict[str, str]:
    """Files, some left out."""
    return {**{name: text for name, text in files.items() if name not in names}, **more}


def said(outcome: Outcome, rule: str) -> str:
    """What is found of a rule."""
    return "; ".join(f"{one.path}: {one.message}" for one in outcome.findings if one.rule == rule)


def test_every_criterion_that_names_the_check_has_a_rule() -> None:
    criteria = [one for loaded in standard.load_all().values() for one in loaded.criteria]
    assert {one.id for one in criteria if "files" in one.checks} == set(files_check.RULES)
    named = {one.id for one in criteria if "git-history" in one.checks}
    assert named == set(git_history.ALL)


@pytest.mark.parametrize("name", MINE)
def test_an_unknown_setting_is_named(tmp_path: Path, name: str) -> None:
    root = write(tmp_path / "tree", {"a.py": "A = 1\n", "a.md": "# A\n", "a.yml": "---\n"})
    found = run(root, name, colour="red")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert f"checks: {name}: colour" in found.reasons[0]


class TestFiles:
    """What a repository consists of."""

    def run(self, tmp_path: Path, files: Mapping[str, str]) -> Outcome:
        """The outcome over a folder with these files."""
        return run(write(tmp_path / "tree", files), "files")

    def test_a_complete_repository_passes_every_rule(self, tmp_path: Path) -> None:
        root = write(tmp_path / "tree", files_check.SAMPLE)
        found = run(root, "files", standards=("software", "service"))
        assert (found.verdict, found.findings, found.rules) == (Verdict.PASS, (), frozenset(files_check.RULES))
        assert run(root, "files").rules == {one for one in files_check.RULES if one.startswith("QC.")}

    @pytest.mark.parametrize(
        ("name", "text", "rule", "words"),
        [
            ("LICENSE", "MIT\n", "QC.Lic01.1", "whole text"),
            ("LICENSE", "", "QC.Doc06.4", "whole text"),
            (
                "pyproject.toml",
                '[project]\nversion = "1.0.0"\nlicense = "Apache-2.0"\n',
                "QC.Lic01",
                "other files declare",
            ),
            ("CITATION.cff", "cff-version: 1.2.0\nmessage: x\ntitle: y\nauthors: [{}]\n", "QC.Met01", "authors: each"),
            ("CITATION.cff", "title: [\n", "QC.Met01", "cannot be read"),
            ("README.md", "# Sample\n", "QC.Doc06.1", "how to run the tests"),
            ("CONTRIBUTING.md", "# Contributing\n\nPlease do.\n", "QC.Doc06.2", "too short"),
            ("CODE_OF_CONDUCT.md", "# Be kind\n\nReport it.\n", "QC.Doc06.3", "whom to turn to"),
            ("CODE_OF_CONDUCT.md", "Be kind. " * 40, "QC.Doc06.3", "whom to turn to"),
            (".github/workflows/ci.yml", "jobs: {build: {steps: [{run: echo}]}}\n", "QC.Sty04", "runs no linter"),
            ("sample.py", "from unittest.mock import Mock\n", "QC.Har02", "imports unittest.mock"),
            ("test_sample.py", "def test_a():\n    assert True\n", "QC.Uni02", "among the code"),
            ("docs/more.rst", "More\n====\n\nText.\n", "QC.Doc02.1", "reStructuredText"),
            ("docs/manual.docx", "x", "QC.Doc02", "word processor"),
            (".github/ISSUE_TEMPLATE/defect.md", "What happened? Which version?\n", "QC.Man01.2", "logs"),
            ("docs/architecture.md", "# Nothing\n", "QC.Doc06.5", "parts fit together"),
        ],
    )
    def test_a_planted_defect_is_found_by_its_criterion(
        self, tmp_path: Path, name: str, text: str, rule: str, words: str
    ) -> None:
        assert words in said(self.run(tmp_path, {**files_check.SAMPLE, name: text}), rule)

    def test_other_names_count_too(self, tmp_path: Path) -> None:
        sample = files_check.SAMPLE
        renamed = without(sample, "LICENSE", ".github/workflows/ci.yml", ".github/pull_request_template.md")
        renamed |= {
            "COPYING": sample["LICENSE"],
            "Jenkinsfile": "sh 'make check'\n",
            "Makefile": "check:\n\tflake8\n",
            ".gitlab/merge_request_templates/Default.md": sample[".github/pull_request_template.md"],
        }
        assert self.run(tmp_path, renamed).findings == ()

    def test_an_ansible_role_is_read_by_its_own_metadata(self, tmp_path: Path) -> None:
        role = without(files_check.SAMPLE, "pyproject.toml", "sample.py", "tests/functional/test_sample.py")
        role |= {
            "meta/main.yml": "galaxy_info: {license: MIT}\n",
            "tasks/main.yml": "---\n",
            "molecule/default/molecule.yml": "---\n",
        }
        assert self.run(tmp_path, role).findings == ()
        role["meta/main.yml"] = "galaxy_info: {license: GPL-3.0-only}\n"
        found = self.run(tmp_path, role)
        assert {one.rule for one in found.findings} >= {"QC.Lic01"}

    def test_metadata_that_cannot_be_read_decide_on_nothing(self, tmp_path: Path) -> None:
        found = self.run(tmp_path, {**files_check.SAMPLE, "pyproject.toml": "[project\n"})
        assert found.verdict is Verdict.INCONCLUSIVE
        assert "pyproject.toml: cannot be read" in found.reasons[0]


class TestHistory:
    """What the history shows."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """A repository with branches, requests, approvals and a release."""
        files = {"VERSION": "v1.0.0\n", "docs/index.md": "# Pages\n", "sample.py": "COUNT = 1\n"}
        root = write(tmp_path / "tree", files)
        git_history._make_history(root)
        return root

    def test_a_history_as_it_should_be_passes(self, root: Path) -> None:
        found = run(root, "git-history")
        assert (found.verdict, found.work["releases"], found.work["merges"]) == (Verdict.PASS, 1, 1)
        assert found.work["not shown by this history"] == "nothing"

    def test_a_commit_made_on_main_has_no_branch_no_request_and_no_approval(self, root: Path) -> None:
        (root / "sample.py").write_text("COUNT = 2\n")
        commit(root, "Just do it")
        found = run(root, "git-history")
        assert {one.rule for one in found.findings} == {"QC.Wor02", "QC.Man02.1", "QC.Rev04", "QC.Doc04"}
        assert "Just do it" in said(found, "QC.Wor02")
        assert run(root, "git-history", since="HEAD").findings == ()

    def test_a_merge_by_its_author_alone_is_not_reviewed(self, root: Path) -> None:
        git(root, "checkout", "--quiet", "-b", "odd-name")
        (root / "docs/index.md").write_text("# All pages\n")
        commit(root, "Pages")
        git(root, "checkout", "--quiet", "main")
        message = "Merge pull request #9 from sample/odd-name\n\nReviewed-by: one <one@sample.test>"
        git(root, "merge", "--quiet", "--no-ff", f"--message={message}", "odd-name")
        found = run(root, "git-history")
        assert {one.rule for one in found.findings} == {"QC.Wor02.1", "QC.Rev04", "QC.Man02.6"}

    @pytest.mark.parametrize(
        ("tag", "words"), [("v2", "tag v2 is no semantic"), ("v0.9.0", "v0.9.0 comes after v1.0.0")]
    )
    def test_versions_are_semantic_and_rise(self, root: Path, tag: str, words: str) -> None:
        (root / "docs/index.md").write_text("# All pages\n")
        commit(root, "Pages")
        git(root, "tag", tag)
        assert words in said(run(root, "git-history"), "QC.Ver01")

    def test_a_linear_history_says_what_it_cannot_show(self, tmp_path: Path) -> None:
        root = write(tmp_path / "tree", {"a.py": "A = 1\n", "README.md": "# A\n", "galaxy.yml": "version: '1'\n"})
        git(root, "init", "--quiet")
        commit(root, "Begin")
        found = run(root, "git-history")
        assert "QC.Wor02" in str(found.work["not shown by this history"])
        assert not {"QC.Wor02", "QC.Rev04", "QC.Man02.1"} & found.rules
        assert "galaxy.yml states: 1 is no semantic version" in said(found, "QC.Ver01")

    def test_an_untracked_file_is_found(self, root: Path) -> None:
        (root / "new.py").write_text("NEW = 1\n")
        assert places(run(root, "git-history")) == {("new.py", 0, "QC.Acc02")}

    def test_a_shallow_clone_and_a_tree_without_history_are_inconclusive(self, root: Path, tmp_path: Path) -> None:
        git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{root}", "shallow")
        shallow, plain = run(tmp_path / "shallow", "git-history"), write(tmp_path / "plain", {"a": "b\n"})
        assert shallow.verdict is Verdict.INCONCLUSIVE
        assert "git fetch --unshallow" in shallow.reasons[0]
        found = run(plain, "git-history")
        assert found.verdict is Verdict.INCONCLUSIVE
        assert "no .git" in found.reasons[0]


class TestLinks:
    """Links of pages."""

    PAGES: ClassVar = {
        "a.md": (
            "# A page: *it's* `good`\n\n[same](#a-page-its-good) [b](sub/b.rst#part-two) [d](sub) <https://example.org/x>\n"
            "[again](#twice-1) ![i](i.png) [r][ref] `[no](none.md)` <a id='raw'></a> [raw](#raw) [sp](a%20b.md)\n\n"
            "## Twice\n\n## Twice\n\n```\n[no](none.md)\n```\n\n[ref]: sub/b.rst\n"
        ),
        "a b.md": "x\n",
        "i.png": "",
        "sub/b.rst": "B\n=\n\n`up <../a.md>`_\n\nPart two\n--------\n\nCode::\n\n    `no <none.rst>`_\n\nEnd.\n",
        "c.html": '<h1 id="x">x</h1><a href="a.md#twice">a</a><img src="i.png"><a href="{{ url }}">t</a>',
    }

    def test_good_links_pass_and_what_was_not_called_is_counted(self, tmp_path: Path) -> None:
        found = run(write(tmp_path / "tree", self.PAGES), "doc-links")
        assert (found.verdict, found.findings) == (Verdict.PASS, ())
        assert (found.work["links outside, not called"], found.work["links of templates, not followed"]) == (1, 1)
        assert found.work["links inside"] == 11

    @pytest.mark.parametrize(
        ("name", "text", "line", "rule"),
        [
            ("n.md", "x\n\n[x](none.md)\n", 3, "missing-file"),
            ("n.md", "![x](none.png)\n", 1, "missing-file"),
            ("n.md", "[x](../out.md)\n", 1, "missing-file"),
            ("n.md", "[x](a.md#twice-2)\n", 1, "missing-anchor"),
            ("n.md", "# One\n\n[x](#two)\n", 3, "missing-anchor"),
            ("n.md", "[x](https://)\n", 1, "malformed-address"),
            ("n.md", "[x](http://h:99999/)\n", 1, "malformed-address"),
            ("n.md", "[x](mailto:nobody)\n", 1, "malformed-address"),
            ("n.md", "[x][nowhere]\n", 1, "undefined-reference"),
            ("n.md", "a\n\n<p><img src='none.png'></p>\n", 3, "missing-file"),
            ("n.rst", "x\n\n.. image:: none.png\n", 3, "missing-file"),
            ("n.rst", "`x <a.md#nothing>`_\n", 1, "missing-anchor"),
            ("n.html", "<br>\n<a href='none.html'>x</a>\n", 2, "missing-file"),
        ],
    )
    def test_a_link_that_leads_nowhere_is_found_in_its_line(
        self, tmp_path: Path, name: str, text: str, line: int, rule: str
    ) -> None:
        found = run(write(tmp_path / "tree", {**self.PAGES, name: text}), "doc-links")
        assert places(found) == {(name, line, rule)}


def junit(*cases: str, began: str = "") -> str:
    """A report of tests, each with what stands inside it."""
    inner = "".join(f'<testcase classname="t" name="web {number}">{one}</testcase>' for number, one in enumerate(cases))
    return f"<testsuites><testsuite{f' timestamp="{began}"' if began else ''}>{inner}</testsuite></testsuites>\n"


class TestEvidence:
    """Reports of tests."""

    TREE: ClassVar = {"molecule/web/molecule.yml": "---\n", "site.yml": "---\n"}

    def run(self, tmp_path: Path, check: str, report: str, name: str = "", **settings: Any) -> Outcome:
        """The outcome of a check with one report."""
        root = write(tmp_path / "tree", {**self.TREE, name or f"reports/{check}.xml": report})
        return run(root, check, **settings)

    def test_tests_that_ran_are_the_work(self, tmp_path: Path) -> None:
        found = self.run(tmp_path, "acceptance", junit("", "", '<skipped message="no GPU"/>'))
        assert (found.verdict, found.work) == (Verdict.PASS, {"tests run": 2, "tests skipped": 1})

    @pytest.mark.parametrize(
        ("report", "words"),
        [
            (junit(), "no test ran"),
            (junit("<skipped/>"), "1 skipped"),
            (junit("", began="2001-01-01T00:00:00+00:00"), "changed since: site.yml"),
            ("<testsuites>", "is no XML"),
            ('<!DOCTYPE x [<!ENTITY a "b">]><testsuites/>', "declares entities"),
            ("<coverage/>", "is no report of tests"),
        ],
    )
    def test_what_shows_nothing_is_inconclusive(self, tmp_path: Path, report: str, words: str) -> None:
        found = self.run(tmp_path, "acceptance", report)
        assert found.verdict is Verdict.INCONCLUSIVE
        assert words in found.reasons[0]

    def test_a_report_that_is_missing_old_or_elsewhere_is_inconclusive(self, tmp_path: Path) -> None:
        assert "No such file" in self.run(tmp_path, "acceptance", junit(""), "reports/other.xml").reasons[0]
        assert "outside" in self.run(tmp_path, "acceptance", junit(""), reports=["../x.xml"]).reasons[0]
        os.utime(write(tmp_path / "tree", {"reports/acceptance.xml": junit("")}) / "reports/acceptance.xml", (1, 1))
        assert "changed since" in run(tmp_path / "tree", "acceptance").reasons[0]

    def test_a_failure_and_a_scenario_without_a_test_are_findings(self, tmp_path: Path) -> None:
        found = self.run(tmp_path, "molecule", junit("", '<failure message="port 1 is shut&#10;more"/>'))
        assert [one.message for one in found.findings] == ["t.web 1: port 1 is shut"]
        write(tmp_path / "tree", {"molecule/db/molecule.yml": "---\n", "reports/molecule.xml": junit("")})
        assert [one.message for one in run(tmp_path / "tree", "molecule").findings] == ["scenario db: no report of it"]
        assert run(tmp_path / "tree", "molecule", without=["db"]).verdict is Verdict.PASS

    def test_reports_may_be_named_by_a_pattern(self, tmp_path: Path) -> None:
        reports = ["reports/live.xml", "reports/molecule-*.xml"]
        found = self.run(tmp_path, "molecule", junit("", "<failure/>"), "reports/molecule-web.xml", reports=reports)
        assert "no report reports/live.xml" in found.reasons[0], "what is named without a pattern has to be there"
        root = write(tmp_path / "tree", {"reports/live.xml": junit()})
        assert [one.message for one in run(root, "molecule", reports=reports).findings] == ["t.web 1:"]
        (root / "reports" / "molecule-web.xml").unlink()
        assert "no test ran" in run(root, "molecule", reports=reports).reasons[0]
        assert "no report reports/molecule-" in run(root, "molecule", reports=reports[1:]).reasons[0]
        assert "outside" in run(root, "molecule", reports=["../*.xml"]).reasons[0]

    def test_a_verdict_of_the_acceptance_suite_counts_as_a_report(self, tmp_path: Path) -> None:
        checks = '[{"id": "a", "outcome": "passed"}, {"id": "b", "outcome": "not run", "reason": "cut short"}]'
        began = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 60))
        report = f'{{"ok": false, "started": "{began}", "checks": {checks}}}'
        found = self.run(tmp_path, "acceptance", report, "reports/a.json", reports=["reports/a.json"])
        assert [one.message for one in found.findings] == ["b: cut short"]

    @pytest.mark.parametrize(
        ("log", "verdict"),
        [
            ("\x1b[32mweb\x1b[0m ➜ \x1b[33midempotence\x1b[0m: \x1b[32mExecuted: Successful\x1b[0m\n", Verdict.PASS),
            ("web ➜ idempotence: Executed: Failed\n", Verdict.FAIL),
            ("Running web > idempotence\nx\nIdempotence completed successfully.\n", Verdict.PASS),
            ("Running web > idempotence\nCRITICAL Idempotence test failed because of\n", Verdict.FAIL),
            ("web ➜ converge: Executed: Successful\n", Verdict.INCONCLUSIVE),
            ("other ➜ idempotence: Executed: Successful\n", Verdict.FAIL),
        ],
    )
    def test_a_second_run_is_read_from_the_log(self, tmp_path: Path, log: str, verdict: Verdict) -> None:
        assert self.run(tmp_path, "idempotence", log, "reports/molecule-web.log").verdict is verdict


def cobertura(files: Mapping[str, list[int]], source: str = ".") -> str:
    """A report with the hits of each line of each file."""
    classes = "".join(
        f'<class filename="{name}"><lines>'
        + "".join(f'<line number="{number}" hits="{one}"/>' for number, one in enumerate(hits, start=1))
        + "</lines></class>"
        for name, hits in files.items()
    )
    return f"<coverage><sources><source>{source}</source></sources><classes>{classes}</classes></coverage>\n"


class TestCoverage:
    """Coverage, of all and of what changed."""

    TREE: ClassVar = {"a.py": "A = 1\nB = 2\n", "tests/test_a.py": "T = 1\n", "tox.ini": "cov", ".ci/run": "tox"}

    def run(self, tmp_path: Path, report: str, check: str = "coverage", **settings: Any) -> Outcome:
        """The outcome with a report."""
        files = {**self.TREE, "reports/unit.xml": junit(""), "reports/coverage.xml": report}
        return run(write(tmp_path / "tree", files), check, **settings)

    def test_lines_are_counted_and_held_against_the_minimum(self, tmp_path: Path) -> None:
        report = cobertura({"a.py": [1, 0]})
        found = self.run(tmp_path, report)
        assert said(found, "QC.Uni01") == ": the whole: 1 of 2 lines ran, 50.0 %, needed: 70 %"
        assert self.run(tmp_path, report, minimum=50).verdict is Verdict.PASS
        assert (found.work["lines covered"], found.work["lines"]) == (1, 2)

    def test_lcov_and_absolute_paths_are_read(self, tmp_path: Path) -> None:
        assert self.run(tmp_path, f"SF:{tmp_path}/tree/a.py\nDA:1,1\nDA:2,1\nend_of_record\n").verdict is Verdict.PASS
        assert self.run(tmp_path, cobertura({"a.py": [1, 1]}, f"{tmp_path}/tree")).verdict is Verdict.PASS

    @pytest.mark.parametrize(
        ("report", "words"),
        [
            (cobertura({"b.py": [1]}), "covers none of the 1 files"),
            (cobertura({"a.py": []}), "covers none"),
            ("DA:1,1\n", "neither Cobertura's XML nor LCOV's"),
            ("<report/>", "is no report of coverage"),
        ],
    )
    def test_a_report_of_something_else_is_inconclusive(self, tmp_path: Path, report: str, words: str) -> None:
        assert words in self.run(tmp_path, report).reasons[0]

    def test_an_old_report_is_inconclusive(self, tmp_path: Path) -> None:
        self.run(tmp_path, cobertura({"a.py": [1, 1]}))
        os.utime(tmp_path / "tree/reports/coverage.xml", (1, 1))
        assert "changed since: a.py" in run(tmp_path / "tree", "coverage").reasons[0]

    @pytest.mark.parametrize(
        ("written", "verdict"),
        [
            ("1000000000000", Verdict.INCONCLUSIVE), ("1000000000", Verdict.INCONCLUSIVE),
            ("4000000000000", Verdict.PASS), ("0", Verdict.PASS), ("", Verdict.PASS),
        ],
    )  # fmt: skip
    def test_a_report_is_as_old_as_it_says_itself(self, tmp_path: Path, written: str, verdict: Verdict) -> None:
        """Milliseconds or seconds; a copy of an old report is a new file."""
        report = cobertura({"a.py": [1, 1]}).replace("<coverage>", f'<coverage timestamp="{written}">')
        found = self.run(tmp_path, report)
        assert found.verdict is verdict, found.reasons
        assert ("changed since: a.py" in str(found.reasons)) == (verdict is Verdict.INCONCLUSIVE)

    def test_a_file_without_measure_critical_code_and_failed_tests_are_findings(self, tmp_path: Path) -> None:
        write(tmp_path / "tree", {"b.py": "B = 1\n"})
        found = self.run(tmp_path, cobertura({"a.py": [1, 1, 1, 0]}), critical={"/a.py": 90})
        assert said(found, "QC.Uni01.2").startswith("b.py: is delivered and not measured")
        assert "3 of 4 lines ran" in said(found, "QC.Uni01.1")
        write(tmp_path / "tree", {"reports/unit.xml": junit("", '<failure message="no"/>')})
        assert said(run(tmp_path / "tree", "coverage"), "QC.Wor01") == ": t.web 1: no"
        (tmp_path / "tree/reports/unit.xml").unlink()
        assert "no JUnit report" in said(run(tmp_path / "tree", "coverage"), "QC.Har04")

    def test_one_entry_for_two_files_is_inconclusive(self, tmp_path: Path) -> None:
        write(tmp_path / "tree", {"x/a.py": "A = 1\n"})
        assert "can be each of" in self.run(tmp_path, cobertura({"a.py": [1, 1]}, "x")).reasons[0]

    def test_changed_lines_alone_are_judged(self, tmp_path: Path) -> None:
        root = write(tmp_path / "tree", {**self.TREE, ".gitignore": "reports/\n"})
        git(root, "init", "--quiet")
        commit(root, "Begin")
        report = cobertura({"a.py": [1, 0, 0, 0], "new.py": [0]})
        unchanged = self.run(tmp_path, report, "diff-cover")
        assert (unchanged.verdict, unchanged.work["changed lines of code"]) == (Verdict.PASS, 0)
        git(root, "checkout", "--quiet", "-b", "fix/a")
        write(root, {"a.py": "++ X\nA = 1\nB = 2\nD = 4\n"})  # "+++ X" in a diff is no name of a file
        commit(root, "Change")
        write(root, {"new.py": "N = 1\n", "reports/coverage.xml": report})
        found = run(root, "diff-cover")
        assert found.work == {"changed lines covered": 1, "changed lines of code": 3, "files changed": 2}
        assert places(found) == {("", 0, "too-low"), ("a.py", 4, "not-covered"), ("new.py", 1, "not-covered")}
        assert run(root, "diff-cover", minimum=30).verdict is Verdict.PASS
        write(root, {"more.py": "M = 1\n", "reports/coverage.xml": report})
        assert ("more.py", 0, "not-measured") in places(run(root, "diff-cover", minimum=0))

    def test_a_base_that_git_does_not_know_is_inconclusive(self, tmp_path: Path) -> None:
        git(write(tmp_path / "tree", self.TREE), "init", "--quiet")
        commit(tmp_path / "tree", "Begin")
        found = self.run(tmp_path, cobertura({"a.py": [1, 1]}), "diff-cover", base="nothing")
        assert "no common history with nothing" in found.reasons[0]


COMMON = Path("/usr/share/common-licenses")


@pytest.mark.skipif(not COMMON.is_dir(), reason="no texts of licences: Debian's package base-files")
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("Apache-2.0", "Apache-2.0"), ("GPL-2", "GPL-2.0"), ("GPL-3", "GPL-3.0"), ("LGPL-2.1", "LGPL-2.1"),
        ("LGPL-3", "LGPL-3.0"), ("MPL-2.0", "MPL-2.0"), ("GFDL-1.3", ""), ("MPL-1.1", ""),
    ],
)  # fmt: skip
def test_the_whole_text_of_a_licence_is_known_and_a_part_of_it_is_not(file: str, name: str) -> None:
    text = (COMMON / file).read_text(encoding="utf-8", errors="replace")
    assert spdx.recognise(text) == name
    assert spdx.recognise(text[: len(text) * 2 // 3]) == ""
    assert spdx.recognise(f"{spdx.MIT}{text[:200]}") == "MIT"
