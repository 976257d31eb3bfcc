"""Every refusal of the hub is one paragraph that says how to get access, whoever wraps it."""

import httpx2
import huggingface_hub
import pytest
import transformers
from huggingface_hub import errors

from detoxlens.common.artifacts import Layout, read_model_ref, write_model_ref
from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.models.classifier import TextClassifier
from detoxlens.models.loading import load_model, load_tokenizer, resolve
from detoxlens.params.models import WeightsConfig
from detoxlens.pipeline.stages import base
from tests.pipeline.stages.study import params_of

RESPONSE = httpx2.Response(403, request=httpx2.Request("GET", "https://huggingface.co/api/models/zorgon/lm"))
REFUSALS = [
    (errors.GatedRepoError("403", response=RESPONSE), r"zorgon/lm is gated: accept its terms .*hf auth login"),
    (errors.RevisionNotFoundError("404", response=RESPONSE), r"zorgon/lm has no revision 'v9': name a branch"),
    (errors.RepositoryNotFoundError("404", response=RESPONSE), r"'zorgon/lm' is neither an existing folder nor a hub"),
    (errors.LocalEntryNotFoundError("no"), r"not on this machine, and .* be reached.*hf download zorgon/lm"),
    (errors.OfflineModeIsEnabled("no"), "the hub cannot be reached"),
    (httpx2.ConnectError("[Errno -2] Name or service not known"), r"cannot be reached \((ConnectError|OSError)\)"),
]


def refusing(error):
    def refuse(*_, **__):
        raise error

    return refuse


@pytest.mark.parametrize(("error", "told"), REFUSALS)
def test_pinning_a_model(monkeypatch, tmp_path, error, told):
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refusing(error))
    with pytest.raises(UserError, match=told) as e:
        resolve(tmp_path, "zorgon/lm", "v9")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("error", "told"), REFUSALS)
def test_loading_a_classifier(monkeypatch, error, told):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing(error))
    with pytest.raises(UserError, match=told):
        TextClassifier.load("zorgon/lm", revision="v9")


@pytest.mark.parametrize(("error", "told"), REFUSALS)
def test_loading_a_pinned_model_or_tokenizer_through_transformers_own_error(monkeypatch, tmp_path, error, told):
    def wrapped(*_, **__):
        raise OSError("We could not load this.\nMore lines.") from error

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", wrapped)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", wrapped)
    ref = ModelRef(base="zorgon/lm", revision="v9", adapter=None)
    with pytest.raises(UserError, match=told):
        load_model(tmp_path, ref, WeightsConfig(), device="cpu")
    with pytest.raises(UserError, match=told):
        load_tokenizer(tmp_path, ref)


def test_a_server_error_is_told_as_one(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refusing(errors.HfHubHTTPError("500", response=RESPONSE)))
    with pytest.raises(UserError, match=r"could not be looked up on the hub \(HfHubHTTPError: 500\)"):
        resolve(tmp_path, "zorgon/lm", None)


def test_base_keeps_what_was_there_when_the_hub_refuses(monkeypatch, tmp_path):
    layout, ref = Layout(tmp_path), ModelRef(base="zorgon/lm", revision="0" * 40, adapter=None)
    write_model_ref(layout.adapter("m", "it"), ref)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refusing(REFUSALS[0][0]))
    params = params_of()
    params.raw["models"]["m"]["source"] = "zorgon/lm"
    with pytest.raises(UserError, match="is gated"):
        base.run(tmp_path, params, model="m")
    assert read_model_ref(layout.adapter("m", "it")) == ref
