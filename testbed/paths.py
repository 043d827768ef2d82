"""Where the project keeps things: its playbooks, the cache, the state of each testbed and of each site."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import platformdirs

from testbed.errors import DeepError

APPLICATION = "deep-testbed"
COLLECTION = Path("ansible_collections/deephdc/testbed")
# Where Ansible looks for collections if nobody says otherwise.
COLLECTIONS_PATH = "~/.ansible/collections:/usr/share/ansible/collections"


@cache
def repo_root() -> Path:
    """The tree that holds playbooks, roles and inventories: the checkout, else the collection that is installed.

    Raises ``DeepError`` where there is no collection, or one of another version than this program.
    """
    beside = Path(__file__).resolve().parent.parent
    if (beside / "playbooks").is_dir():
        return beside
    from importlib.metadata import version  # slow, and of no use in a checkout

    return collection(version(APPLICATION))


def collection(version: str) -> Path:
    """The installed collection, which has to be of this version; raises ``DeepError`` where Ansible finds none."""
    from packaging.version import Version  # the collection spells 0.1.0rc1 otherwise

    places = _installed()
    found = next((one / COLLECTION for one in places if (one / COLLECTION / "MANIFEST.json").is_file()), None)
    if found is None:
        what = f"none in {', '.join(map(str, places))}"
    else:
        said = json.loads((found / "MANIFEST.json").read_text(encoding="utf-8"))["collection_info"]["version"]
        if Version(said) == Version(version):
            return found
        what = f"{said} in {found}"
    raise DeepError(
        "this program needs the collection deephdc.testbed of its version", found=what, needed=version,
        next_step="ansible-galaxy collection install --force FILE, and name the folder in ANSIBLE_COLLECTIONS_PATH if "
        "--collections-path did",
    )  # fmt: skip


def collections_path() -> list[Path]:
    """Where every Ansible of the project looks for collections: a checkout's own folder, then as Ansible does."""
    return [repo_root() / ".ansible" / "collections", *_installed()]


def _installed() -> list[Path]:
    """Where Ansible looks by itself (``$ANSIBLE_COLLECTIONS_PATH``); absolute, since it is run in another folder."""
    named = os.environ.get("ANSIBLE_COLLECTIONS_PATH") or COLLECTIONS_PATH
    return [Path(one).expanduser().absolute() for one in named.split(":") if one]


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
