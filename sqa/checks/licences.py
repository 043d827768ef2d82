"""Licences: of the software itself, by its text and by what its metadata say, and of the packages it depends on.

Judged criterion by criterion; each finding's rule is the criterion. Where a repository follows REUSE, every file of it
is looked at. Dependencies are those that the environment of the setting ``python`` holds.
"""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sqa import interpreter, spdx
from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.model import Finding
from sqa.tree import Tree

OPEN, APPROVED, POPULAR, PAGES = "QC.Lic01", "QC.Lic02", "QC.Lic02.1", "SvcQC.Doc06"
TEXTS = ("/LICENSE*", "/LICENCE*", "/COPYING*")
PAGE_TEXTS = ("/docs/LICENSE*", "/docs/LICENCE*", "/doc/LICENSE*")
METADATA = ("/pyproject.toml", "/galaxy.yml", "/CITATION.cff", "/package.json")
REUSE = ("/REUSE.toml", "/LICENSES/*")
OF_PAGES = re.compile(
    r"creative commons (?:legal code|attribution)|gnu free documentation license|\bcc-by", re.IGNORECASE
)
# Those that the Open Source Initiative lists as popular, without what says which versions may follow.
COMMON = (
    "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CDDL-1.0", "EPL-2.0", "GPL-2.0", "GPL-3.0", "LGPL-2.1", "LGPL-3.0",
    "MIT", "MPL-2.0",
)  # fmt: skip
SUFFIX = re.compile(r"-(?:only|or-later)$")
DENIED = ("UNKNOWN", "*[Pp]roprietary*", "*[Cc]ommercial*", "SSPL-*", "BUSL-*", "*-NC-*")
NOTHING = {"UNKNOWN", "", "DFSG approved", "OSI Approved"}


def inspect(look: Look) -> Report:
    """Judge the licence of the software, and the licences of what it is put together with."""
    texts = look.tree.matching(TEXTS)
    recognised = {name: spdx.recognise(look.text(name)) for name in texts if name in look.files}
    declared = dict(_declared(look))
    findings = list(_of_software(look, recognised, declared))
    rules = {OPEN, APPROVED, POPULAR}
    examined = set(recognised) | set(declared) | {name for name in look.files if name in look.tree.matching(METADATA)}
    if _follows_reuse(look.tree):
        unmarked, seen = _reuse(look)
        findings += unmarked
        examined |= seen
    pages = [name for name in look.tree.matching(PAGE_TEXTS) if name in look.files]
    if pages:  # without a declaration nobody knows: it is left to what people attest
        rules.add(PAGES)
        examined |= set(pages)
        if not any(OF_PAGES.search(look.text(name)) for name in pages):
            findings.append(look.finding(pages[0], 0, PAGES, "It is not a licence for documents"))
    packages = _packages(look)
    findings += _of_packages(look, packages)
    work: dict[str, str | int] = {"packages": len(packages)} if look.settings.get("python") else {}
    return Report(findings, examined, work, rules)


def _of_software(look: Look, recognised: Mapping[str, str], declared: Mapping[str, str]) -> Iterator[Finding]:
    name, found = next(iter(recognised.items()), ("", ""))
    if not name:
        yield look.finding("", 0, OPEN, "There is no licence text at the root; add the file LICENSE")
    elif not found:
        yield look.finding(name, 0, OPEN, "Its text is none of a known licence, or not the whole of it")
    if not declared:
        yield look.finding(name, 0, OPEN, "No metadata of the package names the licence; declare it")
    for path, stated in declared.items():
        if found and SUFFIX.sub("", stated) != found:
            yield look.finding(path, 0, OPEN, f"It says {stated}, but {name} is the text of {found}")
    identifier = found or next(iter(declared.values()), None)
    if identifier is None or not _approved(look, identifier):
        why = f"{identifier or 'It'} is no licence that the Open Source Initiative has approved"
        yield look.finding(name, 0, APPROVED, why)
    if identifier is None or SUFFIX.sub("", identifier) not in COMMON:
        yield look.finding(name, 0, POPULAR, f"{identifier or 'It'} is not among the widely used licences")


def _declared(look: Look) -> Iterator[tuple[str, str]]:
    """File of metadata to the licence that it states."""
    for path in look.files:
        try:
            stated = _stated(path, look.text(path))
        except (ValueError, yaml.YAMLError) as broken:
            raise InconclusiveError(f"{path}: {str(broken).splitlines()[0]}; correct it") from None
        if stated:
            yield path, stated


def _stated(path: str, text: str) -> str | None:
    held: Any = None
    if path == "pyproject.toml":
        held = tomllib.loads(text).get("project", {}).get("license")
        held = held.get("text") if isinstance(held, dict) else held
    elif path in ("galaxy.yml", "CITATION.cff"):
        data = yaml.safe_load(text)
        held = data.get("license") if isinstance(data, dict) else None
    elif path == "package.json":
        held = json.loads(text).get("license")
    held = held[0] if isinstance(held, list) and held else held
    return held if isinstance(held, str) else None


def _approved(look: Look, identifier: str) -> bool:
    """Whether the Open Source Initiative has approved it, by the list of SPDX that comes with reuse."""
    root = (look.programs or Path()).parent
    known = next(root.glob("lib/python3*/site-packages/reuse/resources/licenses.json"), None)
    if known is None:
        raise InconclusiveError("the list of SPDX is not in the tool's environment; next: deep sqa tools --install")
    approved = {one["licenseId"] for one in json.loads(known.read_text("utf-8"))["licenses"] if one["isOsiApproved"]}
    return identifier in approved or f"{identifier}-only" in approved


def _follows_reuse(tree: Tree) -> bool:
    return bool(tree.matching(REUSE))


def _reuse(look: Look) -> tuple[list[Finding], set[str]]:
    """What keeps the tree from following REUSE, and the files that reuse has read."""
    said = look.run("reuse", "--no-multiprocessing", "--root", ".", "lint", "--json", statuses=(0, 1)).json()
    wrong: list[Finding] = []
    for kind, named in sorted(said["non_compliant"].items()):
        for one in sorted(named):
            name = one if one in look.files else ""
            wrong.append(look.finding(name, 0, OPEN, f"REUSE: {kind.replace('_', ' ')}" + ("" if name else f": {one}")))
    return wrong, {one["path"] for one in said["files"]}


def _packages(look: Look) -> list[dict[str, str]]:
    python = interpreter.program(look.tree.root, look.settings)
    if python is None:
        return []
    said = look.run("pip-licenses", f"--python={python}", "--from=all", "--format=json", "--order=name").json()
    if not said:
        raise InconclusiveError(f"{look.settings['python']} has no packages, so no licence was looked at")
    found: list[dict[str, str]] = said
    return found


def _of_packages(look: Look, packages: list[dict[str, str]]) -> Iterator[Finding]:
    """Packages under a licence that is denied, or that is not allowed; without a path, as no file holds them."""
    known, allowed = look.settings.get("known", {}), look.settings.get("allowed", [])
    denied = look.settings.get("denied", DENIED)
    for one in packages:
        sources = (
            one["License-Expression"],
            one["License-Classifier"],
            one["License-Metadata"].partition("\n")[0][:60],
        )
        licence = known.get(one["Name"]) or next((text for text in sources if text not in NOTHING), "UNKNOWN")
        if _matches(licence, denied) or (allowed and not _matches(licence, allowed)):
            yield look.finding("", 0, OPEN, f"{one['Name']} {one['Version']} is under {licence}, which is not allowed")


def _matches(licence: str, patterns: Any) -> bool:
    return any(fnmatch.fnmatchcase(licence, str(pattern)) for pattern in patterns)


def _selects(tree: Tree, _name: str) -> bool:
    return _follows_reuse(tree)


# It follows REUSE, so that both readers have something to find.
MARKS = "# SPDX-" + "FileCopyrightText: the sample maintainers\n# SPDX-" + "License-Identifier: MIT\n"
PROJECT = MARKS + '[project]\nname = "sample"\nlicense = "{}"\n'
SAMPLE = {"LICENSE": spdx.MIT, "LICENSES/MIT.txt": spdx.MIT}
CHECK = Check(
    name="licences",
    title="Licences of the software and of what it depends on",
    inspect=inspect,
    files=(*TEXTS, *PAGE_TEXTS, *METADATA),
    canary=Canary(
        OPEN,
        bad={**SAMPLE, "pyproject.toml": PROJECT.format("Apache-2.0"), "code.py": "COUNT = 1\n"},
        good={**SAMPLE, "pyproject.toml": PROJECT.format("MIT"), "code.py": f"{MARKS}COUNT = 1\n"},
        says=("It says Apache-2.0, but LICENSE is the text of MIT", "REUSE: missing licensing info"),
    ),
    tool="licences",
    selects=_selects,
    environment=interpreter.installed,
    takes={**interpreter.TAKES, "allowed": list, "denied": list, "known": dict},
    seconds=5,
)
