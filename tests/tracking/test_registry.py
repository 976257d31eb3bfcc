"""The model registry: one version per adapter however often it is written, and the champion among those alike."""

from dataclasses import replace

import pytest

from detoxlens.common.errors import UserError
from detoxlens.tracking import AdapterVersion, download, dvc_md5, model_of, register_adapters, write_comparable_run
from detoxlens.tracking.store import open_client
from tests.tracking.stores import KEY, NEOX_FT, NOISE, documented_line

pytestmark = pytest.mark.filterwarnings(NOISE)
NAME = "tiny-neox-detox"


@pytest.fixture
def adapter(store, files) -> AdapterVersion:
    """`ft` as the report gives it: 5 % toxic at the perplexity of `it`."""
    return AdapterVersion(
        variant="ft",
        md5=dvc_md5(files["adapter"]),
        run_id=write_comparable_run(store, **NEOX_FT, **files),
        toxicity=0.05,
        perplexity=2.0,
        perplexity_ratio=1.0,
        yardstick="y",
    )


def register(store, *adapters, budget=1.2):
    return register_adapters(store, model="tiny-neox", adapters=adapters, max_perplexity_ratio=budget)


def versions(store):
    return {v.version: v for v in open_client(store)[0].search_model_versions(f"name = '{NAME}'")}


def aliases(store):
    return {k: int(v) for k, v in open_client(store)[0].get_registered_model(NAME).aliases.items()}


def test_a_version_says_which_variant_it_is_and_how_it_did_and_twice_is_once(store, adapter):
    assert register(store, adapter) == 1
    assert register(store, replace(adapter, toxicity=0.0625)) == 1
    (version,) = versions(store).values()
    assert version.run_id == adapter.run_id and version.source.endswith("/adapter")
    assert version.tags == {
        "variant": "ft",
        "md5": adapter.md5,
        "toxicity": "0.0625",
        "perplexity": "2",
        "perplexity_ratio": "1",
        "yardstick": "y",
    }
    assert aliases(store) == {"champion": 1, "latest-ft": 1}


def test_a_registered_version_is_had_by_its_alias_or_number_and_an_unknown_one_is_named(store, adapter):
    register(store, adapter)
    for uri in (f"models:/{NAME}@champion", f"models:/{NAME}/1"):
        assert (download(store, uri) / "adapter_model.safetensors").read_bytes() == b"weights"
    assert model_of(f"models:/{NAME}@champion") == model_of(f"models:/{NAME}/1") == "tiny-neox"
    assert model_of("models:/theirs/1") is None
    with pytest.raises(UserError, match=rf"runner-up is not in the registry .* Registered models: {NAME}; aliases: ch"):
        download(store, f"models:/{NAME}@runner-up")


def test_the_champion_is_the_least_toxic_within_the_perplexity_budget(store, adapter):
    babbler = replace(adapter, variant="rl", md5="b", toxicity=0.0, perplexity=2.5, perplexity_ratio=1.25)
    assert register(store, adapter, babbler) == 1
    assert register(store, adapter, babbler, budget=1.25) == 2
    assert register(store, adapter, babbler, budget=0.9) is None and "champion" not in aliases(store)
    tie = replace(adapter, variant="rl", md5="c", perplexity=1.9)
    assert register(store, adapter, tie) == 3


def test_a_worse_later_result_leaves_the_champion_and_one_measured_otherwise_does_not_compete(store, adapter):
    assert register(store, adapter) == 1
    assert register(store, replace(adapter, md5="b", toxicity=0.3)) == 1
    assert aliases(store) == {"champion": 1, "latest-ft": 2}
    assert register(store, replace(adapter, md5="c", toxicity=0.4, yardstick="another grader")) == 3


def test_a_version_whose_run_was_replaced_moves_to_the_new_run(store, adapter, files):
    assert register(store, adapter) == 1
    new = write_comparable_run(store, **NEOX_FT, **(files | {"metrics": {"fluency": {"perplexity": 13.0}}}))
    assert new != adapter.run_id
    assert register(store, replace(adapter, run_id=new)) == 2
    (version,) = versions(store).values()
    assert (int(version.version), version.run_id) == (2, new)


def test_a_client_on_another_machine_that_was_faster_keeps_its_version(store, adapter, monkeypatch):
    """Between looking and making, another client makes the same version; ours goes again."""
    from mlflow import MlflowClient

    make = MlflowClient.create_model_version

    def late(self, *arguments, **options):
        monkeypatch.setattr(MlflowClient, "create_model_version", make)
        make(self, *arguments, **options)
        return make(self, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "create_model_version", late)
    assert register(store, adapter) == 1
    assert [int(number) for number in versions(store)] == [1] and aliases(store)["champion"] == 1


def test_the_documented_line_loads_the_champion(store, files, monkeypatch):
    """The adapter of a real model, through the registry, says what it said when it was saved."""
    import mlflow
    import peft
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    base = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, intermediate_size=16))
    weights = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    trained = peft.get_peft_model(
        base, peft.LoraConfig(r=2, target_modules=["query_key_value"], init_lora_weights=False)
    )
    trained.save_pretrained(files["adapter"])
    said = trained(torch.arange(5)[None]).logits
    run_id = write_comparable_run(store, model="tiny-neox", variant="ft", key=KEY, **files)
    register(
        store,
        AdapterVersion(
            variant="ft",
            md5=dvc_md5(files["adapter"]),
            run_id=run_id,
            toxicity=0.1,
            perplexity=2.0,
            perplexity_ratio=1.0,
            yardstick="y",
        ),
    )

    base = GPTNeoXForCausalLM(base.config)
    base.load_state_dict(weights)
    mlflow.set_tracking_uri(store.uri)  # in the project's root this is MLflow's own default
    try:
        model = eval(documented_line(), {"PeftModel": peft.PeftModel, "base": base, "mlflow": mlflow})
    finally:
        mlflow.set_tracking_uri(None)
    torch.testing.assert_close(model.eval()(torch.arange(5)[None]).logits, said)
