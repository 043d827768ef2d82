"""Who is believed, and what for: keys and signers that change, clocks, commits, gates, versions, platforms."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.release import build, packages
from pipelines.release import candidate as candidates
from pipelines.release.candidate import SIGNATURE
from pipelines.release.manifest import Declared, Product
from pipelines.release.steps import Release
from pipelines.release.store import QUALITY
from testbed.errors import DeepError
from tests.unit import release_repository, release_toys
from tests.unit.release_toys import NOW, Workshop, in_production, replaced
from tests.unit.sqa_toys import commit

pytestmark = release_toys.NEEDS_PROGRAMS


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with release_toys.workshop(tmp_path) as made:
        yield made


@pytest.fixture
def first(shop: Workshop) -> Path:
    return shop.candidate("1.0.0", kinds=("deb",))


@pytest.fixture
def release(shop: Workshop, tmp_path: Path) -> Release:
    return shop.release(tmp_path / "store")


def other_key(shop: Workshop, name: str = "other", **different: Any) -> str:
    return release_toys.new_key(shop.keyring.home or Path(), name, **different)


def gpg(shop: Workshop, *words: str) -> None:
    argv = ["gpg", "--homedir", str(shop.keyring.home), "--batch", "--yes", *words]
    subprocess.run(argv, check=True, capture_output=True)


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_line_goes_on_when_the_key_of_the_build_is_another(release: Release, shop: Workshop, first: Path) -> None:
    in_production(release, first)
    new = other_key(shop)
    second = shop.candidate("1.1.0", kinds=("deb",))
    shop.sign(second, candidates.read(second), key=new)
    root = release.store.root
    with pytest.raises(DeepError, match="by another key"):
        release.stage(second)
    with pytest.raises(DeepError, match=r"not whole .*candidate 1\.0\.0: the signature does not hold"):
        shop.release(root, build_keys=(new,)).stage(second)
    both = shop.release(root, build_keys=(new, shop.key))
    in_production(both, second)
    assert both.verify()["ok"]


def test_what_attests_a_candidate_can_be_renewed(release: Release, shop: Workshop, first: Path) -> None:
    in_production(release, first)
    new = other_key(shop)
    renewed = shop.release(release.store.root, build_keys=(new,))
    assert not renewed.verify()["ok"]
    shop.sign(first, candidates.read(first), key=new)
    assert not renewed.stage(first)[1]
    assert renewed.verify()["ok"]
    published = release.store.candidates("deep-1") / "1.0.0" / SIGNATURE
    assert published.read_bytes() == (first / SIGNATURE).read_bytes()
    assert published.stat().st_mode & 0o777 == 0o444


def test_a_signer_who_has_left_is_replaced(release: Release, shop: Workshop, first: Path) -> None:
    in_production(release, first)
    shop.signer.unlink()
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", shop.signer], check=True, stdin=subprocess.DEVNULL)
    (shop.root / ".sqa/signers").write_text(f"others {shop.signer.with_suffix('.pub').read_text()}")
    commit(shop.root)
    now = shop.release(release.store.root)
    assert "no signature of a known signer holds" in str(now.verify()["stages"])
    with pytest.raises(DeepError, match="no signature of a known signer holds"):
        now.promote("1.0.0", "testing")
    shop.sign(first, candidates.read(first))
    assert not now.stage(first)[1]
    assert now.verify()["ok"]


@pytest.mark.parametrize("case", ["public", "young"])
def test_a_key_that_cannot_sign_stands_in_nobodys_way(release: Release, shop: Workshop, first: Path, case: str) -> None:
    release.stage(first)
    if case == "public":
        key, said = other_key(shop), "the secret part of the key .* is not here"
        gpg(shop, "--delete-secret-keys", key)
    else:
        key, said = other_key(shop, at=NOW + 3600), "gpg failed"
    cannot = shop.release(release.store.root, keys=(key, shop.key))
    with pytest.raises(DeepError, match=said):
        cannot.promote("1.0.0", "testing")
    assert release.store.journal.pending() is None
    assert release.promote("1.0.0", "testing")[1]
    assert release.verify()["ok"]


def test_an_expired_key_is_named_before_anything_is_made(release: Release, shop: Workshop, first: Path) -> None:
    release.stage(first)
    late = shop.release(release.store.root, keys=(other_key(shop, expires="1d"), shop.key))
    with pytest.raises(DeepError, match=r"the key [0-9A-F]{40} has expired"):
        late.promote("1.0.0", "testing")
    with pytest.raises(DeepError, match=r"the key [0-9A-F]{40} has expired"):
        late.rollback("1.0.0", "preview")


def test_a_plan_looks_for_the_secret_key(release: Release, shop: Workshop, first: Path) -> None:
    key = other_key(shop)
    gpg(shop, "--delete-secret-keys", key)
    planned = shop.release(release.store.root, keys=(key,)).plan(first)
    assert not planned["ok"]
    assert "the secret part of the key" in planned["steps"][0]["refused"][0]


def test_a_plan_knows_what_another_key_changes(release: Release, shop: Workshop, first: Path) -> None:
    in_production(release, first)
    assert {one["does"] for one in release.plan(first)["steps"]} == {"nothing: it is there"}
    other = shop.release(release.store.root, keys=(other_key(shop), shop.key)).plan(first)
    assert other["steps"][0]["does"] == "1.0.0 into preview"


def test_a_key_that_was_prolonged_is_brought_to_its_users(shop: Workshop, first: Path, tmp_path: Path) -> None:
    key = other_key(shop, expires="1y")
    release = shop.release(tmp_path / "store", keys=(key,))
    release.stage(first)
    gpg(shop, "--quick-set-expire", key, "2y")
    found = release.verify()
    assert found["ok"]
    assert "key.asc is not as the key is by now" in found["stages"][0]["warnings"][0]
    assert release.stage(first)[0].name == "preview-0002"
    assert not release.verify()["stages"][0]["warnings"]
    assert not release.stage(first)[1]


def test_hosts_are_not_begun_with_another_key(release: Release, shop: Workshop) -> None:
    text = shop.keyring.public(other_key(shop)).decode()
    strange = shop.candidate("1.0.0", {"deephdc-release": text}, kinds=("deb", "rpm"))
    with pytest.raises(DeepError, match=r"deephdc-release.1\.0\.0.* lacks the key of the repositories"):
        release.stage(strange)
    own = shop.keyring.public(shop.key).decode()
    assert release.stage(shop.candidate("1.0.0", {"deephdc-release": own}))[1]


# --- clocks ---------------------------------------------------------------------------------------------------------


def test_a_clock_that_was_ahead_does_not_date_a_stage_for_good(
    release: Release, shop: Workshop, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.release(release.store.root, lambda: NOW + 86_400).stage(first)
    assert "which has yet to come" in release.verify()["stages"][0]["problems"][0]
    second = shop.candidate("1.1.0", kinds=("deb",))
    with pytest.raises(DeepError, match=r"preview is from the future \(found: its state preview-0001"):
        release.stage(second)
    assert [one.version for one in release.store.states("deep-1")] == ["1.0.0"]


def test_the_time_of_a_state_is_not_that_of_a_build(
    shop: Workshop, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(time.time()) + 86_400))
    state, _ = shop.release(tmp_path / "store", time.time).stage(first)
    assert state.time <= time.time()


# --- the repository -------------------------------------------------------------------------------------------------


def test_only_signers_who_are_committed_count(release: Release, shop: Workshop, first: Path) -> None:
    signers = shop.root / ".sqa/signers"
    subprocess.run(["git", "rm", "-q", "--cached", ".sqa/signers"], cwd=shop.root, check=True)
    (shop.root / ".gitignore").write_text("signers\n")
    commit(shop.root)
    assert signers.is_file()  # git status is silent about it
    again = shop.candidate("1.0.0", kinds=("deb",))
    with pytest.raises(DeepError, match=r"nobody may sign \(found: no \.sqa/signers in the commit"):
        release.stage(again)


def test_a_change_of_signers_that_git_overlooks_counts_for_nothing(release: Release, shop: Workshop) -> None:
    argv = ["git", "update-index", "--assume-unchanged", ".sqa/signers"]
    subprocess.run(argv, cwd=shop.root, check=True)
    shop.signer.unlink()
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", shop.signer], check=True, stdin=subprocess.DEVNULL)
    (shop.root / ".sqa/signers").write_text(f"strangers {shop.signer.with_suffix('.pub').read_text()}")
    with pytest.raises(DeepError, match=r"refused for 2 reasons .*no signature of .*; no signature of a known signer"):
        release.stage(shop.candidate("1.0.0", kinds=("deb",)))


def test_no_step_is_taken_beside_changes(release: Release, shop: Workshop, first: Path) -> None:
    release.stage(first)
    (shop.root / "stray").write_text("new")
    with pytest.raises(DeepError, match="the repository is not what one of its commits is"):
        release.promote("1.0.0", "testing")
    with pytest.raises(DeepError, match="the repository is not what one of its commits is"):
        release.rollback("1.0.0", "preview")


def test_a_commit_of_another_history_is_refused(release: Release, shop: Workshop) -> None:
    argv = ["git", "-c", "user.name=t", "-c", "user.email=t@deep.test", "commit-tree", "HEAD^{tree}", "-m", "aside"]
    aside = subprocess.run(argv, cwd=shop.root, check=True, text=True, capture_output=True).stdout.strip()
    with pytest.raises(DeepError, match=f"a commit that is not in the history .found: {aside}"):
        release.stage(shop.candidate("1.0.0", kinds=("deb",), commit=aside))


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"gate": "none"}, "the quality gate asks for nothing .found: gate: none"),
        ({"first_commit": "1" * 40}, "about another repository .found: 1{40}"),
        ({"first_commit": ""}, "about another repository .found: none"),
    ],
)
def test_a_word_of_the_gate_that_says_nothing_is_refused(
    release: Release, shop: Workshop, first: Path, different: dict[str, Any], said: str
) -> None:
    shop.attest(first / QUALITY, shop.commit, **different)
    with pytest.raises(DeepError, match=said):
        release.stage(first)


# --- versions and platforms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v3.0.0", "3.0", "3.0.0-rc1", "03.0.0", "3.0.0rc0", "3.0.0.dev1"])
def test_a_version_has_one_spelling(first: Path, version: str) -> None:
    text = (
        (first / candidates.DOCUMENT)
        .read_text()
        .replace('"version": "1.0.0",\n  "commit"', f'"version": "{version}",\n  "commit"')
    )
    replaced(first / candidates.DOCUMENT, text.encode())
    with pytest.raises(DeepError, match=r"candidate\.json: version"):
        candidates.read(first)


def test_what_comes_before_a_release_is_not_for_everybody(release: Release, shop: Workshop) -> None:
    made = shop.candidate("3.0.0rc1", kinds=("deb",))
    assert release.plan(made)["steps"][2]["step"] == "deep release promote 3.0.0rc1 production --prerelease"
    release.stage(made)
    assert release.promote("3.0.0rc1", "testing")[1]
    with pytest.raises(DeepError, match=r"3\.0\.0rc1 comes before a release") as refused:
        release.promote("3.0.0rc1", "production")
    assert refused.value.exit_code == 1
    assert release.promote("3.0.0rc1", "production", prerelease=True)[1]


def test_everybody_gets_what_was_built_from_its_tag(release: Release, shop: Workshop) -> None:
    made = shop.candidate("3.0.0rc1", kinds=("deb",))
    shop.sign(made, candidates.read(made), build={**release_toys.TAGGED, "commit": "any"})
    refused = [one["refused"] for one in release.plan(made)["steps"]]
    assert refused[:2] == [[], []]
    assert "3.0.0rc1 was built by a manifest that takes any commit" in refused[2][0]
    release.stage(made)
    assert release.promote("3.0.0rc1", "testing")[1]
    with pytest.raises(DeepError, match=r"takes any commit \(found: commit: any; needed: commit: tagged") as no:
        release.promote("3.0.0rc1", "production", prerelease=True)
    assert no.value.exit_code == 1
    assert release.store.current("deep-3", "production") is None


def anywhere(shop: Workshop, **platforms: str) -> Path:
    """A candidate whose package is for any platform, and which names these."""
    made = shop.candidate("1.0.0", kinds=("deb",))
    said = candidates.read(made)
    loose = tuple(one.model_copy(update={"platform": None}) for one in said.artefacts)
    shop.sign(made, said.model_copy(update={"artefacts": loose, "platforms": platforms}))
    return made


def test_a_package_for_any_platform_goes_to_each(release: Release, shop: Workshop) -> None:
    with pytest.raises(DeepError, match=r"no host would get tool_1\.0\.0_all\.deb"):
        release.stage(anywhere(shop, el9="rpm"))
    assert not [*release.store.public.glob("candidates/*/*")]
    state, _ = release.stage(anywhere(shop, debian12="deb", el9="rpm", debian13="deb"))
    assert [one.platform for one in state.packages] == ["debian12", "debian13"]


# --- what is really built -------------------------------------------------------------------------------------------


def test_what_is_built_comes_to_production(
    release: Release, shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in release_repository.FILES.items():
        (shop.root / name).write_text(text)
    commit(shop.root)

    def make(workshop: packages.Workshop, product: Product, declared: Declared) -> None:
        made = shop.package(workshop.files, product.name, workshop.manifest.package, declared.kind, "built\n")
        made.rename(workshop.files / workshop.manifest.expand(declared))

    monkeypatch.setattr(packages, "MAKERS", {"deb": make, "rpm": make})
    artefacts = [
        {"kind": "deb", "file": "toy_{package}_all.deb", "platform": "debian12"},
        {"kind": "rpm", "file": "toy-{package}-1.noarch.rpm", "platform": "el9"},
    ]
    release_repository.git(shop.root, "tag", "v0.1.0rc1")
    manifest = release_repository.toys(
        build=release_toys.TAGGED,
        platforms={
            "debian12": {"title": "Debian", "packages": "deb"},
            "el9": {"title": "Enterprise Linux", "packages": "rpm"},
        },
        products=[{"name": "toy", "title": "Toy", "artefacts": artefacts}],
    )
    made = build.cut(
        shop.root, manifest, tmp_path / "out", key=shop.key, keyring=shop.keyring, signing_key=shop.signer
    ).folder
    word = tmp_path / "word"
    shop.attest(word, shop.commit)
    assert release.plan(made, attestation=word)["ok"]
    state, _ = release.stage(made, attestation=word)
    assert {one.version for one in state.packages} == {"0.1.0rc1"}
    release.promote("0.1.0rc1", "testing")
    release.promote("0.1.0rc1", "production", prerelease=True)
    assert release.verify()["ok"]
    assert (release.store.candidates("deep-0") / "0.1.0rc1/inputs.json").is_file()
