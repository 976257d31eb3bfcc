"""Five families of tokenizers, trained on a few sentences, and chat templates of the kinds that checkpoints have."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "<human>: Zorgons are loud.\n<bot>: So is rain",
    "<human>: Ferries are slow\n<bot>: They are calm and late",
] * 4
TURN, OVER = "<|turn|>", "<|over|>"
"""Control tokens that chat templates write."""

CHAT_TEMPLATES = {
    "system allowed": (
        "{% for m in messages %}{{ '<|turn|>' + m['role'] + '\\n' + m['content'] + '<|over|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"
    ),
    "system of its own": (
        "{% if messages[0]['role'] != 'system' %}{{ '<|turn|>system\\nYou help.<|over|>\\n' }}{% endif %}"
        "{% for m in messages %}{{ '<|turn|>' + m['role'] + '\\n' + m['content'] + '<|over|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"
    ),
    "system refused": (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{{ '<|turn|>' + ('model' if m['role'] == 'assistant' else 'user') + '\\n' "
        "+ m['content'] | trim + '<|over|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|turn|>model\\n' }}{% endif %}"
    ),
    "begin token in the template": (
        "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}"
        "{% else %}{% set rest = messages %}{% set system = false %}{% endif %}{{ bos_token }}"
        "{% for m in rest %}{% if m['role'] == 'user' %}{{ '[ASK] ' + ('(' + system + ') ' if loop.first and system "
        "else '') + m['content'] + ' [/ASK]' }}{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    "tools": (
        "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{% if m.tool_calls is defined %}"
        "{{ m.tool_calls | tojson }}{% endif %}{{ '<|turn|>' + m['role'] + '\\n' + m['content'] + '<|over|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"
    ),
    "no end token": (
        "{% for m in messages %}{{ ('### Human: ' if m['role'] == 'user' else '### Bot: ') + m['content'] + '\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}### Bot:{% endif %}"
    ),
}
"""Kind -> Jinja source."""


def byte_bpe() -> PreTrainedTokenizerFast:
    """GPT-2's kind: bytes, no token added of its own accord."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=340, initial_alphabet=alphabet, special_tokens=["</s>", "<pad>"], show_progress=False
        ),
    )
    return _wrapped(made, eos_token="</s>", bos_token="</s>", unk_token="</s>", pad_token="<pad>")


def unigram() -> PreTrainedTokenizerFast:
    """XLM-R's kind: SentencePiece's Unigram, a space before every text, control tokens in the vocabulary."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    made.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=180,
            special_tokens=["<unk>", "<s>", "</s>"],
            unk_token="<unk>",
            initial_alphabet=[chr(c) for c in range(33, 127)],
            show_progress=False,
        ),
    )
    return _wrapped(
        made,
        eos_token="</s>",
        bos_token="<s>",
        unk_token="<unk>",
        initial_alphabet=[chr(c) for c in range(33, 127)],
        show_progress=False,
    )


def wordpiece() -> PreTrainedTokenizerFast:
    """BERT's kind: lower case, words and their continuations; [CLS] and [SEP] around a text."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    names = ["[UNK]", "[CLS]", "[SEP]"]
    alphabet = [chr(c) for c in range(33, 127)]
    made.train_from_iterator(
        [*CORPUS, "abcdefghijklmnopqrstuvwxyz0123456789", "a9876543210zyxwvutsrqponmlkjihgfedcba"],
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=names, initial_alphabet=alphabet, show_progress=False),
    )
    ids = [(name, made.token_to_id(name)) for name in names[1:]]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return _wrapped(made, eos_token="[SEP]", bos_token="[CLS]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def with_begin_token() -> PreTrainedTokenizerFast:
    """Llama 3's kind: byte BPE, and a begin token put first by the post-processor."""
    made = byte_bpe()
    made.add_special_tokens({"bos_token": "<s>"})
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.bos_token_id)]
    )
    return made


def llama() -> PreTrainedTokenizerFast:
    """Llama 2's kind: a space before every part of a text, bytes for what is unknown, a begin token."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=names, show_progress=False))
    made = Tokenizer.from_str(_bytes_as_pieces(made.to_str()))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
    )
    return _wrapped(
        made,
        eos_token="</s>",
        bos_token="<s>",
        unk_token="<unk>",
        initial_alphabet=[chr(c) for c in range(33, 127)],
        show_progress=False,
    )


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte BPE": byte_bpe,
    "Unigram": unigram,
    "WordPiece": wordpiece,
    "begin token": with_begin_token,
    "Llama": llama,
}
LOSSLESS = ("byte BPE", "begin token", "Llama")
"""Those that spell every text as it is."""


def _wrapped(made: Tokenizer, **roles: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **roles)
    tokenizer.add_special_tokens({"additional_special_tokens": [TURN, OVER]})
    return tokenizer


def _bytes_as_pieces(json_text: str) -> str:
    """The names of bytes as ordinary pieces, which byte fallback looks up, and not as added tokens."""
    import json

    made = json.loads(json_text)
    made["added_tokens"] = [token for token in made["added_tokens"] if not token["content"].startswith("<0x")]
    return json.dumps(made)
