"""A dependence on the user's text that is set by construction is found by attribution and by KL; its absence is not."""

import dataclasses

import numpy as np
import pytest

from detoxlens.attribution import attribute
from detoxlens.attribution.reliance import prompt_reliance
from detoxlens.common.records import Completion
from detoxlens.common.seeding import numpy_rng
from detoxlens.reporting.effects import effects
from tests.attribution.mixture import ANSWER_IDS, TEMPLATE_IDS, USER_IDS, Mixture
from tests.reporting.test_curves import completion, tables
from tests.reporting.test_effects import ENOUGH, NUM_PROMPTS, read


def texts(source: str) -> list[Completion]:
    """Four tokens of the user's between two of the template's; answers of 6 to 10 tokens."""
    rows = []
    for number in range(NUM_PROMPTS):
        user = numpy_rng(0, "user", number).choice(list(USER_IDS), 4).tolist()
        rng = numpy_rng(0, source, number)
        answer = rng.choice(list(ANSWER_IDS), rng.integers(6, 11)).tolist()
        rows.append(
            dataclasses.replace(
                completion(f"p{number:02d}"),
                prompt_ids=(TEMPLATE_IDS[0], *user, TEMPLATE_IDS[1]),
                prompt_token_is_template=(True, False, False, False, False, True),
                completion_ids=tuple(answer),
            )
        )
    return rows


def model_effects(base: Mixture, variant: Mixture, measure: str, scope: str) -> dict:
    it, ft = texts("it"), texts("ft")
    toxicity = {row.prompt_id: 0.1 for row in it}
    of_variant = read(variant, "ft", "ft", ft) + read(variant, "ft", "it", it) + read(base, "it", "ft", ft)
    study = {"it": tables("it", read(base, "it", "it", it), toxicity), "ft": tables("ft", of_variant, toxicity)}
    return effects(study, ENOUGH, scopes=[scope])["ft"][scope][measure]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
def test_dependence_and_kl_of_every_token_are_what_the_mixture_makes_them(share):
    model, row = Mixture(share=share), texts("it")[3]
    prompts, answers = [row.prompt_ids], [row.completion_ids]
    (found,) = attribute(model, prompt_ids=prompts, completion_ids=answers)
    on_user = [sum(scores[1:5]) for scores in found.scores]
    by_hand = [user for user, _, _ in model.shares_by_hand(row.prompt_ids, row.completion_ids)]
    assert on_user == pytest.approx(by_hand, abs=1e-5)
    (reliance,) = prompt_reliance(
        model, prompt_ids=prompts, completion_ids=answers, is_template=[row.prompt_token_is_template]
    )
    assert reliance.kl_bits == pytest.approx(model.kl_bits_by_hand(row.prompt_ids, row.completion_ids), abs=1e-5)
    assert (max(on_user) == 0) == (share == 0) and (max(reliance.kl_bits) < 1e-6) == (share == 0)


@pytest.mark.parametrize(("scope", "measure"), [("user", "prompt_dependence"), ("any_method", "prompt_kl_bits")])
def test_more_of_the_part_that_reads_the_user_is_a_model_effect_of_that_sign(scope, measure):
    more = model_effects(Mixture(share=0.2), Mixture(share=0.5), measure, scope)["model_effect"]
    less = model_effects(Mixture(share=0.5), Mixture(share=0.2), measure, scope)["model_effect"]
    assert more["ci95"][0] > 0 > less["ci95"][1]


def test_the_model_effect_is_the_planted_one():
    base, variant = Mixture(share=0.2), Mixture(share=0.5)
    found = model_effects(base, variant, "prompt_dependence", "user")
    steps = range(found["num_steps"])

    def mean(model: Mixture, source: str) -> float:
        """Over steps, of means over prompts of user / (user + generated)."""
        rows = [model.shares_by_hand(row.prompt_ids, row.completion_ids) for row in texts(source)]
        shares = [[user / (user + generated) for user, _, generated in row] for row in rows]
        return float(np.mean([np.mean([row[t] for row in shares if len(row) > t]) for t in steps]))

    planted = np.mean([mean(variant, source) - mean(base, source) for source in ("it", "ft")])
    assert found["model_effect"]["value"] == pytest.approx(planted, abs=1e-5)


@pytest.mark.parametrize(("scope", "measure"), [("prompt", "prompt_dependence"), ("any_method", "prompt_kl_bits")])
def test_of_models_that_never_read_the_user_no_effect_is_found_though_they_predict_differently(scope, measure):
    effect = model_effects(Mixture(share=0.0, seed=1), Mixture(share=0.0, seed=2), measure, scope)["model_effect"]
    assert max(map(abs, (effect["value"], *effect["ci95"]))) < 1e-6
