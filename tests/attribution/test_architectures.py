"""Transformers' causal language models, small and with random weights, against one backward pass per token."""

from __future__ import annotations

import pytest

from detoxlens.attribution import attribute
from detoxlens.common.errors import UserError
from tests.architectures import NAMES, random_model
from tests.attribution.tiny import loop, max_difference


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of models that are on their way out
@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_one_backward_pass_per_token(name):
    model = random_model(name, is_decoder=True)
    prompt, completion = (5, 9, 33, 2, 7, 61), (8, 14, 3, 77, 50)
    (found,) = attribute(model, prompt_ids=[prompt], completion_ids=[completion])
    assert max_difference(found.scores, loop(model, prompt, completion)) < 1e-6


def test_a_model_that_reads_what_comes_after_is_refused():
    with pytest.raises(UserError, match="BertLMHeadModel reads the tokens after a position"):
        attribute(random_model("bert"), prompt_ids=[[5, 9]], completion_ids=[[3, 4, 8]])
