# SPDX-License-Identifier: Apache-2.0
"""When the certificates of a control plane end."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def days_left(report: dict[str, Any], now: datetime) -> dict[str, int]:
    """Days to the end of each certificate in the JSON of ``kubeadm certs check-expiration``; -1 for a missing one."""
    rows = [*report.get("certificates", []), *report.get("certificateAuthorities", [])]
    return {row["name"]: -1 if row.get("missing") else (expiry(row["expirationDate"]) - now).days for row in rows}


def expiry(text: str) -> datetime:
    """The time that kubeadm writes in RFC 3339 with a Z."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def due(report: dict[str, Any], left: dict[str, int], limit: int) -> list[str]:
    """Renewable certificates with fewer than ``limit`` days left.

    Authorities and external ones are not renewable, nor is what only another control plane has (super-admin.conf).
    """
    rows = report.get("certificates", [])
    renewable = [row["name"] for row in rows if not row.get("externallyManaged") and not row.get("missing")]
    return [name for name in renewable if left[name] < limit]
