"""Conventions of a function: declared, promised by a contract, or inferred by probing, in this order (engine 2)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from attnspec.adapters import Arrays, adapters
from attnspec.contracts import CONTRACTS, recognised
from attnspec.errors import CannotRun, UsageError
from attnspec.function import FunctionSubject
from attnspec.layout import LAYOUTS
from attnspec.model import ModelSubject
from attnspec.model_probes import SUBJECTS, probed
from attnspec.probes import FAILED, Prober, benign
from attnspec.probes_consistent import find_inconsistencies
from attnspec.probes_conventions import find_conventions, find_precision
from attnspec.probes_extras import find_extras
from attnspec.probes_masks import find_masks
from attnspec.properties.subject import Origin, Profile, Setting
from attnspec.properties.verdict import first_line
from attnspec.signature import ROLES, Signature, read
from attnspec.target import Loaded

Subject = FunctionSubject | ModelSubject
PLAIN = ((2, 3, 5, 5, 4, 4), (1, 1, 2, 2, 2, 2))  # B, H, T, S, D, E: sizes that differ, then the least of all


def subject_of(loaded: Loaded) -> Subject:
    """The function or model as a subject with its profile.

    Errors: UsageError for a signature that is not one of attention; CannotRun if plain float32 self-attention at T = S = 2
    fails in every array library and layout that was tried, with what each said.
    """
    try:
        return _subject_of(loaded) if loaded.kind == "attention" else _model_of(loaded)
    except (*FAILED, MemoryError) as error:  # a probe that nothing else caters for
        raise CannotRun(f"{loaded.name}: probing it ended in {first_line(error)}") from error


def subject_under(loaded: Loaded, profile: Profile) -> Subject:
    """The function or model as a subject with a profile that is known from probing it elsewhere."""
    arrays = adapters()[profile["arrays"]].arrays(profile.get("device", "cpu"))  # type: ignore[misc]
    if loaded.kind != "attention":
        return SUBJECTS[loaded.kind](loaded.name, loaded.function, arrays, profile)
    signature = read(loaded.function, loaded.name)
    return FunctionSubject(
        loaded.name, loaded.function, signature, arrays, profile, vjp_function=loaded.vjp_function, explains=True
    )


def _model_of(loaded: Loaded) -> ModelSubject:
    """The model in the first array library in which it can read five tokens."""
    settings = _settings({"declared": loaded.declared, "adapter": loaded.adapted})
    on, said = ([settings["device"].value] if "device" in settings else []), []
    for name, _ in _libraries(settings):
        arrays = adapters()[name].arrays(*on)  # type: ignore[misc]
        try:
            return probed(loaded, arrays, {"arrays": Setting(name, "inferred")} | settings)
        except FAILED as error:
            said.append(f"  {name}: {error}")
    seen = "\n".join(dict.fromkeys(said))
    raise CannotRun(f"{loaded.name} cannot give useful logits of five tokens. Tried:\n{seen}")


def _subject_of(loaded: Loaded) -> FunctionSubject:
    signature = read(loaded.function, loaded.name)
    settings = _promised(loaded, signature)
    arrays, layouts = _arrays(loaded, signature, settings)
    settings.setdefault("arrays", Setting(arrays.name, "inferred"))
    prober = Prober(loaded, signature, arrays, settings)
    prober.find_layout(layouts)
    prober.find_features()
    find_masks(prober)
    find_extras(prober)
    find_conventions(prober)
    find_precision(prober)
    find_inconsistencies(prober)
    return prober.subject(explains=True)


def _promised(loaded: Loaded, signature: Signature) -> dict[str, Setting]:
    """Settings by declaration, adapter and contract, in this order of precedence."""
    by_origin: dict[Origin, dict[str, Any]] = {"declared": loaded.declared, "adapter": loaded.adapted}
    contract = loaded.declared.get("contract", loaded.adapted.get("contract"))
    contract = recognised(signature) if contract is None else contract
    by_origin["contract"] = CONTRACTS.get(contract, {})
    origin_of_contract: Origin = (
        "declared" if "contract" in loaded.declared else "adapter" if "contract" in loaded.adapted else "inferred"
    )
    return {"contract": Setting(contract, origin_of_contract)} | _settings(by_origin)


def _settings(by_origin: Mapping[Origin, Mapping[str, Any]]) -> dict[str, Setting]:
    """What is declared by whom, the first of them first."""
    settings: dict[str, Setting] = {}
    for origin, values in by_origin.items():
        for name, value in values.items():
            settings.setdefault(name, Setting(value, origin))
    return settings


def _arrays(loaded: Loaded, signature: Signature, settings: dict[str, Setting]) -> tuple[Arrays, list[str]]:
    """The first array library in which a plain call returns that library's arrays in the right shape, and the layouts.

    torch with gradients comes before NumPy: NumPy code runs on plain tensors without complaint, but not on recorded ones.
    """
    said: list[str] = []
    layouts = [settings["layout"].value] if "layout" in settings else list(LAYOUTS)
    if not signature.has("heads"):  # heads folded into the width: the function must be told how many
        if layouts == ["btm"]:
            raise UsageError(
                f"{loaded.name}: layout=btm folds heads into the width, and the function has no parameter for their number "
                f"({', '.join(ROLES['heads'])}); give it one, or wrap it"
            )
        layouts = [layout for layout in layouts if layout != "btm"]
    made: dict[str, Arrays] = {}
    on = [settings["device"].value] if "device" in settings else []
    for causal in (None, "always") if signature.has("causal") and "causal" not in settings else (None,):
        for name, gradient in _libraries(settings):
            if name not in made:
                made[name] = adapters()[name].arrays(*on)  # type: ignore[misc]
            library = made[name]
            fitting: dict[str, int] = {}
            for layout in layouts:
                profile = Profile({"layout": Setting(layout, "inferred"), "causal": Setting(causal, "inferred")})
                subject = FunctionSubject(loaded.name, loaded.function, signature, library, profile)
                try:
                    fitting[layout] = _runs(subject, gradient)
                except FAILED as error:
                    said.append(f"{name} in layout {layout}: {error}")
            if fitting:
                if causal is not None:
                    settings["causal"] = Setting(causal, "inferred")
                # A layout in which the larger sizes work too is meant, not one that happens to fit the least.
                return library, [layout for layout, rank in fitting.items() if rank == min(fitting.values())]
    seen = "\n".join(f"  {line}" for line in dict.fromkeys(said))
    raise CannotRun(f"{loaded.name} cannot run plain float32 self-attention at T = S = 2. Tried:\n{seen}")


def _runs(subject: FunctionSubject, gradient: bool) -> int:
    """Which of the sizes of PLAIN a plain call in float32 works at, the first that does.

    Errors: those of FAILED, if none does.
    """
    for rank, sizes in enumerate(PLAIN):
        try:
            subject.runs(*benign(subject.layout, *sizes), gradient=gradient)
            return rank
        except FAILED:
            if rank == len(PLAIN) - 1:
                raise
    raise AssertionError("PLAIN is not empty")


def _libraries(settings: dict[str, Setting]) -> Iterator[tuple[str, bool]]:
    if "arrays" in settings:
        yield settings["arrays"].value, False
        return
    if "torch" in sys.modules:  # what the target did not import it does not speak
        yield "torch", True
    yield "numpy", False
    for name, module in (("jax", "jax"), ("mlx", "mlx.core"), ("torch", "torch")):
        if module in sys.modules and name in adapters():
            yield name, False
