"""Links of pages: files, anchors and images inside the repository are there; addresses outside have a right form.

Nothing outside is called; how many addresses were left so, the check's work says.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sqa.check import Canary, Check, Look, Report
from sqa.options import Options, taken

if TYPE_CHECKING:
    from markdown_it.token import Token

OUTSIDE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:|^//")
TEMPLATED = re.compile(r"\{\{|\{%|\$\{|<%")
# A heading's anchor, as GitHub and GitLab make it: letters, digits, marks, - and _ stay.
DROPPED = re.compile(r"[^\w\- ]", re.UNICODE)
UNDEFINED = re.compile(r"\[[^\[\]]+\]\[[^\[\]]+\]")
RST_LINK = re.compile(
    r"`[^`<]*<(?P<a>[^`>]+)>`__?|^\.\. (?:image|figure|include|literalinclude)::[ \t]*(?P<b>\S+)|"
    r"^\.\. _[^:\n]+:[ \t]+(?P<c>\S+)[ \t]*$|:doc:`(?:[^`<]*<)?(?P<d>[^`>]+)>?`",
    re.MULTILINE,
)
RST_TARGET = re.compile(r"^\.\. _([^:\n]+):[ \t]*$", re.MULTILINE)
RST_HEADING = re.compile(r"^(\S.*)\n([=\-~^\"'`#*+.])\2{2,}[ \t]*$", re.MULTILINE)
RST_LITERAL = re.compile(r"(?:::|^\.\. code(?:-block)?::.*)\n(?:[ \t]+:.*\n)*\n(?:[ \t]+.*\n|[ \t]*\n)+", re.MULTILINE)


HTML_LINKS = {"a": "href", "img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src"}


@dataclass
class Page:
    """Links of a page with their lines, what a link can lead to in it, and references that nothing defines."""

    links: list[tuple[int, str]] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    undefined: list[tuple[int, str]] = field(default_factory=list)


class _Html(HTMLParser):
    """Collects links and anchors of HTML; ``before``: how many lines come before."""

    def __init__(self, page: Page, before: int = 0) -> None:
        super().__init__()
        self.page = page
        self.before = before

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where a tag leads, and what it is called."""
        own = dict(attrs)
        link = own.get(HTML_LINKS.get(tag, ""))
        if link is not None:
            self.page.links.append((self.getpos()[0] + self.before, link.strip()))
        self.page.anchors |= {name for key in ("id", "name") if (name := own.get(key))}


def markdown(text: str) -> Page:
    """A page in Markdown; what stands in code is no link."""
    from markdown_it import MarkdownIt  # slow, and most runs know every page

    page = Page()
    times: Counter[str] = Counter()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for before, token in zip([None, *tokens], tokens, strict=False):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block":
            _Html(page, line - 1).feed(token.content)
        for child in token.children or ():
            _take_inline(page, child, line)
        # What no definition made a link has stayed text.
        plain = "".join(child.content for child in token.children or () if child.type == "text")
        page.undefined += [(line, found[0]) for found in UNDEFINED.finditer(plain)]
        if before is not None and before.type == "heading_open" and token.type == "inline":
            name = anchor("".join(one.content for one in token.children or () if one.type in ("text", "code_inline")))
            page.anchors.add(f"{name}-{times[name]}" if times[name] else name)
            times[name] += 1
    return page


def _take_inline(page: Page, token: Token, line: int) -> None:
    target = token.attrGet("href") if token.type == "link_open" else token.attrGet("src")
    if token.type in ("link_open", "image") and target is not None:
        page.links.append((line, str(target)))
    elif token.type == "html_inline":
        _Html(page, line - 1).feed(token.content)


def restructured(text: str) -> Page:
    """A page in reStructuredText: links, images, included files and documents; a literal block holds none."""
    shown = RST_LITERAL.sub(lambda found: "\n" * found[0].count("\n"), text)
    page = Page(anchors={anchor(one) for one in RST_TARGET.findall(shown)})
    page.anchors |= {anchor(title) for title, _ in RST_HEADING.findall(shown)}
    for found in RST_LINK.finditer(shown):
        target = found["a"] or found["b"] or found["c"] or f"{found['d']}.rst"
        # `text <name_>`_ leads to a target of this page or of another one, by name.
        if not target.endswith("_"):
            page.links.append((shown.count("\n", 0, found.start()) + 1, target.strip()))
    return page


def html(text: str) -> Page:
    """A page in HTML."""
    page = Page()
    _Html(page).feed(text)
    return page


READERS: dict[str, Callable[[str], Page]] = {
    ".md": markdown, ".markdown": markdown, ".rst": restructured, ".html": html, ".htm": html,
}  # fmt: skip


def anchor(heading: str) -> str:
    """The anchor that a heading gets."""
    return DROPPED.sub("", heading.strip().lower()).replace(" ", "-")


@dataclass(frozen=True)
class Links:
    """The pages of a look, each read once."""

    look: Look

    @cached_property
    def known(self) -> frozenset[str]:
        """Every file and folder of the repository."""
        files = self.look.tree.files
        return frozenset({*files, *(str(folder) for name in files for folder in PurePosixPath(name).parents)})

    @cached_property
    def pages(self) -> dict[str, Page]:
        """Pages that were read."""
        return {}

    def page(self, name: str) -> Page:
        """A page of the repository."""
        if name not in self.pages:
            self.pages[name] = READERS[PurePosixPath(name).suffix.lower()](self.look.text(name))
        return self.pages[name]

    def wrong(self, name: str, link: str) -> tuple[str, str] | None:
        """Rule and reason where a link of page ``name`` does not lead anywhere."""
        if OUTSIDE.match(link):
            return _wrong_address(link)
        path, _, fragment = link.partition("#")
        path = unquote(path.partition("?")[0])
        folder = "" if path.startswith("/") else posixpath.dirname(name)
        target = posixpath.normpath(posixpath.join(folder, path.lstrip("/"))) if path else name
        if target.startswith(".."):
            return "missing-file", f"{link} leads out of the repository"
        if target not in self.known:
            return "missing-file", f"{link} leads to {target}, which is not in the repository"
        if fragment and PurePosixPath(target).suffix.lower() in READERS and not self._has(target, unquote(fragment)):
            return "missing-anchor", f"{link}: {target} has no heading or anchor that is called so"
        return None

    def _has(self, target: str, fragment: str) -> bool:
        return fragment in self.page(target).anchors or fragment == "top"


def _wrong_address(link: str) -> tuple[str, str] | None:
    """Rule and reason where an address outside cannot be right."""
    try:
        parts = urlsplit(link)
        port = parts.port
    except ValueError as malformed:
        return "malformed-address", f"{link}: {malformed}"
    if parts.scheme.lower() in ("http", "https", "ftp", "") and (not parts.hostname or port == 0):
        return "malformed-address", f"{link}: names no host"
    if parts.scheme.lower() == "mailto" and "@" not in unquote(parts.path):
        return "malformed-address", f"{link}: is no address of mail"
    if parts.scheme.lower() == "file":
        return "malformed-address", f"{link}: leads to a file of one machine"
    return None


def inspect(look: Look) -> Report:
    """Follow every link as far as the repository goes."""
    taken(look, Options)
    links = Links(look)
    counts = Counter({"links inside": 0, "links outside, not called": 0, "links of templates, not followed": 0})
    findings = []
    for name in look.files:
        page = links.page(name)
        findings += [
            look.finding(name, line, "undefined-reference", f"{text}: nothing defines this reference")
            for line, text in page.undefined
        ]
        for line, link in filter(lambda one: one[1], page.links):
            if TEMPLATED.search(link):
                counts["links of templates, not followed"] += 1
                continue
            counts["links outside, not called" if OUTSIDE.match(link) else "links inside"] += 1
            if (wrong := links.wrong(name, link)) is not None:
                findings.append(look.finding(name, line, *wrong))
    return Report(findings, look.files, dict(counts))


CHECK = Check(
    name="doc-links",
    title="Links of pages",
    inspect=inspect,
    files=("*.md", "*.markdown", "*.rst", "*.html", "*.htm"),
    canary=Canary(
        "missing-anchor",
        bad={"a.md": "[b](b.md#nowhere)\n", "b.md": "# Here\n"},
        good={"a.md": "[b](b.md#here), <https://example.org/>\n", "b.md": "# Here\n"},
    ),
    of_repository=True,
    environment=lambda tree, _settings: "\n".join(tree.files),  # whether they exist
    seconds=1,
)
