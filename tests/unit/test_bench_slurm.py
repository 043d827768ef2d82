"""Slurm as a back end: what is submitted, and every way in which a job can end, by what a real one has said."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmark import backends
from pipelines.benchmark.backends import End, slurm
from pipelines.benchmark.backends.slurm import Slurm
from pipelines.benchmark.model import Plan, Run, Specification
from testbed.errors import DeepError
from testbed.host import machine_name
from tests.unit import slurm_records as records
from tests.unit.bench_toys import SPECIFICATION, Clock, run

HOSTILE = Specification(
    workloads=("gemm-fp64",), plan=Plan(label="'; touch /tmp/no $(id) `id` \"\nSPECIFICATION\n$HOME")
)
GPU = Specification(plan=Plan(device="gpu", gpus=2))
RUN = run()
NOTE = '{"note": "gemm-fp64, process 1 of 1"}\n'
DONE = json.dumps({"run": RUN.model_dump(mode="json")}) + "\n"
REAL = subprocess.run
Said = str | tuple[int, str, str]


class Cluster:
    """Commands of Slurm that say what they are told to; files are real ones, and grow with every look at the job."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder, self.clock = folder, clock
        self.submissions: list[Said] = ["6\n"]
        self.shows: list[Said] = [records.PENDING, records.RUNNING, records.RUNNING, records.COMPLETED]
        self.writes: list[str] = []
        self.words = ""
        self.accounted: Said = records.NO_ACCOUNTING
        self.cancelled: Said = ""
        self.calls: list[list[str]] = []
        self.script = ""
        self.place, self.mode = folder, 0

    def run(self, words: list[str], **options: Any) -> Any:
        self.calls.append(words)
        command = shlex.split(words[-1]) if words[0] == "ssh" else words
        if command[0] in ("mkdir", "rm", "tail"):
            return REAL(command, check=False, capture_output=True)
        if command[0] == "sbatch":
            self.script = options["input"].decode()
            self.place = Path(next(word for word in command if word.startswith("--output="))[9:]).parent
            self.mode = stat.S_IMODE(self.place.stat().st_mode)
        status, said, complaint = self._answer(command[0])
        return subprocess.CompletedProcess(words, status, said.encode(), complaint.encode())

    def monotonic(self) -> float:
        return self.clock.now

    def sleep(self, seconds: float) -> None:
        self.clock.now += seconds

    def of(self, program: str) -> list[list[str]]:
        return [words for words in self.calls if words[0] == program]

    def _answer(self, program: str) -> tuple[int, str, str]:
        said: Said
        if program == "sbatch":
            said = _next(self.submissions)
        elif program == "scontrol":
            said = _next(self.shows)
            self._write()
        else:
            said = {"sacct": self.accounted, "scancel": self.cancelled}[program]
        return said if isinstance(said, tuple) else (0, said, "")

    def _write(self) -> None:
        if self.writes:
            with (self.place / "out").open("a", encoding="utf-8") as out:
                out.write(self.writes.pop(0))
        (self.place / "err").write_text(self.words, encoding="utf-8")


def _next(answers: list[Said]) -> Said:
    return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(tmp_path, Clock())
    monkeypatch.setattr(slurm, "time", made)
    monkeypatch.setattr(slurm, "subprocess", _Subprocess(made.run))
    return made


class _Subprocess:
    """The module subprocess with another ``run``."""

    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self, replaced: Callable[..., Any]) -> None:
        self.run = replaced


def brought(cluster: Cluster, **options: str) -> Run:
    backend = backends.load("slurm", {"folder": str(cluster.folder)} | options)
    return backends.run(backend, SPECIFICATION, clock=cluster.clock)


def test_a_run_comes_back_and_the_job_ends_by_itself(cluster: Cluster) -> None:
    whole = NOTE + DONE
    cut = len(NOTE) + 30
    cluster.writes = ["", "0 %\r50 %\x0b100 %\n" + whole[:cut], whole[cut:], ""]
    notes: list[str] = []
    backend = Slurm(folder=str(cluster.folder))
    done = backends.run(backend, SPECIFICATION, notes.append, cluster.clock)
    assert done.results == RUN.results
    assert done.submission is not None
    assert (done.submission.job, done.submission.waited) == ("6", 5)
    assert notes[1:] == ["gemm-fp64, process 1 of 1"]
    assert len(cluster.of("scontrol")) == 4  # the last one after the run: it was still at its end
    assert cluster.of("scancel") == [["scancel", f"--name={cluster.place.name}", "6"]]
    assert not list(cluster.folder.iterdir())


@pytest.mark.parametrize(
    ("said", "words", "fate", "reason"),
    [
        (records.FAILED, "a warning\noh no\n", "failed", "exit status 3: oh no"),
        (records.NOT_FOUND, records.NOT_FOUND_WORDS, "failed", "exit status 127: .*/nowhere/python: not found"),
        (records.SEGFAULT_22, "", "failed", "ended by signal 11: it said nothing"),
        (records.SEGFAULT_24, "", "failed", "ended by signal 11"),
        (records.NO_FOLDER_22, "", "failed", "could not write to /"),
        (records.NO_FOLDER_24, "", "failed", "could not write to /"),
        (records.MEMORY_22, records.MEMORY_WORDS, "out of memory", "slurmstepd.*exceeded memory limit"),
        (records.MEMORY_24, records.MEMORY_WORDS, "out of memory", "slurmstepd.*exceeded memory limit"),
        (records.OOM_KILLED, records.OOM_WORDS, "out of memory", "OUT_OF_MEMORY"),
        (records.CANCELLED_22, "Terminated\n", "cancelled", "CANCELLED"),
        (records.CANCELLED_24, "", "cancelled", "CANCELLED"),
        (records.TIMEOUT, "", "out of time", "TIMEOUT, TimeLimit"),
        (records.record("DEADLINE DeadLine"), "", "out of time", "DEADLINE"),
        (records.NODE_FAIL_22, "", "lost", "NODE_FAIL, NodeDown"),
        (records.NODE_FAIL_24, "", "lost", "NODE_FAIL, NodeDown"),
        (records.record("BOOT_FAIL None"), "", "lost", "BOOT_FAIL"),
        (records.record("PREEMPTED None", "0:15"), "", "lost", "PREEMPTED"),
        (records.record("RUNNING None", restarts=1), "", "lost", "has started it again"),
        (records.record("PENDING BeginTime", restarts=1), "", "lost", "would start it again"),
        (records.record("REQUEUE_HOLD JobHoldMaxRequeue"), "", "lost", "REQUEUE_HOLD"),
        (records.UNKNOWN, "", "lost", "does not know it any more"),
    ],
)
def test_every_end_is_told_with_its_reason(
    cluster: Cluster, said: Said, words: str, fate: backends.Fate, reason: str
) -> None:
    cluster.shows, cluster.words, cluster.writes = [records.RUNNING, said], words, [NOTE]
    with pytest.raises(DeepError, match=f"no figures: the job {backends.FATES[fate]}.*{reason}"):
        brought(cluster)
    assert cluster.clock.now < 60
    assert cluster.of("scancel")
    assert not list(cluster.folder.iterdir())


@pytest.mark.parametrize(
    "reason",
    [
        "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "ReqNodeNotAvail,_UnavailableNodes:node1",
        "AssocMaxCpuPerJobLimit", "AssocMaxWallDurationPerJobLimit", "QOSMaxGRESPerNode", "QOSMinCpuNotSatisfied",
        "QOSNotAllowed", "JobHeldAdmin",
    ],
)  # fmt: skip
def test_what_would_wait_for_ever_is_refused_early(cluster: Cluster, reason: str) -> None:
    cluster.shows = [records.record(f"PENDING {reason}")]
    with pytest.raises(DeepError, match=f"was refused.*it would wait for ever: {reason}"):
        brought(cluster)
    assert slurm.HOPE < cluster.clock.now < 60
    assert cluster.of("scancel")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (records.BUSY, "not begun after 400 s: Resources"),
        (records.NODES_DOWN, "not begun after 400 s: Nodes_required_for_job_are_DOWN"),
        (records.OTHERS_FIRST, "not begun after 400 s: AssocMaxJobsLimit"),
        (records.record("PENDING QOSMaxJobsPerUserLimit"), "not begun after 400 s: QOSMaxJobsPerUserLimit"),
        (records.RUNNING, "nothing after 400 s"),
        (records.record("SUSPENDED None"), "nothing after 400 s"),
        (records.record("COMPLETING None"), "nothing after 400 s"),
    ],
)
def test_what_can_still_begin_or_go_on_is_waited_for(cluster: Cluster, said: str, told: str) -> None:
    cluster.shows = [said]
    with pytest.raises(DeepError, match=f"did not end in time.*{told}"):
        brought(cluster, timeout="400")
    assert cluster.clock.now > 390


def test_a_reason_that_passes_refuses_nothing(cluster: Cluster) -> None:
    cluster.shows = [*[records.NODE_GONE] * 4, records.BUSY, *[records.NODE_GONE] * 4, records.COMPLETED]
    cluster.writes = [""] * 9 + [DONE]
    assert brought(cluster).id == RUN.id


@pytest.mark.parametrize(
    ("accounted", "told"),
    [
        ("CANCELLED by 1000|0:15\n", "was cancelled"), ("FAILED|7:0\n", "failed.*exit status 7"),
        ("OUT_OF_MEMORY|0:125\n", "ran out of memory"), ("NODE_FAIL|1:0\n", "was lost"),
        ("", "does not know it any more"),
    ],
)  # fmt: skip
def test_accounting_is_asked_about_a_job_that_the_controller_has_forgotten(
    cluster: Cluster, accounted: str, told: str
) -> None:
    cluster.shows, cluster.accounted = [records.RUNNING, records.UNKNOWN], accounted
    with pytest.raises(DeepError, match=told):
        brought(cluster)
    assert cluster.of("sacct")[0][-1] == "--jobs=6"


def test_a_controller_that_is_away_for_a_while_is_waited_for(cluster: Cluster) -> None:
    cluster.submissions = [records.SUBMISSION_AWAY, records.SUBMISSION_AWAY, "6;deep\n"]
    cluster.shows = [records.PENDING, *[records.AWAY] * 30, records.COMPLETED]
    cluster.writes = [""] * 31 + [DONE]
    done = brought(cluster)
    assert done.submission is not None
    assert done.submission.job == "6"
    assert len(cluster.of("sbatch")) == 3


def test_a_controller_that_stays_away_is_told(cluster: Cluster) -> None:
    cluster.shows, cluster.cancelled = [records.RUNNING, records.AWAY], records.CANCEL_AWAY
    with pytest.raises(DeepError, match=r"has not answered for 300 s.*connect failure") as told:
        brought(cluster)
    assert told.value.next_step == "scancel 6, when it answers again"
    assert 300 < cluster.clock.now < 400
    cluster.submissions = [records.SUBMISSION_AWAY]
    with pytest.raises(DeepError, match=r"has not taken the job.*connect failure"):
        brought(cluster)


@pytest.mark.parametrize("words", [*records.REFUSALS, "sbatch: error: Socket timed out on send/recv operation\n"])
def test_what_sbatch_refuses_is_told_in_its_own_words_and_not_sent_again(cluster: Cluster, words: str) -> None:
    cluster.submissions = [(1, "", words)]
    with pytest.raises(DeepError) as told:
        brought(cluster)
    assert told.value.found == words.strip()
    assert len(cluster.of("sbatch")) == 1
    # No answer is no refusal: it may be there all the same.
    assert cluster.of("scancel") == [["scancel", f"--name={cluster.place.name}"]]
    assert not list(cluster.folder.iterdir())


def test_a_job_has_a_folder_that_nobody_else_has(cluster: Cluster) -> None:
    places = set()
    for _ in range(2):
        cluster.writes, cluster.shows = [DONE], [records.RUNNING, records.COMPLETED]
        brought(cluster)
        places.add(cluster.place)
        assert cluster.mode == 0o700
    assert len(places) == 2


@pytest.mark.parametrize("there", ["a file", "nothing"])
def test_a_folder_that_cannot_be_used_is_told_before_there_is_a_job(cluster: Cluster, there: str) -> None:
    folder = cluster.folder / "here"
    if there == "a file":
        folder.touch()
    with pytest.raises(DeepError, match=f"no place for what the job says.*{folder}") as told:
        brought(cluster, folder=str(folder))
    assert told.value.next_step == "correct --option folder="
    assert not cluster.of("sbatch")


def test_output_without_the_number_of_a_job_is_told(cluster: Cluster) -> None:
    cluster.submissions = ["welcome\n"]
    with pytest.raises(DeepError, match="no number of a job: welcome"):
        brought(cluster)


def test_a_host_without_slurm_is_told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.submissions = [(127, "", "sh: 1: sbatch: not found\n")]
    with pytest.raises(DeepError, match="deep@login: program not found: sbatch"):
        brought(cluster, login="deep@login")
    programs = cluster.folder / "programs"
    programs.mkdir()
    for name in ("mkdir", "rm"):
        (programs / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setattr(slurm, "subprocess", subprocess)
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(DeepError, match="program not found: sbatch") as told:
        brought(cluster)
    assert list(cluster.folder.iterdir()) == [programs]
    assert "login=USER@HOST" in str(told.value.next_step)


def test_ssh_that_does_not_get_there_is_told_with_what_to_try(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.submissions = [(255, "", "Host key verification failed.\n")]
    with pytest.raises(DeepError, match=r"deep@login: ssh does not get there.*Host key verification failed") as told:
        brought(cluster, login="deep@login", ssh_config="/etc/a site.conf")
    assert told.value.next_step == "ssh -F '/etc/a site.conf' deep@login"
    monkeypatch.setattr(slurm, "subprocess", subprocess)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeepError, match="program not found: ssh") as told:
        brought(cluster, login="deep@login")
    assert (told.value.host, told.value.next_step) == (machine_name(), "install OpenSSH's client")


def test_success_without_a_run_is_a_failure_of_the_folder(cluster: Cluster) -> None:
    cluster.shows = [records.COMPLETED]
    with pytest.raises(DeepError, match=r"failed.*do the nodes share it with this host"):
        brought(cluster)
    assert slurm.LAG < cluster.clock.now < 120  # it may have been on its way


def test_a_job_that_cannot_be_cancelled_is_told_and_costs_no_run(cluster: Cluster) -> None:
    cluster.writes, cluster.cancelled = [DONE], records.CANCEL_AWAY
    notes: list[str] = []
    backends.run(Slurm(folder=str(cluster.folder)), SPECIFICATION, notes.append, cluster.clock)
    assert "may be left behind" in notes[-1]
    assert "connect failure" in notes[-1]


def test_what_is_asked_for_is_what_sbatch_gets(cluster: Cluster) -> None:
    folder = "/shared"
    backend = Slurm(
        folder=folder + "/", partition="gpu", account="science", qos="high", time="1:00:00", cpus=8, memory="16G",
        constraint="a100&nvme", gres="gpu:a100:1",
    )  # fmt: skip
    asked = backend.options(GPU.plan)
    name = asked[4].removeprefix("--job-name=")
    assert re.fullmatch("deep-bench-[0-9a-f]{8}", name)
    fixed = [
        "--parsable", "--no-requeue", "--nodes=1", "--ntasks=1", f"--job-name={name}",
        "--export=NONE", "--chdir=/shared/", f"--output=/shared/{name}/out", f"--error=/shared/{name}/err",
    ]  # fmt: skip
    assert asked == [
        *fixed, "--partition=gpu", "--account=science", "--qos=high", "--time=1:00:00", "--gres=gpu:a100:1",
        "--cpus-per-task=8", "--mem=16G", "--constraint=a100&nvme",
    ]  # fmt: skip
    assert "--gres=gpu:2" in Slurm(folder=folder).options(GPU.plan)
    assert Slurm(folder=folder).options(Plan(threads=3))[9:] == ["--cpus-per-task=3"]
    assert len(Slurm(folder=folder).options(Plan())) == len(fixed)


def test_over_ssh_nothing_is_asked_and_every_word_arrives(cluster: Cluster) -> None:
    cluster.writes = ["", DONE]
    brought(cluster, login="deep@login", ssh_config="/etc/site.conf", constraint="a b$HOME'")
    assert {words[0] for words in cluster.calls} == {"ssh"}
    first = next(words for words in cluster.calls if "sbatch" in words[-1])
    assert first[1:9] == [
        "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=20", "-F", "/etc/site.conf",
    ]  # fmt: skip
    assert first[9] == "deep@login"
    assert shlex.split(first[10])[-1] == "--constraint=a b$HOME'"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "folder: is missing"), ({"folder": "shared"}, "folder"), ({"folder": "/shared/%u"}, "folder"),
        ({"folder": "/s", "runtime": "udocker"}, "an image needs a runtime"),
        ({"folder": "/s", "image": "x"}, "an image needs a runtime"),
        ({"folder": "/s", "execmode": "F3"}, "runtime=udocker"),
        ({"folder": "/s", "login": "-oProxyCommand=x"}, "login"),
        ({"folder": "/s", "runtime": "apptainer", "image": "--bind=/"}, "image"),
    ],
)  # fmt: skip
def test_options_that_make_no_job_are_refused(options: dict[str, str], told: str) -> None:
    with pytest.raises(DeepError, match=told):
        backends.load("slurm", options)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[list[str]]]:
    """Runs a script as a node does, with programs that keep what they were given; what that was, in order."""
    log = tmp_path / "log"
    program = tmp_path / "bin" / "udocker"
    program.parent.mkdir()
    keep = "import json,os,sys; i = '' if sys.stdin.isatty() else sys.stdin.read()"
    told = "print(json.dumps([*sys.argv[1:], i, os.environ.get('APPTAINERENV_CUDA_VISIBLE_DEVICES', '')]))"
    program.write_text(f'#!/bin/sh\nexec python3 -c "{keep}; {told}" "$(basename "$0")" "$@" >> {log}\n')
    program.chmod(0o755)
    for name in ("apptainer", "python3.12"):
        (program.parent / name).symlink_to(program)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")

    def ran(script: str) -> list[list[str]]:
        subprocess.run(["sh"], input=script, text=True, check=True, cwd=tmp_path)
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]

    return ran


def test_a_script_gives_the_specification_whatever_is_in_it(node: Callable[[str], list[list[str]]]) -> None:
    [[*command, given, _]] = node(Slurm(folder="/s", python="python3.12").script(HOSTILE))
    assert command == ["python3.12", "-m", "pipelines.benchmark.job"]
    assert Specification.model_validate_json(given) == HOSTILE


def test_udocker_runs_a_container_of_its_own_and_removes_it(node: Callable[[str], list[list[str]]]) -> None:
    backend = Slurm(folder="/s", runtime="udocker", image="deep/it's:1", execmode="F3")
    create, setup, ran, removed = node(backend.script(GPU))
    container = create[2].removeprefix("--name=")
    assert create[:4] == ["udocker", "create", f"--name={container}", "deep/it's:1"]
    assert setup[:5] == ["udocker", "setup", "--execmode=F3", "--nvidia", container]
    assert ran[:-2] == [
        "udocker", "run", "--nobanner", "--user=root", "--workdir=/", "--env=CUDA_VISIBLE_DEVICES",
        "--entrypoint=/usr/bin/python3", container, "/opt/deep-benchmark", "pipelines.benchmark.job",
    ]  # fmt: skip
    assert Specification.model_validate_json(ran[-2]) == GPU
    assert removed[:3] == ["udocker", "rm", container]


def test_without_gpu_or_mode_udocker_is_left_as_it_is(node: Callable[[str], list[list[str]]]) -> None:
    options = {"folder": "/s", "runtime": "udocker", "image": "deep/it:1", "command": "/opt/python -m it 'a b'"}
    backend = Slurm.model_validate(options)
    _, ran, _ = node(backend.script(SPECIFICATION))
    assert ran[2:-2] == [
        "--nobanner", "--user=root", "--workdir=/", "--entrypoint=/opt/python", ran[6], "-m", "it", "a b",
    ]  # fmt: skip


def test_apptainer_contains_the_job_and_gives_it_its_gpus(node: Callable[[str], list[list[str]]]) -> None:
    backend = Slurm(folder="/s", runtime="apptainer", image="/shared/it's.sif")
    [[*command, given, gpus]] = node(backend.script(GPU))
    assert command == [
        "apptainer", "exec", "--containall", "--nv", "/shared/it's.sif", "/usr/bin/python3", "/opt/deep-benchmark",
        "pipelines.benchmark.job",
    ]  # fmt: skip
    assert Specification.model_validate_json(given) == GPU
    assert gpus == "3"
    assert "--nv" not in backend.script(SPECIFICATION)


def test_a_container_is_removed_when_the_job_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "udocker"
    program.write_text('#!/bin/sh\necho "$1" >> log\n[ "$1" != run ] || exec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script = Slurm(folder="/s", runtime="udocker", image="deep/it:1").script(SPECIFICATION)
    # Slurm signals all processes of a job.
    waits = "until grep -q run log; do sleep 0.01; done; kill -TERM 0"
    setsid = ["setsid", "--wait", "sh", "-c", f"({waits}) 2>/dev/null & exec sh -c {shlex.quote(script)}"]
    done = subprocess.run(setsid, cwd=tmp_path, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 143
    assert (tmp_path / "log").read_text(encoding="utf-8").split() == ["create", "run", "rm"]


def test_end_names_a_controller_that_is_silent(cluster: Cluster) -> None:
    cluster.shows = [records.AWAY]
    found = Slurm(folder=str(cluster.folder)).end("6")
    assert found == End("lost", records.AWAY[2].strip())
