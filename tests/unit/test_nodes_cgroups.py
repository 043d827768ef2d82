"""Roots for kubelets: made with a usable cpuset, removed leaf first."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import cgroups


@pytest.fixture
def hierarchies(tmp_path: Path) -> list[Path]:
    memory, cpuset = tmp_path / "memory", tmp_path / "cpuset"
    memory.mkdir()
    cpuset.mkdir()
    return [memory, cpuset]


def test_a_root_is_made_in_every_hierarchy(hierarchies: list[Path]) -> None:
    cgroups.create("local", "node1", hierarchies)
    cgroups.create("local", "node1", hierarchies)
    assert all((hierarchy / "deep-local/node1").is_dir() for hierarchy in hierarchies)
    assert cgroups.root_of("local", "node1") == "/deep-local/node1"


def test_an_empty_cpuset_takes_what_its_parent_has(hierarchies: list[Path]) -> None:
    cpuset = hierarchies[1]
    root = cpuset / "deep-local/node1"
    root.mkdir(parents=True)
    for folder, content in ((cpuset, "0-3\n"), (cpuset / "deep-local", "\n"), (root, "\n")):
        for name in cgroups.CPUSET_FILES:
            (folder / name).write_text(content, encoding="ascii")
    cgroups.create("local", "node1", hierarchies)
    assert [(root / name).read_text(encoding="ascii") for name in cgroups.CPUSET_FILES] == ["0-3\n", "0-3\n"]


def test_everything_below_is_removed_and_nothing_beside(hierarchies: list[Path]) -> None:
    cgroups.create("local", "node1", hierarchies)
    cgroups.create("other", "node1", hierarchies)
    (hierarchies[0] / "deep-local/node1/kubepods/besteffort/pod1").mkdir(parents=True)
    assert cgroups.remove("local", hierarchies) == []
    assert not any((hierarchy / "deep-local").exists() for hierarchy in hierarchies)
    assert all((hierarchy / "deep-other/node1").is_dir() for hierarchy in hierarchies)


def test_a_group_that_still_holds_a_process_is_reported(
    hierarchies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "REMOVE_TRIES", 2)
    cgroups.create("local", "node1", hierarchies)
    busy = hierarchies[0] / "deep-local/node1/tasks"
    busy.write_text("1\n", encoding="ascii")
    assert cgroups.remove("local", hierarchies) == [hierarchies[0] / "deep-local"]


def test_what_the_systemd_of_a_removed_node_left_goes_too(hierarchies: list[Path]) -> None:
    left = hierarchies[0] / "docker/abc/system.slice"
    left.mkdir(parents=True)
    assert cgroups.remove_container("abc", hierarchies) == []
    assert not left.parent.exists()
    assert left.parent.parent.is_dir()
