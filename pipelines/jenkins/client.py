"""A connection to Jenkins: python-jenkins, with verified TLS, patience, and errors that a person can act on."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import time
from collections.abc import Callable
from html import unescape
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import jenkins  # type: ignore[import-untyped]  # it has no types
import requests
from urllib3.exceptions import NewConnectionError

from testbed.errors import CHECK_FAILED, DeepError

TIMEOUT = 60.0  # seconds that one answer may take
PATIENCE = 60.0  # seconds for which a server that is away is asked again
FIRST_DELAY, LONGEST_DELAY = 0.5, 8.0  # seconds between two attempts; doubled each time
ONCE = ("/build", "/buildWithParameters")  # asked twice, a build may run twice
ANONYMOUS = "anonymous"
# What Jenkins has once, whatever folder the address is of.
WHOLE = ("crumbIssuer/", "queue/")
LOGIN = re.compile(r"/(login|loginEntry|securityRealm)\b")
STRANGER = "Authentication required"  # said with 403 to whoever is not logged in, whatever was sent

Say = Callable[[str], None]


class NotFoundError(DeepError, jenkins.NotFoundException):  # type: ignore[misc]  # the library has no types
    """The server has no such thing, as the library wants to hear it."""


class RefusedError(DeepError):
    """The server answers that it does not, or cannot, do what was asked of it."""


class Server(jenkins.Jenkins):  # type: ignore[misc]  # the library has no types
    """One server, asked as one user (anonymously where none is given); whatever fails is a ``DeepError``.

    ``authority`` is a file of certificates to trust in place of the system's. ``patience`` is for how many seconds a
    server that is away, or starting, is asked again; ``say`` hears of it.
    """

    def __init__(
        self,
        url: str,
        user: str | None = None,
        token: str | None = None,
        *,
        authority: str | None = None,
        patience: float = PATIENCE,
        say: Say = lambda _line: None,
    ) -> None:
        super().__init__(url, user, token, timeout=TIMEOUT)
        self.host = urlsplit(url).netloc
        self.user = user or ANONYMOUS
        self.patience = patience
        self.say = say
        self._session.verify = authority or True  # whatever the environment says of PYTHONHTTPSVERIFY
        self._session.trust_env = not is_loopback(url)  # no proxy leads to this machine itself

    def ask(self, path: str, tree: str) -> Any:
        """What the server says of ``path`` (with a slash at its end); ``tree`` names the fields."""
        request = requests.Request("GET", self._build_url(f"{path}api/json"), params={"tree": tree})
        text = self.jenkins_open(request)
        try:
            return json.loads(text)
        except ValueError:
            raise DeepError(
                "what answers is no Jenkins",
                host=self.host,
                found=text[:80] or "an empty answer",
                needed="JSON",
                next_step=f"correct the address {self.server}: it ends where the page of all jobs is",
            ) from None

    def _build_url(self, format_spec: str, variables: dict[str, str] | None = None) -> str:
        """The address of something: jobs and views are below ``server``, which may be the page of a folder."""
        built: str = super()._build_url(format_spec, variables)
        if not format_spec.startswith(WHOLE):
            return built
        whole = str(self.server).partition("/job/")[0].rstrip("/")
        return f"{whole}/{built.removeprefix(self.server)}"

    def jenkins_request(
        self, req: requests.Request, add_crumb: bool = True, resolve_auth: bool = True, stream: bool | None = None
    ) -> requests.Response:
        """The answer to one request, asked again while that may help; the library sends all of its own this way."""
        if resolve_auth:
            self._maybe_add_auth()
        crumb = add_crumb and req.method != "GET"
        if crumb:
            req.headers = dict(req.headers)  # the library has one for all requests, to whatever server
            self.maybe_add_crumb(req)
        answer = self._patiently(req, stream)
        if crumb and answer.status_code == HTTPStatus.FORBIDDEN and "crumb" in answer.text.lower():
            self.crumb = None  # it was of a session that has ended, for example with a restart
            self.maybe_add_crumb(req)
            answer = self._patiently(req, stream)
        return self._accepted(req, answer)

    def _request(self, req: requests.Request, stream: bool | None = None) -> requests.Response:
        """Send it; where a redirection leads is not for a client with credentials to see."""
        prepared = self._session.prepare_request(req)
        options = self._session.merge_environment_settings(prepared.url, {}, stream, self._session.verify, None)
        answer: requests.Response = self._session.send(prepared, timeout=self.timeout, allow_redirects=False, **options)
        return answer

    def _patiently(self, req: requests.Request, stream: bool | None) -> requests.Response:
        until = time.monotonic() + self.patience
        delay = FIRST_DELAY
        while True:
            answer: requests.Response | requests.RequestException
            try:
                answer = self._request(req, stream)
            except requests.RequestException as failure:
                answer = failure
            if not _may_help(req, answer) or time.monotonic() + delay > until:
                break
            self.say(f"{self.host}: {_short(answer)}; asking again in {delay:g} s")
            time.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)
        if isinstance(answer, requests.Response):
            return answer
        raise self._unreachable(req, answer) from answer

    def _unreachable(self, req: requests.Request, failure: requests.RequestException) -> DeepError:
        """What to say where no answer came."""
        message, needed, step = (
            "Jenkins cannot be reached",
            "an answer",
            f"see that {self.server} runs and is reachable",
        )
        if isinstance(failure, requests.exceptions.SSLError):
            message, needed = "the certificate of Jenkins is not trusted", "one of an authority that is"
            step = "name the file of its authority in JENKINS_CA_FILE"
        elif isinstance(failure, requests.Timeout):
            message, needed = "Jenkins does not answer", f"an answer within {self.timeout:g} s"
        if _once(req) and not _never_sent(failure):
            step = f"look with 'deep jenkins status' whether the build was started, then {step}"
        return DeepError(
            message, host=self.host, found=_short(failure), needed=needed, next_step=step, exit_code=CHECK_FAILED
        )

    def _accepted(self, req: requests.Request, answer: requests.Response) -> requests.Response:
        """The answer where it is none of an error; raises ``DeepError`` that says what to do about it."""
        status, asked = answer.status_code, urlsplit(str(answer.url))
        led = urlsplit(urljoin(str(answer.url), answer.headers.get("Location", "")))
        login = answer.is_redirect and LOGIN.search(led.path)
        if answer.ok and not (answer.is_redirect and (login or req.method == "GET" or led.path == asked.path)):
            return answer
        found = f"{req.method} {asked.path}: {_short(answer)}"
        stranger = status == HTTPStatus.FORBIDDEN and (self.user == ANONYMOUS or STRANGER in answer.text)
        if status == HTTPStatus.UNAUTHORIZED or login or stranger:
            raise DeepError(
                f"Jenkins does not let {self.user} in", host=self.host, found=found, needed="a user and an API token",
                next_step=f"set JENKINS_USER and JENKINS_TOKEN; a token is made at {self.server}me/configure",
            )  # fmt: skip
        if answer.is_redirect:
            raise DeepError(
                "Jenkins is at another address", host=self.host, found=f"{found} to {led.geturl()}",
                needed="its own address", next_step="give the one that it leads to (--url or JENKINS_URL)",
            )  # fmt: skip
        if status == HTTPStatus.FORBIDDEN:
            raise DeepError(
                f"Jenkins does not allow that to {self.user}", host=self.host, found=found,
                needed="the permissions of docs/jenkins.md", next_step="ask who administers Jenkins for them",
            )  # fmt: skip
        if status == HTTPStatus.NOT_FOUND:
            raise NotFoundError(
                "Jenkins does not have that", host=self.host, found=found, needed="a job or build that there is",
                next_step="see 'deep jenkins status', and that the address ends where the page of all jobs is",
            )  # fmt: skip
        raise RefusedError(
            "Jenkins fails" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "Jenkins refuses", host=self.host,
            found=found, needed="an answer without an error", exit_code=CHECK_FAILED,
            next_step="read what it says, and its log where that does not suffice; then run the same command again",
        )  # fmt: skip


def job_path(name: str, number: int | None = None) -> str:
    """Where a job is on a server, or one of its builds."""
    return f"job/{quote(name, safe='')}/" + (f"{number}/" if number else "")


def connect(url: str | None, *, plain_http: bool = False, patience: float = PATIENCE, say: Say) -> Server:
    """The server that ``url`` or the environment names, with the user and the token that are there.

    Read are JENKINS_URL, JENKINS_USER, JENKINS_TOKEN and JENKINS_CA_FILE, and for a user without a token the keyring:
    the entry of that user for the address. Raises ``DeepError`` before anything is sent.
    """
    address = (url or os.environ.get("JENKINS_URL") or "").rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise DeepError(
            "which Jenkins?", found=address or "no address", needed="https://HOST[:PORT][/PATH]",
            next_step="give --url, or set JENKINS_URL",
        )  # fmt: skip
    if "@" in parts.netloc:
        raise DeepError(
            "an address is no place for a password", host=parts.hostname, found="a user in the address",
            needed="the address alone", next_step="set JENKINS_USER and JENKINS_TOKEN",
        )  # fmt: skip
    if parts.scheme == "http" and not plain_http and not is_loopback(address):
        raise DeepError(
            "the token and the jobs would be sent unencrypted", host=parts.hostname, found=address, needed="https",
            next_step="give the https address; where the way there is safe otherwise: --plain-http",
        )  # fmt: skip
    authority = os.environ.get("JENKINS_CA_FILE") or None
    if authority and not os.path.isfile(authority):  # noqa: PTH113 # a name for another library
        raise DeepError(
            "JENKINS_CA_FILE names no file", found=authority, needed="certificates in PEM", next_step="correct it"
        )
    user = os.environ.get("JENKINS_USER") or None
    token = _token(address, user) if user else None
    return Server(address, user, token, authority=authority, patience=patience, say=say)


def _token(address: str, user: str) -> str:
    if given := os.environ.get("JENKINS_TOKEN"):
        return given
    import keyring  # it asks the desktop, which a server has not
    from keyring.errors import KeyringError

    try:
        kept, reason = keyring.get_password(address, user), "none in the keyring"
    except KeyringError as failure:
        kept, reason = None, f"no keyring: {str(failure).partition('.')[0]}"
    if kept:
        return kept
    raise DeepError(
        f"no token of {user}", host=urlsplit(address).netloc, found=f"JENKINS_TOKEN is empty, {reason}",
        needed="an API token", next_step=f"set JENKINS_TOKEN, or run: keyring set {address} {user}",
    )  # fmt: skip


def is_loopback(url: str) -> bool:
    """Whether an address is one of this machine alone."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _once(req: requests.Request) -> bool:
    return urlsplit(str(req.url)).path.endswith(ONCE)


def _never_sent(failure: requests.RequestException) -> bool:
    """Whether there was no connection at all."""
    cause = failure.args[0] if failure.args else None
    return isinstance(getattr(cause, "reason", cause), NewConnectionError)


def _may_help(req: requests.Request, answer: requests.Response | requests.RequestException) -> bool:
    """Whether asking again may help, and does no harm where the first time was not in vain.

    503 is how Jenkins answers while it starts, and a proxy that reaches nobody.
    """
    if isinstance(answer, requests.Response):
        status = answer.status_code
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return True
        if req.method == "GET":
            return status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT) and not _once(req)
    if isinstance(answer, requests.exceptions.SSLError | requests.Timeout):
        return False
    return isinstance(answer, requests.ConnectionError) and (_never_sent(answer) or not _once(req))


def _short(answer: requests.Response | requests.RequestException) -> str:
    """What came, in a line."""
    if isinstance(answer, requests.Response):
        text = answer.headers.get("X-Error") or _first_words(answer.text)
        return f"{answer.status_code} {answer.reason}" + (f": {text}" if text else "")
    cause = answer.args[0] if answer.args else answer
    return str(getattr(cause, "reason", cause)).rpartition(": ")[2][:200]


def _first_words(page: str) -> str:
    """What a page of an error says: the exception that it shows, else its first words."""
    text = " ".join(unescape(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)).split())
    exception = re.search(r"[\w.$]+(?:Exception|Error)\b: .*?(?= at [\w.$]+\(|$)", text)
    return (exception.group() if exception else text)[:200]
