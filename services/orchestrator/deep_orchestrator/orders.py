"""What may be asked of a deployment, and when. An order and the work that it means are written in one transaction."""

from __future__ import annotations

from dbos import DBOSClient, EnqueueOptions
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from deep_orchestrator.store import Deployment, Status
from deep_orchestrator.workflows import NAME, QUEUE, Deployer


class ConflictError(Exception):
    """The deployment is in a state in which this cannot be asked of it."""


def create(client: DBOSClient, session: Session, deployment: Deployment) -> None:
    """Have a new deployment made."""
    deployment.operation, deployment.status = 1, Status.CREATE_IN_PROGRESS
    session.add(deployment)
    session.flush()
    _enqueue(client, session, deployment, "create")


def update(client: DBOSClient, session: Session, deployment: Deployment) -> None:
    """Have a deployment made what its template and its parameters say now; raises ConflictError unless one runs."""
    if deployment.status not in {Status.CREATE_COMPLETE, Status.UPDATE_COMPLETE, Status.UPDATE_FAILED}:
        raise ConflictError(f"it is {deployment.status}, and only what runs can be changed")
    _next(session, deployment, Status.UPDATE_IN_PROGRESS)
    _enqueue(client, session, deployment, "update")


def delete(client: DBOSClient, session: Session, deployment: Deployment) -> None:
    """Have everything of a deployment removed, also while it is being made; raises ConflictError the second time."""
    if deployment.status in {Status.DELETE_IN_PROGRESS, Status.DELETE_COMPLETE}:
        raise ConflictError(f"it is {deployment.status}")
    _next(session, deployment, Status.DELETE_IN_PROGRESS)
    _enqueue(client, session, deployment, "delete")


def _next(session: Session, deployment: Deployment, status: Status) -> None:
    deployment.operation += 1
    deployment.status, deployment.status_reason = status, None
    try:
        session.flush()
    except StaleDataError:
        raise ConflictError(
            "something else was ordered of it at the same time: look at it, and order it again"
        ) from None


def _enqueue(client: DBOSClient, session: Session, deployment: Deployment, what: str) -> None:
    """Have a worker do the deployment's operation once the transaction of ``session`` is committed."""
    options: EnqueueOptions = {
        "queue_name": QUEUE,
        "workflow_name": Deployer.work.__qualname__,
        "workflow_id": f"{deployment.uuid}:{deployment.operation}",
        "queue_partition_key": deployment.uuid,
        "class_name": Deployer.__name__,
        "instance_name": NAME,
    }
    client.enqueue_in_transaction(session, options, deployment.uuid, deployment.operation, what)
