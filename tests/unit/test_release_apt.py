"""What apt makes of the repositories: the real one, in folders of its own, from a web server on loopback."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.release import programs
from pipelines.release.openpgp import Key
from pipelines.release.steps import Release
from tests.unit import release_toys
from tests.unit.release_clients import Apt, served
from tests.unit.release_toys import Workshop

pytestmark = pytest.mark.skipif(
    bool(programs.missing()) or not shutil.which("apt-get"),
    reason="apt, apt-utils, createrepo-c, gnupg or rpm is not here",
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with release_toys.workshop(tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture
def release(shop: Workshop, tmp_path: Path) -> Release:
    made = shop.release(tmp_path / "store")
    publish(made, shop.candidate("1.0.0", kinds=("deb",)), "1.0.0")
    return made


@pytest.fixture
def url(release: Release) -> Iterator[str]:
    with served(release.store.public) as address:
        yield f"{address}/production/deep-1/debian12"


@pytest.fixture
def apt(release: Release, shop: Workshop, url: str, tmp_path: Path) -> Apt:
    key = tmp_path / "key.asc"
    key.write_bytes(shop.keyring.public(shop.key))
    made = Apt(tmp_path / "apt", url, key)
    done = made.update()
    assert done.returncode == 0, done.stdout
    return made


def publish(release: Release, made: Path, version: str) -> None:
    release.stage(made)
    release.promote(version, "testing")
    release.promote(version, "production")


def test_it_finds_the_newest_version_and_fetches_it(release: Release, shop: Workshop, apt: Apt) -> None:
    assert apt.offered("tool") == "1.0.0"
    publish(release, shop.candidate("1.1.0", kinds=("deb",)), "1.1.0")
    assert apt.update().returncode == 0
    assert apt.offered("tool") == "1.1.0"
    for version in ("1.1.0", "1.0.0"):  # the base is there too
        done = apt("apt-get", "download", f"tool={version}")
        assert done.returncode == 0, done.stdout
        built = release.store.candidates("deep-1") / version / "files" / f"tool_{version}_all.deb"
        assert (apt.folder / built.name).read_bytes() == built.read_bytes()


def test_it_follows_a_rollback(release: Release, shop: Workshop, apt: Apt) -> None:
    publish(release, shop.candidate("1.1.0", kinds=("deb",)), "1.1.0")
    apt.update()
    release.rollback("1.0.0", "production")
    assert apt.update().returncode == 0
    assert apt.offered("tool") == "1.0.0"


def test_each_seal_has_the_time_of_its_state(release: Release, shop: Workshop) -> None:
    publish(release, shop.candidate("1.1.0", kinds=("deb",)), "1.1.0")
    release.rollback("1.0.0", "production")
    for state in release.store.states("deep-1"):
        for seal in release.store.folder(state).glob("debian12/dists/*/*Release*"):
            assert seal.stat().st_mtime == state.time


def test_it_would_not_follow_one_whose_seal_is_the_old_one(release: Release, shop: Workshop, apt: Apt) -> None:
    publish(release, shop.candidate("1.1.0", kinds=("deb",)), "1.1.0")
    apt.update()
    link = release.store.link("deep-1", "production")
    link.unlink()
    link.symlink_to("../states/deep-1/production-0001")
    assert apt.update().returncode == 0
    assert apt.offered("tool") == "1.1.0"  # why every state is sealed anew


def test_it_refuses_a_repository_of_another_key(release: Release, shop: Workshop, url: str, tmp_path: Path) -> None:
    other = tmp_path / "other.asc"
    other.write_bytes(shop.keyring.public(release_toys.new_key(shop.keyring.home or Path(), "other")))
    done = Apt(tmp_path / "apt", url, other).update()
    assert done.returncode != 0
    assert "NO_PUBKEY" in done.stdout or "not signed" in done.stdout


def test_it_refuses_a_package_that_was_altered(release: Release, apt: Apt) -> None:
    package = release.store.public / "production/deep-1/debian12/pool/base/tool_1.0.0_all.deb"
    content = package.read_bytes()
    package.unlink()
    package.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = apt("apt-get", "download", "tool")
    assert done.returncode != 0
    assert "Hash Sum mismatch" in done.stdout


def test_it_refuses_a_key_that_has_expired(
    shop: Workshop, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired = release_toys.new_key(shop.keyring.home or Path(), "expired", "2d")
    late = shop.release(tmp_path / "late", keys=(expired,))
    with monkeypatch.context() as then:
        then.setattr(Key, "check", lambda *_: None)  # it was signed when it still counted
        late.stage(shop.candidate("1.0.0", kinds=("deb",)))
    (row,) = late.verify()["stages"]
    assert f"the key {expired} has expired" in " ".join(row["problems"])
    key = tmp_path / "key.asc"
    key.write_bytes(shop.keyring.public(expired))
    with served(late.store.public) as address:
        done = Apt(tmp_path / "apt", f"{address}/preview/deep-1/debian12", key).update()
    assert done.returncode != 0
    assert "EXPKEYSIG" in done.stdout or "expired" in done.stdout
