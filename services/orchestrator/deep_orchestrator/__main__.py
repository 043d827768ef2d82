"""Run the orchestrator: the REST interface and a worker in one process.

    python -m deep_orchestrator FILE

FILE: the settings, in JSON. Exit status 2 where they cannot be used.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import uvicorn

from deep_orchestrator.service import serving
from deep_orchestrator.settings import SettingsError, load

# Seconds that requests get to end when the service is stopped.
GRACE = 5


def main() -> int:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="deep-orchestrator", description="Run the orchestrator.")
    parser.add_argument("settings", type=Path, help="settings, in JSON")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # A line for each request to a site says nothing that a deployment does not.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = load(arguments.settings)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with serving(settings) as app:
        uvicorn.run(
            app,
            host=settings.address,
            port=settings.port,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.key,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            log_config=None,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
