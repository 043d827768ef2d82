"""Runs a specification as a training of the module ``benchmark``, wherever that is deployed."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, override

import httpx
from pydantic import Field, model_validator

from pipelines.benchmark.backends import Backend, End
from pipelines.benchmark.model import Specification
from testbed.errors import CHECK_FAILED, DeepError

RUNNING = "running"
LONGEST = 300  # characters of an answer that are shown
NEXT = {
    401: "name a file with a token: --option token_file=",
    403: "ask whoever runs the module for access",
    404: "name the address that 'deep modules status benchmark' shows: --option url=",
    422: "correct what it says",
}


class Deepaas(Backend):
    """The address of a module, and how it is trusted.

    ``ca``: a file with the authority that signs for it, beside those of the system. ``token_file``: holds a token that
    something in front of the module asks for; never on the command line. ``pause``: seconds between two questions;
    ``patience``: seconds without an answer, as during a restart, after which a training is lost.
    """

    name: ClassVar[str] = "deepaas"
    url: str = Field(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$")
    ca: Path | None = None
    token_file: Path | None = None
    model: str = Field(default="benchmark", pattern=r"^[a-z][a-z0-9_]*$")
    pause: float = Field(default=2.0, gt=0)
    patience: float = Field(default=60.0, ge=0)

    @model_validator(mode="after")
    def _private(self) -> Deepaas:
        if self.token_file and not self.url.startswith("https://"):
            raise ValueError("token_file: a token is sent to an address with https only")
        return self

    @override
    def submit(self, specification: Specification) -> str:
        body = {"specification": specification.model_dump(mode="json"), "timeout": self.timeout}
        answer = self._ask("POST", "", json=body)
        if answer.status_code != httpx.codes.OK:
            raise self._refused(answer)
        return str(answer.json()["uuid"])

    @override
    def lines(self, job: str) -> Iterator[str | None]:
        heard, status = time.monotonic(), ""
        while (now := self._now(job)).get("status", RUNNING) == RUNNING:
            if "status" in now:
                heard = time.monotonic()
            elif time.monotonic() - heard > self.patience:
                return
            yield None if now.get("status", status) == status else json.dumps({"note": f"training {job} is running"})
            status = now.get("status", status)
            time.sleep(self.pause)
        run = _run(now)
        if run is not None:
            yield json.dumps({"run": run})

    @override
    def end(self, job: str) -> End:
        now = self._now(job)
        said = str(now.get("message", ""))[:LONGEST]
        match now.get("status"):
            case "error":
                return End("failed", said)
            case "cancelled":
                return End("cancelled", "by somebody else")
            case "done":
                return End("failed", "the module has answered without a run")
            case "gone":
                return End(
                    "lost", "the module knows nothing of it: it was restarted, or somebody cancelled the training"
                )
        return End("lost", f"no answer for {self.patience:g} s: {said}")

    @override
    def remove(self, job: str) -> None:
        # A module that does not answer cannot be asked for more.
        with contextlib.suppress(DeepError):
            self._ask("DELETE", job)

    def _now(self, job: str) -> dict[str, Any]:
        """What the module says of a training; ``gone`` where it knows of none, no status where it does not answer."""
        try:
            answer = self._ask("GET", job)
        except DeepError as failed:
            return {"message": str(failed)}
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {"status": "gone"}
        if answer.is_server_error:
            return {"message": str(self._refused(answer))}
        if answer.status_code != httpx.codes.OK:
            raise self._refused(answer)
        return dict(answer.json())

    def _ask(self, method: str, job: str, **more: Any) -> httpx.Response:
        trust = ssl.create_default_context()
        try:
            if self.ca:
                trust.load_verify_locations(self.ca)
            token = self.token_file.read_text(encoding="utf-8").strip() if self.token_file else ""
        except OSError as failed:
            raise DeepError(f"cannot use a file of the back end {self.name}", found=str(failed)) from failed
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        address = f"{self.url.rstrip('/')}/v2/models/{self.model}/train/{job}"
        try:
            with httpx.Client(verify=trust, timeout=30, headers=headers) as client:
                return client.request(method, address, **more)
        except httpx.TransportError as failed:
            said = str(failed) or type(failed).__name__
            untrusted = "CERTIFICATE_VERIFY_FAILED" in said
            raise DeepError(
                f"the module {'is not trusted' if untrusted else 'does not answer'}", host=self.url, found=said,
                needed="a certificate that the system or 'ca' signs for" if untrusted else "DEEPaaS",
                next_step="--option ca=FILE" if untrusted else "deep modules status benchmark", exit_code=CHECK_FAILED,
            ) from failed  # fmt: skip

    def _refused(self, answer: httpx.Response) -> DeepError:
        text = f"HTTP status {answer.status_code}: {answer.text[:LONGEST]}"
        what = "refuses the measurement" if answer.is_client_error else "fails"
        return DeepError(
            f"the module {what}", host=self.url, found=text, next_step=NEXT.get(answer.status_code),
            exit_code=CHECK_FAILED,
        )  # fmt: skip


def _run(now: dict[str, Any]) -> Any:
    """The run in what a training that is done has left."""
    output = (now.get("result") or {}).get("output") if now["status"] == "done" else None
    return output.get("run") if isinstance(output, dict) else None
