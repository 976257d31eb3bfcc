"""What a model of a real size inherits from settings that were chosen on the embedded ones."""

import copy

from detoxlens.params.load import Params, load_params
from detoxlens.plan.inherited import CHOSEN, inherited
from tests.root import ROOT


def declared(**overrides):
    raw = copy.deepcopy(load_params(ROOT / "params.yaml").raw)
    raw["models"]["mine"] = {"source": "owner/name", "overrides": overrides}
    return Params(raw)


def test_learning_rates_of_the_embedded_models_are_named_with_the_keys_to_set():
    told = inherited(declared(), "mine", 135e6)
    assert "mine has 135 M parameters and inherits sft.learning_rate=0.003 (the paper's models: 3e-4), ppo." in told
    assert told.endswith("set models.mine.overrides.sft.learning_rate, models.mine.overrides.ppo.learning_rate.")


def test_a_small_model_and_one_with_settings_of_its_own_inherit_nothing():
    assert inherited(declared(), "mine", 4e5) is None
    assert inherited(declared(sft={"learning_rate": 3e-4}, ppo={"learning_rate": 5e-6}), "mine", 135e6) is None


def test_the_rates_are_those_that_are_committed():
    raw = load_params(ROOT / "params.yaml").raw
    assert all(raw[section]["learning_rate"] == committed for section, _, committed, _ in CHOSEN.values())
