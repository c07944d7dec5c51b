"""The settings of a run: defaults, presets, TOML files, single settings and options, over each other in this order."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

from ksdiff_cli.checks import check_number
from ksdiff_cli.errors import KsdiffError, did_you_mean
from ksdiff_cli.metrics import guess_peak
from ksdiff_cli.models.backbones import takes_any_bands
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import Config, Stage
from ksdiff_cli.models.peers import PLRConfig
from ksdiff_cli.models.peers.pixel_diffusion import PixelConfig
from ksdiff_cli.options import check_value, options_of
from ksdiff_cli.options.training import Judge, Network, Precision, Preset, Recipe, TrainOptions
from ksdiff_cli.patches.dataset import PatchFile

Sizes = TypeVar("Sizes", bound=Config)
Values = Mapping[str, Any]

KEPT = "checkpoints"
"""Folder within the run's for checkpoints that are kept."""
_FREE = ("device", "time_limit", "cache")
"""Settings that a resumed run may change."""
RATE, FINE_RATE = 1e-3, 2e-4
"""Peak learning rates of AdamW: from random weights, and to fine-tune a network that is good already."""
NETWORK, TRAINING = "network", "training"
PEAK_OF_DATA = "data"
"""A ``peak`` that stands for the largest value that the data's sensor has."""
_GIVEN = {"bands", "data", "valid", "run", "cache", "init", "fine_tune", "device", "seed", "config"}
"""Fields that the data or options of their own decide, hence no settings."""
_CONFIGS: dict[str, type[ModelConfig | PixelConfig]] = {
    "ksdiff": ModelConfig,
    "pixel-diffusion": PixelConfig,
    "plrdiff": PLRConfig,
}


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run; with the data and the seed they determine the weights."""

    data: tuple[Path, ...]
    """Folders with train.h5 and valid.h5, folders of such folders, or training files (PanCollection's train_*.h5)."""
    run: Path
    """Folder for stage1.safetensors, stage2.safetensors, log.jsonl and the resume state."""
    valid: tuple[Path, ...] = ()
    """Validation files; () takes those beside the training files (valid.h5, PanCollection's valid_*.h5)."""
    steps: int = 1000
    """Optimiser steps of a stage."""
    batch: int = 16
    """Images a step, over all processes; for a network shared by all bands, image-band pairs."""
    accumulate: int = 1
    """Pieces in which the network sees a batch: less memory, the same step."""
    precision: Precision = "auto"
    """Arithmetic on a GPU; auto is bf16 where the GPU has it, else fp32. A CPU always computes in fp32."""
    rate: float = RATE
    """Peak learning rate of AdamW; cosine to zero."""
    weight_decay: float = 1e-4
    ema: float = 0.998
    """Decay of the averaged weights, the ones that are saved."""
    clip: float = 0.5
    """Largest gradient norm."""
    recipe: Recipe = "chain"
    """How stage 2 trains the diffusion: all T steps from z_T with gradients, or one prediction from a random t."""
    warm_up: float = 0.0
    """Share of stage 2 that trains PLFE2 and the denoiser on the latent loss alone, before the network joins.

    With none ERGAS was lower in eight of ten pairs (CHANGELOG). 1 leaves the network as stage 1 made it: the paper's
    ablation "separate training".
    """
    latent_noise: float = 0.1
    """Noise on z in stage 1: the network learns to live with the prediction error of stage 2."""
    gain: float = 0.2
    """Largest change of the logarithm of an image's brightness against its scene's statistics (augmentation)."""
    diffusion_weight: float = 1.0
    """lambda, weight of the diffusion term against the regression term (eq. 10 has 1)."""
    validate_every: int = 200
    """Steps between validations, which also save the resume state."""
    best: Judge = "ERGAS"
    """Metric, the mean over all validation images, by which the best weights are chosen and kept."""
    keep_every: int | None = None
    """Steps between checkpoints that are kept, each with its SAM and ERGAS; None keeps the best and the last."""
    cache: Path | None = None
    """Folder for compact copies of training files that are too large for memory; None reads them as they are."""
    time_limit: float | None = None
    """Minutes after which the stage ends well, its learning rate fully decayed."""
    init: Path | None = None
    """Weights to start from instead of random ones; their configuration replaces ``config``."""
    fine_tune: bool = False
    """Whether stage 2 goes on from ``init``'s stage 2 by eq. 4 alone, through the whole diffusion chain: there is no
    stage 1, hence no z_0 to aim at."""
    seed: int = 0
    device: str = "cpu"
    config: ModelConfig | PixelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        """Refuse what would not train, or never end."""
        kinds, known = get_type_hints(RunSettings), options_of(TrainOptions)
        for name in kinds.keys() & known.keys():
            check_value(name, getattr(self, name), kinds[name], known[name][1])
        check_number("gain", self.gain, 0, 2)
        for each in fields(self):
            if hasattr(value := getattr(self, each.name), "item"):  # NumPy's numbers overflow, and JSON has none
                object.__setattr__(self, each.name, value.item())

    def name(self, stage: Stage) -> str:
        """Return what a stage is called in files and logs; pixel diffusion has no stages."""
        return self.config.kind if isinstance(self.config, PixelConfig) else f"stage{stage}"

    def file(self, stage: Stage) -> Path:
        """Return where a stage's weights go."""
        return self.run / f"{self.name(stage)}.safetensors"

    def best_file(self, stage: Stage) -> Path:
        """Return where the stage's best weights go."""
        return self.run / f"{self.name(stage)}-best.safetensors"

    def kept_file(self, stage: Stage, step: int) -> Path:
        """Return where the stage's weights of a step go that is kept."""
        return self.run / KEPT / f"{self.name(stage)}_{step:06d}.safetensors"

    def state(self, stage: Stage) -> Path:
        """Return where a stage's resume state lies until it is done."""
        return self.run / f"{self.name(stage)}.state"

    def plain(self) -> dict[str, Any]:
        """Return what determines the weights, as JSON values: everything but where they are written."""
        values = asdict(self)
        values["data"] = [path.as_posix() for path in self.data]
        values["valid"] = [path.as_posix() for path in self.valid]
        values["init"] = self.init and self.init.as_posix()
        del values["run"], values["cache"]
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]

    def changed(self, before: Mapping[str, Any], now: Mapping[str, Any] | None = None) -> list[str]:
        """Name the options whose values were others in an earlier run; what ksdiff had no option for then is none.

        Args:
            before: its :meth:`plain` values.
            now: takes the place of this run's.
        """
        now = self.plain() if now is None else now
        return sorted(name for name in now if name in before and before[name] != now[name] and name not in _FREE)


@dataclass(frozen=True)
class Settings:
    """The values of a run's configuration that differ from the defaults."""

    network: Values = field(default_factory=dict)
    """Fields of the network's configuration."""
    training: Values = field(default_factory=dict)
    """Fields of :class:`RunSettings`, and ``epochs`` in place of its steps."""


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


def settle(options: TrainOptions, config: ModelConfig | PixelConfig | None, files: Sequence[PatchFile]) -> RunSettings:
    """Return the settings of a run.

    Args:
        options: what was asked for.
        config: the network that settings change; None takes that of ``options.model``.
        files: the patches; bands, the peak and the steps of an epoch are theirs.

    Raises:
        KsdiffError: no such preset or setting, or a value out of its range.
        ModelError: a value that no network can have.
    """
    in_file, from_file = read_settings(options.settings_file) if options.settings_file else (None, {})
    base = _CONFIGS[options.model]() if config is None else config
    own = {name: getattr(options, name) for name in options_of(Network) if name in _names(ModelConfig)}
    single = dict(options.settings) | {f"{NETWORK}.{name}": one for name, one in own.items() if one is not None}
    found = apply(options.preset or in_file or "default", from_file | single, base)
    network = configure(base, found, files)
    universal = options.universal or (isinstance(network, ModelConfig) and takes_any_bands(network.backbone))
    values = dict(found.training)
    epochs = values.pop("epochs", None)
    if options.steps is not None or options.epochs is not None:
        values["steps"], epochs = RunSettings.steps, options.epochs
    given = {each.name: getattr(options, each.name, None) for each in fields(RunSettings)}
    values |= {name: value for name, value in given.items() if value is not None}
    values |= {"warm_up": 1.0} if options.separate else {}
    values |= {"rate": FINE_RATE} if options.fine_tune and options.rate is None else {}
    values |= {"init": _weights(options)}
    settings = RunSettings(run=options.output, config=replace(network, bands=choose_bands(files, universal)), **values)
    if epochs is None:
        return settings
    check_number("epochs", epochs, 1, whole=True)
    # over image-band pairs where all bands share a network
    passed = sum(len(file) * (file.bands if settings.config.bands is None else 1) for file in files)
    return replace(settings, steps=-(-epochs * passed // settings.batch))


def choose_bands(files: Sequence[PatchFile], universal: bool) -> int | None:
    """Return the bands the network sees at once: the data's, or None for one shared by any number of bands."""
    bands = {file.bands for file in files}
    return None if universal or len(bands) > 1 else bands.pop()


def _weights(options: TrainOptions) -> Path | None:
    """Return the weights to start from; ``shipped`` stands for the package's."""
    if str(options.init) == "shipped" or (options.fine_tune and options.init is None):
        from ksdiff_cli.weights import SHIPPED

        return SHIPPED
    return options.init


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
            raise KsdiffError(
                f"{path}: {table} is neither preset, nor one of the tables [network] and [training]; write it into "
                "one of these"
            )
        settings.update({f"{table}.{name}": value for name, value in values.items()})
    return cast(Preset | None, preset), settings


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
    known = {NETWORK: _names(network), TRAINING: [*_names(RunSettings), "epochs"]}
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


def configure(network: Sizes, settings: Settings, files: Sequence[PatchFile]) -> Sizes:
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
