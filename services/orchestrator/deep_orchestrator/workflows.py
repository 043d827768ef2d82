"""The order of the steps; after a crash a workflow goes on behind the last step that was noted.

Each operation on a deployment is a workflow of its own. The queue runs one at a time for each deployment, and the
number of the operation in the deployment's row tells an older one to stop: the newer one takes care of what is at the
sites.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from dbos import DBOS, DBOSConfiguredInstance, StepOptions
from dbos import error as dbos_errors

from deep_orchestrator.sites import State
from deep_orchestrator.steps import Steps
from deep_orchestrator.store import Json, Status

DBOSMaxStepRetriesExceeded = dbos_errors.DBOSMaxStepRetriesExceeded
P = ParamSpec("P")
R = TypeVar("R")

QUEUE = "deployments"
TIDYING = "tidying"
NAME = "deployer"
# Of a step whose site or database is not reached. The pauses double: from one second they are 63 altogether.
TRIES = 7
# Seconds between two tries to remove what a site that was not reached may still have: twice as many each time.
FIRST_PAUSE, LONGEST_PAUSE = 60, 3600


@dataclass(frozen=True)
class Limits:
    """Seconds between two looks, for one attempt, until what is removed is gone, and before a step is tried again."""

    poll: float = 2
    attempt: float = 1800
    removal: float = 300
    pause: float = 1


@DBOS.dbos_class()
class Deployer(DBOSConfiguredInstance):
    """Works on deployments; no workflow is given up for having been interrupted too often."""

    def __init__(self, steps: Steps, limits: Limits) -> None:
        super().__init__(NAME)
        self._steps, self._limits = steps, limits
        self._retries: StepOptions = {
            "retries_allowed": True, "max_attempts": TRIES, "interval_seconds": limits.pause, "backoff_rate": 2,
        }  # fmt: skip

    def _step(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one step; a site or a database that is not reached is tried again for a while."""
        return DBOS.run_step(self._retries, step, *args, **kwargs)

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
        if reason:
            self._step(self._steps.fail, uuid, operation, Status(f"{what.upper()}_FAILED"), reason)

    @DBOS.workflow(max_recovery_attempts=None)
    def tidy(self, uuid: str, site: str) -> None:
        """Remove what a failed attempt left at a site that was not reached, whenever it is reached again."""
        pause = FIRST_PAUSE
        while not self._remove_from(uuid, site):
            DBOS.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    # --- what they are made of: each returns why it failed, or nothing ---

    def _create(self, uuid: str, operation: int) -> str:
        """Deploy at the first site in the order that makes it."""
        reasons = []
        sites, nobody = self._step(self._steps.choose, uuid)
        for site in sites:
            reason = self._deploy_at(uuid, operation, site)
            if not reason:
                return ""
            reasons.append(f"{site}: {reason}")
        return nobody or "; ".join(reasons)

    def _deploy_at(self, uuid: str, operation: int, site: str) -> str:
        """Deploy at one site; what a failure leaves there is removed, later if need be."""
        if not self._step(self._steps.begin, uuid, operation, site):
            return ""
        infrastructure, reason, outputs = self._try_at(uuid, operation, site)
        if reason:
            if not self._step(self._steps.note_failure, uuid, operation, site, reason) and not self._remove_from(
                uuid, site
            ):
                DBOS.enqueue_workflow(TIDYING, self.tidy, uuid, site)
        elif outputs is not None:
            with suppress(DBOSMaxStepRetriesExceeded):  # what is left is found by its name when it is deleted
                self._step(self._steps.remove_others, uuid, site, infrastructure)
            self._step(self._steps.complete, uuid, operation, site, infrastructure, outputs)
        return reason

    def _try_at(self, uuid: str, operation: int, site: str) -> tuple[str, str, Json | None]:
        """Identifier of what was made at a site, why it does not run, and its outputs where it does."""
        try:
            infrastructure, reason = self._step(self._steps.make, uuid, site)
            if reason:
                return "", reason, None
            return infrastructure, *self._wait(uuid, operation, site, infrastructure)
        except DBOSMaxStepRetriesExceeded as error:
            return "", cause(error), None

    def _update(self, uuid: str, operation: int) -> str:
        """Make what there is what the template says now, where it is."""
        site, infrastructure = self._step(self._steps.place, uuid)
        if not infrastructure:
            return "nothing is deployed"
        reason = self._step(self._steps.change, uuid, site, infrastructure)
        if not reason:
            reason, outputs = self._wait(uuid, operation, site, infrastructure)
            if outputs is not None:
                self._step(self._steps.finish, uuid, operation, Status.UPDATE_COMPLETE, outputs)
        return reason

    def _delete(self, uuid: str, operation: int) -> str:
        """Remove everything that any operation made at any site."""
        left = [site for site in self._step(self._steps.touched, uuid) if not self._remove_from(uuid, site)]
        if left:
            return f"not gone from {', '.join(left)}: delete it again"
        self._step(self._steps.finish, uuid, operation, Status.DELETE_COMPLETE, {})
        return ""

    def _wait(self, uuid: str, operation: int, site: str, infrastructure: str) -> tuple[str, Json | None]:
        """Look until it is ready: why it is not, and its outputs; neither where a newer operation has taken over."""
        begun: float | None = None
        while True:
            seen = self._step(self._steps.look, uuid, operation, site, infrastructure)
            if seen is None:
                return "", None
            if seen["state"] == State.READY:
                return "", seen["outputs"]
            if seen["state"] == State.FAILED:
                return seen["reason"] or "it failed and does not say why", None
            begun = begun or seen["at"]
            if seen["at"] - begun > self._limits.attempt:
                return f"not ready within {self._limits.attempt:g} s", None
            DBOS.sleep(self._limits.poll)

    def _remove_from(self, uuid: str, site: str) -> bool:
        """Remove what is at a site; whether it is gone."""
        for _ in range(max(1, int(self._limits.removal / self._limits.poll))):
            try:
                if self._step(self._steps.remove, uuid, site):
                    return True
            except DBOSMaxStepRetriesExceeded:
                return False
            DBOS.sleep(self._limits.poll)
        return False


def cause(error: Exception) -> str:
    """What went wrong, in one line: of a step that was tried again and again, the last time."""
    last = error.errors[-1] if isinstance(error, DBOSMaxStepRetriesExceeded) and error.errors else error
    return f"{type(last).__name__}: {last}"
