"""``deep sqa``: hold a repository against published quality standards."""

from __future__ import annotations

import datetime
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sqa import attestation, baseline, gate, standard, tools
from sqa.judgement import Judgement
from sqa.model import Verdict
from sqa.reports import FORMATS
from sqa.wrong import of_type
from testbed.cli.options import Json, SiteName, SiteTestbed, complete_site
from testbed.console import emit, err
from testbed.errors import CHECK_FAILED, DeepError
from testbed.files import write_atomic, write_json

app = typer.Typer(no_args_is_help=True)

ATTESTATION = "sqa.intoto.json"

OfSite = Annotated[
    str | None,
    typer.Option(
        "--site", metavar="SITE", help="What is known of this site, a folder of inventories/, instead of a repository.",
        autocompletion=complete_site,
    ),
]  # fmt: skip
Root = Annotated[Path, typer.Option("--root", help="The repository, or a folder in it.", file_okay=False)]


class Format(StrEnum):
    """The formats of a report."""

    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"
    HTML = "html"
    SQAAAS = "sqaaas"
    BADGE = "badge"


STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_APPLICABLE: "dim",
}


def complete_check(incomplete: str) -> list[str]:
    """Names of checks for the shell's completion."""
    return [name for name in gate.repository(Path.cwd(), plugins=False).checks if name.startswith(incomplete)]


def complete_criterion(incomplete: str) -> list[str]:
    """Ids of criteria for the shell's completion."""
    return [one.id for one in gate.repository(Path.cwd(), plugins=False).criteria if one.id.startswith(incomplete)]


@app.command()
def run(
    criteria: Annotated[
        list[str] | None,
        typer.Option(help="An id or a family (QC.Lic01, QC.Sec); again for more.", autocompletion=complete_criterion),
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(help="One check alone; again for more.", autocompletion=complete_check)
    ] = None,
    changed: Annotated[
        str | None, typer.Option(metavar="BASE", help="Only files that differ from where the branch left BASE.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Checks at a time; as many as there are cores.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write every report there.", file_okay=False)
    ] = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Run the checks, judge the criteria, and end with 1 where the gate holds the tree back."""
    repo = gate.repository(root)
    with _Shown() as shown:
        judged = gate.run(
            repo, criteria=criteria or (), checks=check or (), changed=changed, jobs=jobs, progress=shown.note
        )
    made = gate.document(repo, judged)
    gate.remember(repo, made)
    if output:
        _write(made, output)
    emit(made, as_json, lambda _: _rendered(judged))
    if not judged.ok:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def assess(
    site: SiteName,
    name: SiteTestbed = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write every report there.", file_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold a running site against the service baseline: what can be reached, read, guessed, and how it is deployed."""
    from sqa import assessment  # slow, as are the others that a command imports

    with _Shown() as shown:
        found = assessment.assess(site, name=name, progress=shown.note, quiet=as_json or not err.is_terminal)
    made = {**gate.document(found.repo, found.judgement), "repository": f"site {site}", "suite": found.suite["report"]}
    if output:
        _write(made, output)
    emit(made, as_json, lambda _: _rendered(found.judgement))
    if not found.judgement.ok:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def report(
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Print this one instead of writing them all.", case_sensitive=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to; reports/sqa of the repository.", file_okay=False)
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Attest the run with this Ed25519 key of OpenSSH.", dir_okay=False),
    ] = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Report on the last run over the tree as it is now."""
    repo = gate.repository(root, plugins=False)
    made = gate.last(repo)
    if form and (output or sign):
        raise DeepError("--format prints one report", next_step="leave out --format, or --output and --sign")
    if form:
        print(FORMATS[form.value][1](made), end="")
        return
    from sqa import statement

    if sign:
        gate.refuse_unknown(repo.tree)
    signed = statement.sign(made, sign) if sign else None
    folder = output or repo.root / "reports" / "sqa"
    files = _write(made, folder)
    if signed:
        files.append(folder / ATTESTATION)
        write_json(files[-1], signed)
    emit({"files": [str(file) for file in files]}, as_json, lambda data: "\n".join(data["files"]))


@app.command()
def verify(
    attestation_file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What report --sign has written.", exists=True, dir_okay=False)
    ],
    signers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who may sign; of the tree itself if not given.", exists=True)
    ] = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Show what a signed attestation says; end with 1 unless a signer says that this very tree passed."""
    repo = gate.repository(root, plugins=False)
    gate.refuse_unknown(repo.tree)
    from sqa import statement

    signer, said = statement.verify(_envelope(attestation_file), signers or repo.root / repo.settings.signers)
    digest = said["subject"][0]["digest"]
    about, here = statement.of_repository(said), repo.tree.first_commit
    own = not about or not here or about == here  # an archive of the tree has no history, the tree itself has to do
    same = digest["sha256"] == gate.digest(repo.tree)
    data = {
        "ok": own and same and said["predicate"]["result"] == "PASSED",
        "signer": signer,
        "same_repository": own,
        "same_tree": same,
        "tree": digest["sha256"],
        "commit": digest.get("gitCommit"),
        **{name: said["predicate"][name] for name in ("result", "badge", "gate", "created", "waivers")},
    }
    emit(data, as_json, lambda _: _verified(data))
    if not data["ok"]:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def explain(
    identifier: Annotated[str, typer.Argument(metavar="ID", autocompletion=complete_criterion)],
    site: OfSite = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Say what a criterion asks for, what would show it, and how it is met here."""
    repo = _of(site, root, plugins=False)
    criterion = standard.find(identifier)
    further = [one.check.name for one in repo.checks.values() if criterion.id in one.check.criteria]
    data = {**criterion.model_dump(), "family": criterion.family, "checks": [*criterion.checks, *further]}
    data["not_applicable"] = repo.settings.not_applicable.get(criterion.id)
    word = attestation.load(repo.place, repo.settings).get(criterion.id)
    data["attested"] = word and {
        "signer": word.signer, "expires": word.expires, "expired": word.expires < gate.today(),
        "beside_checks": bool(data["checks"]),
    }  # fmt: skip
    data["waivers"] = [one.id for one in repo.settings.waivers if one.criterion == criterion.id]
    emit(data, as_json, lambda _: _explained(data))


@app.command()
def waive(  # pylint: disable=too-many-positional-arguments  # they are options: never given by position
    name: Annotated[str, typer.Option("--id", help="A name for the waiver.")],
    reason: Annotated[str, typer.Option(help="Why it is accepted.")],
    owner: Annotated[str, typer.Option(help="The role that answers for it.")],
    expires: Annotated[datetime.datetime, typer.Option(formats=["%Y-%m-%d"], help="The last day on which it counts.")],
    criterion: Annotated[
        str | None, typer.Option(help="The criterion that is not met.", autocompletion=complete_criterion)
    ] = None,
    check: Annotated[
        str | None, typer.Option(help="Or the check whose findings are accepted.", autocompletion=complete_check)
    ] = None,
    rule: Annotated[str | None, typer.Option(help="Only those of this rule.")] = None,
    path: Annotated[str | None, typer.Option(help="Only those in files that this pattern matches.")] = None,
    site: OfSite = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Accept a defect or an unmet criterion for a time: writes it into sqa.yml, or into .sqa.yml of a site."""
    repo = _of(site, root)
    made = gate.waiver(
        repo, id=name, reason=reason, owner=owner, expires=expires.date(), criterion=criterion, check=check, rule=rule,
        path=path,
    )  # fmt: skip
    emit(made.model_dump(), as_json, lambda _: f"{repo.settings_file}: waiver {made.id} until {made.expires}")


@app.command()
def attest(
    criterion: Annotated[str, typer.Argument(metavar="ID", autocompletion=complete_criterion)],
    words: Annotated[str, typer.Option("--statement", help="What was seen, and where.")],
    signer: Annotated[str, typer.Option(help="Who says so, as the file of signers names them.")],
    key: Annotated[Path, typer.Option(help="Their SSH key.", dir_okay=False)],
    expires: Annotated[datetime.datetime, typer.Option(formats=["%Y-%m-%d"], help="The last day on which it counts.")],
    site: OfSite = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Say, signed and for a time, that a criterion is met that no machine can judge."""
    repo = _of(site, root, plugins=False)
    path = gate.attest(repo, criterion, words, signer, expires.date(), key)
    emit({"file": str(path)}, as_json, lambda _: f"{path}\n{path}.sig")


@app.command("baseline")
def take_baseline(root: Root = Path(), jobs: int | None = None, as_json: Json = False) -> None:
    """Run the checks and take what they find now for known: only what is new counts from here on."""
    repo = gate.repository(root)
    with _Shown() as shown:
        judged = gate.run(repo, jobs=jobs, progress=shown.note)
    path = repo.root / repo.settings.baseline
    found = [one for outcome in judged.outcomes for one in outcome.findings]
    count = baseline.write(path, found)
    emit({"file": str(path), "findings": count}, as_json, lambda _: f"{path}: {count} findings are known")


@app.command()
def badge(
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the picture there.", dir_okay=False)
    ] = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Show the badge that the last run reached, and what each further one needs."""
    made = gate.last(gate.repository(root, plugins=False))
    if not made["complete"]:
        raise DeepError("the last run was over a part, which reaches no badge", next_step="deep sqa run")
    if output:
        write_atomic(output, FORMATS["badge"][1](made))
    data = {"badge": made["badge"], "badges": made["badges"]}
    rows = [[name, ", ".join(one["missing"]) or "nothing"] for name, one in made["badges"].items()]
    emit(data, as_json, lambda _: Group(f"badge: {made['badge']}", _table(["badge", "missing"], rows)))


@app.command()
def init(root: Root = Path(), as_json: Json = False) -> None:
    """Begin to hold a repository against a standard: writes a sqa.yml to go on from."""
    path = gate.begin(gate.top(root.resolve()))
    emit({"file": str(path)}, as_json, lambda _: f"{path}\nnext: deep sqa run --root {path.parent}")


@app.command("tools")
def list_tools(
    install: Annotated[bool, typer.Option("--install", help="Install those that are missing.")] = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Show the tools that the checks run, each pinned in an environment of its own."""
    from sqa import assessment

    found = {one.tool.name: one.tool for one in gate.repository(root).checks.values() if one.tool}
    found |= {name: tools.tool(name) for name in assessment.TOOLS}
    found = dict(sorted(found.items()))
    for tool in found.values() if install else ():
        if not tool.installed:
            err.print(f"installing {tool.version}")
            tools.install(tool)
    data = [{"tool": one.version, "installed": one.installed, "folder": str(one.folder)} for one in found.values()]
    emit(
        {"tools": data},
        as_json,
        lambda _: _table(
            ["tool", "installed", "folder"], [[one["tool"], _yes(one["installed"]), one["folder"]] for one in data]
        ),
    )


def _of(site: str | None, root: Path, *, plugins: bool = True) -> gate.Repository:
    """The repository that is meant, or what is known of one of the sites that it deploys."""
    if site is None:
        return gate.repository(root, plugins=plugins)
    if root != Path():
        raise DeepError(
            "--site is of this repository, --root of another", found=str(root), next_step="leave out --site or --root"
        )
    from sqa import assessment

    return assessment.repository(site)


def _write(made: dict[str, Any], folder: Path) -> list[Path]:
    write_atomic(folder / ".gitignore", "*\n")  # a report is no part of the tree that it is about
    files = [folder / name for name, _ in FORMATS.values()]
    for file, (_, render) in zip(files, FORMATS.values(), strict=True):
        write_atomic(file, render(made))
    return files


def _envelope(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as broken:
        raise _no_envelope(path, f"no JSON: {broken}") from broken
    if not isinstance(read, dict):
        raise _no_envelope(path, of_type(read, dict).partition(",")[0].removeprefix("found "))
    return read


def _no_envelope(path: Path, found: str) -> DeepError:
    return DeepError(
        f"{path}: not an attestation", found=found, needed="a DSSE envelope", next_step="deep sqa report --sign KEY"
    )


def _verified(data: dict[str, Any]) -> str:
    about = "this tree" if data["same_tree"] else f"another tree (commit {data['commit']}, tree {data['tree'][:16]})"
    about += "" if data["same_repository"] else " of another repository"
    waivers = f", {len(data['waivers'])} waivers" if data["waivers"] else ""
    said = f"{data['signer']} on {data['created']}: {data['result']}, badge {data['badge']}{waivers}, about {about}"
    return f"{'accepted' if data['ok'] else 'refused'}: {said}"


def _explained(data: dict[str, Any]) -> Group:
    lines: list[Any] = [
        Text(f"{data['id']} {data['title']}", style="bold"),
        f"level: {data['level']}" + (" (its parent's)" if data["inherited"] else ""),
        f"shown by: {data['evidence']}",
        f"checks: {', '.join(data['checks']) or 'none: it is attested by people, or does not apply'}",
    ]
    if data["note"]:
        lines.append(f"note: {data['note']}")
    if data["not_applicable"]:
        lines.append(f"not applicable here: {data['not_applicable']}")
    if data["attested"]:
        lines.append(_attested(data["attested"]))
    if data["waivers"]:
        lines.append(f"waivers: {', '.join(data['waivers'])}")
    return Group(*lines)


def _attested(word: dict[str, Any]) -> str:
    ends = f"expired on {word['expires']}" if word["expired"] else f"until {word['expires']}"
    beside = "; it does not count beside checks that have something to look at" if word["beside_checks"] else ""
    return f"attested here by {word['signer']}, {ends}{beside}"


class _Shown:
    """Progress on a terminal: how many checks have ended, and which are at work."""

    def __init__(self) -> None:
        self._working: dict[str, str] = {}
        self._ended = 0
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=err, transient=True, disable=not err.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("checks", total=None)

    def __enter__(self) -> _Shown:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, check: str, what: str) -> None:
        """A check begins, installs its tool, or ends."""
        if what == "ends":
            self._working.pop(check, None)
            self._ended += 1
        else:
            self._working[check] = check if what == "begins" else f"{check} (installs its tool)"
        self._progress.update(
            self._task, completed=self._ended, description=", ".join(self._working.values()) or "checks"
        )


def _rendered(judged: Judgement) -> Group:
    lines: list[Any] = [_findings(judged), _outcomes(judged)]
    if not judged.partial:
        lines.append(_criteria(judged))
    lines += [Text(f"held back: {one}", style="red") for one in judged.obstacles]
    lines += [Text(f"waiver {one} covers nothing; remove it", style="yellow") for one in judged.unused]
    badge = f", badge: {judged.badge}" if judged.complete else ""
    lines.append(
        Text(f"{'passed' if judged.ok else 'held back'}{badge}", style="bold green" if judged.ok else "bold red")
    )
    return Group(*lines)


def _findings(judged: Judgement) -> Text:
    text = Text()
    for one in judged.open_findings:
        place = f"{one.path or '(whole tree)'}{f':{one.line}' if one.line else ''}"
        text.append(f"{place}: {one.check} {one.rule}: {one.message}\n")
    return text


def _outcomes(judged: Judgement) -> Table:
    rows = []
    for one in judged.outcomes:
        accepted = sum(each.fingerprint in judged.accepted for each in one.findings)
        found = f"{len(one.findings)}{f' ({accepted} accepted)' if accepted else ''}" if one.findings else ""
        work = f"{one.examined} of {one.selected} {one.unit}" if one.examined else ""
        more = ", ".join(f"{value} {name}" for name, value in sorted(one.work.items()))
        rows.append([
            one.check, Text(one.verdict.value, style=STYLES[one.verdict]), found,
            ", ".join(filter(None, [work, more, *one.reasons])), "known" if one.cached else f"{one.seconds:.1f} s",
        ])  # fmt: skip
    return _table(["check", "verdict", "findings", "looked at", "time"], rows)


def _criteria(judged: Judgement) -> Table:
    shown = [one for one in judged.criteria if one.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)]
    rows = [
        [
            one.criterion.id, one.criterion.level, Text(one.verdict.value, style=STYLES[one.verdict]),
            one.criterion.title, f"waiver {one.waiver}" if one.waiver else one.why,
        ]
        for one in shown
    ]  # fmt: skip
    columns = ["criterion", "level", "verdict", "what it asks", "why"] if rows else []
    met = sum(one.met for one in judged.criteria)
    return _table(columns, rows, f"{met} of {len(judged.criteria)} criteria met")


def _table(columns: list[str], rows: list[list[Any]], caption: str | None = None) -> Table:
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _yes(value: object) -> str:
    return "yes" if value else "no"
