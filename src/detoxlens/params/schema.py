"""JSON schema of params.yaml, from the classes of its sections: what an editor completes, checks and explains.

https://json-schema.org/draft/2020-12. Descriptions are the docstrings beside the fields. A section under `overrides`
may leave any key out.
"""

from __future__ import annotations

import ast
import copy
import inspect
import itertools
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from detoxlens.params.models import ModelConfig
from detoxlens.params.run import RunConfig
from detoxlens.params.section import NAME, Section
from detoxlens.params.sections import CLASSES
from detoxlens.params.variants import VariantConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ENTRIES: Mapping[str, type[Section]] = {"models": ModelConfig, "variants": VariantConfig}
"""Sections that hold entries of one class, by names of the user's."""


def params_schema() -> dict[str, Any]:
    """The schema of the whole file; plain JSON values, the same for the same classes."""
    sections: dict[str, type[Section]] = {"run": RunConfig, **CLASSES}
    classes = [*sections.values(), *ENTRIES.values()]
    refs, found = models_json_schema([(cls, "validation") for cls in classes], ref_template="#/$defs/{model}")
    definitions = found["$defs"]
    for cls in _all_classes(classes):
        _describe(cls, definitions.get(cls.__name__, {}))
    overrides = {
        "type": "object",
        "description": "Section -> the keys of it that differ here.",
        "properties": {name: _partial(cls.__name__, definitions) for name, cls in CLASSES.items()},
        "additionalProperties": False,
    }
    for cls in ENTRIES.values():
        definitions[cls.__name__]["properties"]["overrides"] = {
            "$ref": "#/$defs/Overrides",
            "description": attribute_docstrings(cls)["overrides"],
        }
    definitions["Overrides"] = overrides
    properties = {
        name: refs[cls, "validation"] | {"description": _first_line(cls)} for name, cls in sections.items()
    } | {name: _entries(cls) for name, cls in ENTRIES.items()}
    return {
        "$schema": DIALECT,
        "title": "params.yaml of detoxlens",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def reference() -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Section, what it is about, and its keys with their descriptions, nested ones by dots; in the file's order."""
    schema = params_schema()
    for name, entry in schema["properties"].items():
        inner = entry["additionalProperties"] if name in ENTRIES else entry
        yield name, entry["description"], list(_keys(inner, schema["$defs"], "<name>." if name in ENTRIES else ""))


def attribute_docstrings(cls: type) -> dict[str, str]:
    """Field -> the string that stands below it in the class's source, as one line (PEP 257's attribute docstrings).

    Empty for a class that was made by a call, whose fields bring their descriptions.
    """
    if f"class {cls.__name__}(" not in inspect.getsource(sys.modules[cls.__module__]):
        return {}
    (body,) = (node.body for node in ast.parse(textwrap.dedent(inspect.getsource(cls))).body)
    found = {}
    for field, text in itertools.pairwise(body):
        is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if is_field and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _all_classes(roots: list[type[Section]]) -> set[type[Section]]:
    """The sections and the classes of their fields: all that the same modules define."""
    modules = {sys.modules[cls.__module__] for cls in roots}
    return {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Section) and value is not Section
    }


def _describe(cls: type[Section], definition: dict[str, Any]) -> None:
    inherited: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        if issubclass(parent, Section) and parent is not Section:
            inherited |= attribute_docstrings(parent)
    for key, text in inherited.items():
        if key in definition.get("properties", {}):
            definition["properties"][key]["description"] = text


def _entries(cls: type[Section]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": _first_line(cls),
        "propertyNames": {"pattern": NAME},
        "additionalProperties": {"$ref": f"#/$defs/{cls.__name__}"},
    }


def _partial(name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A reference to the definition `name` without required keys, and so all the way down."""
    partial = f"Some{name}"
    if partial not in definitions:
        definitions[partial] = {}  # a class may lead back to itself
        whole = copy.deepcopy(definitions[name])
        whole.pop("required", None)
        definitions[partial] |= _with_partial_refs(whole, definitions)
    return {"$ref": f"#/$defs/{partial}"}


def _with_partial_refs(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_with_partial_refs(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(ref := node.get("$ref"), str):
        return {k: v for k, v in node.items() if k != "$ref"} | _partial(ref.rpartition("/")[2], definitions)
    return {key: _with_partial_refs(value, definitions) for key, value in node.items()}


def _keys(entry: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    inner = definitions[entry["$ref"].rpartition("/")[2]]
    if isinstance(inner.get("additionalProperties"), dict):
        yield from _keys(inner["additionalProperties"], definitions, f"{prefix}<name>.")
    for key, value in inner.get("properties", {}).items():
        yield f"{prefix}{key}", value.get("description", "")
        nested = [v for v in (value, *value.get("anyOf", ())) if "$ref" in v]
        for found in nested:
            if found["$ref"] != "#/$defs/Overrides" and "properties" in definitions[found["$ref"].rpartition("/")[2]]:
                yield from _keys(found, definitions, f"{prefix}{key}.")


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
