"""YAML from strangers: what is too big, too deep or ambiguous is refused before it is understood."""

from __future__ import annotations

from typing import Any

import yaml

# A template of ours has 4 KiB, 150 nodes and 9 levels.
MOST_BYTES = 64 * 1024
MOST_NODES = 4000
MOST_LEVELS = 24
TIMESTAMP = "tag:yaml.org,2002:timestamp"


class TemplateError(ValueError):
    """A template or its parameters are not what is needed: the text says what was found, and what to do."""


class _Limited(yaml.SafeLoader):  # pylint: disable=too-many-ancestors # PyYAML's way
    """Reads what JSON can say. Aliases, with which a short text becomes a huge document, are refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012 # not ours to annotate
        first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = self._level = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.line + 1
            raise TemplateError(
                f"no aliases in templates (found one in line {line}). Next: write out what it stands for"
            )
        self._nodes += 1
        self._level += 1
        if self._nodes > MOST_NODES:
            raise TemplateError(f"too much in the template (needed at most {MOST_NODES} values). Next: shorten it")
        if self._level > MOST_LEVELS:
            raise TemplateError(f"too deep a template (needed at most {MOST_LEVELS} levels). Next: make it flatter")
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise TemplateError(
                    f"a name that is no word (found a {key.id} in line {line}). Next: name it by a word"
                )
            if key.value in seen:
                raise TemplateError(f"a name twice (found {key.value!r} again in line {line}). Next: remove one")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str | bytes) -> Any:
    """The document of a text in UTF-8; raises TemplateError, within a second whatever the text is."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MOST_BYTES:
        raise TemplateError(
            f"too long a template (found {len(raw)} bytes, needed at most {MOST_BYTES}). Next: shorten it"
        )
    try:
        loader = _Limited(raw.decode("utf-8"))
        return loader.get_single_data()
    except UnicodeDecodeError as error:
        raise TemplateError(
            f"not text in UTF-8 (found {error.reason} at byte {error.start}). Next: save it so"
        ) from None
    except TemplateError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        said = " ".join(str(error).split())[:300]
        raise TemplateError(f"not YAML that can be read (found: {said}). Next: correct it there") from None
