"""What makes the files of a release: one function for each kind, from an export of the commit."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from pipelines.release import archives, source
from pipelines.release.manifest import Declared, Manifest, Product
from sqa import sbom
from testbed.artifacts import api
from testbed.errors import CHECK_FAILED, DeepError
from testbed.files import write_atomic

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).resolve().parent / "packages"


@dataclass(frozen=True)
class Workshop:
    """Where a release is built: ``source`` is the export, ``files`` gets the artefacts, ``work`` is thrown away.

    ``url`` is the repository's address; ``keys`` are those that hosts get (armoured), by kind of package.
    """

    manifest: Manifest
    epoch: int
    source: Path
    files: Path
    work: Path
    url: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)

    def run(self, *argv: str | Path, folder: Path | None = None) -> None:
        """Run a program of the build; see :func:`pipelines.release.source.run`."""
        source.run(list(argv), folder or self.source, self.epoch, self.work)

    def declared(self, kind: str) -> list[Declared]:
        """The manifest's artefacts of a kind."""
        return [one for _, one, _ in self.manifest.files() if one.kind == kind]

    def made(self, declared: Declared) -> Path:
        """The file of an artefact; raises ``DeepError`` where the build has called it otherwise."""
        path = self.files / self.manifest.expand(declared)
        if not path.is_file():
            raise DeepError(
                f"the build makes no {path.name}", found=", ".join(sorted(one.name for one in self.files.iterdir())),
                needed="files as the manifest calls them", next_step="correct the manifest", exit_code=CHECK_FAILED,
            )  # fmt: skip
        return path


def program(name: str) -> Path:
    """A program that is installed beside this Python."""
    return Path(sys.executable).parent / name


def templates(folder: Path) -> Environment:
    """The templates of a folder; a name that nobody gave a value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape  # slow, and rarely needed

    return Environment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=select_autoescape(["html.j2"]),
    )  # fmt: skip


def collection(shop: Workshop, _: Product, declared: Declared) -> None:
    """The collection, as ansible-galaxy makes it."""
    shop.run(program("ansible-galaxy"), "collection", "build", "--output-path", shop.files)
    archives.repack_collection(shop.made(declared), shop.epoch)


def python(shop: Workshop, _: Product, __: Declared) -> None:
    """The wheel and the source archive that it is built from."""
    folder = shop.work / "python"  # setuptools leaves files where it builds
    shutil.copytree(shop.source, folder, symlinks=True)
    shop.run(sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", shop.files, ".", folder=folder)
    for one in shop.declared("sdist"):
        archives.repack(shop.made(one), shop.epoch)


def package(shop: Workshop, product: Product, declared: Declared) -> None:
    """A deb or rpm, by nfpm, from its description in packages/; raises ``DeepError`` where nfpm refuses."""
    folder = shop.work / f"{product.name}-{declared.kind}-{declared.platform}"
    folder.mkdir()
    (folder / "source").symlink_to(shop.source)
    words = _words(shop, declared)
    if declared.needs == "repository":
        write_atomic(folder / "key.asc", shop.keys[declared.kind])
        for name in ("deephdc.sources", "deephdc.pref", "deephdc.repo"):
            write_atomic(folder / name, _render(f"{name}.j2", words))
    else:
        for one in shop.declared("collection"):
            with tarfile.open(shop.made(one)) as archive:
                archive.extractall(folder / "collection", filter="data")
    archives.settle(folder, shop.epoch)
    write_atomic(folder / "nfpm.yml", _render(f"{product.name}.yml.j2", words))
    target = shop.files / shop.manifest.expand(declared)
    shop.run(
        program("nfpm"), "package", "--config", "nfpm.yml", "--packager", declared.kind, "--target", target,
        folder=folder,
    )  # fmt: skip


def _words(shop: Workshop, declared: Declared) -> dict[str, Any]:
    manifest = shop.manifest
    runtime = yaml.safe_load((shop.source / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    galaxy = yaml.safe_load((shop.source / "galaxy.yml").read_text(encoding="utf-8"))
    return {
        **(manifest.build.model_dump() if manifest.build else {}),
        "ansible": str(runtime["requires_ansible"]).removeprefix(">="),
        "host": urlsplit(shop.url or "").hostname,
        "maintainer": galaxy["authors"][0],
        "packager": declared.kind,
        "platform": declared.platform,
        "platform_title": manifest.platforms[declared.platform].title if declared.platform else None,
        "time": datetime.fromtimestamp(shop.epoch, UTC).isoformat(),
        "title": manifest.title,
        "url": f"{shop.url}/{manifest.line}/{declared.platform}",
        "version": manifest.package,
    }


def _render(name: str, words: dict[str, Any]) -> str:
    return templates(TEMPLATES).get_template(name).render(words)


def bill(shop: Workshop, _: Product, declared: Declared) -> None:
    """The bill of materials (CycloneDX) of what the command line needs, by the pins of its requirement file."""
    target = shop.files / shop.manifest.expand(declared)
    sbom.write(shop.source / "requirements" / "dev.txt", target)
    made = json.loads(target.read_text(encoding="utf-8"))
    reference = f"pkg:pypi/deep-testbed@{shop.manifest.version}"
    made["metadata"]["component"] = {
        "bom-ref": reference, "name": "deep-testbed", "purl": reference, "type": "application",
        "version": shop.manifest.version,
    }  # fmt: skip
    write_atomic(target, json.dumps(made, indent=2, sort_keys=True) + "\n")


def bundle(shop: Workshop, _: Product, declared: Declared) -> None:
    """Everything for a site without a network: artefacts of the store, the collection, the pins of Python packages.

    ``artefacts/`` in it is what ``deep artifacts verify --bundle`` knows.
    """
    folder = shop.work / "bundle"
    api.make_bundle(folder / "artefacts")
    shutil.copytree(shop.source / "requirements", folder / "requirements")
    for one in shop.declared("collection"):
        shutil.copy(shop.made(one), folder)
    archives.tar(folder, shop.files / shop.manifest.expand(declared), shop.epoch)


def image(shop: Workshop, _: Product, declared: Declared) -> None:
    """An image of a module, from the store, where it is built if it is not there."""
    api.ensure(["modules"])
    name = shop.manifest.expand(declared)
    built = name.removesuffix(f"-{shop.manifest.version}.tar") + ".tar"
    shutil.copy(api.mirror_dir() / "modules" / api.version("modules") / built, shop.files / name)


# In this order: packages hold the collection. A source archive is made with its wheel.
MAKERS: dict[str, Callable[[Workshop, Product, Declared], None]] = {
    "collection": collection,
    "wheel": python,
    "deb": package,
    "rpm": package,
    "sbom": bill,
    "image": image,
    "bundle": bundle,
}
