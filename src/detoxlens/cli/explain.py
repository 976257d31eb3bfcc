"""`preview`: prompts as a model reads them. `explain`: one completion, attributed. `compare`: by several models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detoxlens.cli.app import TOOLS, Context, ModelOption, app

if TYPE_CHECKING:
    from detoxlens.explain.explanation import Explanation
    from detoxlens.params.generation import GenerationConfig


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


CHECKPOINT_HELP = (
    "A variant (tiny-neox/rl, or its folder), a folder of a model or PEFT adapter, a hub id, or a version in MLflow's "
    "registry (models:/tiny-neox-detox@champion)."
)
PromptOption = Annotated[str, typer.Option(help="What the model is asked.")]
TemplateOption = Annotated[
    str | None,
    typer.Option(
        help="Model in params.yaml whose chat template to use; default: the checkpoint's model, else its own template."
    ),
]
NoTemplateOption = Annotated[bool, typer.Option("--no-template", help="Give the model the prompt as it is.")]
MethodOption = Annotated[
    str, typer.Option(help="input_x_gradient, saliency, integrated_gradients, occlusion, value_zeroing, attention.")
]
TargetOption = Annotated[
    str, typer.Option(help="probability, log_probability, or contrastive (against the likeliest other token).")
]
WordsOption = Annotated[
    bool, typer.Option("--words", help="Show words: summed over a word's tokens, averaged over a generated word's.")
]
MaxNewTokensOption = Annotated[int, typer.Option(min=1, help="Longest sample, in tokens.")]
TemperatureOption = Annotated[float, typer.Option(min=0, help="Of the sample; 0 takes the likeliest token.")]
TopKOption = Annotated[int, typer.Option(min=0, help="Of the sample; 0 keeps all tokens.")]
TopPOption = Annotated[float, typer.Option(min=0.01, max=1, help="Of the sample; 1 keeps all tokens.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of the sample.")]
ToxicWordsOption = Annotated[
    bool,
    typer.Option(
        "--toxic-words/--no-toxic-words",
        help="Underline the words that make a text toxic to the project's grader, where that works on this machine.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="E.g. cpu or cuda:0.")]
DtypeOption = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
TrustOption = Annotated[bool, typer.Option("--trust-remote-code", help="Run the model's own Python code from the hub.")]


@app.command(rich_help_panel=TOOLS)
def explain(
    checkpoint: Annotated[list[str], typer.Option(help=CHECKPOINT_HELP)],
    prompt: PromptOption,
    completion: Annotated[str | None, typer.Option(help="What it answers; sampled when left out.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    template: TemplateOption = None,
    no_template: NoTemplateOption = False,
    method: MethodOption = "input_x_gradient",
    target: TargetOption = "probability",
    words: WordsOption = False,
    html: Annotated[Path | None, typer.Option(help="Write the heat map to this HTML file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the scores as Inseq's JSON, for its viewer.")] = None,
    max_new_tokens: MaxNewTokensOption = 40,
    temperature: TemperatureOption = 1.0,
    top_k: TopKOption = 50,
    top_p: TopPOption = 0.9,
    seed: SeedOption = 0,
    toxic_words: ToxicWordsOption = True,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    trust_remote_code: TrustOption = False,
) -> None:
    """Show what each generated token drew on: a coloured table, and a heat map in a file."""
    from detoxlens.common.errors import UserError
    from detoxlens.explain.explanation import check_choices
    from detoxlens.explain.page import page
    from detoxlens.explain.terminal import print_explanation
    from detoxlens.explain.words import by_words

    if len(checkpoint) > 1:
        raise UserError(
            f"--checkpoint is given {len(checkpoint)} times ({', '.join(checkpoint)}), and explain shows one; several "
            f"on one text: `detoxlens compare {' '.join(checkpoint)} --prompt ...`."
        )
    check_choices(method=method, target=target, dtype=dtype, device=device, json=json, html=html)
    found = _explainer(
        template, no_template, prompt, method, target, seed, device, dtype, trust_remote_code, toxic_words
    )(
        checkpoint[0],
        revision=revision,
        completion=completion,
        generation=_generation(max_new_tokens, temperature, top_k, top_p),
    )
    shown = by_words(found) if words else found
    print_explanation(shown)
    if html is not None:
        _write(html, page(shown))
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


@app.command(rich_help_panel=TOOLS)
def compare(
    checkpoints: Annotated[
        list[str],
        typer.Argument(help=f"At least two; the others are compared with the first. Each is: {CHECKPOINT_HELP}"),
    ],
    prompt: PromptOption,
    completion: Annotated[
        str | None, typer.Option(help="What all are made to answer; sampled from the first when left out.")
    ] = None,
    template: TemplateOption = None,
    no_template: NoTemplateOption = False,
    method: MethodOption = "input_x_gradient",
    target: TargetOption = "probability",
    words: WordsOption = False,
    html: Annotated[Path | None, typer.Option(help="Write the comparison to this HTML file.")] = None,
    max_new_tokens: MaxNewTokensOption = 40,
    temperature: TemperatureOption = 1.0,
    top_k: TopKOption = 50,
    top_p: TopPOption = 0.9,
    seed: SeedOption = 0,
    toxic_words: ToxicWordsOption = True,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    trust_remote_code: TrustOption = False,
) -> None:
    """Show several checkpoints on the same prompt and completion: heat maps, differences per token, entropy curves."""
    from detoxlens.explain.compare import check_names
    from detoxlens.explain.compare_page import comparison_page
    from detoxlens.explain.compare_terminal import print_comparison
    from detoxlens.explain.explanation import check_choices
    from detoxlens.explain.words import by_words

    check_names(checkpoints)
    check_choices(method=method, target=target, dtype=dtype, device=device, json=None, html=html)
    attribute = _explainer(
        template, no_template, prompt, method, target, seed, device, dtype, trust_remote_code, toxic_words
    )
    generation = _generation(max_new_tokens, temperature, top_k, top_p)
    first = attribute(checkpoints[0], completion=completion, generation=generation)
    found = [
        first,
        *(attribute(other, completion=None, generation=generation, like=first) for other in checkpoints[1:]),
    ]
    found = [by_words(one) for one in found] if words else found
    print_comparison(found)
    if html is not None:
        _write(html, comparison_page(found))


def _explainer(
    template: str | None,
    no_template: bool,
    prompt: str,
    method: str,
    target: str,
    seed: int,
    device: str,
    dtype: str,
    trust_remote_code: bool,
    toxic_words: bool,
) -> Callable[..., Explanation]:
    """`explain` with everything but the checkpoint and its completion; toxic words marked if wanted."""
    from detoxlens.explain.checkpoints import NO_TEMPLATE, find_checkpoint, find_template, full_name
    from detoxlens.explain.explanation import explain as attribute
    from detoxlens.explain.toxic import marker
    from detoxlens.params.load import load_params

    params_path = Context.root / Context.params_path
    params = load_params(params_path) if params_path.exists() and (toxic_words or not no_template) else None
    mark = marker(Context.root, params) if toxic_words else None

    def one(checkpoint: str, *, revision: str | None = None, **more: Any) -> Explanation:
        name = full_name(Context.root, checkpoint)
        found = attribute(
            Context.root,
            checkpoint=checkpoint,
            ref=find_checkpoint(Context.root, checkpoint, revision=revision),
            template=NO_TEMPLATE if no_template else find_template(params, name, template),
            prompt=prompt,
            method=method,
            target=target,
            seed=seed,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            **more,
        )
        return found if mark is None else mark.marked(found, prompt)

    return one


def _generation(max_new_tokens: int, temperature: float, top_k: int, top_p: float) -> GenerationConfig:
    from detoxlens.params.generation import GenerationConfig

    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        min_new_tokens=1,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        no_repeat_ngram_size=0,
        num_samples=1,
        batch_size=1,
    )


def _write(file: Path, text: str) -> None:
    from detoxlens.common.artifacts import write_text

    write_text(file, text)
    typer.echo(f"Wrote {file}")
