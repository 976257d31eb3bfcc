"""Names of metrics, params and tags as MLflow takes them, and back: `hf:lab/judge@4f1c` <-> `hf:lab/judge_x0040_4f1c`.

MLflow takes letters, digits and `_ - . space : /`, at most 250 of them, in names that as paths are no other path. What
it refuses is written `_xHHHH_`, as SQL/XML writes characters that a name cannot hold (ISO/IEC 9075-14, 9.1). Two names
never become one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

MAX_CHARS = 250
"""MLflow's MAX_ENTITY_KEY_LENGTH."""
_HASH_DIGITS = 32
_REFUSED = re.compile(
    r"[^\w\-. :/]"  # a character
    r"|_(?=x[0-9A-F]{4})"  # what could read as an escape
    r"|^/|/$|(?<=/)/"  # a slash that a path would drop
    r"|(?:^|(?<=/))\.(?=\.?(?:/|$))|(?<=^\.)\.(?=/|$)|(?<=/\.)\.(?=/|$)|^\.(?=\.)"  # the dots of `.`, `..`, `..x`
)


def mlflow_name(name: str) -> str:
    """The name under which MLflow keeps `name`; most are kept as they are.

    One that stays too long is cut and ends in its hash: `mlflow_names` says what it stood for.
    """
    escaped = _REFUSED.sub(lambda found: f"_x{ord(found[0]):04X}_", name)
    if len(escaped) <= MAX_CHARS:
        return escaped
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return f"{escaped[: MAX_CHARS - _HASH_DIGITS - 1].rstrip('/.')}_{digest}"


def original_name(stored: str) -> str:
    """The name that `mlflow_name` was given, unless it was cut."""
    return re.sub(r"_x([0-9A-F]{4,6})_", lambda found: chr(int(found[1], 16)), stored)


def changed_names(names: Iterable[str]) -> dict[str, str]:
    """Name in MLflow -> name, of those that differ."""
    return {stored: name for name in sorted(set(names)) if (stored := mlflow_name(name)) != name}
