"""Everything of one process, put together from its settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dbos import DBOSClient
from fastapi import FastAPI

from deep_orchestrator import settings, store
from deep_orchestrator.api import Service, application
from deep_orchestrator.asks import ask
from deep_orchestrator.callbacks import Callbacks
from deep_orchestrator.delegation import Delegate
from deep_orchestrator.identity import Door, Issuer
from deep_orchestrator.selection import Offer
from deep_orchestrator.sites import NullSite, Site
from deep_orchestrator.steps import Limits, Steps
from deep_orchestrator.worker import working
from deep_orchestrator.workflows import Deployer


@contextmanager
def serving(said: settings.Settings) -> Iterator[FastAPI]:
    """The REST interface, as an ASGI application, while a worker does what is ordered through it."""
    engine = store.engine(said.database)
    issuer = Issuer(said.identity)
    delegate = Delegate(engine, issuer, said.delegation) if said.delegation else None
    sites = {name: made(one) for name, one in said.sites.items()}

    def deployer() -> Deployer:
        callbacks = Callbacks(said.url, said.callback_hosts)
        return Deployer(Steps(engine, sites, lambda: offers(said), ask, Limits(), callbacks.send))

    def forget() -> None:
        if delegate:
            delegate.forget()

    with working(engine, said.executor, deployer, chore=forget):
        client = DBOSClient(system_database_engine=engine, lazy=True)
        yield application(Service(said, engine, client, Door(said.identity, issuer), delegate, sorted(sites), ask))


def made(site: settings.NullSite) -> Site:
    """The site that its settings describe."""
    return NullSite(site.folder, site.seconds)


def offers(said: settings.Settings) -> list[Offer]:
    """What each site has now."""
    return [one.offer for one in said.sites.values()]
