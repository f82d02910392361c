import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from attnspec.reference.attention import attention
from attnspec.reference.mask import padding_mask
from attnspec.reference.multi_head import merge_heads, multi_head_attention, split_heads
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

torch.set_num_threads(1)
B, T, S, M, HEADS = 2, 3, 5, 8, 4


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def parameters_of(module, biased):
    """The parameters of torch.nn.MultiheadAttention under the names of the reference."""
    if module.in_proj_weight is None:
        weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    else:
        weights = module.in_proj_weight.chunk(3)
    named = {f"{name}.weight": weight for name, weight in zip("qkv", weights, strict=True)}
    named["o.weight"] = module.out_proj.weight
    if biased:
        biases = [*module.in_proj_bias.chunk(3), module.out_proj.bias]
        named |= {f"{name}.bias": bias for name, bias in zip("qkvo", biases, strict=True)}
    return {name: array.detach().numpy() for name, array in named.items()}


def module_and_inputs(memory_width, biased):
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(
        M, HEADS, bias=biased, kdim=memory_width, vdim=memory_width, batch_first=True, dtype=torch.float64
    )
    if biased:  # torch starts all biases at zero, which would hide a wrong one
        for bias in (module.in_proj_bias, module.out_proj.bias):
            torch.nn.init.normal_(bias)
    return module, parameters_of(module, biased), normal(B, T, M), normal(B, S, memory_width, seed=1)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("memory_width", [M, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_agrees_with_torch(memory_width, biased, masked):
    module, parameters, x, memory = module_and_inputs(memory_width, biased)
    mask = padding_mask(np.array([S, 2]), S) if masked else None
    hidden = torch.tensor(~mask[:, 0, 0]) if masked else None  # torch's polarity is the other one
    memory_tensor = torch.tensor(memory)
    want, _ = module(torch.tensor(x), memory_tensor, memory_tensor, key_padding_mask=hidden)
    got = multi_head_attention(x, memory, parameters, HEADS, mask=mask)
    assert_close(got, want.detach().numpy(), terms=4 * M + S)


def test_self_attention_agrees_with_torch_under_a_causal_mask():
    module, parameters, x, _ = module_and_inputs(M, True)
    hidden = torch.triu(torch.ones(T, T, dtype=torch.bool), diagonal=1)
    want, _ = module(*[torch.tensor(x)] * 3, attn_mask=hidden)
    got = multi_head_attention(x, x, parameters, HEADS, causal="top-left")
    assert_close(got, want.detach().numpy(), terms=4 * M + T)


def grouped_parameters(D=3, E=2, G=2):
    shapes = {"q.weight": (HEADS * D, M), "k.weight": (G * D, M), "v.weight": (G * E, M), "o.weight": (M, HEADS * E)}
    return {name: normal(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}


def test_is_the_sum_over_heads_of_attention_with_sliced_weights():
    D, E, G = 3, 2, 2
    p, x, memory = grouped_parameters(D, E, G), normal(B, T, M, seed=8) / M, normal(B, S, M, seed=9) / M
    want = np.zeros((B, T, M))
    for h in range(HEADS):
        g = h // (HEADS // G)
        q = x @ p["q.weight"][h * D : (h + 1) * D].T
        k = memory @ p["k.weight"][g * D : (g + 1) * D].T
        v = memory @ p["v.weight"][g * E : (g + 1) * E].T
        want += attention(q[:, None], k[:, None], v[:, None])[:, 0] @ p["o.weight"][:, h * E : (h + 1) * E].T
    got = multi_head_attention(x, memory, p, HEADS, kv_heads=G)
    assert_close(got, want, terms=4 * M + S)


def test_options_are_passed_on():
    p, x, memory = grouped_parameters(), normal(B, T, M, seed=8), normal(B, S, M, seed=9)
    call = {"mask": np.zeros(S, bool), "kv_heads": 2}
    assert (multi_head_attention(x, memory, p, HEADS, **call) == 0).all()
    bias = normal(M, seed=10)
    got = multi_head_attention(x, memory, p | {"o.bias": bias}, HEADS, **call)
    assert got.tolist() == np.broadcast_to(bias, (B, T, M)).tolist()
    assert np.isnan(multi_head_attention(x, memory, p, HEADS, empty_row="nan", **call)).all()
    plain = multi_head_attention(x, memory, p, HEADS, kv_heads=2)
    for options in ({"scale": 0.1}, {"window": 1}, {"softcap": 0.5}, {"bias": normal(T, S)}, {"causal": "top-left"}):
        assert np.max(np.abs(multi_head_attention(x, memory, p, HEADS, kv_heads=2, **options) - plain)) > 0


def test_heads_are_consecutive_slices():
    x = np.arange(6.0).reshape(1, 1, 6)
    assert split_heads(x, 2).tolist() == [[[[0.0, 1.0, 2.0]], [[3.0, 4.0, 5.0]]]]
    assert merge_heads(split_heads(x, 3)).tolist() == x.tolist()


@given(*[st.integers(0, 3)] * 3, st.integers(1, 3))
def test_merging_undoes_splitting(batch, positions, width, heads):
    x = normal(batch, positions, heads * width)
    split = split_heads(x, heads)
    assert split.shape == (batch, heads, positions, width)
    np.testing.assert_array_equal(merge_heads(split), x)


def changed(**arrays):
    return {name: array for name, array in (grouped_parameters() | arrays).items() if array is not None}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: multi_head_attention(x[0], x, changed(), HEADS), ShapeError, "x.shape=(3, 8): x has the 3 axes"),
        (lambda x: multi_head_attention(x, x[0], changed(), HEADS), ShapeError, "memory.shape=(3, 8): memory has the"),
        (lambda x: multi_head_attention(x, x[..., :7], changed(), HEADS, kv_heads=2), ShapeError,
         "k: M=7 in the input of weight and M=8 in weight: M is one size"),
        (lambda x: multi_head_attention(x, x, changed(**{"v.weight": None, "out.bias": x}), HEADS), ValueError,
         "parameters=['k.weight', 'o.weight', 'out.bias', 'q.weight']: missing ['v.weight'], unknown ['out.bias']"),
        (lambda x: multi_head_attention(x, x, changed(**{"v.weight": None}), HEADS), ValueError,
         "parameters=['k.weight', 'o.weight', 'q.weight']: missing ['v.weight'], unknown []; pass q.weight, k.weight"),
        (lambda x: multi_head_attention(x, x, changed(**{"out.bias": x}), HEADS), ValueError,
         "parameters=['k.weight', 'o.weight', 'out.bias', 'q.weight', 'v.weight']: missing [], unknown ['out.bias']"),
        (lambda x: multi_head_attention(x, x, changed(**{"q.weight": x}), HEADS), ShapeError,
         "q: weight.shape=(2, 3, 8): weight has the 2 axes [F,M]"),
        (lambda x: multi_head_attention(x, x, changed(**{"q.bias": np.zeros(3)}), HEADS), ShapeError,
         "q: bias.shape=(3,): it has one entry for each of the 12 rows of weight; pass (12,)"),
        (lambda x: multi_head_attention(x, x, changed(), 5), ShapeError,
         "heads=5: the projected width 12 is a multiple of it; change heads or the projection"),
        (lambda x: multi_head_attention(x, x, changed(), 0), ValueError, "heads=0: there is at least 1 head; pass"),
        (lambda x: multi_head_attention(x, x, changed(), HEADS), ShapeError, "heads=4: the projected width 6 is a"),
        (lambda x: multi_head_attention(x, x, changed(), HEADS, kv_heads=1), ShapeError, "D=3 in q and D=6 in k"),
        (lambda x: multi_head_attention(x, x[:1], changed(), HEADS, kv_heads=2), ShapeError, "B=2 in q and B=1 in k"),
        (lambda x: split_heads(x[0], 2), ShapeError, "x.shape=(3, 8): x has the 3 axes [B,T,M]"),
        (lambda x: merge_heads(x), ShapeError, "x.shape=(2, 3, 8): x has the 4 axes [B,H,T,E]"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call(normal(B, T, M))
    assert str(caught.value).startswith(message)
