"""What people attest: one file per criterion with a statement and an expiry, signed with an SSH key.

``CRITERION.yml`` is the statement, ``CRITERION.yml.sig`` its signature as ``ssh-keygen -Y sign -n deep-sqa`` makes it,
and who may sign stands in the repository's file of signers (ALLOWED SIGNERS in ssh-keygen(1)). It is about one
repository, known by its first commit, or about one site of it: copied into another it is refused.
"""

from __future__ import annotations

import datetime
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from sqa.settings import Settings, limit
from sqa.standard import Strict
from sqa.tree import Tree
from sqa.wrong import explained, not_yaml
from testbed.errors import DeepError
from testbed.files import write_atomic

NAMESPACE = "deep-sqa"


@dataclass(frozen=True)
class Place:
    """Where attestations lie and what they are about: a repository, or one of its sites by its name."""

    folder: Path
    tree: Tree
    site: str | None = None


class Attestation(Strict):
    """Somebody's word that a criterion is met: what was seen, by which signer, and until when it counts.

    ``repository``: the first commit of the one that it is about. ``site``: its site, where it is about that alone.
    ``date``: the day on which it was made. It counts until the end of ``expires``, for as long as a waiver at most.
    """

    criterion: str
    repository: str
    site: str | None = None
    statement: Annotated[str, Field(min_length=30)]
    signer: str
    date: datetime.date
    expires: datetime.date

    @field_validator("signer")
    @classmethod
    def _one(cls, value: str) -> str:
        if not re.fullmatch(r"[^\s,*?!]+", value):
            raise ValueError(f"found {value!r}, needed one name of the file of signers, without blanks and patterns")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Attestation:
        today = datetime.datetime.now(datetime.UTC).date()
        if self.date > today:
            raise ValueError(f"date: found {self.date}, needed a day up to today, {today}")
        limit(self.date, self.expires)
        return self


def load(place: Place, settings: Settings) -> dict[str, Attestation]:
    """Every attestation of a repository or site by its criterion, each with a signature that holds.

    Raises ``DeepError`` for one that is malformed, about something else, not signed, changed since, or signed by
    somebody who may not.
    """
    found = {}
    for path in sorted((place.folder / settings.attestations).glob("*.yml")):
        one = _read(path)
        if path.stem != one.criterion:
            raise DeepError(f"{path}: is about another criterion", found=one.criterion, needed=path.stem)
        _refuse_foreign(path, one, place)
        _verify(path, one, place.folder / settings.signers)
        found[one.criterion] = one
    return found


def repository(place: Place) -> str:
    """How attestations name the repository; raises ``DeepError`` where nobody knows which one it is."""
    if not place.tree.first_commit:
        raise DeepError(
            "nobody can tell which repository an attestation is about",
            found=f"{place.tree.root}: no checkout of git, no commit yet, or a shallow clone",
            needed="its first commit", next_step="git fetch --unshallow, or commit first",
        )  # fmt: skip
    return place.tree.first_commit


def write(place: Place, settings: Settings, made: Attestation, key: Path) -> Path:
    """Write and sign an attestation with the private ``key``; what was there stays where that fails.

    Raises ``DeepError`` where the key cannot sign or its owner may not.
    """
    path = place.folder / settings.attestations / f"{made.criterion}.yml"
    signers = place.folder / settings.signers
    said = made.model_dump(exclude_none=True)
    text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=100, explicit_start=True)
    if not key.is_file():
        raise DeepError("no such key", found=str(key), next_step="ssh-keygen -t ed25519 -f FILE")
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        draft.write_text(text, encoding="utf-8")
        _ssh_keygen(["-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(draft)], "the key does not sign", str(key))
        _verify(draft, made, signers)
        write_atomic(_signature(path), _signature(draft).read_bytes())
    write_atomic(path, text)
    return path


def _read(path: Path) -> Attestation:
    try:
        return Attestation.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as wrong:
        raise _not_one(path, explained(wrong, Attestation)) from wrong
    except yaml.YAMLError as broken:
        raise _not_one(path, not_yaml(broken)) from broken
    except UnicodeDecodeError as garbled:
        raise _not_one(path, "not UTF-8") from garbled


def _not_one(path: Path, why: str) -> DeepError:
    return DeepError(f"{path}: not an attestation: {why}", next_step="make it anew: deep sqa attest")


def _refuse_foreign(path: Path, one: Attestation, place: Place) -> None:
    """Raise ``DeepError`` for an attestation that was made for another repository or another site."""
    for what, said, here in (
        ("repository", one.repository, repository(place)),
        ("site", one.site or "none: all of the repository", place.site or "none: all of the repository"),
    ):
        if said != here:
            raise DeepError(
                f"{path}: is about another {what}", found=said, needed=here,
                next_step="remove it; what was seen here is attested anew: deep sqa attest",
            )  # fmt: skip


def _verify(path: Path, one: Attestation, signers: Path) -> None:
    if not _signature(path).is_file():
        raise DeepError(f"{path}: not signed", needed=f"{_signature(path).name}", next_step="deep sqa attest")
    if not signers.is_file():
        raise DeepError(
            "nobody may attest", found=f"no file {signers}", needed="a line PRINCIPAL KEY for each signer",
            next_step=f'echo "{one.signer} $(cat KEY.pub)" >> {signers}, by a reviewed change',
        )  # fmt: skip
    _ssh_keygen(
        ["-Y", "verify", "-f", str(signers), "-I", one.signer, "-n", NAMESPACE, "-s", str(_signature(path))],
        f"{path}: the signature does not hold", one.signer, path,
    )  # fmt: skip


def _signature(path: Path) -> Path:
    return path.with_name(f"{path.name}.sig")


def _ssh_keygen(arguments: list[str], wrong: str, found: str, read: Path | None = None) -> None:
    try:
        done = subprocess.run(
            ["ssh-keygen", *arguments], input=read.read_bytes() if read else b"", capture_output=True, check=False
        )
    except FileNotFoundError as missing:
        raise DeepError("ssh-keygen is not installed", next_step="install openssh-client") from missing
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace").strip()[-300:]
        raise DeepError(
            wrong, found=f"{found}: {said}", needed="a key that the file of signers names",
            next_step="add its owner there by a reviewed change, or attest anew: deep sqa attest",
        )  # fmt: skip
