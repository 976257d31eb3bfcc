"""Inseq behind our call, and our scores in Inseq's own format."""

from __future__ import annotations

import warnings

import pytest

from detoxlens.attribution import attribute
from detoxlens.attribution.inseq_backend import write_inseq_json
from detoxlens.common.errors import UserError
from tests.attribution.tiny import inseq_scores, max_difference, tiny_model, with_lora

PROMPT, COMPLETION = [5, 9, 44, 2, 17], [8, 70, 3]


@pytest.mark.parametrize(
    "method, name", [("occlusion", "gpt_neox"), ("attention", "gpt_neox"), ("value_zeroing", "falcon_rotary")]
)
def test_inseq_methods_run_behind_the_same_call_on_token_ids(method, name):
    model = tiny_model(name)
    (ours,) = attribute(model, prompt_ids=[PROMPT], completion_ids=[COMPLETION], method=method)
    assert ours.status == "ok"
    assert [len(row) for row in ours.scores] == [5, 6, 7]
    assert [sum(row) for row in ours.scores] == pytest.approx([1.0] * 3)
    assert all(0 < p < 1 for p in ours.token_prob)


def test_occlusion_is_the_drop_in_probability_by_size():
    model = tiny_model("gpt_neox")
    (ours,) = attribute(model, prompt_ids=[PROMPT], completion_ids=[COMPLETION], method="occlusion", baseline_id=1)
    signed = inseq_scores(model, PROMPT, COMPLETION, "occlusion")
    sizes = [[abs(x) for x in row] for row in signed]
    assert max_difference(ours.scores, [[x / sum(row) for x in row] for row in sizes]) < 1e-5


def test_the_end_of_sequence_token_may_stand_inside_a_prompt():
    model = tiny_model("gpt_neox")
    (ours,) = attribute(model, prompt_ids=[[5, 95, 95, 7]], completion_ids=[[8, 95]], method="attention")
    assert [len(row) for row in ours.scores] == [4, 5]


def test_a_peft_model_goes_through_and_keeps_its_settings():
    model = with_lora(tiny_model("gpt_neox"))
    (ours,) = attribute(model, prompt_ids=[PROMPT], completion_ids=[COMPLETION], method="attention")
    assert ours.status == "ok"
    assert model.get_base_model().config.pad_token_id == 95


def test_where_inseq_itself_fails_the_message_names_method_and_model():
    with pytest.raises(UserError, match="'value_zeroing': Inseq's implementation fails on GPTNeoXForCausalLM"):
        attribute(tiny_model("gpt_neox"), prompt_ids=[PROMPT], completion_ids=[COMPLETION], method="value_zeroing")


def test_inseq_methods_refuse_the_contrastive_target():
    with pytest.raises(UserError, match="'contrastive' is not available with Inseq's methods"):
        attribute(
            tiny_model("gpt_neox"),
            prompt_ids=[PROMPT],
            completion_ids=[COMPLETION],
            method="attention",
            target="contrastive",
            contrast_ids=[[1, 2, 4]],
        )


def test_an_export_opens_in_inseq_and_its_viewer(tmp_path):
    (ours,) = attribute(tiny_model("gpt_neox"), prompt_ids=[PROMPT], completion_ids=[COMPLETION])
    path = tmp_path / "attribution.json"
    write_inseq_json(
        path,
        scores=ours.scores,
        prompt_ids=PROMPT,
        completion_ids=COMPLETION,
        pieces=[f" w{i}" for i in PROMPT + COMPLETION],
        token_prob=ours.token_prob,
        method=ours.method,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import inseq

        loaded = inseq.FeatureAttributionOutput.load(path)
        page = loaded.show(display=False, return_html=True)
    (sequence,) = loaded.sequence_attributions
    table = sequence.aggregate().target_attributions
    found = [table[: len(PROMPT) + t, t].tolist() for t in range(len(COMPLETION))]
    assert max_difference(found, ours.scores) < 1e-7
    assert sequence.step_scores["probability"].tolist() == pytest.approx(ours.token_prob)
    assert "w44" in page
