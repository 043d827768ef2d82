"""The REST interface of INDIGO's orchestrator, as orpy and the dashboards speak it."""

from __future__ import annotations

import http
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import sqlalchemy as sa
from dbos import DBOSClient
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from sqlalchemy.orm import Session, selectinload
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deep_orchestrator import orders, views
from deep_orchestrator.delegation import Delegate
from deep_orchestrator.errors import RefusedError
from deep_orchestrator.identity import Door, Person
from deep_orchestrator.settings import Settings
from deep_orchestrator.store import Deployment, Status

LOG = logging.getLogger(__name__)
VERSION = "0.1.0"
# Bytes of one request; a template and its parameters are much smaller.
LONGEST_REQUEST = 1 << 20
# orpy knows one page only, so that the first is a long one.
PAGE, LONGEST_PAGE = 100, 500
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": views.Refusal} for status in (400, 401, 403, 404, 409, 413, 503)
}


@dataclass(frozen=True)
class Service:
    """What the interface works with. ``check`` raises ValueError where a template or its parameters are wrong."""

    settings: Settings
    engine: sa.Engine
    client: DBOSClient
    door: Door
    delegate: Delegate | None
    sites: list[str]
    check: Callable[[Deployment], object]


def application(service: Service | None = None) -> FastAPI:
    """The interface as an ASGI application; without a service it only describes itself."""
    app = FastAPI(
        title="PaaS orchestrator",
        version=VERSION,
        summary="Deploys TOSCA templates at the site that suits best, and at the next one where that fails",
        responses=PROBLEMS,
        # Pages that load programs from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(ROUTER)
    app.add_middleware(Narrow)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return app


class Narrow:
    """Takes requests up to a length; a path may have a slash at its end, as orpy writes some."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = 0

        async def counted() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > LONGEST_REQUEST:
                raise HTTPException(413, f"the request is longer than {LONGEST_REQUEST} bytes")
            return message

        await self._app({**scope, "path": scope["path"].rstrip("/") or "/"}, counted, send)


# --- what every request needs ---


def the_service(request: Request) -> Service:
    """What the interface works with."""
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(the_service)]


# The header is read as it is; the scheme is here for the description of the interface.
def the_person(
    service: Here, request: Request, _scheme: Annotated[object, Security(HTTPBearer(auto_error=False))]
) -> Person:
    """Who asks."""
    return service.door.person(request.headers.get("authorization", ""))


Asker = Annotated[Person, Depends(the_person)]


def seen(service: Service, person: Person, session: Session, uuid: UUID) -> Deployment:
    """A deployment that somebody may see; raises RefusedError (404): what one may not see is not there."""
    found = session.get(Deployment, str(uuid), options=[selectinload(Deployment.attempts)])
    if found is None or not service.door.may_see(person, found):
        raise RefusedError(404, f"there is no deployment {uuid}")
    return found


def owned(service: Service, person: Person, session: Session, uuid: UUID) -> Deployment:
    """A deployment that somebody made; raises RefusedError: 403 where it is another's, 404 where one may not see it."""
    found = seen(service, person, session, uuid)
    if not service.door.owns(person, found):
        raise RefusedError(403, f"deployment {uuid} is {found.username}'s, who alone may do this")
    return found


# --- routes ---

ROUTER = APIRouter()


@ROUTER.get("/info")
def info() -> views.Info:
    """What answers here; for everybody."""
    return views.Info(project_name="deep-orchestrator", project_version=VERSION)


@ROUTER.get("/health")
def health(service: Here) -> views.Info:
    """The same, if the database answers; for everybody."""
    with service.engine.connect() as connection:
        connection.execute(sa.select(1))
    return info()


@ROUTER.get("/configuration")
def configuration(service: Here, person: Asker) -> views.Configuration:
    """What it works with."""
    return views.Configuration(
        url=service.settings.url,
        issuer=service.settings.identity.issuer,
        organisations=service.door.memberships(person),
        sites=service.sites,
    )


@ROUTER.get("/deployments")
def list_deployments(
    service: Here,
    person: Asker,
    page: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    size: Annotated[int, Query(ge=1, le=LONGEST_PAGE)] = PAGE,
    status: Annotated[list[Status] | None, Query(description="Only these; by default all but what is deleted.")] = None,
    user_group: Annotated[str | None, Query(alias="userGroup", description="Only those of one organisation.")] = None,
) -> views.DeploymentList:
    """Deployments that one may see, the newest first."""
    own = sa.and_(Deployment.issuer == person.issuer, Deployment.subject == person.subject)
    organisations = service.door.visible_organisations(person)
    wanted: list[sa.ColumnElement[bool]] = [
        sa.true() if service.door.administers(person) else own | Deployment.organisation.in_(organisations)
    ]
    wanted.append(Deployment.status.in_(status) if status else Deployment.status != Status.DELETE_COMPLETE)
    if user_group is not None:
        wanted.append(Deployment.organisation == user_group)
    with Session(service.engine) as session:
        total = session.scalar(sa.select(sa.func.count()).select_from(Deployment).where(*wanted)) or 0
        newest = sa.select(Deployment).where(*wanted).order_by(Deployment.created.desc(), Deployment.uuid)
        part = newest.offset(page * size).limit(size).options(selectinload(Deployment.attempts))
        found = session.scalars(part).all()
        this = views.Page(size=size, total_elements=total, total_pages=-(-total // size), number=page)
        return views.of_list(found, this, service.settings.url)


@ROUTER.post("/deployments", status_code=201)
def create(
    service: Here,
    person: Asker,
    order: views.Order,
    response: Response,
    idempotency_key: Annotated[
        UUID | None, Header(description="Becomes the deployment's uuid: the same order sent again makes no other one.")
    ] = None,
) -> views.DeploymentView:
    """Have a template deployed."""
    deployment = Deployment(
        issuer=person.issuer,
        subject=person.subject,
        username=person.username,
        organisation=organisation(service.door.memberships(person), order.user_group),
        attempts=[],
    )
    if idempotency_key is not None:
        deployment.uuid = str(idempotency_key)
    change(service, deployment, order)
    with Session(service.engine, expire_on_commit=False) as session:
        if idempotency_key is not None and (before := session.get(Deployment, str(idempotency_key))):
            response.status_code = 200
            return again(service, person, before, order)
        try:
            entrust(service, session, person)
            orders.create(service.client, session, deployment)
            session.commit()
        except sa.exc.IntegrityError:
            raise RefusedError(409, f"deployment {idempotency_key} is being made by another request") from None
        return views.of_deployment(deployment, service.settings.url)


def organisation(memberships: list[str], wanted: str | None) -> str:
    """Which organisation somebody deploys for; raises RefusedError: 403 for members of none, 400 where unclear."""
    if not memberships:
        raise RefusedError(403, "only members of an organisation of this site may deploy. Next: ask for membership")
    if wanted is None and len(memberships) > 1:
        raise RefusedError(400, f"for which organisation? Next: set userGroup to one of {', '.join(memberships)}")
    if wanted is not None and wanted not in memberships:
        raise RefusedError(403, f"not a member of {wanted} (found {', '.join(memberships)}). Next: correct userGroup")
    return wanted or memberships[0]


def change(service: Service, deployment: Deployment, wanted: views.Change) -> None:
    """Make a deployment what is wanted; raises RefusedError (400) where that is wrong."""
    if wanted.callback is not None:
        callback(wanted.callback, service.settings.callback_hosts)
    deployment.template, deployment.parameters = wanted.template, wanted.parameters
    deployment.callback = wanted.callback
    deployment.keep_last_attempt = wanted.keep_last_attempt
    deployment.max_providers_retry = wanted.max_providers_retry
    try:
        service.check(deployment)
    except ValueError as error:
        raise RefusedError(400, str(error)) from None


def callback(address: str, allowed: frozenset[str]) -> None:
    """Refuse (400) to send anything to hosts that the site has not named: others may be this network's own."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme != "https" or host not in allowed or parts.username:
        needed = f"https and one of the hosts {', '.join(sorted(allowed)) or '(the site names none)'}"
        raise RefusedError(400, f"nothing is sent to callback {address} (needed {needed}). Next: ask the site")


def again(service: Service, person: Person, before: Deployment, order: views.Order) -> views.DeploymentView:
    """The answer to an order that has come before; raises RefusedError (409) where it was another one."""
    same = (before.template, before.parameters) == (order.template, order.parameters)
    if not (same and service.door.owns(person, before)):
        raise RefusedError(409, f"deployment {before.uuid} is another one. Next: send another Idempotency-Key")
    return views.of_deployment(before, service.settings.url)


def entrust(service: Service, session: Session, person: Person) -> None:
    """Have the issuer let the service act for somebody, and note that with the order."""
    if service.delegate:
        service.delegate.keep(session, person, service.delegate.exchange(person))


@ROUTER.get("/deployments/{uuid}")
def show(service: Here, person: Asker, uuid: UUID) -> views.DeploymentView:
    """A deployment, and why each site was chosen or not."""
    with Session(service.engine) as session:
        return views.of_deployment(seen(service, person, session, uuid), service.settings.url)


@ROUTER.put("/deployments/{uuid}", status_code=202)
def update(service: Here, person: Asker, uuid: UUID, wanted: views.Change) -> views.DeploymentView:
    """Have a deployment made what a template says now, at the site where it is."""
    with Session(service.engine, expire_on_commit=False) as session:
        deployment = owned(service, person, session, uuid)
        # Not to be written before everything is right, nor while the issuer is asked.
        with session.no_autoflush:
            change(service, deployment, wanted)
            entrust(service, session, person)
            orders.update(service.client, session, deployment)
        session.commit()
        return views.of_deployment(deployment, service.settings.url)


@ROUTER.delete("/deployments/{uuid}", status_code=204)
def delete(service: Here, person: Asker, uuid: UUID) -> None:
    """Have everything of a deployment removed; by its owner, or an administrator with what the owner gave."""
    allowed = seen if service.door.administers(person) else owned
    with Session(service.engine) as session:
        deployment = allowed(service, person, session, uuid)
        if service.door.owns(person, deployment):
            entrust(service, session, person)
        orders.delete(service.client, session, deployment)
        session.commit()


@ROUTER.get("/deployments/{uuid}/template", response_class=PlainTextResponse)
def template(service: Here, person: Asker, uuid: UUID) -> str:
    """The template as it was sent."""
    with Session(service.engine) as session:
        return seen(service, person, session, uuid).template


@ROUTER.get("/deployments/{uuid}/resources")
def resources(service: Here, person: Asker, uuid: UUID) -> views.ResourceList:
    """The nodes of a deployment's template."""
    with Session(service.engine) as session:
        return views.of_resources(seen(service, person, session, uuid), service.settings.url)


@ROUTER.get("/deployments/{uuid}/resources/{resource}")
def one_resource(service: Here, person: Asker, uuid: UUID, resource: UUID) -> views.ResourceView:
    """One node of a deployment's template."""
    for one in resources(service, person, uuid).content:
        if one.uuid == str(resource):
            return one
    raise RefusedError(404, f"deployment {uuid} has no resource {resource}")


# --- answers to what goes wrong ---


def said(status: int, why: str) -> JSONResponse:
    """A refusal as INDIGO's orchestrator writes it."""
    refusal = views.Refusal(code=status, title=http.HTTPStatus(status).phrase, message=why)
    # Required of every 401 (RFC 9110, 11.6.1).
    headers = {"WWW-Authenticate": "Bearer"} if status == http.HTTPStatus.UNAUTHORIZED else None
    return JSONResponse(refusal.model_dump(by_alias=True), status, headers)


def refused(_request: Request, error: Exception) -> JSONResponse:
    """What the interface refuses."""
    assert isinstance(error, RefusedError)  # nosec B101 # the framework's types are wider
    return said(error.status, str(error))


def conflict(_request: Request, error: Exception) -> JSONResponse:
    """What cannot be asked of a deployment now."""
    return said(409, str(error))


def unknown(_request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: no such path or method."""
    assert isinstance(error, HTTPException)  # nosec B101 # the framework's types are wider
    return said(error.status_code, str(error.detail))


def invalid(_request: Request, error: Exception) -> JSONResponse:
    """What is not of the right form; without the values, which may be secret."""
    assert isinstance(error, RequestValidationError)  # nosec B101 # the framework's types are wider
    faults = (f"{'.'.join(map(str, one['loc'][1:])) or one['loc'][0]}: {one['msg']}" for one in error.errors())
    return said(400, "; ".join(faults))


def away(_request: Request, error: Exception) -> JSONResponse:
    """The database does not answer."""
    LOG.warning("The database does not answer: %s", error)
    return said(503, "the database does not answer, try again in a moment")


HANDLERS: dict[type[Exception], Callable[[Request, Exception], JSONResponse]] = {
    RefusedError: refused,
    orders.ConflictError: conflict,
    HTTPException: unknown,
    RequestValidationError: invalid,
    sa.exc.OperationalError: away,
    sa.exc.InterfaceError: away,
    sa.exc.TimeoutError: away,
}
