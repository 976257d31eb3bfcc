"""A language model whose dependence on its prompt is known: its state is the sum of the embeddings so far.

Every embedding has entries +-s; the logits are linear in the sum. So a target's gradient is the same for all tokens
before it, and input x gradient weighs token j by its s_j alone: with N prompt tokens of size a and t - 1 generated ones
of size b, dependence at step t is N a / (N a + (t - 1) b), whatever the text says.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn
from transformers import GPTNeoXConfig

VOCAB, HIDDEN = 40, 16
PROMPT_IDS, ANSWER_IDS = range(20), range(20, 40)
"""Tokens of prompts, and of answers."""


class Mixer(nn.Module):
    """Args: prompt_size: a; answer_size: b; seed: of the signs and the head."""

    def __init__(self, *, prompt_size: float, answer_size: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.config = GPTNeoXConfig(
            vocab_size=VOCAB,
            hidden_size=HIDDEN,
            num_hidden_layers=1,
            num_attention_heads=1,
            max_position_embeddings=256,
        )
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.head = nn.Linear(HIDDEN, VOCAB, bias=False)
        size = torch.full((VOCAB, 1), answer_size)
        size[list(PROMPT_IDS)] = prompt_size
        signs = torch.randint(0, 2, (VOCAB, HIDDEN), generator=generator) * 2 - 1
        with torch.no_grad():
            self.embed.weight.copy_(signs * size)
            self.head.weight.copy_(torch.randn(VOCAB, HIDDEN, generator=generator) * 0.1)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def forward(self, input_ids=None, inputs_embeds=None, use_cache=False, **kwargs):
        embeddings = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        return SimpleNamespace(logits=self.head(embeddings.cumsum(1)))
