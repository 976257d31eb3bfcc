"""Stage generate: what the table holds, that a kill changes no byte, and what is refused."""

import pytest

from detoxlens.common.artifacts import Layout, read_rows, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, ModelRef, Prompt
from detoxlens.data.templates import encode_prompt
from detoxlens.models import backends
from detoxlens.models.loading import load_tokenizer
from detoxlens.pipeline.stages import generate
from tests.pipeline.stages.study import PROMPT_TEXTS, make_study, params_of

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 asks transformers 5.23 by a name that it is about to drop.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


@pytest.fixture
def layout(tmp_path) -> Layout:
    return make_study(tmp_path)


def generated(layout, params=None, variant="it") -> list[Completion]:
    generate.run(layout.root, params or params_of(), model="m", variant=variant)
    return read_rows(layout.completions("m", variant), Completion)


def test_every_prompt_gets_its_samples_in_order_with_the_ids_the_model_saw(layout):
    rows = generated(layout)
    assert [(r.prompt, r.sample_index) for r in rows] == [(t, s) for t in PROMPT_TEXTS for s in (0, 1)]
    assert [r.split for r in rows] == ["val"] * 6 + ["test"] * 8
    tokenizer = load_tokenizer(layout.root, ModelRef(base="models/m/base", revision="", adapter=None))
    template = params_of().model("m").template
    for row in rows:
        encoded = encode_prompt(tokenizer, template, [row.prompt], evaluation=True)
        assert (row.prompt_ids, row.prompt_token_is_template) == (encoded.ids, encoded.is_template)
        assert row.completion == tokenizer.decode(row.completion_ids, skip_special_tokens=True).strip()
        assert tokenizer.eos_token_id not in row.completion_ids
        assert (row.finish_reason == "length") == (len(row.completion_ids) == 10)
    assert rows[0].completion_ids != rows[1].completion_ids
    assert len({r.seed for r in rows}) == len(rows)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(layout):
    generated(layout)
    first = layout.completions("m", "it").read_bytes()
    generated(layout)
    assert layout.completions("m", "it").read_bytes() == first
    generated(layout, params_of(run={"seed": 1}))
    assert layout.completions("m", "it").read_bytes() != first


def test_variants_share_prompts_and_seeds_and_differ_in_weights(layout):
    it, ft = generated(layout), generated(layout, variant="ft")
    assert [(r.prompt_id, r.sample_index, r.seed) for r in it] == [(r.prompt_id, r.sample_index, r.seed) for r in ft]
    assert [r.completion_ids for r in it] != [r.completion_ids for r in ft]


def test_batch_size_and_company_do_not_change_a_completion(layout):
    rows = generated(layout)
    assert generated(layout, params_of(generation={"batch_size": "auto"})) == rows
    write_rows(layout.prompts, read_rows(layout.prompts, Prompt)[::2], Prompt)
    assert generated(layout, params_of(generation={"batch_size": 3})) == [r for n, r in enumerate(rows) if n % 4 < 2]


def test_no_batch_mixes_validation_with_test_prompts(layout, monkeypatch):
    real, batches = backends.sample_batch, []
    split_of = {row.prompt_ids: row.split for row in generated(layout)}

    def noted(model, prompts, **kwargs):
        batches.append({split_of[tuple(prompt)] for prompt in prompts})
        return real(model, prompts, **kwargs)

    monkeypatch.setattr(backends, "sample_batch", noted)
    generated(layout, params_of(generation={"batch_size": "auto"}))
    assert batches == [{"val"}, {"test"}]


def test_a_killed_run_goes_on_where_it_was_with_the_same_bytes(layout, monkeypatch):
    generated(layout)
    uninterrupted = layout.completions("m", "it").read_bytes()
    layout.completions("m", "it").unlink()
    real, calls = backends.sample_batch, []

    def dies_in_the_third_batch(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(backends, "sample_batch", dies_in_the_third_batch)
    with pytest.raises(KeyboardInterrupt):
        generated(layout)
    assert not layout.completions("m", "it").exists()
    generated(layout)  # 14 rows in batches of 4: two were done, one died, two are left
    assert len(calls) == 3 + 2
    assert layout.completions("m", "it").read_bytes() == uninterrupted
    assert not list((layout.state / "scratch").rglob("*.jsonl"))


def test_a_prompt_longer_than_the_context_is_named_before_anything_is_sampled(layout):
    prompts = read_rows(layout.prompts, Prompt)
    long = Prompt(prompt_id="feedfacefeedface", split="test", filters=(), text="Zorgons bake " * 30, toxicity=None)
    write_rows(layout.prompts, [*prompts, long], Prompt)
    with pytest.raises(UserError, match=r"feedfacefeedface.*context of 96 tokens"):
        generated(layout)


def test_no_prompts_no_tokenizer_no_weights(layout):
    for file in layout.base("m").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        generated(layout)
    write_rows(layout.prompts, [], Prompt)
    with pytest.raises(UserError, match="no validation or test prompts"):
        generated(layout)
    layout.prompts.unlink()
    with pytest.raises(UserError, match=r"prompts\.parquet does not exist"):
        generated(layout)
