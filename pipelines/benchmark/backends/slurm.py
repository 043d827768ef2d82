"""A job of Slurm, of version 22.05 or newer, by its own commands: on a host that has them, or over ssh on one.

Nothing of it needs Slurm's accounting: the controller tells of a job until some minutes after its end. Where it has
forgotten one, accounting is asked, where there is one.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Self, override

from pydantic import Field, PrivateAttr, model_validator

from pipelines.benchmark.backends import COMMAND, Backend, Command, End, Fate, last_words
from pipelines.benchmark.model import Plan, Specification
from testbed.errors import CHECK_FAILED, DeepError
from testbed.host import machine_name

NAME = "deep-bench"
MODULE = "pipelines.benchmark.job"
# ssh asks nobody anything and talks to no host that it does not know.
SSH = ("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=20")
SSH_FAILED, NOT_FOUND = 255, 127
# Seconds: that a command may take; that a controller may be away; for which a job may wait for what will not come;
# after which a file that was written on another machine is here too (NFS keeps attributes for up to a minute); and
# that a job has to tidy up after its last word.
CALL, PATIENCE, HOPE, LAG, TIDY = 60, 300, 20, 75, 30
LAST_WORDS = ('{"run":', '{"error":')
UNREACHABLE = "Unable to contact slurm controller"
UNKNOWN = "Invalid job id specified"
# sbatch names the cluster behind the number where there are several; a site's plug-in may say more.
JOB = re.compile(r"^(\d+)(?:;\S+)?$", re.MULTILINE)
# Of one line of ``scontrol``: what comes before can hold no such words, and what comes behind does not count.
RECORD = re.compile(r" JobState=(\S+) Reason=(\S+) .*?Restarts=(\d+) .*?ExitCode=(\S+)")
# A job that waits for one of these waits for somebody to change it or the cluster. What others' jobs or one's own only
# have to end for, such as AssocMaxJobsLimit, is none of them.
HOPELESS = re.compile(
    r"PartitionNodeLimit|PartitionTimeLimit|PartitionDown|PartitionInactive|PartitionConfig|NodeDown|ReqNodeNotAvail"
    r"|BadConstraints|JobHeldAdmin|JobHoldMaxRequeue|InvalidAccount|InvalidQOS|QOSNotAllowed|AccountNotAllowed"
    r"|AccountingPolicy|MaxMemPerLimit|ReservationDeleted|ReservationInvalid|DependencyNeverSatisfied"
    r"|launch_failed_requeued_held|(Assoc|QOS)Max\w+Per(Job|Node)\w*|QOSMin\w+"
)
# The states in which a job has ended, and those that say that it began anew.
ENDS: dict[str, Fate] = {
    "BOOT_FAIL": "lost", "CANCELLED": "cancelled", "COMPLETED": "failed", "DEADLINE": "out of time", "FAILED": "failed",
    "NODE_FAIL": "lost", "OUT_OF_MEMORY": "out of memory", "PREEMPTED": "lost", "REVOKED": "lost",
    "TIMEOUT": "out of time", "REQUEUED": "lost", "REQUEUE_FED": "lost", "REQUEUE_HOLD": "lost", "SPECIAL_EXIT": "lost",
}  # fmt: skip
# What Slurm writes to the job's own output where it, or the kernel, has ended a job for its memory.
MEMORY = re.compile(r"slurmstepd.*(?:exceeded memory limit|oom[-_]kill|Out Of Memory|OOM Killed)", re.IGNORECASE)
NO_OUTPUT = "0:53"
TAIL = 4096


class Answer(NamedTuple):
    """What a command has come to."""

    status: int
    said: str
    complaint: str


class Record(NamedTuple):
    """What Slurm says of a job; ``status`` is ``EXIT STATUS:SIGNAL``. Without a state it says nothing, for a reason."""

    state: str
    reason: str
    restarts: int = 0
    status: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more, or what runs is no longer what was submitted."""
        return self.state in ENDS or self.restarts > 0

    @property
    def hopeless(self) -> bool:
        """Whether it waits for what will not come by itself."""
        return self.state == "PENDING" and HOPELESS.fullmatch(self.reason.split(",")[0]) is not None


class Slurm(Backend):
    """``folder`` is an absolute path that the nodes of the cluster share with the host that submits.

    Below it the job has a folder of its own: in one that others may write to, too, nobody can put files under the
    names that the job will write.

    ``partition``, ``account``, ``qos``, ``time``, ``gres``, ``cpus``, ``memory`` and ``constraint`` are sbatch's; what
    is not given is the cluster's choice, but for ``gres`` where a GPU is measured and ``cpus`` where threads are asked
    for. ``runtime``: what runs ``image`` on the node, and ``command`` in it; without an image ``python`` there has this
    package. ``execmode`` is udocker's. ``login``: a host to run Slurm's commands on, with settings of ``ssh_config``.
    ``interval``: seconds between two looks at the job.
    """

    name = "slurm"
    folder: str = Field(pattern=r"^/[^%\\\n]*$", description="an absolute path without % and backslash")
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    gres: str | None = None
    cpus: int | None = Field(default=None, ge=1)
    memory: str | None = Field(default=None, pattern=r"^\d+[KMGT]?$", description="an amount such as 16G")
    constraint: str | None = None
    runtime: Literal["none", "udocker", "apptainer"] = "none"
    image: str | None = Field(default=None, pattern=r"^[^-]", description="a name or path that begins with no '-'")
    command: Command = COMMAND
    python: str = Field(default="python3", pattern=r"^[^-]", description="a program such as /shared/venv/bin/python")
    execmode: str | None = Field(default=None, pattern=r"^[PFRS]\d$", description="a mode of udocker such as F3")
    login: str | None = Field(default=None, pattern=r"^[^-\s][^\s]*$", description="HOST or USER@HOST")
    ssh_config: Path | None = None
    interval: float = Field(default=5.0, ge=0.1)
    _name: str = PrivateAttr(default_factory=lambda: f"{NAME}-{secrets.token_hex(4)}")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.runtime == "none") != (self.image is None):
            raise ValueError("an image needs a runtime that runs it, and a runtime an image")
        if self.execmode and self.runtime != "udocker":
            raise ValueError("execmode is udocker's: it needs runtime=udocker")
        return self

    @override
    def submit(self, specification: Specification) -> str:
        answer = self._call("mkdir", "--mode=700", "--", self._place)
        if answer.status:
            raise self._refusal(answer, "there is no place for what the job says", "correct --option folder=")
        try:
            return self._submitted(specification)
        except DeepError:
            with contextlib.suppress(DeepError):
                self._call("scancel", f"--name={self._name}")  # it may be there all the same
            self._tidy()
            raise

    def _submitted(self, specification: Specification) -> str:
        command, script = ("sbatch", *self.options(specification.plan)), self.script(specification)
        until = time.monotonic() + PATIENCE
        while (answer := self._call(*command, given=script)).status:
            # Then nothing was taken. After any other failure nobody knows, and a second job is worse than none.
            if UNREACHABLE not in answer.complaint or time.monotonic() > until:
                raise self._refusal(answer)
            time.sleep(self.interval)
        if (taken := JOB.search(answer.said)) is None:
            raise self._refusal(answer._replace(complaint=f"no number of a job: {answer.said.strip()}"))
        return taken.group(1)

    @override
    def lines(self, job: str) -> Iterator[str | None]:
        read, since = 0, time.monotonic()
        heard = hope = since
        over: float | None = None
        while True:
            record, now = self._record(job), time.monotonic()
            # Read after the state was: what has ended by then has said all that it will.
            told = self._call("tail", "-n", f"+{read + 1}", self._file("out")).said.split("\n")[:-1]
            read += len(told)
            yield from told
            heard = heard if record and not record.state else now
            hope = hope if record and record.hopeless else now
            if record is None or now - hope > HOPE:
                return
            if record.state == "PENDING" and now + self.interval - since > self.timeout:
                return  # one look early, so that it is told what it has waited for
            if now - heard > PATIENCE:
                raise self._silence(job, record)
            if record.ended:
                over = now if over is None else over
                if record.state != "COMPLETED" or now - over > LAG:
                    return
            yield None
            time.sleep(self.interval)

    @override
    def end(self, job: str) -> End:
        record = self._record(job)
        if record is None:
            return End("lost", "Slurm does not know it any more")
        if record.state == "PENDING":
            return self._never_begun(record)
        if record.restarts or not record.state:
            return End("lost", record.reason if not record.state else "Slurm has started it again from the beginning")
        said = self._call("tail", "-c", str(TAIL), self._file("err")).said
        fate = ENDS.get(record.state, "lost")
        if fate in ("failed", "cancelled") and (found := MEMORY.search(said)):
            return End("out of memory", found.group())
        return End(fate, self._why(record, said))

    @override
    def remove(self, job: str) -> None:
        self._let_end(job)
        # By name too: a controller that has lost its memory gives the number to somebody else's job.
        answer = self._call("scancel", f"--name={self._name}", job)
        self._tidy()
        if answer.status and UNKNOWN not in answer.complaint:
            raise DeepError("the job may still run", found=answer.complaint, next_step=f"scancel {job}")

    def _let_end(self, job: str) -> None:
        """Wait for a job that has said all: it ends by itself, and is none that was cancelled."""
        if not self._call("tail", "-n", "1", self._file("out")).said.startswith(LAST_WORDS):
            return
        until = time.monotonic() + TIDY
        while (record := self._record(job)) and not record.ended and time.monotonic() < until:
            time.sleep(min(1.0, self.interval))

    def options(self, plan: Plan) -> list[str]:
        """The words behind ``sbatch``. A job that is started again would measure, and be waited for, twice."""
        given = {
            "partition": self.partition, "account": self.account, "qos": self.qos, "time": self.time,
            "gres": self.gres or (f"gpu:{plan.gpus}" if plan.device == "gpu" else None),
            "cpus-per-task": self.cpus or plan.threads, "mem": self.memory, "constraint": self.constraint,
        }  # fmt: skip
        return [
            "--parsable", "--no-requeue", "--nodes=1", "--ntasks=1", f"--job-name={self._name}",
            "--export=NONE",  # what the user's shell has here, secrets among it, is nothing to the job
            f"--chdir={self.folder}", f"--output={self._file('out')}", f"--error={self._file('err')}",
            *(f"--{name}={value}" for name, value in given.items() if value is not None),
        ]  # fmt: skip

    def script(self, specification: Specification) -> str:
        """What the node runs. The specification is a line of JSON, which cannot be the line that ends it."""
        before, command = self._command(specification.plan)
        lines = [*before, f"{shlex.join(command)} <<'SPECIFICATION'", specification.model_dump_json(), "SPECIFICATION"]
        return "\n".join(["#!/bin/sh", "set -e", *lines, ""])

    def _command(self, plan: Plan) -> tuple[list[str], list[str]]:
        gpu = plan.device == "gpu"
        if self.runtime == "udocker":
            return self._udocker(gpu=gpu)
        if self.runtime == "apptainer":
            return self._apptainer(gpu=gpu)
        return [], [self.python, "-m", MODULE]

    def _udocker(self, *, gpu: bool) -> tuple[list[str], list[str]]:
        """A container of its own, which is gone when the script ends, by scancel too."""
        container = self._name
        setup = [f"--execmode={self.execmode}"] * bool(self.execmode) + ["--nvidia"] * gpu
        before = [["udocker", "create", f"--name={container}", str(self.image)]]
        if setup:
            before.append(["udocker", "setup", *setup, container])
        # Without a value a variable is the job's own. The folder that udocker begins in is not in every image.
        flags = ["--nobanner", "--user=root", "--workdir=/", *["--env=CUDA_VISIBLE_DEVICES"] * gpu]
        run = ["udocker", "run", *flags, f"--entrypoint={self.command[0]}", container, *self.command[1:]]
        traps = [f"trap {shlex.quote(shlex.join(['udocker', 'rm', container]))} EXIT", "trap 'exit 143' TERM"]
        return [*traps, *map(shlex.join, before)], run

    def _apptainer(self, *, gpu: bool) -> tuple[list[str], list[str]]:
        before = ['export APPTAINERENV_CUDA_VISIBLE_DEVICES="$CUDA_VISIBLE_DEVICES"'] * gpu
        return before, ["apptainer", "exec", "--containall", *["--nv"] * gpu, str(self.image), *self.command]

    def _record(self, job: str) -> Record | None:
        """What Slurm knows of a job, nothing where it does not know it."""
        answer = self._call("scontrol", "--oneliner", "show", "job", job)
        if found := RECORD.search(answer.said):
            state, reason, restarts, status = found.groups()
            return Record(state, reason, int(restarts), status)
        return self._accounted(job) if UNKNOWN in answer.complaint else Record("", answer.complaint)

    def _accounted(self, job: str) -> Record | None:
        """What accounting knows of a job that the controller has forgotten; without accounting that is nothing."""
        asked = ("--allocations", "--noheader", "--parsable2", "--format=State,ExitCode", f"--jobs={job}")
        state, _, status = self._call("sacct", *asked).said.strip().partition("|")
        # "CANCELLED by 1000"
        return Record(state.split()[0], "", status=status) if state else None

    def _never_begun(self, record: Record) -> End:
        if record.hopeless:
            return End("refused", f"it would wait for ever: {record.reason}")
        if record.restarts:
            return End("lost", "Slurm would start it again from the beginning")
        return End("out of time", f"it has not begun after {self.timeout:g} s: {record.reason}")

    def _why(self, record: Record, said: str) -> str:
        if record.state == "COMPLETED":
            return f"it ended well, but nothing of it came to {self.folder}: do the nodes share it with this host?"
        if record.status == NO_OUTPUT:
            return f"it could not write to {self.folder}, which has to be there on the node and be writable"
        if record.state == "FAILED":
            status, _, number = record.status.partition(":")
            ended = f"exit status {status}" if number in ("", "0") else f"ended by signal {number}"
            return f"{ended}: {last_words(said) or 'it said nothing'}"
        return record.state if record.reason in ("", "None") else f"{record.state}, {record.reason}"

    def _refusal(
        self, answer: Answer, said: str = "Slurm has not taken the job",
        step: str = "correct the options of the back end",
    ) -> DeepError:  # fmt: skip
        if answer.status == NOT_FOUND:
            return self._missing("sbatch")
        if self.login and answer.status == SSH_FAILED:
            return DeepError(
                "ssh does not get there, or not back", host=self.login, found=answer.complaint,
                needed="a host that is known, and a key that lets in without a question",
                next_step=shlex.join(("ssh", *self._settings, self.login)), exit_code=CHECK_FAILED,
            )  # fmt: skip
        return DeepError(
            said, host=self._where, found=answer.complaint, next_step=step, exit_code=CHECK_FAILED,
        )  # fmt: skip

    def _silence(self, job: str, record: Record) -> DeepError:
        return DeepError(
            f"Slurm has not answered for {PATIENCE} s", host=self._where, found=record.reason,
            next_step=f"scancel {job}, when it answers again", exit_code=CHECK_FAILED,
        )  # fmt: skip

    def _missing(self, program: str) -> DeepError:
        if program == SSH[0]:
            return DeepError(f"program not found: {program}", host=machine_name(), next_step="install OpenSSH's client")
        step = (
            "install it there" if self.login else "run it where Slurm's commands are, or give --option login=USER@HOST"
        )
        return DeepError(f"program not found: {program}", host=self._where, next_step=step)

    @property
    def _settings(self) -> tuple[str, ...]:
        return ("-F", str(self.ssh_config)) if self.ssh_config else ()

    @property
    def _where(self) -> str:
        return self.login or machine_name()

    @property
    def _place(self) -> str:
        return f"{self.folder.rstrip('/')}/{self._name}"

    def _file(self, kind: str) -> str:
        return f"{self._place}/{kind}"

    def _tidy(self) -> None:
        self._call("rm", "-rf", "--", self._place)

    def _call(self, *command: str, given: str = "") -> Answer:
        """Run a command where Slurm's are, whatever comes of it."""
        words = list(command)
        if self.login:
            words = [*SSH, *self._settings, self.login, shlex.join(command)]
        try:
            done = subprocess.run(words, input=given.encode(), capture_output=True, check=False, timeout=CALL)
        except FileNotFoundError as missing:
            raise self._missing(words[0]) from missing
        except subprocess.TimeoutExpired:
            return Answer(SSH_FAILED, "", f"no answer within {CALL} s")
        # Not as text: lines are counted, and only \n ends one.
        said, complaint = (one.decode(errors="replace") for one in (done.stdout, done.stderr))
        return Answer(done.returncode, said, complaint.strip())
