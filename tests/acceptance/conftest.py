"""Options, the site, its hosts and its cluster for every acceptance check.

Run it through ``deep site verify SITE``, or by hand::

    pytest tests/acceptance --site local --site-inventory inventories/common --site-inventory inventories/local ...
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.probes.cluster import Cluster
from tests.acceptance.probes.iam import Iam
from tests.acceptance.probes.identity import issuer_of
from tests.acceptance.probes.site import Site
from tests.acceptance.probes.verdict import VerdictRecorder

SITE = pytest.StashKey[Site]()
NO_SITE = "no site named: give --site-inventory for each inventory folder, or use 'deep site verify SITE'"


def pytest_addoption(parser: pytest.Parser) -> None:
    """What is tested, and where the results go."""
    group = parser.getgroup("site under test")
    group.addoption("--site", default="unnamed", help="name of the site, for the verdict")
    group.addoption(
        "--site-inventory",
        action="append",
        default=[],
        metavar="PATH",
        help="inventory folder, in order of rising precedence (repeat)",
    )
    group.addoption("--vault-password-file", metavar="PATH", help="opens the site's secrets")
    group.addoption("--verdict", metavar="PATH", help="write the JSON verdict to this file")
    group.addoption("--progress", metavar="PATH", help="write a line of progress to this file after each check")
    group.addoption("--assess", action="store_true", help="also look at the site as an attacker does; takes longer")
    group.addoption(
        "--limit",
        metavar="PATTERN",
        help="check the hosts themselves only on these hosts or groups; the cluster is always checked as a whole",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read the inventory once and start the verdict."""
    config.addinivalue_line("markers", "group(name): run once for every host of this group of the inventory")
    config.addinivalue_line("markers", "assess: only with --assess")
    config.addinivalue_line("markers", "check(name): the check of the quality gate that this is a part of")
    sources = [Path(source) for source in config.getoption("--site-inventory")]
    if not sources:
        return
    password = config.getoption("--vault-password-file")
    site = Site(config.getoption("--site"), sources, Path(password) if password else None)
    config.stash[SITE] = site
    if (limit := config.getoption("--limit")) and not site.matching(limit):
        raise pytest.UsageError(f"--limit {limit} matches no host: the site has {', '.join(site.names)}")
    if verdict := config.getoption("--verdict"):
        progress = config.getoption("--progress")
        config.pluginmanager.register(
            VerdictRecorder(Path(verdict), site.name, site.simulated, Path(progress) if progress else None)
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only an assessment asks for."""
    if not config.getoption("--assess"):
        items[:] = [item for item in items if item.get_closest_marker("assess") is None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One check per host of the group that the check is marked with; a group without hosts is skipped aloud."""
    if "hostname" not in metafunc.fixturenames:
        return
    site = metafunc.config.stash.get(SITE, None)
    marker = metafunc.definition.get_closest_marker("group")
    group = marker.args[0] if marker else "all"
    if site is None:
        names: list[Any] = [pytest.param("none", marks=pytest.mark.skip(reason=NO_SITE))]
    else:
        limit = metafunc.config.getoption("--limit")
        members = site.names if group == "all" else site.group(group)
        names = [name for name in members if not limit or name in site.matching(limit)]
        if not names:
            why = f"no host of group {group} matches --limit {limit}" if members else f"the site has no host in {group}"
            names = [pytest.param("none", marks=pytest.mark.skip(reason=why))]
    metafunc.parametrize("hostname", names, scope="session")


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Site:
    """The site under test."""
    found = request.config.stash.get(SITE, None)
    if found is None:
        pytest.skip(NO_SITE)
    return found


@pytest.fixture(scope="session")
def report_folder(request: pytest.FixtureRequest) -> Path | None:
    """Where the verdict goes, for tables beside it; ``None`` where none was asked for."""
    verdict = request.config.getoption("--verdict")
    return Path(verdict).parent if verdict else None


@pytest.fixture
def host(site: Site, hostname: str) -> Any:
    """A testinfra host of the group that the check is marked with."""
    return site.host(hostname)


@pytest.fixture
def authority(site: Site) -> ssl.SSLContext:
    """Trust in the site's certificate authority, and in no other."""
    return site.authority()


@pytest.fixture(scope="module")
def iam(site: Site) -> Iterator[Iam]:
    """The issuer, where the checks know its people's passwords."""
    hosts = site.group("iam")
    if not hosts or not site.has(hosts[0], "acceptance_people"):
        pytest.skip("the site names no test people (acceptance_people), or has no host in group iam")
    with issuer_of(site, hosts[0]) as found:
        yield found


@pytest.fixture(scope="session")
def cluster(site: Site) -> Iterator[Cluster]:
    """The site's Kubernetes, with the administrator's rights; what the checks made there is removed at the end."""
    if not site.group("kubernetes_control_plane"):
        pytest.skip("the site has no host in group kubernetes_control_plane")
    with Cluster(site) as found:
        yield found


@pytest.fixture(scope="session")
def acceptance_image(site: Site, cluster: Cluster) -> str:
    """The image with a shell that pods of the checks run."""
    return site.image(cluster.control_plane)


@pytest.fixture(autouse=True)
def _tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let what a check made in the cluster go while the next one runs."""
    yield
    if cluster := request.node.funcargs.get("cluster"):
        cluster.remove_namespaces()
