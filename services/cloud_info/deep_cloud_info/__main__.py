"""Publish what a site has: ``python -m deep_cloud_info --config FILE [--output FILE] [--check]``.

Exit status: 0 published, 1 nothing was published, 2 the configuration cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deep_cloud_info import publish
from deep_cloud_info.config import load
from deep_cloud_info.errors import CloudInfoError, ConfigurationError


def main(arguments: list[str] | None = None) -> int:
    """Run once and return the exit status."""
    parser = argparse.ArgumentParser(prog="deep_cloud_info", description="Publish what a site has, as GLUE 2.1 JSON.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file with the configuration")
    parser.add_argument("--output", type=Path, help="file to replace, instead of the configuration's; '-' to print it")
    parser.add_argument("--check", action="store_true", help="look and validate, and write nothing")
    options = parser.parse_args(arguments)
    try:
        summary = run(options.config, options.output, check=options.check)
    except CloudInfoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else 1
    print(summary, end="")
    return 0


def run(config: Path, output: Path | None, *, check: bool) -> str:
    """Look, and publish unless it is only a check. Returns what to print."""
    configuration = load(config)
    target = output or configuration.output
    if str(target) == "-":
        target = None
    made = publish.document(configuration, target)
    if not check:
        text = publish.rendered(made)
        if target is None:
            return text
        publish.write(text, target)
    has = made["CloudComputingManager"][0]["OtherInfo"]
    verb = "valid" if check else f"published in {target}"
    return (
        f"{configuration.site}: {verb}: {has['gpus_free']} of {has['gpus_total']} GPUs and {has['cpus_free']:g} of "
        f"{has['cpus_total']:g} CPUs free, {has['machines_usable']} of {has['machines']} machines usable\n"
    )


if __name__ == "__main__":
    sys.exit(main())
