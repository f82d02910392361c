"""What a language model offers, found by asking for it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from attnspec import surroundings
from attnspec.adapters import Arrays
from attnspec.model import FAILED, ModelSubject, TranslatorSubject
from attnspec.properties.models import FEATURES, Ids
from attnspec.properties.subject import BoolArray, Profile, Setting
from attnspec.properties.verdict import BadResult
from attnspec.target import Loaded

LIMIT = 64  # a model whose limit is larger is not filled to it: that says nothing new and takes long
OF_DTYPES = (surroundings.DTYPE, surroundings.NARROW)
SUBJECTS = {"lm": ModelSubject, "seq2seq": TranslatorSubject}


def probed(loaded: Loaded, arrays: Arrays, settings: dict[str, Setting]) -> ModelSubject:
    """The model as a subject with its profile: what it offers is found by asking for it once.

    Errors: those of FAILED, if it cannot read five tokens, or its logits are not such that claims can say something of them.
    """
    low, high = getattr(loaded.function, "tokens", (0, int(loaded.function.vocab_size)))  # type: ignore[attr-defined]  # ids without a meaning of their own
    settings = {"tokens": Setting((low, high), "inferred"), "kind": Setting(loaded.kind, "inferred")} | settings
    subject = SUBJECTS[loaded.kind](loaded.name, loaded.function, arrays, Profile(settings))
    ids = low + np.arange(5)[None] % (high - low)
    _check(subject, ids, low + (ids - low + 1) % (high - low))
    dtype = arrays.dtype_of(subject.native(ids))
    offers = _Offers(subject, dict(getattr(loaded.function, "lacks", {})))
    two = np.concatenate([ids, ids[:, ::-1]])
    some = np.array([[True, True, True, True, False], [True] * 5])

    def read(*counts: int) -> Any:
        """A state that nothing has used up."""
        state = subject.start(1)
        for count in counts:
            _, state = subject.extend(ids[:, :count], state)
        return state

    offers("batch", lambda: subject.logits(two))
    if offers("padding", lambda: subject.logits(two, some)):
        offers("left-padding", lambda: subject.logits(two, some[:, ::-1]))
        offers("padding-between", lambda: subject.logits(two, some[:, [0, 1, 4, 2, 3]]))
    if offers("cache", lambda: read(1, 1), "start"):
        offers("chunks", lambda: read(2, 3))
        offers("cached-padding", lambda: subject.extend(two, subject.extend(two, subject.start(2), some)[1], some))
        offers("reorder", lambda: subject.reorder(read(3), np.array([0])), "reorder")
        offers("crop", lambda: subject.crop(read(3), 2), "crop")
        offers("fork", lambda: subject.fork(read(3)), "fork")
        if 0 < subject.max_length <= LIMIT:
            offers.features["overflow"] = None
    if isinstance(subject, TranslatorSubject) and "batch" in offers.features:
        _probe_source(subject, offers, two, some)
    found = {"dtypes": Setting((dtype,), "inferred")} | _probe_more(subject, offers, ids, two, some)
    missing: dict[str, str | None] = dict.fromkeys(FEATURES, "not offered")
    subject.profile = Profile(found | settings, missing | offers.features)
    subject.observations.clear()
    return subject


def _check(subject: ModelSubject, ids: Ids, others: Ids) -> None:
    """Reads both. Errors: Refused; BadResult if the logits are such that no claim could find fault with them."""
    first, second = subject.logits(ids), subject.logits(others)
    if not np.isfinite(first).any():
        raise BadResult(f"no logit is a finite number; the first is {first.flat[0]}")
    constant = np.broadcast_to(first[:, :1], first.shape)
    if np.array_equal(first, constant, equal_nan=True) and np.array_equal(second, constant, equal_nan=True):
        raise BadResult(
            "the logits are the same whatever was read, so nothing wrong would show; give it weights other than 0"
        )


def _probe_source(subject: TranslatorSubject, offers: _Offers, two: Ids, some: BoolArray) -> None:
    """Which padding of sources is offered."""
    if offers("source-padding", lambda: subject.translate(two, two, some)):
        offers("left-source-padding", lambda: subject.translate(two, two, some[:, ::-1]))
        offers("source-padding-between", lambda: subject.translate(two, two, some[:, [0, 1, 4, 2, 3]]))


def _probe_more(subject: ModelSubject, offers: _Offers, ids: Ids, two: Ids, some: BoolArray) -> dict[str, Setting]:
    """What a model may offer beside logits and a state, and the settings that say which routes, caches and surroundings."""
    low, high = subject.profile.get("tokens", (0, subject.vocab_size))
    offers("generate", lambda: subject.generate(ids, 2), "generate")
    offers("generate-padded", lambda: subject.generate(two, 2, some[:, ::-1]), "generate")
    offers("generate-padded-right", lambda: subject.generate(two, 2, some), "generate")
    offers("converse", lambda: subject.converse([ids, ids], 2), "converse")
    offers("beams", lambda: subject.beams(ids, 2, 2), "beams")
    offers("loss", lambda: subject.loss(ids), "loss")
    offers("padded-loss", lambda: subject.loss(two, some), "loss")
    offers("padded-loss-left", lambda: subject.loss(two, some[:, ::-1]), "loss")
    offers("attentions", lambda: subject.attentions(ids), "attentions")
    offers("jacobian", lambda: subject.jacobian(ids), "jacobian")
    offers("grafted", lambda: subject.grafted(ids, ids), "grafted")
    offers("gradients", lambda: subject.gradients(ids), "gradients")
    offers("checkpointing", lambda: subject.gradients(ids, checkpointing=True), "gradients")
    offers("reloaded", lambda: subject.reloaded().logits(ids), "reloaded")
    offers("renamed", lambda: subject.renamed(np.arange(subject.vocab_size)).logits(ids), "renamed")
    offers("nudged", lambda: subject.nudged({}).logits(ids), "nudged")
    offers("narrowed", lambda: subject.narrowed("bfloat16").logits(ids), "narrowed")
    if high - low < 3:
        offers.features["renamed"] = f"there are only {high - low} words to rename"
    dtypes = offers("default-dtype", lambda: None)
    around = tuple(name for name in surroundings.names(subject.arrays.name) if dtypes or name not in OF_DTYPES)
    caches = offers.each("caches", lambda kind: subject.start_in(kind, 1))
    if caches:
        offers("reordered-caches", lambda: [_reordered(subject, kind, ids) for kind in caches], "reorder")
        offers("forked-caches", lambda: [subject.fork(subject.start_in(kind, 1)) for kind in caches], "fork")
    return {
        "routes": Setting(offers.each("routes", lambda route: subject.by_route(route, ids)), "inferred"),
        "caches": Setting(caches, "inferred"),
        "surroundings": Setting(around, "inferred"),
    }


def _reordered(subject: ModelSubject, kind: str, ids: Ids) -> object:
    """What a cache of this kind gives after its row was repeated."""
    _, state = subject.extend(ids[:, :3], subject.start_in(kind, 1))
    return subject.extend(np.repeat(ids[:, :1], 2, axis=0), subject.reorder(state, np.array([0, 0])))


class _Offers:
    """Asks for one feature after another, and keeps why it is not offered."""

    def __init__(self, subject: ModelSubject, lacks: dict[str, str]) -> None:
        self.subject, self.lacks = subject, lacks
        self.features: dict[str, str | None] = {}

    def __call__(self, feature: str, ask: Callable[[], object], method: str = "logits") -> bool:
        if feature in self.lacks:
            self.features[feature] = f"exempt: {self.lacks[feature]}"
        elif not self.subject.has(method):
            self.features[feature] = f"not offered: no method {method}"
        else:
            try:
                ask()
                self.features[feature] = None
            except FAILED as error:
                self.features[feature] = f"refuses: {str(error).partition(': ')[2] or error}"
        return self.features[feature] is None

    def each(self, feature: str, ask: Callable[[str], object]) -> tuple[str, ...]:
        """The names of a mapping of the model whose values can be called; the feature is offered if there is one."""
        names = []
        for name in getattr(self.subject.model, feature, {}):
            if self(f"{feature}: {name}", lambda name=name: ask(name), feature):  # type: ignore[misc]
                names.append(str(name))
        self.features[feature] = None if names else self.features.get(feature, f"not offered: no {feature}")
        return tuple(names)
