"""A real API server with etcd and controllers of Kubernetes, without nodes: tests make the nodes."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.artifacts import api

TOKENS = {"admin": "a" * 32, "reader": "r" * 32, "nobody": "n" * 32}
PROGRAMS = (
    ("etcd", "etcd"),
    ("kubernetes", "kube-apiserver"),
    ("kubernetes", "kube-controller-manager"),
    ("kubernetes", "kubectl"),
)
START_SECONDS = 60
READER = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "reader"},
    "rules": [{"apiGroups": [""], "resources": ["nodes", "pods", "resourcequotas"], "verbs": ["list"]}],
}
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "reader"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}],
}


def store(artefact: str, name: str) -> Path | None:
    """A program of the artefact store, as far as it has been built."""
    path = api.mirror_dir() / artefact / api.version(artefact) / name
    return path if path.exists() else None


@dataclass(frozen=True)
class KubeApi:
    """A running API server. ``folder`` has ``ca.crt`` and a file with each token."""

    folder: Path
    kubectl: Path
    port: int

    @property
    def server(self) -> str:
        """Its address."""
        return f"https://127.0.0.1:{self.port}"

    def token_file(self, user: str) -> Path:
        """The token of one of TOKENS."""
        path = self.folder / f"{user}.token"
        path.write_text(f"{TOKENS[user]}\n")
        return path

    def __call__(self, *words: str, data: Any = None, good: bool = True) -> str:
        """Run kubectl as the administrator."""
        argv = [str(self.kubectl), f"--kubeconfig={self.folder}/kubeconfig", *words]
        text = json.dumps(data) if data is not None else None
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        assert not good or done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def get(self, kind: str) -> list[dict[str, Any]]:
        """All objects of a kind."""
        return list(json.loads(self("get", kind, "--all-namespaces", "--output=json"))["items"])

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create objects, and write the status of those that have one."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self("create", "--filename=-", data=items)
        for one in objects:
            if "status" in one:
                self.status(one)

    def status(self, one: dict[str, Any]) -> None:
        """Write the status of an object, as a kubelet does."""
        named = [one["kind"], one["metadata"]["name"], f"--namespace={one['metadata'].get('namespace', 'default')}"]
        patch = json.dumps({"status": one["status"]})
        self("patch", *named, "--subresource=status", "--type=merge", f"--patch={patch}")


@contextmanager
def running(folder: Path, controllers: str = "resourcequota-controller") -> Iterator[KubeApi]:
    """A server of its own with some controllers, gone at the end."""
    programs = {}
    for artefact, name in PROGRAMS:
        found = store(artefact, name)
        assert found, f"{name} is not in the artefact store"
        programs[name] = folder / name
        shutil.copyfile(found, programs[name])
        programs[name].chmod(0o755)
    secure, client, peer, unused = free_ports(4)
    users = "".join(f"{token},{name},{name}\n" for name, token in TOKENS.items())
    (folder / "tokens.csv").write_text(users.replace(",admin\n", ',admin,"system:masters"\n'))
    subprocess.run(["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"], check=True, capture_output=True)
    with ExitStack() as stack:
        stack.enter_context(program(
            folder, str(programs["etcd"]), f"--data-dir={folder}/data", "--unsafe-no-fsync",
            f"--listen-client-urls=http://127.0.0.1:{client}", f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        ))  # fmt: skip
        stack.enter_context(program(
            folder, str(programs["kube-apiserver"]), f"--etcd-servers=http://127.0.0.1:{client}",
            "--bind-address=127.0.0.1", f"--secure-port={secure}", f"--cert-dir={folder}/pki",
            "--authorization-mode=RBAC",
            f"--token-auth-file={folder}/tokens.csv", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/sa.key", f"--service-account-signing-key-file={folder}/sa.key",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
        ))  # fmt: skip
        kube = KubeApi(folder, programs["kubectl"], secure)
        _kubeconfig(kube)
        _wait(kube)
        # Its certificate is its own authority, once it has written it.
        shutil.copyfile(folder / "pki" / "apiserver.crt", folder / "ca.crt")
        stack.enter_context(program(
            folder, str(programs["kube-controller-manager"]), f"--kubeconfig={folder}/kubeconfig",
            f"--controllers={controllers}", "--leader-elect=false", f"--secure-port={unused}",
            "--bind-address=127.0.0.1", "--resource-quota-sync-period=1s",
        ))  # fmt: skip
        kube.apply(READER, BINDING)
        yield kube


@contextmanager
def program(folder: Path, *argv: str) -> Iterator[None]:
    """Have a program run until the block ends."""
    with (
        (folder / f"{Path(argv[0]).name}.log").open("w") as log,
        subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            yield
        finally:
            process.kill()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _kubeconfig(kube: KubeApi) -> None:
    cluster = {"server": kube.server, "insecure-skip-tls-verify": True}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "one", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": TOKENS["admin"]}}],
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "admin"}}],
        "current-context": "one",
    }
    (kube.folder / "kubeconfig").write_text(json.dumps(document))


def _wait(kube: KubeApi) -> None:
    deadline = time.monotonic() + START_SECONDS
    while kube("get", "--raw=/readyz", good=False) != "ok":
        assert time.monotonic() < deadline, (kube.folder / "kube-apiserver.log").read_text()[-3000:]
        time.sleep(0.2)
