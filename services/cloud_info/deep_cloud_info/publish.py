"""Look, check, and replace the file; whatever goes wrong leaves the file before in its place."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deep_cloud_info import glue, registry, schema
from deep_cloud_info.config import Configuration
from deep_cloud_info.errors import CloudInfoError, ConfigurationError
from deep_cloud_info.glue import Document, Images, Json
from deep_cloud_info.kubernetes import KubernetesProvider
from deep_cloud_info.resources import Provider

# Everybody on the host may read it: there is nothing secret in it.
MODE = 0o644


def provider(configuration: Configuration) -> Provider:
    """What looks at the kind of site that is configured."""
    return KubernetesProvider(configuration.kubernetes)


def document(configuration: Configuration, before: Path | None = None) -> Document:
    """What there is to publish, valid. ``before``: the publication before, of which images are kept for a while."""
    found = provider(configuration).look()
    # Not sooner: what is published must not look younger than it is by as long as the look took.
    writer = glue.Writer(configuration, datetime.now(UTC))
    made = writer.document(found, images(configuration, writer, before))
    schema.check(made)
    return made


def images(configuration: Configuration, writer: glue.Writer, before: Path | None) -> Images:
    """Images of the registry, or those before where they are young enough or the registry does not answer."""
    settings = configuration.registry
    if settings is None:
        return Images()
    known = images_before(before) if before else []
    oldest = datetime.now(UTC) - timedelta(seconds=settings.refresh_seconds)
    if known and all(datetime.fromisoformat(one["CreationTime"]) > oldest for one in known):
        return Images(known)
    try:
        return Images([writer.image(one.name, one.digest) for one in registry.images(settings)])
    except ConfigurationError:
        raise
    except CloudInfoError as error:
        return Images(known, str(error))


def images_before(path: Path) -> list[Json]:
    """Images of a publication; none where there is none that is valid."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return list(found["CloudComputingImage"]) if not schema.problems(found) else []


def write(text: str, path: Path) -> None:
    """Replace a file at once: a reader sees the one or the other whole, also after a crash."""
    name = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as sink:
            sink.write(text)
            sink.flush()
            os.fchmod(sink.fileno(), MODE)
            os.fsync(sink.fileno())
        Path(name).replace(path)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise CloudInfoError(
            "the publication cannot be written", found=f"{path}: {error.strerror}",
            needed="a folder with room that its user may write", next_step="look at it; the file before is still there",
        ) from None  # fmt: skip


def rendered(made: Document) -> str:
    """A document as text."""
    return json.dumps(made, indent=1, sort_keys=True) + "\n"
