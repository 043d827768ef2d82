"""A site behind an Infrastructure Manager 2.0, which deploys containers on the site's Kubernetes.

What is there is found by the name that the template carries. The Infrastructure Manager takes no key that makes a
request count once: where an answer was lost after the request had been sent and before it was begun, ``find`` does not
see what it makes yet, and a second one is made. Both carry the name, so the one that is not used is found and removed.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from deep_orchestrator.sites import Look, SiteError, State
from deep_tosca import template as tosca
from deep_tosca.reading import TemplateError

# Seconds: for a connection, for what is asked, and for what the Infrastructure Manager tries three times meanwhile.
CONNECT, ASK, WORK = 5.0, 30.0, 180.0
# How long after it was made an infrastructure may be without what it was made of, and without its name.
UNNAMED, PAUSE = 15.0, 0.5
IDENTIFIER = re.compile(r"[0-9a-f-]{36}")
# Neither ends a line of credentials nor begins another field of it.
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+")
NAME = re.compile(r"description desc \(\s*name = '([^']*)'")
MOST_NAMES = 20_000
HTTPS = 443
# The input of a template that says where its port is published.
ENDPOINT = "endpoint"
AT = re.compile(rf"\b{ENDPOINT}: (https://\S+)")
ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9.-]+):(?P<port>\d+)")
# What is said of tokens that are not taken; with which status is a matter of what was asked.
UNKNOWN_PERSON = re.compile(r"Invalid InfrastructureManager credentials|decode OIDC auth token")
# A refusal of the person. Anything else that is said of a token is an identity provider that did not answer.
REFUSED = re.compile(r"expired|not accepted|not in configured|No token|Code: 4\d\d|decode")
WENT = {
    "stopped": "its container has been stopped",
    "off": "its container has ended",
    "failed": "its container has failed",
    "unconfigured": "it could not be configured",
    "deleting": "it is being removed",
}
# Lines that are there whether or not something went wrong.
SAYS_NOTHING = re.compile(r"Contextualization disabled|VM \d+:$|\*+$")
# What our guard keeps of a part that Kubernetes did not take; without the guard, only gaps in the outputs tell.
NOT_MADE = re.compile(r"^Error creating (service|ingress|configmap|PersistentVolumeClaim)", re.MULTILINE)
# What our guard notes of a container that does not run: a word of Kubernetes, and more words.
NOT_RUNNING = re.compile(r"^Container does not run: ((\w+): .*)$", re.MULTILINE)
STUCK = {
    "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "InvalidImageName",
    "RunContainerError",
}  # fmt: skip
# An image may come late, but not where its registry says this of it; the words are containerd's.
NO_IMAGE = {"ErrImagePull", "ImagePullBackOff"}
NEVER = re.compile(
    r"not ?found|manifest unknown|denied|unauthorized|forbidden|authorization failed|no match for platform|x509:"
    r"|no such host",
    re.IGNORECASE,
)
# Seconds that a pod may be out of sight, above all before it is made.
UNSEEN = 60.0


class AwayError(Exception):
    """The site is not reached, in other words than the client's own."""


@dataclass(frozen=True)
class Credentials:
    """In whose name something is done: a token that both the site's services take, and the namespace for it."""

    token: str
    namespace: str


@dataclass(frozen=True)
class Ingress:
    """Where the site publishes what is deployed: names under ``domain``, with ``{namespace}`` in it, on ``port``.

    No domain: it has no ingress.
    """

    domain: str = ""
    port: int = 443

    def domain_of(self, namespace: str) -> str:
        """The domain for what is in a namespace."""
        return self.domain.replace("{namespace}", namespace)

    def address(self, deployment: str, namespace: str) -> str:
        """Where a deployment is published, as the Infrastructure Manager is told: it knows no ports."""
        return f"https://{deployment}.{self.domain_of(namespace)}"

    def reached(self, value: Any, namespace: str) -> Any:
        """An output; the address of what is published has the port in it, unless https means that one."""
        wanted = rf"https://[a-z0-9-]+\.{re.escape(self.domain_of(namespace))}"
        found = re.match(rf"{wanted}(?=/|$)", value) if self.domain and isinstance(value, str) else None
        if found is None or self.port == HTTPS:
            return value
        return f"{found[0]}:{self.port}{value[found.end() :]}"


class InfrastructureManager:
    """A site of which each infrastructure is one of the Infrastructure Manager.

    ``site``: its name; ``url``: of the Infrastructure Manager's REST interface; ``kubernetes``: of the API server, as
    that reaches it; ``authority``: file with the certificates that the first one's is held against; ``credentials``:
    those of a deployment's owner, fresh, by the deployment; it may raise what a site's methods may.
    """

    def __init__(
        self,
        site: str,
        url: str,
        kubernetes: str,
        authority: Path,
        credentials: Callable[[str], Credentials],
        *,
        ingress: Ingress = Ingress(),
    ) -> None:
        self._site, self._kubernetes, self._credentials, self._ingress = site, kubernetes, credentials, ingress
        self._http = httpx.Client(
            base_url=url,
            verify=ssl.create_default_context(cafile=authority),
            timeout=httpx.Timeout(ASK, connect=CONNECT),
            headers={"Accept": "application/json"},
        )
        # Since when the Infrastructure Manager has not seen the pod of each that it does not see.
        self._unseen: dict[str, float] = {}
        # What never changes: names by identifiers; empty where it is none of ours.
        self._names: dict[str, str] = {}

    def find(self, deployment: str) -> list[str]:
        """Identifiers of every infrastructure of a deployment; waits for one that has no name yet."""
        wanted, end = self._name_of(deployment), time.monotonic() + UNNAMED
        while True:
            there = self._listed(deployment)
            names = {identifier: self._name(deployment, identifier) for identifier in there}
            unnamed = [identifier for identifier, name in names.items() if name is None]
            if not unnamed:
                return [identifier for identifier, name in names.items() if name == wanted]
            if time.monotonic() > end:  # broken off before anything was made
                self._names.update(dict.fromkeys(unnamed, ""))
            time.sleep(PAUSE)

    def create(self, deployment: str, template: str, parameters: Mapping[str, Any]) -> str:
        """Have it made, which is answered when Kubernetes has taken it; what it has not taken is removed again."""
        text = self._rendered(deployment, template, self._published(deployment, template, parameters))
        answer = self._ask(deployment, "POST", "/infrastructures", content=text, seconds=WORK)
        self._check(answer)
        return identifier_of(answer.json()["uri"])

    def update(self, deployment: str, infrastructure: str, template: str, parameters: Mapping[str, Any]) -> None:
        """Change image, CPUs and memory, which is all that the Infrastructure Manager can change."""
        answer = self._ask(deployment, "GET", f"/infrastructures/{infrastructure}/tosca")
        self._check(answer)
        there = answer.json()["tosca"]
        given = parameters
        if takes_an_address(template, parameters):
            # It stays where it is, whatever the site has for new ones by now.
            given = {**parameters, ENDPOINT: published_at(there)}
        changed = differences(unchangeable(there), unchangeable(self._rendered(deployment, template, given)))
        if changed:
            raise SiteError(
                "the Infrastructure Manager changes image, CPUs and memory only (found a change of"
                f" {', '.join(changed)}). Next: delete the deployment and order another one"
            )
        where = f"/infrastructures/{infrastructure}/vms/{self._container(deployment, infrastructure)}"
        system = self._ask(deployment, "GET", where)
        self._check(system)
        wanted = resources(tosca.needs(tosca.read(template), parameters), system.json()["radl"])
        self._check(self._ask(deployment, "PUT", where, json=wanted, seconds=WORK))

    def look(self, deployment: str, infrastructure: str) -> Look:
        """Ready once its pod runs: whether what is in it answers is nothing that the Infrastructure Manager knows."""
        answer = self._ask(deployment, "GET", f"/infrastructures/{infrastructure}/state")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return Look(State.FAILED, "it is gone")
        self._check(answer)
        state = answer.json()["state"]["state"]
        if state == "unknown":
            return self._out_of_sight(infrastructure)
        self._unseen.pop(infrastructure, None)
        answer = self._ask(deployment, "GET", f"/infrastructures/{infrastructure}/contmsg")
        messages = str(answer.json()["contmsg"]) if answer.is_success else ""
        if state not in {"pending", "running", "configured"}:
            return failed(WENT.get(state, f"it is in a state that is not known: {state}"), messages)
        # Here it decides.
        self._check(answer)
        if NOT_MADE.search(messages):
            return failed("a part of it was not made", messages)
        waits = waiting(messages)
        ready = state == "configured" and not waits.reason
        return self._ready(deployment, infrastructure, messages) if ready else waits

    def remove(self, deployment: str, infrastructure: str) -> None:
        """Have it removed; the Infrastructure Manager answers when Kubernetes has taken that."""
        where = f"/infrastructures/{infrastructure}"
        answer = self._ask(deployment, "DELETE", where, seconds=WORK)
        said = message(answer)
        if only_gone(said):
            answer = self._ask(deployment, "DELETE", f"{where}?force=true", seconds=WORK)
        # It looks for pods of a container that is not there, and asks for them to be removed in a wrong place.
        elif "pods.apps" in said:
            raise AwayError("the pods of a container that somebody else removed are still there")
        # It is gone, or being made or removed: it is asked again.
        if answer.status_code not in {httpx.codes.NOT_FOUND, httpx.codes.CONFLICT}:
            self._check(answer)

    def _published(self, deployment: str, template: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Values of the inputs, with the deployment's own address where a port is to be published at a given one.

        It is worked out from the deployment each time, and kept nowhere.
        """
        if not self._ingress.domain or not takes_an_address(template, parameters):
            return parameters
        namespace = self._credentials(deployment).namespace
        return {**parameters, ENDPOINT: self._ingress.address(deployment, namespace)}

    def _out_of_sight(self, infrastructure: str) -> Look:
        if time.monotonic() - self._unseen.setdefault(infrastructure, time.monotonic()) < UNSEEN:
            return Look(State.PENDING)
        self._unseen.pop(infrastructure, None)
        return Look(
            State.FAILED,
            f"the Infrastructure Manager has not seen its pod for {UNSEEN:g} s. Next: look for the quota of the"
            " namespace and for the site's Kubernetes",
        )

    def _ready(self, deployment: str, infrastructure: str, messages: str) -> Look:
        answer = self._ask(deployment, "GET", f"/infrastructures/{infrastructure}/outputs")
        if answer.status_code == httpx.codes.FORBIDDEN:
            return Look(State.FAILED, "the Infrastructure Manager was ended before it had noted the outputs")
        self._check(answer)
        namespace = self._credentials(deployment).namespace
        outputs = {
            name: self._ingress.reached(address(value), namespace) for name, value in answer.json()["outputs"].items()
        }
        if any(value is None for value in outputs.values()):
            return Look(State.PENDING)
        if outputs and not any(str(value).startswith("https://") for value in outputs.values()):
            text = self._ask(deployment, "GET", f"/infrastructures/{infrastructure}/tosca")
            self._check(text)
            if "endpoint: https://" in text.json()["tosca"]:
                return failed("its ingress was not made, and without it there is no TLS", messages)
        unpublished = [name for name, value in outputs.items() if str(value).endswith(":0")]
        if unpublished:
            return failed(f"its service was not made, without which it has no {', '.join(unpublished)}", messages)
        return Look(State.READY, outputs=outputs)

    def _listed(self, deployment: str) -> list[str]:
        answer = self._ask(deployment, "GET", "/infrastructures")
        self._check(answer)
        return [identifier_of(one["uri"]) for one in answer.json()["uri-list"]]

    def _name(self, deployment: str, identifier: str) -> str | None:
        """The name of an infrastructure, empty where it has none or is gone; None where that is not known yet."""
        if identifier in self._names:
            return self._names[identifier]
        answer = self._ask(deployment, "GET", f"/infrastructures/{identifier}/radl")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return ""
        self._check(answer)
        text = answer.json()["radl"]
        found = NAME.search(text)
        if found is None and "system " not in text:
            return None
        if len(self._names) > MOST_NAMES:
            self._names.clear()
        return self._names.setdefault(identifier, found[1] if found else "")

    def _container(self, deployment: str, infrastructure: str) -> str:
        """The number of the only container of an infrastructure."""
        answer = self._ask(deployment, "GET", f"/infrastructures/{infrastructure}")
        self._check(answer)
        numbers = [one["uri"].rsplit("/", 1)[-1] for one in answer.json()["uri-list"]]
        if len(numbers) != 1 or not numbers[0].isdigit():
            raise SiteError(
                f"there is no container to change (found {len(numbers)}, needed 1). Next: delete the deployment"
            )
        return str(numbers[0])

    def _ask(
        self, deployment: str, method: str, path: str, *, content: str = "", json: Any = None, seconds: float = ASK
    ) -> httpx.Response:
        """Send a request in the name of a deployment's owner."""
        headers = {"Authorization": self._authorization(deployment)}
        if content:
            headers["Content-Type"] = "text/yaml"
        timeout = httpx.Timeout(seconds, connect=CONNECT)
        return self._http.request(method, path, content=content or None, json=json, headers=headers, timeout=timeout)

    def _name_of(self, deployment: str) -> str:
        """By which the infrastructures of a deployment are found; another site may be behind the same manager."""
        return f"deep-{deployment}@{self._site}"

    def _rendered(self, deployment: str, template: str, parameters: Mapping[str, Any]) -> str:
        """The template as the Infrastructure Manager takes it; raises SiteError where it cannot."""
        try:
            return tosca.render(tosca.read(template), parameters, f"deep-{deployment}", self._name_of(deployment))
        except TemplateError as error:
            raise SiteError(str(error)) from None

    def _authorization(self, deployment: str) -> str:
        """Lines of credentials, as the Infrastructure Manager reads them from the header."""
        given = self._credentials(deployment)
        if not TOKEN.fullmatch(given.token):
            raise SiteError("the Infrastructure Manager cannot read the token (needed letters, digits and ._~+/- only)")
        kubernetes = {
            "id": "site", "type": "Kubernetes", "host": self._kubernetes, "token": given.token,
            "namespace": given.namespace,
        }  # fmt: skip
        if self._ingress.domain:
            kubernetes["apps_dns"] = self._ingress.domain_of(given.namespace)
        lines = [{"type": "InfrastructureManager", "token": given.token}, kubernetes]
        return "\\n".join("; ".join(f"{name} = {value}" for name, value in line.items()) for line in lines)

    def _check(self, answer: httpx.Response) -> None:
        """Raise SiteError where a request was refused, and something else where it may be taken later."""
        if answer.is_success:
            return
        if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            answer.raise_for_status()
        said = message(answer)
        if answer.status_code == httpx.codes.UNAUTHORIZED or UNKNOWN_PERSON.search(said):
            if not REFUSED.search(said):
                raise AwayError(f"the Infrastructure Manager cannot ask the identity provider: {in_words(said)}")
            raise SiteError(
                f"the Infrastructure Manager does not take the token ({in_words(said)}). Next: log in and order it"
                " again; if that does not help, ask the site whether your organisation may use it"
            )
        if answer.status_code == httpx.codes.FORBIDDEN:
            raise SiteError(
                f"the Infrastructure Manager refuses: {in_words(said)}. Next: ask the site whether it is open"
            )
        raise SiteError(in_words(said) or f"the Infrastructure Manager answers with HTTP status {answer.status_code}")


def takes_an_address(template: str, parameters: Mapping[str, Any]) -> bool:
    """Whether an input says where a port is published and the order does not; raises SiteError for a wrong template."""
    try:
        return ENDPOINT not in parameters and ENDPOINT in tosca.published(tosca.read(template))
    except TemplateError as error:
        raise SiteError(str(error)) from None


def published_at(text: str) -> str:
    """Where a rendered template publishes its port; empty where that is a port of the node."""
    found = AT.search(text)
    return found[1] if found else ""


def identifier_of(uri: str) -> str:
    """The identifier of an infrastructure from its address."""
    identifier = uri.rstrip("/").rsplit("/", 1)[-1]
    if not IDENTIFIER.fullmatch(identifier):
        raise AwayError(f"no Infrastructure Manager answers (found {identifier[:60]!r}, needed an identifier)")
    return identifier


def message(answer: httpx.Response) -> str:
    """What an answer says that is none of success."""
    try:
        said = answer.json()
    except ValueError:
        return answer.text
    return str(said.get("message") or said.get("detail") or said) if isinstance(said, dict) else str(said)


def failed(reason: str, messages: str) -> Look:
    """What went wrong, and what the Infrastructure Manager has noted of it, in a line."""
    said = in_words("\n".join(line for line in messages.splitlines() if not SAYS_NOTHING.match(line)))
    return Look(State.FAILED, f"{reason}: {said}" if said else reason)


def waiting(messages: str) -> Look:
    """What is noted of a container that is not ready yet, for as long as it is noted."""
    found = NOT_RUNNING.search(messages)
    if found is None:
        return Look(State.PENDING)
    line, word = found.groups()
    stuck = word in STUCK or (word in NO_IMAGE and NEVER.search(line))
    return Look(State.STUCK if stuck else State.PENDING, line)


def in_words(said: str) -> str:
    """What the Infrastructure Manager says, in a line: of what Kubernetes answered its own words, each once."""
    kubernetes = re.findall(r'"message":"((?:[^"\\]|\\.)*)"', said)
    parts = [part.replace('\\"', '"') for part in kubernetes] or said.splitlines()
    words = [" ".join(part.split()) for part in dict.fromkeys(parts)]
    line = "; ".join(word for word in words if word)[:500]
    return f"Kubernetes refuses: {line}" if kubernetes else line


def only_gone(said: str) -> bool:
    """Whether a removal failed for nothing but what is gone already.

    The Infrastructure Manager removes a service and an ingress beside the container, each of which may be gone, but not
    the container. Where it had trouble with any of them it says so; here it just names them.
    """
    named = said.partition("Error destroying the infrastructure:")[2]
    return bool(named) and "error" not in named.lower()


def address(value: Any) -> Any:
    """An output; the address of a port says that it has no TLS. None where it is not known yet."""
    found = ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if value is None or (found and found["host"] == "None"):
        return None
    return f"http://{value}" if found else value


def unchangeable(text: str) -> dict[str, Any]:
    """Everything of a rendered template that the Infrastructure Manager cannot change, by what it is called."""
    data = yaml.safe_load(text)["topology_template"]
    found: dict[str, Any] = {"outputs": data.get("outputs")}
    for name, node in data["node_templates"].items():
        host = (node.get("capabilities") or {}).get("host") or {}
        properties = host.get("properties") or {}
        found |= {f"{name}: {key}": value for key, value in properties.items() if key not in {"num_cpus", "mem_size"}}
        found |= {f"{name}: {key}": value for key, value in node.items() if key not in {"artifacts", "capabilities"}}
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What is not the same."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def resources(needs: tosca.Needs, there: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a container is to be, for the Infrastructure Manager; ``there``: what it says of it now."""
    name = next(one["id"] for one in there if one["class"] == "system")
    return [
        {
            "class": "system",
            "id": name,
            "disk.0.image.url": f"docker://{needs.image}",
            "cpu.count": needs.cpus,
            "memory.size": needs.memory_mib * 2**20,
            "memory.size_unit": "B",
        }
    ]
