"""The one form of argument errors in impl: what was given, the rule, the fix."""

import torch


def require(holds: bool, rule: str, **got: object) -> None:
    """Raises ValueError unless the rule holds.

        message = "name=value, name=value: rule; fix"        (1)

    Shapes:  a torch.Size is shown as a list, everything else as itself.
    Units:   rule carries the fix after a semicolon.
    Empty:   nothing is formatted while the rule holds, as a decoding step makes hundreds of these calls.
    Errors:  ValueError unless holds.
    Source:  docs/notation.md for the letters in rules.
    """
    if not holds:
        names = [f"{name}={list(value) if isinstance(value, torch.Size) else value}" for name, value in got.items()]
        raise ValueError(f"{', '.join(names)}: {rule}")
