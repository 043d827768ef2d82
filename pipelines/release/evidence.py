"""What a candidate has to bring before anybody gets it: signatures, provenance, a verdict of the quality gate."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.release import build, members
from pipelines.release.candidate import FILES, INPUTS, PROVENANCE, SIGNATURE, SUMS, Candidate
from pipelines.release.openpgp import Keyring
from pipelines.release.programs import call
from pipelines.release.signing import SLSA
from pipelines.release.state import packages
from pipelines.release.store import QUALITY
from sqa import gate, statement
from sqa.judgement import BADGES
from testbed.errors import CHECK_FAILED, DeepError

INTRODUCTION = "deephdc-release"  # the package with which a host begins
ARMOUR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"


@dataclass(frozen=True)
class Trust:
    """Who is believed, by the fingerprints of their keys.

    ``keys`` sign repositories: the first one does, the others did. One of ``build_keys`` signs a candidate and its
    packages of RPM. ``root``: the repository that candidates are built from, whose file of signers, as it is committed,
    says who may sign statements.
    """

    keyring: Keyring
    keys: tuple[str, ...]
    build_keys: tuple[str, ...]
    root: Path

    @cached_property
    def _repository(self) -> gate.Repository:
        return gate.repository(self.root, plugins=False)

    @cached_property
    def signers(self) -> tuple[Path, str]:
        """The repository's file of signers, and what it says in the commit that is checked out."""
        found = self._repository
        said = found.tree.git("show", f"HEAD:{found.settings.signers}", check=False)
        if not said:
            raise DeepError(
                "nobody may sign", found=f"no {found.settings.signers} in the commit of {found.root}",
                needed="a line PRINCIPAL KEY for each signer", next_step="commit it, by a reviewed change",
            )  # fmt: skip
        return found.root / found.settings.signers, said

    @cached_property
    def first_commit(self) -> str:
        """The commit with which the repository began; raises ``DeepError`` where nobody knows it."""
        if not (found := self._repository.tree.first_commit):
            raise DeepError(
                "nobody knows with which commit the repository began", found=f"{self.root}: a shallow clone, or none",
                needed="its whole history", next_step="git fetch --unshallow",
            )  # fmt: skip
        return found

    def refuse_foreign(self, commit: str) -> None:
        """Raise ``DeepError`` for a commit that the one which is checked out does not come from."""
        if self._repository.tree.git("merge-base", commit, "HEAD", check=False).strip() != commit:
            raise _refused("it was built of a commit that is not in the history", commit, f"one of {self.root}")

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
    yield from collected([
        lambda: trust.refuse_foreign(candidate.commit),
        lambda: signed(folder, candidate, trust),
        lambda: provenance(folder, candidate, trust),
        lambda: passed(quality, candidate, trust),
        lambda: packages_signed(folder, candidate, trust),
    ])  # fmt: skip


def collected(checks: Iterable[Callable[[], object]]) -> Iterator[DeepError]:
    """What each of the checks raises."""
    for check in checks:
        try:
            check()
        except DeepError as refused:
            yield refused


def signed(folder: Path, candidate: Candidate, trust: Trust) -> None:
    """Raise ``DeepError`` unless a key of the build has signed the sum of every file, and what they were built from."""
    sums = _read(folder / SUMS)
    trust.keyring.verify(_read(folder / SIGNATURE), sums, trust.build_keys)
    _read(folder / INPUTS)
    wanted = build.sums(folder, candidate).splitlines()
    if odd := set(wanted).symmetric_difference(sums.decode(errors="replace").splitlines()):
        raise _refused(f"{SUMS} is not of this candidate", "; ".join(sorted(odd)), "a line for every file, no other")
    inputs = build.read_inputs(folder)
    found = (inputs.manifest.release, inputs.manifest.version, inputs.commit)
    if found != (of := (candidate.release, candidate.version, candidate.commit)):
        raise _refused(f"{INPUTS} is of another candidate", " ".join(found), " ".join(of))


def refuse_untagged(folder: Path, version: str) -> None:
    """Raise ``DeepError`` for what may have been built of any commit: everybody gets what is from its tag alone."""
    rule = build.read_inputs(folder).manifest.build
    if rule is None or rule.commit != "tagged":
        raise DeepError(
            f"{version} was built by a manifest that takes any commit", found="commit: any", needed="commit: tagged",
            next_step="say so in the manifest, raise the version, tag it and build it anew", exit_code=CHECK_FAILED,
        )  # fmt: skip


def provenance(folder: Path, candidate: Candidate, trust: Trust) -> None:
    """Raise ``DeepError`` unless a signer says that these very files were built of the candidate's commit."""
    signers, committed = trust.signers
    _, said = statement.opened(_envelope(folder / PROVENANCE), signers, SLSA, committed=committed)
    built = {(one["name"].rpartition("/")[2], one["digest"]["sha256"]) for one in said["subject"]}
    missing = [one.file for one in candidate.artefacts if (one.file, one.sha256) not in built]
    if missing:
        raise _refused("the provenance is of other files", ", ".join(missing), "each file among its subjects")
    sources = said["predicate"]["buildDefinition"].get("resolvedDependencies", [])
    commits = [one["digest"]["gitCommit"] for one in sources if "gitCommit" in one.get("digest", {})]
    if commits != [candidate.commit]:
        raise _refused("the provenance is of another commit", ", ".join(commits) or "none", candidate.commit)


def passed(attestation: Path, candidate: Candidate, trust: Trust) -> None:
    """Raise ``DeepError`` unless a signer says that the repository has a gate, and passed it with this commit."""
    signers, committed = trust.signers
    _, said = statement.verify(_envelope(attestation), signers, committed=committed)
    if (about := statement.of_repository(said)) != trust.first_commit:
        raise _refused("the word of the gate is about another repository", about or "none", trust.first_commit)
    if (asked := said["predicate"].get("gate")) not in BADGES:
        raise _refused("the quality gate asks for nothing", f"gate: {asked}", f"one of: {', '.join(BADGES)}")
    commit = said["subject"][0]["digest"].get("gitCommit", "none: the tree was not that of a commit")
    if commit != candidate.commit:
        raise _refused("the quality gate has seen another commit", commit, candidate.commit)
    if said["predicate"]["result"] != "PASSED":
        failed = ", ".join(said["predicate"]["failedTests"]) or said["predicate"]["result"]
        raise _refused("the quality gate did not pass", failed, "PASSED")


def packages_signed(folder: Path, candidate: Candidate, trust: Trust) -> None:
    """Raise ``DeepError`` for a package of RPM that no key of the build has signed: no host would install it."""
    files = [folder / FILES / one.file for one in packages(candidate) if one.kind == "rpm"]
    if not files:
        return
    with tempfile.TemporaryDirectory(prefix="deep-release-") as name:
        key, database = Path(name) / "key.asc", ("--dbpath", str(Path(name) / "rpm"))
        for one in trust.build_keys:
            key.write_bytes(trust.keyring.public(one))
            call("rpmkeys", *database, "--import", key)
        done = call("rpmkeys", *database, "--checksig", "--verbose", *files, check=False)
    said = done.stdout.decode(errors="replace")
    unsigned = [path.name for path in files if not _good(said, path)]
    if unsigned or done.returncode:
        raise _refused(
            "a package is not signed",
            ", ".join(unsigned) or said[-300:],
            f"signatures by {' or '.join(trust.build_keys)}",
        )


def refuse_keyless(folder: Path, candidate: Candidate, trust: Trust) -> None:
    """Raise ``DeepError`` for a package that brings hosts the repositories without the key that signs them."""
    for one in packages(candidate):
        if one.product == INTRODUCTION:
            texts = [member.content for member in (members.of(folder / FILES / one.file) or {}).values()]
            keys = [key for text in texts if text.startswith(ARMOUR) for key in trust.keyring.within(text)]
            if trust.keys[0] not in keys:
                raise DeepError(
                    f"{one.file} lacks the key of the repositories", found=", ".join(keys) or "no key",
                    needed=trust.keys[0], exit_code=CHECK_FAILED,
                    next_step="build the candidate anew with the key that hosts shall get, or use another --key",
                )  # fmt: skip


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
        raise _refused(
            "the candidate is not signed", f"no {path.name}", f"{INPUTS}, {SUMS}, {SIGNATURE} and {PROVENANCE}"
        ) from None


def _envelope(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _refused("nobody attests it", f"no {path.name}", "a signed statement") from None
    except ValueError as broken:
        raise _refused(f"{path.name} is no attestation", f"no JSON: {broken}", "a DSSE envelope") from None
    return read if isinstance(read, dict) else {}


def _refused(message: str, found: str, needed: str) -> DeepError:
    return DeepError(
        message, found=found, needed=needed, exit_code=CHECK_FAILED,
        next_step="build, sign and attest the candidate anew: docs/releases.md",
    )  # fmt: skip
