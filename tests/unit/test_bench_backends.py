"""What all back ends have in common: a run is brought back, or it is said why there is none; nothing is left."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any, ClassVar, override

import pytest
from typer.testing import CliRunner

from pipelines.benchmark import backends, engine, job
from pipelines.benchmark.backends import Backend, End
from pipelines.benchmark.model import Gpu, Plan, Specification
from testbed.cli import bench as cli
from testbed.errors import DeepError
from tests.unit.bench_toys import H200, SPECIFICATION, Clock, run

RUN = run()
SIMULATED = H200.model_copy(update={"simulated": True, "model": "NVIDIA Simulated T4"})


class Toy(Backend):
    """Says what it is told to, each line ten seconds after the one before."""

    name = "toy"
    clock: ClassVar[Clock]
    said: ClassVar[list[str | None]]
    ended: ClassVar[End] = End("failed", "exit status 7")
    removed: ClassVar[list[str]]
    size: int = 1

    @override
    def submit(self, specification: Specification) -> str:
        return f"job of {', '.join(specification.workloads)}"

    @override
    def lines(self, job: str) -> Iterator[str | None]:
        for line in self.said:
            self.clock.now += 10
            yield line

    @override
    def end(self, job: str) -> End:
        return self.ended

    @override
    def remove(self, job: str) -> None:
        self.removed.append(job)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.BACKENDS, "toy", f"{__name__}:Toy")
    Toy.clock, Toy.removed, Toy.ended = Clock(), [], End("failed", "exit status 7")
    done = json.dumps({"run": RUN.model_dump(mode="json")})
    Toy.said = [None, "a warning of a library", '{"note": "gemm-fp64, process 1 of 1"}', "17", done]


def brought(**options: str) -> Any:
    return backends.run(backends.load("toy", options), SPECIFICATION, clock=Toy.clock)


def test_a_run_comes_back_with_how_long_the_way_took() -> None:
    notes: list[str] = []
    done = backends.run(Toy(), SPECIFICATION, notes.append, Toy.clock)
    assert done.results == RUN.results
    assert done.submission is not None
    assert done.submission.backend == "toy"
    assert done.submission.waited == 30
    assert done.submission.overhead == 0  # the toy's clock runs 50 seconds, the run says that it took two minutes
    assert notes == ["toy: submitted job of gemm-fp64", "gemm-fp64, process 1 of 1"]
    assert Toy.removed == ["job of gemm-fp64"]


@pytest.mark.parametrize("fate", backends.FATES)
def test_a_job_without_a_run_is_never_a_figure(fate: backends.Fate) -> None:
    Toy.said.pop()
    Toy.ended = End(fate, "the scheduler's reason")
    with pytest.raises(DeepError, match=f"no figures: the job {backends.FATES[fate]}.*the scheduler's reason") as told:
        brought()
    assert told.value.exit_code == 1
    assert Toy.removed == ["job of gemm-fp64"]


def test_what_the_job_refuses_reaches_the_user() -> None:
    Toy.said[-1] = json.dumps({"error": DeepError("no GPU to measure", host="node2").as_dict()})
    with pytest.raises(DeepError, match="node2: no GPU to measure"):
        brought()
    assert Toy.removed


@pytest.mark.parametrize("facts", ["out of order", {"reason": "new in another version"}])
def test_a_refusal_in_words_of_another_version_is_told_as_it_is(facts: Any) -> None:
    Toy.said[-1] = json.dumps({"error": facts})
    with pytest.raises(DeepError, match=r"out of order|new in another version") as told:
        brought()
    assert told.value.host == "toy job of gemm-fp64"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 7}, "seed 1; needed: 7"),
        ({"label": "new"}, "label ; needed: new"),
        ({"repeats": 31}, "repeats 30; needed: 31"),
        ({"processes": 4}, "processes 3; needed: 4"),
    ],
)
def test_a_run_that_was_not_asked_for_is_no_figure(changes: dict[str, Any], said: str) -> None:
    asked = SPECIFICATION.model_copy(update={"plan": SPECIFICATION.plan.model_copy(update=changes)})
    with pytest.raises(DeepError, match=f"another run than the one that was asked for .*{said}"):
        backends.run(Toy(), asked, clock=Toy.clock)
    assert Toy.removed


def says(**changes: Any) -> None:
    """Have the job say a run with what is changed in it."""
    Toy.said[-1] = json.dumps({"run": RUN.model_copy(update=changes).model_dump(mode="json")})


def test_other_workloads_and_none_are_no_figures() -> None:
    with pytest.raises(DeepError, match=r"workloads \['gemm-fp64'\]; needed: \['memory-copy'\]"):
        backends.run(Toy(), SPECIFICATION.model_copy(update={"workloads": ("memory-copy",)}), clock=Toy.clock)
    says(results=())
    with pytest.raises(DeepError, match=r"workloads \[\]; needed: at least one"):
        backends.run(Toy(), SPECIFICATION.model_copy(update={"workloads": ()}), clock=Toy.clock)


@pytest.mark.parametrize(
    ("gpus", "said"),
    [((), r"GPUs \[\]; needed: a real one"), ((SIMULATED,), r"GPUs \['NVIDIA Simulated T4'\]; needed: a real one")],
)
def test_a_run_without_gpus_or_with_simulated_ones_is_none_of_a_gpu(gpus: tuple[Gpu, ...], said: str) -> None:
    says(machine=RUN.machine.model_copy(update={"gpus": gpus}))
    on_gpu = SPECIFICATION.model_copy(update={"plan": SPECIFICATION.plan.model_copy(update={"device": "gpu"})})
    with pytest.raises(DeepError, match=said):
        backends.run(Toy(), on_gpu, clock=Toy.clock)


def test_a_job_that_takes_too_long_is_ended() -> None:
    with pytest.raises(DeepError, match=r"did not end in time.*nothing after 45 s"):
        brought(timeout="45")
    assert Toy.removed


def test_an_interrupted_wait_leaves_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Iterator[str | None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Toy, "lines", interrupted)
    with pytest.raises(KeyboardInterrupt):
        brought()
    assert Toy.removed


def test_a_terminated_wait_leaves_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(*_: object) -> Iterator[str | None]:
        os.kill(os.getpid(), signal.SIGTERM)
        yield None

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # without the behaviour, it must not end the tests
    try:
        monkeypatch.setattr(Toy, "lines", terminated)
        with pytest.raises(KeyboardInterrupt):
            brought()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert Toy.removed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_interrupted_while_it_is_submitted_is_removed(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> str:
        os.kill(os.getpid(), number)
        return "job"

    monkeypatch.setattr(Toy, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        brought()
    assert Toy.removed == ["job"]


def test_what_cannot_be_removed_costs_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise DeepError("it is stuck")

    monkeypatch.setattr(Toy, "remove", refuses)
    notes: list[str] = []
    assert backends.run(Toy(), SPECIFICATION, notes.append, Toy.clock).results == RUN.results
    assert notes[-1] == "toy: job of gemm-fp64 may be left behind: it is stuck"
    Toy.said.pop()
    with pytest.raises(DeepError, match="exit status 7"):
        brought()


def test_lines_of_a_stream_come_as_they_are_written_and_silence_is_told() -> None:
    silent = threading.Event()

    def stream() -> Iterator[bytes]:
        yield b"one\ntw"
        silent.wait(30)
        yield "o, \u2265 three\ncut".encode()

    lines = backends.ticking(stream(), tick=0.01)
    assert next(lines) == "one"
    assert next(lines) is None
    silent.set()
    assert [line for line in lines if line is not None] == ["two, \u2265 three"]


def test_what_a_stream_raises_is_raised_where_it_is_read() -> None:
    def stream() -> Iterator[bytes]:
        yield b"one\n"
        raise ConnectionResetError("the server has gone")

    lines = backends.ticking(stream(), tick=30)
    assert next(lines) == "one"
    with pytest.raises(ConnectionResetError, match="the server has gone"):
        next(lines)


def test_options_are_checked_before_anything_is_submitted() -> None:
    with pytest.raises(DeepError, match=r"toy does not take these options .found: size: found 'large'") as told:
        backends.load("toy", {"size": "large"})
    assert (told.value.needed, told.value.next_step) == (None, "--option NAME=VALUE for each that is named")
    with pytest.raises(DeepError, match="colour: there is no such key, needed one of: size, timeout"):
        backends.load("toy", {"colour": "red"})
    with pytest.raises(DeepError, match="timeout: found 'inf', needed a finite number"):
        backends.load("toy", {"timeout": "inf"})


@pytest.mark.parametrize("name", ["docker", "kubernetes", "slurm"])
@pytest.mark.parametrize(
    ("command", "said"),
    [("a 'b", "needed a command as a shell reads it: No closing quotation"), (" ", "needed a command")],
)
def test_a_command_that_no_shell_reads_is_refused(name: str, command: str, said: str) -> None:
    with pytest.raises(DeepError, match=f"command: found .*{said}"):
        backends.load(name, {"command": command})


def test_what_the_form_of_an_option_is_is_told() -> None:
    wrong = {
        "docker": {"memory": "4x", "cpuset": "all"},
        "kubernetes": {"memory": "4x", "cpus": "many"},
        "slurm": {
            "folder": "shared", "memory": "4x", "python": "-c", "execmode": "F", "login": "-o", "image": "--bind",
        },
        "deepaas": {"url": "node1:5000", "model": "A"},
    }  # fmt: skip
    for name, options in wrong.items():
        with pytest.raises(DeepError) as told:
            backends.load(name, options)
        said = str(told.value.found)
        assert all(f"{option}: found {value!r}, needed " in said for option, value in options.items())
        assert "another value" not in said


def test_a_run_of_another_version_is_told() -> None:
    Toy.said[-1] = json.dumps({"run": {"id": 5}})
    with pytest.raises(DeepError, match=r"toy job of gemm-fp64: the run is none that this version knows.*id: found 5"):
        brought()
    assert Toy.removed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "moon"], "no such back end"),
        (["--on", "toy", "-o", "size"], "--option takes a name and a value .found: 'size'"),
        (["--on", "toy", "-o", "=3"], "--option takes a name and a value .found: '=3'"),
        (["-o", "size=3"], "this machine takes no options"),
    ],
)
def test_a_wrong_call_is_told(words: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run", lambda *_: pytest.fail("it measured"))
    done = CliRunner().invoke(cli.app, ["run", *words])
    assert isinstance(done.exception, DeepError)
    assert re.match(said, str(done.exception))
    assert done.exception.next_step
    assert not Toy.removed


def test_the_job_says_its_run_or_its_error_as_documents(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(places: Any, plan: Plan, note: Any) -> Any:
        note(f"{', '.join(places)}, {plan.processes}")
        return RUN

    monkeypatch.setattr(engine, "run", measured)
    monkeypatch.setattr("sys.stdin", io.StringIO(SPECIFICATION.model_dump_json()))
    assert job.main() == 0
    noted, done = map(json.loads, capsys.readouterr().out.splitlines())
    assert noted == {"note": "gemm-fp64, 3"}
    assert done["run"] == RUN.model_dump(mode="json")
    monkeypatch.setenv(job.HOST, "node3")
    monkeypatch.setenv(job.VARIABLE, SPECIFICATION.model_dump_json())
    assert job.main() == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["run"]["machine"]["host"] == "node3"
    for wrong, message in (('{"workloads": ["nonsense"]}', "no such workload"), ("{", "no specification")):
        monkeypatch.setenv(job.VARIABLE, wrong)
        assert job.main() == 1
        assert json.loads(capsys.readouterr().out)["error"]["message"].startswith(message)
