"""What the REST interface answers with: the contract of INDIGO's orchestrator, and beside it why a site was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from deep_orchestrator.selection import Candidate
from deep_orchestrator.store import Attempt, Deployment, Json, Outcome

# In characters; DEEP's largest template has 5000.
LONGEST_TEMPLATE = 200_000
MOST_PARAMETERS = 200
# What a resource's state is called, by the end of its deployment's.
RESOURCE_STATES = {
    "CREATE_IN_PROGRESS": "CREATING",
    "CREATE_COMPLETE": "STARTED",
    "UPDATE_IN_PROGRESS": "CONFIGURING",
    "UPDATE_COMPLETE": "STARTED",
    "DELETE_IN_PROGRESS": "DELETING",
    "DELETE_COMPLETE": "DELETED",
}


class View(BaseModel):
    """Has names as JavaScript writes them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Change(View):
    """What is asked of a deployment."""

    template: str = Field(min_length=1, max_length=LONGEST_TEMPLATE, description="A TOSCA template (YAML).")
    parameters: dict[str, Any] = Field(
        default_factory=dict, max_length=MOST_PARAMETERS, description="Values of the template's inputs."
    )
    # The contract's own spelling; what it means is taken too.
    keep_last_attempt: bool = Field(
        default=False,
        validation_alias=AliasChoices("keepLastAttemp", "keepLastAttempt"),
        serialization_alias="keepLastAttemp",
        description="Whether what failed last stays, to be looked at.",
    )
    max_providers_retry: int | None = Field(
        default=None, ge=0, le=100, description="At how many more sites it is tried where the first one fails."
    )
    callback: str | None = Field(
        default=None,
        max_length=2000,
        description="An https address that the deployment is sent to when an order is done.",
    )


class Order(Change):
    """A new deployment."""

    user_group: str | None = Field(
        default=None, description="The organisation it is for; needed by members of several."
    )


class Link(View):
    """Another address."""

    rel: str
    href: str


class Page(View):
    """Which part of a list this is; pages are counted from 0."""

    size: int
    total_elements: int
    total_pages: int
    number: int


class Creator(View):
    """Who made it, as the token said."""

    issuer: str
    subject: str
    username: str


class TriedSite(View):
    """What became of it at one site."""

    site: str
    outcome: Outcome
    reason: str | None
    infrastructure: str | None
    started: datetime
    ended: datetime | None


class DeploymentView(View):
    """A deployment. ``selection``: what was decided about each site, and why; ``attempts``: where it was tried."""

    uuid: str
    creation_time: datetime
    update_time: datetime
    status: str
    status_reason: str | None
    task: str
    outputs: dict[str, Any]
    callback: str | None
    keep_last_attemp: bool
    max_providers_retry: int | None
    user_group: str
    created_by: Creator
    physical_id: str | None
    cloud_provider_name: str | None
    cloud_provider_endpoint: dict[str, str]
    selection: list[Candidate]
    attempts: list[TriedSite]
    links: list[Link]


class ResourceView(View):
    """One node of a deployment's template."""

    uuid: str
    creation_time: datetime
    state: str
    tosca_node_name: str
    tosca_node_type: str
    required_by: list[str]
    links: list[Link]


class DeploymentList(View):
    """A part of the deployments that one may see, the newest first."""

    content: list[DeploymentView]
    links: list[Link]
    page: Page


class ResourceList(View):
    """All nodes of a template."""

    content: list[ResourceView]
    links: list[Link]


class Refusal(View):
    """Why there is nothing else."""

    code: int
    title: str
    message: str


class Info(View):
    """What answers here."""

    project_name: str
    project_version: str


class Configuration(View):
    """What it works with."""

    url: str
    issuer: str
    organisations: Annotated[list[str], Field(description="Those that one may deploy for.")]
    sites: list[str]


def of_deployment(deployment: Deployment, base: str) -> DeploymentView:
    """What is said of a deployment. ``base``: the address of the service, without a slash at the end."""
    here = f"{base}/deployments/{deployment.uuid}"
    last = deployment.attempts[-1] if deployment.attempts else None
    return DeploymentView(
        uuid=deployment.uuid,
        creation_time=deployment.created,
        update_time=deployment.updated,
        status=deployment.status,
        status_reason=deployment.status_reason,
        task="DEPLOYING" if deployment.status.in_progress else "NONE",
        outputs=deployment.outputs,
        callback=deployment.callback,
        keep_last_attemp=deployment.keep_last_attempt,
        max_providers_retry=deployment.max_providers_retry,
        user_group=deployment.organisation,
        created_by=Creator(issuer=deployment.issuer, subject=deployment.subject, username=deployment.username),
        physical_id=last.infrastructure if last else None,
        cloud_provider_name=last.site if last else None,
        # orpy shows nothing of a deployment without it.
        cloud_provider_endpoint={"cpName": last.site} if last else {},
        selection=[Candidate.model_validate(one) for one in deployment.selection],
        attempts=[_of_attempt(one) for one in deployment.attempts],
        links=[
            Link(rel="self", href=here),
            Link(rel="resources", href=f"{here}/resources"),
            Link(rel="template", href=f"{here}/template"),
        ],
    )


def _of_attempt(attempt: Attempt) -> TriedSite:
    return TriedSite.model_validate(attempt, from_attributes=True)


def of_list(deployments: Sequence[Deployment], page: Page, base: str) -> DeploymentList:
    """A part of a list. Never with a link to the last part: with next and last both there, orpy 1.0.4 breaks."""
    address = f"{base}/deployments?size={page.size}&page="
    links = [Link(rel="self", href=f"{address}{page.number}")]
    if page.number > 0:
        links.append(Link(rel="prev", href=f"{address}{page.number - 1}"))
    if page.number + 1 < page.total_pages:
        links.append(Link(rel="next", href=f"{address}{page.number + 1}"))
    return DeploymentList(content=[of_deployment(one, base) for one in deployments], links=links, page=page)


def of_resources(deployment: Deployment, base: str) -> ResourceList:
    """The nodes of a template; they live and end with their deployment."""
    here = f"{base}/deployments/{deployment.uuid}/resources"
    nodes = _nodes(deployment.template)
    content = [
        ResourceView(
            uuid=str(uuid := uuid5(NAMESPACE_URL, f"{deployment.uuid}/{name}")),
            creation_time=deployment.created,
            state=RESOURCE_STATES.get(deployment.status, "ERROR"),
            tosca_node_name=name,
            tosca_node_type=str(node.get("type", "")),
            required_by=[other for other, its in nodes.items() if name in _required(its)],
            links=[Link(rel="self", href=f"{here}/{uuid}")],
        )
        for name, node in nodes.items()
    ]
    return ResourceList(content=content, links=[Link(rel="self", href=here)])


def _nodes(template: str) -> dict[str, Json]:
    """Nodes of a template by name; templates were checked when they came."""
    loaded = yaml.safe_load(template)
    nodes = loaded.get("topology_template", {}).get("node_templates", {}) if isinstance(loaded, dict) else {}
    return {str(name): node for name, node in nodes.items() if isinstance(node, dict)}


def _required(node: Json) -> set[str]:
    """Names of the nodes that a node needs: each requirement is a name, or an object that has one."""
    targets = [target for one in node.get("requirements", []) for target in one.values()]
    return {str(target.get("node") if isinstance(target, dict) else target) for target in targets}
