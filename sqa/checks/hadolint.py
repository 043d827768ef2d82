"""hadolint: mistakes in Dockerfiles and in the shell commands in them."""

from __future__ import annotations

from sqa.check import Canary, Check, InconclusiveError, Look, Report

LEVELS = {"error": "error", "warning": "warning", "info": "note", "style": "note"}


def inspect(look: Look) -> Report:
    """Examine the files; one that cannot be parsed is a finding, one that cannot be read changes the status."""
    said = look.run("hadolint", "--no-fail", "--format=json", "--", *look.files)
    if said.stderr:  # it goes on without a configuration that it cannot read, and ends with 0
        raise InconclusiveError(f"hadolint said: {' '.join(said.stderr.replace(f'{look.root}/', '').split())[:600]}")
    return Report(
        [
            look.finding(one["file"], one["line"], one["code"], one["message"], LEVELS[one["level"]])
            for one in said.json()
        ],
        look.files,
    )


CHECK = Check(
    name="hadolint",
    title="Mistakes in Dockerfiles",
    inspect=inspect,
    files=("Dockerfile*", "*.Dockerfile", "*.dockerfile", "Containerfile*"),
    canary=Canary(
        "DL3006",
        bad={"Dockerfile": "FROM debian\n"},
        good={"Dockerfile": "FROM debian:12\n"},
    ),
    tool="hadolint",
    configuration=("/.hadolint.yaml", "/.hadolint.yml"),
    scope="file",
    takes={},
    seconds=1,
)
