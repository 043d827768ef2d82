"""Generate roles/*/README.md and docs/reference/roles.md from the argument specifications of the roles."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.generated import ROOT, command, mark, table

TOOL = "tools/role_docs.py"
ENTRY_POINTS = {
    "main": "Checks, then installs, configures and starts.",
    "precheck": "Checks only; changes nothing.",
}

MANDATORY = re.compile(r"\{\{\s*(\w+)\s*\|\s*mandatory\b")

Spec = dict[str, Any]


def text_of(value: Any) -> str:
    """A description of the specification as one string; Ansible allows a list of paragraphs."""
    return " ".join(value) if isinstance(value, list) else str(value or "")


def literal(value: Any) -> str:
    """A value as it would be written in YAML, as inline code; empty for no value."""
    if value is None:
        return ""
    shown = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    return f"`{shown}`" if "`" not in shown else f"`` {shown} ``"


def default_of(name: str, option: Spec, defaults: Spec) -> str:
    """What a variable is when nobody sets it: its default, or that it (or its site variable) has to be set."""
    if name not in defaults:
        return "**required**" if option.get("required") else literal(option.get("default"))
    behind = MANDATORY.match(str(defaults[name]))
    return f"site variable `{behind.group(1)}`, **required**" if behind else literal(defaults[name])


def option_rows(options: Spec, defaults: Spec, prefix: str = "") -> Iterator[list[str]]:
    """Rows (name, type, default, description) of the options and, indented by their path, of their suboptions."""
    for name, option in options.items():
        kind = option.get("type", "str")
        if kind == "list" and option.get("elements"):
            kind = f"list of {option['elements']}"
        default = default_of(name, option, defaults)
        choices = option.get("choices")
        note = f" One of {', '.join(literal(choice) for choice in choices)}." if choices else ""
        yield [f"`{prefix}{name}`", kind, default, text_of(option.get("description")) + note]
        yield from option_rows(option.get("options", {}), {}, f"{prefix}{name}.")


def load(path: Path) -> Spec:
    """The mapping in a YAML file; empty when there is no such file."""
    if not path.is_file():
        return {}
    found: Spec = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return found


def specs(role: Path) -> Spec:
    """The entry points of a role: name to specification."""
    found: Spec = load(role / "meta" / "argument_specs.yml").get("argument_specs", {})
    return found


def role_page(role: Path) -> str:
    """The README of one role."""
    entries = specs(role)
    main = entries.get("main", {})
    meta = load(role / "meta" / "main.yml").get("galaxy_info", {})
    lines = [mark(TOOL, "meta/argument_specs.yml"), f"# deephdc.testbed.{role.name}", ""]
    lines += [text_of(main.get("short_description")), ""]
    description = main.get("description")
    paragraphs = description if isinstance(description, list) else [description]
    for paragraph in paragraphs:
        if paragraph:
            lines += [str(paragraph).strip(), ""]
    lines += ["## Entry points", ""]
    lines += [
        f"- `{name}`: {ENTRY_POINTS.get(name) or text_of(spec.get('short_description'))}"
        for name, spec in entries.items()
    ]
    lines += ["", "## Variables", ""]
    rows = list(option_rows(main.get("options", {}), load(role / "defaults" / "main.yml")))
    lines += table(["Variable", "Type", "Default", "Meaning"], rows) if rows else ["None."]
    lines += ["", "## Platforms", ""]
    for platform in meta.get("platforms", []):
        versions = ", ".join(str(version) for version in platform.get("versions", ["all"]))
        lines.append(f"- {platform['name']}: {versions}")
    lines += ["", f"Needs ansible-core {meta.get('min_ansible_version', 'of the collection')} or newer."]
    return "\n".join(lines) + "\n"


def index_page(roles: list[Path]) -> str:
    """The list of all roles with what each one is for and how many variables it takes."""
    rows = []
    for role in roles:
        main = specs(role).get("main", {})
        link = f"[{role.name}](../../roles/{role.name}/README.md)"
        rows.append([link, text_of(main.get("short_description")), str(len(main.get("options", {})))])
    head = [mark(TOOL, "roles/*/meta/argument_specs.yml"), "# Roles", ""]
    return "\n".join([*head, *table(["Role", "What it does", "Variables"], rows)]) + "\n"


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Every generated page of the roles below ``root``, by path."""
    roles = sorted(path.parent.parent for path in root.glob("roles/*/meta/argument_specs.yml"))
    if not roles:
        return {}
    return {role / "README.md": role_page(role) for role in roles} | {
        root / "docs/reference/roles.md": index_page(roles)
    }


if __name__ == "__main__":
    sys.exit(command(__doc__ or "", pages))
