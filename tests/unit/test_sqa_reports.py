"""Reports: each says what the run found, escaped for where it is read, and the same for the same run."""

from __future__ import annotations

import base64
import datetime
import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sqa import assessment, attestation, gate, settings, standard, statement
from sqa.judgement import judge
from sqa.model import Finding, Outcome, Verdict, fingerprinted
from sqa.reports import FORMATS
from sqa.tree import Tree
from testbed.cli import sqa as cli
from testbed.errors import DeepError
from tests.unit.sqa_toys import commit, write

NASTY = "<script>alert('x')</script> \x0b & \u00e9 ]]>"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gate.Repository:
    """A repository with one waiver, at a fixed time and with a cache of its own."""
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    monkeypatch.setattr(gate, "today", lambda: datetime.date(2026, 1, 1))
    root = write(tmp_path / "tree", one="x = 1\n")
    (root / "sqa.yml").write_text(
        "waivers:\n- {id: old, check: bandit, rule: B1, reason: it goes with the next release, owner: maintainers,"
        " since: 2026-01-01, expires: 2026-06-01}\n"
    )
    commit(root)
    return gate.repository(root)


@pytest.fixture
def run(repo: gate.Repository) -> dict[str, Any]:
    """The document of a run with a finding, a waived one, a check that could not look and one that does not apply."""
    found = fingerprinted(
        [Finding("a b/<x>.py", 3, "ruff", "F401", NASTY), Finding("", 0, "bandit", "B1", "weak")],
        lambda *_: "import os",
    )
    by_check = {check: tuple(one for one in found if one.check == check) for check in ("ruff", "bandit")}
    outcomes = [
        Outcome("ruff", Verdict.FAIL, "ruff 1.0", findings=by_check["ruff"], selected=2, examined=2, work={"rules": 7}),
        Outcome("bandit", Verdict.FAIL, "bandit 2.0", findings=by_check["bandit"], selected=2, examined=2),
        Outcome("mypy", Verdict.INCONCLUSIVE, selected=2, reasons=(f"ended with 3: {NASTY}",)),
        Outcome("hadolint", Verdict.NOT_APPLICABLE, reasons=("no file of its kind",)),
    ]
    judged = judge(
        outcomes, repo.standards, repo.settings, today=datetime.date(2026, 1, 1), attestations={}, partial=False
    )
    return gate.document(repo, judged)


def test_every_format_is_offered_and_the_same_each_time(run: dict[str, Any]) -> None:
    assert [one.value for one in cli.Format] == list(FORMATS)
    again = json.loads(json.dumps(run))
    for _, render in FORMATS.values():
        assert render(run) == render(again)


def test_sarif_has_a_run_for_each_check_and_says_which_could_not_look(run: dict[str, Any]) -> None:
    made = json.loads(FORMATS["sarif"][1](run))
    runs = {one["tool"]["driver"]["name"]: one for one in made["runs"]}
    assert made["version"] == "2.1.0"
    assert {name: one["invocations"][0]["executionSuccessful"] for name, one in runs.items()} == {
        "ruff": True, "bandit": True, "mypy": False, "hadolint": True,
    }  # fmt: skip
    result = runs["ruff"]["results"][0]
    place = result["locations"][0]["physicalLocation"]
    assert (result["ruleId"], result["message"]["text"]) == ("F401", NASTY)
    assert (place["artifactLocation"]["uri"], place["region"]) == ("a%20b/%3Cx%3E.py", {"startLine": 3})
    assert runs["ruff"]["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "F401"
    assert runs["bandit"]["results"][0]["suppressions"][0]["justification"] == "waiver old"
    assert "locations" not in runs["bandit"]["results"][0]


def test_junit_counts_what_is_in_it(run: dict[str, Any]) -> None:
    suites = {one.get("name"): one for one in ET.fromstring(FORMATS["junit"][1](run))}
    criteria, checks = suites["criteria"], suites["checks"]
    assert (criteria.get("tests"), len(criteria)) == ("93", 93)
    assert (checks.get("tests"), checks.get("failures"), checks.get("errors"), checks.get("skipped")) == tuple("4111")
    assert criteria.get("errors") == str(len(criteria.findall("testcase/error")))
    message = checks.find("testcase[@name='mypy']/error")
    assert message is not None
    assert "alert('x')</script> \ufffd" in str(message.get("message"))


class Page(HTMLParser):
    """The tags of a page, which have to close in order, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_whole_by_itself_and_runs_nothing(run: dict[str, Any]) -> None:
    text = FORMATS["html"][1](run)
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img"} & set(page.tags)
    assert "http" not in text.replace(run["standards"]["software"]["url"], "")
    assert "a b/<x>.py:3" in "".join(page.words)
    for criterion in run["criteria"]:
        assert criterion["id"] in page.words
    assert "waiver old" in text


def test_the_page_of_a_part_does_not_judge_criteria(run: dict[str, Any]) -> None:
    page = Page(FORMATS["html"][1]({**run, "partial": True}))
    assert "Badges" not in page.words


def test_sqaaas_families_are_as_valid_as_their_musts(run: dict[str, Any]) -> None:
    made = json.loads(FORMATS["sqaaas"][1](run))
    style = made["report"]["QC.Sty"]
    assert len(made["report"]) == 15
    assert style["valid"] is False
    assert style["subcriteria"]["QC.Sty01"]["evidence"][0]["tool"] == "ruff 1.0"
    assert style["coverage"]["total_subcriteria"] == len(style["subcriteria"])
    bronze = made["badge"]["software"]["criteria"]["bronze"]
    assert sorted(bronze["missing"] + bronze["fulfilled"]) == sorted(bronze["to_fulfill"])


@pytest.mark.parametrize(("ok", "word"), [(True, "silver"), (False, "silver, held back")])
def test_the_picture_says_what_was_reached(run: dict[str, Any], ok: bool, word: str) -> None:
    picture = ET.fromstring(FORMATS["badge"][1]({**run, "badge": "silver", "ok": ok}))
    assert picture.get("aria-label") == f"software quality: {word}"


@pytest.fixture
def key(tmp_path: Path, repo: gate.Repository) -> Path:
    """The key of one who may sign for the repository."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    (repo.root / ".sqa").mkdir()
    (repo.root / ".sqa" / "signers").write_text(f"# who may sign\nmaintainers {path.with_suffix('.pub').read_text()}")
    return path


def test_a_signed_run_says_what_it_is_about(run: dict[str, Any], repo: gate.Repository, key: Path) -> None:
    envelope = json.loads(json.dumps(statement.sign(run, key)))
    who, said = statement.verify(envelope, repo.root / ".sqa" / "signers")
    assert who == "maintainers"
    assert said["subject"][0]["digest"] == {"sha256": run["tree"], "gitCommit": run["revision"]}
    assert statement.of_repository(said) == repo.tree.first_commit != ""
    assert said["predicate"]["result"] == "FAILED"
    shown = subprocess.run(["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True).stdout
    assert envelope["signatures"][0]["keyid"] in shown


def altered(envelope: dict[str, Any]) -> dict[str, Any]:
    payload = base64.b64decode(envelope["payload"]).replace(b"FAILED", b"PASSED")
    return {**envelope, "payload": base64.b64encode(payload).decode()}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (altered, "no signature of a known signer holds"),
        (lambda envelope: {**envelope, "signatures": []}, "no signature of a known signer holds"),
        (lambda envelope: {**envelope, "payloadType": "text/plain"}, "not an in-toto attestation"),
        (lambda envelope: {**envelope, "payload": "%"}, "not a DSSE envelope"),
        (lambda _: {}, "not a DSSE envelope"),
    ],
)
def test_what_nobody_signed_is_refused(
    run: dict[str, Any], repo: gate.Repository, key: Path, spoil: Any, why: str
) -> None:
    with pytest.raises(DeepError, match=why):
        statement.verify(spoil(statement.sign(run, key)), repo.root / ".sqa" / "signers")


@pytest.mark.parametrize(
    ("options", "trusted"),
    [
        ("", True),
        ('namespaces="deep-sqa"', True),
        ('namespaces="git,deep-*"', True),
        ('namespaces="git"', False),
        ('valid-before="20200101"', False),
        ('valid-before="20990101",namespaces="deep-sqa"', False),
        ("cert-authority", False),
    ],
)
def test_a_signer_signs_what_the_file_allows(
    run: dict[str, Any], repo: gate.Repository, key: Path, options: str, trusted: bool
) -> None:
    signers = repo.root / ".sqa" / "signers"
    signers.write_text(f"maintainers {options} {key.with_suffix('.pub').read_text()}")
    if trusted:
        assert statement.verify(statement.sign(run, key), signers)[0] == "maintainers"
        return
    with pytest.raises(DeepError, match="no signature of a known signer holds"):
        statement.verify(statement.sign(run, key), signers)


def test_what_is_signed_is_the_whole_tree(repo: gate.Repository) -> None:
    seen = {gate.digest(repo.tree)}
    for change in (
        lambda: (repo.root / "excluded.txt").write_text("x"),
        lambda: (repo.root / "excluded.txt").chmod(0o755),
        lambda: (repo.root / "link").symlink_to("/etc/passwd"),
    ):
        change()
        seen.add(gate.digest(Tree(repo.root, ("excluded.txt",))))
    assert len(seen) == 4
    assert gate.revision(Tree(repo.root)) == ""
    commit(repo.root)
    assert len(gate.revision(Tree(repo.root))) == 40


def test_a_signer_without_a_key_is_named_with_its_line(run: dict[str, Any], repo: gate.Repository, key: Path) -> None:
    signers = repo.root / ".sqa" / "signers"
    signers.write_text("# who may sign\nmaintainers ssh-ed25519 AAAA\n")
    with pytest.raises(DeepError, match="signers:2: not a key"):
        statement.verify(statement.sign(run, key), signers)


def test_the_command_accepts_the_tree_that_passed_and_refuses_others(
    run: dict[str, Any], repo: gate.Repository, key: Path, tmp_path: Path
) -> None:
    file = tmp_path / "signed.json"
    file.write_text(json.dumps(statement.sign({**run, "ok": True}, key)))
    assert deep(repo, "verify", str(file))[0] == 1  # .sqa/signers is new
    commit(repo.root)
    now = gate.repository(repo.root)
    file.write_text(json.dumps(statement.sign({**run, "ok": True, "tree": gate.digest(now.tree)}, key)))
    status, text = deep(now, "verify", str(file))
    assert (status, text.split(":")[0]) == (0, "accepted")
    shutil.copytree(repo.root, tmp_path / "copy", ignore=lambda *_: [".git"])
    assert deep(gate.repository(tmp_path / "copy"), "verify", str(file))[0] == 0  # an archive of this very tree
    commit(tmp_path / "copy")
    status, text = deep(gate.repository(tmp_path / "copy"), "verify", str(file))
    assert (status, "this tree of another repository" in text) == (1, True)
    assert deep(now, "verify", str(tmp_path / "missing.json"))[0] == 2


def test_a_stranger_signs_in_vain_and_a_part_is_not_signed(
    run: dict[str, Any], repo: gate.Repository, key: Path, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger], check=True)
    with pytest.raises(DeepError, match="no signature of a known signer holds"):
        statement.verify(statement.sign(run, stranger), repo.root / ".sqa" / "signers")
    with pytest.raises(DeepError, match="nobody may sign"):
        statement.verify(statement.sign(run, key), repo.root / "no-such-file")
    with pytest.raises(DeepError, match="a run over a part"):
        statement.sign({**run, "complete": False}, key)
    with pytest.raises(DeepError, match="no such key"):
        statement.sign(run, tmp_path / "missing")


def deep(repo: gate.Repository, *arguments: str) -> tuple[int, str]:
    """Exit status and output of ``deep sqa``, run in the repository."""
    done = CliRunner().invoke(cli.app, [*arguments, "--root", str(repo.root)], catch_exceptions=False)
    return done.exit_code, done.output


def test_reports_are_of_the_tree_as_it_is(run: dict[str, Any], repo: gate.Repository, tmp_path: Path) -> None:
    with pytest.raises(DeepError, match="no run to report on"):
        deep(repo, "report", "--format", "json")
    gate.remember(repo, run)
    status, text = deep(repo, "report", "--format", "json")
    assert (status, json.loads(text)["badge"]) == (0, "none")
    assert deep(repo, "report", "--output", str(tmp_path / "out"))[0] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        ".gitignore",
        *(name for name, _ in FORMATS.values()),
    }
    assert deep(repo, "report")[0] == deep(repo, "report")[0] == 0
    with pytest.raises(DeepError, match="prints one report"):
        deep(repo, "report", "--format", "json", "--output", str(tmp_path))
    write(repo.root, one="changed\n")
    with pytest.raises(DeepError, match="the tree has changed"):
        deep(repo, "badge")


def test_a_waiver_is_written_beside_what_is_there(repo: gate.Repository) -> None:
    path = repo.root / "sqa.yml"
    path.write_text(f"# ours\ngate: silver # for now\n{path.read_text()}")
    words = ["waive", "--id", "new", "--reason", "replaced in the next release", "--owner", "maintainers"]
    assert deep(repo, *words, "--expires", "2026-05-01", "--criterion", "QC.Doc03")[0] == 0
    text = path.read_text()
    assert ("# ours" in text, "silver # for now" in text) == (True, True)
    assert [one.id for one in settings.load(repo.root).waivers] == ["old", "new"]
    for wrong in (["--criterion", "QC.Doc99"], ["--check", "no-such"], [], ["--criterion", "QC.Doc03"]):
        with pytest.raises(DeepError):
            deep(repo, *words, "--expires", "2026-05-01", *wrong)
        assert path.read_text() == text


def test_a_waiver_changes_no_other_line(repo: gate.Repository) -> None:
    path = repo.root / "sqa.yml"
    before = (
        "---\n# ours\ngate: 'silver'  # for now\nchecks:\n  ruff:\n    exclude: [/a/, \"/b/\"]  # old\n"
        "    # and this\nwaivers:\n  - id: old\n    check: bandit\n    reason: it goes with the next release\n"
        "    owner: maintainers\n    since: 2026-01-01\n    expires: 2026-06-01\n"
    )
    path.write_text(before)
    words = ["waive", "--id", "new", "--reason", "replaced in the next release", "--owner", "maintainers"]
    assert deep(repo, *words, "--expires", "2026-05-01", "--criterion", "QC.Doc03")[0] == 0
    assert path.read_text() == (
        f"{before}  - id: new\n    criterion: QC.Doc03\n    reason: replaced in the next release\n"
        "    owner: maintainers\n    since: 2026-01-01\n    expires: 2026-05-01\n"
    )


def test_a_word_is_given_and_explained(repo: gate.Repository, key: Path) -> None:
    words = ["attest", "QC.Doc03", "--statement", "The pages are published after each release.", "--key", str(key)]
    assert deep(repo, *words, "--signer", "maintainers", "--expires", "2026-12-31")[0] == 0
    assert "attested here by maintainers, until 2026-12-31\n" in deep(repo, "explain", "QC.Doc03")[1]
    with pytest.raises(DeepError, match="expires: found 2025-12-31, needed a day from 2026-01-01") as past:
        deep(repo, *words, "--signer", "maintainers", "--expires", "2025-12-31")
    assert past.value.next_step
    with pytest.raises(DeepError, match="unknown criterion") as unknown:
        deep(repo, "attest", "QC.Doc99", *words[2:], "--signer", "maintainers", "--expires", "2026-12-31")
    assert "correct the file" not in str(unknown.value.next_step)


def test_a_word_that_has_expired_is_not_explained_as_one_that_counts(
    repo: gate.Repository, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["attest", "QC.Doc03", "--statement", "The pages are published after each release.", "--key", str(key)]
    assert deep(repo, *words, "--signer", "maintainers", "--expires", "2026-03-31")[0] == 0
    monkeypatch.setattr(gate, "today", lambda: datetime.date(2026, 4, 1))
    assert "attested here by maintainers, expired on 2026-03-31\n" in deep(repo, "explain", "QC.Doc03")[1]
    said = json.loads(deep(repo, "explain", "QC.Doc03", "--json")[1])["attested"]
    assert (said["expires"], said["expired"]) == ("2026-03-31", True)


def test_a_word_is_given_only_where_it_counts(repo: gate.Repository, key: Path) -> None:
    """``files`` fails, ``molecule`` could not look; there is no page for ``markdown``."""
    about = ["--statement", "It is there, and was seen by us today.", "--key", str(key), "--signer", "maintainers"]
    about += ["--expires", "2026-12-31"]
    with pytest.raises(DeepError, match=r"a word on QC\.Lic01\.1 does not count here \(found: fail: files") as refused:
        deep(repo, "attest", "QC.Lic01.1", *about)
    assert refused.value.exit_code == 2
    assert attestation.load(repo.place, repo.settings) == {}
    with pytest.raises(DeepError, match=r"does not count here \(found: inconclusive: molecule"):
        deep(repo, "attest", "QC.Dep04", *about)
    assert deep(repo, "attest", "QC.Doc2.2", *about)[0] == 0
    assert set(attestation.load(repo.place, repo.settings)) == {"QC.Doc02.2"}
    assert "it does not count beside checks that have something to look at" in deep(repo, "explain", "QC.Doc02.2")[1]


def test_what_is_no_attestation_is_said(repo: gate.Repository, key: Path, tmp_path: Path) -> None:
    for text, found in (("[1]", "found: a list"), ("{", "no JSON"), ('{"payload": "é"}', "ValueError")):
        (tmp_path / "wrong.json").write_text(text)
        with pytest.raises(DeepError, match=found):
            deep(repo, "verify", str(tmp_path / "wrong.json"))


@pytest.fixture
def sites(repo: gate.Repository, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository has two sites, of which the second is told nothing beforehand."""
    folder = repo.root / "inventories"
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        (folder / name / "hosts.yml").write_text("all: {}\n")
    (folder / "one" / ".sqa.yml").write_text("---\n# known\nstandards: [service]\ngate: none\n")
    monkeypatch.setattr("testbed.sites.repo_root", lambda: repo.root)
    monkeypatch.setattr("sqa.assessment.repo_root", lambda: repo.root)
    return folder


@pytest.mark.parametrize("site", ["one", "two"])
def test_a_waiver_of_a_site_is_written_beside_it(repo: gate.Repository, sites: Path, site: str) -> None:
    before = (repo.root / "sqa.yml").read_text()
    words = ["waive", "--site", site, "--id", "old-suite", "--check", "tls", "--reason", "replaced in the next release"]
    words += ["--owner", "site admin", "--expires", "2026-05-01"]
    assert CliRunner().invoke(cli.app, words, catch_exceptions=False).exit_code == 0
    held = assessment.repository(site).settings
    assert ([one.check for one in held.waivers], held.standards, held.gate) == (["tls"], ("service",), "none")
    assert ("# known" in (sites / site / ".sqa.yml").read_text()) == (site == "one")
    assert (repo.root / "sqa.yml").read_text() == before


def test_a_word_about_a_site_lies_beside_it_and_counts_there_alone(
    repo: gate.Repository, sites: Path, key: Path
) -> None:
    words = ["SvcQC.Sup01", "--statement", "The helpdesk answers within a day, seen today.", "--key", str(key)]
    words = ["attest", "--site", "one", *words, "--signer", "maintainers", "--expires", "2026-12-31"]
    with pytest.raises(DeepError, match="nobody may attest"):
        CliRunner().invoke(cli.app, words, catch_exceptions=False)
    shutil.copytree(repo.root / ".sqa", sites / "one" / ".sqa")
    assert CliRunner().invoke(cli.app, words, catch_exceptions=False).exit_code == 0
    one = assessment.repository("one")
    assert set(attestation.load(one.place, one.settings)) == {"SvcQC.Sup01"}
    assert attestation.load(repo.place, repo.settings) == {}
    shutil.copytree(sites / "one" / ".sqa", sites / "two" / ".sqa")
    two = assessment.repository("two")
    with pytest.raises(DeepError, match="about another site"):
        attestation.load(two.place, two.settings)


@pytest.mark.parametrize(
    ("more", "why"), [(["--site", "nowhere"], "no site nowhere"), (["--site", "one", "--root", "/"], "leave out")]
)
@pytest.mark.usefixtures("sites")
def test_a_site_that_is_not_meant_is_refused(more: list[str], why: str) -> None:
    words = ["waive", "--id", "w", "--check", "tls", "--reason", "replaced in the next release", "--owner", "admin"]
    with pytest.raises(DeepError) as refused:
        CliRunner().invoke(cli.app, [*words, "--expires", "2026-05-01", *more], catch_exceptions=False)
    assert why in f"{refused.value} {refused.value.next_step}"


OF_FILES = (
    "{id: w, check: hardening, path: /etc/, reason: it goes with the next release, owner: admin, since: 2026-01-01,"
    " expires: 2026-05-01}"
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("checks: {ruff: {exclude: [a]}}", "checks: does nothing for a site"),
        ("exclude: [/docs/]\nbaseline: x", "baseline, exclude: does nothing for a site"),
        ("standards: [software]", "found: software; needed: service"),
        (f"waivers: [{OF_FILES}]", "waiver w: what the check hardening finds at a site is in no file"),
    ],
)  # fmt: skip
def test_what_does_nothing_for_a_site_is_refused(sites: Path, text: str, why: str) -> None:
    (sites / "one" / ".sqa.yml").write_text(f"{'' if 'standards' in text else 'standards: [service]'}\n{text}\n")
    with pytest.raises(DeepError, match=r"^") as refused:
        assessment.repository("one")
    assert why in str(refused.value)


def test_a_waiver_that_could_cover_nothing_is_not_written(repo: gate.Repository, sites: Path) -> None:
    words = ["waive", "--id", "w", "--reason", "replaced in the next release", "--owner", "admin"]
    with pytest.raises(DeepError, match="is in no file"):
        CliRunner().invoke(
            cli.app,
            [*words, "--expires", "2026-05-01", "--site", "one", "--check", "hardening", "--path", "/etc/"],
            catch_exceptions=False,
        )
    assert "waivers" not in (sites / "one" / ".sqa.yml").read_text()
    with pytest.raises(DeepError, match="expires: found 2025-05-01, needed a day from 2026-01-01 to 2028-01-02"):
        deep(repo, *words, "--expires", "2025-05-01", "--check", "ruff")
    with pytest.raises(DeepError, match="unknown criterion") as unknown:
        deep(repo, *words, "--expires", "2026-05-01", "--criterion", "QC.Doc99")
    assert "correct the file" not in str(unknown.value.next_step)


def test_what_is_known_of_a_site_is_explained(sites: Path, repo: gate.Repository, key: Path) -> None:
    shutil.copytree(repo.root / ".sqa", sites / "one" / ".sqa")
    words = ["--statement", "The helpdesk answers within a day, seen today.", "--key", str(key)]
    words = ["--site", "one", *words, "--signer", "maintainers", "--expires", "2026-12-31"]
    assert CliRunner().invoke(cli.app, ["attest", "SvcQC.Sup01", *words], catch_exceptions=False).exit_code == 0
    said = CliRunner().invoke(cli.app, ["explain", "SvcQC.Sup01", "--site", "one"], catch_exceptions=False)
    assert "attested here by maintainers" in said.output
    assert "attested" not in deep(repo, "explain", "SvcQC.Sup01")[1].partition("checks:")[2].partition("not apply")[2]
    checked = next(one.id for one in standard.load("service").criteria if one.checks == ("tls",))
    with pytest.raises(DeepError, match=f"a word on {checked} does not count here .found: checked at the site by tls"):
        CliRunner().invoke(cli.app, ["attest", checked, *words], catch_exceptions=False)


def test_a_repository_begins_once(repo: gate.Repository, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = gate.repository(tmp_path / "other")
    assert deep(other, "init")[0] == 0
    assert settings.load(other.root).gate == "bronze"
    with pytest.raises(DeepError, match="exists"):
        deep(other, "init")
