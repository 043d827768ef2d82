"""What a pod of Kubernetes takes of its node, counted as the scheduler counts it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

from deep_cloud_info.quantities import Amounts, added, amounts, larger

Json = dict[str, Any]
TERMINATED = ("Succeeded", "Failed")


def requests(pod: Json) -> Amounts:
    """Resources that a pod holds on its node.

    Containers and sidecars (init containers that restart always) run together; every other init container runs alone,
    beside the sidecars that come before it. A container that is being resized counts with the larger of what it has
    and what it asks for. What the pod says as a whole comes before what its containers say.
    """
    spec, status = pod["spec"], pod.get("status") or {}
    refused = _resize_refused(status)
    held = _by_name(status.get("containerStatuses"))
    total = reduce(added, (_container(one, held, refused) for one in spec["containers"]), Amounts())
    sidecars, before = Amounts(), Amounts()
    held = _by_name(status.get("initContainerStatuses"))
    for one in spec.get("initContainers") or []:
        if one.get("restartPolicy") == "Always":
            asked = _container(one, held, refused)
            total, sidecars = added(total, asked), added(sidecars, asked)
            before = larger(before, sidecars)
        else:
            before = larger(before, added(sidecars, amounts(_asked(one))))
    whole = {**larger(total, before), **amounts(_asked(spec))}
    return added(whole, amounts(spec.get("overhead")))


def _asked(thing: Mapping[str, Any]) -> Mapping[str, str]:
    resources = thing.get("resources") or {}
    # The API server writes requests where only limits are given, except for a pod as a whole.
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})} if resources else {}


def _container(container: Json, held: Mapping[str, Json], refused: bool) -> Amounts:
    asked, status = amounts(_asked(container)), held.get(container["name"], {})
    now = larger(amounts((status.get("resources") or {}).get("requests")), amounts(status.get("allocatedResources")))
    return now if refused and now else larger(asked, now)


def _by_name(statuses: list[Json] | None) -> dict[str, Json]:
    return {status["name"]: status for status in statuses or []}


def _resize_refused(status: Json) -> bool:
    """Whether the node can never give the pod what it now asks for."""
    pending = (one for one in status.get("conditions") or [] if one["type"] == "PodResizePending")
    return any(one.get("reason") == "Infeasible" for one in pending)
