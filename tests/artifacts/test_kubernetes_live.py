"""The configurations that the Kubernetes roles render, held against kubeadm out of the artefact store."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.artifacts import api
from testbed.rendering import SiteVariables, role_path
from tests.unit.test_render_roles import hosts_of, registered, rendered_site, testbed_hosts

__all__ = ["rendered_site", "testbed_hosts"]

pytestmark = pytest.mark.live

INVITED = {
    "invitation": {"token": f"{'a' * 6}.{'b' * 16}", "ca_hash": f"sha256:{'0' * 64}", "certificate_key": "1" * 64}
}
INVITATIONS = {"kubernetes_node_invited": INVITED, "kubernetes_control_plane_invited": INVITED}
CONFIGURATIONS = (
    ("kubernetes_control_plane", "kubeadm.yaml.j2"),
    ("kubernetes_control_plane", "join.yaml.j2"),
    ("kubernetes_node", "join.yaml.j2"),
)


@pytest.fixture(scope="module")
def kubeadm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kubeadm of the version that is declared, executable."""
    api.ensure(["kubernetes"])
    program = tmp_path_factory.mktemp("kubernetes") / "kubeadm"
    shutil.copyfile(api.mirror_dir() / "kubernetes" / api.version("kubernetes") / "kubeadm", program)
    program.chmod(0o755)
    return program


def validate(kubeadm: Path, text: str) -> subprocess.CompletedProcess[str]:
    """What kubeadm says of a configuration."""
    argv = [str(kubeadm), "config", "validate", "--config", "/dev/stdin"]
    return subprocess.run(argv, input=text, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("site", ["local", "ifca"])
@pytest.mark.parametrize(("role", "template"), CONFIGURATIONS)
def test_kubeadm_accepts_what_is_rendered(
    kubeadm: Path, rendered_site: Callable[[str, str], SiteVariables], site: str, role: str, template: str
) -> None:
    inventory = rendered_site(site, "debian12")
    for host in hosts_of(inventory, role):
        variables = inventory.variables(host, role, {**registered(inventory), **INVITATIONS})
        text = inventory.render_file(role_path(role) / "templates" / template, variables)
        said = validate(kubeadm, text)
        assert said.returncode == 0, f"{host}: {said.stderr}"
        assert "unknown field" not in said.stderr

        renamed = text.replace("ignorePreflightErrors:", "ignorePreflightError:")
        assert "unknown field" in validate(kubeadm, renamed).stderr
