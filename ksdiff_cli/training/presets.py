"""Whole configurations of a run: presets by name, TOML files, and single settings, over each other in this order."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from ksdiff_cli.errors import KsdiffError, did_you_mean
from ksdiff_cli.metrics import guess_peak
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import Config
from ksdiff_cli.patches.dataset import PatchFile
from ksdiff_cli.training.options import TrainingOptions

Network = TypeVar("Network", bound=Config)
Preset = Literal["default", "paper"]
Values = Mapping[str, Any]

NETWORK, TRAINING = "network", "training"
PEAK_OF_DATA = "data"
"""A ``peak`` that stands for the largest value that the data's sensor has."""
_GIVEN = {"bands", "data", "valid", "run", "cache", "init", "fine_tune", "device", "seed", "config"}
"""Fields that the data or options of their own decide, hence no settings."""


@dataclass(frozen=True)
class Settings:
    """The values of a run's configuration that differ from the defaults."""

    network: Values = field(default_factory=dict)
    """Fields of the network's configuration."""
    training: Values = field(default_factory=dict)
    """Fields of :class:`TrainingOptions`, and ``epochs`` in place of its steps."""


PRESETS: dict[str, Settings] = {
    "default": Settings(),
    # The paper as it reads: what it leaves open is ksdiff's, what its field usually takes stands under training.
    "paper": Settings(
        network={
            "backbone": "pannextu",
            "moments": False,
            "details": False,
            "modulate_output": False,
            "latent_norm": "layer",
            "peak": PEAK_OF_DATA,
            "steps": 1000,
            "sampling_steps": 10,
        },
        training={
            "recipe": "random-t",
            "batch": 32,
            "epochs": 400,
            "rate": 1e-3,
            "weight_decay": 1e-6,
            "ema": 0.999,
            "clip": 0.03,
            "latent_noise": 0.0,
            "gain": 0.0,
        },
    ),
}
"""Every difference from the defaults; ``docs/differences.md`` has the reason of each."""


def read_settings(path: Path) -> tuple[Preset | None, dict[str, Any]]:
    """Read a TOML file with the tables ``network`` and ``training``, and perhaps a ``preset``.

    Returns:
        The preset's name, or None; settings by full names, ``network.width``.

    Raises:
        KsdiffError: no such file, or it is none of these.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KsdiffError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise KsdiffError(f"{path}: is no TOML file ({error}); write it as [network] width = 64") from None
    preset = found.pop("preset", None)
    if preset is not None and preset not in get_args(Preset):
        raise KsdiffError(f"{path}: preset = {preset!r}: choose one of {', '.join(get_args(Preset))}")
    settings = {}
    for table, values in found.items():
        if table not in (NETWORK, TRAINING) or not isinstance(values, dict):
            raise KsdiffError(f"{path}: {table} is neither preset, nor one of the tables [network] and [training]")
        settings.update({f"{table}.{name}": value for name, value in values.items()})
    return cast(Preset | None, preset), settings


def read_setting(text: str) -> tuple[str, Any]:
    """Split ``name=value``; the value is TOML, or else a text as it stands.

    Raises:
        KsdiffError: there is no name or no value.
    """
    name, sign, value = text.partition("=")
    if not sign or not name.strip() or not value.strip():
        raise KsdiffError(f"--set {text}: give name=value, such as width=64 or network.steps=1000")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def apply(preset: str, given: Values, network: Config) -> Settings:
    """Put settings over a preset.

    Args:
        preset: a name of :data:`PRESETS`.
        given: settings by name; ``network.`` or ``training.`` before it where both have one of that name.
        network: what the names of a network's settings are those of; a preset's are for KSDiff's alone.

    Raises:
        KsdiffError: no such preset or setting.
    """
    if preset not in PRESETS:
        raise KsdiffError(f"preset {preset!r}: choose one of {', '.join(PRESETS)}")
    base = PRESETS[preset]
    known = {NETWORK: _names(network), TRAINING: [*_names(TrainingOptions), "epochs"]}
    found: dict[str, dict[str, Any]] = {
        NETWORK: dict(base.network) if isinstance(network, ModelConfig) else {},
        TRAINING: dict(base.training),
    }
    for name, value in given.items():
        table, own = _find(name, known)
        if table == TRAINING and own in ("steps", "epochs"):  # the last one said counts
            found[TRAINING] = {key: kept for key, kept in found[TRAINING].items() if key not in ("steps", "epochs")}
        found[table][own] = tuple(value) if isinstance(value, list) else value
    return Settings(found[NETWORK], found[TRAINING])


def configure(network: Network, settings: Settings, files: Sequence[PatchFile]) -> Network:
    """Return a network's configuration with its settings.

    Raises:
        ModelError: a value that no network can have.
    """
    values = dict(settings.network)
    if values.get("peak") == PEAK_OF_DATA:
        values["peak"] = max(_peaks(files))
    return replace(network, **values)


def _names(config: Any) -> list[str]:
    return [each.name for each in fields(config) if each.name not in _GIVEN]


def _find(name: str, known: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Return the table and the name of a setting."""
    table, dot, own = name.partition(".")
    if dot and table in known:
        tables, own = [table], own
    else:
        tables, own = list(known), name
    holding = [each for each in tables if own in known[each]]
    if len(holding) > 1:
        raise KsdiffError(f"setting {name}: say {' or '.join(f'{each}.{own}' for each in holding)}")
    if not holding:
        every = [each for table in tables for each in known[table]]
        hint = did_you_mean(own, every) or f"; known: {' '.join(sorted(every))}"
        raise KsdiffError(f"setting {name}: there is none of that name{hint}")
    return holding[0], own


def _peaks(files: Sequence[PatchFile]) -> Iterator[float]:
    """Yield what each file's values go up to: by its sensor, else by its first patches."""
    for file in files:
        bits = file.sensor.get("bits")
        yield float(2 ** int(bits) - 1) if bits else guess_peak(float(file.batch(range(min(64, len(file)))).pan.max()))
