"""Params section `tracking`: who else is shown the training curves. No number depends on it, and no stage reads it."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from detoxlens.params.section import Section

Reporter = Literal["mlflow", "tensorboard", "wandb"]


class TrackingConfig(Section):
    """Where training curves go besides the adapter's own history.jsonl."""

    report_to: list[Reporter]
    """`mlflow` always: it is the record. `tensorboard` writes event files below .detoxlens/tensorboard, `wandb` one run
    of the project `detoxlens` per adapter, with the login or the WANDB_* variables of the environment."""

    @field_validator("report_to")
    @classmethod
    def _mlflow_is_the_record(cls, value: list[Reporter]) -> list[Reporter]:
        if "mlflow" not in value:
            raise ValueError("mlflow must be in it: the comparison of runs is made there; add the others beside it")
        if len(set(value)) < len(value):
            raise ValueError("each at most once")
        return value
