"""Refusals of the Hugging Face Hub and of libraries that load from it, as one paragraph with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from detoxlens.common.errors import UserError


@contextmanager
def loading(what: str, *, source: str, revision: str | None) -> Iterator[None]:
    """Inside, what `from_pretrained` raises becomes a UserError; what speaks of memory passes.

    Args:
        what: e.g. "The model", what stands before the id.
        source: the id, or a folder.
        revision: what was asked for, if anything.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except UserError:
        raise
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ImportError,
        StrictDataclassError,
        SafetensorError,
    ) as e:
        refused = hub_refusal(e, what=what, source=source, revision=revision)
        raise refused or UserError(f"{what} {source} could not be loaded: {first_line(e)}") from e


def first_line(error: Exception) -> str:
    """Of its message; its class where there is none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def hub_refusal(error: Exception, *, what: str, source: str, revision: str | None) -> UserError | None:
    """The paragraph for an error of the hub client, or of a library that met one; None if it is another error.

    Args:
        error: its causes are looked through: transformers wraps the hub's errors.
        what: e.g. "models: redpajama-3b" or "The classifier", what stands before the id.
        source: the id.
        revision: what was asked for, if anything.
    """
    from huggingface_hub import errors as hub

    causes = list(_causes(error))

    def met(*classes: type[Exception]) -> bool:
        return any(isinstance(cause, classes) for cause in causes)

    if met(hub.GatedRepoError):  # is a RepositoryNotFoundError
        return UserError(
            f"{what} {source} is gated: accept its terms on huggingface.co/{source}, run `hf auth login` (or set "
            "HF_TOKEN) with an account that was given access, and run the same command again."
        )
    if met(hub.RevisionNotFoundError):
        return UserError(
            f"{what} {source} has no revision {revision!r}: name a branch, tag or commit that "
            f"huggingface.co/{source}/commits lists, or leave it out for the newest."
        )
    if met(hub.RepositoryNotFoundError):
        return UserError(
            f"{what} {source!r} is neither an existing folder nor a hub model that you may see. Check the spelling; "
            "for a private model run `hf auth login` (or set HF_TOKEN) first."
        )
    if met(hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError) or _is_no_network(causes):
        at = f" at {revision}" if revision else ""
        return UserError(
            f"{what} {source}{at} is not on this machine, and the hub cannot be reached ({type(error).__name__}). "
            f"Check the network, or fetch it elsewhere with `hf download {source}` and name the folder instead."
        )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_no_network(causes: list[BaseException]) -> bool:
    """The hub client lets its HTTP library's own errors through; which library that is has changed before."""
    modules = {type(cause).__module__.partition(".")[0] for cause in causes}
    return any(module.startswith(("httpx", "httpcore", "requests", "urllib3")) for module in modules)
