"""The ingress controller with the role's own options and policies, in front of a real API server."""

from __future__ import annotations

import re
import shlex
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from testbed.at_address import AtAddress
from testbed.rendering import SiteVariables, role_path
from tests.services import kube_api
from tests.services.kube_api import KubeApi
from tests.unit.login_issuer import Authority
from tests.unit.test_render_roles import rendered_site, testbed_hosts

__all__ = ["rendered_site", "testbed_hosts"]

ROLE = "kubernetes_ingress"
SKIPPER = kube_api.store("skipper", "skipper")
DOMAIN = "modules.deep.test"
WILDCARD = f"*.imaging.{DOMAIN}"
PATIENCE = 60


class Backend(BaseHTTPRequestHandler):
    """Says which host it was asked for."""

    def do_GET(self) -> None:  # pylint: disable=invalid-name # the library's
        """Answer."""
        said = f"{self.headers['Host']} {self.headers['X-Forwarded-Proto']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *args: object) -> None:  # pylint: disable=arguments-differ # it says nothing
        """Nothing."""


@contextmanager
def backend() -> Iterator[tuple[str, int]]:
    """A server at an address of this host that Kubernetes takes for a pod's, which none of the loopback is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        address = probe.getsockname()[0]
    server = ThreadingHTTPServer((address, 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[0], server.server_address[1]  # type: ignore[misc]
    finally:
        server.shutdown()
        server.server_close()


def ingress(host: str | None, name: str = "web", **more: Any) -> dict[str, Any]:
    """As the Infrastructure Manager makes one."""
    service = {"service": {"name": "web", "port": {"number": 5000}}}
    rule: dict[str, Any] = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": service}]}}
    metadata = {"name": name, "namespace": "imaging", "annotations": more.pop("annotations", {})}
    spec = {"rules": [rule | ({"host": host} if host is not None else {})], **more}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def published(address: str, port: int) -> list[dict[str, Any]]:
    """A service, and what a controller of the cluster makes of a pod for it."""
    where = {"namespace": "imaging", "name": "web"}
    spec = {"ports": [{"port": 5000, "targetPort": port}]}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": where, "spec": spec},
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {**where, "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": [address], "conditions": {"ready": True, "serving": True}}],
            "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        },
    ]  # fmt: skip


def options(site: SiteVariables, values: dict[str, str]) -> list[str]:
    """The command line of the unit, with some values that only a host has replaced."""
    (host,) = site.hosts_of("kubernetes_control_plane[0]")
    text = site.render_file(role_path(ROLE) / "templates/deephdc-ingress.service.j2", site.variables(host, ROLE))
    found = re.search(r"^ExecStart=(.*?)\n[A-Z]", text.replace("\\\n", " "), re.MULTILINE | re.DOTALL)
    assert found
    words = [word.replace("$$", "$") for word in shlex.split(found[1])[1:]]
    unknown = values.keys() - {word.partition("=")[0].lstrip("-") for word in words}
    assert not unknown, unknown
    return [
        f"-{name}={values[name]}" if (name := word.partition("=")[0].lstrip("-")) in values else word for word in words
    ]


@pytest.fixture(scope="module")
def site(rendered_site: Callable[[str, str], SiteVariables]) -> SiteVariables:
    return rendered_site("local", "debian12")


@pytest.fixture(scope="module")
def kube(site: SiteVariables, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    if SKIPPER is None or not all(kube_api.store(*program) for program in kube_api.PROGRAMS):
        pytest.skip("skipper, etcd or Kubernetes is not in the artefact store: deep artifacts build skipper kubernetes")
    (host,) = site.hosts_of("kubernetes_control_plane[0]")
    rules = site.render_file(role_path(ROLE) / "templates/access.yaml.j2", site.variables(host, ROLE))
    with kube_api.running(tmp_path_factory.mktemp("kube")) as found:
        names = {"imaging": {"deephdc.org/organisation": "imaging"}, "system": {}}
        found.apply(*(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            for name, labels in names.items()
        ))  # fmt: skip
        found.apply(*yaml.safe_load_all(rules))
        # A policy is in force a moment after it is there.
        until(lambda: not created(found, ingress(f"a.{DOMAIN}")), "the policy never comes into force")
        yield found


@pytest.fixture(scope="module")
def client(kube: KubeApi, site: SiteVariables, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the controller, which serves what is published in the cluster."""
    folder = tmp_path_factory.mktemp("controller")
    authority = Authority()
    authority.context(WILDCARD, folder)
    (folder / "token").write_text(kube("create", "token", "deephdc-ingress", "--namespace=kube-system"))
    port, figures = kube_api.free_ports(2)
    argv = options(site, {
        "address": f"127.0.0.1:{port}", "support-listener": f"127.0.0.1:{figures}", "kubernetes-url": kube.server,
        "kubernetes-token-file": f"{folder}/token", "tls-cert": f"{folder}/server.pem",
        "tls-key": f"{folder}/server.pem",
    })  # fmt: skip
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    names = [f"{name}.imaging.{DOMAIN}" for name in ("web", "other")]
    transport = AtAddress(dict.fromkeys(names, "127.0.0.1"), trust)
    trusting = ("/usr/bin/env", f"SSL_CERT_FILE={kube.folder}/ca.crt")
    with backend() as (address, at), kube_api.program(folder, *trusting, runnable(folder), *argv):
        kube.apply(*published(address, at), ingress(f"web.imaging.{DOMAIN}"))
        with httpx.Client(base_url=f"https://{names[0]}:{port}", transport=transport, timeout=10) as made:
            until(lambda: made.get("/").status_code == 200, f"never served, see {folder}/env.log")
            yield made


def runnable(folder: Path) -> str:
    """The program of the store, which keeps it without the right to be run."""
    assert SKIPPER
    path = folder / "skipper"
    path.write_bytes(SKIPPER.read_bytes())
    path.chmod(0o755)
    return str(path)


def until(holds: Callable[[], bool], otherwise: str) -> None:
    """Wait until something holds; who does not answer yet is asked again."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, otherwise
        time.sleep(0.3)


def refusal(kube: KubeApi, manifest: dict[str, Any]) -> str:
    """What the API server says against an object; empty where it would take it."""
    try:
        kube("create", "--dry-run=server", "--filename=-", data=manifest)
    except AssertionError as refused:
        return str(refused)
    return ""


def created(kube: KubeApi, manifest: dict[str, Any]) -> bool:
    """Whether the API server would take an object."""
    return not refusal(kube, manifest)


def test_what_is_published_answers_over_tls_that_is_verified(client: httpx.Client) -> None:
    assert client.get("/").text == f"web.imaging.{DOMAIN} https"


def test_a_name_that_nobody_has_taken_is_not_found(client: httpx.Client) -> None:
    assert client.get(f"https://other.imaging.{DOMAIN}:{client.base_url.port}/").status_code == 404


def test_there_is_no_answer_without_tls(client: httpx.Client) -> None:
    answer = httpx.get(f"http://127.0.0.1:{client.base_url.port}/", trust_env=False)
    assert (answer.status_code, "HTTPS server" in answer.text) == (400, True)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_old_tls_is_refused(client: httpx.Client) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nobody gets as far as to a certificate.
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE  # nosemgrep: tls-not-verified
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"),
    ):
        old.wrap_socket(plain)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (ingress("web.elsewhere.test"), "hosts of an Ingress here are called NAME.imaging.modules.deep.test"),
        (ingress("iam.deep.test"), "hosts of an Ingress here"),
        (ingress(f"web.{DOMAIN}"), "hosts of an Ingress here"),
        (ingress(f"web.climate.{DOMAIN}"), "hosts of an Ingress here"),
        (ingress(f"a.b.imaging.{DOMAIN}"), "hosts of an Ingress here"),
        (ingress(f"web.imaging.{DOMAIN}.elsewhere.test"), "hosts of an Ingress here"),
        (ingress("web.imaging.modulesxdeep.test"), "hosts of an Ingress here"),
        (ingress(WILDCARD), "hosts of an Ingress here"),
        (ingress(None), "hosts of an Ingress here"),
        (ingress(""), "hosts of an Ingress here"),
        (
            ingress(f"web.imaging.{DOMAIN}", defaultBackend={"service": {"name": "web", "port": {"number": 5000}}}),
            "serves its own names only",
        ),
        (
            ingress(f"web.imaging.{DOMAIN}", annotations={"zalando.org/skipper-filter": 'static("/", "/etc")'}),
            "annotations of the ingress controller are not for organisations",
        ),
    ],
)
def test_an_organisation_takes_no_name_but_its_own(kube: KubeApi, manifest: dict[str, Any], said: str) -> None:
    assert said in refusal(kube, manifest)


def test_an_organisation_takes_names_of_its_own(kube: KubeApi) -> None:
    assert refusal(kube, ingress(f"a.imaging.{DOMAIN}", "mine")) == ""


def test_an_ingress_without_a_class_gets_the_controllers(kube: KubeApi) -> None:
    text = kube("create", "--dry-run=server", "--filename=-", "--output=json", data=ingress(f"a.imaging.{DOMAIN}", "b"))
    assert '"ingressClassName": "deephdc"' in text


@pytest.mark.parametrize(
    ("verb", "what", "may"),
    [
        ("list", "ingresses.networking.k8s.io", "yes"),
        ("list", "services", "yes"),
        ("list", "endpointslices.discovery.k8s.io", "yes"),
        ("list", "secrets", "no"),
        ("get", "secrets", "no"),
        ("update", "ingresses.networking.k8s.io", "no"),
        ("list", "pods", "no"),
    ],
)
def test_the_controller_may_look_at_what_it_needs(kube: KubeApi, verb: str, what: str, may: str) -> None:
    account = "--as=system:serviceaccount:kube-system:deephdc-ingress"
    assert kube("auth", "can-i", verb, what, account, "--all-namespaces", good=False).strip() == may
