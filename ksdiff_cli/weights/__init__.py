"""The weights shipped with the package: one safetensors file and its model card."""

from pathlib import Path

SHIPPED = Path(__file__).with_name("ksdiff.safetensors")
"""The checkpoint that ``sharpen`` and ``evaluate`` use unless told otherwise."""
