"""`detoxlens preview`: prompts as a model reads them. `detoxlens explain`: one completion, attributed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detoxlens.cli.app import TOOLS, Context, ModelOption, app


@app.command(rich_help_panel=TOOLS)
def preview(
    model: ModelOption,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt of your own; repeatable.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many evaluation prompts, where none is given.")] = 3,
) -> None:
    """Show prompts as the model reads them: text, tokens, ids, and what is template, system message or user's text."""
    from detoxlens.explain.preview import preview as look
    from detoxlens.explain.terminal import print_previews
    from detoxlens.params.load import load_params

    found = look(
        Context.root, load_params(Context.root / Context.params_path), model, prompts=prompt or (), count=count
    )
    print_previews(found)
    if found.warning:
        typer.echo(f"\nWarning: {found.warning}", err=True)


@app.command(rich_help_panel=TOOLS)
def explain(
    checkpoint: Annotated[
        str,
        typer.Option(help="Folder of a variant (adapters/<model>/<variant>), model or PEFT adapter; or a hub id."),
    ],
    prompt: Annotated[str, typer.Option(help="What the model is asked.")],
    completion: Annotated[str | None, typer.Option(help="What it answers; sampled when left out.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    template: Annotated[
        str | None,
        typer.Option(help="Model in params.yaml whose chat template to use; default: the one the folder belongs to."),
    ] = None,
    no_template: Annotated[bool, typer.Option("--no-template", help="Give the model the prompt as it is.")] = False,
    method: Annotated[
        str, typer.Option(help="input_x_gradient, saliency, integrated_gradients, occlusion, value_zeroing, attention.")
    ] = "input_x_gradient",
    target: Annotated[
        str, typer.Option(help="probability, log_probability, or contrastive (against the likeliest other token).")
    ] = "probability",
    words: Annotated[
        bool, typer.Option("--words", help="Show words: summed over a word's tokens, averaged over a generated word's.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write the heat map to this HTML file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the scores as Inseq's JSON, for its viewer.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest sample, in tokens.")] = 40,
    temperature: Annotated[float, typer.Option(min=0, help="Of the sample; 0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Of the sample; 0 keeps all tokens.")] = 50,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Of the sample; 1 keeps all tokens.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    device: Annotated[str, typer.Option(help="E.g. cpu or cuda:0.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the model's own Python code from the hub.")
    ] = False,
) -> None:
    """Show what each generated token drew on: a coloured table, and a heat map in a file."""
    from detoxlens.explain.explanation import NO_TEMPLATE, check_choices, explain, find_checkpoint, find_template
    from detoxlens.explain.page import page
    from detoxlens.explain.terminal import print_explanation
    from detoxlens.explain.words import by_words
    from detoxlens.params.generation import GenerationConfig
    from detoxlens.params.load import load_params

    check_choices(method=method, target=target, dtype=dtype, device=device, json=json, html=html)
    params_path = Context.root / Context.params_path
    chat = NO_TEMPLATE
    if not no_template:
        params = load_params(params_path) if params_path.exists() else None
        chat = find_template(params, checkpoint, template)
    found = explain(
        Context.root,
        checkpoint=checkpoint,
        ref=find_checkpoint(Context.root, checkpoint, revision=revision),
        template=chat,
        prompt=prompt,
        completion=completion,
        method=method,
        target=target,
        generation=GenerationConfig(
            max_new_tokens=max_new_tokens,
            min_new_tokens=1,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            no_repeat_ngram_size=0,
            num_samples=1,
            batch_size=1,
        ),
        seed=seed,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
    shown = by_words(found) if words else found
    print_explanation(shown)
    if html is not None:
        from detoxlens.common.artifacts import write_text

        write_text(html, page(shown))
        typer.echo(f"Wrote {html}")
    if json is not None:
        from detoxlens.attribution.inseq_backend import write_inseq_json

        write_inseq_json(
            json,
            scores=found.scores,
            prompt_ids=found.prompt_ids,
            completion_ids=found.completion_ids,
            pieces=(*found.prompt_pieces, *found.completion_pieces),
            token_prob=found.token_prob,
            method=method,
        )
        typer.echo(f"Wrote {json}")
