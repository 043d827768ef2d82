"""The generated pages are up to date, and the generators notice when they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer

from tools import cli_docs, generated, jenkins_stages, licences, role_docs

GENERATORS = {
    "role_docs": role_docs.pages,
    "cli_docs": cli_docs.pages,
    "jenkins_stages": jenkins_stages.pages,
    "licences": licences.pages,
}


@pytest.mark.parametrize("name", GENERATORS)
def test_pages_are_up_to_date(name: str) -> None:
    pages = GENERATORS[name]()
    assert pages
    assert generated.stale(pages) == [], "run `make docs`"


def test_check_refuses_a_changed_page_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("edited by hand\n")
    assert generated.command("", lambda: {page: "generated\n"}, ["--check"]) == 1
    assert page.read_text() == "edited by hand\n"
    assert f"out of date: {page}" in capsys.readouterr().out


def test_writing_makes_the_check_pass(tmp_path: Path) -> None:
    page = tmp_path / "sub" / "page.md"
    assert generated.command("", lambda: {page: "generated\n"}, []) == 0
    assert generated.command("", lambda: {page: "generated\n"}, ["--check"]) == 0


def test_nothing_to_generate_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert generated.command("", dict, ["--check"]) == 2
    assert "no page to generate" in capsys.readouterr().err


def test_a_missing_source_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    def render() -> dict[Path, str]:
        raise LookupError("a-package (found: not installed; needed: 1.0)")

    assert generated.command("", render, []) == 2
    assert "a-package (found: not installed; needed: 1.0)" in capsys.readouterr().err


def test_table_cells_cannot_break_the_table() -> None:
    assert generated.table(["A"], [["x | y\nz"]])[-1] == "| x \\| y z |"


ROLE = """
argument_specs:
  main:
    short_description: Install the thing
    description: [First paragraph., Second paragraph.]
    options:
      thing_mode: {type: str, choices: [a, b], description: The mode}
      thing_hosts: {type: list, elements: str, required: true, description: The hosts}
      thing_name: {type: str, required: true, description: The name}
      thing_limits:
        type: dict
        description: Limits
        options:
          files: {type: int, default: 8, description: Open files}
  precheck:
    short_description: Check the thing
"""


DEFAULTS = """
thing_mode: "{{ site_mode | default('a') }}"
thing_name: "{{ site_name | mandatory('set it') }}"
thing_limits: {files: 8}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    meta = tmp_path / "roles" / "thing" / "meta"
    meta.mkdir(parents=True)
    (meta / "argument_specs.yml").write_text(ROLE)
    (meta / "main.yml").write_text("galaxy_info: {platforms: [{name: Debian, versions: [bookworm]}]}")
    defaults = meta.parent / "defaults"
    defaults.mkdir()
    (defaults / "main.yml").write_text(DEFAULTS)
    return tmp_path


def test_role_page_shows_every_variable_with_its_default(tree: Path) -> None:
    page = role_docs.pages(tree)[tree / "roles/thing/README.md"]
    assert "# deephdc.testbed.thing\n\nInstall the thing\n\nFirst paragraph.\n\nSecond paragraph.\n" in page
    assert "| `thing_mode` | str | `'{{ site_mode | default(''a'') }}'` | The mode" not in page, "a bar ends a cell"
    assert "default(''a'')" in page
    assert "One of `a`, `b`." in page
    assert "| `thing_hosts` | list of str | **required** | The hosts |" in page
    assert "| `thing_limits.files` | int | `8` | Open files |" in page
    assert "| `thing_name` | str | site variable `site_name`, **required** | The name |" in page
    assert "- Debian: bookworm" in page


def test_role_index_lists_the_role(tree: Path) -> None:
    index = role_docs.pages(tree)[tree / "docs/reference/roles.md"]
    assert "| [thing](../../roles/thing/README.md) | Install the thing | 4 |" in index


def test_command_line_page_follows_the_application() -> None:
    app = typer.Typer(help="All of it")
    group = typer.Typer(help="Some of it")
    app.add_typer(group, name="room")

    @group.command()
    def enter(name: str, nodes: Annotated[int, typer.Option(help="How many")] = 2) -> None:
        """Enter the room."""

    @group.command(hidden=True)
    def secret() -> None:
        """Not shown."""

    page = cli_docs.render(app)
    assert "## deep room enter\n\n`deep room enter [OPTIONS] {name}`\n\nEnter the room.\n" in page
    assert "| `--nodes <int>` | How many [default: 2] |" in page
    assert "Not shown" not in page


def test_a_package_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    requirements = tmp_path / "x.txt"
    requirements.write_text("pytest==0.0.1 \\\n    --hash=sha256:00\n")
    with pytest.raises(LookupError, match=r"pytest \(found: .*; needed: 0.0.1\)"):
        licences.python_rows([requirements])
    requirements.write_text("no-such-package==1.0 \\\n    --hash=sha256:00\n")
    with pytest.raises(LookupError, match="not installed"):
        licences.python_rows([requirements])


def test_an_artefact_without_a_licence_is_refused(tmp_path: Path) -> None:
    declaration = tmp_path / "thing.yml"
    declaration.write_text("name: thing\nversion: '1'\n")
    with pytest.raises(KeyError, match="licence"):
        licences.artefact_rows([declaration])


def test_packages_of_artefacts_are_listed_once_with_their_artefacts(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "licences.txt").write_text(f"shared==1.0 BSD 3-Clause\n{name}==2 MIT\n")
    assert licences.hosts_rows(sorted(tmp_path.glob("*/licences.txt"))) == [
        ["one", "2", "MIT", "one"],
        ["shared", "1.0", "BSD 3-Clause", "one, two"],
        ["two", "2", "MIT", "two"],
    ]
