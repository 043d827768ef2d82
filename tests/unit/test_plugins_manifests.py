"""Objects are applied where they differ, and what is no longer declared is removed, against a cluster made of data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plugins.modules.manifests import Cluster, deploy, unmarked

PART = "deephdc-test"


def thing(kind: str, name: str, namespace: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": {"app.kubernetes.io/part-of": PART}}
    return {"kind": kind, "metadata": {**metadata, **({"namespace": namespace} if namespace else {})}}


OBJECTS = [
    thing("Namespace", "a"),
    thing("Quota", "q", "a"),
    thing("Namespace", "b"),
    thing("Quota", "q", "b"),
    thing("Role", "r"),
]


class Module:
    """As much of an Ansible module as a cluster needs; kubectl finds the namespaces and bindings that it is given."""

    def __init__(self, namespaces: list[str], *, bindings: Any = (), differs: int = 0, check: bool = False) -> None:
        self.params = {"objects": OBJECTS, "part_of": PART, "prune": ["bindings"], "kubeconfig": "k"}
        self.check_mode = check
        self.answers = {"namespaces": [thing("Namespace", name) for name in namespaces], "bindings": list(bindings)}
        self.differs = differs
        self.commands: dict[str, list[dict[str, Any]]] = {}

    def get_bin_path(self, name: str, **_: Any) -> str:
        return f"/bin/{name}"

    def run_command(self, argv: list[str], data: str | None = None) -> tuple[int, str, str]:
        verb, *words = argv[argv.index("30s") + 1 :]
        if verb == "get":
            return 0, json.dumps({"items": self.answers[words[0]]}), ""
        self.commands[verb] = json.loads(data or "")["items"]
        return (self.differs, "-old\n+new\n" if self.differs else "", "no") if verb == "diff" else (0, "", "")

    def fail_json(self, msg: str) -> None:
        raise SystemExit(msg)


def run(module: Module) -> dict[str, Any]:
    return deploy(Cluster(module))


def test_nothing_is_written_where_nothing_differs() -> None:
    module = Module(["a", "b"])
    assert run(module) == {"changed": False, "removed": [], "diff": {"prepared": ""}}
    assert module.commands == {"diff": OBJECTS}


def test_a_difference_is_applied_and_shown() -> None:
    module = Module(["a", "b"], differs=1)
    assert run(module)["diff"]["prepared"] == "-old\n+new\n"
    assert module.commands["apply"] == OBJECTS


def test_what_is_in_a_new_namespace_is_not_compared() -> None:
    module = Module(["a"])
    assert run(module)["diff"]["prepared"] == "+ Namespace b\n+ Quota b/q\n"
    assert module.commands["diff"] == [OBJECTS[0], OBJECTS[1], OBJECTS[4]]
    assert module.commands["apply"] == OBJECTS


def test_what_is_no_longer_declared_is_removed() -> None:
    old = thing("Binding", "old", "a")
    module = Module(["a", "b"], bindings=[thing("Quota", "q", "a"), old])
    assert run(module)["removed"] == ["Binding a/old"]
    assert module.commands["delete"] == [old]


def test_check_mode_tells_and_writes_nothing() -> None:
    module = Module(["a"], bindings=[thing("Binding", "old", "a")], differs=1, check=True)
    result = run(module)
    assert result["changed"]
    assert result["diff"]["prepared"] == "-old\n+new\n+ Namespace b\n+ Quota b/q\n- Binding a/old\n"
    assert set(module.commands) == {"diff"}


def test_a_comparison_that_fails_ends_the_module() -> None:
    with pytest.raises(SystemExit, match="kubectl diff: no"):
        run(Module(["a", "b"], differs=2))


def test_a_namespace_of_somebody_else_is_refused_before_anything_is_changed() -> None:
    module = Module([])
    module.answers["namespaces"] = [{"kind": "Namespace", "metadata": {"name": "b"}}]
    with pytest.raises(SystemExit, match=r"found Namespace b without label .* Next: "):
        run(module)
    assert module.commands == {}


def test_an_object_that_could_not_be_found_again_is_named() -> None:
    assert unmarked([*OBJECTS, {"kind": "Role", "metadata": {"name": "lost"}}], PART) == ["Role lost"]
