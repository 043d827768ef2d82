"""``manifests/*.yml``: what a release consists of, as data, checked here before anything is built or written from it.

Whatever can be counted or hashed is left out of a manifest: notes count and hash it themselves.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import yaml
from packaging.version import Version
from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from pipelines.release.candidate import OURS, FileName, Kind, Sha256
from sqa import wrong
from sqa.standard import LOADER, HttpsUrl, Strict
from testbed.errors import DeepError

FOLDER = Path(__file__).resolve().parent / "manifests"
# What an artefact needs that not every build is given: a signed repository's address and key, or --with.
Need = Literal["repository", "bundle", "images"]
FILE_NAME: TypeAdapter[str] = TypeAdapter(FileName)

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Text = Annotated[str, Field(min_length=3)]
Title = Annotated[str, Field(min_length=3, pattern=r"^\S[^\n]*$")]


class Platform(Strict):
    """A distribution that a release is for, and how its packages are called."""

    title: Title
    packages: Literal["deb", "rpm"]


class Dependency(Strict):
    """What a product needs besides itself, in the version (or range) that is needed."""

    name: Text
    version: Annotated[str, Field(min_length=1)]


class Declared(Strict):
    """An artefact of a product: ``file`` may contain {version}, {semver}, {package} and {platform}.

    ``sha256`` is that of a file that is published already; nothing where it is not known, or has yet to be built.
    """

    kind: Literal[Kind, "tarball"]  # tarballs are of releases before this project alone
    file: Annotated[str, Field(min_length=3)] | None = None
    platform: Name | None = None
    needs: Need | None = None
    sha256: Sha256 | None = None


class Product(Strict):
    """One product. ``versions``: those that a release line has had, oldest first; nothing for that of the release.

    ``changelog`` are the first words of the entries of the changelog that are about it, ``*`` what no other claims.
    ``installation`` are commands, which may contain the words of a file. ``artefacts`` is empty where the source does
    not tell which there were. ``third_party``: others made it, and it goes to the suite of such.
    """

    name: Name
    title: Title
    summary: Text | None = None
    third_party: bool = False
    versions: tuple[str, ...] = ()
    changelog: tuple[str, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    installation: Text | None = None
    artefacts: tuple[Declared, ...] = ()
    known_issues: tuple[Text, ...] = ()


class Source(Strict):
    """Where the facts of a historic manifest are from."""

    repository: HttpsUrl
    branch: Text
    path: Text
    note: Text


class Published(Strict):
    """A release that is out: ``claimed`` are the numbers that its published index gives, right or wrong."""

    source: Source
    claimed: dict[Literal["products", "rpm", "deb", "tarball", "image"], Annotated[int, Field(ge=0)]]


class Build(Strict):
    """How a release is built. ``commit``: ``tagged`` asks for a tag vVERSION, ``any`` for a clean tree alone.

    ``suites`` are the parts of its repositories; the priorities are those with which hosts take packages from them.
    """

    commit: Literal["any", "tagged"]
    suites: Annotated[tuple[Name, ...], Field(min_length=1)]
    apt_priority: Annotated[int, Field(ge=1, le=1000)]
    yum_priority: Annotated[int, Field(ge=1, le=99)]


class Manifest(Strict):
    """A release of a line: its platforms, products and known issues; either published long ago, or built by us."""

    schema_version: Literal[1] = 1
    release: Name
    title: Title
    codename: Text | None = None
    line: Name
    version: FileName
    summary: Text
    published: Published | None = None
    build: Build | None = None
    platforms: Annotated[dict[Name, Platform], Field(min_length=1)]
    products: Annotated[tuple[Product, ...], Field(min_length=1)]
    known_issues: tuple[Text, ...] = ()

    @field_validator("products")
    @classmethod
    def _distinct(cls, products: tuple[Product, ...]) -> tuple[Product, ...]:
        _once("two products are called", (one.name for one in products))
        claimed = [word for one in products for word in one.changelog]
        _once("two products claim the changelog of", claimed)
        return products

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if (self.published is None) == (self.build is None):
            raise ValueError("needed either 'published' or 'build', not both and not neither")
        declared = [artefact for one in self.products for artefact in one.artefacts]
        unknown = {one.platform for one in declared if one.platform} - set(self.platforms)
        if unknown:
            raise ValueError(f"artefacts for platforms that are not declared: {', '.join(sorted(unknown))}")
        _once("two artefacts have the digest", (one.sha256 for one in declared if one.sha256))
        if self.build:
            self._check_build()
        return self

    def _check_build(self) -> None:
        """Raise ``ValueError`` where nothing can be built by the manifest."""
        if not re.fullmatch(OURS, self.version):
            raise ValueError(f"version: found {self.version!r}, needed one such as 0.1.0 or 0.1.0rc1")
        if self.build and self.build.commit == "any" and not self.parsed.is_prerelease:
            raise ValueError(f"build.commit: {self.version} is no candidate, needed 'tagged'")
        _once("two artefacts are the file", (file for _, _, file in self.files()))
        for one in self.products:
            self.worded(one.installation or "")
        for _, declared, file in self.files():
            _check_name(file)
            self._check_platform(declared, file)

    def _check_platform(self, declared: Declared, file: str) -> None:
        """Raise ``ValueError`` for a package that no host could be given: its platforms have packages of others."""
        platforms = [declared.platform] if declared.platform else [*self.platforms]
        if declared.kind in ("deb", "rpm") and declared.kind not in [self.platforms[one].packages for one in platforms]:
            raise ValueError(
                f"{file}: found for {', '.join(platforms)}, needed a platform with packages {declared.kind}"
            )

    @property
    def parsed(self) -> Version:
        """The version as packages of Python understand it."""
        return Version(self.version)

    @property
    def semver(self) -> str:
        """The version as the collection has it: ``0.1.0-rc.1``."""
        pre = self.parsed.pre
        return self.parsed.base_version + (f"-{pre[0]}.{pre[1]}" if pre else "")

    @property
    def package(self) -> str:
        """The version as deb and rpm have it, older than the release that it leads to: ``0.1.0~rc1``."""
        pre = self.parsed.pre
        return self.parsed.base_version + (f"~{pre[0]}{pre[1]}" if pre else "")

    def files(self) -> list[tuple[Product, Declared, str]]:
        """Product, declaration and file name of each artefact that has a file; raises ``ValueError`` for a pattern."""
        return [(one, each, self.expand(each)) for one in self.products for each in one.artefacts if each.file]

    def expand(self, declared: Declared) -> str:
        """The name of an artefact's file."""
        return self.worded(declared.file or "", declared.platform)

    def worded(self, text: str, platform: str | None = None) -> str:
        """A text with the words in braces replaced; raises ``ValueError`` for one that is not known."""
        words = {"version": self.version, "platform": platform or ""}
        if self.build:
            words |= {"semver": self.semver, "package": self.package}
        try:
            return text.format_map(words)
        except (KeyError, ValueError, IndexError) as unknown:
            raise ValueError(f"{text!r}: {unknown}, needed one of: {', '.join(words)}") from None


def _check_name(file: str) -> None:
    """Raise ``ValueError`` for the name of a file that would lie in another folder than is meant."""
    try:
        FILE_NAME.validate_python(file)
    except ValidationError:
        raise ValueError(f"file: found {file!r}, needed a name without a folder") from None


def _once(what: str, values: Iterable[str]) -> None:
    repeated = sorted(value for value, times in Counter(values).items() if times > 1)
    if repeated:
        raise ValueError(f"{what} {', '.join(repeated)}")


def read(path: Path) -> Manifest:
    """The manifest of a file; raises ``DeepError`` that names the file and each wrong key."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)  # nosec B506 # both are safe loaders
        manifest = Manifest.model_validate(data)
    except ValidationError as refused:
        raise _error(path, wrong.explained(refused, Manifest)) from None
    except yaml.YAMLError as broken:
        raise _error(path, wrong.not_yaml(broken)) from None
    except UnicodeDecodeError:
        raise _error(path, "not UTF-8") from None
    except OSError as unreadable:
        raise _error(path, f"cannot be read: {unreadable.strerror}") from None
    if manifest.release != path.stem:
        raise _error(path, f"release: found {manifest.release!r}, needed the name of the file")
    return manifest


def _error(path: Path, message: str) -> DeepError:
    return DeepError(f"{path}: {message}", next_step="correct the file")


def load_all(folder: Path = FOLDER) -> dict[str, Manifest]:
    """Every manifest by its release; raises ``DeepError`` for one that is wrong."""
    return {path.stem: read(path) for path in sorted(folder.glob("*.yml"))}


def find(wanted: str, folder: Path = FOLDER) -> Manifest:
    """The manifest of a release, of a version that is ours to build, or of a file; raises ``DeepError`` for neither."""
    if wanted.endswith((".yml", ".yaml")) or "/" in wanted:
        return read(Path(wanted))
    known = load_all(folder)
    by_version = {one.version: one for one in known.values() if one.build}
    found = known.get(wanted) or by_version.get(wanted)
    if found is None:
        names = [*known, *by_version]
        raise DeepError(
            "no manifest of this release", found=wanted,
            needed=f"one of: {', '.join(difflib.get_close_matches(wanted, names) or names)}",
            next_step="deep release manifests shows them all",
        )  # fmt: skip
    return found
