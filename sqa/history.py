"""What git's history of a repository shows: its main branch, how changes came to it, its releases."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sqa.check import InconclusiveError
from sqa.metadata import SEMVER
from sqa.tree import Tree

RECORD, FIELD = "\x1e", "\x1f"
MERGED_BRANCH = re.compile(
    r"^Merge (?:branch '(?P<a>[^']+)'|pull request #\d+ from [^/\s]+/(?P<b>\S+)|"
    r"remote-tracking branch '[^/']+/(?P<c>[^']+)')"
)
REQUEST = re.compile(r"^Merge pull request #\d+|\(#\d+\)$|^See merge request \S*!\d+", re.MULTILINE)
LOOKS_LIKE_A_RELEASE = re.compile(r"^(?:v|release|rel|version)?[-_/.]?\d", re.IGNORECASE)
LONG_LIVED = ("develop", "development", "dev", "devel", "next", "staging", "integration")


class Change(NamedTuple):
    """A commit on the main branch, as its first parents lead."""

    revision: str
    parents: tuple[str, ...]
    author: str
    message: str

    @property
    def subject(self) -> str:
        """Its first line."""
        return self.message.partition("\n")[0]

    @property
    def is_merge(self) -> bool:
        """Whether it brings a branch."""
        return len(self.parents) > 1

    @property
    def names_request(self) -> bool:
        """Whether its message names the request that it came by."""
        return bool(REQUEST.search(self.message))

    @property
    def branch(self) -> str:
        """The branch that it merges, as its message calls it."""
        found = MERGED_BRANCH.match(self.subject)
        return next(filter(None, found.groups()), "") if found else ""

    def __str__(self) -> str:
        return f"{self.revision[:10]} {self.subject[:80]}"


@dataclass(frozen=True)
class History:
    """The history that ``tree`` has here.

    ``wanted``: the main branch, found where empty. ``since``: changes count from the one after this revision.
    """

    tree: Tree
    wanted: str = ""
    since: str = ""

    def require(self) -> None:
        """Raise ``InconclusiveError`` where there is no history, or not the whole of it."""
        if not self.tree.versioned:
            raise InconclusiveError(
                "no history (found: no .git, needed: a clone made by git); next: look at a clone, not at an archive"
            )
        if self.tree.git("rev-parse", "--is-shallow-repository", check=False).strip() == "true":
            raise InconclusiveError(
                "a part of the history (found: a shallow clone, needed: all of it); next: git fetch --unshallow --tags"
            )
        if not self._revision("HEAD"):
            raise InconclusiveError("no history (found: no commit, needed: one at least); next: git commit")
        for name in filter(None, (self.wanted, self.since)):
            if not self._revision(name):
                raise InconclusiveError(
                    f"git does not know {name}, which sqa.yml names; next: git fetch --tags origin, or correct sqa.yml"
                )

    @cached_property
    def main(self) -> str:
        """The main branch; what is checked out where none is called so."""
        head = self.tree.git("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD", check=False).strip()
        known = filter(None, (self.wanted, head, "origin/main", "origin/master", "main", "master"))
        return next((name for name in known if self._revision(name)), "HEAD")

    @cached_property
    def next(self) -> str:
        """The branch on which the next release grows, nothing where there is none."""
        names = self.tree.git("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes").split()
        return next((name for want in LONG_LIVED for name in names if name in (want, f"origin/{want}")), "")

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """What came to the main branch, the newest first, without the very first commit."""
        return self._changes(self.main)

    def fed(self) -> tuple[Change, ...]:
        """What came to the branch of the next release and is not on the main one yet."""
        return self._changes(self.next, f"^{self.main}")

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Tags that look like releases, on whatever branch, the oldest first."""
        listed = self.tree.git("for-each-ref", "--sort=creatordate", "--format=%(refname:strip=2)", "refs/tags").split()
        return tuple(name for name in listed if LOOKS_LIKE_A_RELEASE.match(name))

    @cached_property
    def releases(self) -> tuple[str, ...]:
        """Those of them on the main branch, in the order of its history."""
        order = {
            tag: int(self.tree.git("rev-list", "--count", f"refs/tags/{tag}").strip() or 0)
            for tag in self.tags
            if self.contains(self.main, f"refs/tags/{tag}")
        }
        return tuple(sorted(order, key=lambda tag: order[tag]))

    def contains(self, branch: str, revision: str) -> bool:
        """Whether a branch has a revision."""
        start = self.tree.git("merge-base", branch, revision, check=False).strip()
        return bool(start) and start == self._revision(revision)

    def authors(self, change: Change) -> set[str]:
        """Who wrote what a merge brings."""
        return set(self.tree.git("log", "--format=%ae", f"{change.parents[0]}..{change.revision}^2").split())

    def parents(self, revision: str) -> int:
        """How many parents a revision has."""
        return len(self.tree.git("rev-list", "--parents", "-n1", revision).split()) - 1

    def same_tree(self, one: str, other: str) -> bool:
        """Whether two revisions hold the same files."""
        return self._revision(f"{one}^{{tree}}") == self._revision(f"{other}^{{tree}}")

    def between(self, start: str, end: str) -> set[str]:
        """Files that changed between two revisions; from the first commit on where ``start`` is empty."""
        if not start:
            return set(filter(None, self.tree.git("ls-tree", "-r", "-z", "--name-only", end).split("\0")))
        return set(filter(None, self.tree.git("diff", "--name-only", "-z", start, end).split("\0")))

    def commits(self) -> list[set[str]]:
        """The files of each commit of the main branch, merges left out."""
        listed = self.tree.git("log", "-m", "--no-merges", "--name-only", "--format=%x1e", self._range(self.main))
        return [set(filter(None, one.splitlines())) for one in listed.split(RECORD) if one.strip()]

    def _changes(self, *revisions: str) -> tuple[Change, ...]:
        form = "%H%x1f%P%x1f%ae%x1f%B%x1e"
        asked = [self._range(revisions[0]), *revisions[1:]]
        listed = self.tree.git("log", "--first-parent", f"--format={form}", *asked)
        made = []
        for record in listed.split(RECORD):
            if not record.strip():
                continue
            revision, parents, author, message = record.lstrip("\n").split(FIELD, 3)
            made.append(Change(revision, tuple(parents.split()), author, message.strip()))
        return tuple(one for one in made if one.parents)

    def _range(self, branch: str) -> str:
        return f"{self.since}..{branch}" if self.since else branch

    def _revision(self, name: str) -> str:
        return self.tree.git(
            "rev-parse", "--verify", "--quiet", name if "{" in name else f"{name}^{{commit}}", check=False
        ).strip()


def order(version: str) -> tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]:
    """What semantic versions are compared by: the numbers, then that a pre-release comes before its release."""
    found = re.fullmatch(SEMVER, version)
    if found is None:
        raise ValueError(f"not a semantic version: {version}")
    pre = found["pre"] or ""
    parts = tuple((not one.isdecimal(), int(one) if one.isdecimal() else 0, one) for one in pre.split(".") if one)
    return tuple(map(int, found["numbers"].split("."))), not pre, parts
