"""Summed nats of completions, against one unpadded forward pass per pair."""

import pytest
import torch

from detoxlens.models.likelihood import completion_nll
from tests.models.test_generation import MODELS, PAD

# peft 0.21 asks transformers 5.23 by a name that it is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PAIRS = [([5, 9, 7], [11, 4]), ([11], [3]), ([4, 8, 15, 16], [23, 42, 7, 7, 7]), ([3, 3], []), ([30], [1, 1, 0])]
PROMPTS, COMPLETIONS = zip(*PAIRS, strict=True)


@torch.no_grad()
def nll_alone(model, prompt, completion):
    logits = model(torch.tensor([prompt + completion])).logits[0].double()
    return -sum(float(logits[len(prompt) + t - 1].log_softmax(-1)[token]) for t, token in enumerate(completion))


@pytest.mark.parametrize("name", MODELS)
def test_equals_one_unpadded_forward_pass_per_pair(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    expected = [nll_alone(model, p, c) for p, c in PAIRS]
    for batch_size in (1, 2, 5):
        got = completion_nll(model, PROMPTS, COMPLETIONS, batch_size=batch_size, pad_token_id=PAD)
        assert got == pytest.approx(expected, abs=1e-4)
    assert got[3] == 0


def test_a_model_without_preferences_pays_log_vocabulary_per_token():
    model = MODELS["gpt2"]()
    for parameter in model.parameters():
        parameter.data.zero_()
    got = completion_nll(model, PROMPTS, COMPLETIONS, batch_size=5, pad_token_id=PAD)
    assert got == pytest.approx([n * 3.912023 for n in (2, 1, 5, 0, 3)], abs=1e-4)  # ln 50 = 3.912023
    assert model.training
