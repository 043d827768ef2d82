"""The connection to Jenkins: who is asked, with what, how often, and what is said where it fails."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import keyring
import pytest
import requests
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from pipelines.jenkins import client
from pipelines.jenkins.client import NotFoundError, Server, connect
from testbed.errors import DeepError
from tests.pipelines.ancestor import free_port
from tests.pipelines.conftest import Deep
from tests.pipelines.misbehaving import Answer, Proxy, Request, Stub, listening
from tests.unit.login_issuer import Authority

TOKEN = secrets.token_hex()
HTTPS = "https://jenkins.example.org/ci"
JOBS = "GET /api/json"
BUILD = "POST /job/x/build"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JENKINS_URL", "JENKINS_USER", "JENKINS_TOKEN", "JENKINS_CA_FILE"):
        monkeypatch.delenv(name, raising=False)


def asked(server: Server) -> Any:
    return server.ask("", "jobs[name]")


def refused(server: Server) -> DeepError:
    with pytest.raises(DeepError) as caught:
        asked(server)
    assert caught.value.host == server.host
    assert caught.value.found
    assert caught.value.next_step
    return caught.value


def at(url: str, **options: Any) -> Server:
    return Server(url, **{"patience": 0, **options})


# --- which server, which user --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "no address"),
        ("jenkins.example.org", "jenkins.example.org"),
        ("ftp://jenkins.example.org", "ftp:"),
        ("https://", "https:"),
        ("https://jenkins.example.org/?tree=x", "tree"),
        ("https://admin:x@jenkins.example.org", "a user in the address"),
        ("http://jenkins.example.org", "http://jenkins.example.org"),
        ("http://127.0.0.1.example.org", "127.0.0.1.example.org"),
    ],
)
def test_an_address_that_will_not_do(url: str | None, said: str) -> None:
    with pytest.raises(DeepError) as caught:
        connect(url, say=print)
    assert said in str(caught.value.found)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("url", ["http://localhost:1", "http://127.0.0.9:1", "http://[::1]:1"])
def test_plain_http_goes_to_this_machine(url: str) -> None:
    assert connect(url, say=print).server == f"{url}/"


def test_plain_http_elsewhere_has_to_be_asked_for() -> None:
    assert connect("http://jenkins.example.org", plain_http=True, say=print).server == "http://jenkins.example.org/"


def test_the_environment_names_server_user_and_token(monkeypatch: pytest.MonkeyPatch, stub: Stub) -> None:
    monkeypatch.setenv("JENKINS_URL", stub.url)
    monkeypatch.setenv("JENKINS_USER", "somebody")
    monkeypatch.setenv("JENKINS_TOKEN", TOKEN)
    stub.answers[JOBS] = [Answer()]
    asked(connect(None, say=print))
    assert stub.asked[0].headers["Authorization"].startswith("Basic ")


def test_nobody_logs_in_without_a_user(stub: Stub) -> None:
    stub.answers[JOBS] = [Answer()]
    asked(connect(stub.url, say=print))
    assert "Authorization" not in stub.asked[0].headers


class Ring(KeyringBackend):
    """A keyring in memory; locked where there is nothing in it."""

    priority = 1

    # pylint: disable-next=super-init-not-called  # it would read the environment
    def __init__(self, kept: dict[tuple[str, str], str]) -> None:
        self.kept = kept

    def get_password(self, service: str, username: str) -> str | None:
        if not self.kept:
            raise KeyringLocked("nobody is there to open it. Really.")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("kept", "said"), [({}, "no keyring: nobody is there to open it"), ({(HTTPS, "other"): "x"}, "none in the keyring")]
)
def test_a_user_without_a_token(monkeypatch: pytest.MonkeyPatch, kept: dict[tuple[str, str], str], said: str) -> None:
    monkeypatch.setenv("JENKINS_USER", "somebody")
    monkeypatch.setattr(keyring.core, "_keyring_backend", Ring(kept))
    with pytest.raises(DeepError, match="no token of somebody") as caught:
        connect(HTTPS, say=print)
    assert said in str(caught.value.found)
    assert f"keyring set {HTTPS} somebody" in str(caught.value.next_step)


def test_a_token_of_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JENKINS_USER", "somebody")
    monkeypatch.setattr(keyring.core, "_keyring_backend", Ring({(HTTPS, "somebody"): "kept"}))
    server = connect(f"{HTTPS}/", say=print)
    assert server._auths[0][1].password == b"kept"


def test_a_file_of_authorities_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JENKINS_CA_FILE", str(tmp_path / "no.pem"))
    with pytest.raises(DeepError, match="JENKINS_CA_FILE"):
        connect(HTTPS, say=print)


# --- certificates --------------------------------------------------------------------------------------------------


def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")  # the library would believe it
    with listening(Stub({JOBS: [Answer()]}), authority.context("localhost", tmp_path)) as stub:
        url = f"https://localhost:{stub.port}"
        error = refused(at(url, patience=60))
        assert "certificate" in error.message
        assert "JENKINS_CA_FILE" in str(error.next_step)
        assert stub.asked == []
        assert asked(at(url, authority=str(tmp_path / "ca.pem"))) == {}


# --- patience ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_questions_are_asked_again(stub: Stub, status: int) -> None:
    stub.answers[JOBS] = [Answer(status), Answer(status), Answer()]
    said: list[str] = []
    assert asked(at(stub.url, patience=60, say=said.append)) == {}
    assert len(stub.asked) == 3
    assert f": {status} " in said[0]
    assert "asking again" in said[0]


def test_patience_ends(stub: Stub) -> None:
    stub.answers[JOBS] = [Answer(503, b"<html><style>x</style><h1>Please&nbsp;wait</h1></html>")]
    error = refused(at(stub.url, patience=0.05))
    assert 2 <= len(stub.asked) <= 5
    assert "503" in str(error.found)
    assert "Please wait" in str(error.found)
    assert error.exit_code == 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_changes_are_asked_for_again(stub: Stub, status: int) -> None:
    stub.answers["POST /job/x/config.xml"] = [Answer(status), Answer()]
    at(stub.url, patience=60).reconfig_job("x", "<project/>")
    assert stub.lines().count("POST /job/x/config.xml") == 2


def test_a_refused_change_is_not_asked_for_again(stub: Stub) -> None:
    page = b"<h1>500</h1><pre>java.io.IOException: Unable to read\n\tat a.B.c(B.java:1)</pre>"
    stub.answers["POST /job/x/config.xml"] = [Answer(500, page)]
    with pytest.raises(DeepError, match=r"500 [\w ]+: java\.io\.IOException: Unable to read;"):
        at(stub.url, patience=60).reconfig_job("x", "<project/>")
    assert stub.lines().count("POST /job/x/config.xml") == 1


def build(server: Server) -> None:
    server.jenkins_request(requests.Request("POST", server.build_job_url("x")))


@pytest.mark.parametrize("first", [Answer(502), Answer(504), Answer(0)])
def test_a_build_is_not_started_twice(stub: Stub, first: Answer) -> None:
    stub.answers[BUILD] = [first, Answer(201)]
    with pytest.raises(DeepError) as caught:
        build(at(stub.url, patience=60))
    assert stub.lines().count(BUILD) == 1
    assert first.status or "deep jenkins status" in str(caught.value.next_step)


def test_a_build_is_started_when_the_server_is_ready(stub: Stub) -> None:
    stub.answers[BUILD] = [Answer(503), Answer(201)]
    build(at(stub.url, patience=60))
    assert stub.lines().count(BUILD) == 2


def test_an_answer_that_was_lost(stub: Stub) -> None:
    stub.answers[JOBS] = [Answer(0), Answer()]
    assert asked(at(stub.url, patience=60)) == {}


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_DELAY", 0.01)
    said: list[str] = []
    error = refused(at(f"http://127.0.0.1:{free_port()}", patience=0.05, say=said.append))
    assert "refused" in str(error.found)
    assert error.exit_code == 1
    assert said


def test_a_server_that_does_not_answer(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.2)
    with listening(Silent()) as silent:
        error = refused(at(silent.url, patience=60))
        silent.over.set()
    assert error.message == "Jenkins does not answer"
    assert error.needed == "an answer within 0.2 s"
    assert len(silent.asked) == 1


class Silent(Proxy):
    def answer(self, request: Request) -> Answer:
        self.over.wait()
        return Answer()


# --- what is no ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "message", "step"),
    [
        (Answer(401), "does not let somebody in", "JENKINS_TOKEN"),
        (Answer(302, headers={"Location": "/loginEntry"}), "does not let somebody in", "JENKINS_TOKEN"),
        (Answer(403, b"<body>\nAuthentication required\n</body>"), "does not let somebody in", "JENKINS_TOKEN"),
        (Answer(403, headers={"X-Error": "no Read"}), "does not allow that to somebody", "ask who administers"),
        (Answer(404), "does not have that", "the address ends"),
        (Answer(301, headers={"Location": "https://elsewhere.example.org/"}), "at another address", "--url"),
        (Answer(200, b"<html>Welcome"), "no Jenkins", "correct the address"),
        (Answer(200, b""), "no Jenkins", "correct the address"),
        (Answer(400, headers={"X-Error": "bad name"}), "Jenkins refuses", "read what it says"),
    ],
)
def test_what_a_server_says_is_explained(stub: Stub, answer: Answer, message: str, step: str) -> None:
    stub.answers[JOBS] = [answer]
    error = refused(at(stub.url, user="somebody", token=TOKEN))
    assert message in error.message
    assert step in str(error.next_step)
    assert answer.headers.get("X-Error", "") in str(error.found)
    assert len(stub.asked) == 1


def test_credentials_do_not_follow_a_redirection(stub: Stub) -> None:
    with listening(Stub({JOBS: [Answer()]})) as elsewhere:
        stub.answers[JOBS] = [Answer(302, headers={"Location": f"{elsewhere.url}/api/json"})]
        error = refused(at(stub.url, user="somebody", token=TOKEN))
    assert elsewhere.url in str(error.found)
    assert elsewhere.asked == []


def test_a_change_whose_answer_leads_to_a_page_is_done(stub: Stub) -> None:
    stub.answers["POST /job/x/disable"] = [Answer(302, headers={"Location": "http://public.example.org/job/x/"})]
    at(stub.url).disable_job("x")


def test_a_change_that_is_led_elsewhere_is_not_done(stub: Stub) -> None:
    stub.answers["POST /job/x/disable"] = [Answer(301, headers={"Location": "https://a.example.org/job/x/disable"})]
    with pytest.raises(DeepError, match="at another address"):
        at(stub.url).disable_job("x")


# --- crumbs --------------------------------------------------------------------------------------------------------


def crumb(value: str) -> Answer:
    return Answer(body=json.dumps({"crumb": value, "crumbRequestField": "Jenkins-Crumb"}).encode())


def test_a_crumb_goes_with_each_change_and_is_renewed_once(stub: Stub) -> None:
    stub.answers["GET /crumbIssuer/api/json"] = [crumb("old"), crumb("new")]
    stub.answers["POST /job/x/disable"] = [Answer(), Answer(403, b"No valid crumb was included"), Answer()]
    server = at(stub.url)
    server.disable_job("x")
    server.disable_job("x")
    sent = [one.headers.get("Jenkins-Crumb") for one in stub.asked if one.line.startswith("POST")]
    assert sent == ["old", "old", "new"]


def test_a_crumb_is_for_its_own_server(stub: Stub) -> None:
    with listening(Stub()) as other:
        for one in (stub, other):
            one.answers = {
                "POST /createItem": [Answer()],
                "GET /job/x/api/json": [Answer(404), Answer(body=b'{"name": "x"}')],
            }
        stub.answers["GET /crumbIssuer/api/json"] = [crumb("x")]
        for one in (stub, other):
            at(one.url).create_job("x", "<project/>")
        posts = [each for one in (stub, other) for each in one.asked if each.line.startswith("POST")]
    assert [each.headers.get("Jenkins-Crumb") for each in posts] == ["x", None]


def test_a_server_that_wants_another_crumb_each_time(stub: Stub) -> None:
    stub.answers["GET /crumbIssuer/api/json"] = [crumb("x")]
    stub.answers["POST /job/x/disable"] = [Answer(403, b"No valid crumb was included")]
    with pytest.raises(DeepError, match="does not allow"):
        at(stub.url, user="somebody", token=TOKEN).disable_job("x")
    assert stub.lines().count("POST /job/x/disable") == 2


def test_what_is_missing_is_missing_for_the_library_too(stub: Stub) -> None:
    assert at(stub.url).get_job_name("x") is None
    with pytest.raises(NotFoundError):
        at(stub.url).get_job_config("x")


# --- on the command line -------------------------------------------------------------------------------------------


def test_an_error_is_one_json_object(deep: Deep) -> None:
    status, found = deep("status")
    assert status == 2
    assert found["error"]["found"] == "no address"
    assert "JENKINS_URL" in found["error"]["next_step"]
