"""``deep bench`` as its users call it, what it writes, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipelines.benchmark import axes, engine, export, report
from pipelines.benchmark.machine import conditions
from pipelines.benchmark.model import Device, Plan, Result
from pipelines.benchmark.store import Store
from pipelines.benchmark.workload import QUICK, training
from testbed.cli import bench as cli
from testbed.errors import INTERRUPTED, WRONG_USAGE, DeepError
from testbed.paths import repo_root
from tests.unit.bench_toys import H200, MACHINE, noise, result, run
from tests.unit.container_programs import wait_until

NASTY = "<script>alert('x')</script> \x0b &"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store that the commands use where none is named, with a baseline and a later run as fast as it."""
    monkeypatch.setenv("DEEP_STATE_DIR", str(tmp_path))
    kept = Store()
    kept.append(run(day=1, label="first"))
    kept.append(run(result(noise(100.0, seed=5)), day=2))
    return kept


def call(*arguments: str, code: int = 0) -> str:
    """What a command writes to standard output, having ended with this exit status."""
    done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def answer(*arguments: str, code: int = 0) -> Any:
    return json.loads(call(*arguments, "--json", code=code))


def invalid(**changes: Any) -> Result:
    """A result without a figure."""
    return result(noise(1.0)).model_copy(update={"status": "invalid", "samples": (), "summary": None} | changes)


def slower(store: Store, level: float = 90.0, day: int = 3) -> None:
    store.append(run(result(noise(level, seed=3)), day=day))


def test_run_keeps_what_was_measured(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def instead(places: Any, plan: Plan, note: Any) -> Any:
        asked.append((places, plan))
        return run(day=5, label=plan.label)

    monkeypatch.setattr(engine, "run", instead)
    data = answer("run", "gemm-fp64", "--label", "new", "--threads", "2", "--repeats", "40")
    assert (data["ok"], data["run"]["id"], data["conditions"]) == (True, "20260106-toy", [])
    assert store.get("latest").label == "new"
    places, plan = asked[0]
    assert list(places) == ["gemm-fp64"]
    assert (plan.threads, plan.repeats, plan.processes) == (2, 40, 8)
    assert "gemm-fp64" in call("run")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_quick_is_a_few_that_there_are(store: Store, monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    monkeypatch.setattr(engine, "runnable", lambda names, *_: pytest.fail(", ".join(names)))
    with pytest.raises(pytest.fail.Exception, match="^" + ", ".join(QUICK[device])):
        call("run", "--quick", "--device", device)
    with pytest.raises(DeepError, match=r"--quick names the workloads itself \(found: gemm-fp64"):
        call("run", "--quick", "gemm-fp64")


def test_run_without_a_figure_fails_and_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = run(invalid(reasons=("not steady within 1 s",)), day=6)
    monkeypatch.setattr(engine, "run", lambda *_: broken)
    assert "not steady within 1 s" in call("run", code=1)
    assert store.runs()[0]["ok"] is False


def test_run_refuses_before_it_measures(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run", lambda *_: pytest.fail("it measured"))
    with pytest.raises(DeepError, match="no such workload"):
        call("run", "gemm-fp65")
    with pytest.raises(DeepError, match=r"how many GPUs .*found: --device cpu"):
        call("run", "--gpus", "2")
    for option in (
        ("--repeats", "0"),
        ("--processes", "0"),
        ("--threads", "0"),
        *(("--limit", limit) for limit in ("none", "nan", "inf", "1e300")),
    ):
        call("run", *option, code=2)


def test_list_names_runs_baseline_and_what_is_damaged(store: Store) -> None:
    answer("baseline", "set", "20260102-toy")
    with store.lines.open("ab") as sink:
        sink.write(b"half a line\n")
    data = answer("list")
    assert [one["id"] for one in data["runs"]] == ["20260103-toy", "20260102-toy"]
    assert data["baselines"] == answer("baseline", "show")["baselines"] == {"Toy, 4 CPUs": "20260102-toy"}
    assert len(data["damaged"]) == 1
    shown = call("list")
    assert "left out" in shown
    assert "first" in shown


def test_compare_tells_and_does_not_judge(store: Store) -> None:
    slower(store)
    data = answer("compare", "20260102-toy")
    assert (data["before"], data["after"], data["verdict"]) == ("20260102-toy", "20260104-toy", "regression")
    assert "regression" in call("compare", "20260102", "20260104")
    assert answer("compare", "20260102", "20260104", "--minimum", "0.5")["verdict"] == "no regression"
    with pytest.raises(DeepError, match="no run 'gone'"):
        call("compare", "gone")


def test_the_gate_lets_through_what_is_not_slower(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DeepError, match="no baseline"):
        call("gate")
    answer("baseline", "set", "20260102-toy")
    assert answer("gate", "--junit", str(tmp_path / "junit.xml"))["ok"] is True
    suite = ET.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "0")


def test_the_gate_holds_back_what_is_slower(store: Store, tmp_path: Path) -> None:
    slower(store)
    data = answer("gate", "--baseline", "20260102", "--junit", str(tmp_path / "junit.xml"), code=1)
    assert (data["ok"], data["baseline"]) == (False, ["20260102-toy"])
    failure = ET.parse(tmp_path / "junit.xml").getroot().find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.get("message", "").startswith("regression: -10")
    answer("gate", "--baseline", "20260102", "--allow-inconclusive", code=1)


def test_the_gate_holds_back_what_was_not_shown_unless_told_otherwise(store: Store, tmp_path: Path) -> None:
    store.append(run(result(noise(100.0, scatter=0.4, seed=2)), day=4))
    xml = ("--junit", str(tmp_path / "junit.xml"))
    assert answer("gate", "--baseline", "20260102", *xml, code=1)["verdict"] == "inconclusive"
    assert ET.parse(tmp_path / "junit.xml").getroot()[0].get("errors") == "1"
    assert answer("gate", "--baseline", "20260102", "--allow-inconclusive", *xml)["ok"] is True
    assert ET.parse(tmp_path / "junit.xml").getroot()[0].get("skipped") == "1"


def test_the_gate_never_lets_through_what_looks_slower(store: Store, tmp_path: Path) -> None:
    few = {"processes": 4}
    for day, level in ((5, 100.0), (6, 50.0)):
        store.append(run(result(noise(level, seed=day, **few)), day=day))
    words = ("gate", "--baseline", "20260106", "--allow-inconclusive", "--junit", str(tmp_path / "junit.xml"))
    data = answer(*words, code=1)
    assert (data["ok"], data["verdict"], data["outcomes"][0]["worse"]) == (False, "inconclusive", True)
    error = ET.parse(tmp_path / "junit.xml").getroot().find("testsuite/testcase/error")
    assert error is not None
    assert "it looks slower: -50" in error.get("message", "")


@pytest.mark.parametrize("words", [(), ("--store", "/nowhere"), ("--baseline", "gone")])
def test_verdicts_of_an_earlier_gate_are_not_left(store: Store, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "junit.xml").write_text("<testsuites/>")
    with pytest.raises(DeepError):
        call("gate", *words, "--junit", str(tmp_path / "junit.xml"))
    assert not (tmp_path / "junit.xml").exists()


def test_a_run_that_is_interrupted_is_told_to_have_kept_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run", lambda *_: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(DeepError, match="interrupted: nothing of this run was kept") as told:
        call("run", "gemm-fp64")
    assert told.value.exit_code == INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(store.runs()) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_measures(tmp_path: Path, number: signal.Signals) -> None:
    """The real command and its real process, which would call a product for ever so long."""
    code = (
        "import signal, sys; from testbed.cli import main\n"
        # Whoever runs the tests in the background may have it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.argv = ['deep', 'bench', 'run', 'gemm-fp64', '--repeats', '100000000', '--limit', '600', '--json']\n"
        "main()"
    )
    environment = os.environ | {"PYTHONPATH": str(repo_root()), "DEEP_STATE_DIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as measuring:
        assert measuring.stderr is not None
        assert measuring.stderr.readline() == "gemm-fp64, process 1 of 8\n"
        children = Path(f"/proc/{measuring.pid}/task/{measuring.pid}/children")
        wait_until(lambda: bool(children.read_text(encoding="ascii")))
        worker = int(children.read_text(encoding="ascii").split()[0])
        measuring.send_signal(number)
        try:
            said = json.loads(measuring.communicate(timeout=60)[0])
        finally:
            measuring.kill()
    assert (measuring.returncode, said["error"]["message"]) == (130, "interrupted: nothing of this run was kept")
    wait_until(lambda: not Path(f"/proc/{worker}").exists())


def test_a_run_is_no_baseline_of_its_own(store: Store) -> None:
    answer("baseline", "set", "latest")
    for words in ((), ("latest", "--baseline", "latest")):
        with pytest.raises(DeepError, match="no baseline of its own"):
            call("gate", *words)


def test_history_shows_where_a_new_level_begins(store: Store) -> None:
    for day in range(3, 16):
        slower(store, 100.0 + day % 3 / 10 if day < 9 else 90.0 + day % 3 / 10, day)
    (series,) = answer("history", "--workload", "gemm-fp64")["series"]
    assert [point["run"] for point in series["points"] if point["new_level"]] == ["20260110-toy"]
    assert "a new level" in call("history")


@pytest.mark.parametrize("command", ["history", "report"])
def test_a_name_of_which_there_is_nothing_is_refused(store: Store, tmp_path: Path, command: str) -> None:
    output = ("--output", str(tmp_path / "report.html")) if command == "report" else ()
    for option, said in (("--workload", "one of gemm-fp64"), ("--device", "one of Toy, 4 CPUs")):
        with pytest.raises(
            DeepError, match=rf"nothing was measured of this .*found: gemm-fp65; needed: {said}\)"
        ) as no:
            call(command, option, "gemm-fp65", *output)
        assert no.value.exit_code == WRONG_USAGE
    assert not (tmp_path / "report.html").exists()
    call(command, "--workload", "gemm-fp64", "--device", "Toy, 4 CPUs", *output)


def test_a_fresh_machine_has_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEP_STATE_DIR", str(tmp_path / "state"))
    for command in (("list",), ("history",), ("history", "--workload", "gemm-fp64")):
        assert call(*command) == "nothing has been measured yet\n"
    assert answer("list")["runs"] == []
    assert not (tmp_path / "state").exists()


def test_only_run_makes_a_store(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typo = tmp_path / "typo"
    for words in ("list", "compare latest", "gate", "history", "report", "export", "baseline set", "baseline show"):
        with pytest.raises(DeepError, match=f"no store at {typo} ") as refused:
            call(*words.split(), "--store", str(typo))
        assert refused.value.exit_code == WRONG_USAGE
        assert refused.value.next_step is not None
    assert not typo.exists()
    monkeypatch.setattr(engine, "run", lambda *_: run(day=5))
    call("run", "gemm-fp64", "--store", str(typo))
    assert "20260106-toy" in call("list", "--store", str(typo))


def test_a_store_that_cannot_be_used_is_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run", lambda *_: pytest.fail("it measured"))
    with pytest.raises(DeepError, match="the store /proc/foo cannot be used") as refused:
        call("run", "gemm-fp64", "--store", "/proc/foo")
    assert refused.value.exit_code == WRONG_USAGE
    (tmp_path / "runs.jsonl").mkdir()
    for command in ("list", "gate"):
        with pytest.raises(DeepError, match=r"cannot be used \(found: .*Is a directory") as refused:
            call(command, "--store", str(tmp_path))
        assert refused.value.exit_code == WRONG_USAGE


class Pages(HTMLParser):
    """Tags that a page opens, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            assert name not in ("src", "href"), f"{tag} needs {value}"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_file_with_its_plots(store: Store, tmp_path: Path) -> None:
    for day in range(3, 16):
        slower(store, 100.0 if day < 9 else 80.0, day)
    hot = result(noise(50.0), "memory-copy", status="suspect", reasons=(NASTY,))
    store.append(run(hot, day=16, label=NASTY))
    answer("report", "--output", str(tmp_path / "report.html"))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Pages()
    page.feed(text)
    assert page.open == []
    assert page.seen.count("svg") == 4
    assert text.count('class="change"') == 1
    assert "script" not in page.seen
    assert "&lt;script&gt;" in text


def test_a_report_of_nothing_says_so(tmp_path: Path) -> None:
    assert "Nothing has been measured yet" in report.render(Store(tmp_path / "empty"))


def test_scales_have_room_even_for_one_value() -> None:
    assert axes.scale(10.0, 20.0) == (9.2, 20.8)
    assert axes.scale(10.0, 10.0) == (9.5, 10.5)
    assert axes.scale(0.0, 0.0) == (-1.0, 1.0)


def test_ticks_are_round() -> None:
    assert axes.ticks(90.2, 109.0) == [95.0, 100.0, 105.0]
    assert axes.ticks(0.0, 4.0) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len(axes.ticks(1.0, 1.0001)) in range(2, 6)


def test_the_export_has_the_keys_of_deep(store: Store, tmp_path: Path) -> None:
    document = json.loads(call("export"))
    assert {"machine_config", "benchmark", "training", "evaluation", "global_start_time", "global_end_time"} <= set(
        document
    )
    assert document["global_execution_time_sec"] == 120
    assert document["global_start_time"] == "2026-01-03T00:00:00.000000Z"
    assert document["machine_config"]["gpu_info"] == {"count": 0, "model": "No GPU found", "memory": 0}
    assert document["training"]["models"] == ["gemm-fp64"]
    one = document["training"]["gemm-fp64"]
    assert one["num_batches"] == 200
    assert one["execution_time_sec"] == pytest.approx(200 * 2 * 1024**3 / 100e9, rel=0.01)
    assert document["training"]["score"] is None
    assert document["run"]["id"] == "20260103-toy"
    assert answer("export", "latest", "--output", str(tmp_path / "deep.json"))["ok"] is True
    assert json.loads((tmp_path / "deep.json").read_text()) == document


def test_the_export_of_networks_has_examples_and_a_score_where_all_four_were_trained() -> None:
    rate: dict[str, Any] = {"unit": "img/s", "work": 64.0, "parameters": {"batch": 64}}
    trained = [
        result([[level] * 2], name, **rate) for name, level in zip(training("amp"), (1.0, 2.0, 4.0, 8.0), strict=True)
    ]
    inference = result([[16.0] * 2], "vgg16-inference-amp", **rate)
    document = export.deep(run(*trained, inference))
    assert document["training"]["score"] == 15.0
    assert document["training"]["models"] == training("amp")
    one = document["evaluation"]["vgg16-inference-amp"]
    assert (one["batch_size"], one["average_examples_per_sec"], one["execution_time_sec"]) == (64, 16.0, 8.0)
    assert document["evaluation"]["models"] == ["vgg16-inference-amp"]
    for changes in ({"status": "invalid", "summary": None}, {"status": "suspect"}):
        broken = [*trained[:3], trained[3].model_copy(update=changes), inference]
        assert export.deep(run(*broken))["training"]["score"] is None


def test_the_export_of_a_gpu_and_of_times() -> None:
    latency = result([[2.0, 4.0]], "latency", unit="ms", direction="lower", work=1.0)
    empty = invalid(workload="empty")
    document = export.deep(run(latency, empty, machine=MACHINE.model_copy(update={"gpus": (H200,)})))
    assert document["machine_config"]["gpu_info"] == {"count": 1, "model": "NVIDIA H200", "memory": 150 << 30}
    assert document["training"]["latency"]["execution_time_sec"] == 0.006
    assert document["training"]["empty"]["execution_time_sec"] is None
    assert document["training"]["empty"]["num_batches"] is None


def test_the_export_for_reframe(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer("baseline", "set", "20260102-toy")
    slower(store)
    report_of = ("export", "--format", "reframe-report")
    (found,) = json.loads(call(*report_of, "--system", "site"))["runs"][0]["testcases"]
    assert (found["sysenv"], found["result"]) == ("site:cpu+builtin", "fail")
    assert found["perfvalues"]["site:cpu:median"][1:4] == [pytest.approx(100, rel=0.01), -0.02, None]
    assert json.loads(call(*report_of, "--minimum", "0.2"))["session_info"]["num_failures"] == 0
    answer(*report_of, "--output", "report.json")
    assert json.loads(Path("report.json").read_text(encoding="utf-8"))["session_info"]["bench_run"] == "20260104-toy"
    log = Path("perflogs/toy/cpu/gemm-fp64.log")
    logs_of = ("export", "--format", "reframe-perflog")
    assert answer(*logs_of) == {"ok": True, "export": "perflogs", "files": [str(log)]}
    assert log.read_text(encoding="utf-8").splitlines()[1].startswith("fail|")
    assert "nothing written: perflogs has this run" in call(*logs_of)
    assert "written: logs/site/cpu/gemm-fp64.log" in call(*logs_of, "--output", "logs", "--system", "site")
    call("export", "--format", "reframe", code=2)
    for command, place in ((logs_of, "report.json"), (report_of, "logs"), (("export",), "logs")):
        with pytest.raises(DeepError, match=f"--output {place} cannot be written"):
            call(*command, "--output", place)


def test_the_figures_of_a_run_on_a_gpu(store: Store) -> None:
    hot = H200.model_copy(update={"slowed": ("heat (driver)",), "pcie": "PCIe 5 x8", "max_pcie": "PCIe 5 x16"})
    busy = MACHINE.model_copy(update={"gpus": (hot,), "load": 4.0})
    there: dict[str, Any] = {"device": "NVIDIA H200", "parameters": {}}
    done = run(
        result(noise(12345.6, scatter=0), "resnet50-infer", unit="img/s", **there),
        result(noise(4.321, scatter=0), "kernel-launch", unit="us", direction="lower", **there),
        result(noise(794512.0, scatter=0), "gemm-bf16", **there),
        day=9, machine=busy,
    )  # fmt: skip
    store.append(done)
    reasons = ["its clock is held down: heat (driver)", "its PCIe link is PCIe 5 x8, it can do PCIe 5 x16"]
    assert conditions(busy, "gpu") == reasons
    console = Console(width=120)
    with console.capture() as shown:
        console.print(cli._run_table(done, reasons))
    for said in ("12350 img/s", "4.321 us", "794500 GFLOP/s", "NVIDIA H200, 1 GPU\n", *reasons):
        assert said in shown.get()
    text = report.render(store, device="NVIDIA H200")
    assert "; ".join(["other work: load 4.0 on 4 CPUs before the first call", *reasons]) in text
    assert "12350 to 12350" in call("history", "--workload", "resnet50-infer")
    assert "12350" in call("compare", "latest", "latest")


def test_a_run_on_several_gpus_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    hot = H200.model_copy(update={"index": 1, "slowed": ("heat (driver)",)})
    several = MACHINE.model_copy(update={"gpus": (H200, hot)})
    one = result(noise(400.0), "all-reduce", device="NVIDIA H200", parameters={"processes": 2})
    monkeypatch.setattr(engine, "runnable", lambda *_: {})
    monkeypatch.setattr(engine, "run", lambda *_: run(one, day=9, machine=several))
    said = "GPU 1: its clock is held down: heat (driver)"
    assert answer("run", "all-reduce", "--device", "gpu", "--gpus", "2")["conditions"] == [said]
    assert "NVIDIA H200, 2 GPUs\n" in call("run", "all-reduce", "--device", "gpu", "--gpus", "2")
    assert said in report.render(store)


def test_libraries_that_are_not_installed_are_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "scipy" else object())
    with pytest.raises(DeepError, match=r"not installed \(found: no scipy; needed: the extra 'benchmark'\)"):
        call("run")


def test_entering_the_room_imports_no_library_of_numbers() -> None:
    code = "import sys, testbed.cli.bench; print(sorted({'numpy', 'scipy', 'ruptures', 'pynvml'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root(), capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
