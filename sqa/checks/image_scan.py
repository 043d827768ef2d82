"""Trivy: known vulnerabilities of what is in container images.

It ends with 0 also where its database knows nothing, where the data are years old, and where it recognises nothing in
an image. So the data have a day, the database has to know a package that is known to be vulnerable, and some flaw of
each distribution whose packages are in an image; and an image in which nothing is recognised is a finding.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqa import settings, trivy_sample
from sqa.check import Canary, Check, InconclusiveError, Look, Report, Said
from sqa.model import Finding
from sqa.options import Options, taken
from sqa.tree import Tree
from testbed.artifacts import api

NAME = "image-scan"
LEVELS = {"CRITICAL": "error", "HIGH": "error", "MEDIUM": "warning"}
# Packages of such a system are listed and not looked up.
UNKNOWN_SYSTEM = re.compile(r"not on the EOL list|Unsupported os")
DATABASE = Path(".cache/trivy")  # of whoever runs this
NEXT = (
    "next: FOLDER/bin/trivy image --download-db-only where there is a network (deep sqa tools shows Trivy's FOLDER), "
    "and name where the data are (database in sqa.yml)"
)
SAMPLE = "sample.txt"
# Each release of a distribution has had flaws in some of them, and no correction is as old as their version 0.
EVERYWHERE = ("openssl", "libopenssl3", "glibc", "curl", "busybox")


class Taken(Options):
    """What ``sqa.yml`` may say.

    ``images``: patterns of archives in the repository, as ``docker save`` or ``skopeo copy`` writes them.
    ``artifacts``: those of the artefact store that are images. ``database``: Trivy's cache folder in the repository,
    else that of whoever runs this. ``days``: how old its data may be.
    """

    images: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    database: str | None = None
    days: int = 30


def inspect(look: Look) -> Report:
    """Look up everything in each image; raises ``InconclusiveError`` where data or images are not there."""
    own = taken(replace(look, settings=_settings(look.tree)), Taken)
    archives = [*_in_repository(look.root, own.images), *_in_store(own.artifacts)]
    folder = look.root / own.database if own.database else Path.home() / DATABASE
    data_of = _data_of(folder, own.days)
    _require_knowledge(look, folder)
    findings: list[Finding] = []
    systems: dict[str, tuple[dict[str, str], str]] = {}
    packages = 0
    for name, path in archives:
        found = _scanned(look, name, path, folder)
        systems |= _systems(found)
        packages += sum(len(one.get("Packages", [])) for one in found.get("Results", []))
        findings += [look.finding("", None, *said) for said in _said(name, found)]
    for system, kind in systems.values():
        _require_knowledge_of(look, folder, system, kind)
    return Report(
        dict.fromkeys(findings),
        look.files,
        {"images": len(archives), "packages looked up": packages, "data of": data_of.isoformat()},
    )


def _settings(tree: Tree) -> dict[str, Any]:
    return settings.load(tree.root).checks.get(NAME, {})


def names_images(tree: Tree, name: str) -> bool:
    """Whether a file is the repository's settings, and they name images."""
    return name == settings.NAME and any(_settings(tree).get(key) for key in ("images", "artifacts"))


def _in_repository(root: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for pattern in patterns:
        found = sorted(root.glob(pattern)) if not pattern.startswith("/") and ".." not in pattern.split("/") else []
        if not found:
            raise InconclusiveError(
                f"no image is there (found: nothing, needed: {pattern}); next: build it, or correct images in sqa.yml"
            )
        # Of the images of a folder, such as one for each architecture, Trivy looks at the first alone.
        if folders := [path for path in found if not path.is_file()]:
            raise InconclusiveError(
                f"{folders[0].relative_to(root)} is no archive (found: a folder, needed: a file); "
                "next: skopeo copy oci:FOLDER docker-archive:FILE for each image in it, or correct images in sqa.yml"
            )
        yield from ((path.relative_to(root).as_posix(), path) for path in found)


def _in_store(names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    store = api.Store()
    for name in names:
        try:
            version = api.version(name)
        except KeyError:
            raise InconclusiveError(f"no such artefact: {name}; next: correct artifacts in sqa.yml") from None
        record = store.record(name)
        found = [file for file in record.files if file.endswith(".tar")] if record else []
        if record is None or record.version != version or not found:
            raise InconclusiveError(f"no image of {name} {version} is in the store; next: deep artifacts build {name}")
        if wrong := store.check(record, rehash=False):
            raise InconclusiveError(
                f"{name}/{wrong[0].file} is not what was stored (found: {wrong[0].found}, needed: {wrong[0].needed}); "
                f"next: deep artifacts build --rehash {name}"
            )
        yield from ((f"{name}/{file}", store.file(name, file)) for file in found)


def _data_of(folder: Path, days: int) -> datetime.date:
    try:
        told = json.loads((folder / "db" / "metadata.json").read_text(encoding="utf-8"))
        day = datetime.datetime.fromisoformat(told["UpdatedAt"]).astimezone(datetime.UTC).date()
    except FileNotFoundError:
        raise InconclusiveError(f"there are no data on vulnerabilities (Trivy's database); {NEXT}") from None
    except (OSError, ValueError, KeyError, TypeError) as broken:
        raise InconclusiveError(f"Trivy's database cannot be read: {type(broken).__name__}; {NEXT}") from broken
    age = (datetime.datetime.now(datetime.UTC).date() - day).days
    if age < 0:
        raise InconclusiveError(
            f"the data on vulnerabilities are of a day to come (found: {day}, needed: today at the latest), so nobody "
            f"knows how old they are; next: set the clock, or fetch them again: {NEXT.removeprefix('next: ')}"
        )
    if age > days:
        raise InconclusiveError(
            f"the data on vulnerabilities are old (found: {day}, needed: at most {days} days); {NEXT}"
        )
    return day


def _require_knowledge(look: Look, folder: Path) -> None:
    probe = look.scratch / f"{look.root.name}.tar"
    trivy_sample.write_image(probe, trivy_sample.VULNERABLE)
    try:
        found = _scanned(look, probe.name, probe, folder)
    finally:
        probe.unlink()
    if not _knows(found):
        raise InconclusiveError(
            f"the database knows no vulnerability of {'=='.join(trivy_sample.VULNERABLE)}, which has some; {NEXT}"
        )


def _require_knowledge_of(look: Look, folder: Path, system: Mapping[str, str], kind: str) -> None:
    probe = look.scratch / f"{look.root.name}.json"
    trivy_sample.write_materials(probe, system, kind, EVERYWHERE)
    try:
        found = _trivy(look, folder, "sbom", str(probe)).json()
    finally:
        probe.unlink()
    if not _knows(found):
        raise InconclusiveError(
            f"the database knows nothing of {system['Family']} {system['Name']} (found: no flaw in any release of "
            f"{', '.join(EVERYWHERE)}), whose packages are in an image; {NEXT}; or base the image on another one"
        )


def _knows(found: Mapping[str, Any]) -> bool:
    return any(one.get("Vulnerabilities") for one in found.get("Results", []))


def _systems(found: Mapping[str, Any]) -> dict[str, tuple[dict[str, str], str]]:
    """The distribution whose packages are in an image, by name, with how a package URL of its begins."""
    packages = (
        package
        for result in found.get("Results", [])
        if result["Class"] == "os-pkgs"
        for package in result.get("Packages", [])
    )
    if not (one := next(packages, None)):
        return {}
    system = found["Metadata"]["OS"]
    kind = one["Identifier"]["PURL"].partition("@")[0].rpartition("/")[0]
    return {f"{system['Family']} {system['Name']}": (system, kind)}


def _scanned(look: Look, name: str, image: Path, database: Path) -> dict[str, Any]:
    said = _trivy(look, database, "image", f"--input={image}")
    found: dict[str, Any] = said.json()
    if UNKNOWN_SYSTEM.search(said.stderr):
        raise InconclusiveError(
            f"{name}: of its system there are no data on vulnerabilities ({found['Metadata'].get('OS')}); "
            "next: base it on a distribution that Trivy knows"
        )
    return found


def _trivy(look: Look, database: Path, *what: str) -> Said:
    return look.run(
        "trivy", *what, f"--cache-dir={database}", "--cache-backend=memory", "--config=",
        "--ignorefile=", "--scanners=vuln", "--format=json", "--list-all-pkgs", "--skip-db-update",
        "--skip-java-db-update", "--offline-scan", "--skip-version-check", "--disable-telemetry", "--no-progress",
    )  # fmt: skip


def _said(name: str, found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Rule, message and severity of each finding of an image."""
    results = found.get("Results", [])
    if not any(one.get("Packages") for one in results):
        yield (
            "nothing-recognised",
            f"{name}: nobody knows what is in it; keep the records of packages in images",
            "error",
        )
    if found["Metadata"].get("OS", {}).get("EOSL"):
        yield "end-of-life", f"{name}: nobody corrects its distribution any more; base it on a newer one", "error"
    for flaw in (flaw for one in results for flaw in one.get("Vulnerabilities") or []):
        fixed = flaw.get("FixedVersion") or "no version yet"
        about = f"{flaw['PkgName']} {flaw['InstalledVersion']}: {flaw.get('Title') or 'a known vulnerability'}"
        yield flaw["VulnerabilityID"], f"{name}: {about}; corrected in {fixed}", LEVELS.get(flaw["Severity"], "note")


def _prepare(root: Path) -> None:
    """The image with the package that the sample names, and a database."""
    package, _, version = (root / SAMPLE).read_text(encoding="utf-8").strip().partition("==")
    trivy_sample.write_image(root / "sample.tar", (package, version))
    trivy_sample.write_database(root / "trivy")


def _sample(package: tuple[str, str]) -> dict[str, str]:
    own = "checks: {image-scan: {images: [sample.tar], database: trivy, days: 100000}}\n"
    return {settings.NAME: own, SAMPLE: "==".join(package) + "\n"}


CHECK = Check(
    name=NAME,
    title="Known vulnerabilities of container images",
    inspect=inspect,
    files=(),
    selects=names_images,
    canary=Canary(
        trivy_sample.VULNERABILITY,
        bad=_sample(trivy_sample.VULNERABLE),
        good=_sample(trivy_sample.CORRECTED),
        prepare=_prepare,
    ),
    tool="trivy",
    of_repository=True,
    takes={"images": list, "artifacts": list, "database": str, "days": int},
    seconds=20,
)
