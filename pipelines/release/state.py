"""What a stage of a release line consists of: which package of which version lies in which suite.

A line is a major release (``deep-1``). Its stages are filled one after the other, and each has three suites: ``base``
is what the line began with, ``updates`` the newest version since, ``third-party`` what others made and it needs.
"""

from __future__ import annotations

import time
from typing import Annotated, Literal, get_args

from packaging.version import InvalidVersion, Version
from pydantic import Field

from pipelines.release.candidate import Artefact, Candidate, FileName, Sha256
from sqa.standard import Strict
from testbed.errors import CHECK_FAILED, DeepError

Stage = Literal["preview", "testing", "production"]
Suite = Literal["base", "updates", "third-party"]
Kind = Literal["deb", "rpm"]
STAGES: tuple[Stage, ...] = get_args(Stage)
SUITES: tuple[Suite, ...] = get_args(Suite)


class Package(Strict):
    """A package in a suite of the repository for a platform; ``version`` is that of its candidate."""

    platform: FileName
    suite: Suite
    kind: Kind
    file: FileName
    sha256: Sha256
    version: str


class State(Strict):
    """A stage of a line as it is from ``time`` on (seconds since 1970), signed with ``key``.

    States of a stage are numbered from 1. ``version`` and ``commit`` are those of the newest candidate in it.
    """

    line: FileName
    stage: Stage
    number: Annotated[int, Field(ge=1)]
    version: str
    commit: str
    time: int
    key: str
    packages: tuple[Package, ...]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.stage}-{self.number:04}"

    @property
    def versions(self) -> dict[str, str]:
        """The version of what lies in each suite, of those that are not empty."""
        return {suite: self.of(suite)[0].version for suite in SUITES if self.of(suite)}

    @property
    def repositories(self) -> list[tuple[str, Kind]]:
        """The platform and kind of every repository."""
        return sorted({(one.platform, one.kind) for one in self.packages})

    def of(self, suite: str, platform: str | None = None, kind: str | None = None) -> list[Package]:
        """The packages of a suite, in the repository of one platform and kind or in all."""
        return [
            one for one in self.packages
            if one.suite == suite and platform in (None, one.platform) and kind in (None, one.kind)
        ]  # fmt: skip

    def like(self, other: State) -> bool:
        """Whether a user would find the same here."""
        return (self.packages, self.version, self.key) == (other.packages, other.version, other.key)


def parsed(version: str) -> Version:
    """A version that can be compared; raises ``DeepError`` for what is none."""
    try:
        return Version(version)
    except InvalidVersion:
        raise DeepError("not a version", found=version, needed="a version as in 1.2.3") from None


def line_of(version: str) -> str:
    """The line that a version belongs to: ``deep-1`` of 1.2.3."""
    return f"deep-{parsed(version).major}"


def before(stage: Stage) -> Stage | None:
    """The stage from which a state is promoted to ``stage``; none to the first."""
    number = STAGES.index(stage)
    return STAGES[number - 1] if number else None


def moment(seconds: int) -> str:
    """A time as ISO 8601 has it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def composed(candidate: Candidate, former: State | None) -> tuple[Package, ...]:
    """What the first stage consists of with ``candidate``: it replaces what it renews, and the base stays.

    Raises ``DeepError`` for a package that no platform would get.
    """
    base = former.versions.get("base", candidate.version) if former else candidate.version
    # A line begins with its first release; candidates of it come before.
    ours: Suite = "base" if base == candidate.version or parsed(base).is_prerelease else "updates"
    made = [
        Package(
            platform=platform, suite="third-party" if one.third_party else ours,
            kind="deb" if one.kind == "deb" else "rpm",
            file=one.file, sha256=one.sha256, version=candidate.version,
        )
        for one in packages(candidate) for platform in _platforms(candidate, one)
    ]  # fmt: skip
    renewed = {"third-party", "updates", ours}
    kept = [one for one in (former.packages if former else ()) if one.suite not in renewed]
    return tuple(sorted([*kept, *made], key=lambda one: (one.platform, SUITES.index(one.suite), one.file)))


def refuse_changed(candidate: Candidate, other: Candidate) -> None:
    """Raise ``DeepError`` where a package of ``candidate`` was published with another content by ``other``."""
    known = {one.file: one for one in packages(other)}
    changed = [one.file for one in packages(candidate) if one.file in known and known[one.file].sha256 != one.sha256]
    if changed:
        raise DeepError(
            "a package was published before with another content", found=f"{', '.join(changed)} of {other.version}",
            needed="a new version for what has changed", exit_code=CHECK_FAILED,
            next_step="raise the package's version and build the candidate anew",
        )  # fmt: skip


def packages(candidate: Candidate) -> list[Artefact]:
    """The packages of distributions among what was built."""
    return [one for one in candidate.artefacts if one.kind in ("deb", "rpm")]


def _platforms(candidate: Candidate, package: Artefact) -> list[str]:
    """Where a package goes: to its platform, or to every one that has packages of its kind."""
    if package.platform:
        return [package.platform]
    found = {name for name, kind in candidate.platforms.items() if kind == package.kind}
    found |= {one.platform for one in packages(candidate) if one.kind == package.kind and one.platform}
    if not found:
        raise DeepError(
            f"no host would get {package.file}", found=f"no platform that has packages of the kind {package.kind}",
            needed="one at least", next_step="declare it in the manifest and build anew", exit_code=CHECK_FAILED,
        )  # fmt: skip
    return sorted(found)
