"""ansible-playbook that says in its last line how many CPU seconds it and the workers that it forked have used."""

from __future__ import annotations

import json
import resource

from ansible.cli.playbook import main


def cpu_seconds(whose: int) -> float:
    """User and system time of this process or of its ended children."""
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    try:
        main()
    finally:
        used = {"controller": cpu_seconds(resource.RUSAGE_SELF), "workers": cpu_seconds(resource.RUSAGE_CHILDREN)}
        print(json.dumps(used), flush=True)
