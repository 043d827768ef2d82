"""A candidate: the files that a build has left, as everything after the build reads them.

A candidate is a folder with ``candidate.json`` and, below ``files/``, one file per artefact. Beside them
``inputs.json`` is what they were built from. ``SHA256SUMS`` lists all of these as seen from ``files/``;
``SHA256SUMS.asc`` is its detached OpenPGP signature and ``provenance.intoto.json`` the signed statement of how the
files came about, both where the build was given a key. Only signatures differ when it is built again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from sqa import wrong
from sqa.standard import Strict
from testbed.errors import CHECK_FAILED, DeepError
from testbed.files import sha256_of

DOCUMENT = "candidate.json"
INPUTS = "inputs.json"  # with which it can be built again
FILES = "files"
SUMS = "SHA256SUMS"
SIGNATURE = f"{SUMS}.asc"
PROVENANCE = "provenance.intoto.json"

Kind = Literal["collection", "wheel", "sdist", "deb", "rpm", "image", "bundle", "sbom", "notes"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]*$")]


Platforms = dict[FileName, Literal["deb", "rpm"]]
# A version that is ours, in its only spelling: 1.2.3, or 1.2.3rc1 for one that comes before.
OURS = r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}(rc[1-9][0-9]*)?$"
Version = Annotated[str, Field(pattern=OURS)]


class Artefact(Strict):
    """One file of a candidate; ``platform`` is the distribution it is for, nothing where it suits any.

    ``size`` is in bytes. ``third_party``: others made it, and the release needs it.
    """

    product: str
    version: str
    kind: Kind
    file: FileName
    size: Annotated[int, Field(ge=1)]
    sha256: Sha256
    platform: FileName | None = None
    third_party: bool = False


class Candidate(Strict):
    """What was built: of which release and commit, with the time that stands in the files (seconds since 1970).

    ``platforms``: each distribution that has repositories, and the kind of its packages.
    """

    schema_version: Literal[1] = 1
    release: str
    version: Version
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    source_date_epoch: Annotated[int, Field(ge=0)]
    platforms: Platforms = Field(default_factory=dict)
    artefacts: tuple[Artefact, ...]

    def write(self, folder: Path) -> None:
        """Write ``candidate.json``; the same candidate gives the same bytes."""
        (folder / DOCUMENT).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def described[Model: Strict](folder: Path, name: str, model: type[Model]) -> Model:
    """What a document of a candidate says; raises ``DeepError`` where it is missing, or says something else."""
    path = folder / name
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DeepError("this is no candidate", found=f"no {path}", next_step="deep release build makes one") from None
    except ValidationError as refused:
        raise DeepError(f"{path}: {wrong.explained(refused, model)}", next_step="build the candidate anew") from None


def document(folder: Path) -> Candidate:
    """What a folder says of its candidate; raises ``DeepError`` where it says nothing, or something else."""
    return described(folder, DOCUMENT, Candidate)


def read(folder: Path) -> Candidate:
    """The candidate of a folder, each of its files being what the build left; else an error says which is not."""
    candidate = document(folder)
    problems = list(altered(folder, candidate))
    if problems:
        raise DeepError(
            "the candidate is not as it was built", found="; ".join(problems), exit_code=CHECK_FAILED,
            next_step="build the candidate anew, and find out who changed it",
        )  # fmt: skip
    return candidate


def altered(folder: Path, candidate: Candidate) -> Iterator[str]:
    """What is missing, changed or there in addition among the files of a candidate."""
    present = {path.name for path in (folder / FILES).iterdir()} if (folder / FILES).is_dir() else set()
    for one in candidate.artefacts:
        if one.file not in present:
            yield f"{one.file} is missing"
        elif (digest := sha256_of(folder / FILES / one.file)) != one.sha256:
            yield f"{one.file} has the digest {digest}, built was {one.sha256}"
    for name in sorted(present - {one.file for one in candidate.artefacts}):
        yield f"{name} was not built"
