"""The base class of sections of params.yaml: frozen, keyword-only, no unknown keys, mistakes named by key."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from detoxlens.common.errors import UserError, did_you_mean

NAME = r"^[a-z0-9][a-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME)]
Autocast = Literal["bfloat16"] | None
"""Format of matrix products where it is not that of the weights (https://docs.pytorch.org/docs/stable/amp.html)."""


class Section(BaseModel):
    """Base of every params section: frozen, keyword-only, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, raw: Any) -> Any:
        """Each section knows its own keys, so that a misspelt one is named with its neighbours however deep it lies."""
        if isinstance(raw, dict) and cls.model_config["extra"] == "forbid":
            for key in raw:
                if key not in cls.model_fields:
                    hint = f"{did_you_mean(str(key), cls.model_fields)} Allowed here: {', '.join(cls.model_fields)}"
                    raise PydanticCustomError("unknown_key", "{hint}", {"key": str(key), "hint": hint})
        return raw


S = TypeVar("S", bound=Section)


def parse(cls: type[S], raw: Any, where: str) -> S:
    """`raw` as a `cls`; a mistake is reported as `where.key=value: what is allowed`."""
    try:
        return cls.model_validate(raw)
    except ValidationError as e:
        lines = []
        for error in e.errors():
            parts = map(str, (where, *error["loc"]))
            key = ".".join(part for part in parts if not part.startswith("<"))  # <...>: which of several classes
            if error["type"] == "unknown_key":
                lines.append(f"{key}.{error['ctx']['key']} is not a known key.{error['msg']}.")
            elif error["type"] == "of_key":
                lines.append(f"{key}.{error['ctx']['key']}{error['msg']}.")
            elif error["type"] == "missing":
                lines.append(f"{key} is missing; add it (see the committed params.yaml).")
            else:
                lines.append(f"{key}={error['input']!r}: {error['msg'].removeprefix('Value error, ')}.")
        raise UserError(" ".join(lines)) from None
