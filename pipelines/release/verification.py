"""A state looked through wholly: keys, signatures, indices against files, files against what was built."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree  # nosec B405 # reads what is signed, after its signature

from pipelines.release import candidate as candidates
from pipelines.release import evidence, repository
from pipelines.release.evidence import Trust
from pipelines.release.repository import DETACHED, INLINE, KEY, RELEASE, REPOMD, REPOMD_SIGNATURE
from pipelines.release.state import SUITES, State, moment
from pipelines.release.store import Store, read_state
from testbed.errors import DeepError
from testbed.files import sha256_of

AHEAD = 600  # seconds that the clocks of two machines may differ
SPACE = "{http://linux.duke.edu/metadata/%s}"


@dataclass
class Verified:
    """What was looked at, by its number, what is wrong with it, and what will be wrong soon."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    examined: dict[str, int] = field(default_factory=lambda: {"signatures": 0, "indices": 0, "packages": 0})


def verify(
    store: Store, state: State, trust: Trust, progress: Callable[[str], None], *, now: float, folder: Path | None = None
) -> Verified:
    """Look through a state and the candidates that it is made of.

    ``now``: the time at which its key has to count, in seconds since 1970. ``folder``: where the state lies before it
    is published. Raises ``DeepError`` where nothing can be looked at.
    """
    found = Verified()
    look = _Look(store, state, trust, found, now, folder or store.folder(state))
    for step in (look.document, look.keys, look.repositories, look.packages, look.origins):
        progress(f"{state.line} {state.stage}: {step.__name__}")
        step()
    return found


@dataclass(frozen=True)
class _Look:
    store: Store
    state: State
    trust: Trust
    found: Verified
    now: float
    folder: Path

    def document(self) -> None:
        """The folder says that it is this state, of a time that has come."""
        try:
            if read_state(self.folder) != self.state:
                self._say(f"{self.folder} is not the state {self.state.name}")
        except DeepError as refused:
            self._say(str(refused))
        if self.state.time > self.now + AHEAD:
            self._say(f"it is of {moment(self.state.time)}, which has yet to come: until then hosts take nothing newer")

    def keys(self) -> None:
        """The key is one that is believed, still counts, will for some time, and is the one that users are given."""
        if self.state.key not in self.trust.keys:
            self._say(f"signed with the key {self.state.key}, not {' or '.join(self.trust.keys)}")
        try:
            key = self.trust.keyring.find(self.state.key)
            key.check(self.now)
        except DeepError as refused:
            self._say(str(refused))
        else:
            self.found.warnings += filter(None, [key.warning(self.now)])
            self._given()

    def _given(self) -> None:
        shown = repository.key_shown(self.folder)
        if (keys := self.trust.keyring.within(shown)) != [self.state.key]:
            self._say(f"{KEY} has {' and '.join(keys) or 'no key'}, not {self.state.key}")
        elif shown != self.trust.keyring.public(self.state.key):
            self.found.warnings.append(f"{KEY} is not as the key is by now: bring the same version again")

    def repositories(self) -> None:
        """Every index is the one that was signed, and names the files that are there."""
        for platform, kind in self.state.repositories:
            for suite in SUITES:
                of = self.folder / platform / suite if kind == "rpm" else self.folder / platform
                names = {one.file: one.sha256 for one in self.state.of(suite, platform, kind)}
                try:
                    listed = self._apt(of, suite) if kind == "deb" else self._yum(of)
                except (DeepError, OSError, EOFError, KeyError, ValueError, zlib.error, ElementTree.ParseError) as bad:
                    self._say(f"{platform} {suite}: {bad}")
                    continue
                if listed != names:
                    odd = sorted(name for name, _ in set(listed.items()) ^ set(names.items()))
                    self._say(f"{platform} {suite}: the index and the state differ in {', '.join(odd)}")

    def packages(self) -> None:
        """Every package is there with its bytes, and none besides."""
        wanted = {repository.place(one): one.sha256 for one in self.state.packages}
        present = {
            str(path.relative_to(self.folder)) for ending in ("deb", "rpm") for path in self.folder.rglob(f"*.{ending}")
        }
        for name, digest in wanted.items():
            self.found.examined["packages"] += 1
            if name not in present:
                self._say(f"{name} is missing")
            elif (is_now := sha256_of(self.folder / name)) != digest:
                self._say(f"{name} has the digest {is_now}, published was {digest}")
        for name in sorted(present - set(wanted)):
            self._say(f"{name} was not published")

    def origins(self) -> None:
        """Every package is one that was built, signed and attested."""
        for version in sorted({one.version for one in self.state.packages} | {self.state.version}):
            folder = self.store.candidates(self.state.line) / version
            try:
                candidate = candidates.read(folder)
            except DeepError as refused:
                self._say(f"candidate {version}: {refused}")
                continue
            for problem in evidence.problems(folder, candidate, self.trust):
                self._say(f"candidate {version}: {problem}")
            made = {(one.file, one.sha256) for one in candidate.artefacts}
            for one in self.state.packages:
                if one.version == version and (one.file, one.sha256) not in made:
                    self._say(f"{one.file} is not of the candidate {version}")

    def _apt(self, folder: Path, suite: str) -> dict[str, str]:
        dist = folder / "dists" / suite
        said = (dist / RELEASE).read_bytes()
        keyring, key = self.trust.keyring, self.state.key
        keyring.verify((dist / DETACHED).read_bytes(), said, [key])
        if keyring.verify((dist / INLINE).read_bytes(), None, [key]) != said:
            self._say(f"{folder.name} {suite}: {INLINE} and {RELEASE} differ")
        self.found.examined["signatures"] += 2
        # It names each index with its digest, the stage, the suite and the time.
        if said != repository.release_file(dist, self.state, suite):
            self._say(f"{folder.name} {suite}: the indices are not those that were signed")
        listed: dict[str, str] = {}
        for path in repository.indices(dist):
            self.found.examined["indices"] += 1
            content = path.read_bytes()
            text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
            for stanza in filter(None, text.split("\n\n")):
                fields = dict(re.findall(r"^(Filename|SHA256): (\S+)$", stanza, re.MULTILINE))
                listed[fields["Filename"].rpartition("/")[2]] = fields["SHA256"]
        return listed

    def _yum(self, folder: Path) -> dict[str, str]:
        data = folder / "repodata"
        said = (data / REPOMD).read_bytes()
        self.trust.keyring.verify((data / REPOMD_SIGNATURE).read_bytes(), said, [self.state.key])
        self.found.examined["signatures"] += 1
        listed: dict[str, str] = {}
        for one in ElementTree.fromstring(said).iter(SPACE % "repo" + "data"):  # nosec B314 # see the import
            content = (folder / _attribute(one, SPACE % "repo" + "location", "href")).read_bytes()
            self.found.examined["indices"] += 1
            if hashlib.sha256(content).hexdigest() != _text(one, SPACE % "repo" + "checksum"):
                self._say(f"{folder.parent.name} {folder.name}: {one.get('type')} is not what was signed")
            elif one.get("type") == "primary":
                for package in ElementTree.fromstring(gzip.decompress(content)):  # nosec B314 # see the import
                    file = _attribute(package, SPACE % "common" + "location", "href")
                    listed[file] = _text(package, SPACE % "common" + "checksum")
        return listed

    def _say(self, problem: str) -> None:
        self.found.problems.append(problem)


def _attribute(element: ElementTree.Element, child: str, name: str) -> str:
    found = element.find(child)
    return (found.get(name) or "") if found is not None else ""


def _text(element: ElementTree.Element, child: str) -> str:
    return element.findtext(child) or ""
