"""What a candidate has to bring before anybody gets it: signatures, provenance, a verdict of the quality gate."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.release.candidate import FILES, PROVENANCE, SIGNATURE, SUMS, Candidate
from pipelines.release.openpgp import Keyring
from pipelines.release.programs import call
from pipelines.release.signing import SLSA
from pipelines.release.state import packages
from pipelines.release.store import QUALITY
from sqa import gate, statement
from testbed.errors import CHECK_FAILED, DeepError
from testbed.files import checksum_lines


@dataclass(frozen=True)
class Trust:
    """Who is believed, by the fingerprints of their keys.

    ``keys`` sign repositories: the first one does, the others did. ``build_key`` signs candidates and packages of RPM.
    ``root``: the repository that candidates are built from, whose file of signers says who may sign statements.
    """

    keyring: Keyring
    keys: tuple[str, ...]
    build_key: str
    root: Path

    @cached_property
    def _repository(self) -> gate.Repository:
        return gate.repository(self.root, plugins=False)

    @property
    def signers(self) -> Path:
        """The repository's file of signers."""
        return self._repository.root / self._repository.settings.signers

    def refuse_dirty(self) -> None:
        """Raise ``DeepError`` where the repository is not as somebody has committed it: nor may be who signs."""
        tree = self._repository.tree
        if not gate.revision(tree):
            raise DeepError(
                "the repository is not what one of its commits is", found=f"changes or new files in {tree.root}",
                needed="a clean checkout", next_step=f"git -C {tree.root} status", exit_code=CHECK_FAILED,
            )  # fmt: skip


def problems(folder: Path, candidate: Candidate, trust: Trust, attestation: Path | None = None) -> Iterator[DeepError]:
    """Why a candidate is not to be believed, each reason that there is.

    ``attestation`` is the statement of the quality gate, by itself in the folder.
    """
    quality = attestation or folder / QUALITY
    checks: tuple[Callable[[], object], ...] = (
        lambda: signed(folder, candidate, trust),
        lambda: provenance(folder, candidate, trust),
        lambda: passed(quality, candidate, trust),
        lambda: packages_signed(folder, candidate, trust),
    )
    for check in checks:
        try:
            check()
        except DeepError as refused:
            yield refused


def signed(folder: Path, candidate: Candidate, trust: Trust) -> None:
    """Raise ``DeepError`` unless the build's key has signed the sum of every file."""
    sums = _read(folder / SUMS)
    trust.keyring.verify(_read(folder / SIGNATURE), sums, [trust.build_key])
    lines = set(sums.decode(errors="replace").splitlines())
    wanted = checksum_lines({one.file: one.sha256 for one in candidate.artefacts})
    if missing := [line for line in wanted.splitlines() if line not in lines]:
        raise _refused(f"{SUMS} is not of this candidate", "; ".join(missing), "a line for every file")


def provenance(folder: Path, candidate: Candidate, trust: Trust) -> None:
    """Raise ``DeepError`` unless a signer says that these very files were built of the candidate's commit."""
    _, said = statement.opened(_envelope(folder / PROVENANCE), trust.signers, SLSA)
    built = {(one["name"].rpartition("/")[2], one["digest"]["sha256"]) for one in said["subject"]}
    missing = [one.file for one in candidate.artefacts if (one.file, one.sha256) not in built]
    if missing:
        raise _refused("the provenance is of other files", ", ".join(missing), "each file among its subjects")
    sources = said["predicate"]["buildDefinition"].get("resolvedDependencies", [])
    commits = [one["digest"]["gitCommit"] for one in sources if "gitCommit" in one.get("digest", {})]
    if commits != [candidate.commit]:
        raise _refused("the provenance is of another commit", ", ".join(commits) or "none", candidate.commit)


def passed(attestation: Path, candidate: Candidate, trust: Trust) -> None:
    """Raise ``DeepError`` unless a signer says that the quality gate passed for the candidate's commit."""
    _, said = statement.verify(_envelope(attestation), trust.signers)
    commit = said["subject"][0]["digest"].get("gitCommit", "none: the tree was not that of a commit")
    if commit != candidate.commit:
        raise _refused("the quality gate has seen another commit", commit, candidate.commit)
    if said["predicate"]["result"] != "PASSED":
        failed = ", ".join(said["predicate"]["failedTests"]) or said["predicate"]["result"]
        raise _refused("the quality gate did not pass", failed, "PASSED")


def packages_signed(folder: Path, candidate: Candidate, trust: Trust) -> None:
    """Raise ``DeepError`` for a package of RPM that the build's key has not signed: no host would install it."""
    files = [folder / FILES / one.file for one in packages(candidate) if one.kind == "rpm"]
    if not files:
        return
    with tempfile.TemporaryDirectory(prefix="deep-release-") as name:
        key, database = Path(name) / "key.asc", ("--dbpath", str(Path(name) / "rpm"))
        key.write_bytes(trust.keyring.public(trust.build_key))
        call("rpmkeys", *database, "--import", key)
        done = call("rpmkeys", *database, "--checksig", "--verbose", *files, check=False)
    said = done.stdout.decode(errors="replace")
    unsigned = [path.name for path in files if not _good(said, path)]
    if unsigned or done.returncode:
        raise _refused(
            "a package is not signed", ", ".join(unsigned) or said[-300:], f"signatures by {trust.build_key}"
        )


def _good(said: str, path: Path) -> bool:
    """Whether rpmkeys tells of a signature of the file that holds, and of none that does not."""
    about = said.partition(f"{path}:\n")[2]
    lines = re.match(r"(?:[ \t]+.*\n?)*", about)
    found = [line.strip() for line in (lines[0] if lines else "").splitlines() if "ignature" in line]
    return bool(found) and all(line.endswith("OK") for line in found)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _refused("the candidate is not signed", f"no {path}", f"{SUMS}, {SIGNATURE} and {PROVENANCE}") from None


def _envelope(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _refused("nobody attests it", f"no {path}", "a signed statement") from None
    except ValueError as broken:
        raise _refused(f"{path}: not an attestation", f"no JSON: {broken}", "a DSSE envelope") from None
    return read if isinstance(read, dict) else {}


def _refused(message: str, found: str, needed: str) -> DeepError:
    return DeepError(
        message, found=found, needed=needed, exit_code=CHECK_FAILED,
        next_step="build, sign and attest the candidate anew: docs/releases.md",
    )  # fmt: skip
