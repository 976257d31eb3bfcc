"""The order of the prompts, and what a response records."""

from __future__ import annotations

from detoxlens.rl.rollout import prompts_of_step, sample_responses


def test_every_prompt_is_used_once_per_pass_and_passes_differ():
    steps = [prompts_of_step(10, 4, step=s, seed=0) for s in range(5)]  # 20 positions: two passes
    flat = [i for step in steps for i in step]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]


def test_the_order_depends_on_the_seed_alone():
    assert prompts_of_step(100, 8, step=3, seed=1) == prompts_of_step(100, 8, step=3, seed=1)
    assert prompts_of_step(100, 8, step=3, seed=1) != prompts_of_step(100, 8, step=3, seed=2)


def test_a_response_keeps_its_ids_and_the_reward_sees_text_without_special_tokens(
    make_policy, tokenizer, make_decoding, prompts
):
    responses = sample_responses(
        make_policy(), tokenizer, prompts[:4], make_decoding(), seed=0, names=("x",), batch_size=2
    )
    assert [list(r.prompt_ids) for r in responses] == prompts[:4]
    for r in responses:
        assert 1 <= len(r.token_ids) <= 6
        assert (r.finish_reason == "eos") == (r.token_ids[-1] == tokenizer.eos_token_id)
        assert "<eos>" not in r.text
