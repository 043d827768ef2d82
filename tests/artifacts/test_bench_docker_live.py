"""Benchmarks in containers of a real engine: what comes back, and what is said where nothing can."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.benchmark import backends
from pipelines.benchmark.backends.docker import LABEL
from pipelines.benchmark.machine import fingerprint
from pipelines.benchmark.model import Plan, Run, Specification
from testbed import engine
from testbed.errors import DeepError
from testbed.host import machine_name
from tests.artifacts.module_containers import benchmarks

pytestmark = pytest.mark.live

DEEP = Path(sys.executable).with_name("deep")
SHORT = Plan(processes=1, repeats=20, limit=60)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image of the artefact store. Built, if it is not there yet."""
    with benchmarks("test-docker") as name:
        yield name


@pytest.fixture(autouse=True)
def nothing_left(image: str) -> Iterator[None]:
    """No container is left by a test, however its job has ended."""
    yield
    assert containers() == []


def containers() -> list[Any]:
    return list(engine.client().containers.list(all=True, filters={"label": LABEL}))


def brought(image: str, plan: Plan = SHORT, **options: str) -> Run:
    return backends.run(
        backends.load("docker", {"image": image, **options}), Specification(workloads=("gemm-fp64",), plan=plan)
    )


def meanwhile(action: Callable[[Any], None]) -> threading.Thread:
    """Do something to the container once it runs."""

    def act() -> None:
        deadline = time.monotonic() + 60
        while not (running := [one for one in containers() if one.status == "running"]):
            assert time.monotonic() < deadline, "no container runs"
            time.sleep(0.1)
        action(running[0])

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_figure_comes_back_of_the_same_device_as_outside(image: str) -> None:
    done = brought(image)
    (found,) = done.results
    assert found.summary is not None
    assert found.device == fingerprint().device("cpu")
    assert done.machine.host == machine_name()
    assert done.machine.container == "docker"
    assert done.submission is not None
    assert done.submission.waited > 0


def test_a_quota_and_a_set_of_processors_are_devices_of_their_own(image: str) -> None:
    for done in (brought(image, cpus="1"), brought(image, cpuset="0")):
        (found,) = done.results
        assert (found.device.rpartition(", ")[2], found.threads) == ("1 CPUs", 1)


def test_a_job_without_memory_is_told_to_have_run_out_of_it(image: str) -> None:
    with pytest.raises(DeepError, match=r"ran out of memory.*its limit is 16m"):
        brought(image, memory="16m")


def test_a_workload_without_memory_has_no_figure_and_the_reason(image: str) -> None:
    plan = SHORT.model_copy(update={"parameters": {"gemm-fp64": {"size": 8192}}})
    (found,) = brought(image, plan, memory="300m").results
    assert (found.status, found.summary) == ("invalid", None)
    assert "memory ran out" in found.reasons[0]


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda container: container.kill(), "was lost.*SIGKILL"),
        (lambda container: container.remove(force=True), "was cancelled.*somebody has removed"),
    ],
)
def test_a_container_that_somebody_ends(image: str, action: Callable[[Any], None], said: str) -> None:
    thread = meanwhile(action)
    with pytest.raises(DeepError, match=said):
        brought(image)
    thread.join()


def test_a_program_that_is_not_in_the_image_is_told(image: str) -> None:
    with pytest.raises(DeepError, match=r"Docker Engine refuses: .*/usr/bin/python9"):
        brought(image, command="/usr/bin/python9")


def test_a_gpu_that_the_engine_cannot_give_is_refused(image: str) -> None:
    if not engine.client().info()["Runtimes"].keys() & {"nvidia"}:
        with pytest.raises(DeepError, match="Docker Engine refuses: could not select device driver"):
            backends.run(backends.load("docker", {"image": image}), Specification(plan=Plan(device="gpu")))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_no_container(image: str, number: signal.Signals, tmp_path: Path) -> None:
    argv = [str(DEEP), "bench", "run", "gemm-fp64", "--on=docker", f"--option=image={image}", f"--store={tmp_path}"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        meanwhile(lambda _: process.send_signal(number)).join()
        assert process.wait(timeout=60) != 0
