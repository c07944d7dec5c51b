"""The backbones by name."""

from .backbone import Backbone
from .backbone_dicnn import DiCNN
from .backbone_fusionnet import FusionNet
from .backbone_lagnet import LAGNet
from .backbone_msdcnn import MSDCNN
from .backbone_pannextu import PanNeXtU
from .backbone_pnn import PNN
from .backbone_shared import SharedTrunk
from .config import ModelConfig
from .contract import ModelError

BACKBONES: dict[str, type[Backbone]] = {
    "pannextu": PanNeXtU,
    "shared": SharedTrunk,
    "pnn": PNN,
    "dicnn": DiCNN,
    "msdcnn": MSDCNN,
    "fusionnet": FusionNet,
    "lagnet": LAGNet,
}
"""One line a backbone, in the order of publication after the project's own."""


def make_backbone(config: ModelConfig) -> Backbone:
    """Build the backbone that the configuration names.

    Raises:
        ModelError: no backbone has that name.
    """
    if config.backbone not in BACKBONES:
        raise ModelError(f"config: no backbone is called {config.backbone!r}; known: {' '.join(BACKBONES)}")
    return BACKBONES[config.backbone](config)
