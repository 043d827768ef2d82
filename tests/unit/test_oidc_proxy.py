"""The proxy's configuration: what it lets through, what it hides, and what its prechecks refuse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.paths import repo_root
from testbed.rendering import SiteVariables, role_path
from testbed.site_check import prechecks

ROLE = "oidc_proxy"
SECRETS = {"iam_seed": "5" * 32, "registry_password": "7" * 32}
FACTS: dict[str, Any] = {
    "os_family": "Debian", "distribution": "Debian", "architecture": "x86_64",
    "deephdc": {"listening": [{"port": 5443, "program": "apache2"}], "addresses": ["192.0.2.11"]},
}  # fmt: skip
SITE: dict[str, Any] = {
    "name": "jobs", "server_name": "jobs.deep.test", "port": 8444, "backend": "http://127.0.0.1:8080/",
    "client_id": "jobs", "client_secret": "a client's secret", "readers": ["imaging"],
}  # fmt: skip

OWN = "https://login.example/"


@pytest.fixture
def inventory(tmp_path: Path) -> list[Path]:
    """The site local with one host that has the IAM, the registry and the proxy."""
    groups: dict[str, Any] = {name: {"hosts": {"node1": {}}} for name in ("pki", "iam", "registry", "oidc_proxy")}
    hosts = {"node1": {"ansible_host": "192.0.2.11"}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    return [repo_root() / "inventories" / "common", repo_root() / "inventories" / "local", tmp_path]


def site(inventory: list[Path], **settings: Any) -> SiteVariables:
    found = SiteVariables(inventory, extra={**SECRETS, **settings})
    found.give_facts(FACTS)
    return found


def rendered(inventory: list[Path], template: str, **settings: Any) -> str:
    variables = site(inventory, **settings)
    return variables.render_file(role_path(ROLE) / "templates" / template, variables.variables("node1", ROLE))


def refusals(inventory: list[Path], **settings: Any) -> str:
    verdicts = list(prechecks(site(inventory, **settings), "node1", ROLE))
    assert verdicts, "nothing was checked"
    assert None not in verdicts, "a check could not be worked out"
    return "\n".join(str(problem) for verdict in verdicts for problem in verdict or [])


def section(configuration: str, name: str) -> str:
    """The text of ``<Location NAME>``."""
    found = re.search(rf"<Location {re.escape(name)}>\n(.*?)</Location>", configuration, flags=re.DOTALL)
    assert found, name
    return found[1]


def test_only_the_ports_of_the_sites_are_listened_on(inventory: list[Path]) -> None:
    two = rendered(inventory, "apache2.conf.j2", oidc_proxy_sites=[SITE, {**SITE, "name": "more", "port": 8445}])
    assert re.findall(r"^Listen (.*)$", two, flags=re.MULTILINE) == ["192.0.2.11:8444 https", "192.0.2.11:8445 https"]
    assert "Listen" not in rendered(inventory, "apache2.conf.j2", oidc_proxy_sites=[])


def test_every_secret_is_in_the_file_that_only_root_reads(inventory: list[Path]) -> None:
    configuration = rendered(inventory, "apache2.conf.j2")
    secrets = rendered(inventory, "secrets.conf.j2")
    values = re.findall(r'^Define \S+ "(.+)"$', secrets, flags=re.MULTILINE)
    assert len(values) == 3
    assert not [value for value in [*values, *SECRETS.values()] if value in configuration]
    names = re.findall(r"^Define (\S+) ", secrets, flags=re.MULTILINE)
    assert set(re.findall(r"\$\{([\w-]+)\}", configuration)) == set(names)
    tasks = (role_path(ROLE) / "tasks" / "service.yml").read_text()
    (entry,) = (
        entry for task in yaml.safe_load(tasks) for entry in task["deephdc.testbed.service"]["files"]
        if "secrets.conf" in entry["path"]
    )  # fmt: skip
    assert (entry["mode"], "secret_content" in entry) == ("0600", True)


def test_sites_have_session_keys_of_their_own(inventory: list[Path]) -> None:
    text = rendered(inventory, "secrets.conf.j2", oidc_proxy_sites=[SITE, {**SITE, "name": "more"}])
    keys = re.findall(r'session_key "(.+)"', text)
    assert len(set(keys)) == 2


def test_a_service_without_writers_is_read_only(inventory: list[Path]) -> None:
    text = section(rendered(inventory, "apache2.conf.j2", oidc_proxy_sites=[SITE]), "/")
    before, _, reading = text.partition("Require method GET HEAD")
    assert 'Require claim "groups:imaging"' in reading
    assert "groups:" not in before, "whoever is allowed here may use every method"


def test_a_service_without_credentials_gets_none(inventory: list[Path]) -> None:
    text = section(rendered(inventory, "apache2.conf.j2", oidc_proxy_sites=[SITE]), "/")
    assert "RequestHeader unset Authorization" in text
    assert "RequestHeader set Authorization" not in text
    assert "OIDCOAuthAcceptTokenAs header\n" in text


def test_whom_the_proxy_trusts_is_not_who_signed_its_own_certificate(inventory: list[Path]) -> None:
    brought = {"certificate": "-----BEGIN CERTIFICATE-----", "key": "-----BEGIN PRIVATE KEY-----"}
    trusts = "^ *(?:OIDCCABundlePath|SSLProxyCACertificateFile) (.*)$"
    system, site_own = "/etc/ssl/certs/ca-certificates.crt", "/etc/deephdc/oidc-proxy/site-authority.crt"
    for services, trusted in {
        ("oidc_proxy",): [site_own, site_own],
        ("iam",): [system, site_own],
        ("registry",): [site_own, system],
    }.items():
        text = rendered(inventory, "apache2.conf.j2", site_certificates=dict.fromkeys(services, brought))
        assert re.findall(trusts, text, flags=re.MULTILINE) == trusted, services
    own = {**SITE, "backend": "https://jobs.deep.test/", "backend_authority": "/etc/jobs/ca.crt"}
    assert "SSLProxyCACertificateFile /etc/jobs/ca.crt\n" in rendered(
        inventory, "apache2.conf.j2", oidc_proxy_sites=[own]
    )
    assert "SSLProxy" not in rendered(inventory, "apache2.conf.j2", oidc_proxy_sites=[SITE]), "nothing to verify"


def test_a_provider_of_the_sites_own_is_asked_for_its_keys(inventory: list[Path]) -> None:
    settings = {"iam_host": "", "iam_issuer": OWN, "oidc_proxy_issuer_keys": f"{OWN}keys", "oidc_proxy_sites": [SITE]}
    assert refusals(inventory, **settings) == ""
    text = rendered(inventory, "apache2.conf.j2", **settings)
    assert f"OIDCProviderMetadataURL {OWN}.well-known/openid-configuration\n" in text
    assert f"OIDCOAuthVerifyJwksUri {OWN}keys\n" in text
    assert f'Require claim "iss:{OWN}"' in text
    assert "OIDCCABundlePath /etc/ssl/certs/ca-certificates.crt\n" in text
    # For the proxies alone, beside the site's IAM: its certificate says nothing about theirs.
    beside = rendered(inventory, "apache2.conf.j2", oidc_proxy_issuer=OWN, oidc_proxy_issuer_keys=f"{OWN}keys")
    assert "OIDCCABundlePath /etc/ssl/certs/ca-certificates.crt\n" in beside
    private = rendered(inventory, "apache2.conf.j2", **settings, oidc_proxy_issuer_authority="site")
    assert "OIDCCABundlePath /etc/deephdc/oidc-proxy/site-authority.crt\n" in private


def test_numbers_may_come_as_texts(inventory: list[Path]) -> None:
    """As they do from a command line."""
    as_it_is = {"oidc_proxy_timeout": 60, "oidc_proxy_sites": [{**SITE, "port": 443, "password_tokens": False}]}
    as_text = {"oidc_proxy_timeout": "60", "oidc_proxy_sites": [{**SITE, "port": "443", "password_tokens": "false"}]}
    found = site(inventory, **as_text)
    assert found.argument_errors(ROLE, "main", found.variables("node1", ROLE)) == []
    assert refusals(inventory, **as_text) == ""
    for template in ("apache2.conf.j2", "secrets.conf.j2"):
        assert rendered(inventory, template, **as_text) == rendered(inventory, template, **as_it_is)
    squatted = {**as_text, "oidc_proxy_sites": [*as_text["oidc_proxy_sites"], {**SITE, "name": "more", "port": 443}]}
    assert "services share a port" in refusals(inventory, **squatted)


def test_every_organisation_reads_the_registry_and_administrators_write(inventory: list[Path]) -> None:
    organisations = [{"name": "imaging"}, {"name": "climate", "members": ["weather"], "readers": []}]
    variables = site(inventory, site_organisations=organisations)
    known = variables.variables("node1", ROLE)
    found = variables.render(known["registry_login"], known)
    assert sorted(found["readers"]) == ["imaging", "imaging-readers", "weather"]
    assert found["writers"] == ["administrators"]


@pytest.mark.parametrize(("backend", "scopes"), [("keycloak", "openid"), ("indigo_iam", "openid profile")])
def test_an_iam_is_asked_for_the_scope_that_brings_groups(inventory: list[Path], backend: str, scopes: str) -> None:
    text = rendered(inventory, "apache2.conf.j2", iam_backend=backend)
    assert re.findall(r"OIDCScope (.*)", text) == [f'"{scopes}"']


def test_a_good_host_passes(inventory: list[Path]) -> None:
    assert refusals(inventory) == ""
    assert refusals(inventory, oidc_proxy_sites=[]) == ""
    assert refusals(inventory, site_ca_host="", oidc_proxy_sites=[SITE]) == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"iam_issuer": ""}, "nobody to ask who people are"),
        ({"oidc_proxy_issuer": 'https://login.example/"'}, "nobody to ask who people are"),
        ({"oidc_proxy_issuer": OWN}, f"set oidc_proxy_issuer_keys to jwks_uri of {OWN}.well-known/openid-config"),
        ({"iam_host": "", "iam_issuer": OWN}, "tokens cannot be checked (found ''"),
        ({"oidc_proxy_issuer_keys": "http://login.example/keys"}, "tokens cannot be checked"),
        ({"oidc_proxy_sites": [{**SITE, "name": "two words"}]}, "names of services cannot be used"),
        ({"oidc_proxy_sites": [SITE, {**SITE, "port": 8445}]}, "found jobs, jobs"),
        ({"oidc_proxy_sites": [SITE, {**SITE, "name": "more"}]}, "services share a port"),
        ({"oidc_proxy_sites": [{**SITE, "backend": "http://127.0.0.1:8080"}]}, "with a slash at the end"),
        ({"oidc_proxy_sites": [{**SITE, "readers": []}]}, "nobody may use a service"),
        ({"oidc_proxy_sites": [{**SITE, "readers": [], "writers": []}]}, "nobody may use a service"),
        ({"oidc_proxy_sites": [{**SITE, "readers": ['a" b']}]}, "groups cannot be asked for"),
        ({"oidc_proxy_sites": [{**SITE, "backend_user": "proxy"}]}, "credentials are half there"),
        ({"site_ca_host": "", "oidc_proxy_issuer_authority": "site"}, "needed one for the IAM, registry)"),
    ],
)
def test_what_cannot_work_is_refused(inventory: list[Path], settings: dict[str, Any], said: str) -> None:
    assert said in refusals(inventory, **settings)


def test_a_port_in_use_by_another_program_is_refused(inventory: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FACTS["deephdc"], "listening", [{"port": 5443, "program": "squatter"}])
    assert "squatter on 5443" in refusals(inventory)
