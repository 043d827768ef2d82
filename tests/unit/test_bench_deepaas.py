"""The back end for the module ``benchmark``: a module that refuses, restarts, fails or is not trusted is no figure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipelines.benchmark import backends
from pipelines.benchmark.backends import Backend
from testbed.errors import DeepError
from tests.unit.bench_toys import SPECIFICATION, run
from tests.unit.login_issuer import Authority, listening

Answer = tuple[int, Any]
RUN = run()
BEGUN = (200, {"uuid": "7", "status": "running"})
RUNNING = (200, {"status": "running"})
DONE = (200, {"status": "done", "result": {"output": {"run": RUN.model_dump(mode="json")}}})
PATH = "/v2/models/benchmark/train"


class Module(BaseHTTPRequestHandler):
    """Answers what a test says, the last answer again and again; writes down what it was asked."""

    answers: ClassVar[dict[str, list[Answer]]]
    asked: ClassVar[list[tuple[str, str, str]]]
    sent: ClassVar[dict[str, Any]]

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if body:
            self.sent.update(json.loads(body))
        answers = self.answers[self.command]
        status, found = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", found)
        self.end_headers()
        self.wfile.write(found if isinstance(found, bytes) else json.dumps(found).encode())

    do_POST = do_DELETE = do_GET  # noqa: N815  # the names are the library's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
        pass


@pytest.fixture(autouse=True)
def address() -> Iterator[str]:
    Module.answers = {"POST": [BEGUN], "GET": [RUNNING, DONE], "DELETE": [(200, {})]}
    Module.asked, Module.sent = [], {}
    with listening(Module, None) as port:
        yield f"http://127.0.0.1:{port}"


def backend(address: str, **options: str) -> Backend:
    return backends.load("deepaas", {"url": address, "pause": "0.01", "patience": "0.05", **options})


def brought(address: str, **options: str) -> Any:
    return backends.run(backend(address, **options), SPECIFICATION)


def commands() -> list[str]:
    return [command for command, _, _ in Module.asked]


def test_a_specification_is_sent_and_its_run_brought_back(address: str) -> None:
    done = brought(f"{address}/", timeout="50")
    assert done.results == RUN.results
    assert (done.submission.backend, done.submission.job) == ("deepaas", "7")
    assert Module.sent == {"specification": SPECIFICATION.model_dump(mode="json"), "timeout": 50}
    assert [path for _, path, _ in Module.asked] == [f"{PATH}/", f"{PATH}/7", f"{PATH}/7", f"{PATH}/7"]
    assert commands() == ["POST", "GET", "GET", "DELETE"]


@pytest.mark.parametrize(
    ("status", "said", "help_"),
    [
        (401, "refuses the measurement .found: HTTP status 401", "token_file"),
        (403, "refuses the measurement .found: HTTP status 403", "ask whoever runs"),
        (404, "refuses the measurement .found: HTTP status 404", "--option url="),
        (422, "HTTP status 422: .*no such thing", "correct"),
        (500, "the module fails .found: HTTP status 500", "deep modules status"),
        (503, "the module fails .found: HTTP status 503", "deep modules status"),
    ],
)
def test_a_module_that_does_not_take_it_is_no_figure(address: str, status: int, said: str, help_: str) -> None:
    Module.answers["POST"] = [(status, {"workloads": ["no such thing"]})]
    with pytest.raises(DeepError, match=said) as told:
        brought(address)
    assert told.value.exit_code == 1
    assert help_ in str(told.value.next_step)
    assert commands() == ["POST"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, b"<html>\nlog in</html>"), "what answers is not DEEPaaS .found: <html> log in</html>; needed: .*'uuid'"),
        ((200, {}), "what answers is not DEEPaaS .found: {}"),
        ((200, []), "what answers is not DEEPaaS"),
        ((200, {"uuid": None}), "what answers is not DEEPaaS"),
        ((302, "https://login.example.org/"), "sends on to another address .*302: https://login.example.org/"),
    ],
)
def test_what_is_no_module_is_told(address: str, answer: Answer, said: str) -> None:
    Module.answers["POST"] = [answer]
    with pytest.raises(DeepError, match=f"{address}: .*{said}") as told:
        brought(address)
    assert told.value.exit_code == 1
    assert "--option url=" in str(told.value.next_step)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ((200, {"status": "error", "message": "node1: no GPU to measure"}), "the job failed.*no GPU to measure"),
        ((200, {"status": "cancelled"}), "was cancelled.*by somebody else"),
        ((200, {"status": "done", "result": {"output": {}}}), "the job failed.*answered without a run"),
        ((200, {"status": "done", "result": {"output": None}}), "the job failed.*answered without a run"),
        ((404, {}), "was lost.*restarted, or somebody cancelled"),
        ((502, {}), r"was lost.*no answer for 0\.05 s.*HTTP status 502"),
        ((401, {}), "refuses the measurement.*HTTP status 401"),
        ((200, {"status": "done", "result": ["x"]}), "the job failed.*answered without a run"),
        ((200, {}), "what answers is not DEEPaaS.*'status'"),
        ((200, b"<html>log in</html>"), "what answers is not DEEPaaS.*log in"),
    ],
)
def test_a_training_that_ends_otherwise_is_no_figure(address: str, then: Answer, said: str) -> None:
    Module.answers["GET"] = [RUNNING, then]
    with pytest.raises(DeepError, match=said) as told:
        brought(address)
    assert told.value.exit_code == 1
    assert commands()[-1] == "DELETE"


def test_a_short_silence_is_waited_out(address: str) -> None:
    Module.answers["GET"] = [RUNNING, (503, {}), (502, {}), RUNNING, DONE]
    assert brought(address, patience="60").results == RUN.results


def test_a_module_that_is_gone_is_lost_and_may_go_on_measuring(address: str) -> None:
    one = backend(address)
    job = one.submit(SPECIFICATION)
    gone = backend("http://127.0.0.1:9")
    assert list(gone.lines(job))[-1:] in ([], [None])
    assert gone.end(job).fate == "lost"
    for ask in (lambda: gone.remove(job), lambda: gone.submit(SPECIFICATION)):
        with pytest.raises(DeepError, match="the module does not answer"):
            ask()


def test_a_training_that_may_not_be_cancelled_may_be_left_behind(address: str) -> None:
    Module.answers["DELETE"] = [(403, {})]
    notes: list[str] = []
    assert backends.run(backend(address), SPECIFICATION, notes.append).results == RUN.results
    assert "may be left behind: " in notes[-1]
    for status in (404, 500):
        Module.answers["DELETE"] = [(status, {})]
        backends.run(backend(address), SPECIFICATION, notes.append)
        assert "left behind" not in notes[-1]


def test_its_certificate_is_verified_and_a_token_is_sent_to_it_alone(tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "token").write_text("secret\n")
    with listening(Module, authority.context("localhost", tmp_path)) as port:
        address = f"https://localhost:{port}"
        with pytest.raises(DeepError, match=r"is not trusted.*CERTIFICATE_VERIFY_FAILED") as told:
            brought(address)
        assert told.value.next_step == "--option ca=FILE"
        assert not Module.asked
        assert brought(address, ca=str(tmp_path / "ca.crt"), token_file=str(tmp_path / "token")).results
    assert {token for _, _, token in Module.asked} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "node1:5000"}, r"url: found 'node1:5000', needed http\(s\)://HOST"),
        ({"url": "http://node1:99999"}, "url: Port out of range"),
        ({"url": "http://[::1"}, "url: Invalid IPv6 URL"),
        ({"url": "http://node..1"}, "url: .*label empty"),
        ({"url": "https://me:secret@node1"}, "^(?!.*secret).*url: a user or password is not taken, .* and token_file"),
        ({"url": "http://node1", "token_file": "/token"}, "a token is sent to an address with https only"),
        ({}, "url: is missing"),
    ],
)
def test_wrong_options_are_told_before_anything_is_sent(options: dict[str, str], said: str) -> None:
    with pytest.raises(DeepError, match=said):
        backends.load("deepaas", options)


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("ca", None, "No such file or directory; needed: a file with certificates in PEM"),
        ("ca", b"hello", "certificate.*; needed: a file with certificates in PEM"),
        ("token_file", None, "No such file or directory; needed: a file with a token"),
        ("token_file", b"", "0 words; needed: a file with a token"),
        ("token_file", b"two words", "2 words; needed: a file with a token"),
        ("token_file", "schl\u00fcssel".encode(), "'ascii' codec"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, option: str, text: bytes | None, said: str) -> None:
    file = tmp_path / "file"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(DeepError, match=f"the option {option} cannot be used .found: {file}: .*{said}") as told:
        brought("https://127.0.0.1:9", **{option: str(file)})
    assert told.value.next_step == f"--option {option}=FILE"
