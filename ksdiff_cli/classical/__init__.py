"""Classical methods, equal to the field's reference toolbox; pure functions on arrays (bands, height, width) in DN.

Each is two steps: ``gather`` draws coefficients from a whole scene, block by block; ``apply`` uses them on any piece of
it. A new method is one file and one line below.
"""

from ksdiff_cli.checks import Geometry
from ksdiff_cli.classical import (
    awlp,
    awlp_r,
    bdsd_pc,
    brovey,
    bt_h,
    exp,
    gs,
    gsa,
    mtf_glp_fs,
    mtf_glp_hpm_r,
    pracs,
)
from ksdiff_cli.classical.method import Method, SceneBlock, Setup, fuse, make_block, make_setup

__all__ = ["METHODS", "Geometry", "Method", "SceneBlock", "Setup", "fuse", "make_block", "make_setup"]

METHODS: dict[str, Method] = {
    "exp": exp.METHOD,
    "brovey": brovey.METHOD,
    "gs": gs.METHOD,
    "gsa": gsa.METHOD,
    "bdsd-pc": bdsd_pc.METHOD,
    "mtf-glp-fs": mtf_glp_fs.METHOD,
    "bt-h": bt_h.METHOD,
    "mtf-glp-hpm-r": mtf_glp_hpm_r.METHOD,
    "awlp": awlp.METHOD,
    "awlp-r": awlp_r.METHOD,
    "pracs": pracs.METHOD,
}
"""Every method by the name people type."""
