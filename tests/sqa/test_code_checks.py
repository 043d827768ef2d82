"""The checks of code: each finds what was planted, and never passes without having looked."""

from __future__ import annotations

import shutil
import venv
from pathlib import Path

import pytest
import yaml

from sqa.checks.semgrep import FILES, ID
from sqa.model import Outcome, Verdict
from tests.sqa.real_checks import places, run, write

SHELL = "shell=" + "True"  # as text, so that it is a defect in the planted files alone
TWIN = '"""Sums."""\n\n\ndef summed(value):\n    """Sum."""\n    total = 0\n' + "".join(
    f"    total += {number} * value\n" for number in range(12)
)
PLANTED = {
    "mypy": ({"pkg/typed.py": "a = 1\nb: str = a\n"}, ("pkg/typed.py", 2, "assignment")),
    "pylint": ({"pkg/bad.py": '"""Bad."""\n\nX = 1\nX == 2\n'}, ("pkg/bad.py", 4, "pointless-statement")),
    "semgrep": ({"pkg/name.py": "import tempfile\n\ntempfile." + "mktemp()\n"}, ("pkg/name.py", 3, "temporary-name")),
    "bandit": ({"pkg/run.py": f"import subprocess\n\nsubprocess.run(input(), {SHELL})\n"}, ("pkg/run.py", 3, "B602")),
    "shellcheck": ({"bin/tool": "#!/usr/bin/env bash\ncd /tmp\nls $1\n"}, ("bin/tool", 3, "SC2086")),
    "hadolint": ({"docker/Dockerfile": "FROM debian:12\nRUN cd /\n"}, ("docker/Dockerfile", 2, "DL3003")),
}
CLEAN = {
    "mypy": {"pkg/clean.py": "print(1)\n"},
    "pylint": {"pkg/clean.py": '"""Clean."""\n'},
    "duplicates": {"one.py": TWIN, "two.py": '"""Other."""\n'},
    "semgrep": {"pkg/clean.py": "print(1)\n", "clean.yml": "---\na: 1\n"},
    "bandit": {"pkg/clean.py": "print(1)\n"},
    "shellcheck": {"clean.sh": "#!/bin/sh\nexit 0\n"},
    "hadolint": {"Dockerfile": "FROM debian:12\n"},
}
SAMPLES = yaml.safe_load((Path(__file__).parent / "semgrep_samples.yml").read_text(encoding="utf-8"))
# A configuration that cannot be used, and what is said of it.
BROKEN = {
    "mypy": ("mypy.ini", "[mypy]\nstrictt = true\n", "strictt"),
    "pylint": ("pyproject.toml", "[tool.pylint.main]\nload-plugins = ['nowhere']\n", "nowhere"),
    "duplicates": (".pylintrc", "[SIMILARITIES]\nleast=4\n", "least"),
    "bandit": ("pyproject.toml", "[tool.bandit]\nskips = ['B999']\n", "B999"),
    "shellcheck": (".shellcheckrc", "frobnicate\n", "Failed to process .shellcheckrc"),
    "hadolint": (".hadolint.yaml", "ignored: DL3003\n", "parsing your config file"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found_in_its_line(name: str, tmp_path: Path) -> None:
    files, place = PLANTED[name]
    found = run(write(tmp_path / "tree", files), name)
    assert place in places(found), found.reasons
    assert (found.verdict, found.examined) == (Verdict.FAIL, 1)


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_tree_passes(name: str, tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", CLEAN[name]), name)
    assert (found.verdict, found.reasons, found.examined) == (Verdict.PASS, (), len(CLEAN[name]))


@pytest.mark.parametrize("name", BROKEN)
def test_a_configuration_that_cannot_be_used_is_no_pass(name: str, tmp_path: Path) -> None:
    config, text, why = BROKEN[name]
    found = run(write(tmp_path / "tree", {**CLEAN[name], config: text}), name)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert why in found.reasons[0]
    assert str(tmp_path) not in found.reasons[0]


@pytest.mark.parametrize("name", CLEAN)
def test_a_setting_that_a_check_does_not_take_is_no_pass(name: str, tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", CLEAN[name]), name, pyhton=1)
    assert (found.verdict, f"checks.{name}.pyhton" in found.reasons[0]) == (Verdict.INCONCLUSIVE, True)


@pytest.mark.parametrize("name", ["bandit", "hadolint", "pylint", "semgrep"])
def test_one_file_at_a_time_finds_what_all_together_do(name: str, tmp_path: Path) -> None:
    files, _ = PLANTED[name]
    root = write(tmp_path / "all" / "tree", {**files, **CLEAN[name]})
    cold, warm = run(root, name), run(root, name)
    assert warm.cached
    assert said(cold) == said(warm)
    single = write(tmp_path / "single" / "tree", {**files, **CLEAN[name]})
    for file in (*files, *CLEAN[name]):
        run(single, name, frozenset({file}))
    pieced = run(single, name)
    assert pieced.cached
    assert said(pieced) == said(cold)


def said(found: Outcome) -> object:
    """What must not differ."""
    return found.verdict, found.findings, found.examined, found.work


def test_bandit_leaves_what_the_repository_leaves(tmp_path: Path) -> None:
    files, place = PLANTED["bandit"]
    root = write(tmp_path / "tree", {**files, **CLEAN["bandit"], "pyproject.toml": ""})
    assert place in places(run(root, "bandit"))
    write(root, {"pyproject.toml": "[tool.bandit]\nexclude_dirs = ['./pkg/run.py']\n"})
    found = run(root, "bandit")
    assert (found.verdict, found.selected, found.examined) == (Verdict.PASS, 2, 1)


def test_a_file_that_bandit_cannot_parse_is_no_pass(tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", {**CLEAN["bandit"], "pkg/broken.py": "def ("}), "bandit")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "pkg/broken.py: syntax error" in found.reasons[0]


def test_scripts_are_known_by_their_first_line(tmp_path: Path) -> None:
    script = "#!/bin/sh\nls $1\n"
    files = {
        "plain": script,
        "dotted.d": script,
        "env": "#!/usr/bin/env -S bash -e\nls $1\n",
        "python": "#!/usr/bin/env python3\nx = 1\n",
        "zsh": "#!/bin/zsh\nls $1\n",
        "data": "ls $1\n",
    }
    found = run(write(tmp_path / "tree", files), "shellcheck")
    assert {one.path for one in found.findings} == {"plain", "dotted.d", "env"}
    assert found.selected == 3


PYTHON = "#!/usr/bin/env python3\n"
SCRIPTS = {
    "ruff": ("import os\n", ("bin/tool", 2, "F401")),
    "bandit": (f"import subprocess\n\nsubprocess.run(input(), {SHELL})\n", ("bin/tool", 4, "B602")),
    "pylint": ('"""Bad."""\n\nX = 1\nX == 2\n', ("bin/tool", 5, "pointless-statement")),
    "mypy": ("a = 1\nb: str = a\n", ("bin/tool", 3, "assignment")),
    "semgrep": ("import tempfile\n\ntempfile." + "mktemp()\n", ("bin/tool", 4, "temporary-name")),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_of_python_are_examined_whatever_they_are_called(name: str, tmp_path: Path) -> None:
    """Also where there are several, and where a package has the name of one."""
    text, place = SCRIPTS[name]
    clean = '"""Clean."""\n'
    files = {"bin/tool": PYTHON + text, "bin/other": PYTHON + clean, "tool/__init__.py": clean, "bin/data": "no = (\n"}
    found = run(write(tmp_path / "tree", files), name)
    assert place in places(found), found.reasons
    assert {one.path for one in found.findings} == {"bin/tool"}
    assert (found.selected, found.examined) == (3, 3)


@pytest.mark.parametrize("first", ["/usr/bin/python3.12", "/usr/bin/env -S python3 -u", ".venv/bin/python"])
def test_semgrep_reads_scripts_that_it_does_not_know_by_itself(tmp_path: Path, first: str) -> None:
    root = write(tmp_path / "tree", {"bin/tool": f"#!{first}\nimport tempfile\n\ntempfile." + "mktemp()\n"})
    found = run(root, "semgrep")
    assert (places(found), found.examined) == ({("bin/tool", 4, "temporary-name")}, 1)
    broken = run(write(root, {"bin/tool": f"#!{first}\nimport tempfile\ntempfile." + "mktemp(\n)))\n"}), "semgrep")
    assert broken.verdict is Verdict.INCONCLUSIVE
    assert "bin/tool: " in broken.reasons[0]
    assert str(tmp_path) not in broken.reasons[0]


def test_every_rule_of_semgrep_has_a_sample() -> None:
    assert sorted(SAMPLES) == sorted(name for path in FILES for name in ID.findall(path.read_text("utf-8")))


def test_every_rule_of_semgrep_finds_its_sample_and_nothing_else(tmp_path: Path) -> None:
    files = {
        f"{rule}/{kind}/{one['file']}": one[kind] for rule, one in SAMPLES.items() for kind in ("bad", "good")
    }  # fmt: skip
    found = run(write(tmp_path / "tree", files), "semgrep")
    last = {rule: len(one["bad"].splitlines()) for rule, one in SAMPLES.items()}
    assert places(found) == {(f"{rule}/bad/{one['file']}", last[rule], rule) for rule, one in SAMPLES.items()}
    assert found.examined == len(files)


def test_what_semgrep_cannot_parse_is_no_pass(tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", {"a.py": "import tempfile\ntempfile." + "mktemp(\n)))\n"}), "semgrep")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "a.py" in found.reasons[0]


def test_a_file_that_mypy_cannot_parse_is_no_pass(tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", {**CLEAN["mypy"], "broken.py": "x = (\n"}), "mypy")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "broken.py" in found.reasons[0]


@pytest.mark.parametrize("name", ["duplicates", "pylint"])
def test_a_file_that_pylint_cannot_parse_is_a_finding(name: str, tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", {**CLEAN[name], "broken.py": "x = (\n"}), name)
    assert (found.verdict, places(found)) == (Verdict.FAIL, {("broken.py", 1, "syntax-error")})


def test_mypy_examines_what_its_configuration_names(tmp_path: Path) -> None:
    files, place = PLANTED["mypy"]
    root = write(tmp_path / "tree", {**files, "mypy.ini": "[mypy]\nfiles = other.py\n", "other.py": "a = 1\n"})
    assert (run(root, "mypy").verdict, run(root, "mypy").examined) == (Verdict.PASS, 1)
    write(root, {"mypy.ini": "[mypy]\nfiles = .\n"})
    assert places(run(root, "mypy")) == {place}


def test_what_mypy_remembers_does_not_hide_a_defect_elsewhere(tmp_path: Path) -> None:
    root = write(tmp_path / "tree", {"a.py": "def f() -> int:\n    return 1\n", "b.py": "import a\n\nx: int = a.f()\n"})
    assert run(root, "mypy").verdict is Verdict.PASS
    write(root, {"a.py": "def f() -> str:\n    return '1'\n"})
    assert places(run(root, "mypy")) == {("b.py", 3, "assignment")}


def test_code_that_is_there_twice_is_found(tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", {"one.py": TWIN, "two.py": TWIN}), "duplicates")
    assert (found.verdict, {one.rule for one in found.findings}) == (Verdict.FAIL, {"duplicate-code"})


def test_how_much_counts_as_twice_is_the_repositorys_own(tmp_path: Path) -> None:
    files = {
        "one.py": TWIN,
        "two.py": TWIN,
        "pyproject.toml": "[tool.pylint.similarities]\nmin-similarity-lines = 40\n",
    }
    assert run(write(tmp_path / "tree", files), "duplicates").verdict is Verdict.PASS


@pytest.mark.parametrize("folder", ["", "src/", "services/one/"])
def test_pylint_sees_what_a_file_imports(folder: str, tmp_path: Path) -> None:
    """A call with too many arguments is only known from the other file, wherever packages are."""
    other = '"""Other."""\n\n\ndef f():\n    """F."""\n'
    files = {
        f"{folder}pkg/__init__.py": "", f"{folder}pkg/other.py": other,
        "tests/use.py": '"""Use."""\n\nfrom pkg import other\n\nother.f(1)\n',
    }  # fmt: skip
    root = write(tmp_path / "tree", files)
    assert places(run(root, "pylint")) == {("tests/use.py", 5, "too-many-function-args")}
    write(root, {f"{folder}pkg/other.py": other.replace("f()", "f(x)").replace('F."""', 'F."""\n    return x')})
    assert run(root, "pylint").verdict is Verdict.PASS


def test_a_script_for_which_pylint_takes_a_module_is_no_pass(tmp_path: Path) -> None:
    """Whichever of the two was there first."""
    script = {"deploy": PYTHON + '"""Deploy."""\n\nX = 1\nX == 2\n'}
    module = {"deploy.py": '"""Nothing to see."""\n'}
    found = run(write(tmp_path / "cold" / "tree", {**script, **module}), "pylint")
    assert (found.verdict, found.reasons) == (
        Verdict.INCONCLUSIVE,
        ("deploy: pylint looks at deploy.py instead of it; rename one of them, or exclude deploy in sqa.yml",),
    )
    root = write(tmp_path / "warm" / "tree", script)
    assert places(run(root, "pylint")) == {("deploy", 5, "pointless-statement")}
    assert run(write(root, module), "pylint").reasons == found.reasons


def test_a_message_of_pylint_names_no_line_of_another_module(tmp_path: Path) -> None:
    """Such a line moves with remarks there, for which nobody looks at this file again."""
    base = (
        '"""Base."""\n\n\nclass Base:\n    """Base."""\n\n    def __init__(self):\n        self.f = 1\n\n\nP = [1, 2]\n'
    )
    use = (
        '"""Use."""\n\nfrom base import P, Base\n\nX, Y, Z = P\n\n\nclass Use(Base):\n    """Use."""\n\n'
        '    def f(self):\n        """F."""\n'
    )
    root = write(tmp_path / "tree", {"base.py": base, "use.py": use, ".pylintrc": "[MAIN]\n"})
    before = run(root, "pylint").findings
    assert {"method-hidden", "unbalanced-tuple-unpacking"} <= {one.rule for one in before}
    said = [one.message for one in before if one.path == "use.py"]
    write(root, {"base.py": f"# of note\n# too\n{base}"})
    warm = run(root, "pylint")
    shutil.rmtree(tmp_path / "tree")
    (tmp_path / "results.db").unlink()
    cold = run(write(root, {"base.py": f"# of note\n# too\n{base}", "use.py": use, ".pylintrc": "[MAIN]\n"}), "pylint")
    assert warm.findings == cold.findings
    assert said == [one.message for one in warm.findings if one.path == "use.py"]


def test_what_pylint_is_told_to_leave_it_leaves(tmp_path: Path) -> None:
    files, _ = PLANTED["pylint"]
    config = {"pyproject.toml": "[tool.pylint.main]\nignore-paths = ['^pkg/bad']\n"}
    found = run(write(tmp_path / "tree", {**files, **CLEAN["pylint"], **config}), "pylint")
    assert (found.verdict, found.selected, found.examined) == (Verdict.PASS, 2, 1)


@pytest.mark.parametrize("name", ["mypy", "pylint"])
def test_packages_of_the_repository_are_found(name: str, tmp_path: Path) -> None:
    said = '"""Use."""\n\nfrom thing import f\n\nf(1)\n'
    root = write(tmp_path / "tree", {"use.py": said, ".pylintrc": "[MAIN]\n", "mypy.ini": "[mypy]\n"})
    venv.create(tmp_path / "env", symlinks=True)
    packages = next((tmp_path / "env" / "lib").glob("python3*/site-packages"))
    write(
        packages,
        {"thing/__init__.py": "def f() -> None:\n    pass\n", "thing/py.typed": "", "thing-1.dist-info/METADATA": ""},
    )
    python = str(tmp_path / "env/bin/python")
    found = run(root, name, python=python)
    assert {one.line for one in found.findings} == {5}, found.reasons
    write(packages, {"thing/__init__.py": "def f(x: int) -> None:\n    print(x)\n"})
    (packages / "thing-1.dist-info").rename(packages / "thing-2.dist-info")
    assert run(root, name, python=python).verdict is Verdict.PASS


@pytest.mark.parametrize("name", ["mypy", "pylint"])
def test_an_environment_that_is_not_there_is_no_pass(name: str, tmp_path: Path) -> None:
    found = run(write(tmp_path / "tree", CLEAN[name]), name, python=".venv/bin/python")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "no virtual environment (found .venv/bin/python)" in found.reasons[0]
