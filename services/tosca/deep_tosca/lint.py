"""What a template of ours has to keep to, beyond being valid."""

from __future__ import annotations

import re
from typing import Any

from deep_tosca.reading import TemplateError
from deep_tosca.template import Template, read

SECRET = re.compile(
    r"password|passwd|passphrase|secret|token|credential|private|api_?key|access_?key|(?:^|_)(?:pw|key)(?:$|_)"
)
# The name of a secret that the site keeps is none.
NAME_OF_A_SECRET = re.compile(r".*_secret_name")


def lint(text: str | bytes) -> list[str]:
    """What is wrong with a template; empty where nothing is."""
    try:
        template = read(text)
    except TemplateError as error:
        return [str(error)]
    found = [] if template.data.get("description") else ["no description of the template. Next: say what it deploys"]
    for name, definition in template.inputs.items():
        found += _input(name, definition)
    for name, definition in template.outputs.items():
        found += _output(name, definition)
    return found + _unused(template)


def _input(name: str, definition: dict[str, Any]) -> list[str]:
    found = []
    if not definition.get("description"):
        found.append(f"input {name}: no description. Next: say what it is for")
    if "default" not in definition and not definition.get("constraints") and definition["type"] != "boolean":
        found.append(f"input {name}: anything goes (needed a default or a constraint)")
    if SECRET.search(name.lower()) and not NAME_OF_A_SECRET.fullmatch(name):
        found.append(
            f"input {name}: looks like a secret (needed the name of one that the site keeps: an input *_secret_name)"
        )
    return found


def _output(name: str, definition: Any) -> list[str]:
    """Addresses are asked of the site, which knows whether TLS is on, or begin with https."""
    found = [] if definition.get("description") else [f"output {name}: no description. Next: say what it is"]
    if "http://" in str(definition.get("value")):
        found.append(f"output {name}: an address without TLS (needed https, or the attribute endpoints)")
    return found


def _unused(template: Template) -> list[str]:
    """Inputs that change nothing."""
    used = str(template.nodes) + str(template.outputs)
    return [f"input {name}: is not used" for name in template.inputs if f"{{'get_input': '{name}'}}" not in used]
