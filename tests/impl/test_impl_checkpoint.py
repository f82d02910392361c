"""impl.checkpoint: training goes on from a file to the last bit, a kill loses nothing, and wrong files are named."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from attnspec.impl import checkpoint
from attnspec.impl.recurrent_translator import RecurrentTranslator
from attnspec.impl.training import Trainer
from attnspec.impl.training_loop import Record, train
from attnspec.impl.transformer import CausalLM, Seq2Seq
from tests.impl.impl_models import small

START = 1
RULE = "a checkpoint has the tensors of its model and no others; use a file that save wrote"
TRANSLATOR: dict[str, Any] = {"encoder_layers": 1, "shared": True, "tied": True}


def trainer_of(masters: bool = False, dtype: torch.dtype = torch.float32, rate: Any = None, **options: Any) -> Trainer:
    net = small(**{**TRANSLATOR, "dropout": 0.3} | options).to(dtype)
    return Trainer(net, rate or (lambda step: 0.01 / step), start_id=START, masters=masters)


def batch(step: int) -> list[Any]:
    words = torch.randint(2, 11, (2, 4, 5), generator=torch.Generator().manual_seed(step))
    return [(words[0], words[1]), (words[1], words[0])]


def steps(trainer: Trainer, count: int) -> None:
    for _ in range(count):
        trainer.step(batch(trainer.taken))


def same(one: Trainer, other: Trainer) -> bool:
    """Weights and working weights, to the last bit, and everything else that the next step depends on."""
    pairs = [(one.model, other.model), (one.computing, other.computing)]
    weights = all(torch.equal(x, y) for a, b in pairs for x, y in zip(a.parameters(), b.parameters(), strict=True))
    moments = all(
        torch.equal(one.optimizer.state[x][kind], other.optimizer.state[y][kind])
        for x, y in zip(one.model.parameters(), other.model.parameters(), strict=True)
        for kind in checkpoint.MOMENT_KINDS
    )
    return weights and moments and one.taken == other.taken


KINDS = [{}, {"masters": True}, {"dtype": torch.bfloat16}, {"encoder_layers": 0, "shared": False}]


def check_resumed(folder: Path, **kind: Any) -> None:
    """6 steps at once, or 3, and 3 more in another model."""
    straight = trainer_of(**kind)
    torch.manual_seed(5)
    steps(straight, 6)
    first = trainer_of(**kind)
    torch.manual_seed(5)
    steps(first, 3)
    checkpoint.save(folder / "file", first)
    torch.manual_seed(99)
    second = trainer_of(**kind)
    steps(second, 1)  # what it was before does not matter
    checkpoint.resume(folder / "file", second)
    assert same(first, second)
    steps(second, 3)
    assert second.taken == 6
    assert same(straight, second)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_resumed_training_is_the_same_to_the_last_bit(monkeypatch, tmp_path, kind):
    if kind.get("encoder_layers") == 0:
        monkeypatch.setitem(globals(), "batch", lambda step: [(None, words) for words, _ in BATCH(step)])
    check_resumed(tmp_path, **kind)


BATCH = batch
RESUME = checkpoint.resume


def forget_step(path: Any, trainer: Trainer) -> None:
    RESUME(path, trainer)
    trainer.taken = 0


def forget_bias(path: Any, trainer: Trainer) -> None:
    RESUME(path, trainer)
    for state in trainer.optimizer.state.values():
        state["step"].zero_()


def forget_moments(path: Any, trainer: Trainer) -> None:
    RESUME(path, trainer)
    for state in trainer.optimizer.state.values():
        state["exp_avg"].zero_()


def forget_working(path: Any, trainer: Trainer) -> None:
    working, trainer.working = trainer.working, None
    RESUME(path, trainer)
    trainer.working = working


@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [
        (torch, "set_rng_state", lambda _: None),
        (checkpoint, "resume", forget_step),
        (checkpoint, "resume", forget_bias),
        (checkpoint, "resume", forget_moments),
        (checkpoint, "resume", forget_working),
    ],
)
def test_what_is_forgotten_is_noticed(monkeypatch, tmp_path, where, name, wrong):
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(AssertionError):
        check_resumed(tmp_path, masters=True)


@pytest.mark.parametrize("options", [{}, {"shared": False, "tied": False}, {"encoder_layers": 0, "shared": False}], ids=str)
def test_read_model(tmp_path, options):
    trainer = trainer_of(**options)
    checkpoint.save(tmp_path / "file", trainer)
    model = checkpoint.read_model(tmp_path / "file")
    assert type(model) is (CausalLM if options.get("encoder_layers") == 0 else Seq2Seq)
    assert model.config == trainer.model.config
    assert not model.training
    for name, one in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], one)


def test_weights_in_a_file_have_the_names_of_the_glossary(tmp_path):
    trainer = trainer_of()
    steps(trainer, 1)
    checkpoint.save(tmp_path / "file", trainer)
    with safe_open(tmp_path / "file", framework="np") as file:
        names, header = set(file.keys()), file.metadata()
    assert {name for name in names if "/" not in name} == set(trainer.model.state_dict())
    assert header["step"] == "1"
    assert json.loads(header["config"])["width"] == 8
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# What can go wrong


def broken(*args: Any) -> None:
    Path(args[1]).write_bytes(b"half of a file")
    raise OSError("no space left on device")


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "name", "wrong"), [(checkpoint, "save_file", broken), (os, "replace", killed), (os, "fsync", killed)]
)
def test_what_stops_a_save_leaves_the_old_file(monkeypatch, tmp_path, where, name, wrong):
    trainer = trainer_of()
    steps(trainer, 2)
    checkpoint.save(tmp_path / "file", trainer)
    old = (tmp_path / "file").read_bytes()
    steps(trainer, 1)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, wrong)
        with pytest.raises((OSError, KeyboardInterrupt)):
            checkpoint.save(tmp_path / "file", trainer)
    assert (tmp_path / "file").read_bytes() == old
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    checkpoint.save(tmp_path / "file", trainer)
    twin = trainer_of()
    checkpoint.resume(tmp_path / "file", twin)
    assert same(trainer, twin)


SCRIPT = """
import os, signal, sys
from attnspec.impl import checkpoint
from attnspec.impl.training import Trainer
model = checkpoint.read_model(sys.argv[1])
trainer = Trainer(model, lambda _: 0.1, start_id=1)
trainer.taken = 7
real = checkpoint.save_file
def half(tensors, path, header):
    real(tensors, path, header)
    os.truncate(path, os.path.getsize(path) // 2)
    os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_file = half
checkpoint.save(sys.argv[1], trainer)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_kill_in_the_middle_of_a_save_loses_nothing(tmp_path):
    trainer = trainer_of()
    checkpoint.save(tmp_path / "file", trainer)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "file")], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    checkpoint.resume(tmp_path / "file", trainer)
    assert trainer.taken == 0
    checkpoint.save(tmp_path / "file", trainer)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]  # the half that was left is gone


def refused(path: Path, trainer: Trainer, message: str) -> None:
    """The error says so, and the trainer is as it was."""
    before = {name: one.clone() for name, one in trainer.model.state_dict().items()}
    random, taken = torch.get_rng_state(), trainer.taken
    with pytest.raises(ValueError, match=f"^{re.escape(f'path={path}, ')}{message}$"):
        checkpoint.resume(path, trainer)
    assert all(torch.equal(one, before[name]) for name, one in trainer.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert trainer.taken == taken


def rewritten(path: Path, change: Any) -> Path:
    """A file with other tensors or another header."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
    change(tensors, header)
    other = path.with_name("other")
    save_file(tensors, other, header)
    return other


def test_files_that_are_no_checkpoints(tmp_path):
    path, trainer = tmp_path / "file", trainer_of()
    steps(trainer, 1)
    checkpoint.save(path, trainer)
    rule = "it is not a whole safetensors file; use a checkpoint that save wrote"
    whole = path.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "short").write_bytes(whole[:size])
        refused(tmp_path / "short", trainer, f"error=.*: {rule}")
    (tmp_path / "text").write_text("no checkpoint at all, but a text of some length")
    refused(tmp_path / "text", trainer, f"error=.*: {rule}")
    save_file({"x": torch.ones(2)}, tmp_path / "foreign")
    rule = "its header says attnspec: 1 and a kind of model; use a checkpoint that save wrote"
    refused(tmp_path / "foreign", trainer, re.escape(f"header={{}}: {rule}"))
    with pytest.raises(FileNotFoundError):
        checkpoint.resume(tmp_path / "nowhere", trainer)


def test_files_of_other_models(tmp_path):
    path, trainer = tmp_path / "file", trainer_of()
    steps(trainer, 1)
    checkpoint.save(path, trainer)
    rule = "(model, file): model and file have one configuration; build the model from read_model(path).config"
    refused(path, trainer_of(heads=2, hidden=7), re.escape(f"heads=(2, 4), hidden=(7, 12): {rule}"))
    rule = "a file continues its own kind of model; build that"
    message = f"file=Seq2Seq, model=CausalLM: {rule}"
    refused(path, trainer_of(encoder_layers=0, shared=False), re.escape(message))
    rule = "its tensors fit the model, here [11, 8] torch.bfloat16; build the model that was saved"
    message = f"tensor=source.embedding.weight, shape=[11, 8], dtype=torch.float32: {rule}"
    refused(path, trainer_of(dtype=torch.bfloat16), re.escape(message))


def test_files_that_lack_something(tmp_path):
    path, trainer = tmp_path / "file", trainer_of()
    steps(trainer, 1)
    checkpoint.save(path, trainer)
    name = "decoder.0.attention.q.weight"
    lacking = rewritten(path, lambda tensors, _: tensors.pop(name))
    refused(lacking, trainer, re.escape(f"missing={[name]}, stray=[]: {RULE}"))
    with pytest.raises(ValueError, match=re.escape(f"missing={[name]}, stray=[]: {RULE}")):
        checkpoint.read_model(lacking)
    moment = "decoder.0.attention.qkv.weight/exp_avg"
    lacking = rewritten(path, lambda tensors, _: tensors.pop(f"moments/{moment}"))
    refused(lacking, trainer, re.escape(f"missing={[moment]}, stray=[]: {RULE}"))
    lacking = rewritten(path, lambda tensors, _: tensors.pop("random/cpu"))
    refused(lacking, trainer, re.escape(f"missing=['cpu'], stray=[]: {RULE}"))
    more = rewritten(path, lambda tensors, _: tensors.update(more=torch.ones(1)))
    refused(more, trainer, re.escape(f"missing=[], stray=['more']: {RULE}"))
    later = rewritten(path, lambda _, header: header.update(config=header["config"].replace("heads", "minds")))
    with pytest.raises(ValueError, match=re.escape("options=['kv_minds', 'minds']: its options are those of Transformer")):
        checkpoint.read_model(later)


def test_only_transformers_are_saved(tmp_path):
    trainer = Trainer(RecurrentTranslator(11, 4, 4), lambda _: 0.1, start_id=START)
    trainer.step(batch(0))  # it learns like the others
    rule = "a checkpoint holds CausalLM, Seq2Seq, Transformer; save others yourself"
    with pytest.raises(ValueError, match=f"^model=RecurrentTranslator: {rule}$"):
        checkpoint.save(tmp_path / "file", trainer)


# The loop


def loop(trainer: Trainer, stream: Any = None, **options: Any) -> list[Record]:
    batches = (batch(step) for step in range(trainer.taken, 100))
    return list(train(trainer, batches, stream=stream or io.StringIO(), **options))


def test_loop_resumes_where_it_stopped(tmp_path):
    path, straight, first, second = tmp_path / "file", trainer_of(), trainer_of(), trainer_of()
    torch.manual_seed(1)
    records = loop(straight, steps=5)
    torch.manual_seed(1)
    loop(first, steps=2, path=path)
    torch.manual_seed(2)
    checkpoint.resume(path, second)
    later = loop(second, steps=5, path=path)
    assert same(straight, second)
    assert [one.step for one in later] == [3, 4, 5]
    assert [one[:4] for one in later] == [one[:4] for one in records[2:]]
    assert all(one.tokens == 40 and one.tokens_per_second > 0 for one in records)
    assert loop(second, steps=5) == []
    assert len(loop(second, seconds=1e-9)) == 1


def test_loop_saves_now_and_then_and_when_the_caller_leaves(tmp_path):
    path, trainer, found = tmp_path / "file", trainer_of(), trainer_of()
    for record in train(trainer, (batch(i) for i in range(9)), path=path, save_every=2, stream=io.StringIO()):
        if record.step == 3:
            checkpoint.resume(path, found)
            assert found.taken == 2
            break
    checkpoint.resume(path, found)
    assert found.taken == 3


class Interrupted(Trainer):
    """One whose third step is interrupted by Ctrl-C once, or twice, and then in the middle of the update."""

    times = 1

    def update(self) -> float:
        if self.taken == 2:
            if self.times == 2:
                self.optimizer.step()
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        return super().update()


@pytest.fixture
def heard():
    """A shell starts background jobs, as tests may be, deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_ends_the_loop_in_order(tmp_path):
    path, before = tmp_path / "file", signal.getsignal(signal.SIGINT)
    trainer, found = trainer_of(), trainer_of()
    trainer.__class__ = Interrupted
    stream = io.StringIO()
    records = loop(trainer, stream, path=path, show_every=1e9)
    assert [one.step for one in records] == [1, 2, 3]
    assert signal.getsignal(signal.SIGINT) == before
    checkpoint.resume(path, found)
    assert same(trainer, found)
    assert [line.partition("  loss")[0] for line in stream.getvalue().splitlines()] == ["step 1", "step 3"]


@pytest.mark.usefixtures("heard")
def test_a_second_ctrl_c_stops_at_once_and_saves_no_half_step(tmp_path):
    path, before = tmp_path / "file", signal.getsignal(signal.SIGINT)
    trainer, twin, found = trainer_of(), trainer_of(), trainer_of()
    torch.manual_seed(1)
    loop(twin, steps=2)
    torch.manual_seed(1)
    trainer.__class__, trainer.times = Interrupted, 2
    with pytest.raises(KeyboardInterrupt):
        loop(trainer, path=path, save_every=1)
    assert signal.getsignal(signal.SIGINT) == before
    checkpoint.resume(path, found)
    assert same(twin, found)


def test_loop_in_another_thread():
    found: list[Record] = []
    thread = threading.Thread(target=lambda: found.extend(loop(trainer_of(), steps=2)))
    thread.start()
    thread.join()
    assert [one.step for one in found] == [1, 2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_of_a_terminal_is_written_over_and_left():
    stream = Terminal()
    records = loop(trainer_of(), stream, steps=3, show_every=1e-9)
    assert stream.getvalue() == "".join(f"\r\x1b[K{one}" for one in records) + "\n"
    assert re.fullmatch(r"step 3  loss \d\.\d{4}  rate 3\.33e-03  [\d,]+ tokens/s", str(records[2]))


def test_loop_errors():
    for name in ("steps", "seconds", "save_every"):
        with pytest.raises(ValueError, match=f"^{name}=0: a limit is positive; use None for none$"):
            loop(trainer_of(), **{name: 0})
