"""Where the project keeps things: the checkout, the cache and the state of each testbed."""

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
    """The parent of every testbed's state (``$DEEP_STATE_DIR`` overrides)."""
    return Path(os.environ.get("DEEP_STATE_DIR") or platformdirs.user_state_dir(APPLICATION))


def state_dir(name: str) -> Path:
    """State of the testbed ``name``: keys, inventory, secrets, logs."""
    return state_root() / name
