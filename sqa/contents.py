"""A repository as a reader finds it: its front files, its pages with their headings, its tests, its code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from sqa.check import Look
from sqa.metadata import Stated, stated
from sqa.tree import select

MARKUP = {".md": "Markdown", ".markdown": "Markdown", ".rst": "reStructuredText", ".adoc": "AsciiDoc"}
# Where hosting services look for what introduces a repository.
FRONT = ("", ".github", ".gitlab", "docs")
PAGE_FOLDERS = ("/docs/", "/doc/", "/documentation/", "/website/docs/")
TEST_FOLDERS = ("tests", "test", "testing", "spec", "molecule")
TEST_NAME = re.compile(r"^(test_.*|.*_test)\.(py|sh)$|\.(test|spec)\.[jt]sx?$")
# Definitions of pipelines; those that a pipeline calls by name are read too.
PIPELINES = (
    "/.github/workflows/*.y*ml", "/.gitlab-ci.yml", "/.gitlab/ci/*.yml", "/Jenkinsfile*", "/.ci/*", "/.travis.yml",
    "/azure-pipelines.yml", "/.circleci/config.yml", "/.woodpecker*", "/.drone.yml", "/pipelines/**",
)  # fmt: skip
CALLED = {"make": "Makefile", "tox": "tox.ini", "nox": "noxfile.py", "pre-commit": ".pre-commit-config.yaml"}
HEADINGS = {
    "Markdown": re.compile(
        r"^(?:#{1,6}[ \t]+(?P<a>.+?)[ \t]*#*|(?P<b>[^\s#>|-].*)\n(?:=+|-{3,}))[ \t]*$", re.MULTILINE
    ),
    "reStructuredText": re.compile(r"^(?P<a>\S.*)\n(?P<line>([=\-~^\"'`#*+.])\3{2,})[ \t]*$", re.MULTILINE),
    "AsciiDoc": re.compile(r"^={1,6}[ \t]+(?P<a>.+?)[ \t]*$", re.MULTILINE),
}
LEAST = 5  # words, with which something is said about a topic
FENCED = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Section:
    """A heading and the text below it, up to the next heading."""

    page: str
    heading: str
    body: str


@dataclass(frozen=True)
class Contents:
    """What a look finds; a file is read once, when it is asked for."""

    look: Look

    @cached_property
    def texts(self) -> dict[str, str]:
        """Texts that were read so far."""
        return {}

    def text(self, name: str) -> str:
        """The text of a file, nothing where there is no such file."""
        if not name:
            return ""
        if name not in self.texts:
            self.texts[name] = self.look.text(name)
        return self.texts[name]

    @cached_property
    def known(self) -> frozenset[str]:
        """Every file, to look one up."""
        return frozenset(self.look.files)

    def front(self, *stems: str, folders: tuple[str, ...] = FRONT) -> str:
        """The first file in the root, or where hosting services look, that is called so with any usual ending."""
        name = re.compile(rf"^({'|'.join(stems)})(\.(md|markdown|rst|txt|adoc))?$", re.IGNORECASE)
        for folder in folders:
            for path in map(PurePosixPath, self.look.files):
                if str(path.parent) == (folder or ".") and name.match(path.name):
                    return str(path)
        return ""

    @cached_property
    def readme(self) -> str:
        """The README of the repository."""
        return self.front("README", folders=("",))

    @cached_property
    def guide(self) -> str:
        """The contribution guide."""
        return self.front("CONTRIBUTING", "HACKING")

    @cached_property
    def pages(self) -> tuple[str, ...]:
        """Pages that explain the software, README and contribution guide first."""
        written = [name for name in select(self.look.files, PAGE_FOLDERS) if PurePosixPath(name).suffix in MARKUP]
        root = [name for name in self.look.files if "/" not in name and PurePosixPath(name).suffix in MARKUP]
        return tuple(dict.fromkeys(filter(None, [self.readme, self.guide, *root, *written])))

    def sections(self, name: str) -> list[Section]:
        """The sections of a page; what stands before its first heading is one without a heading."""
        raw = self.text(name)
        markup = MARKUP.get(PurePosixPath(name).suffix, "")
        pattern = HEADINGS.get(markup)
        if pattern is None:
            return [Section(name, "", raw)]
        masked = FENCED.sub(lambda found: re.sub(r"[^\n]", "x", found[0]), raw)
        found = list(pattern.finditer(masked))
        starts = [0, *(one.end() for one in found)]
        ends = [*(one.start() for one in found), len(raw)]
        titles = ["", *((one["a"] or one.groupdict().get("b") or "").strip() for one in found)]
        return [Section(name, title, raw[start:end]) for title, start, end in zip(titles, starts, ends, strict=True)]

    def about(self, topic: str) -> Iterator[str]:
        """Pages with a name, or with a heading above some text, that is about ``topic`` (a regular expression)."""
        wanted = re.compile(topic, re.IGNORECASE)
        for name in self.pages:
            named = wanted.search(PurePosixPath(name).stem) and words(self.text(name)) >= LEAST
            if named or any(wanted.search(one.heading) and words(one.body) >= LEAST for one in self.sections(name)):
                yield name

    @cached_property
    def metadata(self) -> list[Stated]:
        """What the metadata files state."""
        return stated(self.look.files, self.text)

    @cached_property
    def pipeline(self) -> str:
        """The definitions of the pipelines, with those of the programs that they call."""
        return self.pipeline_of(self.look.files)

    def pipeline_of(self, files: Sequence[str]) -> str:
        """The same among ``files``, where a look is about others."""
        names = select(files, PIPELINES)
        whole = "\n".join(map(self.text, names))
        for called, name in CALLED.items():
            if name in files and re.search(rf"(?<![\w-]){called}\b", whole):
                whole += "\n" + self.text(name)
        return whole

    @cached_property
    def tests(self) -> tuple[str, ...]:
        """Files that hold tests, wherever they are."""
        return tuple(
            name
            for name in self.look.files
            if TEST_NAME.search(name.rpartition("/")[2]) or (in_tests(name) and name.endswith("molecule.yml"))
        )

    @cached_property
    def code(self) -> tuple[str, ...]:
        """Python files outside of the folders for tests."""
        return tuple(name for name in self.look.files if name.endswith(".py") and not in_tests(name))


def in_tests(name: str) -> bool:
    """Whether a file is in a folder for tests."""
    return any(part in TEST_FOLDERS for part in name.split("/")[:-1])


def words(text: str) -> int:
    """How many words a text has."""
    return len(re.findall(r"[^\W\d_]{2,}", text))
