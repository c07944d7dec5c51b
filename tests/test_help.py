"""What `--help` teaches: every option's unit, range and default, examples that can be typed, names for the shell."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from ksdiff_cli.commands import options
from ksdiff_cli.main import app

ROOT = Path(__file__).resolve().parents[1]
GROUP: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = GROUP.commands
PANELS = {value for name, value in vars(options).items() if name.isupper() and isinstance(value, str)}
OPTIONS = [
    pytest.param(parameter, id=f"{name} {parameter.opts[0]}")
    for name, command in COMMANDS.items()
    for parameter in command.params
    if parameter.opts[0].startswith("-") and parameter.name != "help"
]
EXAMPLES = [
    pytest.param(name, line.strip(), id=f"{name}-{number}")
    for name, command in COMMANDS.items()
    for number, line in enumerate(re.findall(r"^Example[^:]*: (.*)$", command.help, re.MULTILINE))
]


@pytest.mark.parametrize("parameter", OPTIONS)
def test_every_option_says_its_default_and_stands_in_a_panel(parameter: Any) -> None:
    assert parameter.rich_help_panel in PANELS
    assert len(parameter.help) > 10
    shown = parameter.show_default and parameter.default is not None and parameter.default is not False
    is_flag = parameter.default is False and not parameter.secondary_opts
    assert shown or is_flag or parameter.required or "Default: " in parameter.help


@pytest.mark.parametrize("parameter", OPTIONS)
def test_every_number_says_its_unit(parameter: Any) -> None:
    kind = parameter.type_descriptor.annotation if hasattr(parameter, "type_descriptor") else parameter.type
    if kind not in (int, float):
        return
    words = (
        "pixel", "px", "GB", "percent", "minutes", "Minutes", "share", "Share", "steps", "Steps", "seed", "Seed",
        "threads", "processes", "Passes", "Images", "Pieces", "rate", "Channels", "bands", "Times", "results", "Draws",
        "norm", "Weight", "deviation", "Port",
    )  # fmt: skip
    assert any(word in parameter.help for word in words), parameter.help


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_an_example(name: str) -> None:
    assert any(case.values[0] == name for case in EXAMPLES)


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_examples_can_be_typed(name: str, line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])
    assert words[:2] == ["ksdiff", name] or words[-len(words) :][0] == "torchrun"
    arguments = words[words.index(name) + 1 :]
    context = COMMANDS[name].make_context(name, arguments)  # an option that is none, or a wrong value, raises
    assert not context.args


def test_square_brackets_are_shown(run: Any) -> None:
    shown = " ".join(run("train", "--help").stdout.replace("│", " ").split())
    assert "tables [network] and [training]" in shown and "'ksdiff[tensorboard]'" in shown


def test_help_and_version_of_the_program(run: Any) -> None:
    assert re.fullmatch(r"ksdiff \d+\.\d+\.\d+\S*\n", run("--version").stdout)
    shown = run("--help").stdout
    assert "--install-completion" in shown
    assert all(name in shown for name in COMMANDS)


def test_commands_stand_in_panels_in_the_order_people_need_them(run: Any) -> None:
    shown = run("--help").stdout
    first = re.findall(r"^[│ ]+([a-z-]+) {2,}", shown, re.MULTILINE)
    order = ["sharpen", "metrics", "info", "view", "prepare-data", "train", "evaluate"]
    order += ["export", "qgis", "simulate", "doctor"]
    assert [name for name in first if name in order] == order
    panels = {command.rich_help_panel for command in COMMANDS.values()}
    assert len(panels) == 3 and all(panel in shown for panel in panels)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("ksdiff sha", {"sharpen"}),
        ("ksdiff ", set(COMMANDS)),
        ("ksdiff sharpen --sen", {"--sensor"}),
        ("ksdiff sharpen --sensor WV", {"WV2", "WV3", "WV4", "WV3SWIR"}),
        ("ksdiff sharpen --sensor wv", {"wv2", "wv3", "wv4", "wv3swir"}),
        ("ksdiff sharpen --method b", {"brovey", "bdsd-pc", "bt-h"}),
        ("ksdiff evaluate --method g", {"gs", "gsa"}),
        ("ksdiff train --backbone pn", {"pnn"}),
    ],
)
def test_the_shell_completes(typed: str, expected: set[str], run: Any) -> None:
    from typer.testing import CliRunner

    words = {"_KSDIFF_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    result = CliRunner().invoke(app, [], env=words, prog_name="ksdiff")
    assert set(result.stdout.split()) == expected


def test_completion_of_a_sensor_loads_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom ksdiff_cli.options.shared import complete_sensor\n"
        "assert 'WV3' in complete_sensor('WV3')\n"
        "print(sorted(set(sys.modules) & {'torch', 'rasterio', 'numpy'}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
