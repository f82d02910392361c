"""Defects of greedy search and of turns: padding on either side, memory between calls, words that are not the best."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attnspec.properties.model_mutants.offering import Offering
from attnspec.properties.model_mutants.plain import State
from attnspec.properties.model_mutants.registry import mutant


class Prompted(Offering):
    """The greedy search in two pieces: what is done with a prompt, and what with the state behind it."""

    def words_after(
        self, ids: Tensor, state: State, count: int, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        logits, state = self.extend(ids, state, attention_mask)
        first = self.chosen(logits[torch.arange(len(ids)), self.last(ids, attention_mask)])
        state = self.prompted(state, attention_mask)
        if count < 2:
            return first[:, None][:, :count], self.extend(first[:, None], state)[1] if count else state
        rest, state = super().words_after(first[:, None], state, count - 1)
        return torch.cat([first[:, None], rest], dim=1), state

    def prompted(self, state: State, attention_mask: Tensor | None) -> State:
        """The state that the words are said after."""
        del attention_mask
        return state


# Padding


@mutant(
    "generate.last_column_read",
    imitates="the first word is taken from the last column, which is padding where rows are padded on the right",
    source="https://github.com/huggingface/transformers/pull/48161",
)
class LastColumnRead(Offering):
    """Rows that are padded on the right begin with the word after their padding; on the left all is right."""

    def last(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The last one."""
        del attention_mask
        return torch.full((len(ids),), ids.shape[1] - 1)


@mutant(
    "generate.pads_count_as_words",
    imitates="the mask does not reach the model, because generate() filters the arguments that it does not know",
    source="https://github.com/huggingface/transformers/issues/30670",
)
class PadsCountAsWords(Offering):
    """Padding is read like words."""

    def generate(self, ids: Tensor, count: int, attention_mask: Tensor | None = None) -> Tensor:
        """Without the mask."""
        del attention_mask
        return super().generate(ids, count)


@mutant(
    "generate.mask_of_the_first_row",
    imitates="a mask of the first row, expanded to the batch",
    source="https://github.com/google-research/timesfm/pull/492",
)
class MaskOfTheFirstRow(Offering):
    """Other rows are read as if they were padded like the first."""

    def generate(self, ids: Tensor, count: int, attention_mask: Tensor | None = None) -> Tensor:
        """Its mask for all."""
        return super().generate(ids, count, None if attention_mask is None else attention_mask[:1].expand_as(ids))


@mutant(
    "generate.mask_lost_after_the_prompt",
    imitates="the step of one word is called without the mask that the prompt had",
    source="https://github.com/huggingface/transformers/issues/30670",
)
class MaskLostAfterThePrompt(Prompted):
    """The first word is right, later ones see the padding too."""

    def prompted(self, state: State, attention_mask: Tensor | None) -> State:
        """All slots are real."""
        del attention_mask
        return replace(state, layers=[memory | {"real": torch.ones_like(memory["real"])} for memory in state.layers])


@mutant(
    "generate.steps_count_columns",
    imitates="positions of the prompt come from the mask, those of later words from the number of columns",
    source="https://github.com/unslothai/unsloth/issues/3699",
)
class StepsCountColumns(Prompted):
    """Words after the first stand too far from a prompt with padding."""

    def prompted(self, state: State, attention_mask: Tensor | None) -> State:
        """Padding included, as far as there is room."""
        if attention_mask is None:
            return state
        return replace(state, length=state.length + (attention_mask == 0).sum(1))


@mutant(
    "generate.columns_trimmed_by_the_first_row",
    imitates="columns of padding are cut off to save time, and which ones is read off one row",
    source="https://github.com/pytorch/pytorch/issues/97111",
)
class ColumnsTrimmedByTheFirstRow(Offering):
    """Rows with fewer pads in front than the first lose their first words."""

    def generate(self, ids: Tensor, count: int, attention_mask: Tensor | None = None) -> Tensor:
        """From the first real column of the first row on, as long as each row keeps a word."""
        if attention_mask is not None and len(ids):
            start = int((attention_mask[0] != 0).long().argmax())
            if bool((attention_mask[:, start:] != 0).any(1).all()):
                ids, attention_mask = ids[:, start:], attention_mask[:, start:]
        return super().generate(ids, count, attention_mask)


# Words that are not the best


@mutant(
    "generate.word_one_ends_the_row",
    imitates="a default id for the end of a text, whether or not this vocabulary has one",
    source="huggingface.md: eos_token_id=None, so that generation never stops early",
)
class WordOneEndsTheRow(Offering):
    """After word 1 a row says nothing but word 0."""

    def generate(self, ids: Tensor, count: int, attention_mask: Tensor | None = None) -> Tensor:
        """Filled up."""
        words = super().generate(ids, count, attention_mask)
        ended = (words == 1).cumsum(1) - (words == 1).long() > 0
        return words.masked_fill(ended, 0)


@mutant(
    "generate.repetition_penalty_inherited",
    imitates="what a call leaves open is filled from the checkpoint's own defaults",
    source="https://github.com/verl-project/verl/issues/7270",
)
class RepetitionPenaltyInherited(Offering):
    """Words that the row has already are a little less likely to be said."""

    def generate(self, ids: Tensor, count: int, attention_mask: Tensor | None = None) -> Tensor:
        """Row by row, with a penalty of 1.1."""
        rows = [row[real] for row, real in zip(ids, self.real(ids, attention_mask), strict=True)]
        for b, _ in ((b, n) for b in range(len(rows)) for n in range(count)):
            logits = self.logits(rows[b][None])[0, -1]
            less = torch.where(logits > 0, logits / 1.1, logits * 1.1)
            there = torch.isin(torch.arange(self.vocab_size), rows[b])
            rows[b] = torch.cat([rows[b], self.chosen(torch.where(there, less, logits))[None]])
        return torch.stack([row[len(row) - count :] for row in rows])


@mutant(
    "generate.draft_accepted_one_too_far",
    imitates="of drafted words that the model agrees with in part, one more than that is accepted",
    source="https://github.com/huggingface/transformers/issues/30042",
)
class DraftAcceptedOneTooFar(Offering):
    """Two words that followed the last word earlier are drafted; if the first is right, the second is kept too."""

    def generate(self, ids: Tensor, count: int, attention_mask: Tensor | None = None) -> Tensor:
        """Row by row."""
        rows = [row[real].tolist() for row, real in zip(ids, self.real(ids, attention_mask), strict=True)]
        for row in rows:
            end = len(row) + count
            while len(row) < end:
                found = [t for t in range(len(row) - 2) if row[t] == row[-1]]
                draft = row[found[-1] + 1 : found[-1] + 3] if found and len(row) + 1 < end else []
                best = self.chosen(self.logits(torch.tensor([row + draft]))[0, len(row) - 1 :]).tolist()
                row.extend(draft if draft and best[0] == draft[0] else best[:1])
        return torch.tensor([row[len(row) - count :] for row in rows], dtype=torch.int64).view(len(ids), count)


# Memory between calls


@mutant(
    "generate.prompt_cache_cut_by_length",
    imitates="the cache of an earlier prompt is cut to the new length and not to the words that both begin with",
    source="https://github.com/ml-explore/mlx-lm/issues/1494",
)
class PromptCacheCutByLength(Offering):
    """A prompt with the first two words of the one before goes on from its keys, whatever follows those two."""

    def generate(self, ids: Tensor, count: int, attention_mask: Tensor | None = None) -> Tensor:
        """Reads the last column only, if it can."""
        if attention_mask is not None:
            return super().generate(ids, count, attention_mask)
        kept: dict[tuple[int, ...], State] = vars(self).setdefault("prompts", {})
        key = (len(ids), *ids[:, :2].flatten().tolist())
        past, before = kept.get(key), ids.shape[1] - 1
        if past is None or int(past.length.max()) < before:
            past = self.start(len(ids))
            past = self.extend(ids[:, :-1], past)[1] if before else past
        state = self.crop(past, before)
        kept[key] = self.fork(state)
        return self.words_after(ids[:, -1:], state, count)[0]


@mutant(
    "generate.last_word_unread",
    imitates="the last word of a turn is written down as said, but was never fed to the model",
    source="https://github.com/ikawrakow/ik_llama.cpp/issues/1661",
)
class LastWordUnread(Offering):
    """Later turns come after all words but the last of each answer."""

    def converse(self, turns: Sequence[Tensor], count: int) -> list[Tensor]:
        """One word less in memory."""
        state, said = self.start(len(turns[0])), []
        for turn in turns:
            words, state = self.words_after(turn, state, count)
            state = self.crop(state, int(state.length.max()) - 1)
            said.append(words)
        return said


@mutant(
    "generate.said_words_not_counted",
    imitates="keys of the answer stay in the cache, while the length that the next turn starts at is that of the prompt",
    source="https://github.com/nicedreamzapp/claude-code-local/issues/46",
)
class SaidWordsNotCounted(Offering):
    """The second turn gets the positions of the first answer."""

    def converse(self, turns: Sequence[Tensor], count: int) -> list[Tensor]:
        """Without the words said."""
        state, said = self.start(len(turns[0])), []
        for turn in turns:
            words, state = self.words_after(turn, state, count)
            state = replace(state, length=state.length - count)
            said.append(words)
        return said


@mutant(
    "generate.only_the_last_word_of_a_turn",
    imitates="beside a cache only the last column of the input is taken, as if all before were in it",
    source="https://github.com/QwenLM/Qwen3/issues/819",
)
class OnlyTheLastWordOfATurn(Offering):
    """From the second turn on; turns of one word are right."""

    def converse(self, turns: Sequence[Tensor], count: int) -> list[Tensor]:
        """Short turns."""
        return super().converse([turn if n == 0 else turn[:, -1:] for n, turn in enumerate(turns)], count)


@mutant(
    "generate.turns_share_the_last_row",
    imitates="what is kept between turns is that of one conversation, and every row of the batch goes on from it",
    source="https://github.com/nicedreamzapp/claude-code-local/pull/47",
)
class TurnsShareTheLastRow(Offering):
    """From the second turn on, all rows have the past of the last row."""

    def converse(self, turns: Sequence[Tensor], count: int) -> list[Tensor]:
        """Reordered between turns."""
        state, said = self.start(len(turns[0])), []
        for turn in turns:
            words, state = self.words_after(turn, state, count)
            state = self.reorder(state, [len(turn) - 1] * len(turn))
            said.append(words)
        return said
