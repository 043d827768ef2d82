"""What our pipelines run, in which order, and what stops them; stand-ins of make and deep write down their calls."""

from __future__ import annotations

import os
import re
import shlex
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pipelines.benchmark.store import BASELINES, Store
from pipelines.jenkins.jenkinsfile import steps
from pipelines.jenkins.jenkinsfile.syntax import credentials, syntax
from pipelines.jenkins.runner.run import Job, Outcome, run
from sqa import gate
from testbed import cli
from testbed.paths import repo_root
from tests.unit import bench_toys, test_quality_tree
from tests.unit.jenkinsfile_samples import OURS, library, read
from tools import generated, jenkins_stages

STAND_IN = """\
#!/bin/sh
said={name}
for one; do
  case "$one" in *" "*) one="<$one>";; esac
  said="$said $one"
done
echo "$said" >> "$RECORD"
case "$said" in
  $FAILS) exit 1;;
  $REAL) exec "$PYTHON" -c "from testbed.cli import main; main()" "$@";;
esac
"""


class Build:
    """One run of a pipeline of ours, with what its commands were; ``real``: those of deep that are really called."""

    def __init__(
        self, name: str, folder: Path, *, fails: str = "", real: str = "", more: dict[str, str] | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        record = folder / "record"
        record.unlink(missing_ok=True)
        for program in ("make", ".venv/bin/deep"):
            path = folder / program
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(STAND_IN.format(name=path.name))
            path.chmod(0o755)
        env = {"PATH": f"{folder}:{os.environ['PATH']}", "RECORD": str(record), "FAILS": fails or "nothing"}
        env |= {"REAL": real or "nothing", "PYTHON": sys.executable, "PYTHONPATH": str(repo_root())}
        env |= {"DEEP_RELEASE_KEY": "FINGERPRINT", **(more or {})}
        secrets = {name: f"deep:made up {name}" for name in credentials()}
        self.outcome: Outcome = run(
            read()[f"{name}.Jenkinsfile"], library(), Job(folder, env, secrets=secrets, **options)
        )
        self.commands = record.read_text().splitlines() if record.exists() else []


def test_every_pipeline_is_there() -> None:
    assert [path.stem for path in OURS] == [
        "benchmark", "change-gate", "images", "nightly", "release", "site-deploy",
    ]  # fmt: skip


def test_the_change_gate_runs_everything_that_holds_a_change_back(tmp_path: Path) -> None:
    build = Build("change-gate", tmp_path)
    assert build.outcome.result == "SUCCESS"
    assert build.commands[:2] == ["make prepare", "deep sqa tools --install"]
    assert set(build.commands[2:4]) == {"make lint", "make unit"}
    assert set(build.commands[4:8]) == {f"make molecule LAYER={name}" for name in ("gpu", "iam", "kubernetes", "paas")}
    assert build.commands[8] == "make end-to-end"
    assert build.commands[-1] == "make gate"
    assert all(one.startswith("deep sqa run --check ") for one in build.commands[9:-1])
    assert "reports/**" in build.outcome.of("archiveArtifacts")
    assert any("reports/unit.xml" in one for one in build.outcome.of("junit"))


@pytest.mark.parametrize("failing", ["make lint", "make molecule LAYER=gpu", "make end-to-end", "deep sqa run *"])
def test_a_change_that_fails_anywhere_is_held_back_and_reported(tmp_path: Path, failing: str) -> None:
    build = Build("change-gate", tmp_path, fails=failing.replace(" ", "\\ "))
    assert build.outcome.result == "FAILURE"
    assert "make gate" not in build.commands
    assert build.outcome.of("skipped")[-1] == "Gate"
    assert "reports/**" in build.outcome.of("archiveArtifacts")


NIGHT = [
    "make prepare",
    "deep testbed up --name nightly --until deploy",
    "deep site verify local --name nightly --output reports/acceptance",
    "deep site deploy local --name nightly --unchanged",
    "deep sqa assess local --name nightly --output reports/assessment",
]
DOWN = "deep testbed down --name nightly"


def test_the_night_holds_a_testbed_against_its_promises(tmp_path: Path) -> None:
    build = Build("nightly", tmp_path)
    assert build.outcome.result == "SUCCESS"
    assert build.commands == [*NIGHT, DOWN]


@pytest.mark.parametrize("step", range(len(NIGHT)))
def test_the_testbed_of_the_night_is_removed_whatever_fails(tmp_path: Path, step: int) -> None:
    build = Build("nightly", tmp_path, fails=NIGHT[step].replace(" ", "\\ "))
    assert build.outcome.result == "FAILURE"
    assert build.commands == [*NIGHT[: step + 1], DOWN]


def test_images_are_built_verified_and_scanned(tmp_path: Path) -> None:
    build = Build("images", tmp_path)
    wanted = [
        "make prepare", "deep artifacts build", "deep artifacts verify",
        "deep sqa run --check image-scan --output reports/images",
    ]  # fmt: skip
    assert build.commands == wanted
    assert Build("images", tmp_path / "other", fails="deep\\ artifacts\\ verify").commands == wanted[:3]


STORE = "/nowhere/bench"
AGENT = {"DEEP_BENCH_STORE": STORE, "BUILD_TAG": "jenkins-deep-benchmark-1"}
MEASURED = [
    "make install", f"deep bench run --quick --device cpu --store {STORE} --label jenkins-deep-benchmark-1",
    f"deep bench gate --store {STORE} --junit reports/bench.xml",
]  # fmt: skip
REPORT = f"deep bench report --store {STORE} --output reports/bench.html"


def test_a_node_is_measured_held_against_its_baseline_and_reported(tmp_path: Path) -> None:
    build = Build("benchmark", tmp_path, more=AGENT)
    assert build.outcome.result == "SUCCESS"
    assert build.commands == [*MEASURED, REPORT]
    more = AGENT | {"DEEP_BENCH_DEVICE": "gpu"}
    build = Build("benchmark", tmp_path, more=more, parameters={"LABEL": "new; make test"})
    assert build.commands[1] == f"deep bench run --quick --device gpu --store {STORE} --label <new; make test>"


@pytest.mark.parametrize("step", range(len(MEASURED)))
def test_the_report_of_a_node_is_written_whatever_fails(tmp_path: Path, step: int) -> None:
    build = Build("benchmark", tmp_path, more=AGENT, fails=MEASURED[step].replace(" ", "\\ "))
    assert build.outcome.result == "FAILURE"
    assert build.commands == [*MEASURED[: step + 1], REPORT]
    assert build.outcome.of("junit", "archiveArtifacts") == ["reports/bench.xml", "reports/**"]


def test_nothing_is_measured_where_the_agent_names_no_store(tmp_path: Path) -> None:
    for more in ({}, {"DEEP_BENCH_STORE": ""}):
        build = Build("benchmark", tmp_path, more=more)
        assert (build.outcome.result, build.commands) == ("FAILURE", MEASURED[:1])


def test_a_node_fails_without_a_baseline_and_when_it_gets_slower(tmp_path: Path) -> None:
    """Gate and report are the real ones; what was measured is made up."""
    store = Store(tmp_path / "store")
    reports = tmp_path / "reports"

    def build(*samples: list[float], day: int) -> tuple[str, list[str]]:
        store.append(bench_toys.run(bench_toys.result(samples), day=day))
        more = {**AGENT, "DEEP_BENCH_STORE": str(store.folder)}
        outcome = Build("benchmark", tmp_path, more=more, real="deep bench [gr][ae]*").outcome
        assert f"{day + 1:02}-toy" in (reports / "bench.html").read_text()
        return outcome.result, [one.rpartition(": ")[2] for one in outcome.of("failed")]

    assert build(*bench_toys.noise(100.0), day=0) == ("FAILURE", ["ended with 2"]), "no baseline yet"
    assert not (reports / "bench.xml").exists()
    store.set_baseline(store.get("latest"))
    assert build(*bench_toys.noise(100.0, seed=5), day=1) == ("SUCCESS", [])
    assert build(*bench_toys.noise(90.0, seed=3), day=2) == ("FAILURE", ["ended with 1"])
    assert ET.parse(reports / "bench.xml").getroot().find("testsuite/testcase/failure") is not None
    (store.folder / BASELINES).unlink()
    assert build(*bench_toys.noise(90.0, seed=4), day=3) == ("FAILURE", ["ended with 2"])
    assert not (reports / "bench.xml").exists(), "verdicts of an earlier build are not this one's"


GO = {"Deploy what the dry run shows?": True, "Bring what is in testing into production?": True}


def test_a_site_is_deployed_after_a_dry_run_and_somebodys_word(tmp_path: Path) -> None:
    build = Build("site-deploy", tmp_path, parameters={"SITE": "ifca"}, answers=GO)
    assert build.outcome.result == "SUCCESS"
    assert build.commands == [
        "make install", "deep site check ifca", "deep site deploy ifca --check",
        "make install", "deep site deploy ifca", "deep site verify ifca --output reports/acceptance",
    ]  # fmt: skip
    kinds = build.outcome.of("input", "sh")
    assert kinds.index(next(iter(GO))) == 3, "asked after the dry run, before anything else"


@pytest.mark.parametrize("answers", [{}, dict.fromkeys(GO, False)])
def test_nothing_is_deployed_that_nobody_approved(tmp_path: Path, answers: dict[str, bool]) -> None:
    build = Build("site-deploy", tmp_path, parameters={"SITE": "ifca"}, answers=answers)
    assert build.outcome.result == "ABORTED"
    assert build.commands[-1] == "deep site deploy ifca --check"


def test_a_failed_dry_run_asks_nobody(tmp_path: Path) -> None:
    build = Build("site-deploy", tmp_path, parameters={"SITE": "ifca"}, answers=GO, fails="*--check")
    assert build.outcome.of("input") == []
    assert build.commands[-1] == "deep site deploy ifca --check"


def test_what_somebody_typed_is_one_argument(tmp_path: Path) -> None:
    build = Build("site-deploy", tmp_path, parameters={"SITE": "x; make everything"}, answers=GO)
    assert "make everything" not in build.commands
    assert [one.split()[2] for one in build.commands if "<x; make everything>" in one] == [
        "check", "deploy", "deploy", "verify",
    ]  # fmt: skip
    build = Build("release", tmp_path / "release", parameters={"VERSION": "1 2"}, answers=GO)
    assert [one.split()[2] for one in build.commands if "<1 2>" in one] == ["build", "promote", "promote"]


def release(commands: list[str]) -> list[str]:
    """The commands of deep release alone, without their options."""
    return [
        " ".join(one.split()[2 : 4 if "verify" not in one else 3]) for one in commands if one.startswith("deep release")
    ]


CANDIDATE = ["build 1.2.0", "plan dist/candidate", "stage dist/candidate", "verify", "promote 1.2.0", "verify"]


def test_a_release_goes_from_stage_to_stage(tmp_path: Path) -> None:
    build = Build("release", tmp_path, parameters={"VERSION": "1.2.0"}, answers=GO)
    assert build.outcome.result == "SUCCESS"
    assert build.commands[0] == "make test"
    assert release(build.commands) == [*CANDIDATE, "promote 1.2.0", "verify"]
    promoted = [one.split()[4] for one in build.commands if one.startswith("deep release promote")]
    assert promoted == ["testing", "production"]


@pytest.mark.parametrize("answers", [{}, dict.fromkeys(GO, False)])
def test_production_is_never_reached_without_approval(tmp_path: Path, answers: dict[str, bool]) -> None:
    build = Build("release", tmp_path, parameters={"VERSION": "1.2.0"}, answers=answers)
    assert build.outcome.result == "ABORTED"
    assert not any("production" in one for one in build.commands)
    assert release(build.commands) == CANDIDATE


@pytest.mark.parametrize("failing", ["make test", "deep release build*", "deep release plan*", "deep release verify"])
def test_a_release_that_fails_is_offered_to_nobody(tmp_path: Path, failing: str) -> None:
    build = Build("release", tmp_path, parameters={"VERSION": "1.2.0"}, answers=GO, fails=failing.replace(" ", "\\ "))
    assert build.outcome.result == "FAILURE"
    assert build.outcome.of("input") == []
    assert not any("production" in one for one in build.commands)


def test_secrets_are_on_no_command_line(tmp_path: Path) -> None:
    for name, parameters in (("release", {"VERSION": "1.2.0"}), ("site-deploy", {"SITE": "ifca"})):
        build = Build(name, tmp_path / name, parameters=parameters, answers=GO)
        assert build.outcome.result == "SUCCESS"
        assert "made up" not in " ".join([*build.commands, *build.outcome.of("sh")])


def commands() -> list[str]:
    """Every command of a shell in our pipelines, as it stands there."""
    return sorted({
        f"{'deep ' if one.name == 'deep' else ''}{one.items[0].value}"
        for path in OURS
        for one in read()[path.name].walk()
        if one.is_call("sh", "deep")
    })  # fmt: skip


def test_no_command_holds_a_value_of_groovy() -> None:
    calls = [one for path in OURS for one in read()[path.name].walk() if one.is_call("sh", "deep")]
    assert calls
    assert [one.line for one in calls if one.items[0].kind != "constant"] == []


def test_targets_exist() -> None:
    named = {one.split()[1] for one in commands() if one.startswith("make ")}
    assert named
    assert named - set(test_quality_tree.targets()) == set()


def test_commands_exist_and_take_their_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line itself parses the words of each; nothing is run."""
    for path in ("dist/candidate", "reports/sqa"):
        (tmp_path / path).mkdir(parents=True)
    for name in ("SIGNING_KEY", "PASSPHRASE_FILE", "STATEMENT"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEP_RELEASE_STORE", str(tmp_path))
    monkeypatch.setenv("DEEP_RELEASE_KEY", "FINGERPRINT")
    plain = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", one).replace("$", "") for one in commands()]
    lines = [shlex.split(one)[1:] for one in plain if one.startswith("deep ")]
    assert {one[0] for one in lines} <= set(cli.ROOMS)
    group: Any = typer.main.get_command(cli.app)
    context = typer.Context(group, info_name="deep")
    for room, name, *words in lines:
        command = group.get_command(context, room).get_command(context, name)
        assert command is not None, f"deep {room} {name}"
        command.make_context(name, words, parent=context)


def test_every_credential_is_used_and_declared() -> None:
    named = {
        str(item.value)
        for path in OURS
        for one in read()[path.name].walk()
        if one.is_call("credentials")
        for item in one.items
    }
    assert named == set(credentials())


def test_the_page_names_the_plugins_that_our_pipelines_need() -> None:
    files = [*(read()[path.name] for path in OURS), *library()]
    called = {one.name for tree in files for one in tree.walk() if one.is_call()}
    known = {**syntax().options, **syntax().steps}
    needed = {known[name].plugin for name in called & set(known) if known[name].plugin} | {"credentials-binding"}
    page = (repo_root() / "docs/jenkinsfiles.md").read_text(encoding="utf-8")
    assert {name for name in needed if f"`{name}`" not in page} == set()


def test_each_check_of_the_gate_has_its_stage_once() -> None:
    families = jenkins_stages.families(gate.repository(repo_root()))
    checks = [check for _, named in families.values() for check in named]
    assert sorted(checks) == sorted(gate.wanted(gate.repository(repo_root())))
    assert next(iter(families)).startswith("QC.")


def test_each_layer_has_a_test() -> None:
    parametrised = (repo_root() / "tests/molecule/test_scenarios.py").read_text(encoding="utf-8")
    text = next(iter(jenkins_stages.pages().values()))
    named = [line.partition("LAYER=")[2].partition("'")[0] for line in text.splitlines() if "LAYER=" in line]
    assert named
    assert f"[{', '.join(f'"{name}"' for name in named)}]" in parametrised


def test_the_stages_follow_from_the_data(tmp_path: Path) -> None:
    page = tmp_path / jenkins_stages.PAGE
    page.parent.mkdir(parents=True)
    for folder in ("web", "default"):
        (tmp_path / "molecule" / folder).mkdir(parents=True)
        (tmp_path / "molecule" / folder / "molecule.yml").write_text("---\n")
    settings = {"standards": ["software"], "checks": {"molecule": {"without": ["default"]}}}
    (tmp_path / "sqa.yml").write_text(yaml.safe_dump(settings))
    mark = "{0}: generated by tools/jenkins_stages.py; run `make docs`"
    page.write_text("".join(f"  // {mark.format(name)}\nold\n  // {name}: end\n" for name in jenkins_stages.BLOCKS))
    text = jenkins_stages.pages(tmp_path)[page]
    assert "old" not in text
    assert "make molecule LAYER=web" in text
    assert "LAYER=default" not in text
    assert "stage('QC.Lic Licence')" in text
    generated.write({page: text})
    assert jenkins_stages.pages(tmp_path)[page] == text, "generating again changes nothing"
    page.write_text("pipeline {}\n")
    with pytest.raises(LookupError, match="found: none; needed: layers, quality"):
        jenkins_stages.pages(tmp_path)


def test_our_files_and_the_library_are_valid() -> None:
    variables = steps.library(library())
    assert set(variables) == {"deep", "reports"}
    assert variables["deep"].node
