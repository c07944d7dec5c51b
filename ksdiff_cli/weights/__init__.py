"""The weights shipped with the package: one safetensors file and its model card."""
