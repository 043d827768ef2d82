"""What a build is signed with: OpenPGP for people, apt and yum; an in-toto statement of where the files come from."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.release import members
from pipelines.release.candidate import FILES, PROVENANCE, SIGNATURE, SUMS, Candidate
from pipelines.release.openpgp import Keyring
from pipelines.release.programs import call
from sqa import statement
from testbed.errors import DeepError
from testbed.files import write_atomic, write_json

SLSA = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:deep-testbed:release-build:v1"
BUILDER = "urn:deep-testbed:command-line"

SignRpm = Callable[[Path], None]


def unsigned(_: Path) -> None:
    """Leave a package of RPM as it is."""


def rpm_signer(keyring: Keyring, fingerprint: str) -> SignRpm:
    """What signs a package of RPM, which carries its signature; that of a deb is the one of its repository.

    Raises ``DeepError`` where there is no rpmsign.
    """
    call("rpmsign", "--version")
    extra = "--batch --no-tty"
    if keyring.passphrase_file:
        extra += f' --pinentry-mode loopback --passphrase-file "{keyring.passphrase_file.absolute()}"'
    home = keyring.home or Path(os.environ.get("GNUPGHOME") or Path.home() / ".gnupg")
    macros = {
        "__gpg": shutil.which("gpg") or "gpg", "_gpg_name": fingerprint, "_gpg_path": str(home),
        "_gpg_digest_algo": "sha512", "_gpg_sign_cmd_extra_args": extra,
    }  # fmt: skip
    defined = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]

    def signed(path: Path) -> None:
        call("rpmsign", *defined, "--addsign", path)

    return signed


def rpm_signature_of(folder: Path) -> SignRpm:
    """What gives a package of RPM the signature that the same one has in a candidate."""

    def copied(path: Path) -> None:
        signed = folder / FILES / path.name
        if signed.is_file():
            path.write_bytes(members.rpm_parts(signed)[0] + members.rpm_parts(path)[1])

    return copied


def provenance(candidate: Candidate, parameters: dict[str, Any], tools: dict[str, str]) -> dict[str, Any]:
    """The in-toto statement (Statement v1, SLSA provenance v1) that these files were built of the commit.

    It names no time and no machine: built again by the same key it is the same.
    """
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": one.file, "digest": {"sha256": one.sha256}} for one in candidate.artefacts],
        "predicateType": SLSA,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "internalParameters": {"SOURCE_DATE_EPOCH": candidate.source_date_epoch, "tools": tools},
                "resolvedDependencies": [{"name": "source", "digest": {"gitCommit": candidate.commit}}],
            },
            "runDetails": {"builder": {"id": BUILDER}},
        },
    }


@dataclass(frozen=True)
class Signer:
    """Who signs a candidate: ``key`` of ``keyring`` its list of digests and packages of RPM, by its fingerprint.

    ``signing_key``, the file of an OpenSSH key, signs its provenance. Without keys nothing is signed.
    """

    keyring: Keyring
    key: str | None = None
    signing_key: Path | None = None

    def check(self) -> None:
        """Raise ``DeepError`` for whatever would keep the keys from signing, by a signature of nothing."""
        self.rpm()
        if self.key:
            self.keyring.detached(b"", self.key, int(time.time()))
        if self.signing_key:
            statement.sealed({}, self.signing_key)

    def rpm(self) -> SignRpm:
        """What signs packages of RPM."""
        return rpm_signer(self.keyring, self.key) if self.key else unsigned

    def sign(self, folder: Path, said: dict[str, Any]) -> None:
        """Sign the list of digests in a folder, and the provenance that is ``said``."""
        if self.key:
            write_atomic(
                folder / SIGNATURE, self.keyring.detached((folder / SUMS).read_bytes(), self.key, int(time.time()))
            )
        if self.signing_key:
            write_json(folder / PROVENANCE, statement.sealed(said, self.signing_key))

    def has_signed(self, folder: Path, said: dict[str, Any]) -> bool:
        """Whether every signature that would be made is there and holds."""
        try:
            if self.key:
                self.keyring.verify((folder / SIGNATURE).read_bytes(), (folder / SUMS).read_bytes(), [self.key])
            # Signed again by such a key it is the same.
            return not self.signing_key or statement.sealed(said, self.signing_key) == json.loads(
                (folder / PROVENANCE).read_bytes()
            )
        except (FileNotFoundError, ValueError, DeepError):
            return False
