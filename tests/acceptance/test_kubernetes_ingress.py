"""What an organisation runs is reached under a name of its own, over TLS, and under no other."""

from __future__ import annotations

from collections.abc import Iterator
from ssl import SSLContext
from typing import Any

import httpx
import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from testbed.at_address import AtAddress
from tests.acceptance.probes.cluster import Cluster, pod, ready, wait_until
from tests.acceptance.probes.site import Site

PORT = 8080
SERVE = f"mkdir www && echo here > www/index.html && exec httpd -f -p {PORT} -h www"
SECONDS = 60

pytestmark = pytest.mark.group("kubernetes_ingress")


@pytest.fixture
def organisation(site: Site, hostname: str) -> str:
    """The one that publishes something here."""
    return str(site.value(hostname, "site_organisations")[0]["name"])


@pytest.fixture
def domain(site: Site, hostname: str, organisation: str) -> str:
    """Under which its names are."""
    return f"{organisation}.{site.value(hostname, 'modules_domain')}"


@pytest.fixture
def names(domain: str, cluster: Cluster) -> tuple[str, str]:
    """One that is published, and one that is not."""
    return f"acceptance-{cluster.run_id}.{domain}", f"nobody-{cluster.run_id}.{domain}"


@pytest.fixture
def browser(site: Site, hostname: str, authority: SSLContext, names: tuple[str, str]) -> Iterator[httpx.Client]:
    """A client that reaches the names at the host, and trusts the site's authority only."""
    transport = AtAddress(dict.fromkeys(names, site.address(hostname)), authority)
    with httpx.Client(transport=transport, timeout=20) as made:
        yield made


@pytest.fixture
def port(site: Site, hostname: str) -> int:
    return int(site.value(hostname, "modules_port"))


def ingress(name: str, host: str | None) -> dict[str, Any]:
    """An Ingress to a service of the same name, without a class."""
    backend = {"service": {"name": name, "port": {"number": PORT}}}
    rule: dict[str, Any] = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    return {"metadata": {"name": name}, "spec": {"rules": [rule | ({"host": host} if host else {})]}}


@pytest.fixture
def published(cluster: Cluster, organisation: str, names: tuple[str, str], acceptance_image: str) -> Iterator[None]:
    """A web server of the organisation, published under the first name."""
    network: Any = client.NetworkingV1Api(cluster.api)
    name = f"acceptance-{cluster.run_id}"
    spec = {"selector": {"acceptance": cluster.run_id}, "ports": [{"port": PORT, "targetPort": PORT}]}
    service = {"kind": "Service", "metadata": {"name": name}, "spec": spec}
    try:
        cluster.create(organisation, pod(name, acceptance_image, SERVE, labels={"acceptance": cluster.run_id}), service)
        network.create_namespaced_ingress(organisation, ingress(name, names[0]))
        cluster.wait_for_pods(organisation, [name], ready, SECONDS, "ready")
        yield
    finally:
        for remove in (
            network.delete_namespaced_ingress,
            cluster.core.delete_namespaced_service,
            cluster.core.delete_namespaced_pod,
        ):
            try:
                remove(name, organisation)
            except ApiException as gone:
                if gone.status != 404:
                    raise


@pytest.mark.usefixtures("published")
def test_what_is_published_answers_over_tls(browser: httpx.Client, names: tuple[str, str], port: int) -> None:
    """What an organisation publishes answers over verified TLS, and a name that nobody has taken is not found."""
    there, nobody = (f"https://{name}:{port}/" for name in names)

    def answers() -> bool:
        return browser.get(there).status_code == 200

    wait_until(answers, SECONDS, f"{there} answers")
    assert browser.get(there).text.strip() == "here"
    assert browser.get(nobody).status_code == 404


def test_a_name_outside_of_the_certificate_is_not_answered_for(
    site: Site, hostname: str, authority: SSLContext, port: int
) -> None:
    """The certificate is for names of organisations and for none of the site's own."""
    own = f"iam.{site.value(hostname, 'site_domain')}"
    with (
        httpx.Client(transport=AtAddress({own: site.address(hostname)}, authority), timeout=20) as other,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        other.get(f"https://{own}:{port}/")


def test_no_name_of_anybody_else_is_taken(site: Site, hostname: str, cluster: Cluster, organisation: str) -> None:
    """An organisation cannot publish under a name outside of its domain, nor under every name."""
    network: Any = client.NetworkingV1Api(cluster.api)
    domain = site.value(hostname, "modules_domain")
    hosts = ["web.elsewhere.test", f"web.{domain}", f"web.stranger.{domain}", f"*.{organisation}.{domain}", None]
    for host in hosts:
        with pytest.raises(ApiException) as refusal:
            network.create_namespaced_ingress(organisation, ingress("acceptance", host), dry_run="All")
        assert refusal.value.status == 403, host
        assert "hosts of an Ingress here are called" in str(refusal.value.body), host


def test_it_runs_as_nobody_special_and_keeps_its_token(host: Any) -> None:
    """The controller is no administrator of its host, and nobody else reads its token and its key."""
    pid = host.check_output("systemctl show --property=MainPID --value deephdc-ingress")
    assert host.file(f"/proc/{pid}").user == "deephdc-ingress"
    token, key = host.file("/run/deephdc-ingress/token"), host.file("/etc/deephdc/kubernetes-ingress/tls.key")
    assert (token.user, token.group, token.mode) == ("root", "deephdc-ingress", 0o640)
    folder = host.file("/run/deephdc-ingress")
    assert (folder.user, folder.mode) == ("root", 0o750)
    assert (key.user, key.group, key.mode) == ("root", "deephdc-ingress", 0o640)
