"""The ways in which a person logs in: with a password, on another device, in a browser on this machine."""

from __future__ import annotations

import threading
import time
import webbrowser
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from urllib.parse import parse_qsl, urlsplit

from testbed.errors import CHECK_FAILED, DeepError
from testbed.iam import Client, NoAnswerError, RefusedError, Tokens, random_word

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
# RFC 8628, sections 3.2 and 3.5.
INTERVAL = 5.0
SLOWER = 5.0
BROWSER_PATIENCE = 300.0
EXPIRED = "expired_token"
REASONS = {
    "access_denied": "it was refused in the browser",
    EXPIRED: "nobody confirmed it in time",
}

Show = Callable[[str], None]


def by_password(client: Client, user: str, password: str) -> Tokens:
    """Log ``user`` in with a password, which only a testbed's provider allows."""
    try:
        return client.grant("password", username=user, password=password, scope=" ".join(client.provider.scopes))
    except RefusedError as refused:
        if refused.code != "invalid_grant":
            raise
        raise DeepError(
            f"the login of {user} is refused",
            host=client.provider.host,
            found=refused.said,
            needed=f"an enabled user {user} with the password that the inventory gives",
            next_step="deep testbed up, which makes the inventory's users as they should be",
            exit_code=CHECK_FAILED,
        ) from refused


def by_device(client: Client, show: Show, wait: Callable[[float], None] = time.sleep) -> Tokens:
    """Show an address and a code, and wait until the person has confirmed them in any browser (RFC 8628)."""
    verifier = random_word()
    begun = client.device_code(verifier)
    show(f"Open {begun.get('verification_uri_complete') or begun['verification_uri']}")
    show(f"and confirm the code {begun['user_code']}")
    interval = float(begun.get("interval") or INTERVAL)
    deadline = time.monotonic() + float(begun["expires_in"])
    while time.monotonic() < deadline:
        wait(interval)
        try:
            return client.grant(DEVICE_GRANT, device_code=str(begun["device_code"]), code_verifier=verifier)
        except NoAnswerError:
            interval += SLOWER
        except RefusedError as refused:
            if refused.code in REASONS:
                raise _not_confirmed(client, refused.code) from refused
            if refused.code not in ("authorization_pending", "slow_down"):
                raise
            interval += SLOWER if refused.code == "slow_down" else 0
    raise _not_confirmed(client, EXPIRED)


def _not_confirmed(client: Client, code: str) -> DeepError:
    return DeepError(
        "the login was not confirmed",
        host=client.provider.host,
        found=REASONS.get(code, code),
        needed="a confirmation in a browser by the person who logs in",
        next_step="run the same command again",
        exit_code=CHECK_FAILED,
    )


class _Listener(ThreadingHTTPServer):
    """Waits on the loopback address for what a browser brings back with ``state``, which nobody else knows.

    Whatever else comes is sent away. Browsers open connections in advance, over which nothing may come: each
    connection has a thread of its own, which ends with this program.
    """

    def __init__(self, state: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.state = state
        self.answers: SimpleQueue[dict[str, str]] = SimpleQueue()

    def wait(self) -> dict[str, str]:
        """The first answer."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        try:
            return self.answers.get(timeout=BROWSER_PATIENCE)
        except Empty:
            return {"error": EXPIRED}
        finally:
            self.shutdown()


class _Answer(BaseHTTPRequestHandler):
    server: _Listener

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        answer = dict(parse_qsl(url.query))
        if url.path != "/":
            # A browser asks for more than it was sent for, such as an icon.
            self._say(HTTPStatus.NOT_FOUND, "There is nothing here.")
        elif answer.get("state") != self.server.state or not answer.keys() & {"code", "error"}:
            self._say(HTTPStatus.BAD_REQUEST, "This answers no login that somebody waits for.")
        else:
            self._say(HTTPStatus.OK, "You may close this page and go back to the terminal.")
            self.server.answers.put(answer)

    def _say(self, status: HTTPStatus, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(f"{text}\n".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
        """Say nothing: the query holds the code."""


def by_browser(client: Client, show: Show, browse: Callable[[str], object] = webbrowser.open) -> Tokens:
    """Log in with this machine's browser: authorization code with PKCE, brought back to the loopback (RFC 8252)."""
    state, verifier = random_word(), random_word()
    with _Listener(state) as listener:
        redirect_uri = f"http://127.0.0.1:{listener.server_port}/"
        url = client.authorization_url(redirect_uri, state, verifier)
        show(f"Log in at {url}")
        browse(url)
        answer = listener.wait()
    if "code" not in answer:
        raise _not_confirmed(client, answer["error"])
    return client.grant("authorization_code", code=answer["code"], redirect_uri=redirect_uri, code_verifier=verifier)
