"""An adapter folder into a repository on the hub: weights, config, card, training curves, and nothing else."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from detoxlens.common.errors import UserError
from detoxlens.models.hub import first_line

PUSHED = ("adapter_model.safetensors", "adapter_config.json", "history.jsonl")
"""Beside the card. No prompts and no completions: they may be real people's hostility."""


def push_adapter(
    folder: Path, repository: str, *, card: str, base: str, revision: str | None, endpoint: str | None, private: bool
) -> str:
    """Uploads the adapter in one commit and returns its address; a repository that is not there is made.

    Args:
        folder: adapters/<m>/<v>.
        repository: `owner/name`.
        card: README.md.
        base: hub id of the base model, which adapter_config.json then names.
        revision: commit of the base model; None leaves it open.
        endpoint: of the hub; None is the client's default.
        private: of a repository that is made.

    Raises:
        UserError: the folder holds no adapter, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    if not (folder / PUSHED[0]).exists():
        raise UserError(f"{folder} holds no {PUSHED[0]}: only trained adapters are pushed; `dvc repro` makes them.")
    with tempfile.TemporaryDirectory() as staged_name:
        staged = Path(staged_name)
        for name in PUSHED:
            if (folder / name).exists():
                shutil.copyfile(folder / name, staged / name)
        config: Mapping[str, object] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        named = dict(config) | {"base_model_name_or_path": base, "revision": revision}
        (staged / "adapter_config.json").write_text(json.dumps(named, indent=2, sort_keys=True) + "\n", "utf-8")
        (staged / "README.md").write_text(card, encoding="utf-8")
        api = HfApi(endpoint=endpoint)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=staged, commit_message="Adapter, card and curves")
        except HFValidationError as e:
            raise UserError(f"--repo={repository} is no name for a repository: {first_line(e)}") from None
        except LocalTokenNotFoundError:
            raise UserError("Pushing needs a token: set HF_TOKEN, or log in with `hf auth login`.") from None
        except (HfHubHTTPError, OSError) as e:
            status = getattr(getattr(e, "response", None), "status_code", None)
            if status in (401, 403):
                raise UserError(
                    f"The hub refuses to write to {repository} (status {status}): HF_TOKEN needs write access to it."
                ) from None
            raise UserError(
                f"The hub could not be written to: {first_line(e)} Nothing is half there: try again."
            ) from e
    return f"{api.endpoint}/{repository}"
