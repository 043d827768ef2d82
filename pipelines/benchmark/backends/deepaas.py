"""Runs a specification as a training of the module ``benchmark``, wherever that is deployed."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, override
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, Field, model_validator

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
ELSEWHERE = "name the module's own address (--option url=), or a file with a token (--option token_file=)"


def _address(text: str) -> str:
    """Raise ``ValueError`` for what names no host, for a port that is none, and for a password, which others see."""
    found = urlsplit(text)
    if "@" in found.netloc:
        raise ValueError("a user or password is not taken, needed http(s)://HOST[:PORT][/PATH], and token_file")
    _ = found.port, (found.hostname or "").encode("idna")
    return text


class Deepaas(Backend):
    """The address of a module, and how it is trusted.

    ``ca``: a file with the authority that signs for it, beside those of the system. ``token_file``: holds a token that
    something in front of the module asks for; never on the command line. ``pause``: seconds between two questions;
    ``patience``: seconds without an answer, as during a restart, after which a training is lost.
    """

    name: ClassVar[str] = "deepaas"
    url: Annotated[str, AfterValidator(_address)] = Field(
        pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$", description="http(s)://HOST[:PORT][/PATH]"
    )
    ca: Path | None = None
    token_file: Path | None = None
    model: str = Field(default="benchmark", pattern=r"^[a-z][a-z0-9_]*$", description="a name such as benchmark")
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
        return str(self._said(answer, "uuid")["uuid"])

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
        answer = self._ask("DELETE", job)
        # Of a training that it has cancelled DEEPaaS 2.6 says that it has failed to.
        if answer.is_client_error and answer.status_code != httpx.codes.NOT_FOUND:
            raise self._refused(answer)

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
        return self._said(answer, "status")

    def _said(self, answer: httpx.Response, key: str) -> dict[str, Any]:
        """What DEEPaaS says, with a text of this key; what says anything else, such as a page to log in, is none."""
        try:
            said = answer.json()
        except ValueError:
            said = None
        if isinstance(said, dict) and isinstance(said.get(key), str):
            return said
        raise DeepError(
            "what answers is not DEEPaaS", host=self.url, found=" ".join(answer.text.split())[:LONGEST] or "nothing",
            needed=f"JSON with '{key}'", next_step=ELSEWHERE, exit_code=CHECK_FAILED,
        )  # fmt: skip

    def _ask(self, method: str, job: str, **more: Any) -> httpx.Response:
        trust, headers = self._trust(), self._headers()
        address = f"{self.url.rstrip('/')}/v2/models/{self.model}/train/{job}"
        try:
            with httpx.Client(verify=trust, timeout=30, headers=headers) as client:
                return client.request(method, address, **more)
        except httpx.RequestError as failed:
            said = str(failed) or type(failed).__name__
            untrusted = "CERTIFICATE_VERIFY_FAILED" in said
            raise DeepError(
                f"the module {'is not trusted' if untrusted else 'does not answer'}", host=self.url, found=said,
                needed="a certificate that the system or 'ca' signs for" if untrusted else "DEEPaaS",
                next_step="--option ca=FILE" if untrusted else "deep modules status benchmark", exit_code=CHECK_FAILED,
            ) from failed  # fmt: skip

    def _trust(self) -> ssl.SSLContext:
        trust = ssl.create_default_context()
        with _file("ca", self.ca, "certificates in PEM"):
            if self.ca:
                trust.load_verify_locations(self.ca)
        return trust

    def _headers(self) -> dict[str, str]:
        with _file("token_file", self.token_file, "a token"):
            token = self.token_file.read_text(encoding="ascii").split() if self.token_file else []
            if self.token_file and len(token) != 1:
                raise ValueError(f"{len(token)} words")
        return {"Authorization": f"Bearer {token[0]}"} if token else {}

    def _refused(self, answer: httpx.Response) -> DeepError:
        text = answer.headers.get("Location", answer.text)[:LONGEST]
        what, step = "fails", "deep modules status benchmark"
        if answer.is_client_error:
            what, step = "refuses the measurement", NEXT.get(answer.status_code, step)
        elif answer.is_redirect:
            what, step = "sends on to another address", ELSEWHERE
        return DeepError(
            f"the module {what}", host=self.url, found=f"HTTP status {answer.status_code}: {text}", next_step=step,
            exit_code=CHECK_FAILED,
        )  # fmt: skip


@contextlib.contextmanager
def _file(option: str, file: Path | None, needed: str) -> Iterator[None]:
    """What reads the file of an option fails with its name, which what ``ssl`` raises lacks."""
    try:
        yield
    except (OSError, ValueError) as failed:
        why = getattr(failed, "strerror", None) or failed
        raise DeepError(
            f"the file of the option {option} cannot be used", found=f"{file}: {why}", needed=f"a file with {needed}",
            next_step=f"--option {option}=FILE",
        ) from failed  # fmt: skip


def _run(now: dict[str, Any]) -> Any:
    """The run in what a training that is done has left."""
    result = now.get("result") if now["status"] == "done" else None
    output = result.get("output") if isinstance(result, dict) else None
    return output.get("run") if isinstance(output, dict) else None
