"""Trivy: known vulnerabilities of what is in container images.

It ends with 0 also where its database knows nothing, where the data are years old, and where it recognises nothing in
an image. So the data have a day, the database has to know a package that is known to be vulnerable, and an image in
which nothing is recognised is a finding.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqa import settings, trivy_sample
from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.model import Finding
from sqa.options import Options, taken
from sqa.tree import Tree
from testbed.artifacts import api

NAME = "image-scan"
LEVELS = {"CRITICAL": "error", "HIGH": "error", "MEDIUM": "warning"}
# Packages of such a system are listed and not looked up.
UNKNOWN_SYSTEM = re.compile(r"not on the EOL list|Unsupported os")
DATABASE = Path(".cache/trivy")  # of whoever runs this
NEXT = "next: trivy image --download-db-only where there is a network, and name its folder (database in sqa.yml)"
SAMPLE = "sample.txt"


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
    packages = 0
    for name, path in archives:
        found = _scanned(look, path, folder)
        packages += sum(len(one.get("Packages", [])) for one in found.get("Results", []))
        findings += [look.finding("", None, *said) for said in _said(name, found)]
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
        yield from ((path.relative_to(root).as_posix(), path) for path in found)


def _in_store(names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for name in names:
        try:
            folder = api.mirror_dir() / name / api.version(name)
        except KeyError:
            raise InconclusiveError(f"no such artefact: {name}; next: correct artifacts in sqa.yml") from None
        found = sorted(folder.glob("*.tar"))
        if not found:
            raise InconclusiveError(f"{name} is not in the store; next: deep artifacts build {name}")
        yield from ((f"{name}/{path.name}", path) for path in found)


def _data_of(folder: Path, days: int) -> datetime.date:
    try:
        told = json.loads((folder / "db" / "metadata.json").read_text(encoding="utf-8"))
        day = datetime.datetime.fromisoformat(told["UpdatedAt"]).date()
    except FileNotFoundError:
        raise InconclusiveError(f"there are no data on vulnerabilities (Trivy's database); {NEXT}") from None
    except (OSError, ValueError, KeyError, TypeError) as broken:
        raise InconclusiveError(f"Trivy's database cannot be read: {type(broken).__name__}; {NEXT}") from broken
    if (datetime.datetime.now(datetime.UTC).date() - day).days > days:
        raise InconclusiveError(
            f"the data on vulnerabilities are old (found: {day}, needed: at most {days} days); {NEXT}"
        )
    return day


def _require_knowledge(look: Look, folder: Path) -> None:
    probe = look.scratch / f"{look.root.name}.tar"
    trivy_sample.write_image(probe, trivy_sample.VULNERABLE)
    try:
        found = _scanned(look, probe, folder)
    finally:
        probe.unlink()
    if not any(one.get("Vulnerabilities") for one in found.get("Results", [])):
        raise InconclusiveError(
            f"the database knows no vulnerability of {'=='.join(trivy_sample.VULNERABLE)}, which has some; {NEXT}"
        )


def _scanned(look: Look, image: Path, database: Path) -> dict[str, Any]:
    said = look.run(
        "trivy", "image", f"--input={image}", f"--cache-dir={database}", "--cache-backend=memory", "--config=",
        "--ignorefile=", "--scanners=vuln", "--format=json", "--list-all-pkgs", "--skip-db-update",
        "--skip-java-db-update", "--offline-scan", "--skip-version-check", "--disable-telemetry", "--no-progress",
    )  # fmt: skip
    found: dict[str, Any] = said.json()
    if UNKNOWN_SYSTEM.search(said.stderr):
        raise InconclusiveError(
            f"{image.name}: of its system there are no data on vulnerabilities ({found['Metadata'].get('OS')}); "
            "next: base it on a distribution that Trivy knows"
        )
    return found


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
