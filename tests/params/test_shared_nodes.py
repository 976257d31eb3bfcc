"""What is named changes and nothing else: every key of every model, through DVC's own override and our writers."""

import shutil

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from detoxlens.common.artifacts import write_text
from detoxlens.common.errors import UserError
from detoxlens.params.check import load_checked
from detoxlens.params.edit import change_params
from detoxlens.params.load import load_params, read_yaml, shared_nodes
from detoxlens.params.presets import apply_preset
from detoxlens.sweep.space import overrides_of
from tests.root import ROOT

MODELS = sorted(read_yaml(ROOT / "params.yaml")["models"])
OTHER = {"dtype": "float16", "control": "fixed", "source": "tiny:falcon", "loss_on": "replies", "examples": "dialogues"}
"""Another valid value, of keys that take names."""
SHARED = """
    template: &chat
      user: "<human>: {text}\\n"
      bot: "<bot>:"
      reply: " {text}"
      end: "\\n"
    overrides: &own
      sft: {num_epochs: 2}
      ppo: {kl: {control: fixed, coef: 0.1}}
  second:
    source: tiny:falcon
    template: *chat
    overrides: {<<: *own, lora: {r: 4}}
"""


def leaves(tree, path=()):
    """Key path -> value of all that is no mapping."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for key, below in tree.items() for k, v in leaves(below, (*path, key)).items()}


def another(path, value):
    if path[-1] in OTHER:
        return OTHER[path[-1]] if OTHER[path[-1]] != value else "tiny:gpt_neox"
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}>{'.'.join(path[:3])}"
    if isinstance(value, list):
        return [*value, "another_layer"]
    if isinstance(value, float):
        return value / 2
    return value + 2 if value % 2 else value * 2


def changes_of(model):
    """Every key of the model with another value."""
    found = leaves(read_yaml(ROOT / "params.yaml")["models"][model], ("models", model))
    return {path: another(path, value) for path, value in found.items()}


def written(value):
    """As DVC's command line takes it."""
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    if isinstance(value, str):
        return f"'{text}'"
    return f"[{','.join(value)}]" if isinstance(value, list) else str(value).lower()


def by_dvc(file, changes):
    apply_overrides(file, [f"{'.'.join(path)}={written(value)}" for path, value in changes.items()])


def by_preset(file, changes):
    preset = {}
    for (*parents, key), value in changes.items():
        node = preset
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    (file.parent / "presets").mkdir(exist_ok=True)
    with (file.parent / "presets/own.yaml").open("w") as out:
        YAML().dump(preset, out)
    apply_preset(file.parent, file, "own")


@pytest.fixture
def file(tmp_path):
    return shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")


@pytest.mark.parametrize("write", [by_dvc, change_params, by_preset])
@pytest.mark.parametrize("model", MODELS)
def test_all_keys_of_a_model_change_and_nothing_else(file, write, model):
    before, changes = leaves(read_yaml(file)), changes_of(model)
    assert not any(before[path] == value for path, value in changes.items())
    write(file, changes)
    assert leaves(read_yaml(file)) == before | changes


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_each_key_alone_changes_and_nothing_else_through_dvc(file, model):
    for path, value in changes_of(model).items():
        before = leaves(read_yaml(file))
        by_dvc(file, {path: value})
        assert leaves(read_yaml(file)) == before | {path: value}


def test_a_trials_point_changes_its_variant_and_nothing_else(file):
    before = leaves(read_yaml(file))
    point = overrides_of("rl", {"lora.r": 8, "ppo.kl.coef": 0.07})
    change_params(file, point)
    assert leaves(read_yaml(file)) == before | point


@pytest.fixture
def anchored(file):
    """As users write it: two models that share a template and overrides."""
    whole = file.read_text(encoding="utf-8")
    assert "\nmodels: #" in whole
    write_text(file, whole.replace("\nmodels: #", f"\nmodels:\n  first:\n    source: tiny:gpt_neox{SHARED}  #"))
    return file


@pytest.mark.parametrize("write", [change_params, by_preset])
@pytest.mark.parametrize("model", ["first", "second"])
def test_our_writers_write_out_what_two_places_share(anchored, write, model):
    before = leaves(read_yaml(anchored))
    change = {
        ("models", model, "template", "bot"): "<robot>:",
        ("models", model, "overrides", "ppo", "kl", "coef"): 0.07,
        ("models", model, "overrides", "sft", "num_epochs"): 3,
    }
    write(anchored, change)
    assert leaves(read_yaml(anchored)) == before | change
    assert load_checked(anchored).shared == ()


def test_shared_nodes_are_refused_before_any_work_and_named_by_line(anchored):
    params = load_params(anchored)
    first = anchored.read_text(encoding="utf-8").splitlines().index("  first:") + 1
    shared = [(first + 12, first + 2), (first + 13, first + 7)]  # the template; the overrides, by a merge
    assert params.shared == tuple(f"line {a} is line {b}" for a, b in shared)
    with pytest.raises(UserError, match=rf"{params.shared[0]}.*`dvc exp run -S`.*Write the second out in full"):
        load_checked(anchored)


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x", "a: '*b'\nb: [1, 2]", "a: {b: 1}\nc: {b: 1}", "a: &x {b: 1}"])
def test_values_that_are_equal_or_scalars_share_nothing(text):
    assert shared_nodes(text) == []


def test_a_path_through_a_value_is_named_and_one_through_null_is_made(file):
    with pytest.raises(UserError, match=r"params\.yaml: run\.seed=0 has no keys, so 'a' cannot be set"):
        change_params(file, {("run", "seed", "a"): 1})
    change_params(file, {("sweep", "gate"): None})
    gate = {"after_fraction": 0.5, "num_prompts": 10, "max_share_of_it": 0.9}
    change_params(file, {("sweep", "gate", key): value for key, value in gate.items()})
    assert read_yaml(file)["sweep"]["gate"] == gate
