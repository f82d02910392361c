"""CTranslate2 in a process of its own: after its first call in ours, every other library took 1.4 times as long.

It brings a second OpenMP runtime; from then on the threads of the first sleep between two products instead of waiting awake.
"""

from __future__ import annotations

import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

TRANSLATOR: list[Any] = []


def started(folder: str, dtype: str, threads: int) -> ProcessPoolExecutor:
    """A process that has read the model in the folder."""
    pool = ProcessPoolExecutor(1, get_context("spawn"), _open, (folder, dtype, threads))
    pool.submit(translate, [], {}).result()
    return pool


def _open(folder: str, dtype: str, threads: int) -> None:
    import ctranslate2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that measures
    TRANSLATOR.append(
        ctranslate2.Translator(folder, device="cpu", compute_type=dtype, inter_threads=1, intra_threads=threads)
    )


def translate(source: list[list[str]], options: dict[str, Any]) -> list[tuple[list[str], list[Any]]]:
    """The words of each row, and their logits if they are asked for."""
    import numpy as np

    found = TRANSLATOR[0].translate_batch(source, beam_size=1, **options)
    asked = options.get("return_logits_vocab", False)
    return [(one.hypotheses[0], [np.asarray(step).reshape(-1) for step in one.logits[0]] if asked else []) for one in found]
