"""A template read, checked, asked what it needs, and made into what the Infrastructure Manager takes.

Templates come from strangers. They consist of node templates of the types in ``types.yaml`` and nothing else: no import
is followed, no type is defined, no file is fetched and no script is run.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field
from toscaparser.common.exception import ValidationError
from toscaparser.tosca_template import ToscaTemplate

from deep_tosca.inputs import SIZES, check_definition, scalar, short, values
from deep_tosca.reading import TemplateError, read_yaml

VERSIONS = ("tosca_simple_yaml_1_0", "tosca_simple_yaml_1_2", "tosca_simple_yaml_1_3")
SECTIONS = {"tosca_definitions_version", "description", "metadata", "imports", "topology_template"}
TOPOLOGY = {"description", "inputs", "node_templates", "outputs"}
NODE = {"type", "description", "properties", "requirements", "artifacts", "capabilities"}
TYPES = "types.yaml"
APPLICATION = "tosca.nodes.Container.Application.Docker"
RUNTIME = "tosca.nodes.Container.Runtime.Docker"
JOBS = ("deep.nodes.Job.Slurm", "deep.nodes.Job.Mesos")
NODE_TYPES = (APPLICATION, RUNTIME, *JOBS, "tosca.nodes.BlockStorage")
IMAGE_TYPE = "tosca.artifacts.Deployment.Image.Container.Docker"
# Also the beginning of a name in Kubernetes, to which the Infrastructure Manager adds nine characters.
NODE_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
IMAGE = re.compile(r"[a-z0-9][a-z0-9.-]*(?::[0-9]{1,5})?(?:/[a-z0-9._-]+)*(?::[\w.-]{1,128})?(?:@sha256:[0-9a-f]{64})?")
# The Infrastructure Manager puts its caller's token, or a password, in the place of these.
MAGIC = re.compile(r"access_token\(\)|random\(\d+\)")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What the parser finds, among where in its code it found it.
PROBLEM = re.compile(r"[A-Z]\w+: ")
# The parser keeps its errors in one place for all threads.
PARSER = threading.Lock()
logging.getLogger("tosca").setLevel(logging.ERROR)


class Needs(BaseModel):
    """What a template asks of a site."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: int = Field(ge=0)
    gpu_model: str | None
    cpus: float = Field(gt=0)
    memory_mib: int = Field(gt=0)
    image: str


@dataclass(frozen=True)
class Template:
    """A template that was checked; ``data``: as it was read, which nobody changes."""

    data: Mapping[str, Any]

    @property
    def inputs(self) -> dict[str, Any]:
        """Definition of every input by its name."""
        return dict(self.data["topology_template"].get("inputs") or {})

    @property
    def outputs(self) -> dict[str, Any]:
        """Definition of every output by its name."""
        return dict(self.data["topology_template"].get("outputs") or {})

    @property
    def nodes(self) -> dict[str, Any]:
        """Node templates by their names."""
        return dict(self.data["topology_template"]["node_templates"])

    @property
    def workload(self) -> str:
        """Name of what runs, of which there is one: an application or a job."""
        return next(name for name, node in self.nodes.items() if node["type"] in {APPLICATION, *JOBS})


def read(text: str | bytes) -> Template:
    """The template of a text; raises TemplateError, within a second whatever the text is."""
    data = read_yaml(text)
    _check_sections(data)
    topology = data["topology_template"]
    for name, definition in (topology.get("inputs") or {}).items():
        check_definition(name, definition)
    for name, node in topology["node_templates"].items():
        _check_node(name, node)
    _check_magic(data)
    _check_workload(topology["node_templates"])
    _parse({key: value for key, value in data.items() if key != "imports"})
    return Template(data)


def needs(template: Template, parameters: Mapping[str, Any]) -> Needs:
    """What a template asks for with these values of its inputs; raises TemplateError where one is wrong."""
    return _needs(_filled(template, parameters), template.workload)


def published(template: Template) -> set[str]:
    """Names of the inputs that say where the first port of a container is published: others get no name."""
    ports = [port for node in template.nodes.values() for port in _ports(node)[:1]]
    endpoints = [port.get("endpoint") for port in ports if isinstance(port, dict)]
    names = [value["get_input"] for value in endpoints if isinstance(value, dict) and set(value) == {"get_input"}]
    return {name for name in names if isinstance(name, str)}


def _ports(node: Mapping[str, Any]) -> list[Any]:
    """What a node publishes, as the template says it."""
    found = _mapping(_mapping(_mapping(node, "capabilities"), "host"), "properties").get("publish_ports")
    return found if isinstance(found, list) else []


def render(template: Template, parameters: Mapping[str, Any], name: str, infrastructure: str) -> str:
    """The template as the Infrastructure Manager takes it: values in place of the inputs, no import, our types within.

    ``name``: of the deployment, which its container knows; ``infrastructure``: by which what is made is found again.
    Raises TemplateError, also for what the Infrastructure Manager cannot deploy or cannot carry.
    """
    data = _filled(template, parameters)
    node = data["topology_template"]["node_templates"][template.workload]
    if node["type"] != APPLICATION:
        raise TemplateError(
            f"the Infrastructure Manager deploys containers only (found {node['type']}, needed {APPLICATION})."
            " Next: choose a site with a batch system"
        )
    properties = _mapping(node, "properties")
    node["properties"] = {**properties, "environment": _environment(_mapping(properties, "environment"), name)}
    for word in properties.get("command") or []:
        _check_carried("command", word)
    data["metadata"] = {**_mapping(data, "metadata"), "infra_name": infrastructure}
    return yaml.safe_dump({**data, **_types()}, sort_keys=False, allow_unicode=True)


@functools.cache
def _types() -> dict[str, Any]:
    """Sections of types that are not in the simple profile."""
    text = resources.files("deep_tosca").joinpath(TYPES).read_text(encoding="utf-8")
    return {key: value for key, value in yaml.safe_load(text).items() if key.endswith("_types")}


def _check_sections(data: Any) -> None:
    """Only what is known, and the few things that have to be there."""
    if not isinstance(data, dict):
        raise TemplateError(f"no template (found {short(data)}, needed a mapping with tosca_definitions_version)")
    version = data.get("tosca_definitions_version")
    if version not in VERSIONS:
        raise TemplateError(f"tosca_definitions_version (found {short(version)}, needed one of: {', '.join(VERSIONS)})")
    _check_names("the template", data, SECTIONS)
    imports = data.get("imports") or []
    files = imports if isinstance(imports, list) else [None]
    if any(file != TYPES for one in files for file in (one.values() if isinstance(one, dict) else [one])):
        raise TemplateError(
            f"imports are never fetched (found {short(imports)}, needed [{TYPES}] or none). Next: use those types"
        )
    topology = data.get("topology_template")
    if not isinstance(topology, dict):
        raise TemplateError(f"topology_template (found {short(topology)}, needed a mapping)")
    _check_names("topology_template", topology, TOPOLOGY)
    _mapping(data, "metadata")
    for name, output in _mapping(topology, "outputs").items():
        if not isinstance(output, dict):
            raise TemplateError(f"output {short(name)} (found {short(output)}, needed a mapping with value)")
    _mapping(topology, "inputs")
    if not _mapping(topology, "node_templates"):
        raise TemplateError("node_templates (found none, needed an application or a job)")


def _check_names(where: str, there: Mapping[Any, Any], known: set[str]) -> None:
    unknown = sorted(map(str, set(there) - known))
    if unknown:
        found, needed = ", ".join(unknown), ", ".join(sorted(known))
        raise TemplateError(f"{where} has what is not taken (found {found}; needed only: {needed}). Next: remove it")


def _check_node(name: str, node: Any) -> None:
    """A node of a type of ours, without scripts and without files but an image."""
    if not NODE_NAME.fullmatch(name):
        raise TemplateError(f"node {short(name)} (needed a name of at most 40 letters a-z, digits and hyphens)")
    if not isinstance(node, dict) or node.get("type") not in NODE_TYPES:
        kind = node.get("type") if isinstance(node, dict) else node
        raise TemplateError(f"node {name}: unknown type (found {short(kind)}, needed one of: {', '.join(NODE_TYPES)})")
    _check_names(f"node {name}", node, NODE)
    artifacts = node.get("artifacts") or {}
    wanted = {"image"} if node["type"] in {APPLICATION, *JOBS} else set()
    if not isinstance(artifacts, dict) or set(artifacts) != wanted:
        raise TemplateError(
            f"node {name}: artifacts (found {short(artifacts)}, needed {'image' if wanted else 'none'})"
        )
    for artifact in artifacts.values():
        if not isinstance(artifact, dict) or set(artifact) != {"type", "file"} or artifact["type"] != IMAGE_TYPE:
            raise TemplateError(f"node {name}: image (found {short(artifact)}, needed file, and type {IMAGE_TYPE})")


def _check_magic(data: Any) -> None:
    """Nothing that the Infrastructure Manager takes for an order."""
    if isinstance(data, str) and MAGIC.fullmatch(data):
        raise TemplateError(f"no secret comes from a template (found {data}). Next: name a secret of the site instead")
    for one in data.values() if isinstance(data, dict) else data if isinstance(data, list) else []:
        _check_magic(one)


def _check_workload(nodes: Mapping[str, Any]) -> None:
    running = [name for name, node in nodes.items() if node["type"] in {APPLICATION, *JOBS}]
    if len(running) != 1:
        raise TemplateError(f"one application or job in a template (found {', '.join(running) or 'none'}, needed one)")
    node = nodes[running[0]]
    if node["type"] == APPLICATION and nodes.get(_host(node), {}).get("type") != RUNTIME:
        raise TemplateError(f"node {running[0]}: host (found {_host(node)!r}, needed the name of a node of {RUNTIME})")


def _mapping(there: Mapping[str, Any], section: str) -> dict[str, Any]:
    """A section, which may be left out; raises TemplateError where it is something else."""
    found = there.get(section) or {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise TemplateError(f"{section} (found {short(found)}, needed a mapping by names)")
    return found


def _host(node: Mapping[str, Any]) -> str:
    """Name of the node that an application runs on; empty where it does not say so in the short way."""
    requirements = node.get("requirements")
    for requirement in requirements if isinstance(requirements, list) else []:
        host = requirement.get("host") if isinstance(requirement, dict) else None
        if isinstance(host, str):
            return host
    return ""


def _parse(data: Mapping[str, Any]) -> None:
    """Raise TemplateError unless tosca-parser accepts a template without imports, with our types."""
    with PARSER:
        try:
            ToscaTemplate(yaml_dict_tpl=copy.deepcopy({**data, **_types()}))
        except ValidationError as error:
            said = [line.strip() for line in str(error).splitlines() if PROBLEM.match(line.strip())]
            raise TemplateError(f"not valid TOSCA (found: {'; '.join(said)[:1000]}). Next: correct it there") from None
        # It checks one thing after another, and what it has not checked yet it takes for granted.
        except Exception as error:  # pylint: disable=broad-exception-caught
            cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise TemplateError(
                f"not TOSCA that can be understood (found: {cause}). Next: compare it with ours"
            ) from None


def _filled(template: Template, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The template with values in place of its inputs, valid, without imports."""
    given = values(template.inputs, parameters)
    _check_magic(given)
    data = copy.deepcopy({key: value for key, value in template.data.items() if key != "imports"})
    topology = data["topology_template"]
    topology.pop("inputs", None)
    for section in ("node_templates", "outputs"):
        if section in topology:
            topology[section] = _resolved(topology[section], given)
    _parse(data)
    return data


def _resolved(value: Any, given: Mapping[str, Any]) -> Any:
    """A value with those of the inputs in it; a property without a value goes."""
    if isinstance(value, dict):
        if set(value) == {"get_input"}:
            return _input(value["get_input"], given)
        resolved = {key: _resolved(one, given) for key, one in value.items()}
        parts = resolved.get("concat") if set(value) == {"concat"} else None
        if isinstance(parts, list) and all(isinstance(part, str | int | float) for part in parts):
            return "".join(map(str, parts))
        return {key: one for key, one in resolved.items() if one is not None}
    if isinstance(value, list):
        return [one for one in (_resolved(part, given) for part in value) if one is not None]
    return value


def _input(name: Any, given: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in given:
        raise TemplateError(f"get_input (found {short(name)}, needed one of: {', '.join(given) or 'none'})")
    return copy.deepcopy(given[name])


def _needs(data: Mapping[str, Any], workload: str) -> Needs:
    """What a template whose inputs have values asks for."""
    nodes = data["topology_template"]["node_templates"]
    node = nodes[workload]
    asked = _mapping(node, "properties")
    if node["type"] == APPLICATION:
        asked = _mapping(_mapping(_mapping(nodes[_host(node)], "capabilities"), "host"), "properties")
    image = node["artifacts"]["image"]["file"]
    if not isinstance(image, str) or len(image) > 255 or not IMAGE.fullmatch(image):
        raise TemplateError(f"image of {workload} (found {short(image)}, needed HOST/NAME:TAG or HOST/NAME@sha256:...)")
    memory = scalar(asked.get("mem_size"), SIZES)
    numbers = {"num_cpus": asked.get("num_cpus"), "num_gpus": asked.get("num_gpus", 0)}
    if memory is None or not all(isinstance(number, int | float) for number in numbers.values()):
        found = short({**numbers, "mem_size": asked.get("mem_size")})
        raise TemplateError(
            f"node {workload}: num_cpus, num_gpus, mem_size (found {found}, needed values, no functions)"
        )
    return Needs(
        gpus=int(numbers["num_gpus"]),
        gpu_model=str(asked.get("gpu_model") or "") or None,
        cpus=float(numbers["num_cpus"]),
        memory_mib=math.ceil(memory / 2**20),
        image=image,
    )


def _environment(variables: Mapping[str, Any], name: str) -> dict[str, str]:
    """Variables that are not empty, as text, with the deployment's name: one sees in the site whose container it is."""
    found = {"DEEP_DEPLOYMENT": name}
    for variable, value in variables.items():
        if not VARIABLE.fullmatch(variable):
            raise TemplateError(f"environment: no name of a variable (found {short(variable)}). Next: correct it")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        _check_carried(f"environment variable {variable}", text)
        if text:
            found[variable] = text
    return found


def _check_carried(what: str, text: Any) -> None:
    """Quotes end a value on the Infrastructure Manager's way, and what is behind them would be read as orders."""
    if not isinstance(text, str) or not text.isprintable() or set(text) & set("'\"\\"):
        raise TemplateError(f"{what}: the Infrastructure Manager carries no quotes and no \\ (found {short(text)})")
