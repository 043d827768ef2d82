"""``artifacts/*.yml``: each component declared once, checked here before anything uses it."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, model_validator

from testbed.errors import DeepError
from testbed.paths import repo_root

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
AbsolutePath = Annotated[str, Field(pattern=r"^/[^\s]*[^/\s]$")]
Mode = Annotated[str, Field(pattern=r"^0[0-7]{3}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Url = Annotated[str, Field(pattern=r"^https://[^\s]+$")]
PythonVersion = Annotated[str, Field(pattern=r"^3\.[0-9]+$")]
RelativePath = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")]
VERSION_ELEMENT = re.compile(r"^v[0-9]+$")
# Two habits of naming an architecture in the address of a release.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
RELEASE_ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}


class Strict(BaseModel):
    """A model that refuses keys it does not know and is never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class File(Strict):
    """One file of an artefact: its name in the mirror and, where nodes use it, where it is installed."""

    name: FileName
    dest: AbsolutePath | None = None
    mode: Mode = "0755"
    # A link into the artefact's folder is the rule; a library that tools resolve by its real path is copied.
    copy_file: bool = Field(default=False, alias="copy")
    # Optional files reach a node only when a role asks for them by name.
    optional: bool = False
    # An archive that a node unpacks into this folder of the artefact's own.
    unpack: FileName | None = None


class Upstream(Strict):
    """The official download: one address template for all files, verified by a declared or published hash."""

    url: Url
    checksum_url: Url | None = None
    sha256: dict[FileName, Sha256] = {}
    # The publisher gives no checksum: each site says the hash of what it has looked at, and the store holds nothing.
    checksum_by_site: bool = False
    member: str | None = None
    exercised: bool = False
    note: str = ""

    @model_validator(mode="after")
    def _verifiable(self) -> Upstream:
        if not self.checksum_url and not self.sha256 and not self.checksum_by_site:
            raise ValueError("needs sha256, checksum_url or checksum_by_site: nothing is downloaded unverified")
        return self


class GoBuild(Strict):
    """Commands compiled from the pinned module ``artifacts/go/<module>``."""

    kind: Literal["go"]
    module: FileName
    packages: dict[FileName, str] = Field(min_length=1)
    cgo: bool = False
    ldflags: list[str] = []
    disk: ByteSize

    def output_name(self, file: str) -> str:
        """The name that the compiler gives to the command of ``file``: its last path element that is no version."""
        elements = self.packages[file].split("/")
        return elements[-2] if VERSION_ELEMENT.match(elements[-1]) else elements[-1]


class CObject(Strict):
    """One C program or library: sources relative to the build's directory, and flags."""

    sources: list[str] = Field(min_length=1)
    flags: list[str] = []


class CBuild(Strict):
    """Programs and libraries compiled by the host's C compiler from sources of this repository."""

    kind: Literal["c"]
    directory: str
    flags: list[str] = []
    outputs: dict[FileName, CObject] = Field(min_length=1)
    disk: ByteSize


class RootfsBuild(Strict):
    """A compressed image layer with a few Debian packages, without package manager or documentation."""

    kind: Literal["rootfs"]
    output: FileName
    packages_list: FileName
    suite: FileName
    packages: list[FileName] = Field(min_length=1)
    customise: str
    exclude: list[str] = []
    disk: ByteSize


class Bytecode(Strict):
    """For packages that are a layer of an image: compiled is what importing these modules takes.

    ``layer``: the ``ARTIFACT/FILE`` that is below theirs, with the Python that runs them.
    """

    layer: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    imports: list[Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*$")]] = Field(min_length=1)


class PythonBuild(Strict):
    """Python packages in one folder for each version of Python.

    Wheels by their hash, from ``artifacts/python/<requirements>/requirements.txt``, and packages of this repository.
    """

    kind: Literal["python"]
    requirements: FileName
    pythons: list[PythonVersion] = Field(min_length=1)
    # Of pure Python, where no wheel is published. What they are built with has to be among the requirements.
    from_source: list[FileName] = []
    # Folders of this repository, each a package.
    packages: list[RelativePath] = []
    # Folders and files of this repository that are imported by the path that they have in it.
    paths: list[RelativePath] = []
    # Patterns, as in a shell, of what is left out.
    exclude: list[str] = []
    # Where the packages are in the archive, for one that is a layer of an image.
    folder: RelativePath | None = None
    bytecode: Bytecode | None = None
    disk: ByteSize

    @model_validator(mode="after")
    def _one_place(self) -> PythonBuild:
        if self.bytecode and not (self.folder and len(self.pythons) == 1):
            raise ValueError("bytecode: needs 'folder', and one version in 'pythons'")
        return self


class MavenBuild(Strict):
    """One file of a Maven repository, ``GROUP:ARTIFACT:{version}:PACKAGING``, fetched by Maven and verified."""

    kind: Literal["maven"]
    artifact: Annotated[str, Field(pattern=r"^[\w.-]+:[\w.-]+:[\w.{}-]+:[\w.-]+$")]
    sha256: dict[FileName, Sha256] = Field(min_length=1, max_length=1)
    disk: ByteSize


class Layer(Strict):
    """Either a ready layer of another artefact, or files of other artefacts (``destination: ARTIFACT/FILE``)."""

    layer: str | None = None
    files: dict[AbsolutePath, str] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> Layer:
        if bool(self.layer) == bool(self.files):
            raise ValueError("needs either 'layer' or 'files'")
        return self

    def references(self) -> list[str]:
        """The ``ARTIFACT/FILE`` that this layer is made of."""
        return [self.layer] if self.layer else list(self.files.values())


class Image(Strict):
    """A container image; ``tag`` may name versions of other artefacts: ``v{kubernetes}``."""

    tag: str
    layers: list[Layer] = Field(min_length=1)
    entrypoint: list[str] = []
    command: list[str] = []
    environment: dict[str, str] = {}
    # By number: that it is not root has to be seen without the image's /etc/passwd.
    user: Annotated[str, Field(pattern=r"^[0-9]+:[0-9]+$")] | None = None
    upstream: str | None = None


class ImageBuild(Strict):
    """Container images assembled from other artefacts, one archive each."""

    kind: Literal["image"]
    images: dict[FileName, Image] = Field(min_length=1)
    disk: ByteSize


Build = Annotated[GoBuild | CBuild | RootfsBuild | PythonBuild | MavenBuild | ImageBuild, Field(discriminator="kind")]


class RegistryImage(Strict):
    """An image of its publisher's registry; ``tag`` may name versions of artefacts."""

    tag: str
    upstream: str


class Registry(Strict):
    """Images that hosts pull from their publisher's registry, or from the site's own; the store does not hold them."""

    images: dict[FileName, RegistryImage] = Field(min_length=1)
    exercised: bool = False
    note: str = ""


class Sources(Strict):
    """Where an artefact can come from; ``mirror`` is not declared because every built artefact has it."""

    upstream: Upstream | None = None
    build: Build | None = None
    registry: Registry | None = None
    package: dict[str, list[str]] = {}

    def names(self) -> list[str]:
        """Declared sources, in the order of preference of a production site."""
        return [name for name in ("upstream", "build", "registry", "package") if getattr(self, name)]


class Declaration(Strict):
    """One component: identity, files and sources."""

    name: FileName
    version: Annotated[str, Field(pattern=r"^[0-9][A-Za-z0-9.+~-]*$")]
    licence: str
    homepage: Url
    summary: str
    files: list[File] = []
    sources: Sources

    @model_validator(mode="after")
    def _consistent(self) -> Declaration:
        produced = self._produced()
        declared = {file.name for file in self.files}
        if len(declared) != len(self.files):
            raise ValueError("files: a name is declared twice")
        if produced is not None and produced != declared:
            raise ValueError(f"files: declared {sorted(declared)}, but sources.build makes {sorted(produced)}")
        if self.sources.upstream and self.sources.upstream.checksum_by_site and len(self.files) != 1:
            raise ValueError("files: checksum_by_site is for one file")
        if not self.sources.names():
            raise ValueError("sources: at least one is needed")
        return self

    def _produced(self) -> set[str] | None:
        build = self.sources.build
        produced: set[str] | None = None
        match build:
            case GoBuild():
                produced = set(build.packages)
            case CBuild():
                produced = set(build.outputs)
            case RootfsBuild():
                produced = {build.output, build.packages_list}
            case PythonBuild():
                produced = {python_archive(version) for version in build.pythons}
            case MavenBuild():
                produced = set(build.sha256)
            case ImageBuild():
                produced = {archive_name(name) for name in build.images}
        return produced

    @property
    def stored(self) -> bool:
        """Whether the store can hold it: built, or downloaded and verified."""
        upstream = self.sources.upstream
        return self.sources.build is not None or (upstream is not None and not upstream.checksum_by_site)

    def needs(self) -> list[str]:
        """Names of the artefacts that this one is assembled from."""
        build = self.sources.build
        references: list[str] = []
        if isinstance(build, ImageBuild):
            references = [
                one for image in build.images.values() for layer in image.layers for one in layer.references()
            ]
        elif isinstance(build, PythonBuild) and build.bytecode:
            references = [build.bytecode.layer]
        return sorted({reference.split("/", 1)[0] for reference in references})

    def expand(self, template: str, file: str = "") -> str:
        """``template`` with {version}, {major}, {minor}, {file}, {arch} and {release_arch} filled in."""
        major, _, rest = self.version.partition(".")
        machine = platform.machine()
        return template.format(
            version=self.version,
            major=major,
            minor=rest.split(".")[0],
            file=file,
            arch=ARCHITECTURES.get(machine, machine),
            release_arch=RELEASE_ARCHITECTURES.get(machine, machine),
        )


def archive_name(image: str) -> str:
    """The file that holds a container image."""
    return f"{image}.tar"


def python_archive(version: str) -> str:
    """The file that holds packages for a version of Python."""
    return f"python{version}.tar.gz"


def declarations_dir() -> Path:
    """The folder of the declarations in the checkout."""
    return repo_root() / "artifacts"


def load(path: Path) -> Declaration:
    """Read and check one declaration; ``DeepError`` names the file and each wrong field."""
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and isinstance(data.get("files"), type(None)):
            data = {**data, "files": _image_files(data)}
        declaration = Declaration.model_validate(data)
    except yaml.YAMLError as failure:
        raise DeepError(f"{path}: not YAML: {failure}", next_step="correct the file") from failure
    except ValidationError as failure:
        raise DeepError(f"{path}: {_explain(failure)}", next_step="correct the file") from failure
    if declaration.name != path.stem:
        raise DeepError(
            f"{path}: name: differs from the file's",
            found=declaration.name,
            needed=path.stem,
            next_step="rename one of them",
        )
    return declaration


def _image_files(data: dict[str, Any]) -> list[dict[str, str]]:
    """Image archives are named after the images, so a declaration of images lists no files."""
    build = (data.get("sources") or {}).get("build") or {}
    return [{"name": archive_name(name), "mode": "0644"} for name in build.get("images") or {}]


def _explain(failure: ValidationError) -> str:
    problems = []
    for error in failure.errors():
        where = ".".join(str(part) for part in error["loc"]) or "(whole file)"
        problems.append(f"{where}: {error['msg'].removeprefix('Value error, ')}")
    return "; ".join(problems)


def load_all(directory: Path | None = None) -> dict[str, Declaration]:
    """Every declaration of ``directory`` by name, checked against each other."""
    found = {path.stem: load(path) for path in sorted((directory or declarations_dir()).glob("*.yml"))}
    for declaration in found.values():
        for reference in _references(declaration):
            _check_reference(declaration, reference, found)
    return found


def _references(declaration: Declaration) -> list[str]:
    build = declaration.sources.build
    if not isinstance(build, ImageBuild):
        return []
    return [name for image in build.images.values() for layer in image.layers for name in layer.references()]


def _check_reference(declaration: Declaration, reference: str, found: dict[str, Declaration]) -> None:
    artifact, _, file = reference.partition("/")
    if artifact not in found or file not in {entry.name for entry in found[artifact].files}:
        raise DeepError(
            f"artifacts/{declaration.name}.yml: sources.build.images: no such file of an artefact",
            found=reference,
            needed="ARTIFACT/FILE of another declaration",
            next_step="correct the file",
        )


def in_order(names: list[str], declarations: dict[str, Declaration]) -> list[Declaration]:
    """The declarations of ``names`` (all that the store holds when empty) and what they need, needs first.

    Raises ``DeepError`` for a name without a declaration, for one that the store does not hold, and for needs that go
    in a circle.
    """
    ordered: dict[str, Declaration] = {}
    pending: list[str] = []

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name not in declarations:
            raise DeepError(
                f"no artefact is called {name}",
                needed=f"one of {', '.join(declarations)}",
                next_step="run 'deep artifacts list'",
            )
        if not declarations[name].stored:
            raise DeepError(
                f"the store does not hold {name}",
                found=f"sources {', '.join(declarations[name].sources.names())}",
                needed="something to build, or to download and verify",
                next_step="see 'Sites without a network' in docs/site-admin.md",
            )
        if name in pending:
            raise DeepError(
                f"artifacts/{name}.yml: needs itself",
                found=" -> ".join([*pending, name]),
                next_step="correct the declarations",
            )
        pending.append(name)
        for need in declarations[name].needs():
            visit(need)
        pending.pop()
        ordered[name] = declarations[name]

    for name in names or [name for name, item in declarations.items() if item.stored]:
        visit(name)
    return list(ordered.values())


def image_tag(image: Image | RegistryImage, declarations: dict[str, Declaration]) -> str:
    """The tag of an image, with the versions of the artefacts that it names."""
    return image.tag.format(**{name.replace("-", "_"): entry.version for name, entry in declarations.items()})
