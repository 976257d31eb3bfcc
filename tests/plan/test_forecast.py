"""What a stage costs, by hand: seconds, bytes and queries of every setting that changes them."""

import types

import pytest

from detoxlens.common.records import Prompt
from detoxlens.models.footprint import GIB, Footprint, Weights
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.interpolate import InterpolateConfig
from detoxlens.params.load import Params, load_params
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.preference import PreferenceConfig
from detoxlens.params.sft import SftConfig
from detoxlens.plan import forecast
from detoxlens.plan.command import _judge, model_costs
from detoxlens.plan.counts import Counts, Data, count
from detoxlens.plan.forecast import Judge
from detoxlens.plan.measure import Speeds
from tests.root import ROOT

SPEEDS = Speeds(
    train_all=3.0,
    train_lora=2.0,
    forward=1.0,
    decode_step=10.0,
    decode_row=1.0,
    attribute=0.1,
    attribute_float32=0.5,
    train_lora_autocast=1.0,
    forward_autocast=0.25,
)
COUNTS = Counts(
    num_rows=100,
    prompt_tokens=20,
    generated_tokens=10,
    num_attributed=5,
    num_attributed_beside=9,
    num_attributed_test=3,
    num_examples=40,
    num_hater_turns=80,
    example_tokens=50,
    base_example_tokens=30,
)
SHAPE = Footprint(
    weights=Weights(num_parameters=3 * 10**9, num_embedding=2 * 10**8),
    num_adapter_parameters=10**6,
    hidden=2560,
    num_layers=32,
    vocab=50_000,
    dtype="bfloat16",
)
FLOAT32 = Footprint(
    weights=SHAPE.weights, num_adapter_parameters=10**6, hidden=2560, num_layers=32, vocab=50_000, dtype="float32"
)
PARAMS = load_params(ROOT / "params.yaml")
NOBODY = (Judge("tiny:roberta"), Judge("recorded:data/recorded/x.csv"))
PAIRS = sum(20 + t for t in range(10))
"""(generated token, token of its prefix) of one text."""


def section(name, cls, **changes):
    return PARAMS.section(name, cls).model_copy(update=changes)


def ppo(**changes):
    found = section("ppo", PpoConfig, **({"num_steps": 4} | changes))  # batches of 64, 2 epochs
    return found.model_copy(update={"validation": found.validation.model_copy(update={"every": 2, "num_prompts": 10})})


GENERATION = section("generation", GenerationConfig, max_new_tokens=20)
ROLLOUT = 20 * 10 + 64 * 10 * 1
VALIDATION = (20 * 10 + 10 * 10 * 1) + 2 * 10 * 30


def rl(config, *, algorithm="ppo", judges=NOBODY):
    return forecast.rl_cost(config, algorithm, GENERATION, judges, COUNTS, SPEEDS, SHAPE, 0.0)


def test_finetune_is_its_tokens_its_validations_and_its_steps():
    sft = section("sft", SftConfig, num_epochs=2, batch_size=8, eval_every=5)
    # 40 / 8 = 5 steps, two epochs: 10; 80 examples of 50 tokens trained, 2 validations of 4 examples read
    cost = forecast.finetune_cost(sft, COUNTS, SPEEDS, SHAPE, 7.0)
    assert cost.seconds == pytest.approx(7 + 80 * 50 * 2.0 + 2 * 4 * 50 * 1.0 + 10 * 0.02)
    assert cost.disk_gib == pytest.approx(4e6 / GIB) and cost.memory_gib > 6e9 / GIB
    faster = forecast.finetune_cost(sft.model_copy(update={"autocast": "bfloat16"}), COUNTS, SPEEDS, SHAPE, 7.0)
    assert faster.seconds == pytest.approx(7 + 80 * 50 * 1.0 + 2 * 4 * 50 * 0.25 + 10 * 0.02)


def test_generate_and_score_count_batches_rows_and_queries():
    config = section("generation", GenerationConfig, max_new_tokens=16)
    # 100 rows in batches of 64: two, each 16 positions long; 10 tokens a row; 20 prompt tokens read
    cost = forecast.generate_cost(config, COUNTS, SPEEDS, SHAPE, 1.0)
    assert cost.seconds == pytest.approx(1 + 2 * 16 * 10 + 100 * 10 * 1 + 100 * 20)
    scored = forecast.score_cost([Judge("perspective"), Judge("openai_moderation")], None, COUNTS, SPEEDS, SHAPE, 0.0)
    assert scored.num_api_calls == 100 + 4
    assert scored.seconds == pytest.approx(100 * 30 + 100 + 4)


def test_interpolate_answers_at_each_strength_and_reads_three_times_but_at_0():
    config = section("interpolate", InterpolateConfig, alphas=[0.0, 0.5, 1.0], num_prompts=70, num_attributed=6)
    generation = section("generation", GenerationConfig, max_new_tokens=16)
    attribution = section("attribution", AttributionConfig)
    cost = forecast.interpolate_cost(
        config, generation, attribution, Judge("perspective"), COUNTS, SPEEDS, FLOAT32, 1.0
    )
    # 70 answers in two batches of 16 positions, 20 prompt tokens read, 30 for the likelihood; a query each; 6 texts of
    # base, and of both strengths but 0 three readings of 6
    answers = 2 * 16 * 10 + 70 * 10 + 70 * (20 + 30)
    assert cost.seconds == pytest.approx(1 + 3 * answers + 210 + (6 + 2 * 3 * 6) * PAIRS * 0.1)
    assert cost.num_api_calls == 210


def test_only_interpolated_variants_cost_interpolate():
    assert not [key for key in costs() if key[0] == "interpolate"]
    found = costs(**{"run.interpolated_variants": ["rl"]})
    assert [key for key in found if key[0] == "interpolate"] == [("interpolate", "rl")]


def test_toxic_words_cost_four_gradings_of_each_word_of_a_third_of_the_completions():
    without, with_words = (
        forecast.score_cost([Judge("profanity_check")], by and Judge(by), COUNTS, SPEEDS, SHAPE, 0.0).seconds
        for by in (None, "profanity_check")
    )
    # 100 rows of 10 tokens, 7.5 words: 1,000 parts of texts at 4,000 a second
    assert with_words - without == pytest.approx(1000 / 4000)


def test_a_classifier_whose_weights_lie_here_is_forecast_by_its_own_size(tmp_path):
    folder = tmp_path / "data/recorded/scorers/small"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(4 * 1000))
    params = types.SimpleNamespace(path=str(tmp_path / "params.yaml"))
    assert _judge(params, "hf:data/recorded/scorers/small") == Judge("hf:data/recorded/scorers/small", 1000)
    assert _judge(params, "hf:data/recorded/scorers/small#rude").num_parameters == 1000
    assert _judge(params, "hf:a/b").num_parameters == 1.25e8  # as large as RoBERTa-base
    small, large = (
        forecast.score_cost([Judge("hf:x", size)], None, COUNTS, SPEEDS, SHAPE, 0.0).seconds for size in (1e3, 1e6)
    )
    read = forecast.score_cost([], None, COUNTS, SPEEDS, SHAPE, 0.0).seconds
    assert large - read == pytest.approx(1000 * (small - read))


def test_rl_decodes_reads_and_learns():
    step = ROLLOUT + 3 * 64 * 30 + 2 * 64 * 30 * 2.0
    assert rl(ppo()).seconds == pytest.approx(4 * step + 4 * VALIDATION)


def test_a_value_function_with_an_adapter_reads_and_learns_in_passes_of_its_own():
    step = ROLLOUT + 4 * 64 * 30 + 2 * 2 * 64 * 30 * 2.0
    cost = rl(ppo(value_function="lora"))
    assert cost.seconds == pytest.approx(4 * step + 4 * VALIDATION)
    assert cost.memory_gib - rl(ppo()).memory_gib == pytest.approx(16 * 10**6 / GIB)
    assert cost.disk_gib == rl(ppo()).disk_gib  # it is not kept


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_trls_algorithms_measure_again_and_have_no_value_function(algorithm):
    # 64 / 32 minibatches in 2 epochs: 4 updates a step
    step = ROLLOUT + 5 * 64 * 30 + 2 * 64 * 30 * 2.0 + 4 * 0.02
    for config in (ppo(), ppo(value_function="lora"), ppo(num_generations=8)):
        assert rl(config, algorithm=algorithm).seconds == pytest.approx(4 * step + 4 * VALIDATION)


def test_graders_inside_rl_are_asked_of_rollouts_and_validations():
    base = rl(ppo())
    remote = rl(ppo(), judges=(Judge("tiny:roberta"), Judge("perspective")))
    assert remote.num_api_calls == 4 * 64 + 4 * 10 and base.num_api_calls == 0
    assert remote.seconds - base.seconds == pytest.approx(4 * 64 + 4 * 10)  # one a second
    batched = rl(ppo(), judges=(Judge("tiny:roberta"), Judge("openai_moderation")))
    assert batched.num_api_calls == 4 * 2 + 4 * 1  # 32 texts a query
    share = 1.25e8 / 3e9
    hub = rl(ppo(), judges=(Judge("hf:a/b"), Judge("hf:c/d")))
    assert hub.seconds - base.seconds == pytest.approx((2 * 4 * 64 + 4 * 10) * 10 * share)


def attribution(method="input_x_gradient", *, precision_check=0, num_sequences=0, others=()):
    config = section("attribution", AttributionConfig, method=method, precision_check=precision_check)
    test = config.faithfulness.model_copy(
        update={"num_sequences": num_sequences, "steps_per_sequence": 4, "num_random": 2, "fractions": [0.1, 0.5]}
    )
    agreement = config.agreement.model_copy(update={"methods": list(others), "num_sequences": 2})
    return config.model_copy(update={"faithfulness": test, "agreement": agreement})


RELIANCE = (5 + 9) * 2 * 30
"""Of each text a forward behind the prompt and one behind its template."""


def attribute(config, shape=SHAPE):
    return forecast.attribute_cost(config, COUNTS, SPEEDS, shape, 0.0)


def test_attribute_reads_its_own_texts_and_what_completes_the_two_by_two():
    assert attribute(attribution()).seconds == pytest.approx((5 + 9) * PAIRS * 0.1 + RELIANCE)


def test_further_methods_attribute_a_sample_of_each_combination():
    found = attribute(attribution(others=["saliency", "occlusion", "input_x_gradient"]))
    one_of_each = PAIRS * 0.1 + 30**2  # a gradient per pair; a forward over 30 tokens for each of them
    assert found.seconds - attribute(attribution()).seconds == pytest.approx(2 * (5 + 9) / 5 * one_of_each)


def test_the_tests_of_faithfulness_attribute_again_and_delete():
    cost = attribute(attribution(num_sequences=2))
    # 2 texts on shuffled weights; of each 4 tokens: whole, and of 2 shares 1 + 2 choices, both ways: half a text
    assert cost.seconds == pytest.approx((5 + 9 + 2) * PAIRS * 0.1 + RELIANCE + 2 * 4 * (1 + 2 * 3 * 2) * 15)
    assert cost.memory_gib - attribute(attribution()).memory_gib == pytest.approx(6e9 / GIB)
    # no more than there are: three test texts, ten tokens of each
    most = attribute(attribution(num_sequences=50)).seconds
    assert most == pytest.approx((14 + 3) * PAIRS * 0.1 + RELIANCE + 3 * 4 * 13 * 15)


def test_fewer_bits_are_checked_against_float32_which_weighs_twice():
    cost = attribute(attribution(precision_check=8))
    assert cost.seconds == pytest.approx(14 * PAIRS * 0.1 + RELIANCE + 3 * PAIRS * 0.5)
    assert cost.memory_gib - attribute(attribution()).memory_gib == pytest.approx(6e9 / GIB)
    assert attribute(attribution(precision_check=8), FLOAT32) == attribute(attribution(), FLOAT32)


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("integrated_gradients", 50 * PAIRS * 0.1),
        ("attention", PAIRS),
        ("occlusion", 30 * 30),
        ("value_zeroing", PAIRS * 24.5 * 32),
    ],
)
def test_methods_cost_their_passes(method, text):  # the mean prefix: 20 prompt tokens and 4.5 of the answer
    assert attribute(attribution(method)).seconds == pytest.approx(14 * text + RELIANCE)


def prompt(number, split, *filters):
    return Prompt(prompt_id=f"{number:016x}", text="x" * 40, split=split, filters=filters, toxicity=0.9)


DATA = Data(
    prompts=[prompt(i, "val" if i < 2 else "test", "p50") for i in range(10)],
    dialogues=[("a" * 40, "b" * 40)] * 8,
)


def params(**changes):
    """params.yaml for one model, with dotted keys changed."""
    raw = load_params(ROOT / "params.yaml").raw
    raw["run"] |= {"models": ["tiny-neox"]}
    for path, value in changes.items():
        *parents, key = path.split(".")
        node = raw
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return Params(raw)


def costs(**changes):
    """(stage, variant) -> cost."""
    settings = params(**changes)
    variants = settings.run.variants
    counts = {v: count(DATA, settings, "tiny-neox", v, earlier_tokens=10.0) for v in variants}
    found = model_costs(settings, "tiny-neox", counts, SPEEDS, dict.fromkeys(variants, SHAPE), 0.0)
    return {(cost.stage, cost.variant): cost for cost in found}


def changed(before, after):
    return {key: after[key].seconds / before[key].seconds for key in before if after[key] != before[key]}


def test_rejection_is_fine_tuning_and_the_answers_to_choose_from():
    sft = section("sft", SftConfig, num_epochs=3.0, batch_size=16, num_samples=4)
    cost = forecast.rejection_cost(sft, Judge("tiny:roberta"), COUNTS, SPEEDS, SHAPE, 7.0)
    tokens = 1.1 * 4 * 40 * 25  # half of 50 tokens an example
    drawn = 7 * 2 * 10 * 10 + tokens * 1.0  # 440 answers of 10 tokens: 7 batches of at most 64
    assert cost.seconds == pytest.approx(forecast.finetune_cost(sft, COUNTS, SPEEDS, SHAPE, 7.0).seconds + drawn)
    assert cost.stage == "rejection"


@pytest.mark.parametrize("algorithm", ["dpo", "kto"])
def test_preference_is_its_answers_the_reference_and_its_steps(algorithm):
    config = section("preference", PreferenceConfig, num_epochs=2.0, batch_size=16, eval_every=5)
    config = config.model_copy(update={"pairs": config.pairs.model_copy(update={"num_samples": 4})})
    cost = forecast.preference_cost(config, algorithm, GENERATION, Judge("tiny:roberta"), COUNTS, SPEEDS, SHAPE, 7.0)
    sampled = 6 * 20 * 10 + 352 * 10 * 1  # 80 turns and 8 of val, 4 answers each: 6 batches of at most 64
    pair = 2 * 30
    steps = 80 * 2 // 16 if algorithm == "dpo" else 160 * 2 // 16
    reads = 1.1 + steps // 5 * 0.1 if algorithm == "dpo" else 2.2 + 2 + steps // 5 * 0.2
    expected = 7.0 + sampled + 80 * pair * (reads * 1.0 + 2 * 2.0) + steps * forecast.TRAINER_STEP_SECONDS
    assert cost.seconds == pytest.approx(expected)
    rows = 32 if algorithm == "dpo" else 16
    assert cost.memory_gib * GIB == pytest.approx(
        SHAPE.training_bytes(num_tokens=rows * (2 * 20 + 20), recomputed=False)
    )


def test_a_preference_variant_has_a_row_and_its_own_settings():
    more = {
        "variants.dpo": {"kind": "preference", "algorithm": "dpo"},
        "run.variants": ["it", "dpo"],
        "run.preference_variants": ["dpo"],
        "run.sft_variants": [],
        "run.rl_variants": [],
    }
    assert next(key for key in costs(**more) if key[1] == "dpo") == ("preference", "dpo")
    before = costs(**more)
    assert set(changed(before, costs(**more, **{"variants.dpo.overrides.preference": {"num_epochs": 10}}))) == {
        ("preference", "dpo")
    }


def test_every_stage_has_a_row_of_each_of_its_variants():
    assert [key for key in costs() if key[0] in ("base", "finetune", "rl", "attribute")] == [
        ("base", ""),
        ("finetune", "ft"),
        ("rl", "rl"),
        ("attribute", "it"),
        ("attribute", "ft"),
        ("attribute", "rl"),
    ]


def test_another_seed_is_another_row_of_the_same_cost():
    more = costs(
        **{
            "variants.rl-s1": {"kind": "rl", "algorithm": "ppo", "seed": 1, "group": "rl"},
            "run.variants": ["it", "ft", "rl", "rl-s1"],
            "run.rl_variants": ["rl", "rl-s1"],
        }
    )
    for stage in ("rl", "generate", "score", "attribute"):
        assert more[stage, "rl-s1"].seconds == more[stage, "rl"].seconds == costs()[stage, "rl"].seconds


def test_twice_the_samples_are_twice_the_rows_of_generate_score_and_attribute():
    both = {"attribution.samples_per_prompt": 2, "attribution.faithfulness.num_sequences": 0}  # whose number is fixed
    both |= {"attribution.precision_check": 0, "generation.batch_size": 10}
    found = changed(costs(**both), costs(**both, **{"generation.num_samples": 2}))
    assert set(found) == {(s, v) for s in ("generate", "score", "attribute") for v in ("it", "ft", "rl")}
    assert found == pytest.approx(dict.fromkeys(found, 2.0))


def test_samples_that_are_not_attributed_cost_attribute_nothing():
    found = changed(costs(), costs(**{"generation.num_samples": 2}))  # samples_per_prompt: 1
    assert {stage for stage, _ in found} == {"generate", "score"}


def test_a_variants_overrides_change_its_own_rows_alone():
    before = costs()
    assert set(changed(before, costs(**{"variants.rl.overrides.ppo": {"num_steps": 48}}))) == {("rl", "rl")}
    assert set(changed(before, costs(**{"variants.ft.overrides.sft": {"num_epochs": 10}}))) == {("finetune", "ft")}
    more = changed(before, costs(**{"variants.ft.overrides.generation": {"num_samples": 3}}))
    assert set(more) == {("generate", "ft"), ("score", "ft")}
    assert set(changed(before, costs(**{"variants.rl.algorithm": "grpo"}))) == {("rl", "rl")}


def test_every_variant_but_it_reads_the_texts_of_it_and_is_read_by_it():
    found = {v: count(DATA, params(), "tiny-neox", v, earlier_tokens=None) for v in ("it", "ft")}
    assert [(c.num_attributed, c.num_attributed_beside, c.num_attributed_test) for c in found.values()] == [
        (10, 0, 8),
        (10, 18, 8),  # what it wrote is read by `it` on test prompts alone
    ]
    without = {
        v: count(DATA, params(**{"attribution.validation": False}), "tiny-neox", v, earlier_tokens=None) for v in found
    }
    assert [(c.num_attributed, c.num_attributed_beside) for c in without.values()] == [(8, 0), (8, 16)]
    assert found["it"].generated_tokens == 40  # generation.max_new_tokens


def test_a_prompt_that_two_filters_draw_counts_once():
    both = Data(prompts=[prompt(i, "test", "p50", "pc50") for i in range(6)], dialogues=DATA.dialogues)
    two = params(**{"attribution.filters": ["p50", "pc50"], "attribution.max_sequences": 5})
    assert count(both, two, "tiny-neox", "it", earlier_tokens=None).num_attributed == 6
    assert count(DATA, two, "tiny-neox", "it", earlier_tokens=None).num_attributed == 5 + 2


def test_without_data_the_declared_limits_are_taken():
    none = Data(prompts=None, dialogues=None)
    found = count(none, params(), "tiny-neox", "it", earlier_tokens=None)
    assert found.num_rows == 60 + 400 + 160 + 100 + 30 + 100 + 100 + 80 + 80 and found.num_examples == 2450
    assert found.num_attributed == 60 + 150  # p50: 60 for validation, max_sequences of its 400
    assert len(none.notes()) == 2 and DATA.notes() == []
