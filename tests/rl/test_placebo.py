"""A placebo of training by reward: nothing to learn from, and as far from the base model as the real one."""

import pytest

from detoxlens.rl.checkpoint import adapter_state
from detoxlens.rl.groups import GroupTrainer
from detoxlens.rl.ppo import PPO
from detoxlens.rl.rewards import RewardedResponse, permuted
from detoxlens.rl.validation import kept_validation
from tests.rl.test_checkpoint import Killed
from tests.rl.test_groups import same
from tests.rl.test_ppo import no_toxicity, share_of_low_letters
from tests.rl.test_validation import verdict


def test_the_same_rewards_are_dealt_out_anew_at_every_step_and_a_status_stays_with_its_response():
    batch = [RewardedResponse(reward=float(i), status="empty" if i == 3 else "ok") for i in range(50)]
    first, again, next_step = (permuted(batch, seed=0, step=step) for step in (1, 1, 2))
    assert first == again != next_step
    assert sorted(r.reward for r in first) == [r.reward for r in batch] != [r.reward for r in first]
    assert [r.status for r in first] == [r.status for r in batch]


def test_of_placebos_the_one_nearest_to_the_kl_wins_however_toxic():
    near, far = verdict(0.9, 2.1), verdict(0.0, 1.0)
    assert near.beats(far, kl_budget=1.0, kl_target=2.0) and not far.beats(near, kl_budget=1.0, kl_target=2.0)


def test_the_kept_adapter_is_found_again_in_the_history():
    def row(step, toxicity, kl):
        return {"step": step, "ppo/reward": 0.5, **verdict(toxicity, kl).metrics()}

    history = [row(0, 0.5, 0.0), {"step": 1, "ppo/reward": 0.4}, row(2, 0.1, 1.5), row(4, 0.0, 9.0)]
    kept = kept_validation(history, kl_budget=3.0)
    assert (kept.step, kept.kl_nats_per_sequence) == (2, 1.5)  # step 4 is beyond the budget
    assert kept_validation([{"step": 1}], kl_budget=3.0) is None


@pytest.fixture
def train(make_policy, tokenizer, make_config, make_decoding, prompts, tmp_path):
    """Trains a fresh policy; returns its adapter and the result."""

    def run(cls=PPO, *, kl, folder=None, on_step=None, **more):
        policy = make_policy(("query_key_value",))
        every_step = make_config().validation.model_copy(update={"every": 1})
        settings = {"num_generations": 2} if cls is GroupTrainer else {}
        trainer = cls(
            policy,
            tokenizer,
            share_of_low_letters,
            config=make_config(num_steps=12, validation=every_step, **settings),
            decoding=make_decoding(),
            seed=0,
            grader=no_toxicity,
            selector=no_toxicity,
            placebo_kl_nats=kl,
            **more,
        )
        checkpoints = tmp_path / (folder or "plain")
        result = trainer.train(prompts, validation_prompts=prompts[:4], checkpoint_folder=checkpoints, on_step=on_step)
        return adapter_state(policy), result

    return run


@pytest.mark.parametrize("cls, more", [(PPO, {}), (GroupTrainer, {"algorithm": "rloo"})])
def test_training_ends_at_the_kl_and_keeps_the_adapter_nearest_to_it(train, cls, more):
    target = 0.05
    _, result = train(cls, kl=target, **more)
    reached = [row["ppo/val_kl_nats_per_sequence"] for row in result.history]
    assert reached[-1] >= target > max(reached[:-1])
    nearest = min(range(len(reached)), key=lambda i: abs(reached[i] - target))
    assert result.kept_step == result.history[nearest]["step"]
    assert "as far as the placebo is to go (0.05)" in result.stop_reason


def test_a_killed_placebo_ends_with_the_same_adapter(train):
    def kill(row):
        if row["step"] == 1:
            raise Killed

    whole, expected = train(kl=0.05, folder="whole")
    with pytest.raises(Killed):
        train(kl=0.05, folder="killed", on_step=kill)
    resumed, result = train(kl=0.05, folder="killed")
    assert same(resumed, whole) and result == expected


def test_permuted_rewards_teach_nothing(make_policy, tokenizer, make_config, make_decoding, prompts):
    def gain(**placebo):
        ppo = PPO(
            make_policy(),
            tokenizer,
            share_of_low_letters,
            config=make_config(num_steps=15, kl={"coef": 0.0}),
            decoding=make_decoding(),
            seed=0,
            selector=no_toxicity if placebo else None,
            **placebo,
        )
        rewards = [row["ppo/reward"] for row in ppo.train(prompts).history if "ppo/reward" in row]
        return sum(rewards[-3:]) / 3 - sum(rewards[:3]) / 3

    assert gain() > 0.2 > 2 * abs(gain(placebo_kl_nats=1e9))
