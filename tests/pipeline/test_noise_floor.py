"""Another base model of another seed: how far its attributions lie from the base model's, and where that is shown."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from ruamel.yaml import YAML

from detoxlens.attribution.api import attribute
from detoxlens.common.artifacts import Layout, read_model_ref, read_rows, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.params.load import Params
from detoxlens.pipeline.noise_floor import noise_floor
from detoxlens.pipeline.stages import base
from detoxlens.reporting.metrics import build_metrics
from detoxlens.reporting.traces import trace_of
from detoxlens.reporting.trust import trust
from tests.reporting.test_conclusions import ABOUT
from tests.reporting.test_curves import CONFIG, completion, study, tables
from tests.root import ROOT

SMALL = {"vocab_size": 400, "hidden_size": 16, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def params():
    raw = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    raw["run"] |= {"models": ["m"], "num_threads": 1}
    raw["models"] = {"m": raw["models"]["tiny-neox"], "hub": {"source": "zorgon/lm"}}
    raw["tiny"] |= SMALL | {"num_examples": 100, "num_steps": 3, "batch_size": 8}
    return Params(raw)


@pytest.fixture(scope="module")
def root(tmp_path_factory, params):
    """A base model and its attributions of four short texts."""
    root = tmp_path_factory.mktemp("floor")
    layout = Layout(root)
    base.run(root, params, model="m")
    ref = read_model_ref(layout.adapter("m", "it"))
    tokenizer = load_tokenizer(root, ref)
    prompts = [tokenizer(f"I met {name} at")["input_ids"] for name in ("Zorgons", "Knitters", "Jugglers", "Ringers")]
    answers = [tokenizer(" the garden before lunch")["input_ids"]] * 4
    found = attribute(
        load_model(root, ref, params.model("m"), device="cpu"), prompt_ids=prompts, completion_ids=answers
    )
    rows = [
        result.record(
            dataclasses.replace(
                completion(f"p{i}"),
                prompt_ids=result.prompt_ids,
                prompt_token_is_template=(False,) * len(result.prompt_ids),
                completion_ids=result.completion_ids,
            ),
            reader="it",
            text_source="it",
            prompt_pieces=[f" p{j}" for j in result.prompt_ids],
            completion_pieces=[f" c{j}" for j in result.completion_ids],
        )
        for i, result in enumerate(found)
    ]
    write_rows(layout.attributions("m", "it"), rows, Attribution)
    return root


def test_the_other_model_reads_the_same_tokens_and_weighs_them_otherwise(root, params):
    path = noise_floor(root, params, "m", seed=1)
    own, other = read_rows(Layout(root).attributions("m", "it"), Attribution), read_rows(path, Attribution)
    assert {(a.reader, a.text_source, a.status) for a in other} == {("seed 1", "it", "ok")}
    assert [a.completion_ids for a in other] == [a.completion_ids for a in own]
    assert all(a.scores != b.scores for a, b in zip(own, other, strict=True))
    assert not list((root / ".detoxlens/scratch").glob("noise-floor@m/*"))
    again = path.read_bytes()
    noise_floor(root, params, "m", seed=1)
    assert path.read_bytes() == again
    noise_floor(root, params, "m", seed=2)
    assert {a.reader for a in read_rows(path, Attribution)} == {"seed 2"} and path.read_bytes() != again


def test_report_shows_it_before_the_variants_or_says_what_would_make_it(root, params):
    own = read_rows(Layout(root).attributions("m", "it"), Attribution)
    other = read_rows(noise_floor(root, params, "m", seed=1), Attribution)
    it = tables("it", [trace_of(a) for a in own], dict.fromkeys((a.prompt_id for a in own), 0.1))
    alike = [dataclasses.replace(a, reader="ft") for a in own]  # an `ft` that has not changed
    pairs = list(zip(own, other, strict=True))
    ft = tables(
        "ft", [trace_of(a, it_scores=b.scores) for a, b in zip(alike, own, strict=True)], dict.fromkeys(ABOUT.variants)
    )
    floor = [trace_of(b, it_scores=a.scores) for a, b in pairs]
    metrics = build_metrics(study(it=dataclasses.replace(it, noise_floor=floor), ft=ft), CONFIG, missing="exclude")
    found = metrics["m"]["it"]["attribution"]["noise_floor"]
    assert found["reader"] == "seed 1" and found["seed 1"]["divergence_from_it_bits"]["num_sequences"] == 4
    shannon = {who: found[who]["divergence_from_it_bits"]["jensen_shannon"]["value"] for who in ("seed 1", "ft")}
    assert shannon["seed 1"] > 1e-4 > shannon["ft"] == 0
    box = {c.name: c for c in trust(metrics, primary="p50", about=ABOUT, groups={})}["Noise floor"]
    assert box.status == "note" and "m: base of seed 1 Jensen–Shannon 0." in box.text and "; ft Jensen" in box.text
    without = build_metrics(study(it=it, ft=ft), CONFIG, missing="exclude")
    box = {c.name: c for c in trust(without, primary="p50", about=ABOUT, groups={})}["Noise floor"]
    assert box.status == "absent" and "detoxlens noise-floor" in box.text


def test_what_cannot_be_trained_again_is_refused(root, params):
    with pytest.raises(UserError, match=r"--model hub: its source is 'zorgon/lm'. Only an embedded model"):
        noise_floor(root, params, "hub", seed=1)
    with pytest.raises(UserError, match=r"--seed 0 is run\.seed, by which m was trained"):
        noise_floor(root, params, "m", seed=0)
    other = Params(params.raw | {"tiny": params.raw["tiny"] | {"vocab_size": 380}})
    with pytest.raises(UserError, match=r"another tokenizer than the present params would give it: `dvc repro` first"):
        noise_floor(root, other, "m", seed=1)
