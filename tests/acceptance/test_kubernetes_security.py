"""Who the cluster refuses, and what it keeps to itself."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import time
from typing import Any

import httpx
import pytest
from kubernetes.client.exceptions import ApiException

from tests.acceptance.probes.cluster import Cluster, pod, wait_until
from tests.acceptance.probes.site import Site, python_on

KUBELET_PORT = 10250
ETCD_PKI = "/etc/kubernetes/pki/etcd"
# With the certificate of etcd's own health check, in etcd's own pod.
READ_ETCD = [
    "etcdctl",
    "--endpoints=https://127.0.0.1:2379",
    f"--cacert={ETCD_PKI}/ca.crt",
    f"--cert={ETCD_PKI}/healthcheck-client.crt",
    f"--key={ETCD_PKI}/healthcheck-client.key",
    "--write-out=json",
    "get",
]
# {path, entries that mention a word} of the audit log; the path is the one the running API server was started with.
READ_AUDIT = """
import json, re, sys
manifest = open("/etc/kubernetes/manifests/kube-apiserver.yaml").read()
path = re.search(r"--audit-log-path=(\\S+)", manifest).group(1)
entries = [json.loads(line) for line in open(path) if sys.argv[1] in line]
print(json.dumps({"path": path, "entries": [{"verb": e["verb"], "user": e["user"]["username"]} for e in entries]}))
"""


@pytest.mark.group("kubernetes_control_plane")
def test_api_refuses_strangers(cluster: Cluster, site: Site, hostname: str) -> None:
    """The Kubernetes API refuses requests without credentials."""
    authority = cluster.api.configuration.ssl_ca_cert
    name = cluster.api.configuration.tls_server_name
    port = httpx.URL(cluster.server).port or 443
    with httpx.Client(
        base_url=f"https://{site.address(hostname)}:{port}", verify=ssl.create_default_context(cafile=authority)
    ) as stranger:
        extensions = {"sni_hostname": name or httpx.URL(cluster.server).host}
        for path in ("/api", "/api/v1/secrets", "/apis"):
            assert stranger.get(path, extensions=extensions).status_code in (401, 403), (
                f"{hostname}: {path} is open to anyone"
            )


@pytest.mark.group("kubernetes")
def test_kubelet_refuses_strangers(site: Site, hostname: str) -> None:
    """The kubelet's port refuses requests without credentials."""
    # Nothing secret is sent and the answer is a refusal: whose certificate it is does not matter here.
    trusting = ssl.create_default_context()
    trusting.check_hostname = False  # nosemgrep: tls-not-verified # see above
    trusting.verify_mode = ssl.CERT_NONE  # nosemgrep: tls-not-verified # see above
    with httpx.Client(base_url=f"https://{site.address(hostname)}:{KUBELET_PORT}", verify=trusting) as stranger:
        for path in ("/pods", "/metrics", "/runningpods/"):
            status = stranger.get(path).status_code
            assert status in (401, 403), f"{hostname}: the kubelet answers {status} to anyone at {path}"


def test_node_may_not_label_another(cluster: Cluster) -> None:
    """A node's own credentials cannot change another node."""
    names = sorted(node.metadata.name for node in cluster.nodes())
    if len(names) < 2:
        pytest.skip("the cluster has one node only")
    change = {"metadata": {"labels": {"example.com/acceptance": "1"}}}
    outcomes = {target: _patch_as_node(cluster, names[1], target, change) for target in names[:2]}
    # The first shows that the refusal is for the target, not for the way of asking.
    assert outcomes == {names[1]: 200, names[0]: 403}


def _patch_as_node(cluster: Cluster, node: str, target: str, change: dict[str, Any]) -> int:
    headers = {
        "Impersonate-User": f"system:node:{node}",
        "Impersonate-Group": "system:nodes",
        "Content-Type": "application/merge-patch+json",
    }
    url = f"{cluster.server}/api/v1/nodes/{target}?dryRun=All"
    return int(cluster.api.call_api("PATCH", url, header_params=headers, body=change).status)


def test_secrets_are_encrypted_at_rest(cluster: Cluster) -> None:
    """A Secret's content cannot be read in etcd."""
    namespace, content = cluster.namespace("secrets"), secrets.token_hex(16)
    cluster.create(namespace, {"kind": "Secret", "metadata": {"name": "probe"}, "stringData": {"content": content}})
    etcd = f"etcd-{cluster.node(cluster.control_plane).metadata.name}"
    answer = json.loads(cluster.execute("kube-system", etcd, [*READ_ETCD, f"/registry/secrets/{namespace}/probe"]))
    (stored,) = [base64.b64decode(pair["value"]) for pair in answer.get("kvs", [])] or [b""]
    assert stored, "etcd does not hold the secret under the key that was read"
    assert stored.startswith(b"k8s:enc:"), f"the secret is stored as {stored[:12]!r}..., not encrypted"
    assert content.encode() not in stored
    assert base64.b64encode(content.encode()) not in stored


def test_privileged_pod_is_refused(cluster: Cluster) -> None:
    """A privileged pod is refused in a namespace that asks for nothing special."""
    namespace = cluster.namespace("default-level", level=None)
    for where in (namespace, "default"):
        harmless = pod("harmless", "example.com/none", "true")
        cluster.core.create_namespaced_pod(where, harmless, dry_run="All")
        privileged = pod("privileged", "example.com/none", "true")
        privileged["spec"]["containers"][0]["securityContext"] = {"privileged": True}
        with pytest.raises(ApiException) as refusal:
            cluster.core.create_namespaced_pod(where, privileged, dry_run="All")
        assert refusal.value.status == 403, f"{where}: {refusal.value.reason}"
        assert "PodSecurity" in str(refusal.value.body), f"{where}: refused for another reason: {refusal.value.body}"


def test_audit_log_names_who_did_what(cluster: Cluster, site: Site) -> None:
    """The audit log has an entry for what this check just did."""
    mark = f"acceptance-audit-{secrets.token_hex(4)}"
    with pytest.raises(ApiException):
        cluster.core.read_namespaced_config_map(mark, "default")
    deadline = time.monotonic() + 20
    found: list[dict[str, str]] = []

    def written() -> bool:
        # A load balancer may have sent the request to any of them.
        for host in site.group("kubernetes_control_plane"):
            found.extend(python_on(site.host(host), READ_AUDIT, mark)["entries"])
        return bool(found)

    wait_until(written, deadline - time.monotonic(), "an audit entry for a request just made")
    assert {entry["verb"] for entry in found} == {"get"}
    assert all(entry["user"] for entry in found)
