"""Coarser bands by finer ones: each with the PAN that its guide makes, all through one run of the engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ksdiff_cli.checks import GuideBy
from ksdiff_cli.errors import KsdiffError
from ksdiff_cli.fusers.base import Fuser
from ksdiff_cli.fusers.classical import make_fuser
from ksdiff_cli.fusers.grouped import Grouped, Lane
from ksdiff_cli.options.sharpening import SharpenOptions
from ksdiff_cli.products import Found
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.bands import BandSource
from ksdiff_cli.raster.grouped import GroupedScene, open_scene
from ksdiff_cli.raster.guide import Companion
from ksdiff_cli.raster.pair import Scene
from ksdiff_cli.raster.registration import check_registration
from ksdiff_cli.raster.synthesis import Group, Guide, GuidedScene, find_guides
from ksdiff_cli.sensors import fold_name

UNEXPLAINED = 0.8
"""R² below which a person is told that a band gains less."""
NOTHING = 0.2
"""R² below which the finer bands say nothing of a band: it is interpolated."""
_SMALL, _OF_SMALL = 16, "mtf-glp-hpm-r"  # coarse pixels of a side below which a network knows too little


@dataclass(frozen=True)
class Guided:
    """A scene that is ready for the engine."""

    scene: GroupedScene
    fuser: Grouped
    explained: tuple[tuple[str, float], ...]
    """Name and R² of each coarser band."""
    notes: tuple[str, ...]


def choose_scene(scene: Found, options: SharpenOptions) -> Found:
    """Return what of a product is to be sharpened: PAN and MS, or coarser bands that it holds besides.

    Raises:
        KsdiffError: there is no such group; or what only finer bands have a use for is asked of PAN and MS.
    """
    if isinstance(scene, GuidedScene):
        return scene
    wanted = {fold_name(name) for name in options.groups}
    for other in scene.others if wanted else ():
        if wanted <= {fold_name(group.name) for group in other.groups}:
            return replace(other, name=scene.name)
    given = {"guide_by": options.guide_by != "synthesis", "with_guide": options.with_guide is not None}
    for name in (name for name, asked in (given | {"groups": bool(options.groups)}).items() if asked):
        has = [group.name for other in scene.others for group in other.groups]
        besides = f" (it has {', '.join(has)})" if has else ""
        raise KsdiffError(
            f"{scene.name}: has PAN, by which MS is sharpened; leave out --{name.replace('_', '-')}{besides}, or name "
            "finer bands with --guide"
        )
    return replace(scene, others=())


def choose_guided(scene: GuidedScene, options: SharpenOptions) -> GuidedScene:
    """Keep only some of a scene's bands, in the order given; a finest one is only copied where it is wanted.

    Args:
        scene: the scene.
        options: ``bands`` are numbers in the output's order, from 1, or names, () for all; which ``groups``; and
            ``with_guide``, whether the finest bands are copied.

    Raises:
        KsdiffError: there is no such band or group, or none of those that are left needs sharpening.
    """
    copied = scene.with_guide if options.with_guide is None else options.with_guide
    scene = _choose_groups(scene, options.groups)
    if not options.bands:
        return replace(scene, with_guide=copied, order=_order(scene, copied))
    every, names = _order(scene, True), _order(scene, copied)
    known = {fold_name(name): name for name in reversed(every)}
    chosen = []
    for band in options.bands:
        if isinstance(band, int) and not 1 <= band <= len(names):
            raise KsdiffError(f"{scene.name}: has no band {band}, only 1 to {len(names)}; choose with -b")
        if isinstance(band, str) and fold_name(band) not in known:
            raise KsdiffError(f"{scene.name}: has no band {band!r}; it has {', '.join(every)}; choose with -b")
        chosen.append(names[band - 1] if isinstance(band, int) else known[fold_name(band)])
    kept = tuple(group for group in (_only(each, chosen) for each in scene.groups) if group.bands)
    if not kept:
        coarse = ", ".join(source.name for group in scene.groups for source in group.bands)
        raise KsdiffError(f"{scene.name}: {', '.join(chosen)} is as fine as it gets; choose some of {coarse} too")
    return replace(scene, groups=kept, with_guide=True, order=tuple(chosen))


def _choose_groups(scene: GuidedScene, names: Sequence[str]) -> GuidedScene:
    known = {fold_name(group.name): group for group in scene.groups}
    for name in names:
        if fold_name(name) not in known:
            there = ", ".join(group.name for group in scene.groups)
            raise KsdiffError(f"{scene.name}: has no group {name!r}; it has {there}; choose with --groups")
    chosen = {fold_name(name) for name in names} or set(known)
    return replace(scene, groups=tuple(group for name, group in known.items() if name in chosen))


def _only(group: Group, names: Sequence[str]) -> Group:
    numbers = [number for number, source in enumerate(group.bands) if source.name in names]
    gains = [group.gain(number) for number in numbers]
    sensor = replace(
        group.sensor, bands=tuple(group.bands[number].name for number in numbers), mtf_ms=tuple(gains), wavelengths=()
    )
    return replace(group, bands=tuple(group.bands[number] for number in numbers), sensor=sensor)


def _order(scene: GuidedScene, copied: bool) -> tuple[str, ...]:
    guide = [source.name for source in scene.guide] if copied else []
    names = [*guide, *(source.name for group in scene.groups for source in group.bands)]
    return tuple(name for name in scene.order if name in names) if scene.order else tuple(names)


def prepare_guided(
    scene: GuidedScene,
    fuser: Fuser,
    options: SharpenOptions,
    finish: Callable[[Fuser], Fuser] = lambda fuser: fuser,
    progress: ProgressCallback = silent,
) -> Guided:
    """Find what guides each band and lay out one pair for each.

    Args:
        scene: from :func:`choose_guided`.
        fuser: what sharpens a pair; each gets another one like it.
        options: ``guide_by`` and ``registration``.
        finish: wraps each pair's fuser.
        progress: told how far it is.

    Raises:
        KsdiffError: the bands cannot be read, do not fit each other, or lie beside the finer ones.
    """
    notes: list[str] = []
    parts: list[tuple[Scene, Fuser, Guide]] = []
    for group in scene.groups:
        guides = find_guides(scene, group, options.guide_by, progress)
        if options.registration != "skip":
            best = max(guides, key=lambda guide: guide.r2)
            pair, correct = scene.pair(group, best.mix), options.registration == "correct"
            moved, said = check_registration(pair, correct=correct, progress=progress)
            notes += [f"{group.name}: {line}" for line in said]
            if (moved.shift, moved.field) != (group.shift, group.field):
                group = replace(group, shift=moved.shift, field=moved.field)
                guides = find_guides(scene, group, options.guide_by, progress)
        parts += [(_part(scene, group, number, guide), fuser, guide) for number, guide in enumerate(guides)]
    return _assemble(scene, parts, options.guide_by, finish, notes)


def _part(scene: GuidedScene, group: Group, number: int, guide: Guide) -> Scene:
    """Return a band's pair."""
    gain = group.gain(number)
    # one gain stands for any number of bands, a companion among them
    sensor = replace(group.sensor, bands=(), mtf_ms=(gain,), wavelengths=())
    pair = scene.pair(replace(group, bands=(group.bands[number],), sensor=sensor), guide.mix)
    return replace(pair, companion=Companion(gain, guide.deviation), copies=())


def _assemble(
    scene: GuidedScene,
    parts: Sequence[tuple[Scene, Fuser, Guide]],
    by: GuideBy,
    finish: Callable[[Fuser], Fuser],
    notes: list[str],
) -> Guided:
    """Choose what sharpens each pair, and lay all of them on one grid."""
    copied = tuple(source for source in scene.guide if scene.with_guide and source.name in scene.order)
    names = [*(source.name for source in copied), *(part.ms[0].name for part, _, _ in parts)]
    order = tuple(names.index(name) for name in scene.order)
    sources = (*copied, *(part.ms[0] for part, _, _ in parts))
    bands = tuple(sources[number] for number in order)
    first = parts[0][0]
    whole = GroupedScene(
        scene.name, scene.guide[0], bands, first.sensor, parts=tuple(part for part, _, _ in parts), copied=copied,
        order=order, copies=scene.copies,
    )  # fmt: skip
    lanes, chosen = [], []
    with open_scene(whole) as pair:
        for (part, fuser, guide), opened in zip(parts, getattr(pair, "parts", ()), strict=True):
            own, why = _choose(fuser, guide, min(opened.ms_shape))
            if why:
                notes.append(f"{part.ms[0].name}: {why}")
            mixes = own.mixes
            chosen.append(part if mixes else replace(part, companion=None))
            lanes.append(Lane(finish(own), 1, int(mixes), opened.true_ratio, opened.grid.ratio))
    explained = tuple((part.ms[0].name, guide.r2) for part, _, guide in parts)
    if faint := [f"{name} {_share(r2)}" for name, r2 in explained if NOTHING <= r2 < UNEXPLAINED]:
        notes.append(
            f"the finer bands explain less than {_share(UNEXPLAINED)} of {', '.join(faint)} (R²): expect less of it"
        )
    facts = {"GUIDE_BY": by} | {
        f"GUIDE_{part.ms[0].name}": f"{_say(guide)} (R2 {guide.r2:.3f})" for part, _, guide in parts
    }
    facts |= {f"SHIFT_FIELD_{part.ms[0].name}": str(part.field) for part, _, _ in parts if part.field is not None}
    whole = replace(whole, parts=tuple(chosen))
    return Guided(whole, Grouped(lanes, len(copied), facts), explained, tuple(notes))


def _choose(fuser: Fuser, guide: Guide, side: int) -> tuple[Fuser, str]:
    """Return what sharpens a pair, and why if it is not what was asked for."""
    if guide.r2 < NOTHING:
        why = f"the finer bands explain {_share(guide.r2)} of it (R²), so it is interpolated (exp), not sharpened"
        return make_fuser("exp"), why
    if fuser.mixes and side < _SMALL:
        return make_fuser(_OF_SMALL), f"{side} pixels a side are too few for the network: sharpened by {_OF_SMALL}"
    return fuser.another(), ""


def _share(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def _say(guide: Guide) -> str:
    """Write a mix as a sum."""
    terms = [
        f"{weight:+.6g} {_label(source, number)}"
        for number, (source, weight) in enumerate(zip(guide.mix.bands, guide.mix.weights, strict=True), start=1)
        if weight
    ]
    return " ".join([*terms, f"{guide.mix.offset:+.6g}"])


def _label(source: BandSource, number: int) -> str:
    return source.name or f"guide{number}"
