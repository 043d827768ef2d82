"""Certificates of services: by whom they are signed, whom a service trusts, and what a site may bring itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.paths import repo_root
from testbed.rendering import SiteVariables, role_path

ROLE = "pki"
BROUGHT = {"certificate": "-----BEGIN CERTIFICATE-----\nchain", "key": "-----BEGIN EC PRIVATE KEY-----\nkey"}


@pytest.fixture
def inventory(tmp_path: Path) -> list[Path]:
    """The site local with one host that keeps the authority and has the proxy."""
    groups: dict[str, Any] = {name: {"hosts": {"node1": {}}} for name in ("pki", "oidc_proxy")}
    hosts = {"node1": {"ansible_host": "192.0.2.11"}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    return [repo_root() / "inventories" / "common", repo_root() / "inventories" / "local", tmp_path]


def variables(site: SiteVariables, folder: str, **more: Any) -> dict[str, Any]:
    """What the tasks know of the proxy's certificate in ``folder``."""
    certificate = {"name": "oidc_proxy", "folder": folder, "names": ["proxy.deep.test"]}
    return site.variables("node1", ROLE, {"pki_certificate": certificate, **more})


def written(inventory: list[Path], tasks: str, **settings: Any) -> dict[str, str]:
    """The files that the tasks keep for a service, and what is in each."""
    site = SiteVariables(inventory, extra=settings)
    known = variables(site, "/service", pki_authority={"stdout": "AUTHORITY"})
    return {
        Path(site.render(item["path"], known)).name: site.render(item.get("content", item.get("secret_content")), known)
        for task in site.trusted_yaml(role_path(ROLE) / "tasks" / tasks)
        if "deephdc.testbed.files" in task and site.holds(task.get("when", True), known) is True
        for item in task["deephdc.testbed.files"]["files"]
        if site.render(item.get("wanted", True), known)
    }


def test_a_service_with_a_certificate_of_the_sites_still_trusts_the_authority(inventory: list[Path]) -> None:
    brought = written(inventory, "certificate.yml", site_certificates={"oidc_proxy": BROUGHT})
    assert brought["ca.crt"] == brought["tls.crt"] == BROUGHT["certificate"]
    assert brought["tls.key"] == BROUGHT["key"]
    assert brought["site-authority.crt"] == "AUTHORITY"
    signed = {**written(inventory, "certificate.yml"), **written(inventory, "sign.yml")}
    assert signed["ca.crt"] == signed["site-authority.crt"] == "AUTHORITY"


def test_a_site_without_an_authority_gives_none_out(inventory: list[Path]) -> None:
    found = written(inventory, "certificate.yml", site_ca_host="", site_certificates={"oidc_proxy": BROUGHT})
    assert "site-authority.crt" not in found
    assert found["ca.crt"] == BROUGHT["certificate"]


@pytest.mark.parametrize(
    ("certificates", "said"),
    [
        ({"iam": BROUGHT, "registry": BROUGHT, "oidc_proxy": BROUGHT}, ""),
        ({"keycloak": BROUGHT}, "keycloak"),
        ({"iam": {**BROUGHT, "chain": "more"}}, "chain"),
        ({"iam": "a certificate"}, "iam"),
    ],
)
def test_what_a_site_brings_has_its_form(inventory: list[Path], certificates: dict[str, Any], said: str) -> None:
    site = SiteVariables(inventory)
    known = {**site.variables("node1", ROLE), "pki_site_certificates": certificates}
    found = "\n".join(site.argument_errors(ROLE, "main", known))
    assert bool(found) == bool(said), found
    assert said in found
    assert BROUGHT["key"] not in found


KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")


def made(folder: Path, name: str, *options: str) -> Path:
    """A certificate of a day, and its key beside it."""
    argv = ["openssl", "req", "-x509", *KEY, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "1"]
    subprocess.run([*argv, *options], cwd=folder, check=True, capture_output=True)
    return folder / f"{name}.crt"


def test_what_a_site_brought_before_is_signed_anew(inventory: list[Path], tmp_path: Path) -> None:
    """The host trusts who signed it: what counts is who signs now."""
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    site = SiteVariables(inventory, extra={"pki_renew_days": 0})
    (look,) = (
        task for task in site.trusted_yaml(role_path(ROLE) / "tasks" / "sign.yml")
        if task["name"].startswith("Look at the certificate")
    )  # fmt: skip
    argv = [str(word) for word in site.render(look["loop"][0], variables(site, str(tmp_path)))]
    for name in ("ca", "before"):
        shutil.copy(made(tmp_path, name, "-subj", f"/CN=authority {name}"), trusted)
    subprocess.run(["openssl", "rehash", str(trusted)], check=True)
    for name, status in (("ca", 0), ("before", 2)):
        made(tmp_path, "tls", "-subj", "/CN=proxy", "-CA", f"{name}.crt", "-CAkey", f"{name}.key")
        done = subprocess.run(
            argv, env={**os.environ, "SSL_CERT_DIR": str(trusted)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
