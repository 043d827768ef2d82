"""The order of the steps; after a crash a workflow goes on behind the last step that was noted.

Each operation on a deployment is a workflow of its own. The queue runs one at a time for each deployment, and the
number of the operation in the deployment's row tells an older one to stop: the newer one takes care of what is at the
sites.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSConfiguredInstance, SetEnqueueOptions, StepOptions
from dbos import error as dbos_errors

from deep_orchestrator.steps import Progress, Seen, Steps
from deep_orchestrator.store import Json, Status

DBOSMaxStepRetriesExceeded = dbos_errors.DBOSMaxStepRetriesExceeded
P = ParamSpec("P")
R = TypeVar("R")
LOG = logging.getLogger(__name__)

QUEUE = "deployments"
TIDYING = "tidying"
TELLING = "telling"
NAME = "deployer"
# Of a step whose site is not reached. The pauses double: from one second they are 63 altogether.
TRIES = 7
# What the database says while it is away or has no connection left.
AWAY = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)
# Each look at what takes long comes a little later than the one before, up to so many seconds.
SLOWER, LONGEST_POLL = 1.2, 15.0
# Seconds until what may be left at a site is looked for: first, and at most between two times.
FIRST_TIDYING, LONGEST_TIDYING = 60.0, 3600.0
# And where all is gone, but something may still have been being made: longer than any request to a site takes.
LATE_TIDYING = 900.0


class StepError(Exception):
    """What went wrong in a step, in a line: an error of a library may be one that cannot be kept and read again."""


@DBOS.dbos_class()
class Deployer(DBOSConfiguredInstance):
    """Works on deployments; no workflow is given up for having been interrupted too often.

    ``poll``: seconds between the first looks at a site; ``pause``: before a step is tried again.
    """

    def __init__(self, steps: Steps, poll: float = 2, pause: float = 1) -> None:
        super().__init__(NAME)
        self._steps, self._poll, self._pause = steps, poll, pause
        self._retries: StepOptions = {
            "retries_allowed": True, "max_attempts": TRIES, "interval_seconds": pause, "backoff_rate": 2,
        }  # fmt: skip

    def _step(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one step. A site that is not reached is tried again for a while, the database for as long as it takes."""

        @functools.wraps(step)
        def plain(*args: P.args, **kwargs: P.kwargs) -> R:
            while True:
                try:
                    return step(*args, **kwargs)
                except AWAY:
                    LOG.warning("The database does not answer; %s waits for it", step.__name__, exc_info=True)
                    time.sleep(self._pause)
                except Exception as error:
                    LOG.warning("%s%s has failed", step.__name__, args, exc_info=True)
                    raise StepError(in_a_line(error)) from None

        return DBOS.run_step(self._retries, plain, *args, **kwargs)

    # --- workflows ---

    @DBOS.workflow(max_recovery_attempts=None)
    def work(self, uuid: str, operation: int, what: str) -> None:
        """Do what was ordered: create, update or delete."""
        do = {"create": self._create, "update": self._update, "delete": self._delete}[what]
        try:
            reason = do(uuid, operation)
        # Whatever it is: nobody would go on with it, so it must not seem to be in progress.
        except Exception as error:  # pylint: disable=broad-exception-caught
            reason = cause(error)
        if reason is not None:
            self._step(self._steps.fail, uuid, operation, Status(f"{what.upper()}_FAILED"), reason)
        if self._step(self._steps.awaited, uuid, operation):
            DBOS.enqueue_workflow(TELLING, self.tell, uuid, operation)

    @DBOS.workflow(max_recovery_attempts=None)
    def tell(self, uuid: str, operation: int) -> None:
        """Tell who waits for it that an operation is over; where that fails again and again, they have to look."""
        try:
            self._step(self._steps.tell, uuid, operation)
        except DBOSMaxStepRetriesExceeded as error:
            LOG.warning("The callback of %s cannot be told: %s", uuid, cause(error))

    @DBOS.workflow(max_recovery_attempts=None)
    def tidy(self, uuid: str, site: str, pause: float) -> None:
        """Remove what may be left at a site, and again later where that fails."""
        reason = self._remove_from(uuid, site)
        if reason is not None:
            LOG.warning("Something of %s may be left at %s: %s", uuid, site, reason)
            self._tidy_later(uuid, site, min(2 * pause, LONGEST_TIDYING))

    def _tidy_later(self, uuid: str, site: str, seconds: float) -> None:
        with SetEnqueueOptions(delay_seconds=seconds):
            DBOS.enqueue_workflow(TIDYING, self.tidy, uuid, site, seconds)

    # --- what they are made of: each returns why it failed, or None ---

    def _create(self, uuid: str, operation: int) -> str | None:
        """Deploy at the first site in the order that makes it."""
        sites, nobody = self._step(self._steps.choose, uuid)
        reasons = [nobody] if nobody else []
        for site in sites:
            reason = self._deploy_at(uuid, operation, site)
            if reason is None:
                return None
            reasons.append(f"{site}: {reason}")
        return "; ".join(reasons)

    def _deploy_at(self, uuid: str, operation: int, site: str) -> str | None:
        """Deploy at one site; what a failure leaves there is removed, and looked for again later."""
        if not self._step(self._steps.begin, uuid, operation, site):
            return None
        infrastructure, reason, outputs = self._try_at(uuid, operation, site)
        if reason is not None:
            if not self._step(self._steps.note_failure, uuid, operation, site, reason):
                gone = self._remove_from(uuid, site) is None
                self._tidy_later(uuid, site, LATE_TIDYING if gone else FIRST_TIDYING)
        elif outputs is not None:
            with suppress(DBOSMaxStepRetriesExceeded):  # what is left is found by its name when it is deleted
                self._step(self._steps.remove_others, uuid, site, infrastructure)
            self._step(self._steps.complete, uuid, operation, site, infrastructure, outputs)
        return reason

    def _try_at(self, uuid: str, operation: int, site: str) -> tuple[str, str | None, Json | None]:
        """Identifier of what was made at a site, why it does not run, and its outputs where it does."""
        try:
            infrastructure, refused = self._step(self._steps.make, uuid, operation, site)
            if not infrastructure:
                return "", refused or None, None
            return infrastructure, *self._wait(uuid, operation, site, infrastructure)
        except DBOSMaxStepRetriesExceeded as error:
            return "", cause(error), None

    def _update(self, uuid: str, operation: int) -> str | None:
        """Make what there is what the template says now, where it is."""
        site, infrastructure = self._step(self._steps.place, uuid)
        if not infrastructure:
            return "nothing is deployed"
        refused = self._step(self._steps.change, uuid, site, infrastructure)
        if refused:
            return refused
        reason, outputs = self._wait(uuid, operation, site, infrastructure)
        if outputs is not None:
            self._step(self._steps.finish, uuid, operation, Status.UPDATE_COMPLETE, outputs)
        return reason

    def _delete(self, uuid: str, operation: int) -> str | None:
        """Remove everything that any operation made at any site."""
        left = []
        for site, being_made in self._step(self._steps.touched, uuid).items():
            reason = self._remove_from(uuid, site)
            if reason is not None:
                left.append(f"{site}: {reason}")
            elif being_made:
                self._tidy_later(uuid, site, LATE_TIDYING)
        if left:
            return f"not removed, delete it again: {'; '.join(left)}"
        self._step(self._steps.finish, uuid, operation, Status.DELETE_COMPLETE, {})
        return None

    def _wait(self, uuid: str, operation: int, site: str, infrastructure: str) -> tuple[str | None, Json | None]:
        """Look until it is ready: why it is not, and its outputs; neither where a newer operation has taken over."""
        seen = self._until_done(self._steps.look, uuid, operation, site, infrastructure)
        if seen["progress"] == Progress.FAILED:
            return seen["reason"], None
        return None, seen["outputs"] if seen["progress"] == Progress.DONE else None

    def _remove_from(self, uuid: str, site: str) -> str | None:
        """Remove what is at a site; why that failed."""
        try:
            seen = self._until_done(self._steps.remove, uuid, site)
        except DBOSMaxStepRetriesExceeded as error:
            return cause(error)
        return seen["reason"] if seen["progress"] == Progress.FAILED else None

    def _until_done(self, step: Callable[..., Seen], *args: object) -> Seen:
        """Run a step again and again, with the time of the first as its last argument, until it is over."""
        since, pause = 0.0, self._poll
        while True:
            seen = self._step(step, *args, since)
            if seen["progress"] != Progress.GOING_ON:
                return seen
            since = seen["since"]
            DBOS.sleep(pause)
            pause = min(SLOWER * pause, max(self._poll, LONGEST_POLL))


def cause(error: Exception) -> str:
    """What went wrong, in a line: of a step that was tried again and again, the last time."""
    if isinstance(error, DBOSMaxStepRetriesExceeded) and error.errors:
        return str(error.errors[-1])
    return in_a_line(error)


def in_a_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    first, _, _ = str(error).partition("\n")
    return f"{type(error).__name__}: {first}"
