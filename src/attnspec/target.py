"""From a target string to the object under audit (engine 7).

module:attribute        an importable module's attribute
path/file.py::name      a function, a class or a factory of a file, imported once under a private name
torch:NAME, impl:NAME   what an adapter offers by name
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from attnspec.adapters import adapters
from attnspec.checked_model import checked_model
from attnspec.contracts import CONTRACTS
from attnspec.errors import UsageError, nearest
from attnspec.properties.claim import Kind
from attnspec.properties.subject import DTYPES, PRECISION, PRECISIONS
from attnspec.signature import ROLES, parameters

DECLARATIONS: dict[str, tuple[str, ...] | type] = {
    "kind": ("attention", "layer", "encoder", "lm", "seq2seq", "recurrent"),
    "arrays": ("torch", "numpy", "jax", "mlx"),
    "layout": ("bhtd", "bthd", "btm", "btd", "td"),
    "device": ("cpu", "cuda", "meta"),
    "contract": (*CONTRACTS, "none"),
    "dtypes": DTYPES,
    "precision": PRECISIONS,
    "polarity": ("attend", "masked"),
    "alignment": ("top-left", "bottom-right", "refused"),
    "empty_row": ("zero", "mean", "unmasked", "nan", "raises"),
    "causal": ("flag", "always", "never"),
    "window": ("left", "both"),
    "mask": ("bool", "bias"),
    "grouped": bool,
    "dropout": ("argument", "train", "none"),
    "deterministic": bool,
    "gradients": ("vjp", "none"),
    "vjp": str,
    "scale": float,
    "poison": ("huge", "nan"),
    "form": ("exact", "approximate", "extra-keys"),
    "backend": ("default", "flash", "math", "efficient", "cudnn", "xla", "reference", "onnxruntime"),
    "compile": bool,
    "path": ("sdpa", "explicit", "flex"),
    "attn": ("eager", "sdpa"),
    "recording": bool,
}
FIELD = "config."  # an option that begins so is a field of a model's configuration
LISTS = ("dtypes", "mask")  # comma lists of the values above
BY_DTYPE = ("precision",)  # one value for all dtypes to which it can apply, or a comma list of DTYPE:VALUE
ALIASES = {
    "layout": {"bhld": "bhtd", "bnsh": "bhtd", "blhd": "bthd", "bshd": "bthd"},
    "gradients": {"true": "vjp", "false": "none"},
}

MODELS: dict[str, Kind] = {"lm": "lm", "seq2seq": "seq2seq"}
UNAUDITED = {
    "layer": "layer",
    "encoder": "encoder",
    "recurrent": "recurrent layer",
}
UNDECLARABLE = {  # what one might look for among the keys, and what to do instead
    "heads": "the number of heads varies from case to case; give the function a parameter num_heads, or wrap it",
    "self_only": "an attention function takes queries, keys and values; this version audits no other",
    "extra_keys": "declare form=extra-keys",
}


class Loaded:
    """An object under audit with what is declared of it and by whom."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        declared: dict[str, Any],
        adapted: dict[str, Any],
        call: tuple[str, str],
        vjp_function: Callable[..., Any] | None = None,
        kind: Kind = "attention",
    ) -> None:
        self.kind = kind
        self.name = name
        self.function = function
        self.declared = declared
        self.adapted = adapted
        self.vjp_function = vjp_function or vjp_of(
            function, declared | {k: v for k, v in adapted.items() if k not in declared}
        )
        self.script = call  # import lines and the expression to call, for a stand-alone script


def vjp_of(function: Callable[..., Any], declared: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The declared gradient, `module:function` or `path/file.py::name`, else the attribute `vjp` of the function.

    Errors: UsageError if it cannot be found or called.
    """
    if declared.get("gradients") == "none":
        return None
    found = getattr(function, "vjp", None)
    if (name := declared.get("vjp")) is not None:
        path, twice, attribute = name.partition("::")
        module, _, inside = name.partition(":")
        if not twice and not inside:
            raise UsageError(f"vjp={name}: module:function or path/file.py::function")
        found = _attribute(_from_file(Path(path)) if twice else _from_module(module, name), attribute or inside, name)
        if not callable(found):
            raise UsageError(f"vjp={name}: {type(found).__name__} is not callable; name a function of (q, k, v, cotangent)")
    return found if callable(found) else None


def declarations(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with their values checked and normalised. Errors: UsageError with the nearest key or value."""
    checked: dict[str, Any] = {}
    for key, value in options.items():
        name = key.replace("-", "_")
        if name.startswith(FIELD) and name != FIELD:
            checked[name] = _value(value)
            continue
        if name in UNDECLARABLE:
            raise UsageError(f"option {key!r}: {UNDECLARABLE[name]}")
        if name not in DECLARATIONS:
            raise UsageError(f"option {key!r} is not known{nearest(name, DECLARATIONS)} Known: {', '.join(DECLARATIONS)}")
        rule = DECLARATIONS[name]
        checked[name] = _parse(name, value, rule)
    return checked


def _value(text: Any) -> Any:
    """A value as JSON writes it, else the text itself: `true`, `3`, `[1, 2]`, `gelu`."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parse(name: str, value: Any, rule: tuple[str, ...] | type) -> Any:
    if name in BY_DTYPE and isinstance(rule, tuple):
        return _by_dtype(name, value, rule)
    if isinstance(rule, tuple):
        words = value if isinstance(value, (list, tuple)) else str(value).split(",") if name in LISTS else [value]
        words = [str(w).lower() if isinstance(w, bool) else str(w) for w in words]
        words = [ALIASES.get(name, {}).get(w, w) for w in words]
        if wrong := [w for w in words if w not in rule]:
            raise UsageError(f"{name}={wrong[0]}: one of {', '.join(rule)}{nearest(wrong[0], rule)}")
        return tuple(words) if name in LISTS else words[0]
    if rule is bool:
        word = str(value).lower()
        if word not in ("true", "false"):
            raise UsageError(f"{name}={value}: true or false")
        return word == "true"
    try:
        return rule(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name}={value}: a value of type {rule.__name__} is expected") from None


def _by_dtype(name: str, value: Any, rule: tuple[str, ...]) -> dict[str, str]:
    """`fused`, `float16:fused,bfloat16:stored` or a mapping, as dtype -> value, checked.

    A value alone is for the dtypes of 16 bit, except that `wide` is for all.
    """
    pairs = [f"{k}:{v}" for k, v in value.items()] if isinstance(value, Mapping) else str(value).split(",")
    found: dict[str, str] = {}
    for pair in pairs:
        dtype, colon, chosen = pair.partition(":")
        if not colon:
            dtype, chosen = "", pair
        if chosen not in rule:
            raise UsageError(f"{name}={pair}: one of {', '.join(rule)}{nearest(chosen, rule)}")
        if colon and dtype not in PRECISION:
            raise UsageError(f"{name}={pair}: a dtype is one of {', '.join(PRECISION)}{nearest(dtype, PRECISION)}")
        for one in [dtype] if colon else [d for d in PRECISION if chosen == "wide" or PRECISION[d] != "wide"]:
            if chosen != "wide" and PRECISION[one] == "wide":
                raise UsageError(f"{name}={pair}: {one} is computed in {one}, its class is wide")
            found[one] = chosen
    return PRECISION | found


def load(target: str, options: Mapping[str, Any]) -> Loaded:
    """Finds and imports the target. Errors: UsageError with what was looked for and what was there."""
    declared = declarations(options)
    if "::" in target:
        path, _, name = target.partition("::")
        found = _attribute(_from_file(Path(path)), name, target)
        return _judge(target, found, declared, _script_of_file(Path(path), name))
    prefix, colon, name = target.partition(":")
    if not colon:
        raise UsageError(
            f"target {target!r}: a target is module:attribute, path/file.py::name or one of "
            f"{', '.join(f'{a.name}:NAME' for a in adapters().values() if a.load)}"
        )
    adapter = adapters().get(prefix)
    if adapter is not None and adapter.load is not None and (name in adapter.targets or prefix != "torch"):
        return adapted(adapter.name, name, declared)
    if adapter is not None and adapter.load is not None and "." not in name:
        raise UsageError(_not_offered(prefix, name))
    found = _attribute(_from_module(prefix, target), name, target)
    return _judge(target, found, declared, (f"import {prefix}", f"{prefix}.{name}"))


def adapted(prefix: str, name: str, declared: dict[str, Any]) -> Loaded:
    """The target `prefix:name` of an adapter."""
    adapter = adapters()[prefix]
    assert adapter.load is not None
    if name not in adapter.targets:
        raise UsageError(_not_offered(prefix, name))
    _only_own_options(declared, adapter.options, f"{prefix}:{name}")
    function, promised = adapter.load(name, declared)
    promised = promised | declarations({key: value for key, value in promised.items() if key in BY_DTYPE})
    script = adapter.expression(name, declared) if adapter.expression else ("", name)
    kind = MODELS.get(_kind(function, declared), "attention")
    return Loaded(f"{prefix}:{name}", function, declared, promised, script, kind=kind)


def _not_offered(prefix: str, name: str) -> str:
    names = list(adapters()[prefix].targets)
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return f"target '{prefix}:{name}': {prefix} offers {shown}{nearest(name, names)}"


def wrap(function: Callable[..., Any], options: Mapping[str, Any]) -> Loaded:
    """A callable given in Python, as a target."""
    name = getattr(function, "__name__", type(function).__name__)
    module = getattr(function, "__module__", None)
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    if file is not None and Path(file).is_file() and getattr(function, "__qualname__", None) == name:
        path = Path(file)
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return _judge(f"{shown}::{name}", function, declarations(options), _script_of_file(path, name))
    importable = module is not None and module != "__main__"
    call = (f"from {module} import {name}" if importable else f"# define {name} here", name)
    return _judge(f"{module}:{name}", function, declarations(options), call)


def _judge(target: str, found: Any, declared: dict[str, Any], script: tuple[str, str]) -> Loaded:
    for adapter in adapters().values():
        if (name := adapter.owned(found)) is not None:
            return adapted(adapter.name, name, declared)
    _only_own_options(declared, (), target)
    function = _called_if_factory(found, target)
    if function is not found:
        script = (script[0], f"{script[1]}()")
    kind = _kind(function, declared)
    if kind in UNAUDITED:
        what = "attention functions of (q, k, v), and models with logits(ids) or logits(source, target)"
        raise UsageError(f"target {target!r} looks like a {UNAUDITED[kind]}; this version audits {what}")
    if kind in MODELS:
        return Loaded(target, checked_model(function, target), _declared(function, declared), {}, script, kind=MODELS[kind])
    if not callable(function):
        raise UsageError(f"target {target!r} is a {type(function).__name__}, not callable: name a function of (q, k, v)")
    return Loaded(target, function, _declared(function, declared), {}, script)


def _declared(found: Any, declared: dict[str, Any]) -> dict[str, Any]:
    return declarations(getattr(found, "__attnspec__", {})) | declared


def _only_own_options(declared: Mapping[str, Any], own: tuple[str, ...], target: str) -> None:
    if (field := next((name for name in declared if name.startswith(FIELD)), None)) and FIELD not in own:
        raise UsageError(f"{field}={declared[field]}: {target} is not made from a configuration; drop the option")
    for option in ("backend", "path", "compile", "attn", "recording"):
        if option in declared and option not in own:
            raise UsageError(f"{option}={declared[option]}: {target} has no {option}s to select; drop the option")


def _called_if_factory(found: Any, target: str) -> Any:
    """A class, or a function without q, k, v that can be called without arguments, is a factory: called once."""
    if inspect.isclass(found):
        required = [
            p.name
            for p in inspect.signature(found).parameters.values()
            if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        if required:
            raise UsageError(
                f"target {target!r}: class {found.__name__} needs arguments ({', '.join(required)}); name a factory"
            )
        return found()
    if inspect.isfunction(found):
        names = [p.name.lower() for p in parameters(found)]
        known = {*ROLES["q"], *ROLES["k"], *ROLES["v"], "x", "ids"}
        free = all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in parameters(found))
        if free and not known & set(names):
            return found()
    return found


def _kind(found: Any, declared: Mapping[str, Any]) -> str:
    if "kind" in declared:
        return str(declared["kind"])
    if (kind := kind_of(found)) != "attention":
        return kind
    return "layer" if callable(getattr(found, "parameters", None)) and any(True for _ in found.parameters()) else kind


def kind_of(found: Any) -> str:
    """`seq2seq` for what has `encode` and `logits` of two inputs, `lm` for what has `logits`, else `attention`."""
    if not callable(getattr(found, "logits", None)):
        return "attention"
    wanted = [p for p in parameters(found.logits) if p.default is p.empty and p.name != "self"]
    return "seq2seq" if hasattr(found, "encode") and len(wanted) > 1 else "lm"


def _attribute(module: ModuleType, name: str, target: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [n for n in dir(found) if not n.startswith("_")]
            raise UsageError(f"target {target!r}: {_shown(found)} has no {part!r}{nearest(part, names)}")
        found = getattr(found, part)
    return found


def _shown(found: Any) -> str:
    return str(getattr(found, "__name__", found)).removeprefix("_attnspec_target_")


def _from_module(name: str, target: str) -> ModuleType:
    sys.path.insert(0, "") if "" not in sys.path else None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            raise UsageError(
                f"target {target!r}: no module named {error.name!r}; install it, or give path/file.py::name"
            ) from None
        raise UsageError(_raised(target, error)) from error
    except (Exception, SystemExit) as error:
        raise UsageError(_raised(target, error)) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise UsageError(f"target file {str(path)!r} does not exist{nearest(path.name, there)}")
    name = f"_attnspec_target_{path.stem}"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path.resolve()):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"target file {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(_raised(str(path), error)) from error
    return module


def _raised(target: str, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    where = f" at {last.filename}:{last.lineno}" if last else ""
    return f"target {target!r}: importing it raised {type(error).__name__}: {error}{where}; mend that first"


def _script_of_file(path: Path, name: str) -> tuple[str, str]:
    folder = path.resolve().parent
    return f"import sys\nsys.path.insert(0, {str(folder)!r})\nfrom {path.stem} import {name.partition('.')[0]}", name
