"""From a target to a profile: array library, layout and conventions, each with its origin."""

from __future__ import annotations

from pathlib import Path

import pytest

import attnspec
from attnspec.conventions import subject_of
from attnspec.function import FunctionSubject
from attnspec.report.terminal import profile_lines
from attnspec.target import load, wrap

SOURCE = '''
import functools
import math
import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention as builtin


def in_numpy(q, k, v, *, mask=None, bias=None):
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total == 0, 1, total) @ v


def methods_only(q, k, v):
    """Operators that tensors and arrays share: whatever it is given, it returns."""
    e = math.e ** (q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5)
    return e / e.sum(-1)[..., None] @ v


def in_torch(q, k, v, *, mask=None, causal=False, scale=None):
    scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    keep = torch.ones(scores.shape[-2:], dtype=torch.bool)
    keep = keep.tril() if causal else keep
    keep = keep if mask is None else keep & mask
    return torch.softmax(scores.masked_fill(~keep, -math.inf), -1).nan_to_num(0.0) @ v


def masked_out(q, k, v, mask=None):
    return in_torch(q, k, v, mask=None if mask is None else ~mask)


def through_numpy(q, k, v):
    return torch.from_numpy(in_numpy(*(x.detach().numpy() for x in (q, k, v))))


def bthd(q, k, v):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return in_torch(q, k, v).transpose(1, 2)


def btm(q, k, v, num_heads):
    q, k, v = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    return in_torch(q, k, v).transpose(1, 2).flatten(-2)


def btd(q, k, v):
    assert q.ndim == 3, "three axes"
    return in_torch(q, k, v)


def td(q, k, v):
    assert q.ndim == 2, "two axes"
    return in_torch(q, k, v)


def always_causal(q, k, v):
    return in_torch(q, k, v, causal=True)


def last_aligned(q, k, v, causal=False):
    S, T = k.shape[-2], q.shape[-2]
    return in_torch(q, k, v, mask=torch.ones(T, S, dtype=torch.bool).tril(S - T) if causal else None)


class Attention:
    def __call__(self, query, key, value):
        return in_torch(query, key, value)


class Module(torch.nn.Module):
    def forward(self, query, key, value, is_causal=False):
        return in_torch(query, key, value, causal=is_causal)


def make():
    return in_torch


def positional(q, k, v, /):
    return in_torch(q, k, v)


def promising(query, key, value, attn_mask=None, is_causal=False):
    return builtin(query, key, value, attn_mask=attn_mask, is_causal=is_causal)


def breaking(query, key, value, attn_mask=None, is_causal=False):
    """Bottom-right, True = masked out, rows without a key are NaN: nothing of what the names promise."""
    T, S = query.shape[-2], key.shape[-2]
    hidden = ~torch.ones(T, S, dtype=torch.bool).tril(S - T) if is_causal else torch.zeros(T, S, dtype=torch.bool)
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        hidden = hidden | attn_mask
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.softmax(scores.masked_fill(hidden, -math.inf), -1) @ value


def declaring(q, k, v):
    return bthd(q, k, v)
declaring.__attnspec__ = {"layout": "bthd", "grouped": False}

half_scale = functools.partial(in_torch, scale=0.5)
fixed = functools.partial(in_torch, causal=True)
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loading") / "loadable.py"
    path.write_text(SOURCE)
    return path


def subject(file: Path, name: str, **options: str) -> FunctionSubject:
    return subject_of(load(f"{file}::{name}", options))


@pytest.mark.parametrize(
    ("name", "arrays", "layout"),
    [
        ("in_numpy", "numpy", "bhtd"),
        ("methods_only", "torch", "bhtd"),
        ("in_torch", "torch", "bhtd"),
        ("masked_out", "torch", "bhtd"),
        ("through_numpy", "torch", "bhtd"),
        ("bthd", "torch", "bthd"),
        ("btm", "torch", "btm"),
        ("btd", "torch", "btd"),
        ("td", "torch", "td"),
        ("always_causal", "torch", "bhtd"),
        ("last_aligned", "torch", "bhtd"),
        ("Attention", "torch", "bhtd"),
        ("Module", "torch", "bhtd"),
        ("make", "torch", "bhtd"),
        ("positional", "torch", "bhtd"),
        ("promising", "torch", "bhtd"),
        ("declaring", "torch", "bthd"),
        ("half_scale", "torch", "bhtd"),
    ],
)
def test_array_library_and_layout(file: Path, name: str, arrays: str, layout: str) -> None:
    profile = subject(file, name).profile
    assert (profile["arrays"], profile["layout"]) == (arrays, layout)
    assert profile.settings["layout"].origin == ("declared" if name == "declaring" else "inferred")


def test_code_for_either_library_is_taken_for_numpy_where_torch_is_not_loaded(folder: Path, cli) -> None:
    (folder / "either.py").write_text(
        f"import math\n\n{SOURCE[SOURCE.index('def methods_only') : SOURCE.index('def in_torch')]}"
    )
    done = cli("audit", "either.py::methods_only", "--select", "scale.sqrt-dk")
    assert "target either.py::methods_only (numpy, bhtd)" in done.stdout


def test_a_builtin_reached_by_its_path_is_known_by_identity(file: Path) -> None:
    loaded = load(f"{file}::builtin", {})
    assert loaded.name == "torch:scaled_dot_product_attention"
    assert load("torch.nn.functional:scaled_dot_product_attention", {}).name == loaded.name
    profile = subject_of(loaded).profile
    assert profile.settings["contract"].value == "torch"
    assert profile.contradictions == ()


def test_a_file_is_imported_once(tmp_path: Path) -> None:
    path, count = tmp_path / "counts.py", tmp_path / "count"
    path.write_text(f"with open({str(count)!r}, 'a') as n: n.write('x')\ndef f(q, k, v): ...\ndef g(q, k, v): ...\n")
    load(f"{path}::f", {})
    load(f"{path}::g", {})
    assert count.read_text() == "x"


def test_a_factory_is_called_once_and_its_script_calls_it_too(file: Path) -> None:
    assert load(f"{file}::make", {}).function.__name__ == "in_torch"
    assert load(f"{file}::make", {}).script[1] == "make()"
    assert load(f"{file}::in_torch", {}).script[1] == "in_torch"


@pytest.mark.parametrize(
    ("name", "convention", "value", "origin"),
    [
        ("in_torch", "polarity", "attend", "inferred"),
        ("in_torch", "alignment", "top-left", "inferred"),
        ("in_torch", "empty_row", "zero", "inferred"),
        ("in_numpy", "empty_row_bias", "zero", "inferred"),
        ("masked_out", "polarity", "masked", "inferred"),
        ("last_aligned", "alignment", "bottom-right", "inferred"),
        ("always_causal", "causal", "always", "inferred"),
        ("promising", "contract", "torch", "inferred"),
        ("promising", "polarity", "attend", "contract"),
        ("promising", "alignment", "top-left", "contract"),
        ("promising", "empty_row", "zero", "contract"),
        ("declaring", "grouped", False, "declared"),
        ("declaring", "deterministic", True, "inferred"),
        ("declaring", "poison", "huge", "default"),
    ],
)
def test_conventions_with_their_origin(file: Path, name: str, convention: str, value: object, origin: str) -> None:
    setting = subject(file, name).profile.settings[convention]
    assert (setting.value, setting.origin) == (value, origin)


@pytest.mark.parametrize(
    ("name", "feature", "reason"),
    [
        ("in_numpy", "gradients", "not offered: NumPy arrays carry no gradients"),
        ("through_numpy", "gradients", "not offered: the output needs no gradient"),
        ("in_torch", "gradients", None),
        ("in_torch", "softcap", "not offered: no such parameter"),
        ("in_torch", "scale", None),
        ("in_torch", "bias", "refuses: "),
        ("in_torch", "grouped", "refuses: RuntimeError: "),
        ("in_numpy", "mask-and-bias", None),
        ("always_causal", "non-causal", "not offered: the function is always causal"),
        ("bthd", "causal", "not offered: no such parameter"),
        ("td", "batch", "not offered: layout td has no such axis"),
        ("btd", "heads", "not offered: layout btd has no such axis"),
        ("declaring", "grouped", "not offered: declared"),
    ],
)
def test_features_say_why_they_are_not_offered(file: Path, name: str, feature: str, reason: str | None) -> None:
    found = subject(file, name).profile.lacks(feature)
    assert (found is None) if reason is None else str(found).startswith(reason)


def test_the_profile_prints_conventions_origins_and_refusals(file: Path) -> None:
    lines = [" ".join(line.split()) for line in profile_lines(subject(file, "in_torch").profile)]
    assert "polarity attend inferred" in lines
    assert "precision float64:wide,float32:wide,bfloat16:stored-blocks,float16:stored-blocks default" in lines
    assert any(line.startswith("grouped refuses: RuntimeError:") for line in lines)


def test_an_option_beats_the_attribute_and_the_attribute_the_probe(file: Path) -> None:
    assert subject(file, "declaring", layout="bhtd").profile["layout"] == "bhtd"
    assert subject(file, "in_torch", polarity="masked").profile.settings["polarity"].origin == "declared"


def test_names_promise_and_what_is_found_against_it_is_violated(file: Path) -> None:
    report = attnspec.audit(f"{file}::breaking", select=["convention"], in_process=True)
    assert {r.claim for r in report.violations} >= {"convention.alignment", "convention.polarity", "convention.empty-row"}
    assert {r.level for r in report.violations} == {"must"}
    assert report.exit_code == 1
    evidence = next(r.evidence for r in report.violations if r.claim == "convention.alignment")
    assert (evidence.expected, evidence.got) == ("top-left", "bottom-right, by probing")


def test_a_contract_can_be_lifted(file: Path) -> None:
    report = attnspec.audit(f"{file}::breaking", select=["convention"], in_process=True, contract="none")
    assert {(r.claim, r.level) for r in report.violations} == {("convention.polarity", "may")}
    assert report.exit_code == 0


def test_a_declaration_that_is_wrong_is_violated(file: Path) -> None:
    report = attnspec.audit(f"{file}::in_torch", select=["convention"], in_process=True, alignment="bottom-right")
    assert {r.claim for r in report.violations} == {"convention.alignment"}
    assert report.exit_code == 1


def test_a_declared_layout_that_is_wrong_is_found(file: Path) -> None:
    report = attnspec.audit(f"{file}::bthd", select=["heads", "scale", "reference"], in_process=True, layout="bhtd")
    assert report.exit_code in (1, 3)


def test_a_partial_is_its_function_with_the_argument_kept(file: Path) -> None:
    assert attnspec.audit(f"{file}::fixed", select=["mask.causal"], in_process=True).exit_code == 0
    report = attnspec.audit(f"{file}::half_scale", select=["scale.sqrt-dk"], in_process=True)
    assert {r.claim for r in report.violations} == {"scale.sqrt-dk"}


def test_wrap_names_the_place_of_a_callable() -> None:
    import torch

    assert wrap(torch.nn.functional.scaled_dot_product_attention, {}).name == "torch:scaled_dot_product_attention"
    assert wrap(subject_of, {}).name.endswith("conventions.py::subject_of")
    assert wrap(Callme(), {}).name.endswith(":Callme")


class Callme:
    def __call__(self, q, k, v): ...
