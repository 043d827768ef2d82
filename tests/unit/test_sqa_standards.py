"""Standards: none of their criteria is lost or read more softly than it is written, and a wrong file is explained."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from sqa import standard
from sqa.standard import CHECKS, FOLDER, Criterion, Standard
from testbed.errors import DeepError
from testbed.paths import repo_root

# The numbering of the sources: for each criterion of a family, from 01 on, how many parts (.1, .2, ...) it has.
NUMBERING: dict[str, dict[str, tuple[int, ...]]] = {
    "software": {
        "QC.Acc": (0, 1, 0),
        "QC.Wor": (2, 1, 2),
        "QC.Man": (2, 6),
        "QC.Rev": (3, 0, 5, 0, 0),
        "QC.Ver": (0,),
        "QC.Lic": (1, 1),
        "QC.Met": (0,),
        "QC.Doc": (1, 2, 1, 0, 0, 7),
        "QC.Sty": (1, 2, 1, 0),
        "QC.Uni": (2, 0, 0, 0),
        "QC.Har": (0, 0, 0, 0),
        "QC.Tdd": (0,),
        "QC.Sec": (1, 0, 0, 0),
        "QC.Del": (1, 0, 0),
        "QC.Dep": (0, 1, 1, 0, 0),
    },
    "service": {
        "SvcQC.Dep": (0, 0, 1),
        "SvcQC.Api": (2, 0, 0),
        "SvcQC.Int": (1, 0, 0, 0),
        "SvcQC.Fun": (2, 0, 0),
        "SvcQC.Per": (0, 0, 0, 0),
        "SvcQC.Sec": (1, 2, 1, 1, 0, 4, 6),
        "SvcQC.Doc": (0, 0, 0, 0, 0, 0, 2),
        "SvcQC.Pol": (3,),
        "SvcQC.Sup": (0, 0, 0, 0),
        "SvcQC.Mon": (3, 2, 1),
        "SvcQC.Met": (5,),
    },
}
# How many criteria have which keyword of their own.
KEYWORDS = {
    "software": {"MUST": 34, "MUST NOT": 1, "SHOULD": 31, "RECOMMENDED": 12, "MAY": 4, "": 11},
    "service": {"MUST": 28, "MUST NOT": 3, "SHOULD": 30, "SHOULD NOT": 1, "MAY": 10, "": 5},
}
# Criteria without a keyword, and the one with which their parent introduces them.
WITHOUT_KEYWORD = {
    "software": {
        "QC.Man02": "none",
        "QC.Rev01.1": "RECOMMENDED",
        "QC.Rev01.2": "RECOMMENDED",
        "QC.Rev03.1": "MAY",
        "QC.Rev03.2": "MAY",
        "QC.Rev03.3": "MAY",
        "QC.Rev03.4": "MAY",
        "QC.Doc06.5": "RECOMMENDED",
        "QC.Doc06.6": "RECOMMENDED",
        "QC.Doc06.7": "RECOMMENDED",
        "QC.Dep02": "none",
    },
    "service": {
        "SvcQC.Doc07.1": "RECOMMENDED",
        "SvcQC.Doc07.2": "RECOMMENDED",
        "SvcQC.Pol01.1": "MUST",
        "SvcQC.Pol01.2": "MUST",
        "SvcQC.Pol01.3": "MUST",
    },
}
STANDARDS = standard.load_all()
CRITERIA = [criterion for one in STANDARDS.values() for criterion in one.criteria]
EACH = pytest.mark.parametrize("name", NUMBERING)


def numbered(families: dict[str, tuple[int, ...]]) -> list[str]:
    """Every id that a numbering stands for, in order."""
    ids = []
    for family, parts in families.items():
        for number, count in enumerate(parts, start=1):
            ids += [f"{family}{number:02}", *(f"{family}{number:02}.{part}" for part in range(1, count + 1))]
    return ids


def without_keyword(name: str) -> dict[str, str]:
    """Criteria of a standard that have no keyword of their own, with their level."""
    return {one.id: one.level for one in STANDARDS[name].criteria if one.inherited or one.level == "none"}


def test_the_standards_are_the_two_of_the_numbering() -> None:
    assert standard.names() == sorted(NUMBERING)


@EACH
def test_every_criterion_of_the_source_is_there_in_its_order(name: str) -> None:
    assert [criterion.id for criterion in STANDARDS[name].criteria] == numbered(NUMBERING[name])


@EACH
def test_families_are_those_of_the_source(name: str) -> None:
    expected = {family: len(parts) + sum(parts) for family, parts in NUMBERING[name].items()}
    assert list(STANDARDS[name].families) == list(expected)
    assert Counter(criterion.family for criterion in STANDARDS[name].criteria) == expected


@pytest.mark.parametrize(("name", "top", "parts"), [("software", 48, 45), ("service", 40, 37)])
def test_counts_of_criteria_and_their_parts(name: str, top: int, parts: int) -> None:
    parents = [criterion.parent for criterion in STANDARDS[name].criteria]
    assert (parents.count(None), len(parents) - parents.count(None)) == (top, parts)


@EACH
def test_levels_are_counted_by_the_keyword_that_the_source_writes(name: str) -> None:
    criteria = STANDARDS[name].criteria
    own = Counter("" if one.inherited or one.level == "none" else one.level for one in criteria)
    assert own == KEYWORDS[name]


@EACH
def test_a_criterion_without_a_keyword_has_the_level_its_parent_gives_it(name: str) -> None:
    assert without_keyword(name) == WITHOUT_KEYWORD[name]


@pytest.mark.parametrize(
    ("identifier", "level"),
    [
        ("QC.Sec04", "MUST NOT"),
        ("QC.Lic01.1", "MUST"),
        ("QC.Uni01", "SHOULD"),
        ("QC.Ver01", "RECOMMENDED"),
        ("QC.Dep03.1", "MAY"),
        ("SvcQC.Api01.1", "MUST NOT"),
        ("SvcQC.Int02", "MUST NOT"),
        ("SvcQC.Sec07.6", "MUST NOT"),
        ("SvcQC.Sec07.5", "SHOULD NOT"),
        ("SvcQC.Sec06.4", "MUST"),
        ("SvcQC.Doc06", "SHOULD"),
        ("SvcQC.Sup04", "MAY"),
    ],
)
def test_levels_that_a_slip_would_change(identifier: str, level: str) -> None:
    found = standard.find(identifier, STANDARDS)
    assert (found.level, found.inherited) == (level, False)


@pytest.mark.parametrize("level", ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "RECOMMENDED", "MAY"])
def test_the_guide_states_the_counts(level: str) -> None:
    guide = (repo_root() / "docs/sqa.md").read_text(encoding="utf-8")
    counts = " | ".join(str(KEYWORDS[name].get(level, "-")) for name in NUMBERING)
    assert f"\n| {level} | {counts} |\n" in guide


def test_a_keyword_that_can_be_read_in_two_ways_is_explained() -> None:
    assert [criterion.id for criterion in CRITERIA if criterion.note] == ["QC.Rev01.3", "QC.Rev03.5"]


@pytest.mark.parametrize(
    ("name", "version", "date", "repository", "identifier"),
    [
        ("software", "4.1", "2022-10-24", "indigo-dc/sqa-baseline", "10261/160086"),
        ("service", "2.1", "2022-11-09", "EOSC-synergy/service-qa-baseline", "10261/214441"),
    ],
)
def test_the_source_is_stated(name: str, version: str, date: str, repository: str, identifier: str) -> None:
    found = STANDARDS[name]
    assert (found.version, found.date, found.licence) == (version, datetime.date.fromisoformat(date), "CC-BY-SA-4.0")
    assert found.source.repository.endswith(f"/{repository}")
    assert found.source.identifier.endswith(f"/{identifier}")


def test_every_known_check_shows_something() -> None:
    assert {check for criterion in CRITERIA for check in criterion.checks} == set(CHECKS)


def test_titles_of_a_family_differ() -> None:
    times = Counter((criterion.family, criterion.title) for criterion in CRITERIA)
    assert [title for title, count in times.items() if count > 1] == []


def test_a_criterion_knows_its_family_and_its_parent() -> None:
    part, whole = standard.find("QC.Lic01.1", STANDARDS), standard.find("SvcQC.Sec07", STANDARDS)
    assert (part.family, part.parent, part.place) == ("QC.Lic", "QC.Lic01", (1, 1))
    assert (whole.family, whole.parent, whole.place) == ("SvcQC.Sec", None, (7, 0))


def test_an_id_is_found_as_its_source_mistyped_it() -> None:
    assert standard.find("QC.Doc2.2").id == "QC.Doc02.2"
    assert [criterion.id for criterion in CRITERIA if criterion.source_id] == ["QC.Doc02.2"]


def test_an_unknown_id_is_answered_with_similar_ones() -> None:
    with pytest.raises(DeepError, match=r"unknown criterion \(found: QC.Lic03; needed: an id such as .*QC.Lic0[12]"):
        standard.find("QC.Lic03")
    with pytest.raises(DeepError, match=r"found: 42; needed: an id such as QC.Lic01 or SvcQC.Sec01.1"):
        standard.find("42")


def test_an_unknown_standard_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DeepError, match=r"found: hardware; needed: one of: service, software"):
        standard.load("hardware")


ENTRY: dict[str, Any] = {
    "id": "QC.Lic01",
    "level": "MUST",
    "title": "There is a licence",
    "evidence": "The licence file is at the root.",
    "checks": ["files"],
}
PART: dict[str, Any] = {**ENTRY, "id": "QC.Lic01.1", "title": "It is a good one"}
SOURCE: dict[str, Any] = {
    "title": "A baseline for tests",
    "repository": "https://example.org/baseline",
    "revision": "0" * 40,
    "identifier": "https://example.org/1",
}
MINIMAL: dict[str, Any] = {
    "name": "A small baseline",
    "version": "1.0",
    "date": datetime.date(2022, 10, 24),
    "source": SOURCE,
    "licence": "CC-BY-SA-4.0",
    "families": {"QC.Lic": "Licence"},
    "criteria": [ENTRY, PART],
}


def write(folder: Path, **changes: Any) -> Path:
    """A standard with two criteria in a file; ``changes`` replace its fields."""
    path = folder / "small.yml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}, sort_keys=False), encoding="utf-8")
    return path


def test_a_small_standard_is_accepted_and_cannot_be_changed(tmp_path: Path) -> None:
    found = standard.read(write(tmp_path))
    assert isinstance(found, Standard)
    assert [type(criterion) for criterion in found.criteria] == [Criterion, Criterion]
    with pytest.raises(ValueError, match="frozen"):
        found.criteria[0].level = "MAY"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"id": "QC.Lic1"}, "id: String should match"),
        ({"id": "QC.lic01"}, "id: String should match"),
        ({"level": "must"}, "level: Input should be 'MUST'"),
        ({"level": None}, "level: Input should be 'MUST'"),
        ({"title": ""}, "title: String should have at least"),
        ({"title": "x" * 81}, "title: String should have at most 80"),
        ({"title": "It ends with a full stop."}, "title: String should match"),
        ({"evidence": " " * 30}, "evidence: String should match"),
        ({"evidence": "A sentence without an end"}, "evidence: String should match"),
        ({"evidence": f"A{'a' * 240}."}, "evidence: String should have at most 240"),
        ({"checks": ["rufff"]}, "checks.0: Input should be 'ruff'"),
        ({"checks": ["files", "files"]}, "checks: one is named twice"),
        ({"source_id": ""}, "source_id: String should have at least"),
    ],
)
def test_a_wrong_criterion_is_explained_by_file_id_and_field(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    entry = {**PART, **change}
    path = write(tmp_path, criteria=[ENTRY, entry])
    with pytest.raises(DeepError) as caught:
        standard.read(path)
    assert caught.value.message.startswith(f"{path}: criteria.1 ({entry['id']})")
    assert message in caught.value.message
    assert caught.value.next_step == "correct the file"


@pytest.mark.parametrize("field", ["id", "level", "title", "evidence", "checks"])
def test_a_criterion_lacks_no_field(tmp_path: Path, field: str) -> None:
    entry = {key: value for key, value in PART.items() if key != field}
    with pytest.raises(DeepError, match=rf"criteria\.1.*\.{field}: Field required"):
        standard.read(write(tmp_path, criteria=[ENTRY, entry]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"criteria": []}, "criteria: Tuple should have at least 1 item"),
        ({"criteria": ["QC.Lic01"]}, "criteria.0: Input should be a valid dictionary"),
        ({"criteria": [ENTRY, ENTRY]}, "criteria: declared twice: QC.Lic01"),
        ({"criteria": [PART]}, "criteria: no parent declared for QC.Lic01.1"),
        ({"criteria": [PART, ENTRY]}, "criteria: QC.Lic01 comes after QC.Lic01.1"),
        ({"criteria": [{**ENTRY, "id": "QC.Lic02"}, ENTRY]}, "criteria: QC.Lic01 comes after QC.Lic02"),
        ({"criteria": [{**ENTRY, "inherited": True}]}, "inherited: there is no parent"),
        ({"criteria": [ENTRY, {**PART, "inherited": True, "level": "none"}]}, "inherited: there is no parent, or no"),
        ({"families": {"QC.Acc": "Access"}}, "families: declared QC.Acc, but criteria are of QC.Lic"),
        ({"families": {**MINIMAL["families"], "QC.Acc": "Access"}}, "families: declared QC.Lic, QC.Acc, but"),
        ({"version": 4.1}, "version: Input should be a valid string"),
        ({"version": "latest"}, "version: String should match"),
        ({"date": "in autumn"}, "date: Input should be a valid date"),
        ({"licence": ""}, "licence: String should match"),
        ({"source": {**SOURCE, "revision": "master"}}, "source.revision: String should match"),
        ({"source": {**SOURCE, "repository": "http://example.org"}}, "source.repository: String should match"),
        ({"colour": "red"}, "colour: Extra inputs"),
    ],
)
def test_a_wrong_standard_is_explained_by_file_and_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(DeepError) as caught:
        standard.read(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"\(whole file\): Input should be a valid dictionary"),
        (b"[1, 2]", r"\(whole file\): Input should be a valid dictionary"),
        (b"name: [", "not YAML: "),
        (b"name: caf\xe9", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_standard_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "small.yml"
    path.write_bytes(content)
    with pytest.raises(DeepError, match=f"{path}: {message}"):
        standard.read(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeepError, match=r"none\.yml: cannot be read: No such file"):
        standard.read(tmp_path / "none.yml")


@EACH
def test_a_lost_criterion_is_noticed(tmp_path: Path, name: str) -> None:
    data = yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))
    lost = next(one for one in reversed(data["criteria"]) if "." in one["id"].partition(".")[2])
    data["criteria"].remove(lost)
    path = tmp_path / f"{name}.yml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    found = [criterion.id for criterion in standard.read(path).criteria]
    assert set(numbered(NUMBERING[name])) - set(found) == {lost["id"]}
