"""Criteria and the gate: what nobody looked at is not met, and what is accepted is accepted by somebody, for a time."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sqa import attestation, baseline, gate, settings, standard
from sqa.attestation import Attestation, Place
from sqa.judgement import BADGES, Judged, Judgement, badge, judge
from sqa.model import NO_FILE, Finding, Outcome, Verdict, fingerprinted
from sqa.settings import Settings, Waiver
from sqa.tree import Tree
from testbed.errors import DeepError
from tests.unit.sqa_toys import commit, write

TODAY = datetime.date(2026, 3, 1)
SOFTWARE = {"software": standard.load("software")}
# One criterion of each kind: a MUST by checks, a MUST by rules of a check, one without a check.
BY_CHECK, BY_RULE, BY_WORD = "QC.Sec02", "QC.Lic01.1", "QC.Doc03"


def finding(check: str, rule: str = "r", path: str = "a.py") -> Finding:
    return fingerprinted([Finding(path, 0, check, rule, "wrong")], lambda *_: "")[0]


def outcome(  # pylint: disable=keyword-arg-before-vararg # who gives findings gives the verdict too
    check: str, verdict: Verdict = Verdict.PASS, *findings: Finding, rules: frozenset[str] = frozenset()
) -> Outcome:
    return Outcome(check, Verdict.FAIL if findings else verdict, findings=findings, examined=1, rules=rules)


def judged(*outcomes: Outcome, attested: Attestation | None = None, **different: Any) -> Judgement:
    known = {name: different.pop(name) for name in ("baseline", "only", "partial") if name in different}
    return judge(
        outcomes, SOFTWARE, Settings.model_validate(different), today=TODAY,
        attestations={attested.criterion: attested} if attested else {}, **known,
    )  # fmt: skip


def of(judgement: Judgement, criterion: str) -> Judged:
    return next(one for one in judgement.criteria if one.criterion.id == criterion)


def secure(**verdicts: Verdict) -> list[Outcome]:
    """Outcomes of the checks of BY_CHECK: each passed where nothing else is said."""
    return [outcome(name, verdicts.get(name, Verdict.PASS)) for name in standard.find(BY_CHECK).checks]


def waiver(**different: Any) -> dict[str, Any]:
    return {
        "id": "w", "reason": "accepted until it is replaced", "owner": "maintainers", "since": "2026-01-01",
        "expires": "2026-06-30", **different,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "expected", "blocks"),
    [
        ({}, Verdict.PASS, False),
        ({"bandit": Verdict.NOT_APPLICABLE}, Verdict.PASS, False),
        ({"bandit": Verdict.INCONCLUSIVE}, Verdict.INCONCLUSIVE, True),
        ({"bandit": Verdict.INCONCLUSIVE, "mypy": Verdict.FAIL}, Verdict.FAIL, True),
        (dict.fromkeys(standard.find(BY_CHECK).checks, Verdict.NOT_APPLICABLE), Verdict.INCONCLUSIVE, True),
    ],
)
def test_a_criterion_is_as_good_as_its_worst_check(
    verdicts: dict[str, Verdict], expected: Verdict, blocks: bool
) -> None:
    found = of(judged(*secure(**verdicts)), BY_CHECK)
    assert (found.verdict, found.blocks) == (expected, blocks)


def test_a_check_that_did_not_run_is_missed() -> None:
    found = of(judged(*secure()[1:]), BY_CHECK)
    assert (found.verdict, found.why) == (Verdict.INCONCLUSIVE, standard.find(BY_CHECK).checks[0])


def test_nothing_is_met_because_nobody_speaks_of_it() -> None:
    found = judged()
    assert len(found.criteria) == 93
    assert {one.verdict for one in found.criteria} == {Verdict.INCONCLUSIVE}
    assert {one.criterion.id for one in found.criteria if one.blocks} == {
        one.id for one in SOFTWARE["software"].criteria if one.level.startswith("MUST")
    }
    assert not found.ok


def test_a_check_of_several_rules_fails_only_the_criterion_of_the_rule() -> None:
    rules = frozenset({BY_RULE, "QC.Doc06.1"})
    found = judged(outcome("files", Verdict.PASS, finding("files", "QC.Doc06.1", ""), rules=rules))
    assert of(found, BY_RULE).verdict is Verdict.PASS
    assert of(found, "QC.Doc06.1").verdict is Verdict.FAIL
    assert of(found, "QC.Doc06.2").why == "no check ran and nobody has attested it"


def test_only_what_was_asked_for_is_held_against_a_tree() -> None:
    rules = frozenset({BY_RULE, "QC.Doc06.1"})
    checked = outcome("files", Verdict.PASS, finding("files", "QC.Doc06.1", ""), rules=rules)
    other = judged(checked, only=frozenset({BY_RULE}))
    assert (other.ok, other.open_findings, [one.criterion.id for one in other.criteria]) == (True, (), [BY_RULE])
    assert not judged(checked, only=frozenset({"QC.Doc"})).ok
    assert not other.complete


def test_what_does_not_apply_is_no_finding() -> None:
    rules = frozenset({BY_RULE, "QC.Doc06.1"})
    checked = outcome("files", Verdict.PASS, finding("files", "QC.Doc06.1", ""), rules=rules)
    found = judged(checked, not_applicable={"QC.Doc06.1": "there is nothing to introduce"})
    assert (found.open_findings, of(found, BY_RULE).verdict) == ((), Verdict.PASS)


def test_what_does_not_apply_says_why() -> None:
    found = of(judged(not_applicable={BY_WORD: "there is nothing to read online"}), BY_WORD)
    assert (found.verdict, found.means, found.met) == (Verdict.NOT_APPLICABLE, "not_applicable", True)


@pytest.mark.parametrize(("expires", "verdict"), [("2026-03-01", Verdict.PASS), ("2026-02-28", Verdict.INCONCLUSIVE)])
def test_a_word_counts_until_its_last_day(expires: str, verdict: Verdict) -> None:
    said = Attestation.model_validate({**WORD, "expires": expires})
    assert of(judged(attested=said), BY_WORD).verdict is verdict


def test_a_word_makes_up_for_a_check_that_there_is_not_and_for_no_other() -> None:
    said = Attestation.model_validate({**WORD, "criterion": BY_CHECK})
    assert of(judged(*secure(bandit=Verdict.FAIL), attested=said), BY_CHECK).verdict is Verdict.FAIL
    assert of(judged(*secure(bandit=Verdict.INCONCLUSIVE), attested=said), BY_CHECK).verdict is Verdict.INCONCLUSIVE
    assert of(judged(*secure()[1:], attested=said), BY_CHECK).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("different", "covered"),
    [
        ({"check": "bandit"}, True),
        ({"check": "bandit", "rule": "r", "path": "*.py"}, True),
        ({"check": "bandit", "rule": "other"}, False),
        ({"check": "bandit", "path": "/src/"}, False),
        ({"check": "mypy"}, False),
        ({"check": "bandit", "expires": "2026-02-28"}, False),
        ({"check": "bandit", "since": "2026-03-02"}, False),
    ],
)
def test_a_waiver_covers_what_it_names_for_as_long_as_it_says(different: dict[str, Any], covered: bool) -> None:
    wrong = [one for one in secure() if one.check != "bandit"]
    found = judged(*wrong, outcome("bandit", Verdict.PASS, finding("bandit")), waivers=[waiver(**different)])
    assert of(found, BY_CHECK).met is covered
    assert len(found.open_findings) == (0 if covered else 1)


def test_a_waiver_of_a_criterion_is_shown_with_it() -> None:
    found = of(judged(waivers=[waiver(criterion=BY_WORD)]), BY_WORD)
    assert (found.verdict, found.waiver, found.blocks) == (Verdict.INCONCLUSIVE, "w", False)


def test_an_expired_waiver_holds_back_and_one_that_covers_nothing_is_said() -> None:
    expired = judged(waivers=[waiver(check="bandit", expires="2026-02-28")])
    assert "waiver w expired on 2026-02-28" in expired.obstacles
    unneeded = judged(waivers=[waiver(check="bandit")])
    assert (unneeded.unused, expired.unused) == (("w",), ())


def test_what_was_there_before_is_not_held_against_a_tree() -> None:
    old, new = finding("bandit", path="old.py"), finding("bandit", path="new.py")
    found = judged(outcome("bandit", Verdict.PASS, old, new), baseline=frozenset({old.fingerprint}))
    assert found.open_findings == (new,)
    assert found.accepted == {old.fingerprint: "baseline"}


def test_a_run_over_a_part_judges_its_checks_and_no_criterion() -> None:
    assert judged(outcome("ruff"), partial=True).ok
    assert judged(outcome("ruff"), partial=True).criteria == ()
    unchanged = replace(outcome("ruff", Verdict.NOT_APPLICABLE), reasons=(f"{NO_FILE} has changed",))
    assert judged(unchanged, partial=True).ok
    nothing = judged(replace(unchanged, reasons=(NO_FILE,)), partial=True)
    assert nothing.obstacles == ("nothing was looked at: no check has a file of its kind",)
    assert judged(outcome("ruff", Verdict.INCONCLUSIVE), partial=True).obstacles == ("check ruff: inconclusive",)


def met(*families: str, but: str = "") -> list[Judged]:
    return [
        Judged(one, Verdict.FAIL if one.id == but else Verdict.PASS, "automated", "")
        for one in SOFTWARE["software"].criteria
        if one.family in families
    ]


def test_each_badge_can_be_reached_and_needs_the_ones_before() -> None:
    bronze, silver, gold = BADGES.values()
    assert badge(met(*bronze)) == "bronze"
    assert badge(met(*bronze, *silver)) == "silver"
    assert badge(met(*bronze, *silver, *gold)) == "gold"
    assert badge(met(*silver, *gold)) == "none"
    assert badge([]) == "none"


@pytest.mark.parametrize(
    ("but", "reached"),
    [("QC.Lic01", "none"), ("QC.Met01", "none"), ("QC.Sty01", "bronze"), ("QC.Ver01", "bronze"), ("QC.Sty03", "gold"),
     ("QC.Uni01", "silver"), ("QC.Man01", "silver")],
)  # fmt: skip
def test_a_badge_is_lost_with_what_it_stands_for(but: str, reached: str) -> None:
    assert badge(met(*(family for families in BADGES.values() for family in families), but=but)) == reached


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("gate: platinum", "gate: found 'platinum', needed 'none', 'bronze', 'silver' or 'gold'"),
        ("checks: [a]", "checks: found a list, needed keys with values"),
        ("surprise: 1", "surprise: there is no such key, needed one of: attestations, baseline, checks, exclude"),
        ("standards: [hardware]", "standards: found hardware, needed some of service, software"),
        ("standards: software", "standards: found 'software', needed a list"),
        ("largest_file: many", "largest_file: found 'many', needed a whole number"),
        ("largest_file: 0", "largest_file: found 0, needed more than 0"),
        ("exclude: [1]", "exclude.0: found 1, needed a text"),
        ("exclude: ['!']", "exclude: found '!', needed a pattern as in .gitignore"),
        (f"waivers: [{ {**waiver(check='x'), 'path': '!'} }]", "waivers.0.path: found '!', needed a pattern"),
        ("signers: /etc/signers", "signers: found '/etc/signers', needed a path inside of the repository"),
        ("- a", "sqa.yml: found a list, needed keys with values"),
        (f"waivers: [{ {**waiver(check='x'), 'reason': 'short'} }]",
         "waivers.0.reason: found 'short', needed at least 15 characters"),
        (f"waivers: [{ {**waiver(check='x'), 'reason': ' ' * 20} }]", "needed at least 15 characters"),
        (f"waivers: [{ {**waiver(check='x'), 'id': 'A b'} }]", "waivers.0.id: found 'A b', needed small letters"),
        (f"waivers: [{ {**waiver(check='x'), 'expires': 'soon'} }]",
         "waivers.0.expires: found 'soon', needed a day such as 2027-03-31"),
        (f"waivers: [{ {**waiver(check='x'), 'untill': 1} }]", "untill: there is no such key, needed one of: check"),
        ("not_applicable: {QC.Doc99: a reason that is long enough}", "no such criterion in software: QC.Doc99"),
        (f"waivers: [{ {**waiver(check='x'), 'criterion': BY_WORD} }]", "either a criterion or a check"),
        ("waivers: [{id: a, check: x, reason: long enough a reason, owner: the owner, since: 2026-01-01}]",
         "waivers.0.expires: is missing"),
        ("a: [", "not YAML in line 1: expected the node content, but found '<stream end>'"),
    ],
)  # fmt: skip
def test_wrong_settings_are_explained(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "sqa.yml").write_text(content)
    with pytest.raises(DeepError, match=r"sqa\.yml") as refused:
        settings.load(tmp_path)
    assert (why in str(refused.value), refused.value.exit_code) == (True, 2), str(refused.value)


def test_a_waiver_has_a_reason_an_owner_and_an_end() -> None:
    for missing in ("reason", "owner", "since", "expires"):
        with pytest.raises(ValueError, match=missing):
            Waiver.model_validate({name: value for name, value in waiver(check="x").items() if name != missing})


def test_a_waiver_does_not_last_for_ever() -> None:
    with pytest.raises(ValueError, match="found 2029-01-01, needed a day from 2026-01-01 to 2028-01-02"):
        Waiver.model_validate(waiver(check="x", expires="2029-01-01"))


def test_a_baseline_is_kept_and_a_broken_one_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / ".sqa" / "baseline.json"
    assert baseline.load(path) == frozenset()
    assert baseline.write(path, [finding("bandit")]) == 1
    assert baseline.load(path) == {finding("bandit").fingerprint}
    path.write_text("{}")
    with pytest.raises(DeepError, match="not a baseline"):
        baseline.load(path)


WORD = {
    "criterion": BY_WORD, "repository": "0" * 40,
    "statement": "The pages are published after each release, seen today.",
    "signer": "maintainers@example.org", "date": "2026-01-01", "expires": "2026-12-31",
}  # fmt: skip


def word(place: Place, **different: Any) -> Attestation:
    """An attestation about the place."""
    about = {"repository": attestation.repository(place), "site": place.site}
    return Attestation.model_validate({**WORD, **about, **different})


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Place, Path]:
    """A repository that knows one signer, and the signer's key."""
    root = write(tmp_path / "tree", one="x")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (root / ".sqa").mkdir()
    public = key.with_suffix(".pub").read_text()
    (root / ".sqa" / "signers").write_text(f'{WORD["signer"]} namespaces="deep-sqa" {public}')
    commit(root)
    return Place(root, Tree(root)), key


def test_a_signed_word_is_read_again(signed: tuple[Place, Path]) -> None:
    place, key = signed
    path = attestation.write(place, Settings(), word(place), key)
    commit(place.folder)
    again = Place(place.folder, Tree(place.folder))
    assert attestation.load(again, Settings()) == {BY_WORD: word(place)}
    assert path.name == "QC.Doc03.yml"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_text(path.read_text().replace("2026-12-31", "2027-12-31")), "does not hold"),
        (lambda path: path.write_text(path.read_text().replace("2026-12-31", "2036-12-31")), "needed a day from 2026"),
        (lambda path: path.write_text(path.read_text().replace("date: 2026", "date: 2999")), "date: found 2999-01-01"),
        (lambda path: path.with_name(f"{path.name}.sig").unlink(), "not signed"),
        (lambda path: (path.parent.parent / "signers").write_text(""), "does not hold"),
        (lambda path: path.rename(path.with_name("QC.Doc01.yml")), "another criterion"),
        (lambda path: path.write_text("criterion: [x"), "not an attestation: not YAML in line 1"),
        (
            lambda path: path.write_text("criterion: QC.Doc03"),
            "an attestation: repository: is missing; statement: is m",
        ),
        (lambda path: path.write_bytes(b"caf\xe9"), "not an attestation: not UTF-8"),
    ],
)
def test_a_word_that_was_tampered_with_is_refused(signed: tuple[Place, Path], spoil: Any, why: str) -> None:
    place, key = signed
    spoil(attestation.write(place, Settings(), word(place), key))
    with pytest.raises(DeepError, match=why):
        attestation.load(place, Settings())


def test_a_word_that_was_copied_from_another_repository_is_refused(signed: tuple[Place, Path], tmp_path: Path) -> None:
    """Also where the same people may sign in both, and the name is the same."""
    place, key = signed
    path = attestation.write(place, Settings(), word(place), key)
    other = tmp_path / "other" / "tree"
    shutil.copytree(place.folder / ".sqa", other / ".sqa")
    commit(other)
    with pytest.raises(DeepError, match="about another repository"):
        attestation.load(Place(other, Tree(other)), Settings())
    path.write_text(path.read_text().replace(place.tree.first_commit, Tree(other).first_commit))
    shutil.copytree(place.folder / ".sqa", other / ".sqa", dirs_exist_ok=True)
    with pytest.raises(DeepError, match="the signature does not hold"):
        attestation.load(Place(other, Tree(other)), Settings())


@pytest.mark.parametrize(("made", "read"), [("one", "two"), ("one", None), (None, "one")])
def test_a_word_about_a_site_is_about_no_other(signed: tuple[Place, Path], made: str | None, read: str | None) -> None:
    place, key = signed
    here, there = (Place(place.folder, place.tree, site) for site in (made, read))
    attestation.write(here, Settings(), word(here), key)
    assert attestation.load(here, Settings())[BY_WORD].site == made
    with pytest.raises(DeepError, match="about another site"):
        attestation.load(there, Settings())


def test_no_word_counts_for_longer_than_a_waiver_or_is_of_a_day_to_come() -> None:
    with pytest.raises(ValueError, match="expires: found 2028-01-03, needed a day from 2026-01-01 to 2028-01-02"):
        Attestation.model_validate({**WORD, "expires": "2028-01-03"})
    with pytest.raises(ValueError, match="expires: found 2025-12-31"):
        Attestation.model_validate({**WORD, "expires": "2025-12-31"})
    tomorrow = gate.today() + datetime.timedelta(days=1)
    with pytest.raises(ValueError, match=f"date: found {tomorrow}, needed a day up to today"):
        Attestation.model_validate({**WORD, "date": tomorrow, "expires": tomorrow})
    Attestation.model_validate({**WORD, "date": gate.today(), "expires": gate.today()})


@pytest.mark.parametrize("by", ["replace", "grafts"])
def test_a_history_that_git_was_told_does_not_make_it_another_repository(
    signed: tuple[Place, Path], tmp_path: Path, by: str
) -> None:
    """Whoever copies the words of others cannot take over the first commit with them."""
    first = signed[0].tree.first_commit
    other = write(tmp_path / "other", two="x")
    commit(other)
    own = Tree(other).first_commit
    subprocess.run(["git", "fetch", "-q", str(signed[0].folder), "HEAD"], cwd=other, check=True)
    if by == "grafts":
        (other / ".git" / "info" / "grafts").write_text(f"{own} {first}\n")
    else:
        subprocess.run(["git", "replace", "--graft", own, first], cwd=other, check=True)
    begins = subprocess.run(
        ["git", "rev-list", "--max-parents=0", "HEAD"], cwd=other, check=True, capture_output=True, text=True
    )
    assert begins.stdout.strip() == first
    assert Tree(other).first_commit == own


def test_where_the_first_commit_is_not_there_no_word_counts(signed: tuple[Place, Path], tmp_path: Path) -> None:
    place, key = signed
    attestation.write(place, Settings(), word(place), key)
    commit(place.folder)
    whole, shallow = tmp_path / "whole", tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", place.folder, whole], check=True)
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{place.folder}", shallow], check=True)
    assert attestation.load(Place(whole, Tree(whole)), Settings())
    for root in (shallow, write(tmp_path / "plain")):
        shutil.copytree(place.folder / ".sqa", root / ".sqa", dirs_exist_ok=True)
        with pytest.raises(DeepError, match="nobody can tell which repository"):
            attestation.load(Place(root, Tree(root)), Settings())


def test_who_is_no_signer_cannot_attest_and_leaves_what_was_there(signed: tuple[Place, Path], tmp_path: Path) -> None:
    place, key = signed
    attestation.write(place, Settings(), word(place), key)
    foreign = tmp_path / "foreign"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", foreign], check=True)
    with pytest.raises(DeepError, match="does not hold"):
        attestation.write(place, Settings(), word(place, expires="2027-12-31"), foreign)
    assert attestation.load(place, Settings()) == {BY_WORD: word(place)}
    with pytest.raises(DeepError, match="no such key"):
        attestation.write(place, Settings(), word(place), tmp_path / "missing")
    (place.folder / ".sqa" / "signers").unlink()
    with pytest.raises(DeepError, match="nobody may attest"):
        attestation.write(place, Settings(), word(place), key)


def test_the_same_tree_and_time_give_the_same_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    root = write(tmp_path / "tree", one="x")
    commit(root)
    repo = gate.repository(root)
    first = gate.document(repo, gate.run(repo, checks=["ruff"]))
    again = gate.repository(root)
    assert gate.document(again, gate.run(again, checks=["ruff"])) == first
    assert (first["created"], first["repository"]) == ("2026-01-01T00:00:00+00:00", "tree")
    write(root, one="y")
    assert gate.document(gate.repository(root), judged())["tree"] != first["tree"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"criteria": ["QC.Lic99"]}, "unknown criterion"),
        ({"checks": ["rufff"]}, "unknown check"),
        ({"changed": "main"}, "only a checkout of git"),
        ({"criteria": ["QC.Lic01"], "checks": ["ruff"]}, "asked for together"),
    ],
)
def test_unknown_names_are_refused_before_anything_runs(tmp_path: Path, asked: dict[str, Any], why: str) -> None:
    with pytest.raises(DeepError, match=why):
        gate.run(gate.repository(tmp_path), **asked)


def test_a_repository_is_found_from_inside_it(tmp_path: Path) -> None:
    (tmp_path / "sqa.yml").write_text("gate: silver\n")
    (tmp_path / "deep" / "down").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    assert gate.repository(tmp_path / "deep" / "down").settings.gate == "silver"
    for text in ("checks: {rufff: {}}\n", f"waivers: [{waiver(check='rufff')}]\n"):
        (tmp_path / "sqa.yml").write_text(text)
        with pytest.raises(DeepError, match="no such check"):
            gate.repository(tmp_path)
