"""A real Infrastructure Manager in front of a real Kubernetes API without nodes, on the loopback address.

Programs come out of the artefact store. Pods are made by Kubernetes' own controllers; as there is no kubelet, the tests
say themselves what has become of a pod.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt

from testbed.artifacts import api
from testbed.paths import repo_root
from tests.unit.login_issuer import Authority, Issuer, serving

HOST = "localhost"
NAMESPACE = "deep"
PATIENCE = 90
ALL = ("deployments", "services", "pods", "persistentvolumeclaims", "ingresses")
CONTROLLERS = "deployment-controller,replicaset-controller,garbage-collector-controller,"
CONTROLLERS += "persistentvolumeclaim-protection-controller"
GUARD = repo_root() / "services" / "infrastructure_manager"
# Starts the service behind its guard, with settings of its own in place of those of /etc/im/im.cfg.
LAUNCH = """
import json, sys
from IM.config import Config
settings = json.load(open(sys.argv.pop()))
kubernetes = settings.pop("kubernetes")
for name, value in settings.items():
    setattr(Config, name, value)
from IM.im_service import main
from deep_infrastructure_manager import guard
from deep_infrastructure_manager.settings import Settings
guard.apply(Settings(frozenset({"deep"}), frozenset({("Kubernetes", kubernetes)})))
main()
"""


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class People(Issuer):
    """An issuer whose tokens the Infrastructure Manager asks about; it is believed for as long as it says who it is."""

    def token(self, person: str) -> str:
        """A token of a person."""
        said = {"iss": self.url, "sub": f"sub-{person}", "aud": "deep", "exp": int(time.time()) + 3600}
        token = jwt.encode({**said, "groups": ["deep"], "jti": str(len(self.usable))}, "k" * 32, "HS256")
        self.usable[token] = person
        return token

    def answer(self, what: str, fields: dict[str, str], bearer: str) -> tuple[int, dict[str, Any]]:
        """Status and body for one request."""
        if what == "openid-configuration":
            told = {f"{name}_endpoint": f"{self.url}/{name}" for name in ("userinfo", "introspection")}
            return 200, {"issuer": self.url, **told}
        return super().answer(what, fields, bearer)


@dataclass
class Place:
    """Everything that runs."""

    folder: Path
    issuer: People
    authority: Path
    tokens: dict[str, str]
    admin: httpx.Client
    kubernetes: str
    port: int
    service: subprocess.Popen[bytes] | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the Infrastructure Manager is."""
        return f"https://{HOST}:{self.port}"

    def start(self) -> None:
        """Start the Infrastructure Manager, again if it was killed."""
        argv = ["/usr/bin/python3", "-c", LAUNCH, str(self.folder / "im.json")]
        with (self.folder / "im.out").open("ab") as log:
            environment = {
                "PYTHONPATH": f"{GUARD}:{self.folder / 'im'}", "REQUESTS_CA_BUNDLE": str(self.authority),
                "HOME": str(self.folder), "PATH": "/usr/bin:/bin",
            }  # fmt: skip
            self.service = subprocess.Popen(argv, cwd=self.folder, env=environment, stdout=log, stderr=log)  # pylint: disable=consider-using-with # it outlives this
        with httpx.Client(verify=context(self.authority)) as client:
            until(lambda: client.get(f"{self.url}/version").is_success, "the Infrastructure Manager does not answer")

    def kill(self) -> None:
        """Kill the Infrastructure Manager, if it runs."""
        if self.service:
            self.service.kill()
            self.service.wait()
            self.service = None

    def get(self, what: str) -> list[dict[str, Any]]:
        """Objects of a kind in the namespace, as ``apps/v1/deployments``."""
        answer = self.admin.get(path(what))
        answer.raise_for_status()
        return list(answer.json()["items"])

    def set_phase(self, phase: str, **status: Any) -> None:
        """Say of every pod what a kubelet would."""
        for pod in self.get("v1/pods"):
            there = {"phase": phase, "hostIP": "192.0.2.10", "podIP": "10.1.0.1", **status}
            answer = self.admin.patch(
                f"{path('v1/pods')}/{pod['metadata']['name']}/status",
                content=json.dumps({"status": there}),
                headers={"Content-Type": "application/merge-patch+json"},
            )
            answer.raise_for_status()


def path(what: str) -> str:
    """Where the API server has a kind of object."""
    group, kind = what.rsplit("/", 1)
    return f"/{'api' if group == 'v1' else 'apis'}/{group}/namespaces/{NAMESPACE}/{kind}"


def context(authority: Path) -> ssl.SSLContext:
    """A client's side of TLS."""
    return ssl.create_default_context(cafile=authority)


def until(holds: Callable[[], bool], otherwise: str, seconds: float = PATIENCE) -> None:
    """Wait until something holds; what is not reached yet is asked again."""
    end = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < end, otherwise
        time.sleep(0.2)


def program(name: str, file: str, folder: Path) -> str:
    """A program out of the store, executable."""
    there = folder / file
    shutil.copyfile(api.mirror_dir() / name / api.version(name) / file, there)
    there.chmod(0o755)
    return str(there)


@contextmanager
def running(folder: Path, people: Mapping[str, Sequence[str]]) -> Iterator[Place]:
    """Raise everything, for people and the kinds of objects that each may make in the namespace."""
    api.ensure(["etcd", "kubernetes", "infrastructure-manager"])
    authority = Authority()
    (folder / "ca.pem").write_bytes(authority.pem)
    context_of_server = authority.context(HOST, folder)
    with ExitStack() as stack:
        issuer = stack.enter_context(serving(People(HOST), context_of_server))
        assert isinstance(issuer, People)
        tokens = {person: issuer.token(person) for person in (*people, "admin")}
        port = free_port()
        kubernetes = f"https://{HOST}:{port}"
        for process in raise_kubernetes(folder, port, tokens):
            stack.callback(process.wait)
            stack.callback(process.kill)
        admin = stack.enter_context(
            httpx.Client(
                base_url=kubernetes,
                verify=context(folder / "ca.pem"),
                headers={"Authorization": f"Bearer {tokens['admin']}"},
            )
        )
        until(lambda: admin.get("/readyz").is_success, "the API server does not get ready")
        let_in(admin, people)
        place = Place(folder, issuer, folder / "ca.pem", tokens, admin, kubernetes, free_port())
        prepare_service(place)
        stack.callback(place.kill)
        place.start()
        yield place


def raise_kubernetes(folder: Path, port: int, tokens: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start etcd, an API server and the controllers that make pods of deployments."""
    groups = {"admin": '"system:masters"'}
    lines = [f"{token},{person},{person},{groups.get(person, '')}" for person, token in tokens.items()]
    (folder / "tokens.csv").write_text("\n".join(lines))
    pair = str(folder / "server.pem")
    client, peer = free_port(), free_port()
    server = f"https://{HOST}:{port}"
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": server, "certificate-authority": "ca.pem"}}],
        "users": [{"name": "it", "user": {"token": tokens["admin"]}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(json.dumps(config))
    etcd, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    commands = {
        "etcd": [
            program("etcd", "etcd", folder), f"--data-dir={folder / 'etcd-data'}", "--unsafe-no-fsync",
            f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}",
        ],
        "apiserver": [
            program("kubernetes", "kube-apiserver", folder), f"--etcd-servers={etcd}", "--bind-address=127.0.0.1",
            f"--secure-port={port}", f"--tls-cert-file={pair}", f"--tls-private-key-file={pair}",
            f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC", "--anonymous-auth=false",
            "--service-cluster-ip-range=10.96.0.0/24", "--disable-admission-plugins=ServiceAccount",
            f"--service-account-issuer=https://{HOST}", f"--service-account-key-file={pair}",
            f"--service-account-signing-key-file={pair}", "--endpoint-reconciler-type=none",
        ],
        "controllers": [
            program("kubernetes", "kube-controller-manager", folder), f"--kubeconfig={folder / 'kubeconfig'}",
            f"--controllers={CONTROLLERS}", "--leader-elect=false", "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}", f"--tls-cert-file={pair}", f"--tls-private-key-file={pair}",
        ],
    }  # fmt: skip
    for name, argv in commands.items():
        with (folder / f"{name}.out").open("wb") as log:
            yield subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log)  # pylint: disable=consider-using-with # the caller ends it


def let_in(admin: httpx.Client, people: Mapping[str, Sequence[str]]) -> None:
    """A namespace in which each person may do anything with some kinds of objects."""
    group = "rbac.authorization.k8s.io"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    admin.post("/api/v1/namespaces", json=namespace).raise_for_status()
    for person, kinds in people.items():
        named = {"apiVersion": f"{group}/v1", "metadata": {"name": person}}
        rules = [{"apiGroups": ["", "apps", "networking.k8s.io"], "resources": list(kinds), "verbs": ["*"]}]
        role = {**named, "kind": "Role", "rules": rules}
        binding = {
            **named, "kind": "RoleBinding", "roleRef": {"apiGroup": group, "kind": "Role", "name": person},
            "subjects": [{"apiGroup": group, "kind": "User", "name": person}],
        }  # fmt: skip
        admin.post(path(f"{group}/v1/roles"), json=role).raise_for_status()
        admin.post(path(f"{group}/v1/rolebindings"), json=binding).raise_for_status()


def prepare_service(place: Place) -> None:
    """Unpack the Infrastructure Manager and write its settings."""
    name = "infrastructure-manager"
    with tarfile.open(api.mirror_dir() / name / api.version(name) / "python3.11.tar.gz") as packed:
        packed.extractall(place.folder / "im", filter="data")
    pair = str(place.folder / "server.pem")
    settings = {
        "kubernetes": place.kubernetes,
        "DATA_DB": f"sqlite:///{place.folder / 'im.db'}", "LOG_FILE": str(place.folder / "im.log"),
        "REST_ADDRESS": "127.0.0.1", "REST_PORT": place.port, "REST_SSL": True, "REST_SSL_KEYFILE": pair,
        "REST_SSL_CERTFILE": pair, "REST_SSL_CA_CERTS": str(place.authority), "OIDC_ISSUERS": [place.issuer.url],
        "FORCE_OIDC_AUTH": True, "VERIFI_SSL": True, "VM_INFO_UPDATE_FREQUENCY": 0, "VM_TAG_INF_ID": "im.inf",
        "VM_TAG_USERNAME": "im.user", "DELAY_BETWEEN_VM_RETRIES": 0, "VM_INFO_UPDATE_ERROR_GRACE_PERIOD": 10,
    }  # fmt: skip
    (place.folder / "im.json").write_text(json.dumps(settings))
