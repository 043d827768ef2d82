"""Jobs as data: what is defined, what of it a server may hold otherwise, and whose a job is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.jenkins import jobs
from testbed.errors import DeepError
from testbed.paths import repo_root
from tests.pipelines import toys
from tests.pipelines.toys import ours, pipeline, xml

REPOSITORY = "https://git.example.org/deep.git"


def same(one: jobs.Element, other: jobs.Element) -> bool:
    return jobs.canonical(one) == jobs.canonical(other)


# --- the definitions -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def defined() -> dict[str, jobs.Element]:
    return jobs.expand("pipelines", {"repository": REPOSITORY, "credentials": "reader", "changes": "**"})


@pytest.fixture(scope="module")
def freestyle() -> dict[str, jobs.Element]:
    return jobs.expand("freestyle", {"repository": REPOSITORY, "agent": "big", "night": "7 1 * * *"})


def test_each_pipeline_has_a_job(defined: dict[str, jobs.Element]) -> None:
    kinds = ("benchmark", "change-gate", "images", "nightly", "release", "site-deploy")
    assert sorted(defined) == [f"deep-{kind}" for kind in kinds]
    for name, job in defined.items():
        assert job.tag == jobs.PIPELINE
        assert jobs.owned(job)
        script = job.findtext("definition/scriptPath")
        assert script == f"pipelines/jenkins/pipelines/{name.removeprefix('deep-')}.Jenkinsfile"


def test_the_sites_settings_are_in_the_jobs(defined: dict[str, jobs.Element]) -> None:
    for job in defined.values():
        remote = job.find("definition/scm/userRemoteConfigs/hudson.plugins.git.UserRemoteConfig")
        assert remote is not None
        assert (remote.findtext("url"), remote.findtext("credentialsId")) == (REPOSITORY, "reader")
    branches = {name: job.findtext(".//hudson.plugins.git.BranchSpec/name") for name, job in defined.items()}
    assert branches == {**dict.fromkeys(defined, "main"), "deep-change-gate": "**"}
    assert {
        name: [one.text for one in job.iter("spec")] for name, job in defined.items() if job.find(".//spec") is not None
    } == {"deep-change-gate": ["H/5 * * * *"]}


def test_a_server_without_pipelines_runs_the_same_commands(freestyle: dict[str, jobs.Element]) -> None:
    commands = {
        name: (job.findtext(".//hudson.tasks.Shell/command") or "").split("\n") for name, job in freestyle.items()
    }
    assert commands.keys() == {"deep-change-gate-freestyle", "deep-nightly-freestyle"}
    targets = [line.split()[1] for line in commands["deep-change-gate-freestyle"] if line.startswith("make ")]
    makefile = (repo_root() / "Makefile").read_text(encoding="utf-8")
    assert targets == ["install", "lint", "unit"]
    assert all(f"\n{target}:" in makefile for target in targets)
    assert commands["deep-nightly-freestyle"] == [".ci/run"]
    assert (repo_root() / ".ci/run").is_file()
    for job in freestyle.values():
        assert jobs.owned(job)
        assert job.findtext("assignedNode") == "big"
        assert "reports/unit.xml" in (job.findtext(".//testResults") or "")


def test_jobs_are_defined_the_same_each_time(freestyle: dict[str, jobs.Element]) -> None:
    again = jobs.expand("freestyle", {"repository": REPOSITORY, "agent": "big", "night": "7 1 * * *"})
    assert {name: jobs.text_of(job) for name, job in again.items()} == {
        name: jobs.text_of(job) for name, job in freestyle.items()
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "repository"),
        ({"repository": ""}, "repository"),
        ({"repository": REPOSITORY, "agents": "x", "credential": "y"}, "agents, credential"),
        ({"repository": REPOSITORY, "branch": ["main"]}, "branch"),
    ],
)
def test_settings_that_will_not_do(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DeepError, match=said):
        jobs.expand("freestyle", settings)


def test_settings_that_are_no_yaml_or_no_settings(tmp_path: Path) -> None:
    file = tmp_path / "ci.yml"
    file.write_text("- repository\n")
    with pytest.raises(DeepError, match="no settings"):
        jobs.read_settings(file)
    file.write_text("repository: [")
    with pytest.raises(DeepError, match="no YAML"):
        jobs.read_settings(file)
    file.write_text(yaml.safe_dump({"repository": REPOSITORY}))
    assert jobs.read_settings(file) == {"repository": REPOSITORY}


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the definitions."""
    shutil.copytree(jobs.DEFINITIONS, tmp_path / "jobs")
    monkeypatch.setattr(jobs, "DEFINITIONS", tmp_path / "jobs")
    return tmp_path / "jobs"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("project-type: freestyle", "project-type: unheard", "unheard"),
        ("- shell:", "- shall:", "shall"),
        ("{look}", "{luck}", "luck"),
        ("jobs:", "jabs: [", "yaml"),
    ],
)
def test_definitions_that_will_not_do(definitions: Path, before: str, after: str, said: str) -> None:
    file = definitions / "freestyle.yml"
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(DeepError, match="definitions of the jobs are wrong") as caught:
        jobs.expand("freestyle", {"repository": REPOSITORY})
    assert said in str(caught.value.found)


# --- what is the same ----------------------------------------------------------------------------------------------


def test_layout_and_versions_of_plugins_are_no_difference() -> None:
    plain = xml(properties=toys.WORD)
    spaced = plain.replace("><", ">\n\n   <").replace("<description>", "<description  >")
    assert same(jobs.parse(plain, "x"), jobs.parse(spaced, "x"))
    versioned = xml().replace("<project>", '<project plugin="x@2">').replace("<actions/>", "<actions></actions>")
    assert same(jobs.parse(xml(), "x"), jobs.parse(f"<?xml version='1.1' encoding='UTF-8'?>\n{versioned}", "x"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("true</command>", "false</command>"),
        ("true</command>", "true </command>"),
        ("true</command>", "\ntrue</command>"),
        ("<disabled>false", "<disabled>true"),
        ("<buildWrappers/>", "<buildWrappers/><more/>"),
        ('class="vector"', 'class="list"'),
    ],
)
def test_everything_else_is_one(before: str, after: str) -> None:
    assert before in xml()
    assert not same(jobs.parse(xml(), "x"), jobs.parse(xml().replace(before, after), "x"))


@pytest.mark.parametrize(
    "text", ["", "no", "<project>", '<!DOCTYPE x [<!ENTITY a "b">]><project>&a;</project>', "<html>&nbsp;"]
)
def test_what_is_no_job(text: str) -> None:
    with pytest.raises(DeepError, match="the configuration of it is no XML"):
        jobs.parse(text, "it")


def test_whose_a_job_is() -> None:
    assert jobs.owned(ours())
    assert not jobs.owned(jobs.parse(xml(), "x"))
    assert not jobs.owned(jobs.parse(xml(description=f"Not: {jobs.MARKER} Mine."), "x"))
    assert not jobs.owned(jobs.parse("<project/>", "x"))
    assert jobs.owned(jobs.parse(xml(description=f"A toy.\n\n{jobs.MARKER}\n"), "x"))


def test_a_job_without_a_description_is_marked_and_that_of_job_builder_goes() -> None:
    assert jobs.marked(jobs.parse("<project/>", "x")).findtext("description") == jobs.MARKER
    made = jobs.marked(
        jobs.parse(
            "<project><description>A toy.&lt;!-- Managed by Jenkins Job Builder --&gt;</description></project>", "x"
        )
    )
    assert made.findtext("description") == f"A toy.\n\n{jobs.MARKER}"


# --- what Jenkins adds to a pipeline job; no server here has pipelines ------------------------------------------------

ADDED = f"""\
<actions><org.jenkinsci.plugins.pipeline.modeldefinition.actions.DeclarativeJobAction plugin="x@1"/></actions>
<properties>{toys.WORD}</properties>
"""


def test_what_a_jenkinsfile_declares_stays() -> None:
    current = pipeline(more=ADDED)
    assert not same(pipeline(), current)
    assert same(jobs.with_added(pipeline(), current), current)
    changed = jobs.with_added(pipeline("y"), current)
    assert changed.findtext("definition/script") == "y"
    assert changed.findtext(".//parameterDefinitions//name") == "WORD"
    assert jobs.with_added(pipeline(more=""), current).findtext(".//parameterDefinitions//name") == "WORD"


def test_what_the_definition_says_comes_first() -> None:
    mine = pipeline(more=f"<properties>{toys.WORD.replace('WORD', 'OTHER')}</properties>")
    assert [one.text for one in jobs.with_added(mine, pipeline(more=ADDED)).iter("name")] == ["OTHER"]


def test_nothing_is_added_to_other_jobs() -> None:
    changed = ours(properties=toys.WORD)
    assert same(jobs.with_added(ours(), changed), ours())
    assert same(jobs.with_added(ours(), pipeline(more=ADDED)), ours())
