"""What cannot be used is refused with the value, the rule and the fix, before anything runs: exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

ONE = ("--select", "scale.sqrt-dk")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("plain", "target 'plain': a target is module:attribute, path/file.py::name or one of"),
        ("", "target '': a target is module:attribute"),
        ("plane.py::plain", "target file 'plane.py' does not exist; did you mean 'plain.py'?"),
        ("nowhere/f.py::f", "target file 'nowhere/f.py' does not exist"),
        ("plain.py::plane", "plain has no 'plane'; did you mean 'plain'?"),
        ("plain:plane", "plain has no 'plane'; did you mean 'plain'?"),
        ("plain.py::np.nothing", "numpy has no 'nothing'"),
        ("torch:scaled_dot_product_atention", "torch offers scaled_dot_product_attention; did you mean"),
        ("impl:atention", "impl offers attention, lm-sinusoidal, lm-learned, lm-rotary, lm-alibi, lm-windowed and 7 more;"),
        ("mutant:mask.sees_nxt", "did you mean 'mask.sees_next'?"),
        ("nosuchmodule:f", "no module named 'nosuchmodule'; install it, or give path/file.py::name"),
        ("plain.py:plain", "give path/file.py::name"),
        ("torch:nn.functional.softmax", "an attention function has parameters for query, key and value"),
    ],
)
def test_unknown_target(cli, target: str, said: str) -> None:
    done = cli("audit", target, *ONE)
    assert said in done.stderr
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('kaput')", "importing it raised RuntimeError: kaput at"),
        ("import sys; sys.exit(0)", "importing it raised SystemExit: 0"),
        ("def f(:", "importing it raised SyntaxError: invalid syntax (broken.py, line 1)"),
        ("import nosuchmodule", "importing it raised ModuleNotFoundError: No module named 'nosuchmodule'"),
    ],
)
@pytest.mark.parametrize("target", ["broken.py::f", "broken:f"])
def test_target_that_cannot_be_imported(cli, folder: Path, source: str, said: str, target: str) -> None:
    (folder / "broken.py").write_text(source)
    done = cli("audit", target, *ONE)
    assert said in done.stderr
    assert "mend that first" in done.stderr
    assert done.returncode == 2


WRONG = """
import torch
from plain import plain
number = 3
def other_names(a, b): ...
def one_more(q, k, v, rope): return plain(q, k, v)
def anything(*args): return plain(*args)
class Layer:
    def __init__(self, width): ...
    def __call__(self, q, k, v): return plain(q, k, v)
class Model:
    def logits(self, ids): ...
def weights(): return torch.nn.MultiheadAttention(4, 1)
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("number", "is a int, not callable: name a function of (q, k, v)"),
        ("other_names", "other_names(a, b): an attention function has parameters for query, key and value"),
        ("one_more", "one_more(q, k, v, rope): parameter 'rope' is required and not understood"),
        ("anything", "anything(no parameters): an attention function has parameters for query, key and value"),
        ("Layer", "class Layer needs arguments (width); name a factory"),
        ("Model", "a language model has vocab_size, how many words there are; Model has no 'vocab_size'"),
        ("weights", "looks like a layer; this version audits attention functions"),
    ],
)
def test_object_that_is_not_an_attention_function(cli, folder: Path, name: str, said: str) -> None:
    (folder / "wrong.py").write_text(WRONG)
    done = cli("audit", f"wrong.py::{name}", *ONE)
    assert said in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "layuot=bhtd"], "option 'layuot' is not known; did you mean 'layout'?"),
        (["-o", "layout=bhdt"], "layout=bhdt: one of bhtd, bthd, btm, btd, td; did you mean"),
        (["-o", "alignment=top"], "alignment=top: one of top-left, bottom-right, refused; did you mean 'top-left'?"),
        (["-o", "grouped=yes"], "grouped=yes: true or false"),
        (["-o", "dtypes=float32,float8"], "dtypes=float8: one of float64, float32, bfloat16, float16; did you mean"),
        (["-o", "precision=fusd"], "precision=fusd: one of wide, fused, stored, stored-blocks; did you mean 'fused'?"),
        (["-o", "precision=half:fused"], "precision=half:fused: a dtype is one of float64, float32, bfloat16, float16"),
        (["-o", "precision=float32:fused"], "precision=float32:fused: float32 is computed in float32, its class is wide"),
        (["-o", "heads=2"], "option 'heads': the number of heads varies from case to case; give the function a parameter"),
        (["-o", "contract=keros"], "contract=keros: one of torch, jax, onnx-23, mlx, keras, none; did you mean 'keras'?"),
        (["-o", "gradients=maybe"], "gradients=maybe: one of vjp, none"),
        (["-o", "vjp=nowhere"], "vjp=nowhere: module:function or path/file.py::function"),
        (["-o", "backend=flash"], "plain.py::plain has no backends to select; drop the option"),
        (["-o", "layout=bhtd", "-o", "layout=bthd"], "-o layout: given twice (bhtd and bthd); give it once"),
        (["-o", "layout"], "-o layout: an option is key=value, for example -o layout=bthd"),
        (["--select", "mask.casual"], "claim 'mask.casual' matches nothing; did you mean 'mask.causal'?"),
        (["--select", "softmx"], "claim 'softmx' matches nothing; did you mean 'softmax'?"),
        (["--ignore", "maks"], "claim 'maks' matches nothing; did you mean 'mask'?"),
        (["--profile", "quik"], "'quik' is not one of 'quick', 'ci', 'deep'"),
        (["--timeout", "0"], "0.0 is not in the range x>0"),
        (["--fail-on", "shoud"], "'shoud' is not one of 'must', 'should', 'may'"),
    ],
)
def test_unknown_option_value_or_claim(cli, arguments: list[str], said: str) -> None:
    done = cli("audit", "plain.py::plain", *arguments)
    assert said in done.stderr
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["audt"], "No such command 'audt'. Did you mean 'audit'?"),
        (["audit"], "Missing argument 'TARGET...'"),
        (["explain", "mask.casual"], "did you mean 'mask.causal'?"),
        (["claims", "--select", "maks"], "did you mean 'mask'?"),
        (["replay"], "Missing argument 'CASE'"),
    ],
)
def test_unknown_command(cli, arguments: list[str], said: str) -> None:
    done = cli(*arguments)
    assert said in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize("pattern", ["mask.caus", "ma", "mask.causal.more"])
def test_a_selection_is_an_id_or_ends_at_a_dot(cli, pattern: str) -> None:
    assert cli("claims", "--select", pattern).returncode == 2


def test_a_family_may_be_written_with_its_dot(cli) -> None:
    named, dotted = cli("claims", "--select", "mask").stdout, cli("claims", "--select", "mask.").stdout
    assert named == dotted
    assert {line.partition(".")[0] for line in named.splitlines()} == {"mask"}


def test_ignore_beats_select(cli) -> None:
    done = cli("audit", "plain.py::plain", "--select", "softmax", "--select", "scale.sqrt-dk", "--ignore", "softmax")
    assert done.returncode == 0
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert shown == ["scale.sqrt-dk"]


def test_results_go_to_a_folder_that_does_not_exist_yet(cli, folder: Path) -> None:
    assert cli("audit", "plain.py::plain", *ONE, "--json", "new/results.json").returncode == 0
    assert (folder / "new" / "results.json").is_file()
