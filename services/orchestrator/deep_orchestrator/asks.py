"""What a deployment needs of a site, read from its template."""

from __future__ import annotations

import functools

from deep_orchestrator.selection import Ask
from deep_orchestrator.store import Deployment
from deep_tosca import template as tosca

# Many deployments have the same template, and reading one takes 20 ms.
read = functools.lru_cache(maxsize=32)(tosca.read)


def ask(deployment: Deployment) -> Ask:
    """What a deployment asks for, for its owner's organisation; raises TemplateError where the template is wrong."""
    needs = tosca.needs(read(deployment.template), deployment.parameters)
    return Ask(organisation=deployment.organisation, **needs.model_dump())
