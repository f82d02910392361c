"""Computing in bfloat16 while float32 weights take the steps."""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from attnspec.impl.errors import require


class WorkingCopy:
    """A copy of a model in bfloat16 that computes losses, and hands its gradients to the float32 weights of the model.

        working = round(masters);  masters.grad = sum over backward passes of working.grad, in float32     (1)

    bfloat16 has 8 bits: a weight of 1 stays 1 until a step is longer than 2^-9, so that most steps of a trained model
    would be lost. float32 masters add them up.

    Shapes:  parameters of the copy, `model`, are those of the masters.
    Units:   refresh() rounds the masters to the copy after they have taken a step.
    Empty:   a parameter without a gradient leaves its master's as it is.
    Errors:  ValueError unless all parameters of the masters are float32 or wider.
    Source:  arXiv:1710.03740 sec. 3.1.
    Differs: the paper has float16, which needs its losses scaled (sec. 3.2); bfloat16 has the range of float32.
    """

    def __init__(self, masters: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
        for name, one in masters.named_parameters():
            wide = torch.promote_types(one.dtype, torch.float32) == one.dtype
            require(wide, "masters are float32; call .float() on the model", parameter=name, dtype=one.dtype)
        self.masters: list[Tensor] = list(masters.parameters())
        self.model = copy.deepcopy(masters).to(dtype)
        self.weights: list[Tensor] = list(self.model.parameters())
        for master, weight in zip(self.masters, self.weights, strict=True):
            weight.register_post_accumulate_grad_hook(partial(_hand_over, master))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def refresh(self) -> None:
        """Rounds the masters to the copy."""
        torch._foreach_copy_(self.weights, self.masters)


def _hand_over(master: Tensor, weight: Tensor) -> None:
    """At once, so that the sum over micro-batches is float32, and there is never a second set of gradients."""
    if weight.grad is not None:
        master.grad = weight.grad.to(master.dtype) if master.grad is None else master.grad.add_(weight.grad)
        weight.grad = None
