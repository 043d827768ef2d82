"""``deep release``: build releases, write their notes, bring them to their users."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table

from pipelines.release import build, candidate, manifest, notes, reproduce
from pipelines.release.openpgp import Keyring
from testbed.artifacts.progress import Display
from testbed.cli import release_state
from testbed.cli.options import Json
from testbed.console import emit
from testbed.errors import CHECK_FAILED, DeepError
from testbed.files import human, write_atomic
from testbed.paths import repo_root

app = typer.Typer(no_args_is_help=True)


class With(StrEnum):
    """What is large and made when somebody asks for it."""

    BUNDLE = "bundle"
    IMAGES = "images"


def _releases(incomplete: str) -> list[str]:
    """Names of releases that begin like this."""
    return [name for name in manifest.load_all() if name.startswith(incomplete)]


Release = Annotated[
    str,
    typer.Argument(
        metavar="RELEASE", help="A release, a version or the file of a manifest.", autocompletion=_releases
    ),
]  # fmt: skip
Root = Annotated[
    Path | None, typer.Option("--root", help="The repository, if not this one.", file_okay=False, exists=True)
]


@app.command("build")
def build_candidate(  # pylint: disable=too-many-positional-arguments  # they are options: never given by position
    release: Release,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the candidate goes; dist/VERSION if not given.")
    ] = None,
    repository_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the stage's repositories will be: makes deephdc-release.",
            envvar="DEEP_RELEASE_URL",
        ),
    ] = None,
    repository_keys: Annotated[
        list[str] | None,
        typer.Option(
            "--repository-key",
            metavar="FINGERPRINT",
            help="A key that signs the repositories, for deephdc-release; again for more; --key if not given.",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="FINGERPRINT", help="OpenPGP key that signs the digests and packages of RPM.")
    ] = None,
    gnupghome: Annotated[
        Path | None, typer.Option(metavar="DIR", help="GnuPG's folder, if not that of the environment.", exists=True)
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The passphrase of the key; gpg's agent asks if not given.")
    ] = None,
    signing_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="OpenSSH key (Ed25519) that signs the provenance.")
    ] = None,
    extras: Annotated[
        list[With] | None, typer.Option("--with", help="Make this too, from the artefact store; again for more.")
    ] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Build a candidate from the commit that is checked out; one that is there and would be the same is kept."""
    with Display() as display:
        built = build.cut(
            root or repo_root(), manifest.find(release), output, url=repository_url,
            extras=[one.value for one in extras or ()], key=key,
            repository_keys=repository_keys or (), keyring=Keyring(gnupghome, passphrase_file),
            signing_key=signing_key, progress=display,
        )  # fmt: skip
    signatures = [name for name in (candidate.SIGNATURE, candidate.PROVENANCE) if (built.folder / name).is_file()]
    data = {
        "ok": True, "folder": str(built.folder), "kept": built.kept, "omitted": built.omitted, "signed": signatures,
        **built.candidate.model_dump(),
    }  # fmt: skip
    emit(data, as_json, _built)


@app.command("reproduce")
def reproduce_candidate(
    folder: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="The folder of a candidate.", exists=True)],
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Build a candidate again under other circumstances; end with 1 unless every file is the same, byte for byte."""
    found = reproduce.reproduce(folder, root or repo_root())
    data = {
        "ok": found.ok,
        "files": [{**asdict(one), "same": one.same} for one in found.files],
        "other_tools": found.tools,
    }
    emit(data, as_json, _compared)
    if not found.ok:
        raise typer.Exit(CHECK_FAILED)


@app.command("notes")
def write_notes(
    releases: Annotated[
        list[str] | None,
        typer.Argument(metavar="RELEASE", help="Releases; all if none is named.", autocompletion=_releases),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where they go.", file_okay=False)] = Path("dist/notes"),
    folder: Annotated[
        Path | None, typer.Option("--candidate", metavar="DIR", help="The build whose files are listed.", exists=True)
    ] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Write notes of releases (Markdown, HTML), their announcements, and an index of them by line."""
    wanted = [manifest.find(one) for one in releases or manifest.load_all()]
    built = candidate.read(folder) if folder else None
    if built and built.release not in [one.release for one in wanted]:
        raise DeepError(
            "the candidate is of another release", found=built.release, needed=f"--candidate of {wanted[0].release}",
            next_step=f"deep release notes {built.release} --candidate {folder}",
        )  # fmt: skip
    made = {"index.html": notes.index(wanted)}
    for one in wanted:
        changes = notes.changelog(root or repo_root(), one) if one.build else {}
        made |= notes.written(one, changes, built if built and built.release == one.release else None)
    for name, text in made.items():
        write_atomic(output / name, text)
    emit({"ok": True, "files": [str(output / name) for name in made]}, as_json, lambda data: "\n".join(data["files"]))


@app.command("manifests")
def check_manifests(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Manifests; those of the project if none is named.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check manifests of releases, and show what each is about; end with 2 where one is wrong."""
    found = [manifest.read(path) for path in files] if files else list(manifest.load_all().values())
    data = {
        "ok": True,
        "manifests": [
            {
                "release": one.release, "line": one.line, "version": one.version, "published": one.build is None,
                "products": len(one.products), "files": [file for _, _, file in one.files()],
                "platforms": list(one.platforms),
            }
            for one in found
        ],
    }  # fmt: skip
    emit(data, as_json, _listed)


def _built(data: dict[str, Any]) -> Group:
    table = Table("product", "file", "size", "SHA-256", box=None, pad_edge=False)
    for one in data["artefacts"]:
        table.add_row(one["product"], one["file"], human(one["size"]), one["sha256"])
    lines: list[Any] = [table]
    lines += [f"left out: {file}, which needs {needs}" for file, needs in data["omitted"].items()]
    lines.append(f"signed: {', '.join(data['signed']) or 'no: --key and --signing-key sign'}")
    what = "kept, nothing has changed" if data["kept"] else "built"
    lines.append(f"{data['release']} {data['version']} of commit {data['commit'][:12]}: {what}: {data['folder']}")
    return Group(*lines)


def _compared(data: dict[str, Any]) -> Group:
    table = Table("file", "same", box=None, pad_edge=False)
    for one in data["files"]:
        table.add_row(one["file"], "yes" if one["same"] else "no")
    lines: list[Any] = [table]
    for one in data["files"]:
        lines += [f"{one['file']}: {difference}" for difference in one["differences"]]
    lines += [f"other tools: {one}" for one in data["other_tools"]]
    lines.append("reproduced" if data["ok"] else "not reproduced")
    return Group(*lines)


def _listed(data: dict[str, Any]) -> Table:
    table = Table("release", "line", "version", "products", "platforms", "files", box=None, pad_edge=False)
    for one in data["manifests"]:
        files = str(len(one["files"])) + (" (published)" if one["published"] else "")
        table.add_row(
            one["release"], one["line"], one["version"], str(one["products"]), ", ".join(one["platforms"]), files
        )
    return table


app.registered_commands += release_state.app.registered_commands
