"""z of every image by what it shows: thresholds, the plane, files and the report."""

import numpy as np
import pytest
from test_dataset import arrays, write

from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.evaluation.latents import KINDS, Latents, kind_of

RGBN = ("blue", "green", "red", "nir")


@pytest.mark.parametrize(
    ("spectrum", "rough", "kind"),
    [
        ((300, 250, 150, 60), 0, "water"),
        ((200, 260, 200, 700), 40, "vegetation"),
        ((380, 520, 330, 320), 90, "rough (towns, rocks)"),  # in haze
        ((300, 320, 330, 350), 5, "smooth (bare land)"),
    ],
)
def test_kinds_are_what_most_pixels_show(spectrum, rough, kind):
    random = np.random.default_rng(0)
    ms = np.full((4, 16, 16), 0.0) + np.array(spectrum, float)[:, None, None]
    ms[:, :5] = 300  # a third of something else
    pan = 300 + rough * random.standard_normal((64, 64))
    assert kind_of(ms.astype(np.float32), pan.astype(np.float32), RGBN) == kind
    eight = ms[[0, 0, 1, 1, 2, 2, 3, 3]]
    names = ("coastal", "blue", "green", "yellow", "red", "red edge", "nir1", "nir2")
    assert kind_of(eight, pan, names) == kind


def test_unknown_bands_have_no_kind():
    image = np.ones((4, 8, 8)), np.ones((32, 32))
    assert kind_of(*image, ()) is None and kind_of(*image, ("a", "b", "c", "d")) is None
    assert kind_of(np.zeros((4, 8, 8)), np.zeros((32, 32)), RGBN) == "smooth (bare land)"


def test_the_plane_is_where_z_varies_most():
    random = np.random.default_rng(0)
    first, second = random.standard_normal((2, 30))
    z = np.zeros((30, 2, 3))
    z[:, 0, 1], z[:, 1, 2] = 5 + 3 * first, second
    plane, shares = Latents([""] * 30, [""] * 30, {"a": z}).planes["a"]
    assert abs(np.corrcoef(plane[:, 0], first)[0, 1]) > 0.99
    assert shares.sum() == pytest.approx(1) and shares[0] > 0.8
    np.testing.assert_allclose(plane.mean(0), 0, atol=1e-9)
    # distances of all channels are kept: two hold them all
    np.testing.assert_allclose(np.linalg.norm(plane[3] - plane[8]), np.linalg.norm((z[3] - z[8]).ravel()))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images_have_a_plane_too(count, tmp_path):
    z = np.arange(count * 8.0).reshape(count, 2, 4)
    found = Latents([f"{n}" for n in range(count)], ["water"] * count, {"a": z})
    plane, shares = found.planes["a"]
    assert plane.shape == (count, 2) and np.isfinite(plane).all() and np.isfinite(shares).all()
    found.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_writes_values_and_a_picture_that_the_report_shows(tmp_path, run, weights):
    path = write(tmp_path / "test_qb.h5", arrays(count=4, bands=4, side=64))
    network = weights(bands=4)
    words = ("evaluate", path, "--checkpoint", network, "--method", "exp", "-q")
    done = run(*words, "--latents", tmp_path / "z.npz", "--report", tmp_path / "r.html")
    assert done.exit_code == 0, done.stderr
    with np.load(tmp_path / "z.npz") as found:
        assert sorted(found) == ["images", "kinds", "stage2/plane", "stage2/share", "stage2/z"]
        assert found["stage2/z"].shape == (4, 16, 16) and found["images"][3] == "test_qb.h5, image 3"
        assert set(found["kinds"]) <= set(KINDS)
        assert found["stage2/z"].std(0).max() > 0
    page = (tmp_path / "r.html").read_text()
    assert "What the prior says of each image" in page and page.count('class="figure"') == 1
    assert run(*words, "--latents", tmp_path / "z.png").exit_code == 0
    refused = run(*words, "--latents", tmp_path / "z.png")
    assert (refused.exit_code, "exists" in refused.stderr) == (1, True)


def test_what_has_no_latents_is_told_before_anything_is_measured(tmp_path, fails, weights):
    path = write(tmp_path / "test.h5", arrays(count=2, bands=4, side=64))
    plain = weights(bands=4, prior=False)
    words = ("evaluate", path, "--checkpoint", plain, "--method", "exp", "-q")
    assert "none of the methods has a prior" in fails(*words, "--latents", tmp_path / "z.png")
    assert "let the name end in .png or .npz" in fails(*words, "--latents", tmp_path / "z.jpg")
    assert "cannot hold two outputs" in fails(*words, "--latents", tmp_path / "z.png", "--csv", tmp_path / "z.png")
    assert not list(tmp_path.glob("z.*"))


def test_a_picture_that_cannot_be_written_is_told(tmp_path):
    found = Latents(["a"], ["b"], {"c": np.zeros((1, 1, 2))})
    with pytest.raises(KsdiffError, match="cannot be written"):
        found.save(tmp_path / "no" / "z.npz")
