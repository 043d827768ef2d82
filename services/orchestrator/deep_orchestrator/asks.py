"""What a deployment needs of a site, read from its template."""

from __future__ import annotations

from deep_orchestrator.selection import Ask
from deep_orchestrator.store import Deployment
from deep_tosca import template as tosca


def ask(deployment: Deployment) -> Ask:
    """What a deployment asks for, for its owner's organisation; raises TemplateError where the template is wrong."""
    needs = tosca.needs(tosca.read(deployment.template), deployment.parameters)
    return Ask(organisation=deployment.organisation, **needs.model_dump())
