"""What `score` writes of costs: a kind per completion, the reference replies of test prompts, one row of inference."""

import dataclasses

import pytest

from detoxlens.common.artifacts import Layout, read_rows, write_json, write_rows
from detoxlens.common.records import Completion, InferenceCost, Prompt, ResponseKind, Utility
from detoxlens.data.templates import encode_prompt
from detoxlens.evaluation.counter_speech import fit
from detoxlens.models.loading import load_tokenizer
from detoxlens.pipeline.stages import score
from tests.pipeline.stages.study import make_study, params_of
from tests.pipeline.stages.test_score import IT

REPLIES = ("That is unfair, Zorgons help.", "I can't help with that.", "Bread is baked.", "", "Nice.")


@pytest.fixture
def layout(tmp_path) -> Layout:
    """Two validation and three test prompts; all have references but one, the classifier of counter-speech is there."""
    layout = make_study(tmp_path)
    params, tokenizer = params_of(), load_tokenizer(tmp_path, IT)
    prompts = [
        dataclasses.replace(p, reference=None if n == 4 else "Zorgons bake bread.", split="val" if n < 2 else "test")
        for n, p in enumerate(read_rows(layout.prompts, Prompt)[:5])
    ]
    write_rows(layout.prompts, prompts, Prompt)
    rows = [
        Completion(
            prompt_id=prompt.prompt_id,
            sample_index=sample,
            split=prompt.split,
            filters=prompt.filters,
            prompt=prompt.text,
            prompt_ids=encoded.ids,
            prompt_token_is_template=encoded.is_template,
            completion=text,
            completion_ids=tuple(tokenizer(text)["input_ids"]) if text else (),
            finish_reason="eos",
            seed=0,
        )
        for prompt, text in zip(prompts, REPLIES, strict=True)
        for encoded in [encode_prompt(tokenizer, params.model("m").template, [prompt.text], evaluation=True)]
        for sample in (0, 1)
    ]
    for variant in ("it", "ft"):
        write_rows(layout.completions("m", variant), rows, Completion)
    classifier = fit(["That is unfair, they help.", "unfair they help"], [["fools", "what fools"], ["Bread is baked."]])
    write_json(layout.counter_speech, dataclasses.asdict(classifier))
    return layout


def costs(layout, variant):
    score.run(layout.root, params_of(), model="m", variant=variant)
    return (
        read_rows(layout.response_kinds("m", variant), ResponseKind),
        read_rows(layout.utility("m", variant), Utility),
        read_rows(layout.inference_cost("m", variant), InferenceCost),
    )


def test_kinds_utility_and_inference_of_base_and_of_an_adapter(layout):
    kinds, base, at_base = costs(layout, "it")
    assert [k.kind for k in kinds[::2]] == ["counter_speech", "refusal", "answer", "empty", "answer"]
    assert [k.kind for k in kinds[::2]] == [k.kind for k in kinds[1::2]] and kinds[6].counter_speech_prob is None
    test = [c.prompt_id for c in read_rows(layout.completions("m", "it"), Completion)[::2]][2:4]
    assert [u.prompt_id for u in base] == test  # no validation prompt, each prompt once, none without a reference
    assert [u.kl_to_base_bits for u in base] == [0.0, 0.0] and all(u.nll_bits > 0 < u.num_tokens for u in base)
    assert at_base[0].extra_weights_bytes == 0 and at_base[0].flops_per_token == at_base[0].base_flops_per_token > 0
    _, adapted, at_ft = costs(layout, "ft")
    assert all(u.kl_to_base_bits > 0 for u in adapted)
    assert [u.num_tokens for u in adapted] == [u.num_tokens for u in base]
    assert at_ft[0].extra_weights_bytes > 0 and at_ft[0].flops_per_token > at_ft[0].base_flops_per_token
    assert at_ft[0].extra_prompt_tokens == 0


def test_the_same_input_gives_the_same_bytes(layout):
    tables = []
    for _ in range(2):
        costs(layout, "ft")
        files = layout.response_kinds, layout.utility, layout.inference_cost
        tables.append([of("m", "ft").read_bytes() for of in files])
    assert tables[0] == tables[1]


def test_without_classifier_and_references_the_tables_are_there_and_empty(layout):
    layout.counter_speech.unlink()
    rows = [dataclasses.replace(p, reference=None) for p in read_rows(layout.prompts, Prompt)]
    write_rows(layout.prompts, rows, Prompt)
    assert costs(layout, "ft") == ([], [], [])
    layout.prompts.unlink()  # completions made elsewhere come without them
    assert costs(layout, "ft") == ([], [], [])
