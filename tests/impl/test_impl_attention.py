"""impl.attention against the formula written out row by row, and each promise of its docstrings."""

import itertools
import math
import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnspec.impl.attention import KeyValueCache, MultiHeadAttention, attention

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def qkv(T: int, S: int, G: int = 4, E: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return draw(2, 4, T, 3, dtype=dtype), draw(2, G, S, 3, seed=1, dtype=dtype), draw(2, G, S, E, seed=2, dtype=dtype)


def assert_same(got: Tensor, want: Tensor, terms: int, magnitude: float) -> None:
    """Each of `terms` roundings costs 2^-53 of the largest number it touches; 2^-50 leaves a factor 8 for exp, tanh."""
    torch.testing.assert_close(got, want, rtol=0, atol=terms * 2.0**-50 * magnitude)


def assert_formula(got: Tensor, q: Tensor, k: Tensor, v: Tensor, **options) -> None:
    """Terms: D products, S exponentials, S products with values, 8 others; a score's error acts times its size."""
    bias, scale = options.get("bias"), options.get("scale")
    score = (1 if scale is None else abs(scale)) * q.shape[3] * float(q.abs().max() * k.abs().max())
    score += 0 if bias is None else float(bias.nan_to_num(neginf=0).abs().max())
    terms = q.shape[3] + 2 * k.shape[2] + 8
    assert_same(got, formula(q, k, v, **options), terms, (1 + score) * float(v.abs().max()))


def raises(message: str, call, *args, **kwargs) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*args, **kwargs)


def sees(t: int, s: int, T: int, S: int, causal: bool, window: int | None) -> bool:
    position = t + S - T
    return (s <= position or not (causal or window)) and (window is None or s > position - window)


def formula(q, k, v, *, mask=None, bias=None, causal=False, scale=None, window=None, softcap=None) -> Tensor:
    """docs/notation.md (1)-(5) with Python's floats, one row at a time."""
    (B, H, T, D), (G, S), E = q.shape, k.shape[1:3], v.shape[3]
    allowed = torch.ones(B, H, T, S, dtype=torch.bool) if mask is None else mask.expand(B, H, T, S)
    added = torch.zeros(B, H, T, S) if bias is None else bias.expand(B, H, T, S)
    Q, K, V, allowed, added = q.tolist(), k.tolist(), v.tolist(), allowed.tolist(), added.tolist()
    scale = 1 / math.sqrt(D) if scale is None else scale
    out = torch.zeros(B, H, T, E, dtype=torch.float64)
    for b, h, t in itertools.product(range(B), range(H), range(T)):
        g, scores = h // (H // G), {}
        for s in range(S):
            score = scale * sum(x * y for x, y in zip(Q[b][h][t], K[b][g][s], strict=True))
            score = score if softcap is None else softcap * math.tanh(score / softcap)
            if allowed[b][h][t][s] and added[b][h][t][s] > -math.inf and sees(t, s, T, S, causal, window):
                scores[s] = score + added[b][h][t][s]
        top = max(scores.values(), default=0.0)
        total = sum(math.exp(score - top) for score in scores.values())
        for s, score in scores.items():
            out[b, h, t] += math.exp(score - top) / total * torch.tensor(V[b][g][s], dtype=torch.float64)
    return out


def masks(T: int, S: int) -> list[Tensor | None]:
    padding = torch.arange(S).expand(2, 1, 1, S) < torch.tensor([S - 1, S]).view(2, 1, 1, 1)
    full = draw(2, 4, T, S, seed=3) > 0
    full[0, :, 0] = False  # an empty row in one sample
    return [None, draw(S, seed=4) > 0, draw(T, S, seed=5) > 0, padding, full, torch.zeros(T, S, dtype=torch.bool)]


def biases(T: int, S: int) -> list[Tensor | None]:
    hides = draw(2, 1, T, S, seed=7)
    hides[0, :, 0] = -math.inf  # an empty row by bias alone
    hides[..., -1:] = -math.inf
    return [None, draw(4, 1, S, seed=6), hides]


@pytest.mark.parametrize(("G", "E"), [(1, 3), (2, 3), (2, 5), (4, 3)])  # the flash kernel takes E == D = 3 only
@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 4), (2, 4), (4, 4), (4, 2)])
def test_attention_equals_the_formula(T, S, G, E):
    q, k, v = qkv(T, S, G, E)
    grid = itertools.product(masks(T, S), biases(T, S), [False, True], [None, 1, 2, 9], [None, 0.7], [None, -0.8])
    for mask, bias, causal, window, softcap, scale in grid:
        options = {"mask": mask, "bias": bias, "causal": causal, "window": window, "softcap": softcap, "scale": scale}
        assert_formula(attention(q, k, v, **options), q, k, v, **options)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-300, 0.3, 5.0])
@pytest.mark.parametrize("kernel", KERNELS)
def test_causal_holds_for_every_scale(kernel, scale):
    """With is_causal torch's flash kernel gives NaN at scale 0 and shows the future at a negative scale."""
    q, k, v = qkv(4, 4)
    with sdpa_kernel([kernel]):
        got = attention(q, k, v, causal=True, scale=scale)
    assert_formula(got, q, k, v, causal=True, scale=scale)


def test_a_rank_zero_mask_hides_everything_or_nothing():
    q, k, v = qkv(2, 3)
    assert torch.equal(attention(q, k, v, mask=torch.tensor(False)), torch.zeros(2, 4, 2, 3, dtype=torch.float64))
    assert torch.equal(attention(q, k, v, mask=torch.tensor(True)), attention(q, k, v, mask=torch.ones(2, 3) > 0))


@pytest.mark.parametrize(
    ("T", "S", "options", "calls"),
    [
        (4, 4, {}, [(False, False)]),
        (4, 4, {"causal": True}, [(True, False)]),
        (4, 4, {"window": 4}, [(True, False)]),  # the window reaches every key: nothing but causal is left
        (4, 4, {"window": 3}, [(False, True)]),
        (1, 4, {"causal": True}, [(False, False)]),  # decoding needs no mask
        (3, 4, {"causal": True}, [(False, True)]),
        (4, 4, {"causal": True, "scale": -1.0}, [(False, True)]),
        (4, 4, {"causal": True, "bias": torch.zeros(4, dtype=torch.float64)}, [(False, True)]),
        (4, 4, {"causal": True, "softcap": 2.0}, []),
    ],
)
def test_path_rule(monkeypatch, T, S, options, calls):
    seen, fused = [], functional.scaled_dot_product_attention

    def spy(q, k, v, attn_mask=None, *, is_causal=False, **others):
        seen.append((is_causal, attn_mask is not None))
        return fused(q, k, v, attn_mask, is_causal=is_causal, **others)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
    attention(*qkv(T, S), **options)
    assert seen == calls


def empty_row_options(T: int, S: int) -> list[dict]:
    hidden = torch.ones(2, 1, T, S, dtype=torch.bool)
    hidden[:, :, 0] = False
    additive = torch.zeros(2, 1, T, S).masked_fill(~hidden, -math.inf)
    return [{"mask": hidden}, {"bias": additive}, {"mask": hidden, "bias": additive}, {"mask": hidden[..., :1, :]}]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("G", [2, 4])
def test_empty_rows_are_zero_forward_and_backward(kernel, softcap, dtype, G):
    cases = [(4, 6, options) for options in empty_row_options(4, 6)] + [(6, 4, {"causal": True}), (6, 4, {"window": 2})]
    for T, S, options in [*cases, (3, 0, {}), (3, 0, {"causal": True})]:
        leaves = [x.requires_grad_() for x in qkv(T, S, G, dtype=dtype)]
        with sdpa_kernel([kernel]):
            out = attention(*leaves, softcap=softcap, **options, path="explicit" if softcap else "sdpa")
            gradients = torch.autograd.grad(out.sum(), leaves)
        empty = slice(0, 2) if T == 6 else slice(0, 1)
        assert not out[:, :, empty].any()
        assert not gradients[0][:, :, empty].any()
        assert all(x.isfinite().all() for x in (out, *gradients))


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("huge", [1e4, 1e300])
@pytest.mark.parametrize("options", [{"causal": True}, {"window": 2}, {"mask": torch.arange(6) < 5}])
def test_hidden_content_changes_no_bit(options, huge, softcap):
    q, k, v = qkv(6, 6)
    want = attention(q, k, v, softcap=softcap, **options)
    k[:, :, 5], v[:, :, 5] = huge, -huge
    rows = slice(0, 6) if "mask" in options else slice(0, 5)
    assert torch.equal(attention(q, k, v, softcap=softcap, **options)[:, :, rows], want[:, :, rows])


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 2}])
@pytest.mark.parametrize("T", [3, 4])
def test_gradients(T, options, softcap):
    mask = torch.tensor([True, False, True, True]).expand(T, 4).clone()
    mask[1] = False  # an empty row
    arrays = [draw(1, 2, T, 2), draw(1, 1, 4, 2, seed=1), draw(1, 1, 4, 3, seed=2), draw(2, T, 4, seed=3)]
    leaves = [x.requires_grad_() for x in arrays]

    def plain(q, k, v):
        return attention(q, k, v, softcap=softcap, **options)

    def masked(q, k, v, bias):
        return attention(q, k, v, mask=mask, bias=bias, softcap=softcap, **options)

    assert torch.autograd.gradcheck(plain, leaves[:3])
    assert torch.autograd.gradcheck(masked, leaves)


def test_bias_takes_the_dtype_of_q():
    q, k, v = qkv(2, 3, dtype=torch.bfloat16)
    assert attention(q, k, v, bias=torch.zeros(3)).dtype == torch.bfloat16


def test_declared_conventions():
    words = "alignment=bottom-right window=left empty_row=zero polarity=attend grouped=True layout=bhtd arrays=torch"
    assert " ".join(f"{key}={value}" for key, value in attention.__attnspec__.items()) == words


# Terms: two sums of M = 12 products in a row beside those of attention (D = 3, S = 7). Magnitude: the layers below have
# |score| < 9, bias < 5, |v| < 2.1 and row sums of |o.weight| < 2.6, and (1 + 9 + 5) * 2.1 * 2.6 < 82.
LAYER = (2 * 12 + 3 + 2 * 7 + 8, 82.0)


def layer(G: int = 2, **options) -> MultiHeadAttention:
    torch.manual_seed(0)
    return MultiHeadAttention(12, 4, G, **options).double()


@pytest.mark.parametrize("bias", [True, False])
def test_layer_names_and_shapes(bias):
    weights = {"q.weight": (12, 12), "k.weight": (6, 12), "v.weight": (6, 12), "o.weight": (12, 12)}
    vectors = {"q.bias": (12,), "k.bias": (6,), "v.bias": (6,), "o.bias": (12,)} if bias else {}
    assert {name: tuple(x.shape) for name, x in layer(bias=bias).state_dict().items()} == weights | vectors
    assert MultiHeadAttention(12, 4).k.weight.shape == (12, 12)


@pytest.mark.parametrize("S", [None, 3, 7])
@pytest.mark.parametrize("options", [{}, {"causal": True, "scale": 0.3}, {"window": 2, "softcap": 0.7}])
def test_layer_equals_the_formula(options, S):
    module, x = layer(**options), draw(2, 5, 12)
    memory = None if S is None else draw(2, S, 12, seed=1)
    y = x if memory is None else memory
    mask, bias = draw(5, y.shape[1], seed=2) > -1, draw(4, 5, y.shape[1], seed=3)
    w = module.state_dict()
    q, k, v = (
        (z @ w[f"{name}.weight"].T + w[f"{name}.bias"]).view(2, -1, heads, 3).transpose(1, 2)
        for name, z, heads in (("q", x, 4), ("k", y, 2), ("v", y, 2))
    )
    heads = formula(q, k, v, mask=mask, bias=bias, **options).transpose(1, 2).reshape(2, 5, 12)
    assert_same(module(x, memory, mask=mask, bias=bias), heads @ w["o.weight"].T + w["o.bias"], *LAYER)


@pytest.mark.parametrize("chunks", [[7], [1] * 7, [3, 4], [2, 1, 4], [6, 1], [1, 0, 6]])
@pytest.mark.parametrize("options", [{}, {"window": 3}, {"softcap": 0.7}])
@pytest.mark.parametrize("G", [1, 4])
@torch.no_grad()
def test_step_by_step_equals_parallel(G, options, chunks):
    module, x = layer(G, causal=True, **options), draw(2, 7, 12)
    cache = KeyValueCache(2, G, 8, 3, like=x)
    for memory in (cache.keys, cache.values):
        memory.fill_(math.nan)  # what is not written yet must not matter
    for _ in range(2):  # a second time over the first one's remains
        steps = torch.cat([module(chunk, cache=cache) for chunk in x.split(chunks, dim=1)], dim=1)
        assert cache.length == 7
        cache.reset()
        assert_same(steps, module(x), *LAYER)


ONE = torch.zeros(1, 1, 1, 1)
FLAG = torch.ones(1, dtype=torch.bool)
BROADCAST = "scores=[1, 1, 1, 1]: it must broadcast to scores [B,H,T,S]; insert axes of size 1"


@pytest.mark.parametrize(
    ("shapes", "rule"),
    [
        ("123 1111 1111", "four axes each; reshape to q [B,H,T,D], k [B,G,S,D], v [B,G,S,E]"),
        ("1111 1121 1111", "k and v must agree in B, G and S; give every key one value"),
        ("2111 1111 1111", "q and k must agree in B; expand the smaller batch"),
        ("1112 1111 1111", "q and k must agree in D, at least 1; project both to one width"),
        ("1110 1110 1111", "q and k must agree in D, at least 1; project both to one width"),
        ("1311 1211 1211", "H must be a multiple of G; choose G among the divisors of H"),
        ("1111 1011 1011", "H must be a multiple of G; choose G among the divisors of H"),
    ],
)
def test_array_errors(shapes, rule):
    q, k, v = ([int(size) for size in shape] for shape in shapes.split())
    raises(f"q={q}, k={k}, v={v}: {rule}", attention, torch.zeros(q), torch.zeros(k), torch.zeros(v))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": math.inf}, "scale=inf: the scale must be finite; use None for 1/sqrt(D)"),
        ({"scale": math.nan}, "scale=nan: the scale must be finite; use None for 1/sqrt(D)"),
        ({"window": 0}, "window=0: a window holds the current key; use 1 or more, or None"),
        ({"softcap": 0.0}, "softcap=0.0: a cap is positive and finite; use None for none"),
        ({"softcap": math.nan}, "softcap=nan: a cap is positive and finite; use None for none"),
        ({"mask": ONE}, "mask=torch.float32: a mask is boolean, a bias floating; pass it as the other argument"),
        ({"bias": FLAG}, "bias=torch.bool: a mask is boolean, a bias floating; pass it as the other argument"),
        ({"mask": FLAG.expand(2, 1)}, f"mask=[2, 1], {BROADCAST}"),
        ({"bias": ONE[None]}, f"bias=[1, 1, 1, 1, 1], {BROADCAST}"),
    ],
)
def test_option_errors(options, message):
    raises(message, attention, ONE, ONE, ONE, **options)


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((0, 1), {}, "M=0, heads=1, kv_heads=1: sizes are 1 or more; use positive numbers"),
        ((4, 2, 0), {}, "M=4, heads=2, kv_heads=0: sizes are 1 or more; use positive numbers"),
        ((4, 3), {}, "M=4, heads=3: M must be a multiple of heads; choose heads among its divisors"),
        ((4, 4, 3), {}, "heads=4, kv_heads=3: heads must be a multiple of kv_heads; choose a divisor of heads"),
        ((4, 4), {"window": -1}, "window=-1: a window holds the current key; use 1 or more, or None"),
    ],
)
def test_layer_configuration_errors(sizes, options, message):
    raises(message, MultiHeadAttention, *sizes, **options)


def test_layer_call_errors():
    module, x = layer(), draw(2, 5, 12)
    rule = "x is [B,T,M] and memory [B,S,M]; project both to M"
    raises(f"x=[5, 12], memory=[5, 12], M=12: {rule}", module, x[0])
    raises(f"x=[2, 5, 12], memory=[2, 5, 11], M=12: {rule}", module, x, x[..., 1:])
    message = "memory=[2, 5, 12]: a cache takes the positions of x; leave out memory or cache"
    raises(message, module, x, x, cache=KeyValueCache(2, 2, 5, 3, like=x))
