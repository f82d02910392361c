"""Padding in impl.recurrent_translator: it may hold anything, stand anywhere, and leaves no trace."""

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from tests.authorities.agreement import agrees
from tests.impl.translators_torch import (
    LENGTHS,
    MODELS,
    SOURCE,
    TARGET,
    a_model,
    arrays,
    logits_and_table,
    mask_of,
    reference_of,
    tensors,
    translator_of,
)
from tests.reference.drawn import given
from tests.reference.translators import translations

models = pytest.mark.parametrize(("kind", "feeding"), MODELS)


@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before"])
@models
def test_what_stands_in_padding_changes_nothing(kind, feeding, cell):
    _, translator = a_model(kind, feeding, cell)
    real = mask_of(np.array([3, 1]), 3)
    seen = []
    for stands in (0, 2, -7, 10**6):
        source, target = SOURCE.copy(), TARGET.copy()
        source[1, 2:], target[1, 1:] = stands, stands
        translator.zero_grad()
        got = logits_and_table(translator, source, target, LENGTHS, real)
        translator.logits(tensors(source), tensors(target), mask_of(LENGTHS, 4), real).sum().backward()
        seen.append([*got, *(arrays(parameter.grad) for parameter in translator.parameters())])
    for other in seen[1:]:
        for one, same in zip(seen[0], other, strict=True):
            np.testing.assert_array_equal(one, same)
    for array in seen[0][: 1 + (kind != "none")]:
        assert (array[~real.numpy()] == 0).all()
    if kind != "none":
        assert (seen[0][1][1, :, 2:] == 0).all()


@models
def test_padding_may_stand_anywhere(kind, feeding):
    @given(translations(kind, feeding), st.integers(0, 99), max_examples=20)
    def check(case, seed):
        source, target, parameters, cell, _ = case
        translator = translator_of(parameters, cell, kind, feeding, reverse_source=seed % 2 == 1)
        rng = np.random.default_rng(seed)
        words, said = rng.random(source.shape) < 0.6, rng.random(target.shape) < 0.6
        masks = torch.tensor(words), torch.tensor(said)
        got = [arrays(translator.logits(torch.tensor(source), torch.tensor(target), *masks))]
        if kind != "none":
            got.append(arrays(translator.logits_with_table(torch.tensor(source), torch.tensor(target), *masks)[1]))
            assert (got[1].swapaxes(1, 2)[~words] == 0).all()
        for b in range(len(source)):
            alone = source[b : b + 1, words[b]]
            want = reference_of(kind, feeding, cell)[1], alone[:, ::-1] if seed % 2 else alone
            agrees(got[0][b, said[b]][None], *want, target[b : b + 1, said[b]], parameters, None)
        for array in got:
            assert (array[~said] == 0).all()

    check()


@models
def test_masks_of_ones_are_masks_and_no_mask_is_all_words(kind, feeding):
    _, translator = a_model(kind, feeding)
    source, target = tensors(SOURCE), tensors(TARGET)
    whole = translator.logits(source, target)
    for ones in (torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4) > 0):
        assert torch.equal(translator.logits(source, target, ones, ones[:, :3]), whole)
