"""A container as a back end: what it may do, and every way in which it can end, by an engine of dictionaries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from docker.errors import ImageNotFound

from pipelines.benchmark import backends
from pipelines.benchmark.backends.docker import LABEL, Docker
from pipelines.benchmark.model import Plan, Run, Specification
from testbed import engine
from testbed.errors import DeepError
from tests.unit.bench_toys import SPECIFICATION, run
from tests.unit.fake_docker import api_error

RUN = run()
DONE = json.dumps({"run": RUN.model_dump(mode="json")}).encode() + b"\n"
EXITED = {"Status": "exited", "ExitCode": 0, "OOMKilled": False, "Error": ""}
GONE = requests.ConnectionError("connection refused")


class Engine:
    """One container that says and becomes what it is told to; ``wrong``: what a call raises."""

    def __init__(self) -> None:
        self.said, self.words = [DONE], b""
        self.state: dict[str, Any] = dict(EXITED)
        self.wrong: dict[str, Exception] = {}
        self.calls: list[str] = []
        self.created: dict[str, Any] = {}
        self.attrs = {"State": self.state}
        self.name = ""
        self.api = SimpleNamespace(base_url="engine")
        self.containers = SimpleNamespace(create=self._create, get=lambda _: self._call("get", self))
        self.images = SimpleNamespace(pull=lambda name: self._call(f"pull {name}", None))

    def _call(self, what: str, answer: Any) -> Any:
        self.calls.append(what)
        if what in self.wrong:
            raise self.wrong[what]
        return answer

    def _create(self, image: str, **settings: Any) -> Any:
        self.created = {"image": image, **settings}
        self.name = settings["name"]
        if isinstance(self.wrong.get("create"), ImageNotFound) and f"pull {image}" in self.calls:
            return self
        return self._call("create", self)

    def info(self) -> dict[str, str]:
        return {"Name": "node3"}

    def start(self) -> None:
        self._call("start", None)

    def logs(self, *, stdout: bool = True, **_: Any) -> Any:
        return self._stream() if stdout else self._call("words", self.words)

    def _stream(self) -> Iterator[bytes]:
        yield from self.said
        self._call("stream", None)

    def wait(self, timeout: float) -> None:
        self._call("wait", None)

    def reload(self) -> None:
        self._call("reload", None)

    def remove(self, **options: bool) -> None:
        assert options == {"force": True, "v": True}
        self._call("remove", None)

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Engine:
    one = Engine()
    monkeypatch.setattr(engine, "client", lambda: one)
    return one


def brought(notes: list[str] | None = None, **options: str) -> Run:
    backend = backends.load("docker", {"image": "deephdc/benchmark:1", **options})
    return backends.run(backend, SPECIFICATION, (notes if notes is not None else []).append)


def test_a_container_brings_its_run_and_is_removed(there: Engine) -> None:
    done = brought()
    assert done.results == RUN.results
    assert done.submission is not None
    assert done.submission.job == there.name
    assert there.calls[-2:] == ["remove", "close"]


def test_a_container_can_do_nothing_but_compute(there: Engine) -> None:
    brought(memory="4g", cpus="1.5", cpuset="0-2,4")
    given = there.created
    assert given["image"] == "deephdc/benchmark:1"
    assert (given["network_mode"], given["read_only"], given["cap_drop"]) == ("none", True, ["ALL"])
    assert given["security_opt"] == ["no-new-privileges"]
    assert not given["user"].startswith("0")
    assert LABEL in given["labels"]
    assert (given["mem_limit"], given["memswap_limit"], given["nano_cpus"]) == (4 * 2**30, 4 * 2**30, 1_500_000_000)
    assert given["cpuset_cpus"] == "0-2,4"
    assert given["device_requests"] == []
    assert given["entrypoint"][-1] == "pipelines.benchmark.job"
    environment = given["environment"]
    assert Specification.model_validate_json(environment["DEEP_BENCH_SPECIFICATION"]) == SPECIFICATION
    assert environment["DEEP_BENCH_HOST"] == "node3"


@pytest.mark.parametrize(
    ("memory", "size"),
    [
        ("4G", 4 * 2**30), ("512MB", 512 * 2**20), ("1.5gib", 3 * 2**29), ("70000k", 70000 * 2**10), ("9000", 9000),
        ("9000b", 9000), ("1T", 2**40),
    ],
)  # fmt: skip
def test_memory_is_as_docker_run_has_it(there: Engine, memory: str, size: int) -> None:
    brought(memory=memory)
    assert (there.created["mem_limit"], there.created["memswap_limit"]) == (size, size)


@pytest.mark.parametrize("memory", ["", "much", "4x", "4gg", "4ib", "-4g", "g", "4 g b"])
def test_memory_that_is_none_is_refused(memory: str) -> None:
    with pytest.raises(DeepError, match=f"memory: found '{memory}', needed an amount such as 4g"):
        backends.load("docker", {"image": "i", "memory": memory})


@pytest.mark.parametrize(
    ("devices", "request_of"),
    [
        (None, {"Driver": "", "Count": 2, "DeviceIDs": []}),
        ("GPU-1,GPU-2", {"Driver": "", "Count": 0, "DeviceIDs": ["GPU-1", "GPU-2"]}),
        ("nvidia.com/gpu=0", {"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=0"]}),
    ],
)
def test_gpus_are_requested_of_the_engine(there: Engine, devices: str | None, request_of: dict[str, Any]) -> None:
    one = Docker(image="image", devices=devices)
    one.submit(Specification(plan=Plan(device="gpu", gpus=2)))
    (found,) = there.created["device_requests"]
    assert found == {**request_of, "Capabilities": [["gpu"]], "Options": {}}


@pytest.mark.parametrize(
    ("state", "words", "said"),
    [
        ({"ExitCode": 137, "OOMKilled": True}, b"", "ran out of memory.*its limit is 64m"),
        ({"ExitCode": 137}, b"", "was lost.*ended from outside with SIGKILL"),
        ({"ExitCode": 143}, b"", "was lost.*SIGTERM"),
        ({"ExitCode": 1}, b"Traceback\nValueError: no luck\n", "failed.*exit status 1: ValueError: no luck"),
        ({"ExitCode": 127, "Error": "no such program"}, b"", "failed.*exit status 127: no such program"),
        ({"ExitCode": 0}, b"", "failed.*exit status 0: it said nothing"),
    ],
)
def test_a_container_that_ends_otherwise_is_told_as_what_it_is(
    there: Engine, state: dict[str, Any], words: bytes, said: str
) -> None:
    there.said, there.words = [b"a warning\n"], words
    there.state.update(state)
    with pytest.raises(DeepError, match=said) as told:
        brought(memory="64m")
    assert told.value.exit_code == 1
    assert "remove" in there.calls


@pytest.mark.parametrize(
    ("when", "answer"),
    [
        ("get", api_error(404, "no such container")),
        ("wait", api_error(404, "no such container")),
        ("words", api_error(409, "can not get logs from container which is dead or marked for removal")),
    ],
)
def test_a_container_that_somebody_removes_is_cancelled(there: Engine, when: str, answer: Exception) -> None:
    there.said = []
    there.wrong[when] = answer
    with pytest.raises(DeepError, match="was cancelled"):
        brought()


@pytest.mark.parametrize("when", ["start", "stream", "words"])
def test_an_engine_that_goes_away_is_told(there: Engine, when: str) -> None:
    there.said = []
    there.wrong[when] = GONE
    with pytest.raises(DeepError, match=r"Docker Engine does not answer any more.*connection refused"):
        brought()
    assert "remove" in there.calls


def test_what_the_engine_refuses_leaves_no_container(there: Engine) -> None:
    there.wrong["start"] = api_error(500, 'could not select device driver "" with capabilities: [[gpu]]')
    with pytest.raises(DeepError, match="Docker Engine refuses: could not select device driver"):
        brought()
    assert "remove" in there.calls


def test_an_image_that_is_not_there_is_pulled(there: Engine) -> None:
    there.wrong["create"] = ImageNotFound("no such image")
    assert brought().results == RUN.results
    there.calls.clear()
    there.wrong["pull deephdc/benchmark:1"] = api_error(404, "pull access denied")
    with pytest.raises(DeepError, match=r"the image cannot be had.*deephdc/benchmark:1: pull access denied"):
        brought()


def test_a_container_that_somebody_else_removes_meanwhile_is_removed(there: Engine) -> None:
    notes: list[str] = []
    there.wrong["remove"] = api_error(409, "removal is already in progress")
    brought(notes)
    assert not [note for note in notes if "left behind" in note]
    there.wrong["remove"] = api_error(500, "device is busy")
    brought(notes)
    assert "left behind" in notes[-1]


def test_options_that_no_engine_takes() -> None:
    for options, said in (
        ({}, "image.*is missing"),
        ({"image": "i", "memory": "much"}, "memory"),
        ({"image": "i", "cpus": "0"}, "cpus"),
    ):
        with pytest.raises(DeepError, match=f"docker does not take these options.*{said}"):
            backends.load("docker", options)
