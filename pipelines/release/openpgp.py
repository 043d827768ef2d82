"""Signatures by GnuPG: made with a key that is named by its fingerprint, and believed of such keys alone.

The secret key stays with gpg's agent. A passphrase is asked for by the agent or read by gpg from a file: it is on no
command line and in no log.
"""

from __future__ import annotations

import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipelines.release.programs import call
from testbed.errors import CHECK_FAILED, DeepError

FINGERPRINT = re.compile(r"[0-9A-F]{40}")
SOON = 30 * 86400  # seconds before a key's expiry from which on one is warned
DEAD = frozenset("deinr")  # disabled, expired, invalid, not valid, revoked: second field of gpg's listing


@dataclass(frozen=True)
class Key:
    """A key that signs, by the fingerprint of its primary key; ``expires`` in seconds since 1970, if it ever does."""

    fingerprint: str
    expires: int | None

    def check(self, now: float) -> None:
        """Raise ``DeepError`` for a key that does not sign any more at ``now``."""
        if self.expires is not None and self.expires <= now:
            raise DeepError(
                f"the key {self.fingerprint} has expired", found=day(self.expires), needed="a key that still counts",
                next_step=f"gpg --quick-set-expire {self.fingerprint} 1y, or use another --key", exit_code=CHECK_FAILED,
            )  # fmt: skip

    def warning(self, now: float) -> str | None:
        """What to say of a key that will expire within ``SOON``."""
        if self.expires is None or not now < self.expires <= now + SOON:
            return None
        return f"the key {self.fingerprint} expires on {day(self.expires)}: prolong it and bring it to its users now"


def day(seconds: float) -> str:
    """A day as people write it: 2026-11-29."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


@dataclass(frozen=True)
class Keyring:
    """GnuPG's folder ``home``, that of the environment if not given, and the file with the passphrase of its keys."""

    home: Path | None = None
    passphrase_file: Path | None = None

    def find(self, fingerprint: str) -> Key:
        """A key by its whole fingerprint, expired or not; raises ``DeepError`` where there is none that signs."""
        wanted = fingerprint.replace(" ", "").upper()
        if FINGERPRINT.fullmatch(wanted) is None:
            raise DeepError(
                "not the fingerprint of a key", found=fingerprint, needed="40 hexadecimal digits",
                next_step="gpg --list-keys --with-fingerprint shows them",
            )  # fmt: skip
        done = self._gpg("--with-colons", "--list-keys", wanted, check=False)
        rows = [line.split(":") for line in done.stdout.decode(errors="replace").splitlines()]
        keys = [row for row in rows if row[0] in ("pub", "sub")]
        if not keys or wanted not in [row[9] for row in rows if row[0] == "fpr"][:1]:
            raise DeepError(
                "there is no such key", found=f"{wanted}: not a primary key of {self.home or 'the user'}'s keyring",
                next_step="gpg --import its file, or correct --gnupghome",
            )  # fmt: skip
        signing = [row for row in keys if "s" in row[11] and row[1] not in DEAD - {"e"}]
        if keys[0][1] in DEAD - {"e"} or not signing:
            raise DeepError(
                f"the key {wanted} signs nothing", found="revoked, disabled, or without a key for signatures",
                next_step="use another --key", exit_code=CHECK_FAILED,
            )  # fmt: skip
        # A part of a key counts no longer than the key.
        ends = [[int(row[6]) for row in (keys[0], one) if row[6]] for one in signing]
        last = [min(end) for end in ends if end]
        return Key(wanted, max(last) if len(last) == len(ends) else None)

    def refuse_public(self, fingerprint: str) -> None:
        """Raise ``DeepError`` for a key whose secret part is not at hand."""
        if self._gpg("--list-secret-keys", fingerprint, check=False).returncode:
            raise DeepError(
                f"the secret part of the key {fingerprint} is not here", found="its public part alone",
                needed="the key that signs", next_step="gpg --import its secret part, or correct --gnupghome",
            )  # fmt: skip

    def public(self, *fingerprints: str) -> bytes:
        """Public keys without what others say of them, armoured in one block: apt reads no second one."""
        return self._gpg("--armor", "--export-options", "export-minimal", "--export", *fingerprints).stdout

    def within(self, armoured: bytes) -> list[str]:
        """The fingerprints of the keys in a file; none where it holds no key."""
        done = self._gpg("--with-colons", "--show-keys", stdin=armoured, check=False)
        rows = [line.split(":") for line in done.stdout.decode(errors="replace").splitlines()]
        # Beneath each primary key its own fingerprint comes first.
        return [two[9] for one, two in pairwise(rows) if (one[0], two[0]) == ("pub", "fpr")]

    def detached(self, content: bytes, key: str, at: int) -> bytes:
        """An armoured signature of ``content`` that says it was made at ``at`` (seconds since 1970)."""
        return self._sign("--detach-sign", content, key, at)

    def clear(self, content: bytes, key: str, at: int) -> bytes:
        """``content`` as text with its signature around it."""
        return self._sign("--clearsign", content, key, at)

    def verify(self, signature: bytes, content: bytes | None, keys: Collection[str]) -> bytes:
        """What one of ``keys`` has signed: ``content``, or the text within ``signature`` where there is no content.

        Raises ``DeepError`` for a signature that does not hold or is by another key. Whether a key has expired since
        is not asked here: see :class:`Key`.
        """
        with tempfile.TemporaryDirectory(prefix="deep-release-") as name:
            folder = Path(name)
            files = {"keys": b"".join(self._exported(key) for key in keys), "signature": signature}
            files |= {} if content is None else {"content": content}
            for one, data in files.items():
                (folder / one).write_bytes(data)
            done = call(
                "gpgv", "--homedir", folder, "--keyring", folder / "keys", "--status-fd", "1", "--output",
                folder / "text", folder / "signature", *([folder / "content"] if content is not None else []),
                check=False,
            )  # fmt: skip
            if done.returncode:  # it knows no other keys
                raise DeepError(
                    "the signature does not hold", found=_reason(done.stdout.decode(errors="replace")),
                    needed=f"one by {' or '.join(keys)}", next_step="find out who changed it; do not use it",
                    exit_code=CHECK_FAILED,
                )  # fmt: skip
            return (folder / "text").read_bytes() if content is None else content

    def _exported(self, key: str) -> bytes:
        return self._gpg("--export", self.find(key).fingerprint).stdout

    def _sign(self, how: str, content: bytes, key: str, at: int) -> bytes:
        secret: list[str | Path] = []
        if self.passphrase_file is not None:
            _refuse_open(self.passphrase_file)
            secret = ["--pinentry-mode", "loopback", "--passphrase-file", self.passphrase_file]
        try:
            # The time of a signature is that of what it is about: made again it is the same.
            return self._gpg(
                *secret, "--local-user", key, "--digest-algo", "SHA512", "--faked-system-time", f"{at}!", "--armor",
                how, stdin=content,
            ).stdout  # fmt: skip
        except DeepError as refused:
            refused.next_step = (
                "see that gpg's agent can ask for the passphrase (GPG_TTY), or give --passphrase-file; "
                f"gpg --list-secret-keys {key}"
            )
            raise

    def _gpg(
        self, *arguments: str | Path, stdin: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        home: list[str | Path] = ["--homedir", self.home] if self.home else []
        return call("gpg", *home, "--batch", "--no-tty", *arguments, stdin=stdin, check=check)


def _reason(said: str) -> str:
    """Which of gpgv's words tells what is wrong."""
    words = {
        "BADSIG": "something else was signed", "EXPKEYSIG": "the key has expired", "REVKEYSIG": "the key is revoked",
        "NO_PUBKEY": "by another key", "ERRSIG": "by another key", "NODATA": "no signature",
    }  # fmt: skip
    for word, meaning in words.items():
        if found := re.search(rf"^\[GNUPG:\] {word}\s*(\S*)", said, re.MULTILINE):
            return f"{meaning} {found[1]}".strip()
    return "no signature"


def _refuse_open(path: Path) -> None:
    """Raise ``DeepError`` for a file that others may read."""
    if not path.is_file():
        raise DeepError("there is no file with the passphrase", found=str(path))
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise DeepError(
            "others may read the passphrase",
            found=f"{path}: mode {mode:o}",
            needed="600",
            next_step=f"chmod 600 {path}",
        )
