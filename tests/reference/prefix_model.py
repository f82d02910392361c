"""A language model for the tests of search: normal logits that depend on the whole prefix, drawn anew for each."""

import numpy as np

START = 0


class PrefixModel:
    """step and reorder of a model with V words; its state is the prefixes so far, one row for each hypothesis."""

    def __init__(self, V, seed=0, like_end=0.0, end_id=1):
        self.V, self.seed, self.steps = V, seed, 0
        self.more = like_end * (np.arange(V) == end_id)

    def begin(self, B=1):
        return [(b,) for b in range(B)]  # each sentence of a batch has logits of its own

    def logits(self, prefix):
        return np.random.default_rng([self.seed, len(prefix), *prefix]).normal(size=self.V) + self.more

    def step(self, token, state):
        self.steps += 1
        state = [(*prefix, int(v)) for prefix, v in zip(state, token, strict=True)]
        return np.array([self.logits(prefix) for prefix in state]).reshape(len(state), self.V), state

    def reorder(self, state, index):
        return [state[i] for i in index]
