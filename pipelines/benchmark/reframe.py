"""A run as ReFrame 4.10 writes its own: lines of its performance logs by their default format, and its JSON report.

Each workload is a test, its settings are the test's parameters, the median is its one performance variable. What
ReFrame has no field for stands in fields that begin with ``bench_``, as loggable variables of a test would.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.benchmark.export import DISTRIBUTION, seconds
from pipelines.benchmark.model import Parameters, Result, Run, Summary
from pipelines.benchmark.store import Store, settings

# Of the report: DATA_VERSION in ReFrame's frontend/reporting.
DATA_VERSION = "4.2"
VARIABLE = "median"
ENVIRONMENT = "builtin"
DELIMITER = "|"
# What ReFrame says of a test that has no such thing, by the names of its fields.
NOTHING = (
    "build_jobid", "build_stderr", "build_stdout", "build_time_limit", "fail_phase", "fail_reason", "job_exitcode",
    "job_stderr", "job_stdout", "max_pending_time", "num_gpus_per_node", "num_tasks_per_core", "num_tasks_per_node",
    "num_tasks_per_socket", "outputdir", "sourcesdir", "stagedir", "time_compile", "time_limit", "time_performance",
    "time_sanity", "time_setup", "time_total", "use_multithreading",
)  # fmt: skip
LISTS = (
    "dependencies_actual", "dependencies_conceptual", "executable_opts", "keep_files", "maintainers", "modules",
    "postbuild_cmds", "postrun_cmds", "prebuild_cmds", "prerun_cmds", "readonly_files", "tags",
)  # fmt: skip
NEUTRAL: dict[str, Any] = {
    **dict.fromkeys(NOTHING), **{name: [] for name in LISTS}, "env_vars": {}, "extra_resources": {}, "variables": {},
    "exclusive_access": False, "fixture": False, "local": False, "build_locally": True, "strict_check": True,
    "prefix": "", "sourcepath": "", "num_tasks": 1, "run_index": 0, "valid_prog_environs": ["*"],
    "valid_systems": ["*"],
}  # fmt: skip
# What a line of a performance log has after result and time, beside parameters and loggable variables.
LOGGED = (
    "descr", "env_vars", "environ", "exclusive_access", "extra_resources", "job_completion_time_unix", "job_exitcode",
    "job_nodelist", "job_submit_time", "jobid", "modules", "name", "num_cpus_per_task", "num_gpus_per_node",
    "num_tasks", "num_tasks_per_core", "num_tasks_per_node", "num_tasks_per_socket", "partition", "perfvalues",
    "short_name", "system", "unique_name", "use_multithreading",
)  # fmt: skip
OWN = "bench_"
RUN = f"{OWN}run"


class Reference(NamedTuple):
    """What a figure is held against: how far below and above it may be, relative to it; nothing: as far as it likes."""

    value: float
    lower: float | None
    upper: float | None

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest figure that it lets pass."""
        low = float("-inf") if self.lower is None else self.value * (1 + self.lower)
        return low, float("inf") if self.upper is None else self.value * (1 + self.upper)


NONE = Reference(0, None, None)


class Line(NamedTuple):
    """One line of a performance log, with the header of its file and the file's place below the folder of logs."""

    path: Path
    header: str
    text: str


def references(store: Store, run: Run, minimum: float) -> dict[str, Reference]:
    """The figures of the baselines of a run by workload, where the same was measured; none where it is the baseline."""
    found, baselines = {}, store.baselines()
    for one in run.results:
        kept = baselines.get(one.device)
        if kept is None or kept == run.id:
            continue
        for held in store.get(kept).results:
            if held.summary and _key(held) == _key(one):
                found[one.workload] = _reference(held.summary.median, one.direction, minimum)
    return found


def report(run: Run, held: Mapping[str, Reference], system: str | None = None) -> dict[str, Any]:
    """The report of a session that ran each workload as a test."""
    cases = [_case(run, index, held.get(one.workload, NONE), system) for index, one in enumerate(run.results)]
    counts = {
        "num_cases": len(cases), "num_failures": sum(case["result"] == "fail" for case in cases), "num_aborted": 0,
        "num_skipped": 0,
    }  # fmt: skip
    version = f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}"
    session = {
        "data_version": DATA_VERSION, "hostname": run.machine.host, "uuid": _session(run),
        "time_start": f"{run.started.astimezone():%Y%m%dT%H%M%S%z}", "time_start_unix": run.started.timestamp(),
        "time_end": f"{run.ended.astimezone():%Y%m%dT%H%M%S%z}", "time_end_unix": run.ended.timestamp(),
        "time_elapsed": (run.ended - run.started).total_seconds(), "cmdline": "deep bench run", "config_files": [],
        "log_files": [], "version": version, RUN: run.id,
        f"{OWN}label": _without_braces(run.label),
    }  # fmt: skip
    return {"session_info": session | counts, "runs": [counts | {"run_index": 0, "testcases": cases}],
            "restored_cases": []}  # fmt: skip


def perflog(run: Run, held: Mapping[str, Reference], system: str | None = None) -> list[Line]:
    """Each workload's line, and where ReFrame puts it: SYSTEM/PARTITION/TEST.log."""
    cases = report(run, held, system)["runs"][0]["testcases"]
    return [_line(case, _parameters(one)) for case, one in zip(cases, run.results, strict=True)]


def append(lines: list[Line], folder: Path, run: str) -> list[Path]:
    """Add lines of a run to the logs below a folder, once; returns the files that have been written to.

    As with ReFrame, a file with other columns is set aside as ``.h0``, ``.h1`` and so on.
    """
    written = []
    for line in lines:
        path = folder / line.path
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if there and there[0] != line.header:
            path.rename(_aside(path))
            there = []
        column = line.header.split(DELIMITER).index(RUN)
        if run in (one.split(DELIMITER)[column] for one in there if one.count(DELIMITER) >= column):
            continue
        with path.open("a", encoding="utf-8") as sink:
            sink.write("".join(f"{one}\n" for one in (*([] if there else [line.header]), line.text)))
        written.append(path)
    return written


def _key(one: Result) -> tuple[str, ...]:
    return one.workload, one.device, one.unit, one.direction, settings(one)


def _reference(value: float, direction: str, minimum: float) -> Reference:
    return Reference(value, -minimum, None) if direction == "higher" else Reference(value, None, minimum)


def _parameters(one: Result) -> Parameters:
    return {"threads": one.threads, **one.parameters}


def _session(run: Run) -> str:
    """The same each time that a run is exported, so that it is one session wherever it is kept."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, run.id))


def _case(run: Run, index: int, held: Reference, system: str | None) -> dict[str, Any]:
    """One test, with the fields of ReFrame's report."""
    one = run.results[index]
    summary = None if one.status == "invalid" else one.summary
    own = _parameters(one)
    name = " ".join([one.workload, *(f"%{key}={value}" for key, value in sorted(own.items()))])
    code = hashlib.sha256(name.encode()).hexdigest()[:8]
    system = _plain(system or run.machine.host)
    partition = run.machine.kind(one.device)
    failure = _failure(one, summary, held)
    return NEUTRAL | own | {
        "name": name, "display_name": name, "unique_name": _plain(name), "short_name": f"{one.workload}_{code}",
        "basename": one.workload, "hashcode": code, "descr": f"{one.workload} on {one.device}",
        "system": system, "partition": partition, "environ": ENVIRONMENT,
        "sysenv": f"{system}:{partition}+{ENVIRONMENT}", "filename": "deep bench", "executable": "deep bench run",
        "scheduler": run.submission.backend if run.submission else "local",
        "jobid": run.submission.job if run.submission else None, "job_nodelist": run.machine.host,
        "job_submit_time": run.started.timestamp(), "job_completion_time_unix": run.ended.timestamp(),
        "job_completion_time": run.ended.astimezone().isoformat(timespec="seconds"),
        "num_cpus_per_task": one.threads,
        "num_gpus_per_node": one.gpus if partition == "gpu" else None,
        "perfvalues": {f"{system}:{partition}:{VARIABLE}": _performance(one, summary, held, failure)},
        "result": "fail" if failure else "pass", "time_run": seconds(one) if summary else None,
        "session_uuid": _session(run),
        "uuid": f"{_session(run)}:0:{index}", RUN: run.id, f"{OWN}label": run.label, f"{OWN}device": one.device,
        f"{OWN}status": one.status, f"{OWN}reason": "; ".join(one.reasons), f"{OWN}calls": len(one.pooled),
        f"{OWN}low": summary.low if summary else None, f"{OWN}high": summary.high if summary else None,
    } | failure  # fmt: skip


def _performance(one: Result, summary: Summary | None, held: Reference, failure: Mapping[str, Any]) -> list[Any]:
    """The performance variable; ReFrame gives no result of one that has no value."""
    value = summary.median if summary else None
    return [value, *held, one.unit, ("fail" if failure else "pass") if summary else None]


def _failure(one: Result, summary: Summary | None, held: Reference) -> dict[str, Any]:
    """Why a test has failed: no figure, one that shows nothing, or one beyond its bounds; empty where it has not."""
    if summary is None:
        return _failed("sanity", "; ".join(one.reasons))
    if one.status == "suspect":
        return _failed("performance", f"suspect: {'; '.join(one.reasons)}")
    low, high = held.bounds
    if low <= summary.median <= high:
        return {}
    found = f"{VARIABLE}={summary.median} {one.unit}, expected {held.value} (l={low}, u={high})"
    return _failed("performance", f"failed to meet reference(s): {found}")


def _failed(phase: str, why: str) -> dict[str, Any]:
    return {
        "fail_phase": phase, "fail_reason": f"{phase} error: {why}", "fail_severe": False,
        "fail_info": {"exc_type": f"{phase.capitalize()}Error", "exc_value": why, "traceback": None},
    }  # fmt: skip


def _line(case: Mapping[str, Any], parameters: Parameters) -> Line:
    """The default format: result and time, then all loggable fields by name, the performance variable among them."""
    names = sorted({*LOGGED, *parameters, *(name for name in case if name.startswith(OWN))})
    ((_, (value, held, lower, upper, unit, _)),) = case["perfvalues"].items()
    header, fields = ["result", "job_completion_time"], [case["result"], case["job_completion_time"][:19]]
    for name in names:
        if name == "perfvalues":
            header += [f"{VARIABLE}_{part}" for part in ("value", "unit", "ref", "lower_thres", "upper_thres")]
            fields += [str(part) for part in (value, unit, held, lower, upper)]
        else:
            header.append(name)
            fields.append(_shown(case[name]))
    path = Path(case["system"], case["partition"], f"{case['basename']}.log")
    return Line(path, DELIMITER.join(header), DELIMITER.join(_one_field(one) for one in fields))


def _shown(value: Any) -> str:
    """A value as ReFrame logs it: text as it is, lists with commas, all else as JSON."""
    if isinstance(value, str):
        return value
    return ",".join(map(_shown, value)) if isinstance(value, list) else json.dumps(value)


def _one_field(text: str) -> str:
    """What cannot be taken for the end of a field or of a line."""
    return " ".join(text.replace(DELIMITER, "/").split())


def _plain(text: str) -> str:
    """A name that ReFrame takes, and that is one part of a path."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def _without_braces(text: str) -> str:
    """ReFrame looks for the end of a session's facts by the first brace that closes."""
    return text.translate({ord("{"): "(", ord("}"): ")"})


def _aside(path: Path) -> Path:
    """The first name that is free for a file that is set aside."""
    at = 0
    while (free := path.with_name(f"{path.name}.h{at}")).exists():
        at += 1
    return free
