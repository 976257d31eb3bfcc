"""DExperts against three models loaded one by one, and against numbers by hand."""

from __future__ import annotations

import copy

import pytest
import torch

from detoxlens.attribution.api import attribute
from detoxlens.attribution.faithfulness import shuffled
from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.models.capabilities import examine
from detoxlens.models.interventions.dexperts import combined
from detoxlens.params.dexperts import DexpertsConfig
from tests.attribution.tiny import COMPLETIONS, PROMPTS, VOCAB, max_difference
from tests.models.interventions.networks import IDS, load, logits, make, save_adapter, save_model
from tests.models.interventions.test_steering import drawn


def config(**values):
    return DexpertsConfig(**({"expert": "ft", "anti_expert": "it", "alpha": 2.0} | values))


def alone(root, variant):
    return load(root, ModelRef(base="m", revision="r1", adapter=f"adapters/{variant}"))


def test_the_logits_by_hand():  # (1, 0) + 2 ((3, 1) - (2, 2)) = (3, -2)
    base, expert, anti = (torch.tensor(x) for x in ([1.0, 0.0], [3.0, 1.0], [2.0, 2.0]))
    assert combined(base, expert, anti, alpha=2.0).tolist() == [3.0, -2.0]
    short = combined(base.bfloat16(), expert.bfloat16(), anti.bfloat16(), alpha=2.0)
    assert short.dtype == torch.float32  # a difference of near numbers is not rounded again


@pytest.mark.parametrize("name", ["gpt_neox", "falcon_rotary", "gpt2", "llama"])
@pytest.mark.parametrize("anti_expert", ["it", "rude"])
def test_one_backbone_gives_the_logits_of_separate_models(tmp_path, name, anti_expert):
    ref = save_model(tmp_path, name)
    save_adapter(tmp_path, "ft", name=name, seed=1)
    save_adapter(tmp_path, "rude", name=name, seed=2)
    network = load(tmp_path, make(tmp_path, ref, "dexperts", config(anti_expert=anti_expert)))
    base, expert = logits(load(tmp_path, ref)), logits(alone(tmp_path, "ft"))
    anti = base if anti_expert == "it" else logits(alone(tmp_path, "rude"))
    torch.testing.assert_close(logits(network), base + 2.0 * (expert - anti), rtol=1e-4, atol=1e-3)
    able = examine(network, pad_token_id=VOCAB - 1)  # a cache per pass, padding and the head's selection hold
    assert able.cached and able.rows_leave and able.left_padded and able.keeps_logits and able.head_selects


def test_with_base_as_anti_expert_alpha_1_is_the_expert(tmp_path):
    ref = save_model(tmp_path)
    save_adapter(tmp_path, "ft")
    network = load(tmp_path, make(tmp_path, ref, "dexperts", config(alpha=1.0)))
    torch.testing.assert_close(logits(network), logits(alone(tmp_path, "ft")), rtol=1e-4, atol=1e-4)


def test_a_copy_combines_the_passes_of_its_own_network(tmp_path):
    """The test of an attribution by shuffled weights reads one; a forward that belonged to the original ran that."""
    ref = save_model(tmp_path)
    save_adapter(tmp_path, "ft")
    network = load(tmp_path, make(tmp_path, ref, "dexperts", config()))
    whole, expert = logits(network), logits(alone(tmp_path, "ft"))
    other = shuffled(network, seed=0)
    assert not torch.allclose(logits(other), whole, atol=0.1)
    assert torch.equal(logits(network), whole)
    again = copy.deepcopy(network)
    again.get_base_model().alpha = 1.0
    torch.testing.assert_close(logits(again), expert, rtol=1e-4, atol=1e-4)
    found = attribute(other, prompt_ids=PROMPTS, completion_ids=COMPLETIONS)
    before = attribute(network, prompt_ids=PROMPTS, completion_ids=COMPLETIONS)
    assert max_difference(found[0].scores, before[0].scores) > 1e-3


def test_alpha_0_gives_the_base_models_tokens_and_logits(tmp_path):
    ref = save_model(tmp_path)
    save_adapter(tmp_path, "ft")
    base, still = load(tmp_path, ref), load(tmp_path, make(tmp_path, ref, "dexperts", config(alpha=0.0)))
    assert torch.equal(logits(still), logits(base))
    assert drawn(still) == drawn(base)
    assert drawn(load(tmp_path, make(tmp_path, ref, "dexperts", config()))) != drawn(base)


@pytest.mark.parametrize("name", ["gpt_neox", "falcon_rotary"])
def test_attribution_is_of_the_combined_logits(tmp_path, name):
    """The gradient of the log-odds under base + 2 (expert - base), by torch through models loaded one by one."""
    ref = save_model(tmp_path, name)
    save_adapter(tmp_path, "ft", name=name)
    network = load(tmp_path, make(tmp_path, ref, "dexperts", config()))
    base, expert = load(tmp_path, ref), alone(tmp_path, "ft")
    found = attribute(network, prompt_ids=PROMPTS, completion_ids=COMPLETIONS)
    for prompt, completion, row in zip(PROMPTS, COMPLETIONS, found, strict=True):
        expected = []
        for t, token in enumerate(completion):
            x = base.get_input_embeddings()(torch.tensor([[*prompt, *completion[:t]]])).detach().requires_grad_()
            z, plus = (m(inputs_embeds=x.clone(), use_cache=False).logits[0, -1] for m in (base, expert))
            (g,) = torch.autograd.grad((z + 2.0 * (plus - z)).log_softmax(-1)[token], x)
            norms = (g * x).norm(dim=-1)[0]
            expected.append((norms / norms.sum()).tolist())
        assert max_difference(row.scores, expected) < 1e-4
        assert max(abs(sum(scores) - 1) for scores in row.scores) < 1e-6


def test_the_folder_holds_copies_and_gives_the_same_bytes(tmp_path):
    ref = save_model(tmp_path)
    save_adapter(tmp_path, "ft")
    made = make(tmp_path, ref, "dexperts", config())
    before = logits(load(tmp_path, made))
    save_adapter(tmp_path, "ft", seed=5)  # trained again meanwhile
    assert torch.equal(logits(load(tmp_path, made)), before)


def test_an_expert_of_another_base_is_refused(tmp_path):
    ref = save_model(tmp_path)
    save_adapter(tmp_path, "ft", revision="r2")
    with pytest.raises(
        UserError, match=r"dexperts\.expert='ft': its adapter was trained on m at r2, and this model is m"
    ):
        make(tmp_path, ref, "dexperts", config())


def test_an_expert_without_an_adapter_is_refused(tmp_path):
    ref = save_model(tmp_path)
    with pytest.raises(UserError, match=r"dexperts\.expert='it': .* holds no adapter\. Name a variant that is trained"):
        make(tmp_path, ref, "dexperts", config(expert="it"))


def test_an_adapter_that_replaces_whole_modules_is_refused(tmp_path):
    ref = save_model(tmp_path)
    save_adapter(tmp_path, "ft")
    file = tmp_path / "adapters/ft/adapter_config.json"
    file.write_text(file.read_text().replace('"modules_to_save": null', '"modules_to_save": ["embed_out"]'))
    with pytest.raises(UserError, match=r"replaces whole modules \(embed_out\)"):
        make(tmp_path, ref, "dexperts", config())


def test_logits_of_ids_and_of_their_embeddings_are_the_same(tmp_path):
    ref = save_model(tmp_path)
    save_adapter(tmp_path, "ft")
    network = load(tmp_path, make(tmp_path, ref, "dexperts", config()))
    with torch.no_grad():
        given = network(inputs_embeds=network.get_input_embeddings()(IDS), use_cache=False).logits
    torch.testing.assert_close(given, logits(network))
