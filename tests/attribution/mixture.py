"""A language model whose next token is, with a known probability, drawn by the user's text, and else without it.

    p(y | x, y<t) = share * softmax(A u)_y + (1 - share) * softmax(B v)_y

u is the sum of the embeddings of the user's tokens, v that of the template's and of what was generated. Embeddings have
entries +-1 in the half of the dimensions of their own part and 0 in the other. So of the gradient of p(y) each user's
token has share * q_y (A_y - E_q A), each other one (1 - share) * r_y (B_y - E_r B), and input x gradient weighs a token
by the norm of that: the dependence on the user's text is known at every step, and so is the KL by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from transformers import GPTNeoXConfig

VOCAB, HALF = 40, 8
USER_IDS, TEMPLATE_IDS, ANSWER_IDS = range(18), (18, 19), range(20, 40)


class Mixture(nn.Module):
    """Args: share: of the part that reads the user's text, 0..1; seed: of the embeddings and both heads."""

    def __init__(self, *, share: float, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.share = share
        self.config = GPTNeoXConfig(
            vocab_size=VOCAB,
            hidden_size=2 * HALF,
            num_hidden_layers=1,
            num_attention_heads=1,
            max_position_embeddings=256,
        )
        self.embed = nn.Embedding(VOCAB, 2 * HALF)
        self.ab = nn.Parameter(torch.randn(VOCAB, 2 * HALF, generator=generator) * 0.2)  # A, then B
        self.head = nn.Linear(VOCAB, VOCAB, bias=False)  # hands log p on: engines look for a head
        signs = torch.randint(0, 2, (VOCAB, 2 * HALF), generator=generator) * 2.0 - 1
        signs[list(USER_IDS), HALF:] = 0
        signs[len(USER_IDS) :, :HALF] = 0
        with torch.no_grad():
            self.embed.weight.copy_(signs)
            self.head.weight.copy_(torch.eye(VOCAB))

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def parts(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """The two distributions (..., vocab) given the sums of embeddings so far."""
        a, b = self.ab.split(HALF, dim=1)
        return (sums[..., :HALF] @ a.T).softmax(-1), (sums[..., HALF:] @ b.T).softmax(-1)

    def forward(self, input_ids=None, inputs_embeds=None, use_cache=False, **kwargs):
        embeddings = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        q, r = self.parts(embeddings.cumsum(1))
        return SimpleNamespace(logits=self.head((self.share * q + (1 - self.share) * r).log()))

    @torch.no_grad()
    def shares_by_hand(self, prompt: Sequence[int], answer: Sequence[int]) -> list[tuple[float, float, float]]:
        """Of every generated token, the shares of its attribution on the user's, the template's, the generated ones."""
        num_user, found = sum(i in USER_IDS for i in prompt), []
        a, b = self.ab.split(HALF, dim=1)
        for t, y in enumerate(answer):
            q, r = self.parts(self.embed.weight[[*prompt, *answer[:t]]].sum(0))
            of_user = self.share * q[y] * (a[y] - q @ a).norm()
            of_other = (1 - self.share) * r[y] * (b[y] - r @ b).norm()
            masses = torch.stack([num_user * of_user, (len(prompt) - num_user) * of_other, t * of_other])
            found.append(tuple((masses / masses.sum()).tolist()))
        return found

    @torch.no_grad()
    def kl_bits_by_hand(self, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
        """Of every generated token, KL(p | the same without the user's text)."""
        found, template = [], [i for i in prompt if i in TEMPLATE_IDS]
        for t in range(len(answer)):
            p, without = (
                sum(
                    share * part
                    for share, part in zip(
                        (self.share, 1 - self.share),
                        self.parts(self.embed.weight[[*context, *answer[:t]]].sum(0)),
                        strict=True,
                    )
                )
                for context in (prompt, template)
            )
            found.append(float((p * (p / without).log2()).sum()))
        return found
