"""What the benchmark computes: memory out of control groups, and the page out of what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import memory


def group(folder: Path, usage: str, used: int, statistics: str) -> None:
    """A control group with what the kernel says of its memory."""
    folder.mkdir(parents=True)
    (folder / usage).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(statistics)


@pytest.mark.parametrize("place", ["docker/c1", "system.slice/docker-c1.scope"])
def test_version_1_counts_the_pods_beside_the_container(tmp_path: Path, place: str) -> None:
    own = "inactive_file 1\ntotal_inactive_file 30\n"
    group(tmp_path / "memory" / place, "memory.usage_in_bytes", 100, own)
    group(tmp_path / "memory/deep-here", "memory.usage_in_bytes", 1000, own)
    group(tmp_path / "memory/deep-other", "memory.usage_in_bytes", 5000, own)
    assert memory.working_set("here", ["c1"], tmp_path) == 1040


@pytest.mark.parametrize("place", ["docker/{}", "system.slice/docker-{}.scope"])
def test_version_2_counts_every_container(tmp_path: Path, place: str) -> None:
    for name in ("c1", "c2"):
        group(tmp_path / place.format(name), "memory.current", 100, "anon 1\ninactive_file 40\n")
    assert memory.working_set("here", ["c1", "c2"], tmp_path) == 120


def test_a_container_without_a_group_is_no_memory_of_zero(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"container c1 has none of the control groups .*docker-c1\.scope"):
        memory.working_set("here", ["c1"], tmp_path)


def test_the_sampler_passes_on_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "containers", lambda name: [f"{name}-container"])
    with pytest.raises(RuntimeError, match="nowhere-container"):
        memory.MemoryPeak("nowhere").stop()
