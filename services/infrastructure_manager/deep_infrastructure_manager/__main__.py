"""``python3 -m deep_infrastructure_manager FILE``: the service, with IM's configuration in FILE."""

from __future__ import annotations

import logging
import sys

from IM import config

from deep_infrastructure_manager import settings


def main() -> None:
    """Run until told to stop. IM's parts read its configuration when they are imported, so it comes first."""
    if len(sys.argv) != 2:
        sys.exit("which configuration? usage: python3 -m deep_infrastructure_manager FILE")
    file = sys.argv.pop()
    if not config.config.read(file):
        sys.exit(f"{file}: cannot be read")
    try:
        wanted = settings.read(config.config)
        config.parse_options(config.config, settings.IM, config.Config)
        from deep_infrastructure_manager import guard

        guard.apply(wanted)
    except settings.SettingsError as error:
        sys.exit(f"{file}: {error}")
    from IM import im_service

    # To whoever started it, and not to files that have to be turned over.
    im_service.config_logging = log
    im_service.main()


def log() -> None:
    """What happens, to the standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    for name in ("InfrastructureManager", "CloudConnector", "ConfManager"):
        logging.getLogger(name).setLevel(logging.INFO)


if __name__ == "__main__":
    main()
