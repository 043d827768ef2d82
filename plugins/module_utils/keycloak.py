# SPDX-License-Identifier: Apache-2.0
"""The administration interface of Keycloak, for the modules that bring it to what the inventory says."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

Json = dict[str, Any]
# Options of every module that administers Keycloak.
OPTIONS = {
    "url": {"type": "str", "required": True},
    "client": {"type": "str", "required": True},
    "secret": {"type": "str", "required": True, "no_log": True},
    "timeout": {"type": "int", "default": 180},
}
STARTING = (404, 502, 503)
EXPIRED = 401


class RefusedError(Exception):
    """Keycloak refused a request."""


class Keycloak:
    """Requests to the administration interface of Keycloak."""

    def __init__(self, url: str, client: str, secret: str) -> None:
        self.url = url
        self.form = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
        self.headers: dict[str, str] = {}

    def log_in(self) -> None:
        """Get a token by client credentials; it is valid for a minute."""
        answer = open_url(
            f"{self.url}/realms/master/protocol/openid-connect/token",
            method="POST",
            data=urlencode(self.form),
            timeout=30,
        )
        self.headers = {"Authorization": f"Bearer {json.load(answer)['access_token']}"}

    def ask(self, method: str, path: str, data: Any = None) -> Any:
        """One request below /admin/realms; returns the JSON of the answer, ``None`` for what is not there."""
        try:
            answer = self._send(method, path, data)
        except HTTPError as error:
            if method == "GET" and error.code == 404:
                return None
            said = error.read().decode(errors="replace")[:300]
            raise RefusedError(f"{method} {path}: HTTP {error.code} {said}") from error
        text = answer.read()
        return json.loads(text) if text else None

    def _send(self, method: str, path: str, data: Any) -> Any:
        """The answer to a request, with a new token where the one at hand is over."""
        body = None if data is None else json.dumps(data)

        def send() -> Any:
            headers = {**self.headers, "Content-Type": "application/json"}
            return open_url(f"{self.url}/admin/realms{path}", method=method, data=body, headers=headers, timeout=60)

        try:
            return send()
        except HTTPError as error:
            if error.code != EXPIRED:
                raise
        self.log_in()
        return send()


def connect(module: AnsibleModule) -> Keycloak | None:
    """Wait for Keycloak and log in; ``None`` in check mode where it does not answer, as before the first deployment."""
    server = Keycloak(module.params["url"].rstrip("/"), module.params["client"], module.params["secret"])
    deadline = time.monotonic() + module.params["timeout"]
    while True:
        try:
            server.log_in()
            return server
        except HTTPError as error:
            if error.code not in STARTING:
                module.fail_json(msg=refusal(module, error))
            said: OSError = error
        except OSError as error:
            said = error
        if module.check_mode:
            return None
        if time.monotonic() > deadline:
            module.fail_json(msg=silence(module, said))
        time.sleep(1)


def silence(module: AnsibleModule, said: OSError) -> str:
    """That Keycloak does not answer."""
    return (
        f"Keycloak does not answer (found {said} at {module.params['url']} after {module.params['timeout']} s, needed "
        "an answer). Next: journalctl --unit keycloak on this host"
    )


def refusal(module: AnsibleModule, error: HTTPError) -> str:
    """Why Keycloak does not let the administrator in."""
    said = error.read().decode(errors="replace")[:200]
    return (
        f"Keycloak refuses its administrator {module.params['client']} (found HTTP {error.code} {said}, needed the "
        "secret that its database was made with). Next: give the site that secret back, or make another administrator "
        "on this host with kc.sh bootstrap-admin service"
    )
