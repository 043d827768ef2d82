"""Everything of one process, put together from its settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from dbos import DBOSClient
from fastapi import FastAPI
from sqlalchemy.orm import Session

from deep_orchestrator import settings, store
from deep_orchestrator.api import Service, application
from deep_orchestrator.asks import ask
from deep_orchestrator.callbacks import Callbacks
from deep_orchestrator.delegation import Delegate
from deep_orchestrator.identity import Door, Issuer
from deep_orchestrator.infrastructure_manager import Credentials, InfrastructureManager, Ingress
from deep_orchestrator.offers import Offers
from deep_orchestrator.sites import NullSite, Site
from deep_orchestrator.steps import Steps
from deep_orchestrator.worker import working
from deep_orchestrator.workflows import Deployer


@contextmanager
def serving(said: settings.Settings) -> Iterator[FastAPI]:
    """The REST interface, as an ASGI application, while a worker does what is ordered through it."""
    engine = store.engine(said.database)
    issuer = Issuer(said.identity)
    delegate = Delegate(engine, issuer, said.delegation) if said.delegation else None
    sites = {name: made(name, one, engine, delegate) for name, one in said.sites.items()}
    published = Offers({name: one.information for name, one in said.sites.items() if one.kind != "null"})
    known = [one.offer for one in said.sites.values() if one.kind == "null"]

    def deployer() -> Deployer:
        callbacks = Callbacks(said.url, said.callback_hosts)
        return Deployer(Steps(engine, sites, lambda: [*published(), *known], ask, said.limits, callbacks.send))

    def forget() -> None:
        if delegate:
            delegate.forget()

    with working(engine, said.executor, deployer, chore=forget):
        client = DBOSClient(system_database_engine=engine, lazy=True)
        yield application(Service(said, engine, client, Door(said.identity, issuer), delegate, sorted(sites), ask))


def made(name: str, site: settings.Site, engine: sa.Engine, delegate: Delegate | None) -> Site:
    """The site that its settings describe."""
    if isinstance(site, settings.NullSite):
        return NullSite(site.folder, site.seconds)
    assert delegate is not None  # nosec B101 # the settings were checked

    def credentials(uuid: str) -> Credentials:
        with Session(engine) as session:
            organisation = store.get(session, uuid).organisation
        return Credentials(delegate.token(uuid), site.namespace.replace("{organisation}", organisation))

    ingress = Ingress(site.ingress_domain, site.ingress_port)
    return InfrastructureManager(name, site.url, site.kubernetes, site.authority, credentials, ingress=ingress)
