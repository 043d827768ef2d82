"""What the benchmark computes: memory out of control groups, and the page out of what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import identity, memory, testbed


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
    with memory.MemoryPeak("nowhere") as sampled:
        pass
    with pytest.raises(RuntimeError, match="nowhere-container"):
        sampled.mib()


def test_page_says_what_was_reached() -> None:
    report = testbed.Report("a machine", "2026-01-02", minutes=61.4)
    for title, seconds, mib in ((testbed.COLD, 841, 2000), (testbed.WARM, 90, 2900)):
        report.seconds[title] = [seconds]
        report.memory_mib[title] = mib
    report.ratios = {"slow": (2.1, 2.0), "quick": (0.3, 0.35), "free": (1.1, None)}
    report.spent = {count: {"Some task": count / 10} for count in (1, *testbed.SCALE)}
    report.loads = {"token, ours": identity.Load(123.4, 1.2, 5.67)}
    report.decisions = {0: (identity.Load(810, 1.0, 1.4), 5e-6), 10: (identity.Load(800, 1.25, 1.5), 7.54e-6)}
    lines = testbed.render(report).splitlines()
    assert "| token, ours | 123 | 1.2 | 5.7 |" in lines
    assert "| 10 | 7.5 | +2.5 | 800 | 1.25 | 1.50 |" in lines
    assert lines[0] == "Measured on 2026-01-02 in 61 minutes: a machine."
    assert lines[4:7] == [
        "| slow | 2.1x | 2.0x | **not reached** |", "| quick | 0.3x | 0.35x | reached |", "| free | 1.1x |  |  |",
    ]  # fmt: skip
    assert f"| {testbed.COLD} | 14.0 | 14 | **not reached** | 2000 | 2861 (3 GB) | reached |" in lines
    assert f"| {testbed.WARM} | 1.5 | 3 | reached | 2900 | 2861 (3 GB) | **not reached** |" in lines
    assert "| where a play's seconds go | 1 host | 50 hosts | 200 hosts |" in lines
    assert lines[-1] == "| Some task | 0.1 | 5.0 | 20.0 |"


def test_a_part_replaces_its_own_block_only() -> None:
    page = "text\n<!-- measured: up -->\nold\n<!-- end -->\nmore\n<!-- measured: iam -->\nold\n<!-- end -->\n"
    assert testbed.write(page, "iam", "new") == page[::-1].replace("dlo", "wen", 1)[::-1]
    with pytest.raises(SystemExit, match="no block for the part 'abac'"):
        testbed.write(page, "abac", "new")


def test_every_part_has_its_block_in_the_page() -> None:
    page = testbed.PAGE.read_text(encoding="utf-8")
    for part in testbed.PARTS:
        assert "\nnew\n" in testbed.write(page, part, "new")


def test_growth_leaves_the_start_out() -> None:
    start = 100.0
    assert testbed.growth({1: start, 50: start + 49 * 2, 200: start + 199 * 2}) == 1.0
    assert testbed.growth({1: start, 50: start + 49 * 2, 200: start + 199 * 3}) == 1.5


def test_every_silent_host_has_an_address_of_its_own() -> None:
    hosts = testbed.silent_hosts(450)["all"]["hosts"]
    addresses = {host["ansible_host"] for host in hosts.values()}
    assert len(addresses) == len(hosts) == 450
    assert {"198.18.0.1", "198.18.0.200", "198.18.1.1", "198.18.2.50"} <= addresses


def test_requests_take_turns_and_the_burst_that_warms_up_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    loads = iter([identity.Load(1000, 0.1, 0.1)] * 2 + [identity.Load(rate, 5.0, 10.0) for rate in (10, 20, 30, 20)])

    def burst(request: identity.Request, count: int) -> identity.Load:
        order.append(str(request()))
        return next(loads)

    monkeypatch.setattr(identity, "burst", burst)
    found = identity.in_turns({"a": lambda: lambda: "a", "b": lambda: lambda: "b"}, count=1, rounds=2)
    assert order == ["a", "b"] * 3
    assert found == {"a": identity.Load(20, 5.0, 10.0), "b": identity.Load(20, 5.0, 10.0)}


def test_a_burst_sends_every_request_and_passes_a_failure_on() -> None:
    seen: list[int] = []
    load = identity.burst(lambda: seen.append(1), 40)
    assert len(seen) == 40
    assert load.rate > 0
    assert 0 <= load.median_ms <= load.p95_ms
    with pytest.raises(ZeroDivisionError):
        identity.burst(lambda: 1 / 0, 4)
