"""What somebody puts into a store, or changes while a step is going on, is never signed and never published."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.release import candidate as candidates
from pipelines.release import evidence
from pipelines.release.candidate import FILES, SIGNATURE
from pipelines.release.state import Stage
from pipelines.release.steps import Release
from pipelines.release.store import QUALITY, STATE, Store, read_state
from testbed.errors import DeepError
from tests.unit import release_toys
from tests.unit.release_toys import Workshop, in_production, replaced

pytestmark = release_toys.NEEDS_PROGRAMS


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with release_toys.workshop(tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture(scope="module")
def first(shop: Workshop) -> Path:
    return shop.candidate("1.0.0", kinds=("deb",))


@pytest.fixture(scope="module")
def second(shop: Workshop) -> Path:
    return shop.candidate("1.1.0", kinds=("deb",))


@pytest.fixture
def release(shop: Workshop, tmp_path: Path) -> Release:
    return shop.release(tmp_path / "store")


def published(release: Release) -> str:
    """All that hosts find below the stages, as one text."""
    found = []
    for link in release.store.public.glob("*/deep-1"):
        if link.is_symlink():
            found += [str(path.relative_to(link)) for path in link.rglob("*")]
            found += [path.read_text() for path in link.rglob("Packages")]
    return "\n".join(found)


def plant(folder: Path) -> None:
    """A package of nobody in a state, and in its index."""
    (folder / "debian12/pool/base/planted.deb").write_bytes(b"planted")
    index = folder / "debian12/dists/base/main/binary-amd64/Packages"
    text = index.read_bytes() + b"Package: planted\nFilename: pool/base/planted.deb\nSHA256: 0\n\n"
    replaced(index, text)
    replaced(index.with_name("Packages.gz"), gzip.compress(text, mtime=0))


@pytest.mark.parametrize(("stage", "other"), [("testing", "production"), ("production", "testing")])
def test_what_was_planted_in_a_state_is_not_brought_back(
    release: Release, first: Path, second: Path, stage: Stage, other: Stage
) -> None:
    in_production(release, first, second)
    plant(release.store.public / "states/deep-1" / f"{stage}-0001")
    with pytest.raises(DeepError, match=rf"1\.0\.0 of {stage} is not whole .*planted\.deb was not published"):
        release.rollback("1.0.0", stage)
    # A state of the same packages is not where indices are taken from, unless it was looked through.
    assert release.rollback("1.0.0", other)[1]
    assert release.verify()["ok"]
    assert "planted" not in published(release)


def test_what_was_made_is_looked_at_before_anybody_gets_it(
    release: Release, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release.stage(first)
    real = shutil.which  # any call that happens while a state is made

    def while_it_is_made(name: str) -> Any:
        for made in (release.store.public / "states/deep-1").glob(".tmp-*/debian12/pool/base"):
            (made / "planted.deb").write_bytes(b"planted")
        return real(name)

    monkeypatch.setattr(shutil, "which", while_it_is_made)
    with pytest.raises(DeepError, match=r"debian12/pool/base/planted\.deb was not published"):
        release.promote("1.0.0", "testing")
    assert release.store.current("deep-1", "testing") is None
    monkeypatch.undo()
    assert release.promote("1.0.0", "testing")[0].name == "testing-0001"
    assert release.verify()["ok"]


def forged(release: Release, first: Path, second: Path) -> Any:
    """What an intent says that no step has written: a version that nobody attests, for production."""
    release.stage(first)
    state = release.store.current("deep-1", "preview")
    assert state is not None
    folder = Path(shutil.copytree(second, release.store.candidates("deep-1") / "1.1.0"))
    for name in (SIGNATURE, QUALITY):
        (folder / name).unlink()
    (deb,) = (one for one in candidates.read(folder).artefacts if one.kind == "deb")
    different = {"version": "1.1.0", "file": deb.file, "sha256": deb.sha256}
    package = state.packages[0].model_copy(update=different)
    return state.model_copy(update={"stage": "production", "version": "1.1.0", "packages": (package,)})


def test_a_forged_line_of_the_journal_is_not_carried_out(release: Release, first: Path, second: Path) -> None:
    state = forged(release, first, second)
    release.store.journal.intend("promote", state)
    assert not release.stage(first)[1]
    assert release.store.current("deep-1", "production") is None
    assert release.store.journal.pending() is None
    assert release.verify()["ok"]


def test_nor_is_one_whose_state_somebody_has_laid_there(release: Release, first: Path, second: Path) -> None:
    state = forged(release, first, second)
    release.store.journal.intend("promote", state)
    place = release.store.folder(state)
    shutil.copytree(release.store.link("deep-1", "preview"), place)
    for text in (release.store.link("deep-1", "preview").joinpath(STATE).read_text(), state.model_dump_json()):
        replaced(place / STATE, text.encode())
        with pytest.raises(DeepError, match=r"1\.1\.0 of production is not whole") as refused:
            release.stage(first)
        assert refused.value.exit_code == 1
        assert str(place) in str(refused.value.next_step)
    assert release.store.current("deep-1", "production") is None
    shutil.move(place, release.store.root / "set-aside")
    assert not release.stage(first)[1]
    assert release.verify()["ok"]


def test_nor_is_one_that_says_something_else_of_itself(
    release: Release, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as cut:
        cut.setattr(Store, "carry_out", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            release.stage(first)
    path = release.store.public / "states/deep-1/preview-0001" / STATE
    whole = path.read_bytes()
    said = read_state(path.parent)
    replaced(path, said.model_copy(update={"commit": "0" * 40}).model_dump_json().encode())
    with pytest.raises(DeepError, match="preview-0001 is not the state preview-0001"):
        release.stage(first)
    assert release.store.current("deep-1", "preview") is None
    replaced(path, whole)
    assert not release.stage(first)[1]
    assert release.store.current("deep-1", "preview") == said


def test_what_was_looked_at_is_what_was_copied(
    release: Release, shop: Workshop, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole other candidate, which nobody attests, is put in its place between the look and the copy."""
    made = Path(shutil.copytree(first, tmp_path / "made"))
    other = shop.candidate("1.0.0", {"tool": "planted\n"}, kinds=("deb",))
    looked, copied = evidence.problems, shutil.copyfile

    def swap(*arguments: Any, **named: Any) -> Any:
        found = [*looked(*arguments, **named)]
        for path in other.rglob("*"):
            if path.is_file() and path.suffix in (".deb", ".json"):
                copied(path, made / path.relative_to(other))
        return found

    monkeypatch.setattr(evidence, "problems", swap)
    try:
        release.stage(made)
    except DeepError:
        return  # what it saw it did not take
    text = published(release)
    copy = release.store.candidates("deep-1") / "1.0.0" / FILES / "tool_1.0.0_all.deb"
    assert copy.read_bytes() == (first / FILES / copy.name).read_bytes()
    assert "tool_1.0.0_all.deb" in text


def test_what_changes_while_it_is_copied_is_not_taken(
    release: Release, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = shutil.copyfile

    def altered(source: Path, target: Path) -> None:
        copied(source, target)
        if target.suffix == ".deb":
            target.write_bytes(target.read_bytes() + b"planted")

    monkeypatch.setattr(shutil, "copyfile", altered)
    with pytest.raises(DeepError, match=r"tool_1\.0\.0_all\.deb has the digest"):
        release.stage(first)
    assert not [*release.store.public.glob("candidates/*/*")]


def test_a_base_whose_file_was_altered_is_not_taken_along(release: Release, first: Path, second: Path) -> None:
    release.stage(first)
    path = release.store.candidates("deep-1") / "1.0.0" / FILES / "tool_1.0.0_all.deb"
    replaced(path, path.read_bytes() + b"planted")
    with pytest.raises(DeepError, match=r"1\.1\.0 of preview is not whole .*tool_1\.0\.0_all\.deb has the digest"):
        release.stage(second)
    current = release.store.current("deep-1", "preview")
    assert current is not None
    assert current.version == "1.0.0"


def test_a_base_that_nobody_has_built_is_not_taken_along(release: Release, first: Path, second: Path) -> None:
    release.stage(first)
    current = release.store.current("deep-1", "preview")
    assert current is not None
    path = release.store.candidates("deep-1") / "1.0.0" / FILES / "planted.deb"
    path.write_bytes((path.with_name("tool_1.0.0_all.deb")).read_bytes())
    more = current.packages[0].model_copy(update={"file": path.name})
    said = current.model_copy(update={"packages": (*current.packages, more)})
    replaced(release.store.folder(current) / STATE, said.model_dump_json().encode())
    with pytest.raises(DeepError, match=r"planted\.deb (is not of the candidate 1\.0\.0|was not built)"):
        release.stage(second)
