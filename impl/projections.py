"""Several linear maps of one input in one product, which keep their own names outside."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attnspec.impl.products import Linear


def joint_linear(parent: nn.Module, M: int, widths: dict[str, int], bias: bool) -> Linear:
    """Joins the linear maps of some names to one; in the state_dict of its parent each has its own name.

        out = concat_n(x W_n^T + b_n),  n in widths                                      (1)

    Decoding one token is bound by reading weights and by the number of calls: one call does the work of three. Assign
    the result to the attribute of the parent that is called by all names in a row: q, k, v are parent.qkv.

    Shapes:  x [...,M] -> [...,sum of widths]; in state_dict n.weight [width_n,M] and n.bias [width_n].
    Units:   those of x times those of the weights.
    Empty:   no positions, no output.
    Errors:  load_state_dict reports each map under its own name, as missing or of another size.
    Source:  arXiv:1706.03762 sec. 3.2.2.
    Differs: n/a.
    """
    parent.register_state_dict_post_hook(partial(_split, widths=widths))  # type: ignore[no-untyped-call]
    parent.register_load_state_dict_pre_hook(partial(_join, widths=widths))  # type: ignore[no-untyped-call]
    return Linear(M, sum(widths.values()), bias)


def _parts(joint: Tensor, widths: dict[str, int]) -> dict[str, Tensor]:
    return dict(zip(widths, torch.split(joint, list(widths.values())), strict=True))


def _split(_: nn.Module, state: dict[str, Any], prefix: str, __: Any, widths: dict[str, int]) -> None:
    """After state_dict(): one matrix becomes several."""
    for kind in ("weight", "bias"):
        joint = state.pop(f"{prefix}{''.join(widths)}.{kind}", None)
        if joint is not None:
            state.update({f"{prefix}{name}.{kind}": part for name, part in _parts(joint, widths).items()})


def _join(
    parent: nn.Module, state: dict[str, Any], prefix: str, _: Any, __: bool, missing: list[str], ___: list[str],
    errors: list[str], widths: dict[str, int],
) -> None:  # fmt: skip
    """Before load_state_dict(): several matrices become one; a part that is not given stays as it is."""
    joint = "".join(widths)
    for kind, own in parent.get_submodule(joint).named_parameters():
        parts = _parts(own.detach(), widths)
        for name, part in parts.items():
            given = state.pop(f"{prefix}{name}.{kind}", None)
            if given is None:
                missing.append(f"{prefix}{name}.{kind}")
            elif given.shape != part.shape:
                sizes = f"{list(given.shape)} given, {list(part.shape)} in the model"
                errors.append(f"size mismatch for {prefix}{name}.{kind}: {sizes}")
            else:
                parts[name] = given
        state[f"{prefix}{joint}.{kind}"] = torch.cat(list(parts.values()))
