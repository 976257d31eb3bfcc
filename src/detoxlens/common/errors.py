"""Errors for users: one paragraph that names the key or file, the value, what is allowed and the remedy."""

from __future__ import annotations

import contextlib
import difflib
import errno
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path


class UserError(ValueError):
    """A mistake in params, data or set-up. The command line prints the message alone and exits with 2."""


def did_you_mean(word: object, allowed: Iterable[object]) -> str:
    """ " Did you mean 'x'?" for the closest allowed word, or an empty string."""
    close = difflib.get_close_matches(str(word), list(map(str, allowed)), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


@contextlib.contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk met while writing at `path` into one paragraph; other errors pass."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:  # safetensors and torch.save answer a failed write with errors of their own
        folder = next(p for p in (path, *path.absolute().parents) if p.is_dir())
        free_mib = shutil.disk_usage(folder).free / 2**20
        if isinstance(e, OSError) and e.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise UserError(
                f"{e.filename or path} cannot be opened or written: {e.strerror}. Earlier results are as they were. "
                f"Give this user the right to do so in {folder} and run the same command again: it resumes from what "
                "was finished."
            ) from e
        if not _is_full_disk(e, free_mib):
            raise
        raise UserError(
            f"The disk is full: {getattr(e, 'filename', None) or path} could not be written ({free_mib:.0f} MiB are "
            f"free in {folder}). Earlier results are as they were. Make room (`dvc gc -w` drops cached data that no "
            "params use) and run the same command again: it resumes from what was finished."
        ) from e


def _is_full_disk(error: Exception, free_mib: float) -> bool:
    """ENOSPC or a quota, safetensors' wording of it, or torch.save's failed write where hardly anything is free."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "os error 28" in str(error) or ("inline_container" in str(error) and free_mib < 64)
