"""Secrets of a site: generated once, kept in one vault-encrypted file, never a default.

Roles read them as variables of the inventory; adding a name to ``SECRETS`` gives it to every site at the next
``deep testbed up`` or ``deep site secrets SITE``.
"""

from __future__ import annotations

import secrets as random
from collections.abc import Callable
from pathlib import Path

import yaml

from testbed.errors import DeepError
from testbed.files import write_atomic


def _password() -> str:
    """256 bits as letters and digits that no file format has to quote."""
    return random.token_hex(32)


SECRETS: dict[str, Callable[[], str]] = {
    "iam_admin_secret": _password,
    "iam_database_password": _password,
    # Passwords of people and of clients are derived from it, one for each name.
    "iam_seed": _password,
    "registry_password": _password,
}


def names() -> list[str]:
    """The variables that every site's secrets file holds."""
    return sorted(SECRETS)


def ensure(secrets_file: Path, password_file: Path) -> bool:
    """Make what is missing of a site's secrets (both files of mode 0600); returns whether anything was.

    Values that exist are kept. Raises ``DeepError`` where the file cannot be opened with the password.
    """
    known = read(secrets_file, password_file)
    missing = [name for name in names() if name not in known]
    if not missing:
        return False
    if not password_file.is_file():
        write_atomic(password_file, f"{_password()}\n", 0o600)
    text = yaml.safe_dump(known | {name: SECRETS[name]() for name in missing}, explicit_start=True)
    write_atomic(secrets_file, _vault(password_file).encrypt(text).decode("ascii"), 0o600)
    return True


def read(secrets_file: Path, password_file: Path) -> dict[str, str]:
    """The secrets in clear, empty where there is no file."""
    if not secrets_file.is_file():
        return {}
    from ansible.errors import AnsibleError  # pylint: disable=import-outside-toplevel  # 0.3 s that other commands save

    try:
        clear = _vault(password_file).decrypt(secrets_file.read_text(encoding="ascii"))
    except (AnsibleError, FileNotFoundError) as closed:
        raise DeepError(
            f"the secrets in {secrets_file} cannot be opened",
            found=f"the password of {password_file}" if password_file.is_file() else f"no {password_file}",
            next_step="put the site's vault password into that file, or remove the secrets to have new ones made",
        ) from closed
    return dict(yaml.safe_load(clear) or {})


def _vault(password_file: Path):  # type: ignore[no-untyped-def]
    from ansible.parsing.vault import VaultLib, VaultSecret  # pylint: disable=import-outside-toplevel # slow

    password = password_file.read_text(encoding="utf-8").strip().encode()
    return VaultLib([("default", VaultSecret(password))])
