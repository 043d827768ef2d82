"""What is wrong with data of ours that a model refuses, in the words of those who write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args

import yaml

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

# What a model asked for, by the kind of its complaint; values are those of the complaint's context.
NEEDED = {
    "json_invalid": "JSON",
    "string_type": "a text",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "literal_error": "{expected}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "at least {min_length} entries",
    "dict_type": "keys with values",
    "mapping_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
}
KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (Mapping, "keys with values"), ((list, tuple), "a list"), (type(None), "nothing"), (str, "{0!r}"),
)  # fmt: skip
TYPES = {
    list: "a list",
    dict: "keys with values",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "yes or no",
}
LONGEST = 60  # characters of what was found


def explained(wrong: ValidationError, model: type[BaseModel]) -> str:
    """Each thing that is wrong: the path of the key, what was found and what is needed, apart by semicolons."""
    return "; ".join(_one(one, model) for one in wrong.errors(include_url=False))


def of_type(given: object, wanted: type | tuple[type, ...]) -> str:
    """What was found where something of another type is needed."""
    kind = wanted if isinstance(wanted, type) else wanted[-1]
    return f"found {_found(given)}, needed {TYPES[kind]}"


def not_yaml(broken: yaml.YAMLError) -> str:
    """Where a text is no YAML, and why, in one line."""
    mark = getattr(broken, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark else ""
    return f"not YAML{where}: {getattr(broken, 'problem', None) or str(broken).splitlines()[0]}"


def _one(one: Mapping[str, Any], model: type[BaseModel]) -> str:
    where = "".join(f"{part}." for part in one["loc"]).removesuffix(".") + ": " * bool(one["loc"])
    kind, context = one["type"], one.get("ctx", {})
    if kind == "missing":
        return f"{where}is missing"
    if kind == "extra_forbidden":
        return f"{where}there is no such key, needed one of: {', '.join(_keys(model, one['loc'][:-1])) or '(none)'}"
    if kind == "value_error":
        return f"{where}{context['error']}"
    needed = "a day such as 2027-03-31" if kind.startswith("date") else NEEDED.get(kind, "another value")
    form = _form(model, one["loc"]) or needed.format(**context)
    return f"{where}found {_found(one['input'])}, needed {form}"


def _found(given: object) -> str:
    """What somebody wrote, in short."""
    said = next((words.format(given) for kind, words in KINDS if isinstance(given, kind)), str(given))
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}..."


def _keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys that are known at a place."""
    return sorted(_at(model, path).model_fields)


def _form(model: type[BaseModel], path: tuple[int | str, ...]) -> str | None:
    """How a value is written: the description of its field, where the model has one."""
    field = _at(model, path[:-1]).model_fields.get(str(path[-1])) if path else None
    return field.description if field else None


def _at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The model at a place."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models(model.model_fields[part].annotation), model)  # of a list, that of each entry
    return model


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if hasattr(annotation, "model_fields"):
        yield annotation  # type: ignore[misc] # only models have them
    for inner in get_args(annotation):
        yield from _models(inner)
