"""The registered systems, for tests that every system must pass."""

from __future__ import annotations

from configs.systems.registry import SYSTEMS

TRAINED = [name for name, system in SYSTEMS.items() if system.is_trained]
CAUSAL = [name for name in TRAINED if "windows" in SYSTEMS[name].units]


def without_noise(name: str) -> dict[str, float | bool]:
    """Return the values that switch off what is random in a system's own knobs: dropout rates and noise."""
    section = SYSTEMS[name].knobs
    if section is None:
        return {}
    random = {key: info.default for key, info in section.model_fields.items() if "dropout" in key or "noise" in key}
    return {key: False if isinstance(default, bool) else 0.0 for key, default in random.items()}


def settings_without_noise(name: str) -> list[str]:
    """Return the same as settings for `--set`, with the dropout of the towers."""
    own = [f"model.{name}.{key}={str(value).lower()}" for key, value in without_noise(name).items()]
    return ["model.dropout=0", *own]
