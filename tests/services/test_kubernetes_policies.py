"""What the cluster adds to pods that programs make for people: the roles' manifests on a real API server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from testbed.rendering import SiteVariables, role_path
from tests.services import kube_api
from tests.services.kube_api import KubeApi
from tests.unit.test_render_roles import rendered_site, testbed_hosts

__all__ = ["rendered_site", "testbed_hosts"]

MANIFESTS = {
    "kubernetes_organisations": "organisations.yaml.j2",
    "nvidia_device_plugin": "nvidia-device-plugin.yaml.j2",
}
KINDS = ("Namespace", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "RuntimeClass")
PATIENCE = 60
STORAGE = {"env": [{"name": "DEEP_STORAGE_SECRET_NAME", "value": "data-keys"}]}
FROM = {"fieldRef": {"fieldPath": "metadata.name"}}
GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}


def pod(*containers: dict[str, Any], namespace: str = "imaging", **spec: Any) -> dict[str, Any]:
    """As a deployment of the Infrastructure Manager makes one."""
    made = [{"name": f"module-{number}", "image": "a/b:1", **one} for number, one in enumerate(containers)]
    metadata = {"generateName": "module-", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": made, **spec}}


def taken(kube: KubeApi, one: dict[str, Any]) -> dict[str, Any]:
    """The spec that the API server would make of a pod."""
    return dict(json.loads(kube("create", "--filename=-", "--dry-run=server", "--output=json", data=one))["spec"])


@pytest.fixture(scope="module")
def kube(
    rendered_site: Callable[[str, str], SiteVariables], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KubeApi]:
    """An API server with the policies in force."""
    if not all(kube_api.store(*program) for program in kube_api.PROGRAMS):
        pytest.skip("etcd or Kubernetes is not in the artefact store: deep artifacts build kubernetes")
    site = rendered_site("local", "debian12")
    (host,) = site.hosts_of("kubernetes_control_plane[0]")
    objects = [
        one
        for role, template in MANIFESTS.items()
        for one in yaml.safe_load_all(
            site.render_file(role_path(role) / "templates" / template, site.variables(host, role))
        )
        if one and one["kind"] in KINDS
    ]
    with kube_api.running(tmp_path_factory.mktemp("kube")) as found:
        found.apply(*objects)
        end = time.monotonic() + PATIENCE
        # A policy is in force a moment after it is there.
        while "envFrom" not in taken(found, pod(STORAGE))["containers"][0] or "runtimeClassName" not in taken(
            found, pod(GPU)
        ):
            assert time.monotonic() < end, "the policies never come into force"
            time.sleep(0.3)
        yield found


def test_a_container_that_is_told_the_name_of_a_secret_gets_what_is_in_it(kube: KubeApi) -> None:
    (container,) = taken(kube, pod(STORAGE))["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "data-keys"}}]
    assert container["env"] == STORAGE["env"]


@pytest.mark.parametrize(
    "container",
    [
        {},
        {"env": [{"name": "OTHER", "value": "data-keys"}]},
        {"env": [{"name": "DEEP_STORAGE_SECRET_NAME", "valueFrom": FROM}]},
    ],
)
def test_others_get_none(kube: KubeApi, container: dict[str, Any]) -> None:
    assert "envFrom" not in taken(kube, pod(container))["containers"][0]


def test_what_a_container_has_already_stays(kube: KubeApi) -> None:
    own = [{"configMapRef": {"name": "own"}}]
    assert taken(kube, pod({**STORAGE, "envFrom": own}))["containers"][0]["envFrom"] == own


def test_pods_outside_of_organisations_are_left_alone(kube: KubeApi) -> None:
    assert "envFrom" not in taken(kube, pod(STORAGE, namespace="default"))["containers"][0]


def test_whoever_asks_for_a_gpu_gets_the_runtime_that_shows_it(kube: KubeApi) -> None:
    for asking in (
        pod(GPU),
        pod({}, GPU),
        pod(GPU, namespace="default"),
        pod({}, initContainers=[{"name": "i", "image": "a/b:1", **GPU}]),
    ):
        assert taken(kube, asking)["runtimeClassName"] == "nvidia"
    assert "runtimeClassName" not in taken(kube, pod({}))
    both = taken(kube, pod({**STORAGE, **GPU}))
    assert (both["runtimeClassName"], both["containers"][0]["envFrom"][0]["secretRef"]) == (
        "nvidia",
        {"name": "data-keys"},
    )


def test_a_runtime_that_is_named_stays(kube: KubeApi) -> None:
    kube.apply(
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "other"}, "handler": "other"}
    )
    assert taken(kube, pod(GPU, runtimeClassName="other"))["runtimeClassName"] == "other"
