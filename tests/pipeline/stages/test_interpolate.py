"""Stage interpolate: 0 is base, 1 the variant, to the last byte; what is read by whom; resuming; what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from detoxlens.attribution import resumable
from detoxlens.common.artifacts import Layout, read_model_ref, read_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion, Dose, ModelRef
from detoxlens.models import backends
from detoxlens.models.adapters import scale_adapter
from detoxlens.models.loading import load_model
from detoxlens.params.load import Params
from detoxlens.params.models import WeightsConfig
from detoxlens.pipeline.stages import generate, interpolate
from tests.pipeline.stages.study import make_study, params_of
from tests.pipeline.stages.test_attribute import SECTION

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 asks transformers 5.23 by a name that it is about to drop.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
ALPHAS = [-1.0, 0.0, 0.5, 1.0]


def params(**changes) -> Params:
    section = {"alphas": ALPHAS, "filter": "p50", "num_prompts": 4, "num_attributed": 2} | changes
    return Params({**params_of().raw, "attribution": SECTION, "interpolate": section})


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> Layout:
    layout = make_study(tmp_path_factory.mktemp("study"))
    for variant in ("it", "ft"):
        generate.run(layout.root, params(), model="m", variant=variant)
    return layout


def doses(layout, **changes) -> list[Dose]:
    interpolate.run(layout.root, params(**changes), model="m", variant="ft")
    return read_rows(layout.dose("m", "ft") / "doses.parquet", Dose)


def contents(layout) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in layout.dose("m", "ft").iterdir()}


def test_zero_is_base_and_one_the_variant_token_for_token(layout):
    found = doses(layout)
    assert [d.alpha for d in found[::4]] == ALPHAS and len(found) == 16
    for alpha, variant in ((0.0, "it"), (1.0, "ft")):
        said = {(c.prompt_id, c.sample_index): c for c in read_rows(layout.completions("m", variant), Completion)}
        for dose in (d for d in found if d.alpha == alpha):
            same = said[dose.prompt_id, dose.sample_index]
            assert (dose.completion_ids, dose.completion) == (same.completion_ids, same.completion)
    by = {alpha: [d.completion_ids for d in found if d.alpha == alpha] for alpha in ALPHAS}
    assert len({str(ids) for ids in by.values()}) == 4  # every strength says something else
    assert all(d.status == "ok" and 0 <= d.toxicity <= 1 and d.nll_nats > 0 for d in found if d.completion)


def test_the_weights_at_zero_and_one_have_the_bytes_of_base_and_variant(layout, tmp_path):
    own, base = read_model_ref(layout.adapter("m", "ft")), read_model_ref(layout.adapter("m", "it"))

    def weights(ref: ModelRef) -> dict[str, bytes]:
        network = load_model(layout.root, ref, WeightsConfig(), device="cpu", merged=True)
        return {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}

    at = {}
    for alpha in (0.0, 1.0, 0.5):
        scale_adapter(layout.adapter("m", "ft"), tmp_path / f"{alpha:g}", alpha)
        at[alpha] = weights(ModelRef(base=base.base, revision=base.revision, adapter=str(tmp_path / f"{alpha:g}")))
    assert at[0.0] == weights(base) and at[1.0] == weights(own)
    name = next(name for name in at[0.5] if at[0.5][name] != at[0.0][name])
    zero, half, one = (torch.frombuffer(bytearray(at[alpha][name]), dtype=torch.float32) for alpha in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (zero + one) / 2)


def test_every_strength_has_its_two_by_two_and_zero_is_base(layout):
    doses(layout)
    table = read_rows(layout.dose("m", "ft") / "attributions.parquet", Attribution)
    cells = {(a.reader, a.text_source) for a in table}
    strengths = {"-1", "0.5", "1"}
    assert cells == {("it", "it")} | {c for s in strengths for c in ((s, s), (s, "it"), ("it", s))}
    assert len(table) == 2 * len(cells)
    texts = {(a.text_source, a.prompt_id): set() for a in table}
    for a in table:
        texts[a.text_source, a.prompt_id].add(a.completion_ids)
    assert all(len(ids) == 1 for ids in texts.values())  # whoever reads it


@pytest.mark.parametrize(("module", "name"), [(backends, "sample_batch"), (resumable, "attribute")])
def test_a_killed_run_resumes_between_strengths_with_the_same_bytes(layout, monkeypatch, module, name):
    doses(layout)
    uninterrupted = contents(layout)
    real, calls = getattr(module, name), []

    def dies_in_the_third(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, dies_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        doses(layout)
    done = len(calls) - 1
    doses(layout)
    monkeypatch.setattr(module, name, real)
    calls_of_a_whole_run = {"sample_batch": 4, "attribute": 3 * 2 + 4}[name]  # batches of 4 answers, of 2 texts
    assert len(calls) == 1 + calls_of_a_whole_run and done == 2
    assert contents(layout) == uninterrupted


def test_without_attribution_there_are_answers_alone(layout):
    assert len(doses(layout, num_attributed=0, num_prompts=2)) == 8
    assert read_rows(layout.dose("m", "ft") / "attributions.parquet", Attribution) == []


def test_what_cannot_be_scaled_asked_or_drawn_is_refused(layout, tmp_path):
    with pytest.raises(UserError, match=r"run\.interpolated_variants names it, which has no adapter"):
        interpolate.run(layout.root, params(), model="m", variant="it")
    with pytest.raises(UserError, match=r"interpolate\.filter='p99': no test prompt in .* meets it; met: p50\."):
        doses(layout, filter="p99")
    recorded = params()
    name = "recorded:data/recorded/x.csv"
    recorded.raw["toxicity"] = recorded.raw["toxicity"] | {"scorers": [name], "headline": name}
    with pytest.raises(UserError, match="holds scores of other texts"):
        interpolate.run(layout.root, recorded, model="m", variant="ft")
    for change, told in (({"use_dora": True}, "has use_dora"), ({"peft_type": "IA3"}, "is of type IA3")):
        config = json.loads((layout.adapter("m", "ft") / "adapter_config.json").read_text())
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=f"{told}: only a plain LoRA update can be scaled"):
            scale_adapter(tmp_path, tmp_path / "scaled", 0.5)


@pytest.mark.parametrize(("alphas", "told"), [([0.5, 1.0], "must hold 0"), ([0.0, 1.0, 1.0], "must rise")])
def test_strengths_begin_at_base_and_rise(layout, alphas, told):
    with pytest.raises(UserError, match=told):
        doses(layout, alphas=alphas)


def test_only_trained_variants_are_interpolated():
    raw = params().raw
    with pytest.raises(UserError, match=r"run\.interpolated_variants names 'it', which is no trained variant"):
        _ = Params({**raw, "run": raw["run"] | {"interpolated_variants": ["it"]}}).run
