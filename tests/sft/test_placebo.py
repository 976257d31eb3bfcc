"""The placebo of fine-tuning: as many tokens with a loss, all of them the base model's own, none chosen by text."""

import itertools

import pytest
import torch

from detoxlens.jobs.scratch import open_scratch
from detoxlens.models.tiny import build, train_tokenizer
from detoxlens.sft.placebo import answers_of_base, placebo_examples
from detoxlens.sft.train import IGNORED, encode_examples, num_steps
from tests.sft.test_train import CONFIG, TEMPLATE, TINY, dialogue

DIALOGUES = [
    dialogue("Zorgons are slow", "Zorgons are kind, for all we know", "They hum", "So do I, on sunny days"),
    dialogue("Jugglers drop things", "Jugglers are kind, and they pick them up"),
    dialogue("Knitters", "Knitters knit"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["<human>: Zorgons are slow\n<bot>: Zorgons are kind"] * 4, 300)


def labels_of(examples):
    return [[label for label in e["labels"] if label != IGNORED] for e in examples]


def one_word(tokenizer):
    """A base model that says the same few tokens to everything."""
    answer = [*tokenizer(" I hear")["input_ids"], tokenizer.eos_token_id]
    return lambda prompts, most, number: [answer[:n] for n in most]


@pytest.mark.parametrize("loss_on", ["replies", "all"])
@pytest.mark.parametrize("examples", ["dialogues", "prefixes"])
def test_every_example_has_as_many_tokens_with_a_loss_as_the_written_one(tokenizer, loss_on, examples):
    config = CONFIG.model_copy(update={"loss_on": loss_on, "examples": examples, "max_length": 512})
    written = encode_examples(DIALOGUES, tokenizer, TEMPLATE, config)
    placebo = placebo_examples(DIALOGUES, tokenizer, TEMPLATE, config, one_word(tokenizer))
    assert list(map(len, labels_of(placebo))) == list(map(len, labels_of(written)))
    assert num_steps(len(placebo), config) == num_steps(len(written), config)
    assert all(len(e["input_ids"]) == len(e["labels"]) for e in placebo)


def test_the_base_model_answers_the_same_turns_and_then_those_of_other_dialogues(tokenizer):
    config = CONFIG.model_copy(update={"max_length": 512})
    placebo = placebo_examples(DIALOGUES[:2], tokenizer, TEMPLATE, config, one_word(tokenizer))
    text = tokenizer.decode(placebo[0]["input_ids"])
    first = "<human>: Zorgons are slow\n<bot>: I hear<|endoftext|>\n<human>: They hum\n<bot>: I hear<|endoftext|>\n"
    assert text.startswith(first + "<human>: Jugglers drop things\n<bot>: I hear")
    assert "kind" not in text and "sunny" not in text
    (labels,) = labels_of(placebo[:1])
    assert set(labels) == set(one_word(tokenizer)([[]], [9], 0)[0])  # nobody but the base model is learnt from


def test_an_example_ends_where_it_is_cut_and_not_in_its_middle(tokenizer):
    short = CONFIG.model_copy(update={"max_length": 24})
    placebo = placebo_examples(DIALOGUES, tokenizer, TEMPLATE, short, one_word(tokenizer))
    assert all(len(e["input_ids"]) <= 24 for e in placebo)


def test_answers_are_the_models_own_draws_so_that_their_surprise_is_its_entropy(tokenizer, tmp_path):
    """Mean -log p of what is learnt = mean entropy where it was drawn, up to chance: no text is preferred."""
    torch.manual_seed(0)
    model = build("gpt_neox", TINY, vocab_size=len(tokenizer)).eval()
    for parameter in model.parameters():
        parameter.data *= 3  # far from uniform, so that temperature or top-p would show
    many = [dialogue(f"Zorgon {i}", "Zorgons are kind and kind and kind") for i in range(150)]
    with open_scratch(tmp_path, "finetune", "key") as scratch:
        answer = answers_of_base(model, tokenizer, scratch, name="placebo", title="t", seed=0)
        placebo = placebo_examples(many, tokenizer, TEMPLATE, CONFIG, answer)
    excess = []
    for example in placebo:
        ids, labels = (torch.tensor([example[name]]) for name in ("input_ids", "labels"))
        with torch.no_grad():
            logprobs = model(ids).logits[0, :-1].log_softmax(-1)
        learnt = labels[0, 1:] != IGNORED
        surprise = -logprobs[learnt].gather(1, ids[0, 1:][learnt, None])[:, 0]
        excess.append(float((surprise + (logprobs[learnt].exp() * logprobs[learnt]).sum(-1)).sum()))
    excess = torch.tensor(excess)
    entropy = -(logprobs.exp() * logprobs).sum(-1).mean()
    assert 1 < entropy < torch.log(torch.tensor(len(tokenizer) * 0.9))
    assert abs(excess.mean()) < 3 * excess.std() / len(excess) ** 0.5


def test_a_killed_run_draws_the_rest_and_ends_with_the_same_answers(tokenizer, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = build("gpt_neox", TINY, vocab_size=len(tokenizer)).eval()
    monkeypatch.setattr("detoxlens.sft.placebo.BATCH_SIZE", 1)

    def examples(folder, kill_after=None):
        import detoxlens.sft.placebo as module

        calls = itertools.count()
        plain = module.sample_batch

        def killed(*args, **kwargs):
            if next(calls) == kill_after:
                raise KeyboardInterrupt
            return plain(*args, **kwargs)

        with monkeypatch.context() as patch, open_scratch(folder, "finetune", "key") as scratch:
            patch.setattr(module, "sample_batch", killed)
            answer = answers_of_base(model, tokenizer, scratch, name="placebo", title="t", seed=0)
            return placebo_examples(DIALOGUES, tokenizer, TEMPLATE, CONFIG, answer), next(calls)

    whole, num_calls = examples(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        examples(tmp_path / "killed", kill_after=2)
    resumed, num_left = examples(tmp_path / "killed")
    assert resumed == whole and num_left == num_calls - 2
