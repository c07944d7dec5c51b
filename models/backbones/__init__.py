"""The backbones by name."""

from reprlib import repr as shown

from ..config import ModelConfig
from ..contract import ModelError
from .base import Backbone
from .ctinn import CTINN
from .dcfnet import DCFNet
from .dicnn import DiCNN
from .fusionnet import FusionNet
from .hfin import HFIN
from .lagnet import LAGNet
from .mmnet import MMNet
from .msdcnn import MSDCNN
from .pannet import PanNet
from .pannextu import PanNeXtU
from .pnn import PNN
from .unrolled import Unrolled

BACKBONES: dict[str, type[Backbone]] = {
    "pannextu": PanNeXtU,
    "unrolled": Unrolled,
    "pnn": PNN,
    "dicnn": DiCNN,
    "msdcnn": MSDCNN,
    "pannet": PanNet,
    "fusionnet": FusionNet,
    "dcfnet": DCFNet,
    "lagnet": LAGNet,
    "ctinn": CTINN,
    "mmnet": MMNet,
    "hfin": HFIN,
}
"""One line a backbone, in the order of publication after the project's own."""


def takes_any_bands(name: str) -> bool:
    """Whether a backbone works on any number of bands only; False for a name that is not known."""
    return name in BACKBONES and BACKBONES[name].per_image


def make_backbone(config: ModelConfig) -> Backbone:
    """Build the backbone that the configuration names.

    Raises:
        ModelError: no backbone has that name.
    """
    if config.backbone not in BACKBONES:
        raise ModelError(f"config: no backbone is called {shown(config.backbone)}; known: {' '.join(BACKBONES)}")
    kind = BACKBONES[config.backbone]
    if kind.per_image and config.bands is not None:
        raise ModelError(f"config: {config.backbone} takes any number of bands; leave bands out")
    return kind(config)
