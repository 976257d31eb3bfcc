"""Statistics about toxic tokens: against slow loops, numpy's least squares, SciPy, hand values and simulated nulls."""

import numpy as np
import pytest
from scipy.stats import kstest, mannwhitneyu

from detoxlens.evaluation.early_warning import auroc
from detoxlens.evaluation.enrichment import Drawing, PromptWords, enrichment
from detoxlens.evaluation.label_nulls import p_value, permuted, shifted
from detoxlens.evaluation.onset import NEVER, event_study
from detoxlens.evaluation.token_contrast import Tokens, contrast, contrast_of_draws, regress
from detoxlens.params.report import Bootstrap

BOOTSTRAP = Bootstrap(num_resamples=300, seed=0)
NUM, STEPS = 40, 12


def texts(seed: int, *, effect: float = 0.0, num: int = NUM) -> tuple[Tokens, np.ndarray]:
    """Completions of 4 to 12 tokens with a run of one or two labelled ones anywhere; `effect` is added to those."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, STEPS + 1, num)
    there = np.arange(STEPS) < lengths[:, None]
    labels = np.zeros((num, STEPS), dtype=bool)
    for i, n in enumerate(lengths):
        labels[i, (rng.integers(n) + np.arange(rng.integers(1, 3))) % n] = True
    noise = rng.normal(size=(num, STEPS)) + rng.normal(size=(num, 1)) - 0.1 * np.arange(STEPS)
    values = np.where(there, noise + effect * labels, np.nan)
    return Tokens(prompts=[f"p{i // 2}" for i in range(num)], there=there, labels=labels), values


def test_shifted_labels_are_the_same_ones_turned_round_within_their_completion():
    tokens, _ = texts(0, num=5)
    draws = shifted(tokens.labels, tokens.there, 400, np.random.default_rng(1))
    for i, n in enumerate(tokens.there.sum(1)):
        turns = {tuple(np.roll(tokens.labels[i, :n], k)) for k in range(n)}
        assert {tuple(draw[i, :n]) for draw in draws} == turns  # every one comes up, and no other
        assert not draws[:, i, n:].any()


def test_permuted_labels_keep_their_number_at_each_step_and_stay_on_tokens():
    tokens, _ = texts(0)
    draws = permuted(tokens.labels, tokens.there, 50, np.random.default_rng(1))
    assert (draws.sum(1) == tokens.labels.sum(0)).all() and not (draws & ~tokens.there).any()
    assert len({draw.tobytes() for draw in draws}) == 50


def test_p_counts_the_draws_as_far_from_the_mean_and_the_observed_value_itself():
    # 3 with 0, 0, 1, 1, 1: mean 1, distances 2 | 1, 1, 0, 0, 0
    assert p_value(3.0, np.array([0.0, 0, 1, 1, 1])) == pytest.approx(1 / 6)
    # 2 with 0, 0, 2: mean 1, all at a distance of 1
    assert p_value(2.0, np.array([0.0, 0, 2])) == 1.0
    assert p_value(2.0, np.array([np.nan])) is None and p_value(np.nan, np.array([1.0])) is None


def test_the_contrast_is_that_of_a_loop_over_labelled_tokens():
    tokens, values = texts(3, effect=0.7)
    differences = []
    for i, t in np.argwhere(tokens.labels & tokens.there):
        others = [values[j, t] for j in range(NUM) if j != i and tokens.there[j, t] and not tokens.labels[j, t]]
        if others:
            differences.append(values[i, t] - np.mean(others))
    found = contrast(tokens, values, BOOTSTRAP)
    assert found.value == pytest.approx(np.mean(differences))
    assert found.ci95[0] < found.value < found.ci95[1]
    same = contrast_of_draws(tokens, values, tokens.labels[None])
    assert same == pytest.approx([found.value])
    assert contrast(tokens, np.full_like(values, np.nan), BOOTSTRAP) is None


def test_the_interval_of_the_contrast_covers_the_planted_effect():
    covered = 0
    for seed in range(60):
        lo, hi = contrast(*texts(seed, effect=0.5), BOOTSTRAP).ci95
        covered += lo <= 0.5 <= hi
    assert 52 <= covered <= 60


def regression_by_lstsq(tokens, values, covariates, labels, last):
    rows, steps = np.nonzero(tokens.there)
    design = [labels[tokens.there].astype(float), *(c[tokens.there] for c in covariates)]
    design += [(rows == i).astype(float) for i in range(NUM)]
    design += [(np.minimum(steps, last) == t).astype(float) for t in range(1, last + 1)]
    return np.linalg.lstsq(np.column_stack(design), values[tokens.there], rcond=None)[0][0]


def test_the_regression_is_least_squares_with_all_dummies_and_under_other_labels_too():
    tokens, values = texts(5, effect=0.7)
    rng = np.random.default_rng(0)
    covariates = [rng.normal(size=values.shape), rng.random(values.shape) > 0.5]
    values = values + 0.8 * covariates[0]
    found = regress(tokens, values, covariates, BOOTSTRAP, min_per_step=10)
    last = int(np.argmax(tokens.there.sum(0) < 10)) if (tokens.there.sum(0) < 10).any() else STEPS - 1
    expected = regression_by_lstsq(tokens, values, covariates, tokens.labels, last)
    assert found.estimate.value == pytest.approx(expected) and abs(expected - 0.7) < 0.4
    lo, hi = found.estimate.ci95
    assert lo < expected < hi and hi - lo < 1
    draws = shifted(tokens.labels, tokens.there, 4, rng)
    assert found.of_draws(draws) == pytest.approx(
        [regression_by_lstsq(tokens, values, covariates, labels, last) for labels in draws]
    )


def test_a_label_that_other_terms_explain_has_no_coefficient():
    tokens, values = texts(5)
    assert regress(tokens, values, [tokens.labels.astype(float)], BOOTSTRAP, min_per_step=10) is None


def test_a_resample_without_a_step_does_not_break_the_interval():
    tokens, values = texts(5, num=6)
    found = regress(tokens, values, [], BOOTSTRAP, min_per_step=1)
    assert np.isfinite(found.estimate.ci95).all()


def test_the_event_study_is_that_of_a_loop_over_events_and_finds_a_planted_jump():
    rng = np.random.default_rng(2)
    tokens, values = texts(7, num=120)
    lengths = tokens.there.sum(1)
    onset = np.where(rng.random(120) < 0.5, rng.integers(0, lengths), NEVER)
    for i in np.flatnonzero(onset < NEVER):
        values[i, onset[i]] += 2.0
    found = event_study(tokens.prompts, values, onset, BOOTSTRAP, max_lag=2, min_events=5)
    for k, lag in enumerate(range(-2, 3)):
        differences = []
        for i in np.flatnonzero(onset < NEVER):
            step = onset[i] + lag
            if not 0 <= step < STEPS or np.isnan(values[i, step]):
                continue
            controls = [
                values[j, step] for j in range(120) if onset[j] > max(onset[i], step) and not np.isnan(values[j, step])
            ]
            if len(controls) >= 3:
                differences.append(values[i, step] - np.mean(controls))
        assert found.value[k] == pytest.approx(np.mean(differences)) and found.num_events[k] == len(differences)
    assert found.band_lo[2] > 1 and found.lo[2] > found.band_lo[2]
    assert found.band_lo[1] < 0 < found.band_hi[1]


def test_lags_with_too_few_events_are_empty():
    tokens, values = texts(7)
    onset = np.full(NUM, NEVER)
    onset[:4] = 2
    found = event_study(tokens.prompts, values, onset, BOOTSTRAP, max_lag=1, min_events=5)
    assert np.isnan(found.value).all() and found.num_events.tolist() == [4, 4, 4]
    nothing = event_study(tokens.prompts, values, np.full(NUM, NEVER), BOOTSTRAP, max_lag=1, min_events=1)
    assert np.isnan(nothing.value).all() and nothing.num_events.sum() == 0


def words(num_tokens=(1, 2, 1, 1), toxic=3, control=1) -> PromptWords:
    n = len(num_tokens)
    return PromptWords(
        num_tokens=np.array(num_tokens),
        total_tokens=sum(num_tokens),
        is_toxic=np.arange(n) == toxic,
        is_content=np.ones(n, dtype=bool),
        control=np.arange(n) == control,
    )


def test_lift_is_the_share_over_the_share_of_the_tokens():
    # share .4 on one of five tokens: 2; the control has .3 on two of five: .75
    drawings = [Drawing(prompt="p", words=words(), shares=np.array([[0.1, 0.3, 0.1, 0.4]]))]
    found = enrichment(drawings, BOOTSTRAP, num_draws=100, rng=np.random.default_rng(0))
    assert found.lift.value == pytest.approx(2.0) and found.against_control.value == pytest.approx(1.25)
    assert found.num_tokens == 1 and found.lift.ci95 is None
    nothing = [Drawing(prompt="p", words=words(toxic=9), shares=np.array([[0.1, 0.3, 0.1, 0.4]]))]
    assert enrichment(nothing, BOOTSTRAP, num_draws=100, rng=np.random.default_rng(0)) is None


def drawings(seed: int, *, favour: float = 1.0) -> list[Drawing]:
    """Toxic words anywhere in the prompt; `favour` times the share that another word gets."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(40):
        toxic = int(rng.integers(6))
        of = words((1, 2, 1, 3, 1, 2), toxic, (toxic + 1) % 6)
        shares = rng.gamma(2.0, size=(2, 6)) * np.where(of.is_toxic, favour, 1.0)
        found.append(Drawing(prompt=f"p{i}", words=of, shares=shares / shares.sum(1, keepdims=True)))
    return found


def test_a_planted_preference_is_found():
    found = enrichment(drawings(0, favour=3.0), BOOTSTRAP, num_draws=500, rng=np.random.default_rng(0))
    assert found.lift.value > 1.5 and found.p < 0.01 and found.against_control.ci95[0] > 0


def test_auroc_is_that_of_mann_and_whitney():
    rng = np.random.default_rng(0)
    toxic = rng.random(60) < 0.4
    values = np.round(rng.normal(size=60) + toxic, 1)  # with ties
    found = auroc([str(i) for i in range(60)], values, toxic, BOOTSTRAP, num_draws=500, rng=rng)
    expected = mannwhitneyu(values[toxic], values[~toxic], method="asymptotic")
    assert found.auroc.value == pytest.approx(expected.statistic / (toxic.sum() * (~toxic).sum()))
    assert found.p == pytest.approx(expected.pvalue, abs=0.02)
    assert found.auroc.ci95[0] < found.auroc.value < found.auroc.ci95[1]
    assert auroc(["p"], np.array([1.0]), np.array([True]), BOOTSTRAP, num_draws=100, rng=rng) is None


def by_shift(seed):
    tokens, values = texts(seed, num=20)
    draws = shifted(tokens.labels, tokens.there, 199, np.random.default_rng(seed))
    return p_value(contrast_of_draws(tokens, values, tokens.labels[None])[0], contrast_of_draws(tokens, values, draws))


def by_step(seed):
    tokens, values = texts(seed, num=20)
    values = values + np.random.default_rng(seed).normal(size=STEPS)
    dealt = permuted(tokens.labels, tokens.there, 1, np.random.default_rng(10_000 + seed))[0]
    draws = permuted(dealt, tokens.there, 199, np.random.default_rng(seed))
    return p_value(contrast_of_draws(tokens, values, dealt[None])[0], contrast_of_draws(tokens, values, draws))


def by_shift_in_the_regression(seed):
    tokens, values = texts(seed, num=20)
    found = regress(tokens, values, [], Bootstrap(num_resamples=100, seed=0), min_per_step=3)
    draws = shifted(tokens.labels, tokens.there, 199, np.random.default_rng(seed))
    return p_value(found.of_draws(tokens.labels[None])[0], found.of_draws(draws))


def by_words(seed):
    rng = np.random.default_rng(seed)
    return enrichment(drawings(seed), Bootstrap(num_resamples=100, seed=0), num_draws=199, rng=rng).p


def by_completions(seed):
    rng = np.random.default_rng(seed)
    prompts, bootstrap = [str(i) for i in range(30)], Bootstrap(num_resamples=100, seed=0)
    return auroc(prompts, rng.normal(size=30), rng.permutation(np.arange(30) < 12), bootstrap, num_draws=199, rng=rng).p


@pytest.mark.parametrize("null", [by_shift, by_step, by_shift_in_the_regression, by_words, by_completions])
def test_p_is_uniform_where_there_is_nothing(null):
    """200 simulated nulls each: Kolmogorov and Smirnov's distance from uniform is what chance makes it."""
    assert kstest([null(seed) for seed in range(200)], "uniform").pvalue > 0.01


def test_a_planted_effect_is_found_by_both_nulls():
    tokens, values = texts(1, effect=1.0)
    observed = contrast(tokens, values, BOOTSTRAP).value
    for null in (shifted, permuted):
        draws = null(tokens.labels, tokens.there, 500, np.random.default_rng(0))
        assert p_value(observed, contrast_of_draws(tokens, values, draws)) < 0.01
