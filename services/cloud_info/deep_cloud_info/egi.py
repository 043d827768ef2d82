"""Plug-ins of EGI's cloud-info-provider, which reads OpenStack.

``checked-file`` publishes what its providers find as ours is: validated, and replacing the file at once.
``kubernetes`` is our provider in its program. It cannot be a subclass of EGI's base provider, which asks GOCDB over the
network and needs what only a cloud has; it gives what that gives, objects of EGI's GLUE classes.

The configuration file is ours (JSON), in the place of EGI's site file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cloud_info_provider import glue
from cloud_info_provider.publishers.base import BasePublisher

from deep_cloud_info import publish, schema
from deep_cloud_info.config import load
from deep_cloud_info.errors import CloudInfoError, ConfigurationError

# Names of GLUE in JSON that are not those of EGI's fields in another writing.
FIELDS = {
    "ID": "id",
    "URL": "url",
    "SLA": "sla",
    "CPU": "cpu",
    "RAM": "ram",
    "TotalCPUs": "total_cpus",
    "TotalRAM": "total_ram",
    "MarketplaceURL": "marketplace_url",
    "OSPlatform": "osPlatform",
    "OSName": "osName",
    "ProjectID": "project_id",
}

# Fields that EGI's class demands, or has EGI's own terms of use in.
DEMANDED: dict[str, dict[str, str]] = {"CloudComputingService": {"status_info": "", "service_aup": ""}}


def field(name: str) -> str:
    """The field of EGI's classes that is rendered under a name of GLUE."""
    return FIELDS.get(name) or "".join(f"_{one.lower()}" if one.isupper() else one for one in name).lstrip("_")


class KubernetesPlugin:
    """Our provider of Kubernetes: ``cloud-info-provider-service --middleware kubernetes CONFIG``."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._config = Path(options.site_config)

    @staticmethod
    def populate_parser(parser: argparse.ArgumentParser) -> None:
        """Nothing: the configuration is the positional argument that EGI's provider of OpenStack has declared."""

    def fetch(self) -> dict[str, list[Any]]:
        """Everything, as objects of EGI's GLUE classes."""
        made = or_end(lambda: publish.document(load(self._config)))
        return {
            kind: [
                getattr(glue, kind)(**DEMANDED.get(kind, {}), **{field(name): value for name, value in one.items()})
                for one in objects
            ]
            for kind, objects in made.items()
        }


class CheckedFilePublisher(BasePublisher):  # type: ignore[misc]
    """``--publisher checked-file --checked-file FILE``."""

    @staticmethod
    def populate_parser(parser: argparse.ArgumentParser) -> None:
        """Where to publish."""
        parser.add_argument("--checked-file", metavar="FILE", help="File to replace with what is valid.")

    def publish(self, output: str) -> None:
        """Validate and write."""
        target = self.opts.checked_file

        def write() -> None:
            if not target:
                raise ConfigurationError(
                    "nowhere to publish",
                    found="no --checked-file",
                    needed="a file",
                    next_step="give --checked-file FILE",
                )
            schema.check(json.loads(output))
            publish.write(output + "\n", Path(target))

        or_end(write)


def or_end(action: Any) -> Any:
    """Do something; where it fails, say why and end the program with our exit status."""
    try:
        return action()
    except CloudInfoError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
