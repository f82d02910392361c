"""How the parameters of a deep model fall into layers, and those of a layer into sub-layers."""

from collections.abc import Collection

from attnspec.reference.parameters import Gradients, Parameters, check_names, part


def layers(parameters: Parameters, *others: str) -> list[Gradients]:
    """Takes the parameters of each layer of a stack.

        layers[i] = part(parameters, str(i)),  i = 0..L-1                                (1)

    Shapes:  any; others are the parts that a stack may have beside its layers.
    Units:   n/a.
    Empty:   no parameters, no layers.
    Errors:  ValueError if a part is neither a layer nor one of the others, or if a layer is missing.
    Source:  torch.nn.ModuleList numbers its modules so.
    Differs: n/a.
    """
    found = {name.split(".")[0] for name in parameters} - {*others}
    numbers = [str(i) for i in range(len(found))]
    if found != {*numbers}:
        rule = "layers are numbered from 0 without gaps" + (f", beside {', '.join(others)}" if others else "")
        raise ValueError(f"layers={sorted(found)}: {rule}; rename them or remove what is no layer")
    return [part(parameters, number) for number in numbers]


def check_parts(parameters: Parameters, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Refuses parameters that lack a part or have one that nobody reads.

        required ⊆ first words of the names ⊆ required ∪ optional                        (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   an empty mapping is accepted where nothing is required.
    Errors:  ValueError as in check_names, where the names are those of the parts.
    Source:  load_state_dict(strict=True) of torch.
    Differs: n/a.
    """
    check_names({name.split(".")[0]: array for name, array in parameters.items()}, required, optional)
