"""ksdiff: sharpen whole satellite scenes with the Kernel Space Diffusion Model (KSDiff, CVPR 2026)."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout the network's folder `models/` stands beside this package; an installed wheel has it inside.
# Appending the checkout's root makes `ksdiff_cli.models` importable without claiming the top-level name `models`.
_package = Path(__file__).resolve().parent
if not (_package / "models").is_dir() and (_package.parent / "models" / "ksdiff.py").is_file():
    __path__.append(str(_package.parent))
