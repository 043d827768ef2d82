"""What the role configures is what the provider reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deep_cloud_info.config import Configuration
from testbed.rendering import SiteVariables, role_path
from tests.unit.test_render_roles import rendered_site, testbed_hosts

__all__ = ["rendered_site", "testbed_hosts"]

ROLE = "cloud_info_provider"


@pytest.mark.parametrize(
    ("site", "server", "settings"),
    [
        ("local", "https://198.18.0.11:6443", {}),
        ("ifca", "https://api.ifca.example:6443", {}),
        (
            "ifca",
            "https://api.ifca.example:6443",
            {
                "cloud_info_provider_registry": "",
                "cloud_info_provider_endpoints": [{"interface": "x", "url": "https://x.example"}],
                "cloud_info_provider_agreements": [{"organisation": "imaging", "priority": 1, "gpus": 2, "sla": "s"}],
                # As --extra-vars gives them.
                "cloud_info_provider_validity": "600",
                "cloud_info_provider_only_images_of_registry": "true",
            },
        ),
    ],
)
def test_the_configuration_is_understood(
    rendered_site: Callable[[str, str], SiteVariables], site: str, server: str, settings: dict[str, Any]
) -> None:
    inventory = rendered_site(site, "debian12")
    host = inventory.hosts_of("kubernetes_control_plane[0]")[0]
    variables = {**inventory.variables(host, ROLE), **settings}
    assert inventory.argument_errors(ROLE, "main", variables) == []
    text = inventory.render_file(role_path(ROLE) / "templates" / "config.json.j2", variables)
    found = Configuration.model_validate_json(text)
    assert (found.site, found.kubernetes.server) == (site, server)
    assert [terms.organisation for terms in found.agreements] == (["imaging"] if settings else ["imaging", "climate"])
    assert (found.registry is None) is bool(settings)
    assert len(found.endpoints) == 2
