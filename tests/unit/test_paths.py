"""Where the program finds its playbooks when there is no checkout, and where Ansible finds the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed import paths
from testbed.errors import DeepError
from testbed.playbook import ansible_environment


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose ``first`` and ``second`` are where Ansible looks, as seen from there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", "first:second")
    return tmp_path


def installed(folder: Path, version: str) -> Path:
    made = folder / paths.COLLECTION
    made.mkdir(parents=True)
    (made / "MANIFEST.json").write_text(json.dumps({"collection_info": {"version": version}}))
    return made


@pytest.mark.parametrize(("said", "version"), [("1.2.3", "1.2.3"), ("1.2.3-rc.1", "1.2.3rc1")])
def test_the_collection_of_the_same_version_is_found(places: Path, said: str, version: str) -> None:
    (places / "first" / paths.COLLECTION).mkdir(parents=True)  # nothing was installed there
    made = installed(places / "second", said)
    assert paths.collection(version) == made


def test_the_one_that_ansible_would_take_has_to_be_of_the_version(places: Path) -> None:
    other = installed(places / "first", "1.2.4")
    installed(places / "second", "1.2.3")
    with pytest.raises(DeepError) as refused:
        paths.collection("1.2.3")
    assert (refused.value.found, refused.value.needed) == (f"1.2.4 in {other}", "1.2.3")


def test_without_a_collection_it_is_said_where_none_is(places: Path) -> None:
    with pytest.raises(DeepError) as refused:
        paths.collection("1.2.3")
    assert refused.value.found == f"none in {places / 'first'}, {places / 'second'}"


def test_without_a_word_it_is_looked_for_where_ansible_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANSIBLE_COLLECTIONS_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    folders = [tmp_path / ".ansible/collections", Path("/usr/share/ansible/collections")]
    assert paths.collections_path()[1:] == folders


def test_ansible_looks_in_the_same_places_from_wherever_it_runs(places: Path) -> None:
    own = paths.repo_root() / ".ansible/collections"
    wanted = f"{own}:{places / 'first'}:{places / 'second'}"
    assert ansible_environment()["ANSIBLE_COLLECTIONS_PATH"] == wanted
