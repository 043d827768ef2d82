"""Generate docs/reference/licences.md: under which licence everything comes that the project installs or deploys."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.generated import ROOT, command, mark, table

TOOL = "tools/licences.py"
PAGE = ROOT / "docs/reference/licences.md"
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)", re.MULTILINE)
CLASSIFIER = "License :: OSI Approved :: "
UNKNOWN = "not stated in the package's metadata"
# A licence field that is longer than this is the text of a licence, not its name.
NAME_LENGTH = 60


def pinned(requirements: list[Path]) -> dict[str, str]:
    """Name and version of every package that the requirement files pin."""
    found: dict[str, str] = {}
    for path in requirements:
        found.update(PINNED.findall(path.read_text(encoding="utf-8")))
    return found


def licence_of(package: PackageMetadata) -> str:
    """The licence that a package states: as an expression, else as a classifier, else in words."""
    expression = package.get("License-Expression")
    if expression:
        return str(expression)
    approved = [str(line).removeprefix(CLASSIFIER) for line in package.get_all("Classifier", []) if CLASSIFIER in line]
    if approved:
        return ", ".join(sorted(set(approved)))
    words = str(package.get("License") or "").strip()
    if not words:
        return UNKNOWN
    return words if len(words) <= NAME_LENGTH else words.splitlines()[0].strip()[:NAME_LENGTH]


def python_rows(requirements: list[Path]) -> list[list[str]]:
    """Rows (package, version, licence); raises ``LookupError`` when a pinned package is not installed as pinned."""
    rows = []
    for name, version in sorted(pinned(requirements).items()):
        try:
            package = metadata(name)
        except PackageNotFoundError:
            raise LookupError(_absent(name, version, "not installed")) from None
        if package["Version"] != version:
            raise LookupError(_absent(name, version, str(package["Version"])))
        rows.append([name, version, licence_of(package)])
    return rows


def _absent(name: str, version: str, found: str) -> str:
    return f"{name} (found: {found}; needed: {version})\nnext: run `make install`"


def hosts_rows(lists: list[Path]) -> list[list[str]]:
    """Rows (package, version, licence, artefacts) of what tools/lock_python.py has written down beside the pins."""
    found: dict[tuple[str, ...], list[str]] = {}
    for path in lists:
        for line in path.read_text(encoding="utf-8").splitlines():
            package, _, licence = line.partition(" ")
            found.setdefault((*package.split("=="), licence), []).append(path.parent.name)
    return [[*map(_linked, package), ", ".join(artefacts)] for package, artefacts in sorted(found.items())]


def _linked(text: str) -> str:
    """Addresses in a text as links of Markdown."""
    return re.sub(r"https?://[^\s,|]+", r"<\g<0>>", text)


def artefact_rows(declarations: list[Path]) -> list[list[str]]:
    """Rows (artefact, version, licence, what it is) of the declarations."""
    rows = []
    for path in declarations:
        declared: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = f"[{declared['name']}]({declared['homepage']})" if declared.get("homepage") else str(declared["name"])
        rows.append([name, str(declared["version"]), str(declared["licence"]), str(declared.get("summary", ""))])
    return rows


def tool_rows(lists: list[Path]) -> list[list[str]]:
    """Rows (tool, version, licence) of tools with environments of their own; the licence is the list's first line."""
    rows = []
    for path in lists:
        licence, *packages = path.read_text(encoding="utf-8").splitlines()
        versions = pinned([path.with_suffix(".txt")])
        names = [re.split(r"[\[><=]", package)[0] for package in packages]
        rows.append([", ".join(names), ", ".join(versions[name] for name in names), licence.removeprefix("# ")])
    return rows


def pages(root: Path = ROOT) -> dict[Path, str]:
    """The page for the requirement files and declarations below ``root``, by path."""
    requirements = sorted(root.glob("requirements/*.txt"))
    declarations = sorted(root.glob("artifacts/*.yml"))
    if not requirements or not declarations:
        return {}
    lines = [
        mark(
            TOOL,
            "requirements/*.txt, artifacts/*.yml, artifacts/python/*/licences.txt, sqa/tools/*.in, pipelines/",
        ),
        "# Licences",
        "",
        "The project itself is under the [Apache License 2.0](../../LICENSE).",
        "",
        "## Artefacts that are deployed",
        "",
        *table(["Artefact", "Version", "Licence", "What it is"], artefact_rows(declarations)),
        "",
        "## Python packages in artefacts",
        "",
        "As each package states it in its own metadata.",
        "",
        *table(
            ["Package", "Version", "Licence", "Requirements"],
            hosts_rows(sorted(root.glob("artifacts/python/*/licences.txt"))),
        ),
        "",
        "## Tools of the quality gate and of the pipelines",
        "",
        "Each in an environment of its own on the machine that runs it; none is delivered or deployed.",
        "",
        *table(
            ["Tool", "Version", "Licence"],
            tool_rows(sorted([*root.glob("sqa/tools/*.in"), *root.glob("pipelines/*/requirements/*.in")])),
        ),
        "",
        "## Python packages that are installed",
        "",
        "As each package states it in its own metadata. No site needs those for tests.",
        "",
        *table(["Package", "Version", "Licence"], python_rows(requirements)),
    ]
    return {PAGE: "\n".join(lines) + "\n"}


if __name__ == "__main__":
    sys.exit(command(__doc__ or "", pages))
