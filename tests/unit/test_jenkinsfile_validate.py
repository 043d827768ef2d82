"""The validator finds each planted mistake at its line and nothing else, and refuses no valid Jenkinsfile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.jenkins.jenkinsfile import cron, trees, validate
from pipelines.jenkins.jenkinsfile.arguments import Arguments
from pipelines.jenkins.jenkinsfile.steps import library as steps_of
from pipelines.jenkins.jenkinsfile.syntax import credentials, syntax
from pipelines.jenkins.jenkinsfile.trees import Node
from testbed import cli
from testbed.errors import DeepError
from tests.unit.jenkinsfile_samples import OURS, VALID, Mistake, library, mistakes, read


def problems(name: str) -> list[tuple[int, str]]:
    return [(one.line, one.message) for one in validate.check(read()[name], steps_of(library())).problems]


@pytest.mark.parametrize("mistake", list(mistakes()), ids=lambda one: one.name.replace(" ", "-"))
def test_a_planted_mistake_is_found_at_its_line(mistake: Mistake) -> None:
    found = problems(mistake.name)
    assert sorted(line for line, _ in found) == sorted(line for line, _ in mistake.wrong), found
    for line, words in mistake.wrong:
        assert any(words in said for at, said in found if at == line), found


def test_there_are_many_mistakes() -> None:
    every = list(mistakes())
    assert len(every) > 100
    assert len({one.name for one in every}) == len(every)
    assert all(one.wrong for one in every), "each has a mark"


@pytest.mark.parametrize("path", [*VALID, *OURS], ids=lambda path: str(path.name))
def test_no_valid_file_is_refused(path: Path) -> None:
    assert problems(path.name) == []


def used(kind: str) -> set[str]:
    """Names that the valid samples call."""
    return {one.name for path in VALID for one in read()[path.name].walk() if one.kind == kind}


@pytest.mark.parametrize("what", ["options", "triggers", "parameters", "when", "agents", "post", "contents"])
def test_the_valid_samples_use_everything(what: str) -> None:
    assert set(getattr(syntax(), what)) - used("call") == set()


def test_the_data_are_consistent() -> None:
    everything = [
        getattr(syntax(), name) for name in ("agents", "options", "triggers", "parameters", "when", "steps", "values")
    ]
    for name, one in [pair for part in everything for pair in part.items()]:
        assert set(one.needs) <= set(one.takes), name
        assert one.alone is None or one.alone in one.takes, name
        for kind in one.takes.values():
            calls = kind.split()[1:] if isinstance(kind, str) else ()
            assert set(calls) <= set(syntax().values), name


def test_a_file_of_the_library_without_a_step_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "vars").mkdir()
    (tmp_path / "vars" / "empty.groovy").write_text("def help() { echo 'a' }\n")
    (tmp_path / "vars" / "odd.groovy").write_text("def call(String name) {\n    sh scrip: name\n}\n")
    found = validate.validate([], tmp_path)
    assert [[(one.line, one.message) for one in report.problems] for report in found] == [
        [(0, "defines no step: needed is a method call")],
        [(2, "sh: script is missing"), (2, "sh: takes no scrip; did you mean script?")],
    ]


@pytest.mark.parametrize(
    "spec",
    [
        "H * * * *",
        "H/15 8-18 * * 1-5",
        "@midnight",
        "TZ=Europe/Rome\n0,30 4 1 1 0",
        "# none\nH(0-29)/10 H H(1-28) 1-12/2 7",
    ],
)
def test_times_that_jenkins_takes(spec: str) -> None:
    assert cron.problem(spec) is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "it names no time"), ("@noon", "found @noon"), ("* * * *", "found 4 fields"),
        ("60 * * * *", "minute: '60'"), ("5-3 * * * *", "minute: '5-3'"), ("* * 0 * *", "day of the month: '0'"),
        ("*/0 * * * *", "makes no step"), ("H(5-70) * * * *", "minute"), ("* * * JAN *", "month: 'JAN' is none"),
    ],
)  # fmt: skip
def test_times_that_it_does_not_take(spec: str, said: str) -> None:
    assert said in str(cron.problem(spec))


def test_a_value_that_only_a_run_knows_is_not_judged() -> None:
    said: list[str] = []
    arguments = Arguments(lambda _, message: said.append(message), syntax().values, credentials())
    for value in (Node("variable", 1, "x"), Node("property", 1, "x"), Node("constant", 1, value=None)):
        call = Node("call", 1, "timeout", named=(("time", value), ("unit", value)), block=())
        arguments.check(call, syntax().steps["timeout"])
    assert said == []


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such file"), (b"\xff\xfe", "is no text (found: byte 0xff at 0; needed: UTF-8)")]
)
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "Jenkinsfile"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeepError) as refused:
        trees.read([path])
    assert str(path) in str(refused.value)
    assert said in str(refused.value)
    assert refused.value.exit_code == 2


def test_without_java_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DeepError, match="Java is not installed") as refused:
        trees.read([VALID[0]])
    assert refused.value.next_step == "make install"


def test_a_compiler_that_fails_is_no_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho broken jar >&2\nexit 3\n")
    java.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(java))
    with pytest.raises(DeepError, match="Groovy ended with 3: broken jar"):
        trees.read([VALID[0]])


def test_what_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Jenkinsfile"
    path.write_text(f"def x = {' + '.join(['a'] * 1500)}\n")
    with pytest.raises(DeepError, match="nested too deeply"):
        trees.read([path])


@pytest.fixture
def read_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """No further start of Java: the trees of the samples are those of the other tests."""
    found = read()
    monkeypatch.setattr(trees, "read", lambda paths: [found[path.name] for path in paths])


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["jenkins", "validate", *arguments])


def test_the_command_says_file_line_and_problem(tmp_path: Path) -> None:
    bad = tmp_path / "Bad"
    bad.write_text("pipeline {\n    agent any\n    stage {}\n}\n")
    shown = run(str(bad))
    assert shown.exit_code == 1
    assert f"{bad}:1: pipeline: stages is missing" in shown.stdout
    assert f"{bad}:3: pipeline: unknown directive stage; did you mean stages?" in shown.stdout


def test_the_command_gives_problems_as_json(read_already: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = validate.Report(VALID[0], [validate.Problem(3, "wrong")])
    monkeypatch.setattr(validate, "check", lambda *_: found)
    shown = run(str(VALID[0]), "--json")
    assert shown.exit_code == 1
    data = json.loads(shown.stdout)
    assert data["ok"] is False
    assert data["files"][0] == {"file": str(VALID[0]), "problems": [{"line": 3, "message": "wrong"}]}


def test_the_command_takes_ours_where_no_file_is_named(read_already: None) -> None:
    shown = run("--json")
    assert shown.exit_code == 0
    data = json.loads(shown.stdout)
    assert data["ok"] is True
    assert [Path(one["file"]) for one in data["files"]] == [*OURS, *validate.library_files()]
