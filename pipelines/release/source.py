"""What a release is built from: an export of one commit, never the working folder, stamped with its version."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.release import archives
from pipelines.release.manifest import Manifest
from sqa.tree import STATUS, SUBMODULE, Tree
from testbed.errors import CHECK_FAILED, DeepError

SHOWN = 5
LINK = "120000"  # the mode of one in a tree of git
# Where a version stands, and in which of the manifest's spellings.
STAMPS = {
    "pyproject.toml": (r'^version = "([^"]*)"$', "version"),
    "galaxy.yml": (r"^version: (\S+)$", "semver"),
    "CITATION.cff": (r"^version: (\S+)$", "version"),
}
LOG_TAIL = 1500  # characters of what a failed program said


@dataclass(frozen=True)
class Commit:
    """A commit of a repository: its folder, its name, its time in seconds since 1970."""

    root: Path
    name: str
    epoch: int


def head(root: Path, manifest: Manifest) -> Commit:
    """The commit that is checked out; raises ``DeepError`` for a tree with changes, or where it may not be built."""
    found = commit(root, "HEAD")
    tree = Tree(found.root)
    if changed := tree.git(*STATUS).splitlines():
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise DeepError(
            "the tree has changes, and a release is built from a commit", found=", ".join(changed[:SHOWN]) + more,
            needed="a clean tree", next_step="commit, ignore or remove them: git status", exit_code=CHECK_FAILED,
        )  # fmt: skip
    tag = f"v{manifest.version}"
    if manifest.build and manifest.build.commit == "tagged":
        tags = tree.git("tag", "--points-at", "HEAD").split()
        if tag not in tags:
            raise DeepError(
                f"{manifest.release} is built from its tag alone",
                found=f"{found.name[:12]} with {', '.join(tags) or 'no tag'}", needed=f"the tag {tag}",
                next_step=f"git checkout {tag}, or git tag --sign {tag}", exit_code=CHECK_FAILED,
            )  # fmt: skip
    return found


def commit(root: Path, revision: str) -> Commit:
    """A commit of the repository that ``root`` lies in; raises ``DeepError`` where there is none of this name."""
    top = Tree(Path(Tree(root).git("rev-parse", "--show-toplevel").strip()))
    name = top.git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}", check=False).strip()
    if not name:
        raise DeepError(
            "there is no such commit", found=f"{revision} in {top.root}", needed="a repository with this commit",
            next_step=f"git -C {top.root} fetch, or name another --root",
        )  # fmt: skip
    return Commit(top.root, name, int(top.git("show", "--no-patch", "--no-show-signature", "--format=%ct", name)))


def export(found: Commit, manifest: Manifest, target: Path) -> None:
    """Write the files of a commit, stamped with the manifest's version, all with the time of the commit.

    They are what was committed, byte for byte: no filter, line ending or attribute that this clone is set up with.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for member, content in _members(Tree(found.root), found.name):
            archive.addfile(member, io.BytesIO(content))
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        archive.extractall(target, filter="data")
    for name, (pattern, spelling) in STAMPS.items():
        stamp(target / name, pattern, manifest.parsed.base_version, getattr(manifest, spelling))
    archives.settle(target, found.epoch)


def _members(tree: Tree, name: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Files and links of a commit, each with its content."""
    rows = [row.partition("\t") for row in tree.git("ls-tree", "-r", "-z", "--full-tree", name).split("\0") if row]
    facts = [(path, *about.split()) for about, _, path in rows]
    if nested := [path for path, mode, _, _ in facts if mode == SUBMODULE]:
        raise DeepError(
            "a release has no repositories within it", found=", ".join(nested), next_step="commit their files",
            exit_code=CHECK_FAILED,
        )  # fmt: skip
    data = io.BytesIO(tree.git_bytes("cat-file", "--batch", stdin="\n".join(blob for *_, blob in facts).encode()))
    for path, mode, _, _ in facts:
        _, kind, *size = data.readline().decode().split()
        if kind != "blob":
            raise DeepError(f"the repository lacks {path}", found=kind, next_step="git fsck, git fetch --refetch")
        content = data.read(int(size[0]))
        data.readline()  # the end of the line after a content
        member = tarfile.TarInfo(path)
        if mode == LINK:
            member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(content)
        else:
            member.mode, member.size = int(mode, 8) & 0o777, len(content)
        yield member, content


def stamp(path: Path, pattern: str, base: str, version: str) -> None:
    """Replace the version of a file, which has to be that of the release that the candidate leads to."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = list(re.finditer(pattern, text, re.MULTILINE))
    said = [one[1] for one in found]
    if said != [base]:
        raise DeepError(
            f"{path.name} is of another version", found=", ".join(said) or "none", needed=base,
            next_step="set the version there, or in the manifest, and commit", exit_code=CHECK_FAILED,
        )  # fmt: skip
    path.write_text(text[: found[0].start(1)] + version + text[found[0].end(1) :], encoding="utf-8")


def run(argv: list[str | Path], folder: Path, epoch: int, home: Path) -> None:
    """Run a program of the build where nothing of this machine reaches it: time, zone, locale, umask, home.

    Raises ``DeepError`` with the end of what it said.
    """
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOME": str(home), "TMPDIR": str(home),
        "ANSIBLE_HOME": str(home), "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1", "SOURCE_DATE_EPOCH": str(epoch),
    }  # fmt: skip
    done = subprocess.run(
        [str(word) for word in argv], cwd=folder, env=environment, umask=0o022, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise DeepError(
            f"{Path(argv[0]).name} fails with {done.returncode}",
            found=done.stdout.decode(errors="replace").strip()[-LOG_TAIL:],
            next_step="correct what it says, commit, then run the same command again", exit_code=CHECK_FAILED,
        )  # fmt: skip
