"""The tape against torch's own graph, one gradient at a time, for operations with rules, without, and through views."""

import pytest
import torch
import torch.nn.functional as F

from detoxlens.attribution.tape import NotTapeable, Tape

TARGETS = 3


def gradients_by_tape(function, x, grads):
    tape = Tape(x)
    with torch.no_grad(), tape:
        y = function(x)
    return tape.backward([(y, grads)], tape.operations).of(x)


def gradients_by_autograd(function, x, grads):
    leaf = x.clone().requires_grad_()
    y = function(leaf)
    return torch.stack([torch.autograd.grad(y, leaf, g, retain_graph=True)[0] for g in grads])


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHT, BIAS = drawn(24, 8, seed=1), drawn(24, seed=2)
COS = drawn(5, 4, seed=3)


def fused_attention(x):
    """One projection, viewed as heads, split, half of it rotated: what GPT-NeoX does."""
    q, k, v = F.linear(x, WEIGHT, BIAS).view(2, 5, 2, 12).transpose(1, 2).chunk(3, dim=-1)
    q, k = (torch.cat([t[..., :2] * COS[:, :2] - t[..., 2:] * COS[:, 2:], t[..., 2:]], -1) for t in (q, k))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(2, 5, 8)


def overlapping_slices(x):
    return x[..., :5] * x[..., 3:] + x[..., :5].sum(-1, keepdim=True) - x[..., 1:6]


def expanded(x):
    return (x[:, :, None].expand(2, 5, 3, 8) * drawn(2, 5, 3, 8, seed=4)).reshape(2, 15, 8)


def residual(x):
    return x + F.gelu(F.layer_norm(x, (8,), BIAS[:8], BIAS[8:16])) + x * 0.5 - (-x)


def in_place_on_what_nobody_has_read(x):
    y = F.linear(x, WEIGHT)
    y += F.linear(x * x, WEIGHT)
    return y


def in_place_on_a_constant(x):
    y = torch.ones(2, 5, 8, dtype=torch.float64)
    y += x
    return y * x


def without_rules(x):
    variance = x.pow(2).mean(-1, keepdim=True)
    y = x * torch.rsqrt(variance + 1e-6)
    return torch.where(y > 0, y, y.exp() - 1).softmax(-1).sqrt()


def weights_that_depend_on_the_input(x):
    weight = x.reshape(10, 8)
    return (
        F.layer_norm(F.linear(x, weight), (10,), weight[:, 0], weight[:, 1])
        + torch.addmm(BIAS[:10], weight, weight.T)[0]
    )


def an_expanded_gradient(x):
    return F.relu(F.linear(x, WEIGHT)).sum(-1, keepdim=True) * x


def a_mask_that_depends_on_the_input(x):
    q = x.view(2, 5, 2, 4).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q, q, attn_mask=x.sum(-1)[:, None, None, :])


def keywords_and_other_signatures(x):
    y = torch.add(x, x.sin(), alpha=0.5)
    y = torch.cat(tensors=[y, x], dim=-1) + torch.cat([x, y], axis=-1)
    flat = F.linear(input=y, weight=WEIGHT[:, :4].reshape(6, 16))
    return torch.addmm(BIAS[:3], flat.reshape(10, 6), WEIGHT[:6, :3], beta=2.0, alpha=0.3)


def an_expert_without_tokens(x):
    chosen = x.reshape(10, 8)[torch.zeros(10, dtype=torch.bool)]
    return torch.cat([x.reshape(10, 8) * 2, F.linear(chosen, WEIGHT[:8])])


def another_precision_on_the_way(x):
    return (x.float() * 2).sin().double() + x


def detached(x):
    return x * x.detach()


CASES = [
    fused_attention,
    overlapping_slices,
    expanded,
    residual,
    in_place_on_what_nobody_has_read,
    in_place_on_a_constant,
    without_rules,
    weights_that_depend_on_the_input,
    an_expanded_gradient,
    a_mask_that_depends_on_the_input,
    keywords_and_other_signatures,
    an_expert_without_tokens,
    another_precision_on_the_way,
    detached,
]


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_many_gradients_at_once_equal_autograds_one_by_one(function):
    x = drawn(2, 5, 8)
    grads = drawn(TARGETS, *function(x).shape, seed=9)
    tolerance = 1e-6 if function is another_precision_on_the_way else 1e-12
    torch.testing.assert_close(
        gradients_by_tape(function, x, grads), gradients_by_autograd(function, x, grads), rtol=tolerance, atol=tolerance
    )


def test_grouped_queries_share_the_gradient_of_their_key_and_value():
    query, mask = drawn(2, 4, 5, 3, seed=5), drawn(5, 5, seed=6).relu()

    def attend(x):
        key, value = x.unbind(-1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)

    x, grads = drawn(2, 2, 5, 3, 2), drawn(TARGETS, 2, 4, 5, 3, seed=7)
    torch.testing.assert_close(gradients_by_tape(attend, x, grads), gradients_by_autograd(attend, x, grads))


def test_seeds_are_never_written_to():
    x, grads = drawn(2, 5, 8), drawn(TARGETS, 2, 5, 8, seed=8)
    before = grads.clone()
    gradients_by_tape(residual, x, grads)
    assert torch.equal(grads, before)


@pytest.mark.parametrize(
    "function",
    [lambda x: x * x + x.mul_(2), lambda x: (x * 2).exp_(), lambda x: [y := x * 2, z := y.sin(), y.add_(1)] and z],
)
def test_a_change_in_place_is_refused_not_overlooked(function):
    with pytest.raises(NotTapeable):
        gradients_by_tape(function, drawn(2, 5, 8), drawn(TARGETS, 2, 5, 8))
