"""A container of a Docker Engine: of this machine, or of the one that ``DOCKER_HOST`` names."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from string import ascii_letters
from typing import Any, override

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound
from pydantic import Field

from pipelines.benchmark.backends import COMMAND, SCRATCH, USER, Backend, Command, End, environment, last_words, ticking
from pipelines.benchmark.job import HOST
from pipelines.benchmark.model import Plan, Specification
from testbed import engine
from testbed.errors import CHECK_FAILED, DeepError

# What finds the containers of runs that were killed themselves.
LABEL = "org.deephdc.benchmark"
# Seconds that a container may take to end after it has closed its output.
ENDING = 30
LINES = 20
# Of memory, each 1024 of the one before.
UNITS = "bkmgt"
# Of those who end a container from outside; what fails by itself ends otherwise.
SIGNALS = {137: "SIGKILL", 143: "SIGTERM"}
# What the engine answers for a container that is not there, or that somebody removes right now.
GONE = (404, 409)


class Docker(Backend):
    """``image``: with Python and this package, which ``command`` starts. Whatever is not given is not limited.

    ``memory``, ``cpus`` and ``cpuset`` are as ``docker run`` has them. ``devices``: the GPUs by identifier, apart by
    commas, where not any will do; those of CDI have a ``=``.
    """

    name = "docker"
    image: str = Field(min_length=1)
    command: Command = COMMAND
    memory: str | None = Field(
        default=None, pattern=r"^(?i)[0-9]{1,15}(\.[0-9]+)?(b|[kmgt](i?b)?)?$", description="an amount such as 4g"
    )
    cpus: float | None = Field(default=None, gt=0, description="a number such as 1.5")
    cpuset: str | None = Field(default=None, pattern=r"^\d+([-,]\d+)*$", description="processors such as 0-3,8")
    devices: str | None = None

    @override
    def submit(self, specification: Specification) -> str:
        with _engine() as client:
            container = self._created(client, specification)
            try:
                container.start()
            except BaseException:
                container.remove(force=True, v=True)
                raise
            return str(container.name)

    @override
    def lines(self, job: str) -> Iterator[str | None]:
        with _engine() as client, _where_it_is():
            yield from ticking(client.containers.get(job).logs(stream=True, follow=True, stderr=False))

    @override
    def end(self, job: str) -> End:
        with _engine() as client, _where_it_is():
            container = client.containers.get(job)
            container.wait(timeout=ENDING)
            container.reload()
            words = container.logs(stdout=False, tail=LINES).decode(errors="replace")
            return self._end(container.attrs["State"], last_words(words))
        return End("cancelled", "somebody has removed the container")

    @override
    def remove(self, job: str) -> None:
        with _engine() as client, _where_it_is():
            client.containers.get(job).remove(force=True, v=True)

    def _created(self, client: docker.DockerClient, specification: Specification) -> Any:
        settings = self._settings(client, specification)
        try:
            return client.containers.create(self.image, **settings)
        except ImageNotFound:
            self._pull(client)
            return client.containers.create(self.image, **settings)

    def _pull(self, client: docker.DockerClient) -> None:
        try:
            client.images.pull(self.image)
        except APIError as refused:
            raise DeepError(
                "the image cannot be had", host=client.api.base_url, found=f"{self.image}: {refused.explanation}",
                needed="an image that is there, or a registry that has it", next_step="docker images",
                exit_code=CHECK_FAILED,
            ) from refused  # fmt: skip

    def _settings(self, client: docker.DockerClient, specification: Specification) -> dict[str, Any]:
        """Of a container that can do nothing but compute and write to its scratch space."""
        memory = _bytes(self.memory) if self.memory else None
        return {
            "name": f"deep-bench-{secrets.token_hex(4)}",
            "labels": {LABEL: ""},
            "entrypoint": list(self.command),
            "environment": environment(specification) | {HOST: client.info()["Name"]},
            "user": f"{USER}:{USER}",
            "read_only": True,
            "tmpfs": {SCRATCH: "rw,exec,nosuid,nodev,mode=1777"},
            "shm_size": "1g",
            "network_mode": "none",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            # Output is read back; the engine's own choice may be a driver that cannot do that.
            "log_config": docker.types.LogConfig(type="json-file"),
            "device_requests": self._gpus(specification.plan),
            "mem_limit": memory,
            "memswap_limit": memory,  # of both together: no swap
            "nano_cpus": int(self.cpus * 1e9) if self.cpus else None,
            "cpuset_cpus": self.cpuset,
        }

    def _gpus(self, plan: Plan) -> list[Any]:
        if plan.device == "cpu":
            return []
        if not self.devices:
            return [docker.types.DeviceRequest(count=plan.gpus, capabilities=[["gpu"]])]
        names = self.devices.split(",")
        driver = "cdi" if "=" in names[0] else ""
        return [docker.types.DeviceRequest(driver=driver, device_ids=names, capabilities=[["gpu"]])]

    def _end(self, state: dict[str, Any], words: str) -> End:
        status = state["ExitCode"]
        if state["OOMKilled"]:
            return End("out of memory", f"its limit is {self.memory}" if self.memory else "it has no limit of its own")
        if status in SIGNALS:
            whom = "by somebody, or by the kernel where the machine has no memory left"
            return End("lost", f"ended from outside with {SIGNALS[status]}: {whom}")
        return End("failed", f"exit status {status}: {words or state['Error'] or 'it said nothing'}")


def _bytes(amount: str) -> int:
    """An amount as ``docker run`` reads it; the library knows some of its units only."""
    number = amount.rstrip(ascii_letters)
    unit = amount[len(number) :][:1].lower() or UNITS[0]
    return int(float(number) * 1024 ** UNITS.index(unit))


@contextmanager
def _engine() -> Iterator[docker.DockerClient]:
    """A client of the engine; what it raises becomes a ``DeepError``."""
    client = engine.client()
    try:
        yield client
    except APIError as refused:
        raise DeepError(
            f"Docker Engine refuses: {refused.explanation or refused}", host=client.api.base_url,
            next_step="correct the options of the back end", exit_code=CHECK_FAILED,
        ) from refused  # fmt: skip
    except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as failed:
        raise DeepError(
            "Docker Engine does not answer any more", host=client.api.base_url, found=str(failed),
            next_step="read the engine's log", exit_code=CHECK_FAILED,
        ) from failed  # fmt: skip
    finally:
        client.close()


@contextmanager
def _where_it_is() -> Iterator[None]:
    """Do something with a container, as far as it is still there."""
    try:
        yield
    except APIError as refused:
        if refused.status_code not in GONE:
            raise
