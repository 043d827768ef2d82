"""Modules: what the catalogue in ``services/modules`` says of them, and their life at a site.

Deployments are the site's orchestrator's, which is asked as whoever is logged in. Which module a deployment is of, this
machine notes in the site's state, so that a module's name stands for its newest deployment; any other machine knows the
deployments by their identifiers. A module itself answers over DEEPaaS.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import yaml

from testbed import login, sites
from testbed.errors import CHECK_FAILED, DeepError
from testbed.files import write_json
from testbed.login import Place
from testbed.paths import repo_root

if TYPE_CHECKING:
    import httpx

METADATA = "metadata.json"
NOTES = "modules.json"
# Left by a deployment of the site's registry: {"NAMESPACE/NAME:TAG": DIGEST}.
IMAGES = "images.json"
TEMPLATES = "services/tosca/deep_tosca/templates"
# Seconds: for one answer, between two questions, and for a prediction.
TIMEOUT, PAUSE, LONGEST_PREDICTION = 30.0, 1.0, 300.0
MADE, GONE = "CREATE_COMPLETE", "DELETE_COMPLETE"
# What the orchestrator gives every container of a deployment, with its name.
DEPLOYMENT = "DEEP_DEPLOYMENT"
Show = Callable[[str], None]


def _at(place: Place) -> str:
    """The options that name a place."""
    if place == Place(sites.TESTBED_SITE):
        return ""
    return f" --site {place}"


# --- the catalogue -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """An entry of the catalogue; ``metadata`` is as services/modules/schema.json has it."""

    name: str
    metadata: dict[str, Any]

    @property
    def deployment(self) -> dict[str, Any]:
        """What its deployment needs."""
        return dict(self.metadata["deployment"])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, **self.metadata}


def catalogue_dir() -> Path:
    """The folder of the modules in the checkout."""
    return repo_root() / "services/modules"


def names() -> list[str]:
    """The names of all modules; reads no metadata."""
    return sorted(path.parent.name.replace("_", "-") for path in catalogue_dir().glob(f"*/{METADATA}"))


def catalogue() -> list[Module]:
    """All modules by name; raises ``DeepError`` naming file and field where one's metadata are wrong."""
    return [module(name) for name in names()]


def module(name: str) -> Module:
    """The module of this name; raises ``DeepError`` where there is none, or where its metadata are wrong."""
    if name not in names():
        raise DeepError(
            f"there is no module {name}", needed=f"one of: {', '.join(names())}", next_step="deep modules list"
        )
    file = catalogue_dir() / name.replace("-", "_") / METADATA
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as broken:
        raise _wrong(file, f"no JSON: {broken}") from broken
    problems = faults(metadata)
    if problems:
        raise _wrong(file, "; ".join(problems))
    return Module(name, metadata)


def faults(metadata: Any) -> list[str]:
    """What is wrong with metadata, each with the field; empty where nothing is."""
    import jsonschema

    schema = json.loads((catalogue_dir() / "schema.json").read_text(encoding="utf-8"))
    checker = jsonschema.Draft202012Validator(schema)
    found = [f"{error.json_path.removeprefix('$.')}: {error.message}" for error in checker.iter_errors(metadata)]
    return sorted(found) or _wrong_date(metadata["date_creation"])


def _wrong_date(text: str) -> list[str]:
    try:
        date.fromisoformat(text)
    except ValueError as wrong:
        return [f"date_creation: {wrong}"]
    return []


def _wrong(file: Path, what: str) -> DeepError:
    return DeepError(f"{file}: {what}", needed="what services/modules/schema.json says", next_step="correct the file")


# --- the orchestrator ----------------------------------------------------------------------------------------------


class RefusedError(DeepError):
    """The orchestrator has taken note of a request and says no."""


class Orchestrator:
    """The site's orchestrator, asked as whoever is logged in; every failure is a ``DeepError``."""

    def __init__(self, place: Place) -> None:
        import httpx

        from testbed.at_address import AtAddress

        self.place = place
        self._endpoint, host = (
            str(place.value("{{ orchestrator_endpoint }}")),
            str(place.value("{{ orchestrator_host }}")),
        )
        name = str(urlsplit(f"https://{self._endpoint}").hostname)
        own = name == place.value("{{ orchestrator_name }}")
        if own and not host:
            raise DeepError(
                f"{place} has no orchestrator",
                found="no host in group orchestrator, and no other name in orchestrator_endpoint",
                needed="one of them",
                next_step="name a site that has one: deep site list",
            )
        # The names of a testbed are known to its nodes only; the inventory knows the address.
        address = str(place.value("{{ hostvars[orchestrator_host].node_address }}")) if own else ""
        trust = _trust(place)
        transport = AtAddress({name: address}, trust) if address else None
        self._http = httpx.Client(
            base_url=f"https://{self._endpoint}", transport=transport, verify=trust, timeout=TIMEOUT
        )

    def __enter__(self) -> Orchestrator:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def deployments(self) -> Iterator[dict[str, Any]]:
        """All that the person may see and that are not deleted, the newest first."""
        number = 0
        while True:
            answer = self._ask("GET", "/deployments", params={"page": number})
            yield from answer["content"]
            number += 1
            if number >= answer["page"]["totalPages"]:
                return

    def deployment(self, uuid: str) -> dict[str, Any]:
        """What the orchestrator says of one."""
        return dict(self._ask("GET", f"/deployments/{uuid}"))

    def create(self, uuid: str, order: Mapping[str, Any]) -> dict[str, Any]:
        """Order a deployment; ``uuid`` becomes its identifier, so that an answer that is lost does not make another."""
        return dict(self._ask("POST", "/deployments", json=dict(order), headers={"Idempotency-Key": uuid}))

    def delete(self, uuid: str) -> None:
        """Order that everything of a deployment be removed."""
        self._ask("DELETE", f"/deployments/{uuid}")

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        import httpx

        headers = {**more.pop("headers", {}), "Authorization": f"Bearer {login.token(self.place).access}"}
        try:
            answer = self._http.request(method, path, headers=headers, **more)
        except httpx.TransportError as failed:
            raise DeepError(
                "the orchestrator does not answer",
                host=self._endpoint,
                found=str(failed) or type(failed).__name__,
                needed="an answer over https",
                next_step=f"deep site verify {self.place}, then run the same command again",
                exit_code=CHECK_FAILED,
            ) from failed
        if answer.is_success:
            return answer.json() if answer.content else None
        raise self._refused(answer)

    def _refused(self, answer: httpx.Response) -> RefusedError:
        steps = {
            401: self.place.again,
            403: "ask for membership of an organisation of the site, or let the owner do it",
            404: f"deep modules status{_at(self.place)}",
            409: f"deep modules status{_at(self.place)}, then run the same command again",
        }
        return RefusedError(
            f"the orchestrator refuses: {_message(answer)}",
            host=self._endpoint,
            found=f"HTTP status {answer.status_code}",
            next_step=steps.get(answer.status_code, "correct what it says, then run the same command again"),
            exit_code=CHECK_FAILED,
        )


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:300] or answer.reason_phrase


def _trust(place: Place) -> ssl.SSLContext:
    """Certificates that the system trusts, and those of the site's own authority where it has one."""
    trust = ssl.create_default_context()
    authority = place.folder / "public" / login.SITE_CA
    if authority.is_file():
        trust.load_verify_locations(authority)
    return trust


# --- deploying -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """What somebody wants of a deployment beside the module itself; ``None``: what the module's metadata say."""

    gpus: int | None = None
    cpus: float | None = None
    memory_mib: int | None = None
    template: str | None = None
    organisation: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict)


def order(place: Place, wanted: Module, wish: Wish) -> dict[str, Any]:
    """What the orchestrator is sent: ``{template, parameters, userGroup?}``."""
    needs = wanted.deployment
    gpus = needs["gpus"] if wish.gpus is None else wish.gpus
    name = wish.template or (needs["gpu_template"] if gpus else needs["template"])
    parameters = {
        "model_name": needs["model"],
        "num_cpus": float(needs["cpus"] if wish.cpus is None else wish.cpus),
        "mem_size": f"{wish.memory_mib or needs['memory_mib']} MiB",
        **({"num_gpus": gpus} if gpus else {}),
        **wish.inputs,
    }
    if "image" not in parameters:
        parameters["image"] = image(place, needs["image"])
    organisation = {"userGroup": wish.organisation} if wish.organisation else {}
    return {"template": template(name), "parameters": parameters, **organisation}


def template(name: str) -> str:
    """The text of a template; raises ``DeepError`` with those that there are."""
    folder = repo_root() / TEMPLATES
    known = {path.stem: path for path in folder.glob("*.yaml")}
    if name not in known:
        raise DeepError(
            f"there is no template {name}",
            needed=f"one of: {', '.join(sorted(known))}",
            next_step="name another one with --template",
        )
    return known[name].read_text(encoding="utf-8")


def image(place: Place, repository: str) -> str:
    """A module's image in the site's registry by its digest; raises ``DeepError`` where the registry has none."""
    held = json.loads(place.public_file(IMAGES).read_text(encoding="utf-8"))
    found = [digest for reference, digest in held.items() if reference.rpartition(":")[0] == repository]
    if not found:
        raise DeepError(
            f"the registry of {place} has no image {repository}",
            found=", ".join(sorted(held)) or "no image",
            needed=f"{repository} among registry_more_images",
            next_step=f"deep site deploy {place}, or name another image with --input image=...",
        )
    return f"{place.value('{{ registry_endpoint }}')}/{repository}@{found[-1]}"


def deploy(
    place: Place, name: str, wish: Wish, show: Show, *, wait: bool = True, patience: float = 900
) -> dict[str, Any]:
    """Deploy a module and, unless told otherwise, wait until it can be asked; returns what :func:`status` does.

    ``show`` is given each change on the way. ``ok`` is false where it failed: ``reason``, ``selection`` and
    ``attempts`` say why.
    """
    wanted = module(name)
    asked = order(place, wanted, wish)
    uuid = str(uuid4())
    with Orchestrator(place) as orchestrator:
        _note(place, {uuid: name})
        try:
            now = orchestrator.create(uuid, asked)
        except RefusedError:
            # Where only the answer is lost, it may be there all the same.
            _note(place, {}, forget=uuid)
            raise
        show(f"{name}: deployment {uuid}")
        if not wait:
            return _told(place, now)
        waiting = _Waiting(orchestrator, uuid, show, patience)
        told = _told(place, waiting.settled(now, MADE))
        if told["ok"]:
            waiting.answering(told, wanted.deployment["health"])
        return told


class _Waiting:
    """Waits for a deployment, for ``patience`` seconds at most; ``show`` is given each change on the way."""

    def __init__(self, orchestrator: Orchestrator, uuid: str, show: Show, patience: float) -> None:
        self._orchestrator, self._uuid, self._show, self._patience = orchestrator, uuid, show, patience
        self._deadline = time.monotonic() + patience

    def settled(self, now: dict[str, Any], wanted: str) -> dict[str, Any]:
        """What there is once nobody works on it: ``wanted``, or a failure. Somebody may have deleted it meanwhile."""
        seen = ""
        while True:
            self._check(now, wanted)
            text = _progress(now)
            if text != seen:
                self._show(text)
                seen = text
            if not now["status"].endswith("_IN_PROGRESS"):
                return now
            self._pause(text, wanted, "status")
            now = self._orchestrator.deployment(self._uuid)

    def answering(self, told: dict[str, Any], health: str) -> None:
        """Wait until the module itself answers: a site calls a container complete before its program is."""
        import httpx

        place = self._orchestrator.place
        with _module(place, told) as client:
            self._show(f"waiting for {told['endpoint']}")
            while True:
                try:
                    found = f"HTTP status {client.get(health).status_code}"
                except httpx.TransportError as failed:
                    found = str(failed) or type(failed).__name__
                if found == "HTTP status 200":
                    return
                self._check(self._orchestrator.deployment(self._uuid), MADE)
                self._pause(f"{told['endpoint']}{health}: {found}", "HTTP status 200 from the module", "logs")

    def _check(self, now: dict[str, Any], wanted: str) -> None:
        if now["status"].startswith("DELETE_") and wanted != GONE:
            raise DeepError(
                f"deployment {self._uuid} was deleted while it was waited for",
                found=now["status"],
                needed=wanted,
                next_step="ask whoever deletes at your site, or deploy the module again",
                exit_code=CHECK_FAILED,
            )

    def _pause(self, found: str, wanted: str, look: str) -> None:
        if time.monotonic() > self._deadline:
            uuid, at = self._uuid, _at(self._orchestrator.place)
            stop = "" if wanted == GONE else f"; to give it up: deep modules delete {uuid}{at}"
            raise DeepError(
                f"deployment {uuid} takes longer than the {self._patience:g} s of --timeout, and goes on without this",
                found=found,
                needed=wanted,
                next_step=f"deep modules {look} {uuid}{at}{stop}",
                exit_code=CHECK_FAILED,
            )
        time.sleep(PAUSE)


def _progress(now: dict[str, Any]) -> str:
    tried = [f"{attempt['site']}: {attempt['reason'] or attempt['outcome']}" for attempt in now["attempts"]]
    return f"{now['status']}{' (' + '; '.join(tried) + ')' if tried else ''}"


# --- looking, deleting ---------------------------------------------------------------------------------------------


def status(place: Place, which: str) -> dict[str, Any]:
    """What is known of a deployment.

    ``{ok, uuid, module, status, reason, site, endpoint, organisation, infrastructure, selection, attempts, next}``;
    ``ok`` is false where it failed, and ``next`` says what helps.
    """
    with Orchestrator(place) as orchestrator:
        return _told(place, _find(orchestrator, which))


def statuses(place: Place) -> list[dict[str, Any]]:
    """The same of every deployment that the person may see, the newest first."""
    with Orchestrator(place) as orchestrator:
        return [_told(place, one) for one in orchestrator.deployments()]


def delete(place: Place, which: str, show: Show, *, wait: bool = True, patience: float = 900) -> dict[str, Any]:
    """Remove a deployment and, unless told otherwise, wait until nothing is left; returns what :func:`status` does."""
    with Orchestrator(place) as orchestrator:
        uuid = _find(orchestrator, which)["uuid"]
        orchestrator.delete(uuid)
        now = orchestrator.deployment(uuid)
        if wait:
            now = _Waiting(orchestrator, uuid, show, patience).settled(now, GONE)
        if now["status"] == GONE:
            _note(place, {}, forget=uuid)
        return _told(place, now)


def _find(orchestrator: Orchestrator, which: str) -> dict[str, Any]:
    """A deployment by its identifier, or the newest of a module that there still is."""
    try:
        return orchestrator.deployment(str(UUID(which)))
    except ValueError:
        pass
    module(which)
    known = _notes(orchestrator.place)
    for one in orchestrator.deployments():
        if known.get(one["uuid"]) == which:
            return one
    raise DeepError(
        f"no deployment of {which} at {orchestrator.place}",
        found="none that was made from this machine and is still there",
        needed="a deployment, or its identifier",
        next_step=f"deep modules deploy {which}{_at(orchestrator.place)}",
        exit_code=CHECK_FAILED,
    )


def _told(place: Place, now: dict[str, Any]) -> dict[str, Any]:
    return {
        "ok": not now["status"].endswith("_FAILED"),
        "uuid": now["uuid"],
        "module": _notes(place).get(now["uuid"]),
        "status": now["status"],
        "reason": now["statusReason"],
        "site": now["cloudProviderName"],
        "endpoint": now["outputs"].get("endpoint"),
        "organisation": now["userGroup"],
        "infrastructure": now["physicalId"],
        "selection": now["selection"],
        "attempts": now["attempts"],
        "next": _next(place, now) if now["status"].endswith("_FAILED") else None,
    }


def _next(place: Place, now: dict[str, Any]) -> str:
    """What helps after a failure; logs only where a container may have been left."""
    uuid, at = now["uuid"], _at(place)
    delete = f"deep modules delete {uuid}{at}"
    if now["status"] == "DELETE_FAILED":
        return f"{delete}, once what it says is put right"
    if not now["attempts"] and not now["selection"]:
        return f"{delete}, and deploy again once what it says is put right"
    if not now["attempts"]:
        return f"{delete}, then ask for what a site has: deep modules deploy with other --gpus, --cpus or --memory"
    if all(attempt["outcome"] == "removed" for attempt in now["attempts"]):
        return f"{delete}, and deploy again once what the sites say is put right"
    return f"deep modules logs {uuid}{at}, or {delete}"


def _notes(place: Place) -> dict[str, str]:
    """``{identifier: module}`` of what was deployed from here; nothing where the file cannot be read."""
    try:
        return dict(json.loads((place.folder / NOTES).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _note(place: Place, more: dict[str, str], forget: str = "") -> None:
    with login.alone(place):
        known = {uuid: name for uuid, name in _notes(place).items() if uuid != forget}
        write_json(place.folder / NOTES, {**known, **more})


def noted(place: Place) -> list[str]:
    """What ``status``, ``predict`` and ``delete`` take, as far as this machine knows."""
    known = _notes(place)
    return sorted({*known, *known.values()})


# --- predictions ---------------------------------------------------------------------------------------------------


def predict(place: Place, which: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Ask a deployed module; its example where no arguments are given.

    Returns ``{ok, uuid, endpoint, model, seconds, predictions}``; raises ``DeepError`` with what the module says
    against the arguments.
    """
    told = status(place, which)
    if not told["endpoint"]:
        raise DeepError(
            f"deployment {told['uuid']} has no address yet",
            found=f"{told['status']}{': ' + told['reason'] if told['reason'] else ''}",
            needed="CREATE_COMPLETE with an endpoint among the outputs",
            next_step=f"deep modules status {told['uuid']}{_at(place)}",
            exit_code=CHECK_FAILED,
        )
    with _module(place, told) as client:
        model = _model(client, told)
        given = arguments or _example(model)
        begun = time.monotonic()
        answer = _reach(client, told, "POST", f"/v2/models/{model}/predict/", json=given)
        seconds = time.monotonic() - begun
    return {
        "ok": True,
        "uuid": told["uuid"],
        "endpoint": told["endpoint"],
        "model": model,
        "seconds": round(seconds, 4),
        "predictions": answer["predictions"],
    }


def _example(model: str) -> dict[str, Any]:
    for one in catalogue():
        if one.deployment["model"] == model:
            return dict(one.deployment["example"])
    raise DeepError(
        f"model {model} has no example in the catalogue",
        needed="arguments",
        next_step="give them as NAME=VALUE",
    )


def _model(client: httpx.Client, told: dict[str, Any]) -> str:
    """The name of the one model that a module serves."""
    models = [model["id"] for model in _reach(client, told, "GET", "/v2/models/")["models"]]
    if len(models) != 1:
        raise DeepError(
            f"{told['endpoint']} does not serve one model",
            found=", ".join(models) or "none",
            needed="one",
            next_step="deploy it with the input model_name",
            exit_code=CHECK_FAILED,
        )
    return str(models[0])


@contextmanager
def _module(place: Place, told: dict[str, Any]) -> Iterator[httpx.Client]:
    """A client of a deployed module: http where its output says so, else verified https."""
    import httpx

    from testbed.at_address import AtAddress

    endpoint = str(told["endpoint"])
    if urlsplit(endpoint).scheme not in {"http", "https"}:
        raise DeepError(
            f"deployment {told['uuid']} has no address that can be asked",
            found=endpoint,
            needed="an http or https address among the outputs",
            next_step=f"deep modules status {told['uuid']}{_at(place)}",
            exit_code=CHECK_FAILED,
        )
    trust = _trust(place)
    addresses = _published_at(place, str(urlsplit(endpoint).hostname))
    transport = AtAddress(addresses, trust) if addresses else None
    with httpx.Client(
        base_url=endpoint.rstrip("/"), transport=transport, verify=trust, timeout=LONGEST_PREDICTION
    ) as client:
        yield client


def _published_at(place: Place, name: str) -> dict[str, str]:
    """Where the site's ingress is, for a name that it publishes: those of a testbed are in no name server."""
    host, domain = place.value("{{ kubernetes_ingress_host }}"), place.value("{{ modules_domain }}")
    if not host or not name.endswith(f".{domain}"):
        return {}
    return {name: str(place.value("{{ hostvars[kubernetes_ingress_host].node_address }}"))}


def _reach(client: httpx.Client, told: dict[str, Any], method: str, path: str, **more: Any) -> dict[str, Any]:
    import httpx

    try:
        answer = client.request(method, path, **more)
        if answer.is_success:
            return dict(answer.json())
    except (httpx.TransportError, ValueError) as failed:
        raise DeepError(
            f"the module at {told['endpoint']} does not answer",
            found=str(failed) or type(failed).__name__,
            needed="DEEPaaS",
            next_step=f"deep modules status {told['uuid']}, and deep modules logs {told['uuid']}",
            exit_code=CHECK_FAILED,
        ) from failed
    raise DeepError(
        "the module refuses the request" if answer.is_client_error else "the module fails",
        host=str(told["endpoint"]),
        found=f"HTTP status {answer.status_code}: {answer.text[:300]}",
        needed="arguments as its metadata and /api describe them" if answer.is_client_error else None,
        next_step="correct the arguments" if answer.is_client_error else f"deep modules logs {told['uuid']}",
        exit_code=CHECK_FAILED,
    )


# --- logs ----------------------------------------------------------------------------------------------------------


def logs(place: Place, which: str, *, lines: int = 100) -> dict[str, Any]:
    """What a deployment's containers write in the cluster of ``place``, read with the person's own rights.

    ``{ok, uuid, namespace, pods: [{name, phase, reasons, log}]}``; ``reasons`` say why a container does not run.
    """
    told = status(place, which)
    with _cluster(place, told["organisation"]) as core:
        pods = core.list_namespaced_pod(told["organisation"]).items
        found = [_pod(core, pod, lines) for pod in pods if _belongs(pod, told["uuid"])]
    if not found:
        raise DeepError(
            f"deployment {told['uuid']} has no container in namespace {told['organisation']} of {place}",
            found=f"{told['status']}{' at ' + told['site'] if told['site'] else ''}",
            needed=f"a pod with {DEPLOYMENT}={name_of(told['uuid'])}",
            next_step=f"deep modules status {told['uuid']}{_at(place)}",
            exit_code=CHECK_FAILED,
        )
    return {"ok": True, "uuid": told["uuid"], "namespace": told["organisation"], "pods": found}


@contextmanager
def _cluster(place: Place, namespace: str) -> Iterator[Any]:
    """Kubernetes' own client of the site's cluster; what it raises becomes a ``DeepError``."""
    # Half a second that the other commands need not wait.
    import kubernetes
    import urllib3

    from testbed import cluster

    settings = yaml.safe_load(login.kubeconfig(place))
    server = settings["clusters"][0]["cluster"]["server"]
    try:
        with cluster.connected(settings) as client:
            yield kubernetes.client.CoreV1Api(client)
    except kubernetes.client.ApiException as refused:
        raise DeepError(
            f"Kubernetes refuses: {cluster.said(refused)}",
            host=server,
            found=f"HTTP status {refused.status}",
            needed=f"the right to read pods and their logs in namespace {namespace}",
            next_step=place.again if refused.status == 401 else "ask a member of the organisation",
            exit_code=CHECK_FAILED,
        ) from refused
    except (urllib3.exceptions.HTTPError, kubernetes.config.ConfigException) as failed:
        raise DeepError(
            "Kubernetes does not answer",
            host=server,
            found=str(failed),
            next_step=f"deep site verify {place}",
            exit_code=CHECK_FAILED,
        ) from failed


def name_of(uuid: str) -> str:
    """What a deployment is called at its site."""
    return f"deep-{uuid}"


def _belongs(pod: Any, uuid: str) -> bool:
    variables = [variable for container in pod.spec.containers for variable in container.env or []]
    return any((variable.name, variable.value) == (DEPLOYMENT, name_of(uuid)) for variable in variables)


def _pod(core: Any, pod: Any, lines: int) -> dict[str, Any]:
    states = [status.state for status in pod.status.container_statuses or []]
    stopped = [state.waiting or state.terminated for state in states]
    reasons = [f"{one.reason}: {one.message or 'no more is said'}" for one in stopped if one]
    conditions = pod.status.conditions or []
    reasons += [f"{one.reason}: {one.message}" for one in conditions if one.status == "False" and one.message]
    # A container that has not started has no log, and to ask for it is an error.
    begun = any(state.running or state.terminated for state in states)
    name, namespace = pod.metadata.name, pod.metadata.namespace
    log = core.read_namespaced_pod_log(name, namespace, tail_lines=lines) if begun else ""
    return {"name": name, "phase": pod.status.phase, "reasons": reasons, "log": log}
