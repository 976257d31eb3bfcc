"""The throwaway environment with TRL 1.12.0, the last release with PPO: made once, in the state folder, then reused.

It is a folder with TRL alone that precedes this environment's packages. So both sides run the same builds of torch,
transformers, PEFT and accelerate (TRL 1.12.0 works with them), and nothing installed here changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from detoxlens.common.errors import UserError

TRL = "1.12.0"


def environment_with_trl(folder: Path) -> dict[str, str]:
    """Environment variables under which this Python imports TRL 1.12.0, installed into `folder` if it is not there.

    Raises:
        UserError: pip cannot install it; nothing is left behind.
    """
    if not (folder / f"trl-{TRL}.dist-info" / "RECORD").exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*command, "--target", str(partial), f"trl=={TRL}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            shutil.rmtree(partial, ignore_errors=True)
            said = (done.stderr or done.stdout).strip().splitlines()
            raise UserError(
                f"Could not install TRL {TRL} ({said[-1] if said else 'pip gave no reason'}). The benchmark needs it, "
                f"from the package index that your pip is set up for; nothing was measured or written."
            )
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return os.environ | {"PYTHONPATH": str(folder), "TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1"}
