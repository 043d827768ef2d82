"""The files of a repository as they are now: listed, selected by pattern, hashed, copied for a tool to look at."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import pathspec

from testbed.errors import DeepError

# A repository of others, perhaps of another user, may name programs that git would start, or tell it another history.
GIT = (
    "git", "--no-replace-objects", "-c", "core.quotePath=false", "-c", "safe.directory=*", "-c", "core.fsmonitor=false",
)  # fmt: skip
STATUS = ("status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=none")
OF_CALLER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set in a hook, and about its repository alone
SUBMODULE = "160000"  # the mode of one in git's index


@dataclass(frozen=True, eq=False)
class Tree:
    """A repository at ``root``: what version control knows and what is new, never what it ignores.

    It is read once: files that come and go later are another tree's. Paths are relative to ``root``, with ``/``.
    Without version control every file counts. Links are left out: what they point at is in the tree itself, or is not
    the repository's.
    """

    root: Path
    exclude: tuple[str, ...] = ()

    @cached_property
    def versioned(self) -> bool:
        """Whether ``root`` is a checkout of git."""
        return (self.root / ".git").exists()

    @cached_property
    def first_commit(self) -> str:
        """The commit that its history begins with, which is the repository's own wherever it lies or is called.

        Empty where nobody knows: no checkout of git, nothing committed yet, or a shallow clone.
        """
        if not self.versioned or self.git("rev-parse", "--is-shallow-repository").strip() == "true":
            return ""
        return self.git("rev-list", "--max-parents=0", "--first-parent", "HEAD", check=False).strip()

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Every file, sorted."""
        listed = self._listed
        dropped = set(select(listed, self.exclude)) if self.exclude else set()
        return tuple(sorted(name for name in set(listed) - dropped if self._regular(name)))

    @cached_property
    def nested(self) -> tuple[str, ...]:
        """Folders that are repositories of their own, submodules and others: none of their files is in the tree.

        A submodule is one whatever is in its place now: nothing, or a link.
        """
        others = set(self._listed) - set(self.files) - set(self.links)
        found = {name.rstrip("/") for name in others if (self.root / name).is_dir()}
        found |= {name for name, (_, mode) in self._index.items() if mode == SUBMODULE}
        return tuple(name for name in sorted(found) if not select([f"{name}/"], self.exclude))

    @cached_property
    def left_out(self) -> tuple[str, ...]:
        """Files of git that a sparse checkout does not have."""
        found = [name for name, (tag, _) in self._index.items() if tag == "S" and not self._regular(name)]
        dropped = set(select(found, self.exclude)) if self.exclude else set()
        return tuple(name for name in found if name not in dropped and not (self.root / name).is_symlink())

    def within(self, name: str) -> tuple[str, bool]:
        """Of a repository within the tree, the commit that is checked out, and whether its files are those of it.

        Of one that was not fetched that is the commit by the index of this one.
        """
        folder = self.root / name
        if (folder / ".git").exists() and not folder.is_symlink():
            own = Tree(folder)
            commit = own.git("rev-parse", "--verify", "--quiet", "HEAD", check=False).strip()
            return commit, bool(commit) and not own.git(*STATUS)
        staged = self.git("--literal-pathspecs", "ls-files", "--stage", "--", name).split()
        empty = not folder.is_symlink() and not (folder.is_dir() and any(folder.iterdir()))
        return (staged[1] if staged else ""), bool(staged) and empty

    @cached_property
    def _matched(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        """What patterns have selected so far: the files do not change either."""
        return {}

    @cached_property
    def links(self) -> tuple[str, ...]:
        """Every symbolic link, sorted."""
        return tuple(sorted(name for name in set(self._listed) if (self.root / name).is_symlink()))

    def matching(self, patterns: Sequence[str], exclude: Sequence[str] = ()) -> tuple[str, ...]:
        """The files that a pattern selects and none of ``exclude`` does; patterns are those of .gitignore."""
        found = self._matched.get(tuple(patterns))
        if found is None:
            found = self._matched[tuple(patterns)] = select(self.files, patterns)
        dropped = set(select(found, exclude)) if exclude else set()
        return tuple(name for name in found if name not in dropped)

    def digest(self, name: str) -> str:
        """SHA-256 of a file's content; of one that cannot be read ``OSError``."""
        path = f"{self.root}/{name}"
        found = os.stat(path)  # noqa: PTH116 # thousands of times in a run, for which Path takes half a second
        return _digest(path, (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino))

    def line(self, name: str, number: int) -> str:
        """The text of a line; empty where there is none."""
        lines = _lines(self.root / name) if name else ()
        return lines[number - 1] if 0 < number <= len(lines) else ""

    def changed_since(self, base: str) -> frozenset[str]:
        """Files that differ from where this branch left ``base``, uncommitted and new ones included.

        Raises ``DeepError`` for a base that git does not know.
        """
        if not self.versioned:
            raise DeepError(
                "only a checkout of git knows what has changed", found=str(self.root), next_step="leave out --changed"
            )
        start = self.git("merge-base", base, "HEAD", check=False).strip()
        if not start:
            raise DeepError(
                "no common history with the base",
                found=base,
                needed="a branch or commit of this checkout",
                next_step="fetch it (a shallow clone may lack it), or name another",
            )
        changed = self.git("diff", "--name-only", "-z", "--relative", start).split("\0")
        return frozenset({*changed, *self._untracked()} & set(self.files))

    def git(self, *arguments: str, check: bool = True) -> str:
        """What git says; raises ``DeepError`` when it fails and ``check`` is set."""
        return os.fsdecode(self.git_bytes(*arguments, check=check))

    def git_bytes(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> bytes:
        """As ``git``, byte for byte."""
        done = subprocess.run(
            [*GIT, *arguments], cwd=self.root, env=_environment(), input=stdin, capture_output=True, check=False
        )
        if check and done.returncode:
            raise DeepError(f"git {arguments[0]} failed in {self.root}", found=os.fsdecode(done.stderr).strip()[-300:])
        return done.stdout if not done.returncode else b""

    @cached_property
    def _index(self) -> dict[str, tuple[str, str]]:
        """Of what git knows: the tag, ``S`` where a sparse checkout leaves it out, and the mode."""
        rows = self.git("ls-files", "-t", "--stage", "-z").split("\0") if self.versioned else []
        split = (row.partition("\t") for row in rows if row)
        return {name: (about[0], about.split()[1]) for about, _, name in split}

    @cached_property
    def _listed(self) -> list[str]:
        if self.versioned:
            return [*self._index, *self._untracked()]
        found: list[str] = []
        for folder, folders, names in os.walk(self.root, onerror=_refuse):
            folders[:] = [name for name in folders if name != ".git"]
            found += [os.path.relpath(os.path.join(folder, name), self.root) for name in names]  # noqa: PTH118 # quicker
        return found

    def _untracked(self) -> list[str]:
        return [*filter(None, self.git("ls-files", "-z", "--others", "--exclude-standard").split("\0"))]

    def _regular(self, name: str) -> bool:
        try:
            return stat.S_ISREG(os.lstat(f"{self.root}/{name}").st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def _environment() -> dict[str, str]:
    around = {name: value for name, value in os.environ.items() if name not in OF_CALLER}
    return {**around, "GIT_GRAFT_FILE": os.devnull}


def _refuse(error: OSError) -> None:
    raise DeepError(f"{error.filename}: {error.strerror}", next_step="let it be read, or remove it")


def select(names: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names``, in their order, that a pattern of .gitignore's kind matches."""
    spec = _spec(tuple(patterns))
    return tuple(name for name in names if spec.match_file(name))


def valid_patterns(patterns: Sequence[object]) -> None:
    """Raise ``ValueError`` for one that is no pattern of .gitignore's kind."""
    for one in patterns:
        if not isinstance(one, str):
            raise ValueError(f"found {one!r}, needed a text")
        try:
            _spec((one,))
        except ValueError:
            raise ValueError(f"found {one!r}, needed a pattern as in .gitignore") from None


@lru_cache(maxsize=512)
def _spec(patterns: tuple[str, ...]) -> pathspec.GitIgnoreSpec:
    return pathspec.GitIgnoreSpec.from_lines(patterns)


@lru_cache(maxsize=100_000)
def _digest(path: str, _state: tuple[int, int, int, int]) -> str:
    with Path(path).open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


@lru_cache(maxsize=256)
def _lines(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return ()
