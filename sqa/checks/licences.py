"""Licences: of the software itself, by its text and by what its metadata say, and of the packages it depends on.

Judged criterion by criterion; each finding's rule is the criterion. Where a repository follows REUSE, every file of it
is looked at. Dependencies are those that the environment of the setting ``python`` holds.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.model import Finding
from sqa.tree import Tree

OPEN, APPROVED, POPULAR, PAGES = "QC.Lic01", "QC.Lic02", "QC.Lic02.1", "SvcQC.Doc06"
TEXTS = ("/LICENSE*", "/LICENCE*", "/COPYING*")
PAGE_TEXTS = ("/docs/LICENSE*", "/docs/LICENCE*", "/doc/LICENSE*")
METADATA = ("/pyproject.toml", "/galaxy.yml", "/CITATION.cff", "/package.json")
REUSE = ("/REUSE.toml", "/LICENSES/*")
# By SPDX identifier: passages of the text, the last ones near its end, so that a part of it is not taken for it.
PASSAGES = {
    "Apache-2.0": ("apache license version 2.0, january 2004", "end of terms and conditions"),
    "MIT": ("permission is hereby granted, free of charge, to any person", 'the software is provided "as is"'),
    "BSD-3-Clause": ("redistributions in binary form", "neither the name of", "possibility of such damage"),
    "BSD-2-Clause": ("redistributions in binary form", "possibility of such damage"),
    "ISC": ("permission to use, copy, modify, and/or distribute this software", "the author disclaims all warranties"),
    "MPL-2.0": ("mozilla public license version 2.0", "incompatible with secondary licenses"),
    "EPL-2.0": ("eclipse public license - v 2.0", "secondary licenses"),
    "EUPL-1.2": ("european union public licence v. 1.2", "appendix"),
    "AGPL-3.0": ("gnu affero general public license version 3", "end of terms and conditions"),
    "LGPL-3.0": ("gnu lesser general public license version 3", "permanent authorization for you to choose"),
    "LGPL-2.1": ("gnu lesser general public license version 2.1", "end of terms and conditions"),
    "GPL-3.0": ("gnu general public license version 3", "end of terms and conditions"),
    "GPL-2.0": ("gnu general public license version 2", "end of terms and conditions"),
}
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
    recognised = {name: recognise(look.text(name)) for name in texts if name in look.files}
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


def recognise(text: str) -> str | None:
    """The SPDX identifier of the licence whose text this is; nothing where it is no known one, or not whole."""
    words = " ".join(re.sub(r"[^\w\s\"',.\-]", " ", text.replace("\u201c", '"').replace("\u201d", '"')).lower().split())
    return next((name for name, parts in PASSAGES.items() if all(part in words for part in parts)), None)


def _of_software(look: Look, recognised: Mapping[str, str | None], declared: Mapping[str, str]) -> Iterator[Finding]:
    name, found = next(iter(recognised.items()), ("", None))
    if not name:
        yield look.finding("", 0, OPEN, "There is no licence text at the root; add the file LICENSE")
    elif found is None:
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
    named = look.settings.get("python")
    if not named:
        return []
    python = look.tree.root / named
    if not python.is_file():
        raise InconclusiveError(f"sqa.yml: checks.licences.python: {named} is not there; make the environment")
    said = look.run("pip-licenses", f"--python={python}", "--from=all", "--format=json", "--order=name").json()
    if not said:
        raise InconclusiveError(f"{named} has no packages, so no licence was looked at")
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


def _environment(tree: Tree, settings: Mapping[str, Any]) -> str:
    """The packages that the environment holds."""
    named = settings.get("python")
    if not named:
        return ""
    folders = sorted((tree.root / named).parent.parent.glob("lib/python3*/site-packages"))
    return "\n".join(sorted(name for folder in folders for name in os.listdir(folder) if name.endswith("-info")))  # noqa: PTH208 # quick


def _selects(tree: Tree, _name: str) -> bool:
    return _follows_reuse(tree)


CHECK = Check(
    name="licences",
    title="Licences of the software and of what it depends on",
    inspect=inspect,
    files=(*TEXTS, *PAGE_TEXTS, *METADATA),
    canary=Canary(
        OPEN,
        bad={"LICENSE": "All rights reserved.\n", "pyproject.toml": '[project]\nname = "x"\n'},
        good={
            "LICENSE": "Permission is hereby granted, free of charge, to any person\n"
            'THE SOFTWARE IS PROVIDED "AS IS"\n',
            "pyproject.toml": '[project]\nname = "x"\nlicense = "MIT"\n',
        },
    ),
    tool="licences",
    selects=_selects,
    environment=_environment,
    takes={"python": str, "allowed": list, "denied": list, "known": dict},
    seconds=5,
)
