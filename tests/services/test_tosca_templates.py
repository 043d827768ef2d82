"""The templates of DEEP, and what a template may be: read with tosca-parser, asked what it needs, linted."""

from __future__ import annotations

import copy
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from deep_tosca import template as tosca
from deep_tosca.inputs import values
from deep_tosca.lint import lint
from deep_tosca.reading import TemplateError
from testbed.paths import repo_root

FOLDER = repo_root() / "services" / "tosca" / "deep_tosca"
TEMPLATES = sorted((FOLDER / "templates").glob("*.yaml"))
IMAGE = f"registry.deep.test:5000/deep/digits@sha256:{'a' * 64}"
# What each template has to be told, and what it then needs: GPUs, CPUs, memory in MiB.
NEEDED: dict[str, tuple[dict[str, Any], tuple[int, float, int]]] = {
    "job-mesos": ({"command": ["python3", "-m", "train"], "num_gpus": 2}, (2, 1, 1024)),
    "job-slurm": ({"command": ["python3", "-m", "train"], "mem_size": "1500 MB", "time_limit": "2 h"}, (0, 1, 1431)),
    "kubernetes": ({"num_cpus": 2}, (0, 2, 1024)),
    "kubernetes-gpu": ({"num_gpus": 4, "mem_size": "32 GiB"}, (4, 1, 32768)),
    "kubernetes-storage": (
        {"storage_endpoint": "https://s3.deep.test", "storage_bucket": "data", "storage_secret_name": "s3"},  # nosec B105 # a name
        (0, 1, 1024),
    ),
}


def text(name: str) -> str:
    return (FOLDER / "templates" / f"{name}.yaml").read_text(encoding="utf-8")


def changed(**changes: Any) -> str:
    """The template for Kubernetes with other sections."""
    return yaml.safe_dump({**yaml.safe_load(text("kubernetes")), **changes})


def with_node(name: str, **changes: Any) -> str:
    """The template for Kubernetes with one node changed or added."""
    data = yaml.safe_load(text("kubernetes"))
    nodes = data["topology_template"]["node_templates"]
    nodes[name] = {**nodes.get(name, {}), **changes}
    return yaml.safe_dump(data)


def with_input(definition: Any, name: str = "extra") -> str:
    data = yaml.safe_load(text("kubernetes"))
    data["topology_template"]["inputs"][name] = definition
    return yaml.safe_dump(data)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_templates_of_deep_keep_to_the_rules(path: Path) -> None:
    assert lint(path.read_bytes()) == []


@pytest.mark.parametrize("name", [path.stem for path in TEMPLATES])
def test_a_template_says_what_it_needs(name: str) -> None:
    parameters, (gpus, cpus, memory) = NEEDED[name]
    found = tosca.needs(tosca.read(text(name)), {"image": IMAGE, **parameters})
    assert (found.gpus, found.cpus, found.memory_mib, found.image) == (gpus, cpus, memory, IMAGE)
    assert found.gpu_model is None


def test_the_model_of_a_gpu_may_be_asked() -> None:
    read = tosca.read(text("kubernetes-gpu"))
    assert tosca.needs(read, {"image": IMAGE, "gpu_model": "Tesla T4"}).gpu_model == "Tesla T4"


def test_what_the_infrastructure_manager_gets_is_complete() -> None:
    rendered = tosca.render(
        tosca.read(text("kubernetes-storage")),
        {"image": IMAGE, **NEEDED["kubernetes-storage"][0]},
        "deep-1",
        "deep-1@local",
    )
    data = yaml.safe_load(rendered)
    assert "imports" not in data
    assert "inputs" not in data["topology_template"]
    assert "get_input" not in rendered
    assert data["metadata"]["infra_name"] == "deep-1@local"
    assert tosca.RUNTIME in data["node_types"]
    assert data["topology_template"]["node_templates"]["module"]["properties"]["environment"] == {
        "DEEP_DEPLOYMENT": "deep-1", "DEEP_STORAGE_BUCKET": "data", "DEEP_STORAGE_ENDPOINT": "https://s3.deep.test",
        "DEEP_STORAGE_SECRET_NAME": "s3",  # nosec B105 # a name
    }  # fmt: skip


def test_the_infrastructure_manager_gets_no_job() -> None:
    with pytest.raises(TemplateError, match=r"containers only \(found deep.nodes.Job.Slurm, needed tosca.*Next: "):
        tosca.render(tosca.read(text("job-slurm")), {"image": IMAGE, "command": ["true"]}, "deep-1", "deep-1@local")


@pytest.mark.parametrize("value", ["it's", 'a "b"', "back\\slash"])
def test_what_would_be_an_order_to_the_infrastructure_manager_is_not_carried(value: str) -> None:
    node = yaml.safe_load(text("kubernetes"))["topology_template"]["node_templates"]["module"]
    for properties in ({"environment": {"A": value}}, {"command": ["run", value]}):
        read = tosca.read(yaml.safe_dump(yaml.safe_load(with_node("module", **{**node, "properties": properties}))))
        assert tosca.needs(read, {"image": IMAGE}).image == IMAGE
        with pytest.raises(TemplateError, match=r"carries no quotes"):
            tosca.render(read, {"image": IMAGE}, "deep-1", "deep-1@local")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": None}, r"input image is missing \(found nothing, needed a line of .*Next: give it"),
        ({"num_gpus": 2}, r"no such input \(found 'num_gpus', needed one of: image, model_name"),
        ({"num_cpus": "2"}, r"input num_cpus: wrong value \(found '2', needed a number\)"),
        ({"num_cpus": True}, r"input num_cpus: wrong value \(found True, needed a number\)"),
        ({"num_cpus": 0}, r"input num_cpus: wrong value \(found 0, needed one between 0.1 and 64\)"),
        ({"num_cpus": 64.5}, r"input num_cpus: wrong value \(found 64.5, needed one between 0.1 and 64\)"),
        ({"num_cpus": float("nan")}, r"input num_cpus: wrong value"),
        (
            {"mem_size": "64 MiB"},
            r"input mem_size: wrong value \(found '64 MiB', needed one between 128 MiB and 512 GiB",
        ),
        ({"mem_size": "1 GiBB"}, r"input mem_size: wrong value .*needed a size like 512 MiB"),
        ({"mem_size": 1024}, r"input mem_size: wrong value .*needed a size like 512 MiB"),
        ({"endpoint": "http://a.test"}, r"input endpoint: wrong value .*needed one matching"),
        ({"image": "a" * 256}, r"input image: wrong value .*needed a line of at most 255 characters"),
        ({"image": "a\nb"}, r"input image: wrong value"),
        ({"image": "Not an image"}, r"image of module \(found 'Not an image', needed HOST/NAME:TAG"),
        ({"image": "access_token()"}, r"no secret comes from a template"),
        ({"image": "random(12)"}, r"no secret comes from a template"),
        ({"image": ["a"]}, r"input image: wrong value \(found \['a'\]"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_found_and_what_is_needed(given: dict[str, Any], said: str) -> None:
    with pytest.raises(TemplateError, match=said):
        tosca.needs(tosca.read(text("kubernetes")), {"image": IMAGE, **given})


@pytest.mark.parametrize(
    ("kind", "constraint", "right", "wrong"),
    [
        ("string", {"equal": "a"}, "a", "b"),
        ("integer", {"greater_than": 1}, 2, 1),
        ("integer", {"greater_or_equal": 1}, 1, 0),
        ("float", {"less_than": 1.5}, 1, 1.5),
        ("scalar-unit.size", {"less_or_equal": "1 GiB"}, "1000 MB", "1.1 GiB"),
        ("scalar-unit.time", {"in_range": ["1 m", "1 h"]}, "90 s", "30 s"),
        ("string", {"valid_values": ["a", "b"]}, "b", "c"),
        ("list", {"length": 1}, ["a"], ["a", "b"]),
        ("map", {"min_length": 1}, {"a": "b"}, {}),
        ("string", {"max_length": 2}, "ab", "abc"),
        ("string", {"pattern": "[a-z]+"}, "abc", "abc1"),
    ],
)
def test_every_constraint_is_kept(kind: str, constraint: dict[str, Any], right: Any, wrong: Any) -> None:
    definitions = {"some": {"type": kind, "constraints": [constraint]}}
    assert values(definitions, {"some": right}) == {"some": right}
    with pytest.raises(TemplateError, match="input some: wrong value"):
        values(definitions, {"some": wrong})


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", r"no template \(found None"),
    "a list": ("[1, 2]", r"no template \(found \[1, 2\]"),
    "no version": ("a: b", r"tosca_definitions_version \(found None, needed one of"),
    "another version": (changed(tosca_definitions_version="tosca_2_0"), r"_version \(found 'tosca_2_0'"),
    "a version that is a list": (changed(tosca_definitions_version=[1]), "tosca_definitions_version"),
    "not YAML": ("a: [", r"not YAML that can be read \(found: .*line 1"),
    "not UTF-8": (b"a: \xff\xfe", r"not text in UTF-8 \(found .* at byte 3"),
    "control characters": ("a: \x00", "not YAML that can be read"),
    "an object of Python": ("a: !!python/object/apply:os.system [ls]", "not YAML that can be read"),
    "a lone surrogate": ("a: \ud800", "not text in UTF-8"),
    "too long": ("a: " + "b" * 70000, r"too long a template \(found 700\d\d bytes, needed at most 65536"),
    "too many values": ("[" + "1," * 30000 + "1]", "too much in the template"),
    "too deep": ("[" * 30000, "too deep a template"),
    "deep mappings": ("\n".join(" " * level + "a:" for level in range(300)), "too deep a template"),
    "a bomb": ("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]", r"no aliases in templates \(found one in line 2"),
    "a loop": ("a: &a [*a]", "no aliases in templates"),
    "a merge": ("a: {b: &b {c: d}}\ne: {<<: *b}", "no aliases in templates"),
    "a name twice": ("a: 1\na: 2", r"a name twice \(found 'a' again in line 2"),
    "a list as name": ("? [a]\n: b", "a name that is no word"),
    "a huge number": ("a: " + "9" * 20000, "not YAML that can be read"),
    "an impossible date": (changed(description="x") + "\nmetadata: {a: 2026-99-99}", ""),
    "an import of an address": (changed(imports=["https://example.org/types.yaml"]), "imports are never fetched"),
    "an import of a file": (changed(imports=[{"a": "/etc/passwd"}]), "imports are never fetched"),
    "an import with a repository": (
        changed(imports=[{"a": {"file": "types.yaml", "repository": "r"}}]), "imports are never fetched"
    ),
    "imports that are no list": (changed(imports="types.yaml"), "imports are never fetched"),
    "types of its own": (changed(node_types={"a.b": {"derived_from": tosca.RUNTIME}}), "found node_types; needed only"),
    "a repository": (changed(repositories={"r": "http://127.0.0.1:1/"}), "found repositories; needed only"),
    "no topology": (changed(topology_template=[]), r"topology_template \(found \[\]"),
    "policies": (changed(topology_template={"policies": []}), "found policies; needed only"),
    "no nodes": (changed(topology_template={"node_templates": {}}), r"node_templates \(found none"),
    "nodes without names": (changed(topology_template={"node_templates": {1: {}}}), "needed a mapping by names"),
    "a node that is a word": (changed(topology_template={"node_templates": {"a": "b"}}), "node a: unknown type"),
    "a machine": (with_node("extra", type="tosca.nodes.Compute"), r"node extra: unknown type \(found 'tosca.no"),
    "a script": (with_node("module", interfaces={"Standard": {"create": "x.sh"}}), "found interfaces; needed only"),
    "a file of the network": (
        with_node("runtime", artifacts={"a": {"type": "tosca.artifacts.File", "file": "http://127.0.0.1:1/"}}),
        "node runtime: artifacts",
    ),
    "an image of another kind": (
        with_node("module", artifacts={"image": {"type": "tosca.artifacts.File", "file": "a"}}), "node module: image"
    ),
    "a name that Kubernetes does not take": (with_node("Module_1", type=tosca.RUNTIME), "node 'Module_1' "),
    "two applications": (
        with_node("other", **yaml.safe_load(text("kubernetes"))["topology_template"]["node_templates"]["module"]),
        r"one application or job in a template \(found module, other",
    ),
    "no host": (with_node("module", requirements=[]), r"node module: host \(found ''"),
    "requirements of another shape": (with_node("module", requirements={"host": ["a"]}), "node module: host"),
    "a property that there is not": (with_node("module", properties={"privileged": True}), "TOSCA .*privileged"),
    "properties that are a word": (with_node("module", properties="x"), "not TOSCA|not valid TOSCA"),
    "an output that is a word": (
        changed(topology_template={**yaml.safe_load(text("kubernetes"))["topology_template"], "outputs": {"a": "b"}}),
        "output 'a'",
    ),
    "the token of whoever deploys": (with_input({"type": "string", "default": "access_token()"}), "no secret comes"),
    "an input that is a word": (with_input("string"), "input extra: unknown type"),
    "an input of no type": (with_input({"description": "x"}), "input extra: unknown type"),
    "an unknown constraint": (with_input({"type": "string", "constraints": [{"schema": "x"}]}), "unknown constraint"),
    "constraints that are a word": (with_input({"type": "string", "constraints": "x"}), "constraints are no list"),
    "a constraint of another type": (with_input({"type": "integer", "constraints": [{"in_range": ["a", 1]}]}), "fit"),
    "a range of one": (with_input({"type": "integer", "constraints": [{"in_range": [1]}]}), "not what it needs"),
    "a slow pattern": (with_input({"type": "string", "constraints": [{"pattern": "(a+)+$"}]}), "may take long"),
    "another slow pattern": (with_input({"type": "string", "constraints": [{"pattern": "a*a*a*a*"}]}), "may take long"),
    "a broken pattern": (with_input({"type": "string", "constraints": [{"pattern": "[a"}]}), "no pattern"),
    "a default out of range": (
        with_input({"type": "integer", "default": 3, "constraints": [{"less_than": 3}]}), "input extra: wrong value"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_whatever_a_template_is_the_answer_is_clear_and_quick(what: str) -> None:
    given, said = HOSTILE[what]
    since = time.thread_time()  # what others do on the machine does not count
    if said:
        with pytest.raises(TemplateError, match=said):
            tosca.read(given)
    else:
        tosca.read(given)
    assert time.thread_time() - since < 1


ODD: tuple[Any, ...] = (
    None,
    "",
    "x",
    -1,
    1.5,
    True,
    [],
    {},
    [[]],
    {"get_input": "image"},
    {"get_input": ["image"]},
    {"concat": 1},
)


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every mapping or list of a document, with each of its keys."""
    keys = list(data) if isinstance(data, dict) else list(range(len(data))) if isinstance(data, list) else []
    return [(data, key) for key in keys] + [place for key in keys for place in places(data[key])]


def spoil(data: Any, dice: random.Random) -> None:
    """Put something odd in one place of a document, or take away what is there."""
    where, key = dice.choice(places(data))
    if dice.random() < 0.3:
        del where[key]
    else:
        where[key] = copy.deepcopy(dice.choice(ODD))


@pytest.mark.parametrize("seed", range(8))
def test_a_template_that_is_spoilt_anywhere_is_an_error_of_ours_or_none(seed: int) -> None:
    dice = random.Random(seed)  # nosec B311 # to be repeated
    refused = []
    for _ in range(20):
        name = dice.choice(sorted(NEEDED))
        data = yaml.safe_load(text(name))
        for _ in range(dice.randint(1, 3)):
            spoil(data, dice)
        try:
            read = tosca.read(yaml.safe_dump(data))
            tosca.needs(read, {"image": IMAGE, **NEEDED[name][0]})
            tosca.render(read, {"image": IMAGE, **NEEDED[name][0]}, "deep-1", "deep-1@local")
            lint(yaml.safe_dump(data))
        except TemplateError as error:
            refused.append(str(error))
    assert refused
    assert not [said for said in refused if "\n" in said]


def test_the_slowest_pattern_and_value_that_are_taken_are_quick() -> None:
    definitions = {"some": {"type": "string", "constraints": [{"pattern": "a*a*a*b"}]}}
    since = time.thread_time()
    with pytest.raises(TemplateError):
        values(definitions, {"some": "a" * 255})
    assert time.thread_time() - since < 1


@pytest.mark.parametrize(
    ("name", "definition", "said"),
    [
        (
            "db_password",
            {"type": "string", "description": "x", "default": ""},
            "input db_password: looks like a secret",
        ),
        ("apiToken", {"type": "string", "description": "x", "default": ""}, "input apiToken: looks like a secret"),
        ("s3_access_key", {"type": "string", "description": "x", "default": ""}, "looks like a secret"),
        ("extra", {"type": "string", "default": "a"}, "input extra: no description"),
        ("extra", {"type": "string", "description": "x"}, "input extra: anything goes"),
        ("extra", {"type": "string", "description": "x", "default": ""}, "input extra: is not used"),
    ],
)
def test_the_linter_says_what_an_input_lacks(name: str, definition: dict[str, Any], said: str) -> None:
    assert any(said in line for line in lint(with_input(definition, name)))


def test_the_linter_refuses_addresses_without_tls() -> None:
    data = yaml.safe_load(text("kubernetes"))
    data["topology_template"]["outputs"]["other"] = {
        "description": "x", "value": {"concat": ["http://", {"get_attribute": ["module", "endpoints", 0]}]},
    }  # fmt: skip
    assert lint(yaml.safe_dump(data)) == [
        "output other: an address without TLS (needed https, or the attribute endpoints)"
    ]


def test_the_command_says_what_is_wrong_and_in_which_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: b")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deep_tosca", *arguments]
        return subprocess.run(command, cwd=FOLDER.parent, check=False, capture_output=True, text=True)

    said = run("lint", str(TEMPLATES[0]), str(bad))
    assert (said.returncode, said.stderr) == (1, "")
    assert said.stdout.startswith(f"{bad}: tosca_definitions_version (found None")
    assert run("lint", str(TEMPLATES[0])).returncode == 0
    assert run("lint", str(tmp_path / "none.yaml")).returncode == run("lint").returncode == 2
