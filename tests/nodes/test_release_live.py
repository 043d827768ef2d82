"""A release as its users get it: a fresh node takes it by apt, and by dnf, from published repositories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.release import manifest, packages, programs, source
from pipelines.release.openpgp import Key
from pipelines.release.steps import Release
from tests.nodes import one_node
from tests.unit import release_toys
from tests.unit.release_clients import SOURCES as WORDS
from tests.unit.release_clients import served
from tests.unit.release_toys import Workshop

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        bool(programs.missing()), reason="apt-utils, createrepo-c, gnupg or rpm: scripts/bootstrap.sh test"
    ),
]

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = "deep-testbed-0.1"
FIRST, SECOND = "0.1.0", "0.2.0"  # of the manifest's line
SOURCES = "/etc/apt/sources.list.d/deephdc.sources"
# A root of its own: dnf finds an empty database of packages there, as on a host of its own kind.
DNF = "dnf -yq --installroot=/srv/rpm --releasever=9 --setopt=reposdir=/etc/yum.repos.d --setopt=cachedir=/srv/cache"


class Node(one_node.Node):
    """A Debian node that takes packages."""

    def refresh(self, *, fails: bool = False) -> str:
        """apt-get update of this repository alone: the others' are not what is tested."""
        only = f"-o Dir::Etc::sourcelist={SOURCES} -o Dir::Etc::sourceparts=-"
        return self.run(f"apt-get update --error-on=any {only} -o APT::Get::List-Cleanup=0", fails=fails)

    def tool(self) -> str:
        return self.run("cat /usr/share/tool/version")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with one_node.raised("live-release") as raised:
        yield Node(raised.testbed, raised.address, raised.gateway)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with release_toys.workshop(tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture(scope="module")
def release(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Release:
    made = shop.release(tmp_path_factory.mktemp("store"))
    publish(made, shop, FIRST)
    return made


@pytest.fixture(scope="module")
def url(release: Release, node: Node) -> Iterator[str]:
    with served(release.store.public, node.gateway) as address:
        yield f"{address}/production"


@pytest.fixture(scope="module")
def introduced(node: Node, shop: Workshop, url: str) -> None:
    """The node has installed the package that brings the repository and its key."""
    node.put(release_package(shop, url, "debian12"), "/root/deephdc-release.deb")
    node.run("dpkg --install /root/deephdc-release.deb")


def publish(release: Release, shop: Workshop, version: str) -> None:
    """Have a version in production, whether it was there before or not."""
    if any(one.version == version for one in release.store.states("deep-0", "production")):
        release.rollback(version, "production")
        return
    release.stage(shop.candidate(version))
    release.promote(version, "testing")
    release.promote(version, "production")


def release_package(shop: Workshop, url: str, platform: str) -> Path:
    """The package deephdc-release for a platform, as the build makes it."""
    wanted = manifest.find(MANIFEST)
    folder = shop.folder / f"deephdc-release-{platform}"
    (folder / "files").mkdir(parents=True)
    made = packages.Workshop(
        wanted, release_toys.EPOCH, folder / "source", folder / "files", folder, url,
        dict.fromkeys(("deb", "rpm"), shop.keyring.public(shop.key).decode("ascii")),
    )  # fmt: skip
    source.export(source.commit(ROOT, "HEAD"), wanted, made.source)
    product, declared = next(
        (one, each) for one, each, _ in wanted.files() if (one.name, each.platform) == ("deephdc-release", platform)
    )
    packages.package(made, product, declared)
    return made.made(declared)


# In the order in which a user comes to them.


def test_a_node_installs_upgrades_and_goes_back(node: Node, release: Release, shop: Workshop, introduced: None) -> None:
    node.refresh()
    assert "950" in node.run("apt-cache policy tool")
    node.run("apt-get install --yes tool")
    assert node.tool() == "tool 0.1.0"

    publish(release, shop, SECOND)
    node.refresh()
    node.run("apt-get upgrade --yes")
    assert node.tool() == "tool 0.2.0"
    node.run("apt-get install --yes --allow-downgrades tool=0.1.0")  # the base is still offered
    assert node.tool() == "tool 0.1.0"

    node.run("apt-get install --yes tool")
    release.rollback(FIRST, "production")
    node.refresh()
    assert "Candidate: 0.2.0" in node.run(
        "apt-cache policy tool"
    )  # what is installed stays until somebody says otherwise
    node.run("apt-get install --yes --allow-downgrades tool/base")
    assert node.tool() == "tool 0.1.0"


def test_what_is_not_as_it_was_signed_is_refused(
    node: Node, release: Release, shop: Workshop, introduced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.refresh()
    node.run("apt-get remove --yes tool && apt-get clean")
    package = release.store.public / "production/deep-0/debian12/pool/base/tool_0.1.0_all.deb"
    content = package.read_bytes()
    package.unlink()
    package.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "Hash Sum mismatch" in node.run("apt-get install --yes tool=0.1.0", fails=True)
    package.write_bytes(content)
    node.run("apt-get install --yes tool=0.1.0")

    index = package.parents[2] / "dists/base/InRelease"
    signed = index.read_bytes()
    index.write_bytes(signed.replace(b"Origin: DEEP", b"Origin: DEEQ"))
    assert "BADSIG" in node.refresh(fails=True)
    index.write_bytes(signed)
    node.refresh()


@pytest.mark.parametrize(
    ("name", "expires", "said"), [("stranger", "never", "NO_PUBKEY"), ("expired", "1d", "EXPKEYSIG")]
)
def test_a_repository_of_another_or_an_expired_key_is_refused(
    node: Node, shop: Workshop, introduced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, expires: str, said: str,
) -> None:  # fmt: skip
    key = release_toys.new_key(shop.keyring.home or Path(), name, expires)
    other = shop.release(tmp_path / "store", lambda: release_toys.EPOCH - 3600, keys=(key,))
    with monkeypatch.context() as then:
        then.setattr(Key, "check", lambda *_: None)  # it was signed when the key still counted
        other.stage(shop.candidate(FIRST, kinds=("deb",)))
    known = shop.folder / f"{name}.asc"
    known.write_bytes(shop.keyring.public(key if name == "expired" else shop.key))
    node.put(known, f"/srv/{name}.asc")
    with served(other.store.public, node.gateway) as address:
        lines = WORDS.format(url=f"{address}/preview/deep-0/debian12", key=f"/srv/{name}.asc")
        node.run(f"cp {SOURCES} /root/kept && cat > {SOURCES} <<'END'\n{lines}END")
        try:
            assert said in node.refresh(fails=True)
        finally:
            node.run(f"mv /root/kept {SOURCES}")


def test_dnf_takes_the_packages_with_both_signatures_checked(
    node: Node, release: Release, shop: Workshop, url: str
) -> None:
    node.run("apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends dnf rpm")
    node.put(release_package(shop, url, "el9"), "/root/deephdc-release.rpm")
    node.run("rpm --upgrade --force-debian --nodeps --nosignature /root/deephdc-release.rpm")
    publish(release, shop, SECOND)
    installed = "cat /srv/rpm/usr/share/tool/version"
    node.run(f"{DNF} install tool-0.1.0")
    assert node.run(installed) == "tool 0.1.0"
    node.run(f"{DNF} upgrade")
    assert node.run(installed) == "tool 0.2.0"
    node.run(f"{DNF} downgrade tool")
    assert node.run(installed) == "tool 0.1.0"

    package = release.store.public / "production/deep-0/el9/updates/tool-0.2.0-1.noarch.rpm"
    content = package.read_bytes()
    package.unlink()
    package.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    node.run("rm -rf /srv/cache")
    assert "Cannot download" in node.run(f"{DNF} upgrade", fails=True)
    package.write_bytes(content)
    node.run(f"{DNF} upgrade")
    assert node.run(installed) == "tool 0.2.0"
    data = package.parent / "repodata/repomd.xml"
    signed = data.read_bytes()
    data.unlink()
    data.write_bytes(signed.replace(b"<revision>", b"<revision> "))
    node.run("rm -rf /srv/cache")
    assert "GPG" in node.run(f"{DNF} --refresh makecache", fails=True)
