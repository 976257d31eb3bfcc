"""What makes two runs the same run, and the flat names."""

import os
import subprocess
import sys

import pytest

from detoxlens.common.errors import UserError
from detoxlens.params.load import Params
from detoxlens.tracking import comparable_params, dvc_md5, flat_metrics, flat_params, run_key
from tests.tracking.stores import METRICS

TEMPLATE = {"user": "{text}", "bot": "b", "reply": "{text}", "end": "e"}
RAW = {
    "run": {"models": ["a"], "variants": ["it", "ft"], "sft_variants": ["ft"], "seed": 0, "num_threads": 1},
    "variants": {
        "it": {"kind": "base"},
        "ft": {"kind": "sft", "overrides": {"lora": {"r": 4}}},
        "rl": {"kind": "rl", "algorithm": "ppo", "init_from": "ft"},
    },
    "models": {
        name: {
            "source": "s",
            "template": {"user": "{text}", "bot": "b", "reply": "{text}", "end": "e"},
            "overrides": own,
        }
        for name, own in {"a": {}, "b": {"lora": {"r": 64, "alpha": 32}}}.items()
    },
    "data": {"rtp": "x"},
}
RAW["lora"] = {"r": 8, "alpha": 16}


def changed(**sections) -> Params:
    return Params(RAW | sections)


def key_of(params: Params, *, model: str = "a", variant: str = "ft", **md5s: str) -> str:
    settings = comparable_params(params, model=model, variant=variant)
    return run_key(model=model, variant=variant, params=settings, input_md5s=md5s)


def test_comparable_params_have_the_overrides_applied_variant_last():
    assert comparable_params(Params(RAW), model="b", variant="rl")["lora"] == {"r": 64, "alpha": 32}
    assert "lora" not in comparable_params(Params(RAW), model="b", variant="it")
    assert comparable_params(Params(RAW), model="b", variant="ft")["lora"] == {"r": 4, "alpha": 32}
    assert list(comparable_params(Params(RAW), model="a", variant="rl")["init_from"]) == ["ft"]


def test_the_key_changes_with_settings_inputs_and_ancestors_only():
    key = key_of(Params(RAW))
    assert key == key_of(changed(run=RAW["run"] | {"models": ["a", "b"], "variants": ["it"]}))
    assert key == key_of(changed(models={"a": RAW["models"]["a"]}))
    assert key == key_of(changed(variants={k: v for k, v in RAW["variants"].items() if k != "rl"}))
    assert key != key_of(changed(run=RAW["run"] | {"seed": 1}))
    assert key != key_of(changed(lora={"r": 8, "alpha": 32}))
    assert key != key_of(Params(RAW), data="0" * 32)
    assert len({key, key_of(Params(RAW), model="b"), key_of(Params(RAW), variant="it")}) == 3
    other_ft = changed(variants=RAW["variants"] | {"ft": {"kind": "sft", "seed": 7}})
    assert key_of(Params(RAW), variant="rl") != key_of(other_ft, variant="rl")


def test_flat_params_keep_types_readable_and_values_within_mlflows_limit():
    nested = {"ppo": {"clip": 0.2, "layers": ["a", "b"], "seed": None, "name": "x"}, "t": {"user": "y" * 9000}}
    assert flat_params(nested) == {
        "ppo.clip": "0.2",
        "ppo.layers": '["a", "b"]',
        "ppo.seed": "null",
        "ppo.name": "x",
        "t.user": "y" * 6000,
    }


def test_flat_metrics_split_intervals_and_leave_out_what_is_no_number():
    assert flat_metrics(METRICS | {"n": {"nan": float("nan"), "num": 3, "ok": True}}) == {
        "toxicity/p50/rate_gt_50": 0.25,
        "toxicity/p50/ci95_lo": 0.2,
        "toxicity/p50/ci95_hi": 0.3,
        "toxicity/p50/delta_vs_it/value": -0.3,
        "toxicity/p50/delta_vs_it/ci95_lo": -0.4,
        "toxicity/p50/delta_vs_it/ci95_hi": -0.2,
        "fluency/perplexity": 12.5,
        "n/num": 3.0,
        "n/ok": 1.0,
    }


def test_dvc_md5_is_what_dvc_computes(tmp_path):
    (tmp_path / "out/deep").mkdir(parents=True)
    (tmp_path / "out/b.txt").write_text("b")
    (tmp_path / "out/deep/a.txt").write_text("a")
    (tmp_path / "out/deep.txt").write_text("c")
    (tmp_path / "file.txt").write_text("data\n")
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["init", "-q", "--no-scm"], ["add", "-q", "out", "file.txt"]):
        subprocess.run([*dvc, *command], cwd=tmp_path, check=True, env=os.environ | {"DVC_NO_ANALYTICS": "1"})
    for name in ("out", "file.txt"):
        assert f"md5: {dvc_md5(tmp_path / name)}\n" in (tmp_path / f"{name}.dvc").read_text()
    with pytest.raises(UserError, match="gone does not exist"):
        dvc_md5(tmp_path / "gone")
