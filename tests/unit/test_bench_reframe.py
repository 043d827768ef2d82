"""Runs as ReFrame writes its own: the fields of its logs and of its report, and what becomes of figures that fail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmark import reframe
from pipelines.benchmark.model import Result, Submission
from pipelines.benchmark.reframe import NONE, Reference
from pipelines.benchmark.store import Store
from tests.unit.bench_toys import H200, MACHINE, noise, result, run

# The first line of a log of ReFrame 4.10.4's default format, for a test with the parameters size and threads and the
# loggable variables that begin with bench_.
HEADER = (
    "result|job_completion_time|bench_calls|bench_device|bench_high|bench_label|bench_low|bench_reason|bench_run|"
    "bench_status|descr|env_vars|environ|exclusive_access|extra_resources|job_completion_time_unix|job_exitcode|"
    "job_nodelist|job_submit_time|jobid|modules|name|num_cpus_per_task|num_gpus_per_node|num_tasks|"
    "num_tasks_per_core|num_tasks_per_node|num_tasks_per_socket|partition|median_value|median_unit|median_ref|"
    "median_lower_thres|median_upper_thres|short_name|size|system|threads|unique_name|use_multithreading"
)
# What ReFrame's schema of a report wants of a test and of a session.
REQUIRED = (
    "environ", "fail_phase", "fail_reason", "filename", "job_completion_time_unix", "name", "perfvalues", "partition",
    "result", "system", "time_total", "unique_name",
)  # fmt: skip
SESSION = ("data_version", "hostname", "time_elapsed", "time_end_unix", "time_start_unix", "uuid")
LATENCY: dict[str, Any] = {"workload": "launch", "unit": "us", "direction": "lower", "parameters": {}}


@pytest.fixture
def abroad(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host whose clock is five hours behind."""
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def exact(level: float, **changes: Any) -> Result:
    return result(noise(level, scatter=0), **changes)


def invalid(**changes: Any) -> Result:
    """A result above what the device can do: it has samples, and no figure."""
    reasons = {"status": "invalid", "summary": None, "reasons": ("more than | the\ndevice can do",)}
    return exact(123456.0).model_copy(update=reasons | changes)


def case(one: Result, held: Reference = NONE, **changes: Any) -> dict[str, Any]:
    """The only test of a report."""
    ((found,),) = [each["testcases"] for each in reframe.report(run(one, **changes), {one.workload: held})["runs"]]
    assert isinstance(found, dict)
    return found


def fields(one: Result, held: Reference = NONE, **changes: Any) -> dict[str, str]:
    """The only line of a log, by the names of its header."""
    (line,) = reframe.perflog(run(one, **changes), {one.workload: held})
    return dict(zip(line.header.split("|"), line.text.split("|"), strict=True))


def test_a_line_has_the_fields_of_reframes_default_format(abroad: None) -> None:
    (line,) = reframe.perflog(run(exact(100.0), label="x"), {"gemm-fp64": Reference(99.0, -0.02, None)})
    assert line.header == HEADER
    assert line.path == Path("toy/cpu/gemm-fp64.log")
    assert line.text == (
        "pass|2025-12-31T19:02:00|200|Toy, 4 CPUs|100.0|x|100.0||20260101-toy|valid|gemm-fp64 on Toy, 4 CPUs|{}|"
        "builtin|false|{}|1767225720.0|null|toy|1767225600.0|null||gemm-fp64 %size=1024 %threads=4|4|null|1|null|null|"
        "null|cpu|100.0|GFLOP/s|99.0|-0.02|None|gemm-fp64_6a10f0f6|1024|toy|4|gemm-fp64_size_1024_threads_4|null"
    )


def test_a_report_has_what_reframes_schema_asks_for(abroad: None) -> None:
    one = run(exact(100.0), invalid(workload="memory-copy"), label="{x}")
    report = reframe.report(one, {})
    session, (only,) = report["session_info"], report["runs"]
    assert report["restored_cases"] == []
    assert set(SESSION) <= set(session)
    assert [session[name] for name in ("data_version", "hostname", "time_start", "time_elapsed", "bench_run")] == [
        "4.2", "toy", "20251231T190000-0500", 120.0, "20260101-toy",
    ]  # fmt: skip
    for counts in (session, only):
        assert [counts[f"num_{name}"] for name in ("cases", "failures", "aborted", "skipped")] == [2, 1, 0, 0]
    assert all(set(REQUIRED) <= set(each) for each in only["testcases"])
    assert [each["uuid"] for each in only["testcases"]] == [f"{session['uuid']}:0:{at}" for at in range(2)]
    assert reframe.report(one, {})["session_info"]["uuid"] == session["uuid"], "exported again it is the same session"
    facts = json.dumps(session)
    assert facts.index("}") == len(facts) - 1, "ReFrame takes the first brace for the end"


def test_an_invalid_result_is_a_failure_without_a_number() -> None:
    found = case(invalid())
    assert (found["result"], found["fail_phase"]) == ("fail", "sanity")
    assert found["fail_reason"] == "sanity error: more than | the\ndevice can do"
    assert found["fail_info"]["exc_type"] == "SanityError"
    assert list(found["perfvalues"].values()) == [[None, 0, None, None, "GFLOP/s", None]]
    line = fields(invalid())
    assert (line["result"], line["median_value"], line["bench_status"]) == ("fail", "None", "invalid")
    assert line["bench_reason"] == "more than / the device can do"
    assert "123456" not in json.dumps(found) + str(line)
    assert found["time_run"] is None


def test_no_number_is_written_of_an_invalid_result_that_has_one() -> None:
    assert "123456" not in json.dumps(case(exact(123456.0, status="invalid", reasons=("hot",))))


def test_a_suspect_result_is_a_failure_with_its_number_and_the_reason() -> None:
    hot = exact(80.0, status="suspect", reasons=("heat", "power cap"))
    found = case(hot, Reference(80.0, -0.02, None))
    assert (found["result"], found["fail_phase"]) == ("fail", "performance")
    assert found["fail_reason"] == "performance error: suspect: heat; power cap"
    assert list(found["perfvalues"].values()) == [[80.0, 80.0, -0.02, None, "GFLOP/s", "fail"]]
    line = fields(hot)
    assert (line["result"], line["median_value"], line["bench_status"]) == ("fail", "80.0", "suspect")


@pytest.mark.parametrize(
    ("level", "held", "verdict"),
    [
        (98.0, Reference(100.0, -0.02, None), "pass"),
        (97.9, Reference(100.0, -0.02, None), "fail"),
        (900.0, Reference(100.0, -0.02, None), "pass"),
        (102.0, Reference(100.0, None, 0.02), "pass"),
        (102.1, Reference(100.0, None, 0.02), "fail"),
        (1.0, Reference(100.0, None, 0.02), "pass"),
        (1.0, NONE, "pass"),
    ],
)
def test_a_figure_passes_within_its_thresholds(level: float, held: Reference, verdict: str) -> None:
    found = case(exact(level), held)
    assert found["result"] == verdict
    assert list(found["perfvalues"].values()) == [[level, *held, "GFLOP/s", verdict]]
    if verdict == "fail":
        assert found["fail_reason"].startswith(
            f"performance error: failed to meet reference(s): median={level} GFLOP/s, expected 100.0 (l="
        )


def test_references_come_from_the_baseline(tmp_path: Path) -> None:
    store = Store(tmp_path)
    held = run(exact(100.0), exact(5.0, **LATENCY), exact(7.0, workload="memory-copy"), day=1)
    store.append(held)
    store.set_baseline(held)
    now = run(
        exact(90.0), exact(6.0, **LATENCY), exact(7.0, workload="memory-copy", threads=2), exact(1.0, workload="new"),
    )  # fmt: skip
    assert reframe.references(store, now, 0.05) == {
        "gemm-fp64": Reference(100.0, -0.05, None), "launch": Reference(5.0, None, 0.05),
    }  # fmt: skip
    assert reframe.references(store, held, 0.05) == {}, "it is no baseline of its own"
    assert reframe.references(store, run(exact(90.0, device="Other, 2 CPUs")), 0.05) == {}


def test_gpus_and_jobs_of_schedulers_have_the_fields_that_reframe_has_for_them() -> None:
    machine = MACHINE.model_copy(update={"gpus": (H200,), "host": "../node|1"})
    way = Submission(backend="slurm", job="4711", waited=1.0, overhead=2.0)
    one = exact(5000.0, unit="img/s", device="NVIDIA H200", parameters={"processes": 2})
    line = fields(one, machine=machine, submission=way)
    assert [line[name] for name in ("system", "partition", "num_gpus_per_node", "jobid")] == [
        "_node_1",
        "gpu",
        "2",
        "4711",
    ]
    assert case(one, machine=machine, submission=way)["scheduler"] == "slurm"
    assert fields(exact(5000.0, device="NVIDIA H200"), machine=machine)["num_gpus_per_node"] == "1"
    shared: dict[str, Any] = {"parameters": {"processes": 4}}
    assert case(exact(400.0, device="NVIDIA H200", **shared), machine=machine)["num_gpus_per_node"] == 4
    assert case(exact(400.0, **shared), machine=machine)["num_gpus_per_node"] is None
    (there,) = reframe.perflog(run(one, machine=machine), {}, "../../site")
    assert there.path == Path("_site/gpu/gemm-fp64.log")


def test_a_run_is_added_to_the_logs_once(tmp_path: Path) -> None:
    first, second = (run(exact(100.0), exact(5.0, **LATENCY), day=day, label="a|b\nc") for day in (1, 2))
    written = [reframe.append(reframe.perflog(one, {}), tmp_path, one.id) for one in (first, second, first)]
    assert written[0] == [tmp_path / "toy/cpu/gemm-fp64.log", tmp_path / "toy/cpu/launch.log"] == written[1]
    assert written[2] == []
    header, *lines = written[0][0].read_text().splitlines()
    assert header == HEADER
    assert [one.split("|")[header.split("|").index("bench_run")] for one in lines] == [first.id, second.id]


def test_a_log_with_other_columns_is_set_aside(tmp_path: Path) -> None:
    for day, parameters in enumerate(({}, {"size": 1}, {})):
        one = run(exact(100.0, parameters=parameters), day=day)
        reframe.append(reframe.perflog(one, {}), tmp_path, one.id)
    logs = sorted((tmp_path / "toy/cpu").iterdir())
    assert [each.name for each in logs] == [f"gemm-fp64.log{end}" for end in ("", ".h0", ".h1")]
    assert all(len(each.read_text().splitlines()) == 2 for each in logs)
