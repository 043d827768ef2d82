"""Release notes: everything in them is from the manifest, the changelog and what was built, and numbers are counted."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.release import manifest, notes
from pipelines.release.candidate import Artefact, Candidate
from pipelines.release.manifest import Manifest
from testbed.cli.release import app
from testbed.errors import DeepError
from testbed.paths import repo_root
from tests.unit import release_repository
from tests.unit.test_release_manifest import DIGEST, MINE, SOURCE

CHANGES = {
    "minor_changes": ["toy - it rolls", "other - it flies", "a sentence of its own"],
    "bugfixes": ["toy - no crash at `<b>`"],
    "security_fixes": ["other - it asks first"],
    "known_issues": ["toy - it squeaks"],
    "trivial": ["toy - nobody sees this"],
}
TOYS: dict[str, Any] = {
    **MINE,
    "products": [
        {
            **MINE["products"][0], "changelog": ["toy"], "known_issues": ["It is small."],
            "dependencies": [{"name": "a|b", "version": ">=1"}], "installation": "pip install toy-{version}.whl\n",
        },
        {"name": "rest", "title": "Rest", "changelog": ["*"]},
    ],
}  # fmt: skip


def candidate_of(one: Manifest) -> Candidate:
    made = Artefact(product="toy", version="0.1.0rc1", kind="wheel", file="toy-0.1.0rc1.whl", size=2048, sha256=DIGEST)
    return Candidate(
        release=one.release, version=one.version, commit="c" * 40, source_date_epoch=1767225600, artefacts=(made,)
    )


@pytest.fixture
def toys() -> Manifest:
    return Manifest.model_validate(TOYS)


def section(text: str, title: str) -> str:
    """What stands below a heading of the second level."""
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_each_product_has_what_is_about_it(toys: Manifest) -> None:
    text = notes.written(toys, CHANGES)["toy-0.1-0.1.0rc1-notes.md"]
    toy, rest = section(text, "Toy"), section(text, "Rest")
    assert "### What is new\n\n- toy - it rolls\n\n### Bug fixes\n\n- toy - no crash at `<b>`\n" in toy
    assert "### Known issues\n\n- toy - it squeaks\n- It is small.\n" in toy
    assert "| a\\|b | >=1 |" in toy
    assert "```console\npip install toy-0.1.0rc1.whl\n```" in toy
    assert "- other - it flies\n- a sentence of its own\n\n### Bug fixes\n\n- other - it asks first\n" in rest
    assert "nobody sees" not in text


def test_sizes_and_digests_are_of_what_was_built(toys: Manifest) -> None:
    before = section(notes.written(toys, {})["toy-0.1-0.1.0rc1-notes.md"], "Toy")
    assert "| toy-0.1.0rc1.whl | wheel | any | not built | `not built` |" in before
    text = notes.written(toys, {}, candidate_of(toys))["toy-0.1-0.1.0rc1-notes.md"]
    assert f"| toy-0.1.0rc1.whl | wheel | any | 2.0 KiB | `{DIGEST}` |" in section(text, "Toy")
    assert f"Commit: `{'c' * 40}` of 2026-01-01" in text


def test_numbers_of_a_published_index_are_held_against_the_list() -> None:
    first, second = (manifest.load_all()[name] for name in ("deep-1", "deep-2"))
    assert notes.claims(second) == ["10 products; 12 are listed, which differs"]
    assert notes.claims(first)[0] == "9 products; 9 are listed"
    assert notes.claims(first)[1] == "8 packages (rpm); which were not written down"
    text = notes.written(second, {})["deep-2-notes.md"]
    assert "- Products: 12\n" in text
    assert "- 10 products; 12 are listed, which differs\n" in text
    assert "https://github.com/deephdc/deep-releases" in text
    assert "Not known: files, sizes and digests" in section(text, "udocker 1.1.4")


def test_a_digest_of_a_published_file_is_shown_where_it_is_known() -> None:
    published = {
        **MINE, "build": None, "published": {"source": SOURCE, "claimed": {"image": 3, "products": 1}},
        "products": [{"name": "toy", "title": "Toy", "artefacts": [
            {"kind": "image", "file": "toy:1", "sha256": DIGEST}, {"kind": "image", "file": "toy:2"}, {"kind": "deb"},
        ]}],
    }  # fmt: skip
    one = Manifest.model_validate(published)
    text = notes.written(one, {})["toy-0.1-notes.md"]
    assert f"| toy:1 | image | any | not known | `{DIGEST}` |\n" in text
    assert "| toy:2 | image | any | not known | `not known` |\n" in text
    assert "| not known | deb |" in text
    assert notes.claims(one) == ["3 images; 2 are listed, which differs", "1 products; 1 are listed"]


class Page(HTMLParser):
    """The tags of a page, which have to close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_is_whole_and_obeys_no_entry(toys: Manifest) -> None:
    nasty = {"minor_changes": ["toy - <script>alert('x')</script>"]}
    text = notes.written(toys, nasty, candidate_of(toys))["toy-0.1-0.1.0rc1-notes.html"]
    page = Page(text)
    assert page.open == []
    assert page.links == []  # it needs nothing else
    assert "<script" not in text
    assert "<script>alert('x')</script>" in page.words
    assert DIGEST in page.words


def test_every_release_has_notes_and_the_index_leads_to_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["notes", "--output", str(tmp_path), "--json"], catch_exceptions=False)
    files = [Path(name) for name in json.loads(done.stdout)["files"]]
    assert len(files) == 1 + 3 * len(manifest.load_all())
    index = Page((tmp_path / "index.html").read_text())
    assert len(index.links) == len(manifest.load_all())
    assert all((tmp_path / link).is_file() for link in index.links)
    assert "Line deep-1" in index.words
    for page in tmp_path.glob("*.html"):
        assert Page(page.read_text()).open == []
    mine = release_repository.candidate_of("deep-testbed-0.1")
    text = notes.written(mine, {})[f"deep-testbed-0.1-{mine.version}-announcement.txt"]
    assert text.startswith(f"DEEP testbed 0.1 ({mine.version}), a candidate for tests, is available.")
    assert max(map(len, text.splitlines())) <= 78 + len("Platforms: ")


def test_a_candidate_of_another_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    Candidate(release="other", version="1.0.0", commit="c" * 40, source_date_epoch=1, artefacts=()).write(tmp_path)
    done = CliRunner().invoke(app, ["notes", "deep-1", "--candidate", str(tmp_path), "--output", str(tmp_path / "n")])
    assert isinstance(done.exception, DeepError)
    assert "found: other" in str(done.exception)


def test_entries_are_of_the_release_or_of_the_fragments_that_lead_to_it(tmp_path: Path, toys: Manifest) -> None:
    folder = tmp_path / "changelogs"
    (folder / "fragments").mkdir(parents=True)
    (folder / "changelog.yaml").write_text("ancestor: null\nreleases: {}\n")
    (folder / "fragments" / "b.yml").write_text("minor_changes:\n  - toy - ``two``\n")
    (folder / "fragments" / "a.yml").write_text("minor_changes:\n  - toy - one\n")
    assert notes.changelog(tmp_path, toys) == {"minor_changes": ["toy - one", "toy - `two`"]}
    (folder / "changelog.yaml").write_text(
        "releases:\n  0.1.0:\n    changes:\n      release_summary: Done.\n      bugfixes: [toy - three]\n"
    )
    assert notes.changelog(tmp_path, toys) == {"release_summary": ["Done."], "bugfixes": ["toy - three"]}
    (folder / "changelog.yaml").write_text("- a list\n")
    with pytest.raises(DeepError, match=r"changelog\.yaml: found a list"):
        notes.changelog(tmp_path, toys)


def test_no_entry_of_our_own_changelog_is_lost() -> None:
    mine = manifest.find("deep-testbed-0.1")
    changes = notes.changelog(repo_root(), mine)
    shown = {section for sections in notes.PARTS.values() for section in sections}
    assert set(changes) - shown <= {"trivial"}
    entries = [entry for section in shown for entry in changes.get(section, [])]
    found = [entry for one in mine.products for part in notes.about(one, mine, changes).values() for entry in part]
    assert sorted(found) == sorted(entries)
    assert entries
