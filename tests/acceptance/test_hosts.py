"""Every host by itself: its services, its certificates, its open ports."""

from __future__ import annotations

from typing import Any

from tests.acceptance.probes import certificates, listeners
from tests.acceptance.probes.site import Site

CERTIFICATE_DAYS = 30
# static: started by another unit, which is what journald is.
STATES = {"is-active": ("active",), "is-enabled": ("enabled", "static", "indirect", "alias")}


def test_declared_units_are_active(site: Site, host: Any, hostname: str) -> None:
    """Every systemd unit declared for the host's groups is enabled and active."""
    declared = site.declared_for(hostname, "units")
    assert declared, f"{hostname}: no unit is declared for its groups {site.groups_of(hostname)}"
    for verb, good in STATES.items():
        states = {unit: host.run(f"systemctl {verb} %s", unit).stdout.strip() for unit in declared}
        wrong = {unit: state for unit, state in states.items() if state not in good}
        assert not wrong, f"{hostname}: {verb} says: {wrong}"


def test_no_unit_has_failed(host: Any, hostname: str) -> None:
    """No systemd unit of the host is in state failed."""
    done = host.run("systemctl list-units --state=failed --no-legend --plain --full")
    assert done.rc == 0, f"{hostname}: systemctl could not look: {done.stderr}"
    failed = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert not failed, f"{hostname}: failed units: {', '.join(failed)}"


def test_no_certificate_is_near_expiry(site: Site, host: Any, hostname: str) -> None:
    """No certificate of the host's services expires within 30 days."""
    patterns = site.declared_for(hostname, "certificates")
    assert patterns, f"{hostname}: no certificate is declared for its groups {site.groups_of(hostname)}"
    found = certificates.on_host(host, patterns)
    late = [
        f"{one.path} ({one.subject}): {one.days_left():.0f} days" for one in found if one.days_left() < CERTIFICATE_DAYS
    ]
    assert not late, f"{hostname}: fewer than {CERTIFICATE_DAYS} days left: {'; '.join(late)}"


def test_nothing_undeclared_listens(site: Site, host: Any, hostname: str) -> None:
    """Nothing listens that is not declared, nor more widely than declared."""
    done = host.run("ss -Hltnup")
    assert done.rc == 0, f"{hostname}: ss could not look: {done.stderr}"
    found = listeners.parse(done.stdout)
    assert found, f"{hostname}: ss reports no socket at all, not even that of ssh"
    extra = listeners.undeclared(found, site.declared_for(hostname, "listeners"))
    assert not extra, f"{hostname}: not declared: {'; '.join(map(str, extra))}"
