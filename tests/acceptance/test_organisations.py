"""What each virtual organisation has in the cluster, and that its limits are in force."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.utils.quantity import parse_quantity

from plugins.filter.access import organisations
from tests.acceptance.probes.cluster import GPU, Cluster, pod, ready
from tests.acceptance.probes.site import Site

# More than any quota allows.
TOO_MUCH = "1P"
PORT = 8080
SERVE = f"mkdir www && echo here > www/index.html && exec httpd -f -p {PORT} -h www"
ASK = "for try in 1 2 3 4 5; do wget -q -T 2 -O - http://{address}:{port}/ && exit; sleep 1; done; echo nothing"


@pytest.fixture(scope="module")
def served(site: Site, cluster: Cluster) -> list[dict[str, Any]]:
    """The organisations that the site declares."""
    declared = organisations(site.value(cluster.control_plane, "site_organisations"))
    if not declared:
        pytest.skip("the site declares no organisations (site_organisations)")
    return declared


def test_each_organisation_has_its_quota(cluster: Cluster, served: list[dict[str, Any]]) -> None:
    """The quota of each organisation's namespace is the declared one."""
    for one in served:
        (quota,) = cluster.core.list_namespaced_resource_quota(one["name"]).items
        assert _amounts(quota.spec.hard) == _amounts(one["quota"]), one["name"]


def _amounts(quota: dict[str, Any]) -> dict[str, Decimal]:
    """As numbers: the server writes some in another way than they were given."""
    return {name: parse_quantity(amount) for name, amount in quota.items()}  # type: ignore[no-untyped-call]


def test_each_organisation_has_its_bindings(site: Site, cluster: Cluster, served: list[dict[str, Any]]) -> None:
    """Members and readers of each organisation are bound to view, and nobody to more than that by us."""
    rbac: Any = client.RbacAuthorizationV1Api(cluster.api)
    prefix = site.value(cluster.control_plane, "iam_prefix")
    for one in served:
        bindings = rbac.list_namespaced_role_binding(one["name"], label_selector="app.kubernetes.io/part-of").items
        bound = {(binding.role_ref.name, subject.name) for binding in bindings for subject in binding.subjects}
        assert bound == {("view", f"{prefix}{group}") for group in (*one["members"], *one["readers"])}, one["name"]


def test_a_pod_that_asks_for_nothing_is_admitted(
    cluster: Cluster, served: list[dict[str, Any]], acceptance_image: str
) -> None:
    """A pod without requests gets the namespace's default ones and is let in under the quota."""
    for one in served:
        made = cluster.core.create_namespaced_pod(one["name"], pod("small", acceptance_image, "true"), dry_run="All")
        asked = made.spec.containers[0].resources.requests or {}
        assert {"cpu", "memory"} <= set(asked), f"{one['name']}: requests are {asked}"


def test_a_pod_above_the_quota_is_refused(
    cluster: Cluster, served: list[dict[str, Any]], acceptance_image: str
) -> None:
    """What an organisation asks for beyond its quota is refused, GPUs among it."""
    asked = 0
    for one in served:
        for name in sorted(one["quota"]):
            what, _, resource = name.partition(".")
            # Of claims, not of pods.
            if what != "requests" or resource == "storage":
                continue
            big = pod("big", acceptance_image, "true")
            amounts = {resource: TOO_MUCH}
            big["spec"]["containers"][0]["resources"] = {"requests": amounts, "limits": amounts}
            with pytest.raises(ApiException) as refusal:
                cluster.core.create_namespaced_pod(one["name"], big, dry_run="All")
            assert refusal.value.status == 403, f"{one['name']}: {name}: {refusal.value.reason}"
            assert "exceeded quota" in str(refusal.value.body), f"{one['name']}: {refusal.value.body}"
            assert name in str(refusal.value.body), f"{one['name']}: refused for another reason: {refusal.value.body}"
            asked += 1
    if not asked:
        pytest.skip("no organisation has a quota on requests")


def test_an_organisation_without_gpus_gets_none(
    cluster: Cluster, served: list[dict[str, Any]], acceptance_image: str
) -> None:
    """One GPU is refused where the quota has none, and let in where it has."""
    counted = {one["name"]: int(one["quota"][f"requests.{GPU}"]) for one in served if f"requests.{GPU}" in one["quota"]}
    if not counted:
        pytest.skip("no organisation has a quota on GPUs")
    for name, allowed in counted.items():
        used = cluster.core.read_namespaced_resource_quota("organisation", name).status.used or {}
        free = allowed - int(used.get(f"requests.{GPU}", 0))
        assert _admitted(cluster, name, pod("gpu", acceptance_image, "true", gpus=1)) is (free > 0), name


def _admitted(cluster: Cluster, namespace: str, manifest: dict[str, Any]) -> bool:
    try:
        cluster.core.create_namespaced_pod(namespace, manifest, dry_run="All")
    except ApiException as error:
        if error.status != 403:
            raise
        return False
    return True


def test_each_organisation_has_its_network_policy(cluster: Cluster, served: list[dict[str, Any]]) -> None:
    """A network policy selects every pod of each organisation, for both directions."""
    network: Any = client.NetworkingV1Api(cluster.api)
    for one in served:
        policies = network.list_namespaced_network_policy(one["name"]).items
        whole = [policy.spec.policy_types for policy in policies if not policy.spec.pod_selector.match_labels]
        assert ["Ingress", "Egress"] in whole, f"{one['name']}: {whole}"


def test_pods_of_an_organisation_are_kept_from_others(
    site: Site, cluster: Cluster, served: list[dict[str, Any]], acceptance_image: str
) -> None:
    """A pod of an organisation is reached from its own namespace and from no other."""
    plugin = site.value(cluster.control_plane, "kubernetes_network_plugin")
    if plugin != "calico":
        pytest.skip(f"network policies are not enforced by {plugin}")
    home, away = served[0]["name"], cluster.namespace("stranger")
    names = [f"acceptance-{part}-{cluster.run_id}" for part in ("web", "near")]
    try:
        cluster.create(home, pod(names[0], acceptance_image, SERVE))
        web = cluster.wait_for_pods(home, names[:1], ready, 60, "ready")[names[0]]
        script = ASK.format(address=web.status.pod_ip, port=PORT)
        cluster.create(home, pod(names[1], acceptance_image, script))
        cluster.create(away, pod("far", acceptance_image, script))
        near = cluster.finished_logs(home, names[1:])[names[1]].strip()
        assert near == "here", "the pod is not even reached from its own namespace"
        far = cluster.finished_logs(away, ["far"])["far"].strip()
        assert far == "nothing", f"a pod of {away} reached one of {home}"
    finally:
        cluster.delete_pods(home, [name for name in names if name in cluster.pods(home)])
