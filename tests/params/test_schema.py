"""params.schema.json is what the classes say, and says yes and no where they do."""

import copy
import json

import jsonschema
import pytest

from detoxlens.common.errors import UserError
from detoxlens.params.check import check_params
from detoxlens.params.load import Params, load_params
from detoxlens.params.presets import apply_preset
from detoxlens.params.schema import params_schema, reference
from tests.root import ROOT


@pytest.fixture(scope="module")
def validator():
    schema = params_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_committed_schema_is_that_of_the_classes():
    committed = json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8"))
    assert committed == params_schema(), "`detoxlens schema --write` writes it again"
    first = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=params.schema.json"


def test_the_committed_params_and_every_preset_are_valid(validator, tmp_path):
    presets = tmp_path / "presets"
    presets.mkdir()
    for name in [None, *(path.stem for path in (ROOT / "presets").glob("*.yaml"))]:
        path = tmp_path / "params.yaml"
        path.write_bytes((ROOT / "params.yaml").read_bytes())
        if name is not None:
            (presets / f"{name}.yaml").write_bytes((ROOT / "presets" / f"{name}.yaml").read_bytes())
            apply_preset(tmp_path, path, name)
        assert [e.message for e in validator.iter_errors(load_params(path).raw)] == [], name


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ppo.kl.coef", -1),
        ("ppo.kl.coeff", 0.1),
        ("run.device", "tpu"),
        ("lora.target_modules", []),
        ("models.tiny-neox.source", None),
        ("models.tiny-neox.template", "chatml"),
        ("models.falcon-7b.overrides.sft.num_epoch", 3),
        ("variants.rl.kind", "ppo"),
        ("tracking.report_to", ["comet"]),
        ("splits.p50.where", {"prompt.toxicity": {"above": 0.5}}),
    ],
)
def test_a_mistake_is_refused_by_the_schema_and_by_the_classes_alike(validator, path, value):
    raw = copy.deepcopy(load_params(ROOT / "params.yaml").raw)
    *parents, key = path.split(".")
    node = raw
    for parent in parents:
        node = node.setdefault(parent, {})
    node[key] = value
    assert list(validator.iter_errors(raw))
    with pytest.raises(UserError):
        check_params(Params(raw))


def test_template_chat_and_an_override_of_one_key_are_valid(validator):
    raw = copy.deepcopy(load_params(ROOT / "params.yaml").raw)
    raw["models"]["mine"] = {"source": "folder", "template": "chat", "overrides": {"ppo": {"kl": {"coef": 0.1}}}}
    check_params(Params(raw))
    assert list(validator.iter_errors(raw)) == []


def test_every_key_says_what_it_is():
    silent = [f"{section}.{key}" for section, _, keys in reference() for key, text in keys if not text]
    assert silent == []
