"""Many scenes, one after another: a failed one is reported, the others go on, and another run makes what is missing."""

import csv
import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from rasterio.errors import RasterioError

from ksdiff_cli.errors import KsdiffError, StoppedError
from ksdiff_cli.files.names import Inputs, check_place, sidecars
from ksdiff_cli.files.writing import as_json, write_text
from ksdiff_cli.output.vrt import tiles_folder
from ksdiff_cli.output.writer import check_sidecars
from ksdiff_cli.products import Found, find_scenes, make_pair
from ksdiff_cli.products.folder import ARCHIVES, names_folder
from ksdiff_cli.products.scene_files import find_inputs
from ksdiff_cli.progress import ProgressCallback, silent
from ksdiff_cli.raster.open import is_from_gdal, open_raster
from ksdiff_cli.sharpening.engine import job_folder, remove_rest

SUMMARY = "batch.json"
"""Name of the summary in the outputs' folder."""
_COLUMNS = ("scene", "pan", "ms", "name", "sensor")
_BETWEEN = ";"  # several MS files in one cell
_SEPARATORS = ",;\t|"  # of cells


@dataclass(frozen=True)
class Source:
    """Where one scene is, or several of one product."""

    name: str
    """Of the output, without its suffix."""
    inputs: tuple[str, ...]
    """A folder, archive or metadata file; or PAN, then MS."""
    sensor: str | None = None

    def find(self) -> list[Found]:
        """Return the scenes; for errors see :func:`ksdiff_cli.products.find_scenes` and ``make_pair``."""
        if len(self.inputs) > 1:
            return [make_pair(self.inputs[0], self.inputs[1:], self.sensor)]
        return find_scenes(self.inputs[0], self.sensor)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one scene."""

    name: str
    output: str
    status: Literal["made", "kept", "failed"]
    """``kept``: it was there already."""
    seconds: float = 0.0
    error: str = ""
    """One line; empty unless it failed."""
    trace: str = ""
    """Where in the program a failure was that nobody foresaw."""


Sharpen = Callable[[Found, Path, ProgressCallback], Any]
"""Makes one scene's output."""


class BatchInputs:
    """The inputs of all scenes of a batch: the output of one may not take the place of another one's input."""

    def __init__(self, sources: Sequence[Source], more: Sequence[str] = ()) -> None:
        """Look at what the list names, and into lists of tiles; into products only if an output goes there.

        Args:
            sources: see :func:`read_sources`.
            more: names of what is read besides.
        """
        self.inputs = Inputs([*(name for source in sources for name in source.inputs), *more])
        self._products: dict[tuple[int, int], list[Source]] = {}
        for source in sources:
            place = Path(source.inputs[0]).absolute()
            if len(source.inputs) > 1 or place.name.lower().endswith(ARCHIVES):
                continue
            # what lies beside a metadata file is read, too
            for folder in (place,) if place.is_dir() else (place.parent, place.parent.parent):
                with suppress(OSError):
                    state = folder.stat()
                    self._products.setdefault((state.st_dev, state.st_ino), []).append(source)
        self._found: dict[str, Inputs] = {}

    def find(self, output: Path) -> Path | None:
        """Return the input that an output, or a file that belongs to it, would replace; None if there is none."""
        tiles = tiles_folder(output)
        parts = [*sidecars(output), *(tiles.iterdir() if output.suffix == ".vrt" and tiles.is_dir() else ())]
        for path in (output, *parts):
            if path.exists() and (lost := self.inputs.find(path) or self._find_in_products(path)):
                return lost
        return self.inputs.temporary(output)

    def _find_in_products(self, path: Path) -> Path | None:
        for folder in path.absolute().parents:
            with suppress(OSError):
                state = folder.stat()
                for source in self._products.get((state.st_dev, state.st_ino), ()):
                    if lost := self._of_product(source).find(path):
                        return lost
        return None

    def _of_product(self, source: Source) -> Inputs:
        name = source.inputs[0]
        if name not in self._found:
            names: list[str] = []
            with suppress(KsdiffError, RasterioError):  # which the scene's own turn tells
                for scene in source.find():
                    names += map(str, find_inputs(scene.files()).files)
            self._found[name] = Inputs(names)
        return self._found[name]


def read_sources(place: Path, sensor: str | None = None, without: Path | None = None) -> list[Source]:
    """Read which scenes there are to do.

    Args:
        place: a folder, each folder or archive in which is a product; or a CSV file, whose first line names columns:
            ``scene``, or ``pan`` and ``ms`` (several files with ``;`` between them), and as one likes ``name`` (of the
            output) and ``sensor``. Its relative paths start at its folder.
        sensor: of all scenes that the list says nothing of.
        without: a folder that is no scene, though it may lie in ``place``: that of the outputs.

    Raises:
        KsdiffError: no such place, nothing in it, a line that cannot be understood, or two scenes of one name.
    """
    if place.is_dir():
        sources = [Source(_stem(path.name), (str(path),), sensor) for path in _products(place, without)]
        if not sources:
            raise KsdiffError(f"{place}: holds no folders and no archives; --batch takes a folder of products")
    elif place.is_file():
        sources = list(_read_csv(place, sensor))
        if not sources:
            raise KsdiffError(f"{place}: lists no scene; the first line names columns ({', '.join(_COLUMNS)})")
    else:
        raise KsdiffError(f"{place}: no such file or folder; --batch takes a CSV list or a folder of products")
    seen: dict[str, Source] = {}
    for source in sources:
        # some file systems know no capital letters
        if other := seen.get(source.name.lower()):
            both = f"{other.inputs[0]} and {source.inputs[0]}"
            raise KsdiffError(
                f"{place}: {both} would both be called {source.name}; give each a name of its own in the column 'name'"
            )
        seen[source.name.lower()] = source
    return sources


@dataclass(frozen=True)
class Outputs:
    """Where the outputs go."""

    folder: Path
    """Made if it is missing; the summary is written there too, however a batch ends."""
    reads: BatchInputs
    """What may not be lost."""
    suffix: str = ".tif"
    overwrite: bool = False
    """Make all outputs anew, in place of keeping those that are there."""

    def place(self, name: str) -> Path:
        """Return an output's path by its name."""
        return self.folder / f"{name}{self.suffix}"


def run_batch(
    sources: Sequence[Source],
    outputs: Outputs,
    sharpen: Sharpen,
    check: Callable[[], None] = lambda: None,
    progress: ProgressCallback = silent,
    failed: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Sharpen scenes one after another; outputs that are there already are kept.

    Args:
        sources: see :func:`read_sources`.
        outputs: where they go.
        sharpen: makes one output.
        check: called before each scene; what it raises ends the batch.
        progress: told how far the scene at hand is.
        failed: called with each scene that failed, when it does: a long list is not to be waited for.

    Returns:
        What became of each scene, in order.

    Raises:
        KsdiffError: the folder cannot be made or written to, or holds an input or another's file in the summary's
            place.
    """
    folder = outputs.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KsdiffError(f"{folder}: cannot be made ({error.strerror}); choose another with -o") from None
    remove_rest(folder)
    summary = folder / SUMMARY
    check_place(summary, outputs.reads.inputs, outputs.overwrite or _is_summary(summary))
    outcomes: list[Outcome] = []
    taken: set[str] = set()
    try:
        for number, source in enumerate(sources, start=1):
            check()

            def report(done: int, total: int, note: str = "", name: str = f"{number}/{len(sources)}") -> None:
                progress(done, total, f"scene {name}, {note}")

            for outcome in _run_source(source, outputs, sharpen, report, taken):
                outcomes.append(outcome)
                if outcome.status == "failed":
                    failed(outcome)
            taken.update(one.name for one in outcomes)
            if not folder.is_dir():
                raise KsdiffError(
                    f"{folder}: was removed while the batch ran; run the same command again for what was in it"
                )
    finally:
        if folder.is_dir():
            write_text(as_json(summarise(outcomes)) + "\n", summary)
    return outcomes


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the summary, for JSON."""
    count = {status: sum(one.status == status for one in outcomes) for status in ("made", "kept", "failed")}
    return count | {"scenes": [{key: value for key, value in asdict(one).items() if value} for one in outcomes]}


def _run_source(
    source: Source, outputs: Outputs, sharpen: Sharpen, progress: ProgressCallback, taken: set[str]
) -> Iterator[Outcome]:
    """Do a product's scenes; without looking into it, where its one output is there already."""
    first = Outcome(source.name, str(outputs.place(source.name)), "kept")
    if source.name in taken:
        yield replace(first, status="failed", error=f"{first.output}: another scene of this list has that name")
        return
    if lost := outputs.reads.find(Path(first.output)):
        yield replace(first, status="failed", error=f"{lost}: is one of the inputs; choose another folder")
        return
    if _is_done(Path(first.output)) and not outputs.overwrite:
        yield first
        return
    found: list[Found] = []
    failed = _attempt(first, lambda: found.extend(source.find()))
    if failed.status == "failed":
        yield failed
        return
    for scene in found:
        name = source.name if len(found) == 1 else f"{source.name}_{_clean(scene.name)}"
        output = outputs.place(name)
        outcome = Outcome(name, str(output), "made")
        if name in taken:
            yield replace(outcome, status="failed", error=f"{output}: another scene of this list has that name")
        elif lost := outputs.reads.find(output):
            yield replace(outcome, status="failed", error=f"{lost}: is one of the inputs; choose another folder")
        elif _is_done(output) and not outputs.overwrite:
            yield replace(outcome, status="kept")
        else:
            yield _attempt(outcome, partial(sharpen, scene, output, progress))
        taken.add(name)


def _attempt(outcome: Outcome, work: Callable[[], Any]) -> Outcome:
    """Do something for a scene; whatever goes wrong is the scene's, and the others go on."""
    start = perf_counter()
    try:
        work()
    except StoppedError:
        raise
    except Exception as error:
        expected = isinstance(error, KsdiffError) or is_from_gdal(error) or type(error).__name__ == "ModelError"
        text = str(error) if expected else f"{type(error).__name__}: {error}"
        trace = "" if expected else "".join(traceback.format_exception(error))
        outcome = replace(outcome, status="failed", error=" ".join(text.split()), trace=trace)
    return replace(outcome, seconds=round(perf_counter() - start, 2))


def check_mosaic(mosaic: Path, sources: Sequence[Source], outputs: Outputs) -> None:
    """Refuse a mosaic of all outputs that could not be written in the end, before any work.

    Args:
        mosaic: the virtual raster to be; one of outputs in the same folder may take its place, as after another run.
        sources: see :func:`read_sources`.
        outputs: where they go.

    Raises:
        KsdiffError: it is an input or an output, exists, or its folder does not exist.
    """
    if any(outputs.place(source.name).resolve() == mosaic.resolve() for source in sources):
        raise KsdiffError(f"{mosaic}: is the name of one of the outputs; choose another one")
    folder, reads = outputs.folder, outputs.reads
    if mosaic.parent.absolute() == folder.absolute() and not folder.exists():
        return
    if lost := reads.find(mosaic):
        raise KsdiffError(f"{lost}: is one of the inputs; choose another name")
    may = outputs.overwrite or _is_own_mosaic(mosaic, folder)
    check_place(mosaic, reads.inputs, may)
    check_sidecars(mosaic, reads.inputs, may, ())


def _is_own_mosaic(mosaic: Path, folder: Path) -> bool:
    """Say whether a file is a mosaic of outputs, as another run makes it."""
    if not mosaic.is_file():
        return False
    with open_raster(mosaic) as there:
        files = there.files[1:]
    return bool(files) and all(Path(file).absolute().is_relative_to(folder.absolute()) for file in files)


def _is_summary(path: Path) -> bool:
    """Say whether a file is a batch's summary, of an earlier run."""
    try:
        return bool({"made", "kept", "failed", "scenes"} <= json.loads(path.read_text(encoding="utf-8")).keys())
    except (OSError, ValueError, AttributeError):
        return False


def _is_done(output: Path) -> bool:
    """Say whether an output is there and nothing of the way to it."""
    return output.exists() and not job_folder(output).exists()


def _products(place: Path, without: Path | None) -> list[Path]:
    found = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    own = without is not None and without.exists()
    return [
        path
        for path in found
        if (path.is_dir() or names_folder(str(path))) and not (own and path.samefile(without or path))
    ]


def _read_csv(path: Path, sensor: str | None) -> Iterator[Source]:
    text = _read_list(path)
    try:
        between, columns, rows = _cells(path, text)
        if unknown := sorted(set(columns) - set(_COLUMNS)):
            raise KsdiffError(f"{path}: knows no column {', '.join(unknown)}; columns are {', '.join(_COLUMNS)}")
        for row in rows:
            if any(cell.strip() for cell in row[len(columns) :]):
                quoted = ", in quotes" if between == _BETWEEN else ""
                raise KsdiffError(
                    f"{path}, line {rows.line_num}: has more cells than the first line names; several MS files "
                    f"go into one cell, with {_BETWEEN} between them{quoted}"
                )
            cells = {name: cell.strip() for name, cell in zip(columns, row, strict=False)}
            if any(cells.values()):
                yield _read_row(path, rows.line_num, cells, sensor)
    except csv.Error as error:
        raise KsdiffError(f"{path}: cannot be read as a CSV list ({error})") from None


def _read_list(path: Path) -> str:
    """Return a list's text, in UTF-8 or in what spreadsheets call Unicode text."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except OSError as error:
        raise KsdiffError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise KsdiffError(f"{path}: is no text in UTF-8; save the list as CSV in UTF-8") from None
    if "\0" in text:
        raise KsdiffError(f"{path}: is no text, it holds zero bytes; --batch takes a CSV list or a folder of products")
    return text


def _cells(path: Path, text: str) -> tuple[str, list[str], Any]:
    """Return what stands between a list's cells, its columns' names, and a reader of its other lines.

    Spreadsheets put ``;`` or tabs where a comma is the decimal sign: as no column's name holds either, the first line
    tells.
    """
    for between in _SEPARATORS:
        rows = csv.reader(StringIO(text, newline=""), delimiter=between, skipinitialspace=True)
        columns = [name.strip().lower() for name in next((row for row in rows if any(row)), [])]
        while columns and not columns[-1]:
            del columns[-1]
        if {"scene"} <= set(columns) or {"pan", "ms"} <= set(columns):
            return between, columns, rows
    raise KsdiffError(
        f"{path}: the first line must name a column 'scene', or columns 'pan' and 'ms', with commas between; write "
        "such a line"
    )


def _read_row(path: Path, line: int, cells: dict[str, str], sensor: str | None) -> Source:
    scene, pan = cells.get("scene", ""), cells.get("pan", "")
    ms = [one.strip() for one in cells.get("ms", "").split(_BETWEEN) if one.strip()]
    if bool(scene) == bool(pan) or bool(pan) != bool(ms):
        raise KsdiffError(f"{path}, line {line}: give either a scene, or PAN and MS")
    inputs = tuple(_beside(path, one) for one in ([scene] if scene else [pan, *ms]))
    name = cells.get("name") or _stem(Path(scene or pan).name or (path.parent / scene).resolve().name)
    if _safe(name) != name:
        raise KsdiffError(f"{path}, line {line}: {name!r} cannot be a file's name; leave out slashes")
    return Source(name, inputs, cells.get("sensor") or sensor)


def _beside(path: Path, name: str) -> str:
    """Return a list's path by its folder; addresses stay."""
    return name if "://" in name or name.startswith("/") else str(path.parent / name)


def _stem(name: str) -> str:
    """Return a file's or a folder's name without the suffix that says what it is."""
    for suffix in (".tar.gz", ".tgz", ".tar", ".zip", ".tiff", ".tif", ".vrt", ".xml", ".imd", ".txt", ".jp2"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _clean(name: str) -> str:
    """Return a name that a product gives a scene as part of a file's name."""
    return "".join(sign if sign.isprintable() else "_" for sign in _safe(name))


def _safe(name: str) -> str:
    return name.replace("/", "_").replace("\\", "_")
