"""The sum over several processes, each with a GPU or a part of the processors, as data-parallel training needs it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, override

from pipelines.benchmark.model import Device, Machine, Parameters
from pipelines.benchmark.pytorch import Torch, by_device
from pipelines.benchmark.workload import Resources
from testbed.errors import DeepError
from testbed.host import machine_name

FEWEST = 2
SINGLE = 4
# Seconds until processes that wait for each other give up.
PATIENCE = 60
# Every so many elements hold numbers that are renewed for each call; those between are zero and have to stay so.
EVERY = 1024
# Numbers of a rank are below this, so that sums of a few launches are without rounding in single precision.
NUMBERS = 7


class Rank(NamedTuple):
    """One of the processes, and where they find each other."""

    number: int
    size: int
    device: str
    elements: int
    launches: int
    threads: int
    meeting: str


class AllReduce(Torch):
    """The sum of single precision numbers by NCCL, or by Gloo where there is no GPU: gigabytes a second on the bus.

    Bytes are counted as nccl-tests does for its bus bandwidth: 2 (n - 1) / n of the data, whatever the algorithm.
    """

    name = "all-reduce"
    unit = "GB/s"
    sizes: ClassVar[dict[Device, int]] = {"gpu": 1 << 30, "cpu": 64 << 20}
    often: ClassVar[dict[Device, int]] = {"gpu": 4, "cpu": 1}
    folder: tempfile.TemporaryDirectory[str]
    member: Member
    others: list[tuple[BaseProcess, Connection]]

    def __init__(self, data_bytes: int | None = None, launches: int | None = None) -> None:
        self.asked = data_bytes, launches
        self.bytes = self.launches = self.processes = 0

    @property
    def parameters(self) -> Parameters:
        """Size of the data, sums of a call, processes."""
        return {"data_bytes": self.bytes, "launches": self.launches, "processes": self.processes}

    @property
    @override
    def devices(self) -> int:
        return self.resources.gpus

    @classmethod
    @override
    def lacking(cls, resources: Resources, machine: Machine) -> DeepError | None:
        """GPUs to add up over."""
        refused = super().lacking(resources, machine)
        if refused or resources.device == "cpu":
            return refused
        found = min(resources.gpus, len(machine.gpus))
        if found >= FEWEST and resources.gpus <= len(machine.gpus):
            return None
        return DeepError(
            f"{cls.name} is done by several GPUs of one host", host=machine.host,
            found=f"{resources.gpus} of {len(machine.gpus)} GPUs asked for", needed=f"at least {FEWEST} that are there",
            next_step="deep bench run --device gpu --gpus 2",
        )  # fmt: skip

    @override
    def prepare(self) -> None:
        self.bytes = by_device(self.asked[0], self.sizes, self.resources.device)
        self.launches = by_device(self.asked[1], self.often, self.resources.device)
        self.processes = self.resources.gpus if self.resources.device == "gpu" else FEWEST
        self.work = 2.0 * (self.processes - 1) / self.processes * self.bytes * self.launches
        self.require(2 * self.bytes * (1 if self.resources.device == "gpu" else self.processes))
        self.folder = tempfile.TemporaryDirectory()  # pylint: disable=consider-using-with  # until the end
        meeting = (Path(self.folder.name) / "meeting").as_uri()
        threads = max(1, self.resources.threads // self.processes)
        ranks = [
            Rank(at, self.processes, self.device, self.bytes // SINGLE, self.launches, threads, meeting)
            for at in range(self.processes)
        ]
        self.others = [_started(rank) for rank in ranks[1:]]
        try:
            self.member = Member(ranks[0])
        except Exception:
            self._complaint()
            raise
        self._answers()

    def run(self) -> None:
        """Add up as often as a call does, together."""
        for _, line in self.others:
            line.send("run")
        self.member.run()

    def check(self) -> str | None:
        """Each process has every sum, and nothing else."""
        for _, line in self.others:
            line.send("check")
        wrong = [self.member.wrong(), *self._answers()]
        return f"the sums are wrong: {wrong} of {self.member.rank.elements} elements" if any(wrong) else None

    def _answers(self) -> list[int]:
        """What the others say when they are done."""
        found = []
        for process, line in self.others:
            if not line.poll(PATIENCE):
                raise _lost(f"process {process.pid} says nothing for {PATIENCE} s")
            try:
                said = line.recv()
            except EOFError:
                process.join(PATIENCE)
                raise _lost(f"process {process.pid} ended with {process.exitcode}") from None
            if isinstance(said, str):
                raise _failed(said)
            found.append(int(said))
        return found

    def _complaint(self) -> None:
        """Raise what one of the others has failed of, for which this process has only waited in vain."""
        for _, line in self.others:
            with contextlib.suppress(EOFError):
                if line.poll() and isinstance(said := line.recv(), str):
                    raise _failed(said)

    def teardown(self) -> None:
        """End the other processes."""
        for _, line in self.others:
            line.close()
        self.member.leave()
        for process, _ in self.others:
            process.join(PATIENCE)
            process.kill()
        self.folder.cleanup()


class Member:
    """What each of the processes does."""

    def __init__(self, rank: Rank) -> None:
        import torch

        self.rank, self.calls = rank, 0
        torch.set_num_threads(rank.threads)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if rank.device == "cuda":
            torch.cuda.set_device(rank.number)
        torch.distributed.init_process_group(
            "nccl" if rank.device == "cuda" else "gloo", init_method=rank.meeting, rank=rank.number,
            world_size=rank.size, timeout=timedelta(seconds=PATIENCE),
        )  # fmt: skip
        self.data = torch.zeros(rank.elements, dtype=torch.float32, device=rank.device)
        self.marked = self.data[::EVERY]

    def run(self) -> None:
        """New numbers, and their sums; a further launch adds up what has been added up."""
        import torch

        self.marked.copy_(self.numbers(self.rank.number))
        for _ in range(self.rank.launches):
            torch.distributed.all_reduce(self.data)
        if self.rank.device == "cuda":
            torch.cuda.synchronize()
        self.calls += 1

    def numbers(self, rank: int) -> Any:
        """What a rank starts a call with."""
        import torch

        places = torch.arange(len(self.marked), dtype=torch.float32, device=self.rank.device)
        return (places + rank).remainder_(NUMBERS).add_(1)

    def wrong(self) -> int:
        """How many elements are not what they should be; all of them before the first call."""
        import torch

        if not self.calls:
            return len(self.data)
        wanted = torch.zeros_like(self.data)
        wanted[::EVERY] = sum(self.numbers(rank) for rank in range(self.rank.size))
        wanted *= self.rank.size ** (self.rank.launches - 1)
        return int((self.data != wanted).sum())

    def leave(self) -> None:
        """Take part no longer."""
        import torch

        torch.distributed.destroy_process_group()


def serve(rank: Rank, line: Connection) -> None:
    """One of the other processes: does what it is told until nobody is there any more."""
    try:
        member = Member(rank)
        line.send(0)
        with contextlib.suppress(EOFError):
            while True:
                if line.recv() == "run":
                    member.run()
                else:
                    line.send(member.wrong())
        member.leave()
    except Exception as failure:  # pylint: disable=broad-exception-caught  # the first process says it
        line.send(f"{type(failure).__name__}: {failure}")


def _started(rank: Rank) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(rank, there), daemon=True)
    process.start()
    there.close()
    return process, here


def _failed(said: str) -> DeepError:
    return DeepError("one of the processes has failed", host=machine_name(), found=said, needed="an answer of each")


def _lost(why: str) -> DeepError:
    return DeepError("the processes do not find together", host=machine_name(), found=why, needed="an answer of each")
