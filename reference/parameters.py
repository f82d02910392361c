"""Parameters: one flat mapping from names to arrays for a whole model, the same names that impl/ gives its weights."""

from collections.abc import Collection, Mapping
from typing import TypeAlias

from attnspec.reference.shapes import FloatArray

Parameters: TypeAlias = Mapping[str, FloatArray]
Gradients: TypeAlias = dict[str, FloatArray]


def part(parameters: Parameters, prefix: str) -> dict[str, FloatArray]:
    """Takes the parameters of one part of a model, under the names that the part gives them.

        part[name] = parameters[prefix + "." + name]                                     (1)

    Shapes:  any.
    Units:   n/a.
    Empty:   no name with this prefix gives an empty mapping.
    Errors:  none; check_names says what a part lacks.
    Source:  the dotted names of torch's state_dict.
    Differs: n/a.
    """
    start = prefix + "."
    return {name.removeprefix(start): array for name, array in parameters.items() if name.startswith(start)}


def prefixed(prefix: str, parameters: Parameters) -> dict[str, FloatArray]:
    """Gives the parameters or gradients of a part the names that they have in the whole; undoes part.

        prefixed[prefix + "." + name] = parameters[name]                                 (1)

    Shapes:  any.
    Units:   n/a.
    Empty:   an empty mapping stays empty.
    Errors:  none.
    Source:  the dotted names of torch's state_dict.
    Differs: n/a.
    """
    return {f"{prefix}.{name}": array for name, array in parameters.items()}


def added(one: Parameters, other: Parameters) -> Gradients:
    """Adds up two sets of gradients; a name that only one of them has counts as zero in the other.

        added[name] = one[name] + other[name]                                            (1)

    Shapes:  arrays of one name have one shape.
    Units:   those of the gradients.
    Empty:   an empty mapping adds nothing.
    Errors:  none.
    Source:  the chain rule where a parameter is used more than once.
    Differs: n/a.
    """
    both = {name: one[name] + other[name] for name in one.keys() & other.keys()}
    return {**one, **other, **both}


def check_names(parameters: Parameters, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Refuses parameters that lack a name or have one that nobody reads.

        required ⊆ names ⊆ required ∪ optional                                           (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   an empty mapping is accepted where nothing is required.
    Errors:  ValueError that lists what is missing and what is unknown.
    Source:  load_state_dict(strict=True) of torch.
    Differs: n/a.
    """
    missing, unknown = set(required) - set(parameters), set(parameters) - {*required, *optional}
    if missing or unknown:
        rule = f"missing {sorted(missing)}, unknown {sorted(unknown)}"
        names = ", ".join(required) + (f" and any of {', '.join(optional)}" if optional else "")
        raise ValueError(f"parameters={sorted(parameters)}: {rule}; pass {names}")
