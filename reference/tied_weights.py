"""Tied weights: one matrix that embeds the words of the source and of the target, and scores them at the output."""

from attnspec.reference.parameters import Gradients, Parameters, part, prefixed
from attnspec.reference.shapes import FloatArray

TIES = {"output.weight": "target.embedding.weight", "target.embedding.weight": "source.embedding.weight"}


def tied_name(parameters: Parameters, name: str) -> str:
    """Finds the name under which a model keeps a weight that it may share.

        output.weight -> target.embedding.weight -> source.embedding.weight, the first that the model has     (1)

    Shapes:  output.weight and all embeddings are [V,M]; the source's V may differ where it is not shared.
    Units:   n/a.
    Empty:   a model that has none of them gives source.embedding.weight.
    Errors:  none; whoever reads the weight says that it is missing.
    Source:  arXiv:1608.05859, weight tying; arXiv:1706.03762 sec. 3.4.
    Differs: n/a.
    """
    while name not in parameters and name in TIES:
        name = TIES[name]
    return name


def tied_part(parameters: Parameters, prefix: str, name: str) -> dict[str, FloatArray]:
    """Takes the parameters of one part of a model, and among them the weight that it may share.

        tied_part = part(parameters, prefix), with name taken from where tied_name finds it     (1)

    Shapes:  as in tied_name.
    Units:   n/a.
    Empty:   a weight that nobody has is left out.
    Errors:  none; whoever reads the weight says that it is missing.
    Source:  arXiv:1608.05859, weight tying.
    Differs: n/a.
    """
    kept = tied_name(parameters, f"{prefix}.{name}")
    return {**part(parameters, prefix), **({name: parameters[kept]} if kept in parameters else {})}


def tied_gradients(parameters: Parameters, prefix: str, name: str, gradients: Parameters) -> Gradients:
    """Gives the gradients of tied_part the names that the model has; the uses of a shared weight are then added up.

        tied_gradients[tied_name(name)] = gradients[name], others as in prefixed         (1)

    Shapes:  those of the gradients.
    Units:   those of the gradients.
    Empty:   no gradients, no names.
    Errors:  none.
    Source:  the chain rule: the gradient of a weight that is used twice is the sum over both uses.
    Differs: n/a.
    """
    whole = f"{prefix}.{name}"
    named = prefixed(prefix, gradients)
    return {tied_name(parameters, whole) if key == whole else key: array for key, array in named.items()}
