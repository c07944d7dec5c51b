"""What MkDocs asks while it builds the site: which files are pages, and the tables that are made from the code.

A line ``{{ name }}`` on a page is replaced by what the function of that name in ``TABLES`` returns.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from ksdiff_cli import sensors as known_sensors  # noqa: E402
from ksdiff_cli.metrics.about import ABOUT  # noqa: E402
from ksdiff_cli.products import READERS  # noqa: E402

BESIDE = ("kubernetes.yaml", "slurm.py")
"""Files that pages link to, beside pages and what lies in ``assets/``."""


def on_files(files: Files, config: Any) -> Files:
    """Take the pages of this folder, where MkDocs does not look."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    found = [*HERE.glob("*.md"), *(HERE / "assets").iterdir(), *(HERE / name for name in BESIDE)]
    for path in sorted(found):
        files.append(File.generated(config, path.relative_to(HERE).as_posix(), abs_src_path=str(path)))
    for path in sorted(HERE.glob("notebooks/*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook(path)))
    named = re.findall(r"[\w-]+\.md", str(config.nav))
    if others := sorted(path.name for path in HERE.glob("*.md") if path.name not in named):
        config.nav.append({"More": others})
    return files


def notebook(path: Path) -> str:
    """Return a notebook as a page: its text and its code."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ("".join(cell["source"]) for cell in cells)
    shown = (
        f"```python\n{text}\n```" if cell["cell_type"] == "code" else text
        for cell, text in zip(cells, texts, strict=True)
    )
    return "\n\n".join([*shown, f"*To run it: `docs/notebooks/{path.name}`.*"])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the tables; notebooks are pages here."""
    markdown = re.sub(r"\((notebooks/\w+)\.ipynb\)", r"(\1.md)", markdown)
    return re.sub(r"^\{\{ (\w+) \}\}$", lambda found: TABLES[found[1]](), markdown, flags=re.MULTILINE)


def on_page_content(html: str, **_: Any) -> str:
    """Leave out what docstrings say to other programs: the roles of names."""
    return re.sub(r":(?:class|func|meth|mod|data|attr):<code>~?", "<code>", html)


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """Escape what would end a table's cell; inside code nothing is escaped, and need not be."""
    parts = text.replace("\n", " ").split("`")
    return "`".join(part if number % 2 else part.replace("|", "\\|") for number, part in enumerate(parts))


def sensors() -> str:
    """Return the sensors' table."""

    def row(one: known_sensors.Sensor) -> tuple[str, ...]:
        gains = one.mtf_ms if len(set(one.mtf_ms)) > 1 else one.mtf_ms[:1]
        spans = [f" {low:g}–{high:g}" for low, high in one.wavelengths] or [""] * len(one.bands)
        bands = ", ".join(f"{name}{span}" for name, span in zip(one.bands, spans, strict=True)) or "any"
        mtf = ", ".join(f"{gain:g}" for gain in gains)
        return f"`{one.name}`", one.title, bands, str(one.ratio), str(one.bits), mtf, f"{one.mtf_pan:g}"

    head = ("name", "camera", "bands, nm", "ratio", "bits", "MTF of MS", "MTF of PAN")
    return table(head, (row(one) for one in known_sensors.SENSORS.values()))


def sources() -> str:
    """Return where the sensors' figures come from."""

    def row(one: known_sensors.Sensor) -> tuple[str, ...]:
        said = one.sources
        return (
            f"`{one.name}`",
            ", ".join(f"`{name}`" for name in one.aliases) or "-",
            said.bands,
            said.bits,
            said.mtf_ms,
        )

    head = ("name", "also called", "bands", "bits", "MTF")
    return table(head, (row(one) for one in known_sensors.SENSORS.values()))


def products() -> str:
    """Return the product families' table."""
    return table(
        ("family", "known by"), ((name, family.looks_for) for name, family in READERS.items() if family.looks_for)
    )


def metrics() -> str:
    """Return what every figure is."""

    def rows() -> Iterator[tuple[str, ...]]:
        for name, about in ABOUT.items():
            yield f"`{name}`", f"{about.arrow} {about.unit}".strip(), about.what, about.undefined

    return table(("figure", "better", "what it is", "undefined where"), rows())


def fooled() -> str:
    """Return what rewards and fools the figures that need no truth."""
    rows = ((f"`{name}`", about.rewards, about.fooled) for name, about in ABOUT.items() if about.rewards)
    return table(("figure", "rewards", "is fooled by"), rows)


def commands() -> str:
    """Return the reference of all commands, from the program itself."""
    import typer

    from ksdiff_cli.main import app

    group: Any = typer.main.get_command(app)
    return "\n\n".join(_command(name, command) for name, command in group.commands.items())


def _command(name: str, command: Any) -> str:
    text = re.sub(r"^Example([^:\n]*): (.+)$", r"```sh\n\2\n```", command.help, flags=re.MULTILINE)
    given = [one for one in command.params if not one.opts[0].startswith("-")]
    usage = " ".join(["ksdiff", name, *(one.metavar or one.name.upper() for one in given), "[OPTIONS]"])
    parts = [f"## ksdiff {name}", text, f"```\n{usage}\n```"]
    if given:
        parts.append(table(("argument", ""), ((f"`{one.metavar}`", one.help) for one in given)))
    panels: dict[str, list[Any]] = {}
    for one in command.params:
        if one not in given and one.name != "help":
            panels.setdefault(one.rich_help_panel, []).append(one)
    for panel, options in panels.items():
        parts += [f"### {panel} {{ #{name}-{panel.split()[0].lower()} }}", table(("option", ""), map(_option, options))]
    return "\n\n".join(parts)


def _option(one: Any) -> tuple[str, ...]:
    names = ", ".join(f"`{each}`" for each in (*one.opts, *one.secondary_opts))
    kind = getattr(one.type_descriptor if hasattr(one, "type_descriptor") else one.type, "choices", None)
    value = "" if one.is_flag else f" `{one.metavar}`" if one.metavar else ""
    said = f"{one.help} One of {', '.join(f'`{choice}`' for choice in kind)}." if kind else one.help
    if one.required:
        said += " **Required.**"
    elif "Default: " not in said and not one.is_flag and one.default is not None:
        said += f" Default: `{one.default}`."
    return f'<span class="option" markdown>{names}{value}</span>', said


TABLES: dict[str, Callable[[], str]] = {
    each.__name__: each for each in (sensors, sources, products, metrics, fooled, commands)
}
