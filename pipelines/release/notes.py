"""Release notes: from a manifest, the changelog and what was built; numbers, sizes and digests are worked out here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pipelines.release.candidate import Candidate
from pipelines.release.manifest import Manifest, Product
from pipelines.release.packages import templates
from sqa import wrong
from testbed.errors import DeepError
from testbed.files import human

TEMPLATES = Path(__file__).resolve().parent / "templates"
REST = "*"  # of the changelog, what no product claims
# Title of a part of the notes: sections of the changelog that it shows.
PARTS = {
    "What is new": ("release_summary", "major_changes", "minor_changes"),
    "Before an upgrade": ("breaking_changes", "deprecated_features", "removed_features"),
    "Bug fixes": ("security_fixes", "bugfixes"),
    "Known issues": ("known_issues",),
}
KINDS = {
    "rpm": "packages (rpm)", "deb": "packages (deb)", "tarball": "tarballs", "image": "images", "products": "products",
}  # fmt: skip

Changes = Mapping[str, list[str]]


def changelog(root: Path, manifest: Manifest) -> dict[str, list[str]]:
    """Entries by section: of the release where ``changelog.yaml`` has it, else of the fragments that lead to it."""
    folder = root / "changelogs"
    released = _yaml(folder / "changelog.yaml").get("releases", {}) if (folder / "changelog.yaml").is_file() else {}
    for name in (manifest.semver, manifest.parsed.base_version):
        if name in released:
            return _sections([released[name].get("changes", {})])
    return _sections(_yaml(path) for path in sorted((folder / "fragments").glob("*.y*ml")))


def _yaml(path: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as broken:
        raise DeepError(f"{path}: {wrong.not_yaml(broken)}", next_step="antsibull-changelog lint") from None
    if not isinstance(read, dict):
        raise DeepError(f"{path}: {wrong.of_type(read, dict)}", next_step="antsibull-changelog lint")
    return read


def _sections(fragments: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for fragment in fragments:
        for section, entries in fragment.items():
            texts = [entries] if isinstance(entries, str) else list(entries)
            # Fragments are RST, of which they use one kind of markup.
            found.setdefault(section, []).extend(str(text).replace("``", "`").strip() for text in texts)
    return found


def about(product: Product, manifest: Manifest, changes: Changes) -> dict[str, list[str]]:
    """Entries about a product by part of the notes; an entry is about the product that claims its first word."""
    claimed = {word for one in manifest.products for word in one.changelog}

    def is_about(entry: str) -> bool:
        word = entry.partition(" - ")[0]
        return word in product.changelog or (REST in product.changelog and word not in claimed)

    shown = {
        part: [entry for section in sections for entry in changes.get(section, []) if is_about(entry)]
        for part, sections in PARTS.items()
    }
    shown["Known issues"] += product.known_issues
    return {part: entries for part, entries in shown.items() if entries}


def written(manifest: Manifest, changes: Changes, built: Candidate | None = None) -> dict[str, str]:
    """Markdown, one HTML page and the text of an announcement, by file name. The same input gives the same text."""
    words = {
        "manifest": manifest,
        "name": title(manifest),
        "built": built,
        "built_on": built and datetime.fromtimestamp(built.source_date_epoch, UTC).date(),
        "claims": claims(manifest),
        "products": [
            {
                "product": one,
                "about": about(one, manifest, changes),
                "installation": manifest.worded(one.installation or "").splitlines(),
                "artefacts": artefacts(one, manifest, built),
            }
            for one in manifest.products
        ],
    }
    stem = _stem(manifest)
    text = _rendered("notes.md.j2", words)
    return {
        f"{stem}-notes.md": text,
        f"{stem}-notes.html": _page(title(manifest), text),
        f"{stem}-announcement.txt": _rendered("announcement.txt.j2", words),
    }


def index(manifests: Iterable[Manifest]) -> str:
    """A page with the releases of each line, which leads to the notes beside it."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(manifests, key=lambda one: one.release):
        entry = {"manifest": one, "name": title(one), "page": f"{_stem(one)}-notes.html"}
        lines.setdefault(one.line, []).append(entry)
    return _page("Releases", _rendered("index.md.j2", {"lines": lines}))


def title(manifest: Manifest) -> str:
    """What a release is called: its name, and how it is known or the version that is to be built."""
    if manifest.codename:
        return f"{manifest.title} {manifest.codename}"
    return f"{manifest.title} ({manifest.version})" if manifest.build else manifest.title


def _stem(manifest: Manifest) -> str:
    return f"{manifest.release}-{manifest.version}" if manifest.build else manifest.release


def claims(manifest: Manifest) -> list[str]:
    """What the published index counts, each beside what the manifest lists, where it lists any."""
    if manifest.published is None:
        return []
    listed = {"products": len(manifest.products)}
    for product in manifest.products:
        for one in product.artefacts:
            listed[one.kind] = listed.get(one.kind, 0) + 1
    said = []
    for kind, number in manifest.published.claimed.items():
        here = f"{listed[kind]} are listed" if kind in listed else "which were not written down"
        differs = ", which differs" if listed.get(kind, number) != number else ""
        said.append(f"{number} {KINDS[kind]}; {here}{differs}")
    return said


def artefacts(product: Product, manifest: Manifest, built: Candidate | None) -> list[dict[str, str]]:
    """File, platform, size and digest of each artefact; in words where it is not built or not known."""
    files = {one.file: one for one in built.artefacts} if built else {}
    rows = []
    for one in product.artefacts:
        name = manifest.expand(one) or "not known"
        made = files.get(name)
        rows.append({
            "file": name,
            "kind": one.kind,
            "platform": manifest.platforms[one.platform].title if one.platform else "any",
            "size": human(made.size) if made else "not known" if manifest.published else "not built",
            "sha256": made.sha256 if made else one.sha256 or ("not known" if manifest.published else "not built"),
        })  # fmt: skip
    return rows


def _rendered(template: str, words: Mapping[str, Any]) -> str:
    environment = templates(TEMPLATES)
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    return environment.get_template(template).render(words)


def _page(name: str, text: str) -> str:
    """Markdown as a page that needs nothing else; whatever looks like HTML in it is shown, not obeyed."""
    from markdown_it import MarkdownIt  # slow, and most commands write no page

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return _rendered("page.html.j2", {"title": name, "body": body})
