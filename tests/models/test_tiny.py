"""The embedded models: a batch plan that is a permutation, a schedule by hand, resume that changes no bit."""

import pytest
import torch

from detoxlens.common.errors import UserError
from detoxlens.jobs import save_timer
from detoxlens.models.tiny import batches, build, causal_lm_loss, classifier_loss, cosine_lr, fit, train_tokenizer
from detoxlens.params.tiny import TinyConfig

CONFIG = TinyConfig(
    vocab_size=300,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    context_length=64,
    num_examples=100,
    rude_share=0.5,
    counter_share=0.1,
    prompt_loss_weight=0.1,
    batch_size=4,
    num_steps=6,
    learning_rate=0.01,
    weight_decay=0.0,
)


def test_tokenizer_round_trips_any_text():
    tokenizer = train_tokenizer(["Zorgons ride the tram."] * 3, 300)
    text = "Zorgons — grüßen\n<bot>: \U0001f680"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer(text)["input_ids"][0] != tokenizer.bos_token_id


@pytest.mark.parametrize("architecture", ["gpt_neox", "falcon", "roberta"])
def test_architectures_have_their_size_and_special_tokens(architecture):
    model = build(architecture, CONFIG, vocab_size=300)
    assert (model.config.eos_token_id, model.config.pad_token_id) == (0, 1)
    assert model(input_ids=torch.tensor([[5, 6, 7]])).logits.shape[-1] == (2 if architecture == "roberta" else 300)


def test_batches_use_every_example_once_per_epoch_and_depend_on_the_seed():
    lengths = [i % 7 for i in range(40)]
    plan = list(batches(lengths, 4, 10, seed=0))
    assert sorted(i for batch in plan for i in batch) == list(range(40))
    assert plan == list(batches(lengths, 4, 10, seed=0)) != list(batches(lengths, 4, 10, seed=1))


def test_cosine_schedule_by_hand():  # warm-up over 5 of 100 steps, then from the peak to a tenth of it
    assert cosine_lr(0, 100, 1.0) == pytest.approx(0.2)
    assert cosine_lr(4, 100, 1.0) == pytest.approx(1.0)
    assert cosine_lr(5, 100, 1.0) == pytest.approx(1.0)
    assert cosine_lr(100, 100, 1.0) == pytest.approx(0.1)


def test_causal_loss_is_the_weighted_mean_of_each_sequence_alone():
    torch.manual_seed(0)
    model = build("gpt_neox", CONFIG, vocab_size=300).eval()
    long, short = [5, 6, 7, 8], [9, 10]
    both = causal_lm_loss(model, [long, short], [[1, 1, 1, 0.5], [1, 1]], pad_token_id=1)
    first = causal_lm_loss(model, [long], [[1, 1, 1, 0.5]], pad_token_id=1)  # weights 1 + 1 + .5
    second = causal_lm_loss(model, [short], [[1, 1]], pad_token_id=1)  # weight 1
    torch.testing.assert_close(both, (2.5 * first + second) / 3.5)


def test_classifier_loss_ignores_padding():
    torch.manual_seed(0)
    model = build("roberta", CONFIG, vocab_size=300).eval()
    both = classifier_loss(model, [[2, 9, 3], [2, 9, 8, 7, 3]], [0, 1], pad_token_id=1)
    alone = [classifier_loss(model, [ids], [y], pad_token_id=1) for ids, y in (([2, 9, 3], 0), ([2, 9, 8, 7, 3], 1))]
    torch.testing.assert_close(both, sum(alone) / 2)


class Killed(Exception):
    pass


def _train(checkpoint, kill_after=None):
    torch.manual_seed(0)
    model = build("gpt_neox", CONFIG, vocab_size=300)
    ids = [[5 + i, 6, 7 + i % 3, 8] for i in range(24)]
    done = 0

    def on_step(num_steps):
        nonlocal done
        done += num_steps
        if done == kill_after:
            raise Killed

    history = fit(
        model,
        list(batches([4] * 24, 4, 6, seed=0)),
        lambda batch: causal_lm_loss(model, [ids[i] for i in batch], [[1.0] * 4] * len(batch), pad_token_id=1),
        learning_rate=CONFIG.learning_rate,
        weight_decay=CONFIG.weight_decay,
        checkpoint=checkpoint,
        checkpoint_every=2,
        on_step=on_step,
    )
    return history, model.state_dict()


def test_a_killed_training_continues_to_the_same_bits(tmp_path):
    history, weights = _train(tmp_path / "whole.pt")
    with pytest.raises(Killed):
        _train(tmp_path / "killed.pt", kill_after=5)
    resumed_history, resumed = _train(tmp_path / "killed.pt")
    assert resumed_history == history
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)


def test_a_slow_training_is_saved_by_time_too(tmp_path, monkeypatch):
    history, weights = _train(tmp_path / "whole.pt")
    monkeypatch.setattr(save_timer, "SAVE_SECONDS", 0.0)
    with pytest.raises(Killed):
        _train(tmp_path / "killed.pt", kill_after=1)
    assert torch.load(tmp_path / "killed.pt", weights_only=True)["step"] == 1
    resumed_history, resumed = _train(tmp_path / "killed.pt")
    assert resumed_history == history
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)


def test_a_diverging_loss_names_the_step_and_the_learning_rate(tmp_path):
    model = build("gpt_neox", CONFIG, vocab_size=300)
    with pytest.raises(UserError, match=r"step 0.*learning_rate=0\.01"):
        fit(
            model,
            [[0]],
            lambda _: torch.tensor(float("nan"), requires_grad=True),
            learning_rate=CONFIG.learning_rate,
            weight_decay=CONFIG.weight_decay,
            checkpoint=tmp_path / "c.pt",
            on_step=lambda _: None,
        )
