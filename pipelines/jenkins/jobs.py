"""Jobs as they are defined and as a server holds them: from YAML to XML, compared in canonical form, marked as ours."""

from __future__ import annotations

import copy
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # nosec B405 # see parse

import yaml

from sqa import tools
from testbed.errors import DeepError

HERE = Path(__file__).resolve().parent
DEFINITIONS = HERE / "jobs"
SETTINGS = HERE / "settings.yml"
REQUIREMENTS = HERE / "requirements"
# The last line of a job's description; without it a job is somebody else's.
MARKER = "Kept by deep-testbed ('deep jenkins sync'): what is changed here is changed back."
# What Jenkins Job Builder adds, whose own clean-up would take such a job for one of its own.
OF_JOB_BUILDER = "<!-- Managed by Jenkins Job Builder -->"
PIPELINE = "flow-definition"
# Nothing is asked of a server, and nothing remembered.
CONFIGURATION = "[job_builder]\nignore_cache=True\n[jenkins]\nurl=http://localhost\nquery_plugins_info=False\n"

Element = ElementTree.Element


def parse(text: str, what: str) -> Element:
    """The root of a job's XML; raises ``DeepError`` where it is none.

    Jenkins declares XML 1.1, which is no other for what it writes, and which Python's parser refuses. Declarations of
    entities, with which a small text can grow without end, are refused too.
    """
    text = re.sub(r"^\s*<\?xml.*?\?>", "", text, count=1)
    try:
        if "<!ENTITY" in text:
            raise ElementTree.ParseError("it declares entities")
        return ElementTree.fromstring(text)  # nosec B314 # no entities
    except ElementTree.ParseError as broken:
        raise DeepError(
            f"the configuration of {what} is no XML", found=str(broken), needed="a job's config.xml",
            next_step="look at the job on the server; where it is damaged, delete it there and run the command again",
        ) from broken  # fmt: skip


def text_of(root: Element) -> str:
    """A job as it is sent to a server."""
    return ElementTree.tostring(root, encoding="unicode")


def canonical(root: Element) -> str:
    """What has to be the same where two jobs are: C14N, without versions of plug-ins and layout, one element a line."""
    root = copy.deepcopy(root)
    for element in root.iter():
        element.attrib.pop("plugin", None)
        element.tail = None
        if len(element):
            element.text = None
    ElementTree.indent(root)
    return ElementTree.canonicalize(text_of(root))


def owned(root: Element) -> bool:
    """Whether a job is one of ours."""
    return (root.findtext("description") or "").rstrip().endswith(MARKER)


def disabled(root: Element) -> Element:
    """The same job, of which there are no more builds."""
    stopped = copy.deepcopy(root)
    switch = stopped.find("disabled")
    if switch is None:
        switch = ElementTree.SubElement(stopped, "disabled")
    switch.text = "true"
    return stopped


def with_added(wanted: Element, current: Element) -> Element:
    """``wanted``, and what Jenkins itself has added to the pipeline job ``current``.

    It writes into the job what the Jenkinsfile declares (options, parameters, triggers), each as a property, and that
    it did so. Taken away, those would be missing until the next build, and be taken away after each.
    """
    if wanted.tag != PIPELINE or current.tag != PIPELINE:
        return wanted
    merged = copy.deepcopy(wanted)
    for name in ("actions", "properties"):
        here = merged.find(name)
        if here is None:
            here = ElementTree.SubElement(merged, name)
        known = {one.tag for one in here}
        here.extend(copy.deepcopy(one) for one in current.iterfind(f"{name}/*") if one.tag not in known)
    return merged


def read_settings(file: Path) -> dict[str, Any]:
    """What a file of settings says; raises ``DeepError`` where it is none."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as wrong:
        raise DeepError(f"{file} is no YAML", found=str(wrong), next_step="correct it") from wrong
    if isinstance(found, dict):
        return found
    raise DeepError(
        f"{file} holds no settings", found=type(found).__name__, needed=f"settings as in {SETTINGS}",
        next_step="correct it",
    )  # fmt: skip


def expand(kind: str, settings: Mapping[str, Any]) -> dict[str, Element]:
    """The jobs of a kind (``pipelines``, ``freestyle``), by name, with a site's settings.

    Jenkins Job Builder makes them, in its own environment, and asks no server. Raises ``DeepError`` with what is wrong.
    """
    values = _complete(settings)
    builder = tools.tool("jenkins-job-builder", REQUIREMENTS)
    tools.install(builder)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "jobs.ini").write_text(CONFIGURATION, encoding="utf-8")
        defaults = [{"defaults": {"name": "global", **values}}]
        (place / "settings.yml").write_text(yaml.safe_dump(defaults), encoding="utf-8")
        done = subprocess.run(
            [
                builder.programs / "jenkins-jobs", "--conf", place / "jobs.ini", "test", "--config-xml", "-o",
                place / "out", f"{DEFINITIONS / kind}.yml:{place / 'settings.yml'}",
            ],
            env={"HOME": name, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        made = {file.parent.name: file.read_text(encoding="utf-8") for file in (place / "out").glob("*/config.xml")}
    if done.returncode or not made:
        raise DeepError(
            "the definitions of the jobs are wrong", found=(done.stderr.strip() or "no job")[-600:],
            needed=f"definitions of Jenkins Job Builder in {DEFINITIONS}", next_step="correct them",
        )  # fmt: skip
    return {name: marked(parse(xml, f"the definition {name}")) for name, xml in sorted(made.items())}


def _complete(settings: Mapping[str, Any]) -> dict[str, str]:
    """A site's settings with the defaults; raises ``DeepError`` where one is unknown, missing or no text."""
    defaults = read_settings(SETTINGS)
    values = {**defaults, **settings}
    unknown = ", ".join(sorted(settings.keys() - defaults.keys()))
    wrong = ", ".join(name for name, value in values.items() if not isinstance(value, str))
    if unknown or wrong or not values["repository"]:
        raise DeepError(
            "the settings of the jobs will not do",
            found=f"unknown: {unknown}" if unknown else f"no text: {wrong}" if wrong else "no repository",
            needed=f"text for {', '.join(defaults)}", next_step="give them in a file (--settings)",
        )  # fmt: skip
    return values


def marked(root: Element) -> Element:
    """A job with our last line in its description, and without that of Jenkins Job Builder."""
    description = root.find("description")
    if description is None:
        description = ElementTree.SubElement(root, "description")
    own = (description.text or "").replace(OF_JOB_BUILDER, "").strip()
    description.text = f"{own}\n\n{MARKER}".strip()
    return root
