"""Where the project keeps things: the checkout, the cache, the state of each testbed and of each site."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

APPLICATION = "deep-testbed"


def repo_root() -> Path:
    """The checkout that holds playbooks, roles and inventories."""
    return Path(__file__).resolve().parent.parent


def cache_dir() -> Path:
    """What can be rebuilt: artefacts and node images (``$DEEP_CACHE_DIR`` overrides)."""
    return Path(os.environ.get("DEEP_CACHE_DIR") or platformdirs.user_cache_dir(APPLICATION))


def state_root() -> Path:
    """The parent of all state that lasts (``$DEEP_STATE_DIR`` overrides)."""
    return Path(os.environ.get("DEEP_STATE_DIR") or platformdirs.user_state_dir(APPLICATION))


def testbeds_dir() -> Path:
    """The parent of every testbed's state."""
    return state_root() / "testbeds"


def state_dir(name: str) -> Path:
    """State of the testbed ``name``: keys, inventory, secrets, logs. Removed with the testbed."""
    return testbeds_dir() / name


def site_state_dir(site: str) -> Path:
    """State of the production site ``site``: its vault's password, logs, facts. Nothing of ours removes it."""
    return state_root() / "sites" / site


def run_dir() -> Path:
    """What ends with a reboot, one for the whole machine whoever calls: limits that were raised, the engine's record.

    ``$DEEP_RUN_DIR`` overrides.
    """
    return Path(os.environ.get("DEEP_RUN_DIR") or "/run/deep-testbed")
