"""The store of releases: a folder from which a web server or rsync publishes ``public/``.

    journal.jsonl                       what was done, see journal.py
    public/candidates/LINE/VERSION/     a candidate as it was built, with its signatures
    public/states/LINE/STAGE-NUMBER/    a state of a stage: repositories of apt and yum, signed; never changed
    public/STAGE/LINE                   a link to the state that the stage has now

Files of packages are hard links to those of the candidates. Everything is made in a folder beside its place, looked at,
brought to disk, and renamed; a stage changes in one step, by its link.
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
from pipelines.release.candidate import DOCUMENT, FILES, INPUTS, PROVENANCE, SIGNATURE, SUMS, Candidate
from pipelines.release.journal import ROOM, Journal, Record, Step
from pipelines.release.state import STAGES, State, line_of
from sqa import wrong
from testbed.errors import CHECK_FAILED, DeepError
from testbed.files import disk_full_explained, exclusive, link_atomic, require_space, sync_directory, sync_file

QUALITY = "sqa.intoto.json"
EVIDENCE = (INPUTS, SUMS, SIGNATURE, PROVENANCE)
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

    def refuse_absent(self) -> None:
        """Raise ``DeepError`` where nothing was ever staged."""
        if not self.public.is_dir():
            raise DeepError(
                "there is no store of releases", found=f"no {self.public}", needed="one that deep release stage made",
                next_step="correct --store",
            )  # fmt: skip

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
        return [candidates.document(path) for path in folders]

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
        """The number of a stage's next state, beyond those that lie there and those that the journal knows of."""
        done = [one.state for one in self.journal.records() if one.what == "done"]
        past = [one.number for one in done if (one.line, one.stage) == (line, stage)]
        names = [path.name.rpartition("-")[2] for path in (self.public / "states" / line).glob(f"{stage}-*")]
        return max([*past, *(int(one) for one in names if one.isdecimal())], default=0) + 1

    @contextmanager
    def locked(self, *, create: bool = False) -> Iterator[None]:
        """Keep every other command that changes the store out, and remove what killed ones have left half made.

        Raises ``DeepError`` where there is no store yet, unless it is to be created.
        """
        if not create:
            self.refuse_absent()
        with exclusive(self.root / "lock", f"the store {self.root}", "wait for it to end, then run this again"):
            for left in [*self.public.glob(f"*/{UNFINISHED}*"), *self.public.glob(f"*/*/{UNFINISHED}*")]:
                if left.is_symlink():
                    left.unlink()
                elif left.is_dir():
                    shutil.rmtree(left)
            yield

    def admit(self, folder: Path, candidate: Candidate, attestation: Path, check: Callable[[Path], None]) -> None:
        """Copy a candidate and what attests it; of one that is here already, only what attests it where that is new.

        ``check`` raises ``DeepError`` for a copy that is not to be taken: the folder may change meanwhile.
        """
        place = self.candidates(line_of(candidate.version)) / candidate.version
        what = f"the candidate {candidate.version}"
        require_space(self.root, sum(one.size for one in candidate.artefacts) + RESERVE, what, ROOM)
        with disk_full_explained(self.root, what, ROOM), self._beside(place) as made:
            (made / FILES).mkdir()
            names = [DOCUMENT, *EVIDENCE, *(f"{FILES}/{one.file}" for one in candidate.artefacts)]
            for source, name in [*((folder / name, name) for name in names), (attestation, QUALITY)]:
                if source.is_file():
                    shutil.copyfile(source, made / name)
                    # The index of yum holds it, and shall be the same wherever it is made.
                    os.utime(made / name, (candidate.source_date_epoch,) * 2)
            if candidates.read(made) != candidate:
                raise DeepError("the candidate was changed while it was copied", exit_code=CHECK_FAILED)
            check(made)
            _settle(made)
            if place.exists():
                _renew(made, place)
            else:
                _show(made, place)

    def bring(self, step: Step, state: State, make: Callable[[Path], None]) -> None:
        """Make ``state`` that of its stage; ``make`` fills its folder, and raises where that is not as it shall be."""
        place = self.folder(state)
        with disk_full_explained(self.root, f"the state {state.name}", ROOM), self._beside(place) as made:
            (made / STATE).write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")
            make(made)
            _settle(made)
            intent = self.journal.intend(step, state)
            _show(made, place)
            self.carry_out(intent)

    def ready(self, intent: Record) -> bool:
        """Whether an intent was cut short so late that its state lies there, and only has to be shown."""
        state, current = intent.state, self.current(intent.state.line, intent.state.stage)
        return self.folder(state).exists() and (current is None or current.number <= state.number)

    def carry_out(self, intent: Record) -> None:
        """Show the state of an intent, which lies there."""
        state = intent.state
        link = self.link(state.line, state.stage)
        self._opened(link.parent)
        link_atomic(link, f"../states/{state.line}/{state.name}")
        sync_directory(link.parent)
        self.journal.done(intent)

    @contextmanager
    def _beside(self, place: Path) -> Iterator[Path]:
        """A new folder beside ``place``, which is gone afterwards unless it has become that."""
        self._opened(place.parent)
        made = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place.parent))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _opened(self, folder: Path) -> None:
        """Have a folder below ``public/`` that a web server can read, whatever the umask is."""
        for one in reversed([folder, *folder.parents]):
            if one.is_relative_to(self.public):
                if not one.exists():
                    one.mkdir()
                    sync_directory(one.parent)
                if one.stat().st_mode & 0o777 != 0o755:
                    one.chmod(0o755)


def read_state(folder: Path) -> State:
    """The state that lies in a folder; raises ``DeepError`` where there is none that can be read."""
    try:
        return State.model_validate_json((folder / STATE).read_bytes())
    except OSError as unreadable:
        why = unreadable.strerror
    except ValidationError as refused:
        why = wrong.explained(refused, State)
    raise DeepError(
        f"{folder}: not a state of a stage",
        found=f"{STATE}: {why}",
        exit_code=CHECK_FAILED,
        next_step="see that it can be read, or put the store back from its backup",
    )


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


def _settle(folder: Path) -> None:
    """Bring a folder to disk, to be read by everybody. What is linked from elsewhere is so already."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if (path := Path(parent, name)).stat().st_nlink == 1:
                path.chmod(0o444)
                sync_file(path)
        Path(parent).chmod(0o755)
        sync_directory(Path(parent))


def _show(made: Path, place: Path) -> None:
    """Put a folder that was brought to disk in its place."""
    made.rename(place)
    sync_directory(place.parent)


def _renew(made: Path, place: Path) -> None:
    """Take over what attests the same candidate, where it is new."""
    for name in (*EVIDENCE, QUALITY):
        new, old = made / name, place / name
        if new.is_file() and not (old.is_file() and old.read_bytes() == new.read_bytes()):
            new.replace(old)
    sync_directory(place)


def _unfinished(path: Path) -> bool:
    return path.name.startswith(UNFINISHED)
