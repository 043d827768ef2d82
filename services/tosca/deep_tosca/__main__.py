"""``python -m deep_tosca lint FILE...``: exits with 0 where all is well, 1 where not, 2 for wrong usage."""

from __future__ import annotations

import sys
from pathlib import Path

from deep_tosca.lint import lint


def main(arguments: list[str]) -> int:
    """Lint files and say what is wrong with each."""
    if len(arguments) < 2 or arguments[0] != "lint":
        print("wrong usage (needed: python -m deep_tosca lint FILE...)", file=sys.stderr)
        return 2
    wrong = 0
    for name in arguments[1:]:
        try:
            found = lint(Path(name).read_bytes())
        except OSError as error:
            print(f"{name}: cannot be read ({error.strerror})", file=sys.stderr)
            return 2
        wrong += len(found)
        for line in found:
            print(f"{name}: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
