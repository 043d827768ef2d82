"""The store of releases: a folder from which a web server or rsync publishes ``public/``.

    journal.jsonl                       what was done, see journal.py
    public/candidates/LINE/VERSION/     a candidate as it was built, with its signatures
    public/states/LINE/STAGE-NUMBER/    a state of a stage: repositories of apt and yum, signed; never changed
    public/STAGE/LINE                   a link to the state that the stage has now

Files of packages are hard links to those of the candidates. Everything is made in a folder beside its place, brought to
disk, and renamed; a stage changes in one step, by its link.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipelines.release import candidate as candidates
from pipelines.release.candidate import DOCUMENT, FILES, PROVENANCE, SIGNATURE, SUMS, Candidate
from pipelines.release.journal import Journal, Record, Step
from pipelines.release.state import STAGES, State
from testbed.errors import CHECK_FAILED, DeepError
from testbed.files import disk_full_explained, exclusive, link_atomic, require_space, sync_directory, sync_file

QUALITY = "sqa.intoto.json"
INPUTS = "inputs.json"  # with which it can be built again
EVIDENCE = (DOCUMENT, SUMS, SIGNATURE, PROVENANCE)
STATE = "state.json"
UNFINISHED = ".tmp-"
RESERVE = 64 << 20  # bytes for indices, beside the files


@dataclass(frozen=True)
class Store:
    """The store at ``root``."""

    root: Path

    @property
    def journal(self) -> Journal:
        """What was done, and what was cut short."""
        return Journal(self.root / "journal.jsonl")

    @property
    def public(self) -> Path:
        """What a web server may show."""
        return self.root / "public"

    def lines(self) -> list[str]:
        """Every line that has anything."""
        return sorted(path.name for path in (self.public / "states").glob("*"))

    def link(self, line: str, stage: str) -> Path:
        """What points at the state of a stage."""
        return self.public / stage / line

    def folder(self, state: State) -> Path:
        """Where a state lies."""
        return self.public / "states" / state.line / state.name

    def candidates(self, line: str) -> Path:
        """The folder in which the candidates of a line lie, each called as its version."""
        return self.public / "candidates" / line

    def known(self, line: str) -> list[Candidate]:
        """Every candidate of a line, by what its document says."""
        folders = sorted(path for path in self.candidates(line).glob("*") if not _unfinished(path))
        return [Candidate.model_validate_json((path / DOCUMENT).read_bytes()) for path in folders]

    def current(self, line: str, stage: str) -> State | None:
        """The state that a stage has now; ``None`` where nothing was brought there yet."""
        link = self.link(line, stage)
        return read_state(link) if link.is_symlink() else None

    def states(self, line: str, stage: str | None = None) -> list[State]:
        """Every state of a stage, or of all, in the order of the stages and their numbers."""
        folders = [path for path in (self.public / "states" / line).glob("*") if not _unfinished(path)]
        found = [read_state(path) for path in folders]
        wanted = [one for one in found if stage in (None, one.stage)]
        return sorted(wanted, key=lambda one: (STAGES.index(one.stage), one.number))

    def next_number(self, line: str, stage: str) -> int:
        """The number of a stage's next state; one that was cut short has had its own."""
        past = [
            one.state.number for one in self.journal.records() if (one.state.line, one.state.stage) == (line, stage)
        ]
        return max(past, default=0) + 1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other command that changes the store out, and remove what killed ones have left half made."""
        with exclusive(self.root / "lock", f"the store {self.root}", "wait for it to end, then run this again"):
            for left in [*self.public.glob(f"*/{UNFINISHED}*"), *self.public.glob(f"*/*/{UNFINISHED}*")]:
                if left.is_symlink():
                    left.unlink()
                elif left.is_dir():
                    shutil.rmtree(left)
            yield

    def admit(self, folder: Path, candidate: Candidate, line: str, attestation: Path) -> bool:
        """Copy a candidate and what attests it; whether it was not here yet.

        Raises ``DeepError`` where the same version is here with another content.
        """
        place = self.candidates(line) / candidate.version
        if place.exists():
            refuse_other(place, candidate)
            return False
        size = sum(one.size for one in candidate.artefacts)
        require_space(self.root, size + RESERVE, f"the candidate {candidate.version}")
        with disk_full_explained(self.root, f"the candidate {candidate.version}"), _made_at(place) as made:
            (made / FILES).mkdir()
            names = [*EVIDENCE, *(f"{FILES}/{one.file}" for one in candidate.artefacts)]
            names += [INPUTS] if (folder / INPUTS).is_file() else []
            for source, name in [*((folder / name, name) for name in names), (attestation, QUALITY)]:
                shutil.copyfile(source, made / name)
                (made / name).chmod(0o444)
                # The index of yum holds it, and shall be the same wherever it is made.
                os.utime(made / name, (candidate.source_date_epoch,) * 2)
            candidates.read(made)  # what was checked is what was copied
        return True

    def bring(self, step: Step, state: State, make: Callable[[Path], None]) -> None:
        """Make ``state`` that of its stage; ``make`` fills its folder."""
        self.carry_out(self.journal.intend(step, state), make)

    def carry_out(self, intent: Record, make: Callable[[Path], None]) -> None:
        """Do what was written down, from wherever an earlier attempt has come to."""
        state = intent.state
        place = self.folder(state)
        if not place.exists():
            with disk_full_explained(self.root, f"the state {state.name}"), _made_at(place) as made:
                (made / STATE).write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")
                make(made)
        link = self.link(state.line, state.stage)
        link.parent.mkdir(exist_ok=True)
        link_atomic(link, f"../states/{state.line}/{state.name}")
        sync_directory(link.parent)
        self.journal.done(intent)


def read_state(folder: Path) -> State:
    """The state that lies in a folder."""
    try:
        return State.model_validate_json((folder / STATE).read_bytes())
    except (FileNotFoundError, ValidationError) as broken:
        raise DeepError(
            f"{folder}: not a state of a stage", found=str(broken).splitlines()[0], exit_code=CHECK_FAILED,
            next_step="put the store back from its backup",
        ) from None  # fmt: skip


def refuse_other(place: Path, candidate: Candidate) -> None:
    """Raise ``DeepError`` unless the candidate at ``place`` has the same content as ``candidate``."""
    known = candidates.read(place)
    if known != candidate:
        other = sorted({one.file for one in set(known.artefacts) ^ set(candidate.artefacts)})
        raise DeepError(
            f"version {candidate.version} exists with another content",
            found=", ".join(other) or f"of commit {known.commit}, not {candidate.commit}",
            needed="a version of its own for every content", next_step="raise the version and build the candidate anew",
            exit_code=CHECK_FAILED,
        )  # fmt: skip


@contextmanager
def _made_at(place: Path) -> Iterator[Path]:
    """A new folder that becomes ``place`` when everything in it is on disk."""
    place.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place.parent))
    try:
        made.chmod(0o755)
        yield made
        _settle(made)
        made.rename(place)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    sync_directory(place.parent)


def _settle(folder: Path) -> None:
    """Bring a folder to disk. What is linked from elsewhere is there already."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if (path := Path(parent, name)).stat().st_nlink == 1:
                sync_file(path)
        sync_directory(Path(parent))


def _unfinished(path: Path) -> bool:
    return path.name.startswith(UNFINISHED)
