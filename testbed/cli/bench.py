"""``deep bench``: measure nodes, keep the figures, tell whether they got worse."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipelines.benchmark import backends, engine, export, history, limits, reframe, report, stats
from pipelines.benchmark import compare as comparing
from pipelines.benchmark.model import LONGEST_LIMIT, Device, Plan, Result, Run, Specification, counted, figure
from pipelines.benchmark.store import LATEST, LINES, Series, Store
from pipelines.benchmark.workload import QUICK, WORKLOADS, chosen
from testbed.cli.options import Json
from testbed.console import emit, err
from testbed.errors import INTERRUPTED, DeepError
from testbed.files import write_atomic

app = typer.Typer(no_args_is_help=True)
baseline_app = typer.Typer(no_args_is_help=True, help="What later runs are held against.")
app.add_typer(baseline_app, name="baseline")

LIBRARIES = ("numpy", "ruptures", "scipy")
LOCAL = "local"
Form = Literal["deep", "reframe-perflog", "reframe-report"]
# Where ReFrame keeps its performance logs unless it is told otherwise.
PERFLOGS = "perflogs"
COLOURS = {
    "valid": "green", "no regression": "green", "suspect": "yellow", "inconclusive": "yellow", "invalid": "red",
    "regression": "red",
}  # fmt: skip


def _complete_workload(incomplete: str) -> list[str]:
    names = dict.fromkeys(name for there in WORKLOADS.values() for name in there)
    return [name for name in names if name.startswith(incomplete)]


def _complete_backend(incomplete: str) -> list[str]:
    return [name for name in (LOCAL, *backends.BACKENDS) if name.startswith(incomplete)]


Folder = Annotated[
    Path | None, typer.Option("--store", file_okay=False, help="Folder of the runs. Default: in the state folder.")
]
Reference = Annotated[str, typer.Argument(metavar="RUN", help="An id, its beginning, or 'latest'.")]
Across = Annotated[bool, typer.Option("--across", help="Show figures of different device models side by side.")]
Minimum = Annotated[
    float, typer.Option(min=0.001, max=0.9, help="The least change that matters, relative to before.")
]  # fmt: skip
Level = Annotated[
    float, typer.Option(min=0.0001, max=0.1, help="Likelihood of calling something slower that has not changed.")
]  # fmt: skip
Junit = Annotated[
    Path | None, typer.Option(dir_okay=False, help="Write JUnit's XML there, for continuous integration.")
]
WORKLOAD = typer.Option("--workload", help="One of the workloads.", autocompletion=_complete_workload)
DEVICE = typer.Option("--device", help="A device model, as 'list' and 'history' name it.")
RULE = comparing.Rule()
NOTHING = Text("nothing has been measured yet")


@app.command()
def run(  # pylint: disable=too-many-arguments,too-many-positional-arguments  # they are options
    workloads: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORKLOAD]...", help="All where none is named.", autocompletion=_complete_workload),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few workloads that say most, in minutes.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Steady calls in each process, at least.")] = 30,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=100,
            help="Fresh processes for each workload. To be compared one workload needs "
            f"{stats.fewest(1, RULE.level)}, of thirty each {stats.fewest(30, RULE.level)}.",
        ),
    ] = 8,
    device: Annotated[Device, typer.Option(help="What to measure.")] = "cpu",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs for workloads that use several.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: as many as the process may use.")] = None,
    limit: Annotated[
        float,
        typer.Option(min=1, max=LONGEST_LIMIT, help="Seconds within which a process has to be steady."),
    ] = 120.0,
    label: Annotated[str, typer.Option(help="A word to find the run by, such as a version.")] = "",
    where: Annotated[
        str, typer.Option("--on", help="Where to run it: a back end.", autocompletion=_complete_backend)
    ] = LOCAL,
    options: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="NAME=VALUE", help="A setting of the back end.")
    ] = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Measure workloads here or where a back end runs them, and keep the run; exit status 1 when one has no figure."""
    names = _names(workloads or [], device, quick=quick)
    if device == "cpu" and gpus > 1:
        raise DeepError("--gpus says how many GPUs are used", found="--device cpu", next_step="give --device gpu, too")
    plan = Plan(
        device=device, gpus=gpus, threads=threads, repeats=repeats, processes=processes, limit=limit, label=label
    )  # fmt: skip
    backend = _backend(where, options or [])
    store = _store(folder, new=True)
    store.prepare()
    with _interruptible():
        if backend is None:
            done = engine.run(engine.runnable(names, plan, _progress), plan, _progress)
        else:
            done = backends.run(backend, Specification(workloads=names, plan=plan), _progress)
    store.append(done)
    notes = limits.slowing(done, device)
    data = {"ok": done.ok, "run": done.model_dump(mode="json"), "conditions": notes}
    emit(data, as_json, lambda _: _run_table(done, notes))
    if not done.ok:
        raise typer.Exit(1)


@app.command("list")
def list_runs(folder: Folder = None, as_json: Json = False) -> None:
    """Show the runs there are, the newest first."""
    store = _store(folder)
    data = {"ok": True, "runs": store.runs(), "baselines": store.baselines(), "damaged": store.damaged()}
    emit(data, as_json, _listing)


@app.command()
def compare(  # pylint: disable=too-many-positional-arguments  # they are options: never given by position
    before: Annotated[str, typer.Argument(metavar="A", help="The run before: an id, its beginning, or 'latest'.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The run now.")] = LATEST,
    across: Across = False,
    minimum: Minimum = RULE.minimum,
    level: Level = RULE.level,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Compare run B with run A; shows a verdict, and exits with 0 whatever it is ('gate' does not)."""
    store, rule = _store(folder), comparing.Rule(minimum, level)
    old, new = store.get(before), store.get(after)
    outcomes = comparing.compared(old.results, new.results, rule, across=across)
    data = {"ok": True, "before": old.id, "after": new.id}
    emit(data | comparing.document(outcomes, rule, {old.id: old.machine}, new.machine), as_json, _comparison)


@app.command()
def gate(  # pylint: disable=too-many-positional-arguments  # they are options: never given by position
    reference: Reference = LATEST,
    baseline: Annotated[
        str | None, typer.Option(help="Run to compare with. Default: the baseline of each device model.")
    ] = None,
    allow_inconclusive: Annotated[
        bool, typer.Option("--allow-inconclusive", help="Let through what could not be shown, unless it looks slower.")
    ] = False,
    minimum: Minimum = RULE.minimum,
    level: Level = RULE.level,
    junit: Junit = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Let a run through that is no slower than its baseline; exit status 1 for a slower one and for one not shown."""
    if junit:
        junit.unlink(missing_ok=True)  # that of an earlier call is not to be taken for this one's
    store, rule = _store(folder), comparing.Rule(minimum, level)
    new = store.get(reference)
    old = _held_against(store, new, baseline)
    outcomes = comparing.compared([one for _, one in old], new.results, rule)
    found = comparing.document(outcomes, rule, {run.id: run.machine for run, _ in old}, new.machine)
    ok = comparing.passes(outcomes, lenient=allow_inconclusive)
    if junit:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        write_atomic(junit, export.as_junit(found, created, lenient=allow_inconclusive))
    emit({"ok": ok, "baseline": sorted({run.id for run, _ in old}), "after": new.id} | found, as_json, _comparison)
    if not ok:
        raise typer.Exit(1)


@app.command("history")
def show_history(
    workload: Annotated[str | None, WORKLOAD] = None,
    device: Annotated[str | None, DEVICE] = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Show figures over time, and where a new level begins."""
    store = _store(folder)
    _require_measured(store, workload, device)
    found = store.history(workload, device)
    emit({"ok": True, "series": [_series(one) for one in found]}, as_json, _history_tables)


@app.command("report")
def write_report(
    output: Annotated[Path, typer.Option(dir_okay=False, help="The HTML file to write.")] = Path("benchmarks.html"),
    workload: Annotated[str | None, WORKLOAD] = None,
    device: Annotated[str | None, DEVICE] = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Write one HTML file: latest figures, their history, how the samples lie, the machines."""
    store = _store(folder)
    _require_measured(store, workload, device)
    write_atomic(output, report.render(store, workload, device))
    emit({"ok": True, "report": output}, as_json, lambda data: f"written: {data['report']}")


@app.command("export")
def export_run(  # pylint: disable=too-many-positional-arguments  # they are options: never given by position
    reference: Reference = LATEST,
    form: Annotated[
        Form, typer.Option("--format", help="deep: DEEP's benchmark module; reframe-...: ReFrame 4.10.")
    ] = "deep",
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file to write, for reframe-perflog the folder. Default: standard output, and the folder perflogs."
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="ReFrame's name of the system. Default: the name of the host.")
    ] = None,
    minimum: Minimum = RULE.minimum,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Write a run for other tools.

    deep: a JSON document with the keys of DEEP's benchmark module.

    reframe-report: a JSON document like a run report of ReFrame.

    reframe-perflog: a line for each workload, added to FOLDER/SYSTEM/PARTITION/WORKLOAD.log as ReFrame's default
    format has it.

    ReFrame's references come from the baseline of the device model, their thresholds from --minimum.
    """
    store = _store(folder)
    kept = store.get(reference)
    _require_kind(output, folder=form == "reframe-perflog")
    if form == "reframe-perflog":
        place = output or Path(PERFLOGS)
        lines = reframe.perflog(kept, reframe.references(store, kept, minimum), system)
        data = {"ok": True, "export": place, "files": reframe.append(lines, place, kept.id)}
        emit(data, as_json, _perflogs)
        return
    if form == "reframe-report":
        document = reframe.report(kept, reframe.references(store, kept, minimum), system)
    else:
        document = export.deep(kept)
    if output is None:
        print(export.as_json(document), end="")
        return
    write_atomic(output, export.as_json(document))
    emit({"ok": True, "export": output}, as_json, lambda data: f"written: {data['export']}")


@baseline_app.command("set")
def set_baseline(reference: Reference = LATEST, folder: Folder = None, as_json: Json = False) -> None:
    """Hold later runs on the same device models against this one."""
    store = _store(folder)
    new = store.get(reference)
    devices = store.set_baseline(new)
    emit(
        {"ok": True, "run": new.id, "devices": devices},
        as_json,
        lambda _: f"baseline of {'; '.join(devices)}: {new.id}",
    )


@baseline_app.command("show")
def show_baselines(folder: Folder = None, as_json: Json = False) -> None:
    """Show the baseline of each device model."""
    found = _store(folder).baselines()
    rows = [list(one) for one in found.items()]
    emit({"ok": True, "baselines": found}, as_json, lambda _: _table(["device", "run"], rows))


def _store(folder: Path | None, *, new: bool = False) -> Store:
    """The store, where the libraries are there that its figures are made and judged with.

    One that was named has to be there, unless it may be ``new``.
    """
    lacking = [name for name in LIBRARIES if find_spec(name) is None]
    if lacking:
        raise DeepError(
            "deep bench needs libraries that are not installed", found=f"no {', '.join(lacking)}",
            needed="the extra 'benchmark'", next_step="pip install 'deep-testbed[benchmark]'",
        )  # fmt: skip
    store = Store(folder)
    if folder and not new and not store.exists():
        raise DeepError(
            f"no store at {folder}", found=f"no {LINES} there", needed="a folder that 'deep bench run' has made",
            next_step=f"look for a mistake in --store, or measure into it: deep bench run --store {folder}",
        )  # fmt: skip
    return store


def _require_measured(store: Store, workload: str | None, device: str | None) -> None:
    """Raise ``DeepError`` for a name of which the store has nothing; where it has nothing at all, any will do."""
    measured = store.measured()
    for what, asked, names in (
        ("workload", workload, dict.fromkeys(one for one, _ in measured)),
        ("device model", device, dict.fromkeys(one for _, one in measured)),
    ):
        if asked and names and asked not in names:
            raise DeepError(f"nothing was measured of this {what}", found=asked, needed=f"one of {'; '.join(names)}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM, with which continuous integration ends a build, is Ctrl-C: whoever waits for a process ends it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt as interrupted:
        raise DeepError(
            "interrupted: nothing of this run was kept", next_step="run the same command again", exit_code=INTERRUPTED
        ) from interrupted
    finally:
        signal.signal(signal.SIGTERM, before)


def _names(workloads: list[str], device: Device, *, quick: bool) -> tuple[str, ...]:
    """The workloads that were asked for, none for all."""
    if quick and workloads:
        raise DeepError("--quick names the workloads itself", found=workloads[0], needed=", ".join(QUICK[device]))
    names = QUICK[device] if quick else tuple(workloads)
    chosen(names, device)
    return names


def _backend(where: str, options: list[str]) -> backends.Backend | None:
    """The back end that was named, ``None`` for this machine."""
    pairs = [one.partition("=") for one in options]
    if bad := ["".join(one) for one in pairs if not (one[0] and one[1])]:
        raise DeepError(
            "--option takes a name and a value", found=repr(bad[0]), needed="NAME=VALUE",
            next_step="give it as in --option timeout=600",
        )  # fmt: skip
    if where == LOCAL and options:
        raise DeepError("this machine takes no options", found=options[0], next_step="name a back end with --on")
    if where == LOCAL:
        return None
    if where not in backends.BACKENDS:
        raise DeepError(
            "no such back end", found=where, needed=f"one of {', '.join((LOCAL, *backends.BACKENDS))}",
            next_step="name one with --on; without it this machine is measured",
        )  # fmt: skip
    return backends.load(where, {name: value for name, _, value in pairs})


def _progress(text: str) -> None:
    err.print(text, markup=False)


def _held_against(store: Store, new: Run, baseline: str | None) -> list[tuple[Run, Result]]:
    if baseline is None:
        held = store.baseline_of(new)
    else:
        old = store.get(baseline)
        held = [(old, one) for one in old.results]
    if new.id in {run.id for run, _ in held}:
        raise DeepError(
            "a run is no baseline of its own", found=new.id,
            next_step="measure again, or name another run: deep bench list",
        )  # fmt: skip
    return held


def _series(one: Series) -> dict[str, Any]:
    begins = history.changes([point.median for point in one.points])
    return one._asdict() | {
        "points": [point._asdict() | {"new_level": at in begins} for at, point in enumerate(one.points)]
    }


def _require_kind(output: Path | None, *, folder: bool) -> None:
    """Raise ``DeepError`` where a file is there and a folder is needed, or the other way round."""
    found, needed = ("a file", "a folder") if folder else ("a folder", "a file")
    if output is not None and output.exists() and output.is_dir() != folder:
        raise DeepError(f"--output {output} cannot be written", found=found, needed=needed)


def _perflogs(data: dict[str, Any]) -> str:
    if not data["files"]:
        return f"nothing written: {data['export']} has this run"
    return "\n".join(f"written: {one}" for one in data["files"])


def _run_table(done: Run, notes: list[str]) -> Group:
    rows = []
    for one in done.results:
        figures = ["", ""]
        if one.summary:
            figures = [f"{figure(one.summary.median)} {one.unit}", _interval(one.summary.low, one.summary.high)]
        rows.append([one.workload, *figures, len(one.pooled), _status(one.status), "; ".join(one.reasons)])
    table = _table(["workload", "median", "95 % interval", "calls", "status", "why"], rows)
    device, threads = done.results[0].device, done.results[0].threads
    used = counted(done.gpus, "GPU") if done.machine.kind(device) == "gpu" else counted(threads, "thread")
    what = Text(f"run {done.id}, {device}, {used}")
    if done.submission:
        way = done.submission
        what.append(f"\n{way.backend} {way.job}: began after {way.waited:.1f} s, {way.overhead:.1f} s beside the run")
    return Group(table, what, *(Text(f"may slow it down: {one}", style="yellow") for one in notes))


def _listing(data: dict[str, Any]) -> Group:
    rows = []
    for one in data["runs"]:
        held = "baseline" if one["id"] in data["baselines"].values() else ""
        results = ", ".join(
            f"{name}{'' if status == 'valid' else f' ({status})'}" for name, status in one["results"].items()
        )
        rows.append([one["id"], one["started"][:16], one["host"], one["label"], held, results])
    table = _table(["run", "started", "host", "label", "", "workloads"], rows) if rows else NOTHING
    return Group(table, *(Text(f"left out: {one}", style="yellow") for one in data["damaged"]))


def _comparison(data: dict[str, Any]) -> Group:
    rows = []
    for one in data["outcomes"]:
        figures = [figure(one[name]) if one[name] is not None else "" for name in ("before", "after", "p")]
        rows.append([one["workload"], *figures[:2], one["unit"], figures[2], _status(one["verdict"]), one["reason"]])
    table = _table(["workload", "before", "now", "unit", "p", "verdict", "change, its 95 % interval, or why"], rows)
    return Group(table, *(Text(f"different: {one}") for one in data["differences"]), _status(data["verdict"]))


def _history_tables(data: dict[str, Any]) -> Group:
    tables = []
    for one in data["series"]:
        rows = [_point(point) for point in one["points"]]
        title = f"{one['workload']}, {one['unit']} ({one['device']}; {one['settings']})"
        tables.append(_table(["started", "run", "median", "95 % interval", ""], rows, title))
    return Group(*tables) if tables else Group(NOTHING)


def _point(point: dict[str, Any]) -> list[str]:
    said = point["status"] + (", a new level" if point["new_level"] else "")
    interval = _interval(point["low"], point["high"])
    return [point["started"][:16], point["run"], figure(point["median"]), interval, said]


def _interval(low: float, high: float) -> str:
    return f"{figure(low)} to {figure(high)}"


def _table(columns: list[str], rows: list[list[Any]], title: str | None = None) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return table


def _status(word: str) -> Text:
    return Text(word, style=COLOURS[word])
