"""Module password_file: a hash that verifies stays, any other is made anew and tells nothing of the password."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plugins.modules.password_file import new_hash, verifies, wanted_line

PASSWORD = "correct horse battery staple"  # pragma: allowlist secret
# Cheap enough for a test; what sites have is the default.
ROUNDS = 4


def line(path: Path, password: str = PASSWORD, rounds: int = ROUNDS, user: str = "deep") -> str:
    return wanted_line(str(path), user, password, rounds)


def test_a_new_hash_has_a_salt_by_chance_and_verifies(tmp_path: Path) -> None:
    first, second = line(tmp_path / "users"), line(tmp_path / "users")
    assert re.fullmatch(r"deep:[$]2b[$]04[$][./A-Za-z0-9]{53}", first)
    assert first[: len("deep:$2b$04$") + 22] != second[: len("deep:$2b$04$") + 22]
    assert verifies(first, "deep", PASSWORD, ROUNDS)
    assert not verifies(first, "deep", "another", ROUNDS)


def test_a_hash_of_another_program_is_understood() -> None:
    # Test vector of OpenBSD's bcrypt (crypt_blowfish).
    known = "deep:$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"  # pragma: allowlist secret
    assert verifies(known, "deep", "U*U", 5)
    assert not verifies(known, "deep", "U*V", 5)


def test_what_verifies_stays(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(line(path) + "\n", encoding="utf-8")
    assert line(path) == path.read_text(encoding="utf-8").rstrip("\n")


@pytest.mark.parametrize("change", ["password", "rounds", "user", "hash", "cut", "more"])
def test_what_does_not_verify_is_made_anew(tmp_path: Path, change: str) -> None:
    path = tmp_path / "users"
    known = line(path)
    other = "A" if known[-5] != "A" else "B"
    texts = {"hash": known[:-5] + other + known[-4:], "cut": known[:-1], "more": f"{known}\nroot:{new_hash('x', 4)}"}
    path.write_text(texts.get(change, known) + "\n", encoding="utf-8")
    made = line(
        path,
        password="new" if change == "password" else PASSWORD,
        rounds=5 if change == "rounds" else ROUNDS,
        user="other" if change == "user" else "deep",
    )
    assert made != known
    assert "\n" not in made
    assert made[:36] != known[:36], "a new hash has a new salt"
