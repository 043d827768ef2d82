"""A bill of materials can be made of every requirement file, and names each package in the version that is pinned."""

from __future__ import annotations

from sqa import requirements, sbom
from sqa.check import Canary, Check, InconclusiveError, Look, Report


def inspect(look: Look) -> Report:
    """Make one bill of all files together, and look for each of their pins in it."""
    wanted = [one for name in look.files for one in requirements.read(look.root, name)]
    findings = [
        look.finding(one.path, one.line, "not-pinned", f"{one.name}: no version to list; pin it with ==")
        for one in wanted
        if not one.version
    ]
    pins = {(one.name, one.version): one for one in wanted if one.version}
    if pins:
        merged = look.scratch / f"{look.root.name}.txt"
        merged.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins)), encoding="utf-8")
        try:
            said = look.run(sbom.PROGRAM, *sbom.ARGUMENTS, str(merged))
            listed = sbom.components(said.stdout)
        except ValueError as broken:
            raise InconclusiveError(f"no bill of materials came back: {broken}") from None
        finally:
            merged.unlink()
        findings += [
            look.finding(one.path, one.line, "not-listed", f"{one.pin} is not in the bill of materials")
            for pin, one in sorted(pins.items())
            if pin not in listed
        ]
    return Report(findings, look.files, {"format": "CycloneDX 1.6"})


CHECK = Check(
    name="sbom",
    title="A bill of materials of what is installed",
    inspect=inspect,
    files=requirements.FILES,
    canary=Canary(
        "not-listed",  # the tool passes over a version that is none, so that its bill lacks what is pinned
        bad={"requirements.txt": "requests==2.32.0\nsample===not.a.version\n"},
        good={"requirements.txt": "requests==2.32.0\nSix == 1.16.0 ; python_version > '3'\n"},
    ),
    tool=sbom.TOOL,
    scope="file",
    takes={},
    seconds=8,
)
