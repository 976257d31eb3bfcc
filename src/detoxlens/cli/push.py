"""`detoxlens push-adapter`: a trained adapter to the Hugging Face Hub."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, ModelOption, VariantOption, app
from detoxlens.common.errors import UserError


@app.command("push-adapter", rich_help_panel=TOOLS)
def push_adapter(
    model: ModelOption,
    variant: VariantOption,
    repo: Annotated[str, typer.Option(help="owner/name on the hub.")],
    base: Annotated[str | None, typer.Option(help="Hub id of the base model, where it was read from a folder.")] = None,
    adapter_license: Annotated[str, typer.Option("--license", help="SPDX name for the card.")] = "other",
    dataset: Annotated[list[str] | None, typer.Option(help="Hub id of what it was trained on.")] = None,
    private: Annotated[bool, typer.Option("--private/--public", help="Of a repository that is made.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the card, upload nothing.")] = False,
) -> None:
    """Push an adapter with its model card (data, metrics with intervals, use and limits); needs HF_TOKEN."""
    from detoxlens.common.artifacts import Layout, read_json, read_model_ref
    from detoxlens.models.push import push_adapter as push
    from detoxlens.params.load import load_params
    from detoxlens.params.report import ReportConfig
    from detoxlens.params.toxicity import ToxicityConfig
    from detoxlens.reporting.hub_card import CardFacts, hub_card

    layout, params = Layout(Context.root), load_params(Context.root / Context.params_path)
    params.model(model), params.variant(variant)
    folder = layout.adapter(model, variant)
    if not (folder / "README.md").exists() or (folder / "intervention.json").exists():
        raise UserError(f"{folder} is not there or holds no adapter; `dvc repro` or `dvc pull` makes it.")
    ref = read_model_ref(folder)
    is_local = (Context.root / ref.base).exists()
    if base is None and is_local:
        raise UserError(
            f"The base model of {model}/{variant} lies in {ref.base}: nobody else could load the adapter. Push the "
            "base model, or find it on the hub, and name it with --base owner/name."
        )
    ref = ref if base is None else replace(ref, base=base, revision=None)
    metrics = layout.reports / "metrics.json"
    card = hub_card(
        CardFacts(
            name=f"{model}/{variant}",
            how=(folder / "README.md").read_text(encoding="utf-8"),
            base=ref,
            metrics=read_json(metrics).get(model, {}).get(variant) if metrics.exists() else None,
            split=params.section("report", ReportConfig).primary_split,
            grader=params.section("toxicity", ToxicityConfig).headline,
            license=adapter_license,
            datasets=tuple(dataset or ()),
        )
    )
    if dry_run:
        typer.echo(card)
        return
    endpoint = os.environ.get("HF_ENDPOINT")
    where = push(folder, repo, card=card, base=ref.base, revision=ref.revision, endpoint=endpoint, private=private)
    typer.echo(f"Pushed to {where}")
