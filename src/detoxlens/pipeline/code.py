"""DVC's first stage, `code`: code/<stage>.txt, a line per module that the stage's numbers depend on.

Each stage depends on its file alone, so that it runs again when one of its modules does something else, and not for a
comment. A stage that is run by itself writes its own file first: what DVC files its outputs under is what made them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from detoxlens.common.artifacts import Layout, write_text
from detoxlens.common.checkout import check_own_code
from detoxlens.common.fingerprint import fingerprint
from detoxlens.params.reads import STAGES, module_of


def write_code(root: Path, stages: Iterable[str] = STAGES) -> None:
    """Writes code/<stage>.txt of `stages`, where it is not so already.

    Raises:
        UserError: the code that is running is not that of the checkout in `root`.
    """
    check_own_code(root)
    for stage in stages:
        path = Layout(root).code(stage)
        text = "".join(f"{line}\n" for line in fingerprint(module_of(stage)))
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
