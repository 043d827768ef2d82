"""The commands of ``deep release`` that bring a candidate through the stages."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from testbed.cli.options import Json
from testbed.console import emit, err
from testbed.errors import CHECK_FAILED

if TYPE_CHECKING:
    from pipelines.release.state import State
    from pipelines.release.steps import Release

app = typer.Typer(no_args_is_help=True)


class Stage(StrEnum):
    """The stages, in their order."""

    PREVIEW = "preview"
    TESTING = "testing"
    PRODUCTION = "production"


CandidateFolder = Annotated[
    Path, typer.Argument(metavar="CANDIDATE", help="What deep release build has left.", file_okay=False)
]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="The version of a candidate.")]
StoreFolder = Annotated[
    Path,
    typer.Option("--store", metavar="DIR", help="The store of releases.", envvar="DEEP_RELEASE_STORE", file_okay=False),
]
SigningKey = Annotated[
    str,
    typer.Option(
        "--key", metavar="FINGERPRINT", help="The key that signs the repositories.", envvar="DEEP_RELEASE_KEY"
    ),
]
FormerKeys = Annotated[
    list[str] | None,
    typer.Option("--former-key", metavar="FINGERPRINT", help="One that signed them before; again for more."),
]
BuildKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--build-key", metavar="FINGERPRINT", envvar="DEEP_RELEASE_BUILD_KEY",
        help="A key that signs candidates, or has signed one; again for more. That of the repositories if not given.",
    ),
]  # fmt: skip
GnupgHome = Annotated[
    Path | None,
    typer.Option(
        "--gnupghome", metavar="DIR", help="Where the keys are; gpg's own folder if not given.", envvar="GNUPGHOME"
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The key's passphrase, in a file for its owner alone; else gpg's agent asks."),
]
Root = Annotated[
    Path,
    typer.Option(help="The repository that candidates are built from: its file of signers counts.", file_okay=False),
]
Attestation = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="What deep sqa report --sign has written; CANDIDATE/sqa.intoto.json if not given.",
        exists=True,
        dir_okay=False,
    ),
]
Downgrade = Annotated[bool, typer.Option("--downgrade", help="Also where the stage has a newer version.")]


def _release(
    store: Path, key: str, former: list[str] | None, build: list[str] | None, home: Path | None,
    passphrase: Path | None, root: Path,
) -> Release:  # fmt: skip
    """What the steps work on, by the options of a command."""
    from pipelines.release.evidence import Trust
    from pipelines.release.openpgp import Keyring
    from pipelines.release.steps import Release
    from pipelines.release.store import Store

    keys, build_keys = (
        tuple(one.replace(" ", "").upper() for one in named) for named in ((key, *(former or ())), build or (key,))
    )
    trust = Trust(keyring=Keyring(home, passphrase), keys=keys, build_keys=build_keys, root=root)
    return Release(Store(store), trust, progress=lambda text: err.print(text, markup=False))


@app.command()
def plan(  # pylint: disable=too-many-positional-arguments  # they are options: never given by position
    candidate: CandidateFolder,
    store: StoreFolder,
    key: SigningKey,
    build_keys: BuildKeys = None,
    gnupghome: GnupgHome = None,
    attestation: Attestation = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Show what each step to production would do with a candidate, and why not; nothing is changed."""
    release = _release(store, key, None, build_keys, gnupghome, None, root)
    data = release.plan(candidate, attestation=attestation)
    emit(data, as_json, _planned)
    if not data["ok"]:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def stage(  # pylint: disable=too-many-positional-arguments  # they are options: never given by position
    candidate: CandidateFolder,
    store: StoreFolder,
    key: SigningKey,
    former_keys: FormerKeys = None,
    build_keys: BuildKeys = None,
    gnupghome: GnupgHome = None,
    passphrase_file: PassphraseFile = None,
    attestation: Attestation = None,
    downgrade: Downgrade = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Bring a candidate into preview."""
    release = _release(store, key, former_keys, build_keys, gnupghome, passphrase_file, root)
    state, changed = release.stage(candidate, attestation=attestation, downgrade=downgrade)
    _brought(state, changed, as_json)


@app.command()
def promote(  # pylint: disable=too-many-positional-arguments  # they are options: never given by position
    version: Version,
    to: Annotated[Stage, typer.Argument(metavar="STAGE", help="testing or production.")],
    store: StoreFolder,
    key: SigningKey,
    former_keys: FormerKeys = None,
    build_keys: BuildKeys = None,
    gnupghome: GnupgHome = None,
    passphrase_file: PassphraseFile = None,
    downgrade: Downgrade = False,
    prerelease: Annotated[bool, typer.Option("--prerelease", help="Also what comes before a release.")] = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Bring a version from the stage before into STAGE: the same files, never built again."""
    release = _release(store, key, former_keys, build_keys, gnupghome, passphrase_file, root)
    _brought(*release.promote(version, to.value, downgrade=downgrade, prerelease=prerelease), as_json)


@app.command()
def rollback(  # pylint: disable=too-many-positional-arguments  # they are options: never given by position
    version: Version,
    stage: Annotated[Stage, typer.Argument(metavar="STAGE", help="The stage to bring it back to.")],
    store: StoreFolder,
    key: SigningKey,
    former_keys: FormerKeys = None,
    build_keys: BuildKeys = None,
    gnupghome: GnupgHome = None,
    passphrase_file: PassphraseFile = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Bring back what STAGE had when VERSION was its newest."""
    release = _release(store, key, former_keys, build_keys, gnupghome, passphrase_file, root)
    _brought(*release.rollback(version, stage.value), as_json)


@app.command()
def verify(
    store: StoreFolder,
    key: SigningKey,
    former_keys: FormerKeys = None,
    build_keys: BuildKeys = None,
    gnupghome: GnupgHome = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Look through every stage: keys, signatures, indices, files, and what they were built of."""
    data = _release(store, key, former_keys, build_keys, gnupghome, None, root).verify()
    emit(data, as_json, _verified)
    if not data["ok"]:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def status(store: StoreFolder, as_json: Json = False) -> None:
    """Show which version each stage has, since when and of which commit; end with 1 where one cannot be said."""
    from pipelines.release import steps
    from pipelines.release.store import Store

    data = steps.status(Store(store))
    emit(data, as_json, _status)
    if not data["ok"]:
        raise typer.Exit(CHECK_FAILED)


def _brought(state: State, changed: bool, as_json: bool) -> None:
    data = {
        "ok": True, "changed": changed, "line": state.line, "stage": state.stage, "version": state.version,
        "state": state.name, "suites": state.versions,
    }  # fmt: skip
    said = "is now in" if changed else "was already in"
    emit(data, as_json, lambda _: f"{state.version} {said} {state.line} {state.stage}")


def _planned(data: dict[str, Any]) -> Group:
    lines: list[Any] = [
        _table(
            ["step", "replaces", "does"], [[one["step"], one["replaces"] or "", one["does"]] for one in data["steps"]]
        )
    ]
    lines += [Text(f"{one['stage']}: refused: {why}", style="red") for one in data["steps"] for why in one["refused"]]
    suites = ", ".join(f"{count} packages in {suite}" for suite, count in data["suites"].items())
    return Group(*lines, *_interrupted(data), *([suites] if suites else []))


def _verified(data: dict[str, Any]) -> Group:
    rows = [
        [one["line"], one["stage"], one["version"], Text("whole", "green") if one["ok"] else Text("wrong", "red"),
         ", ".join(f"{count} {what}" for what, count in one["examined"].items())]
        for one in data["stages"]
    ]  # fmt: skip
    lines: list[Any] = [_table(["line", "stage", "version", "", "looked at"], rows)]
    for one in data["stages"]:
        lines += [Text(f"{one['line']} {one['stage']}: {each}", style="red") for each in one["problems"]]
        lines += [Text(f"{one['line']} {one['stage']}: {each}", style="yellow") for each in one["warnings"]]
    lines += [Text(one, style="red") for one in data["problems"]]
    return Group(*lines, *([] if rows else ["nothing was staged yet"]))


def _status(data: dict[str, Any]) -> Group:
    rows = [
        [one["line"], one["stage"], one["version"], one["since"], one["commit"][:12],
         ", ".join(f"{suite} {version}" for suite, version in one["suites"].items())]
        for one in data["stages"]
    ]  # fmt: skip
    table = _table(["line", "stage", "version", "since", "commit", "suites"], rows)
    return Group(table, *(Text(one, style="red") for one in data["problems"]), *_interrupted(data))


def _interrupted(data: dict[str, Any]) -> list[Text]:
    cut = data["interrupted"]
    if cut is None:
        return []
    text = f"{cut['step']} of {cut['state']['version']} to {cut['state']['stage']} was cut short: the next step ends it"
    return [Text(text, style="yellow")]


def _table(columns: list[str], rows: list[list[Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
