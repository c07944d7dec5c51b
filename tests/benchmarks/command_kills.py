"""Commands killed by SIGKILL again and again at random moments, then left to end: the same bytes as of a run left alone?

    python tests/benchmarks/command_kills.py [adapt batch metrics prepare-data train] [--kills 10] [--seed 0]
        [--size 768] [--folder DIR]

Beside whole_scene_kills.py, which does that with one scene. Each command first runs alone in a folder of its own; then
it is given in another folder and killed after a random time, again and again, until a run ends before its kill: its
files must be those of the run alone, byte for byte, and nothing else may be there. So on until there were kills enough.
Prints where each kill fell, by what was there then; ends with 1 if anything differs. For --adapt time stands still, as
the hour at which training ends would decide what comes of it.
"""

import argparse
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from whole_scene_kills import environment

POLL = 0.005  # seconds
PATIENCE = 3600  # seconds after which a run counts as stuck
STILL = """
import types
import ksdiff_cli.sharpening.adaptation as adaptation, ksdiff_cli.training.stages as training
adaptation._MOST_STEPS_A_MINUTE = 400
training.time = types.SimpleNamespace(monotonic=lambda: 0.0)
from ksdiff_cli.main import app
app()
"""
SMALL = """
import sys
from pathlib import Path
import torch
from ksdiff_cli.models.checkpoint import save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.ksdiff import KSDiff
torch.manual_seed(0)
small = ModelConfig(width=16, depths=(1, 1, 1), encoder_width=8, denoiser_width=16, denoiser_blocks=1, latent=8)
save_model(KSDiff(small), Path(sys.argv[1]), sensor={"name": "generic"}, training={"steps": 0})
"""


@dataclass(frozen=True)
class Command:
    """A command line, run in a folder beside ``scene/``, and what it makes there."""

    words: str
    results: tuple[str, ...]
    """Globs of files whose bytes count."""
    others: tuple[str, ...] = ()
    """Globs of files that tell of the run itself: how long it took, whether it was the first."""
    program: tuple[str, ...] = ("-m", "ksdiff_cli")


COMMANDS = {
    "adapt": Command(
        "sharpen ../scene/pan.tif ../scene/ms.tif -o out.tif --checkpoint ../start.safetensors --adapt 0.1 --tile 256",
        ("out.tif", "out.tif.adapted.safetensors"),
        program=("-c", STILL),
    ),
    "batch": Command(
        "sharpen --batch ../list.csv -o out --checkpoint ../start.safetensors --tile 256 --mosaic out/all.vrt",
        ("out/*.tif", "out/*.vrt"),
        ("out/batch.json",),
    ),
    "metrics": Command(
        "metrics ../scene/truth.tif --reference ../scene/truth.tif --maps maps --report out.html --sensor WV3",
        ("maps/sam.tif", "maps/q2n.tif", "out.html"),
    ),
    "prepare-data": Command(
        "prepare-data ../scene ../other -o patches --patch 32", ("patches/*.h5", "patches/quicklook.png")
    ),
    "train": Command(
        "train --data ../patches -o run --stage all --backbone pnn --width 16 --batch 8 --steps 40 --validate-every 5 "
        "--resume",
        ("run/*.safetensors", "run/pictures/*.png"),
        ("run/log.jsonl", "run/curves.png"),
    ),
}


def run(words, folder, **more):
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment(1), check=True, **more)


def start(command, folder, log):
    words = [*command.program, *command.words.split(), "-q", "--threads", "1"]
    if command.words.startswith(("metrics", "prepare-data")):
        words = words[:-2]
    return subprocess.Popen([sys.executable, *words], cwd=folder, env=environment(1), stdout=log, stderr=log)


def files(folder, globs):
    return {str(path.relative_to(folder)): path for glob in globs for path in folder.glob(glob) if path.is_file()}


def compare(command, folder, whole):
    """What differs between a folder and that of the run alone, a line each."""
    expected, found = files(whole, command.results), files(folder, command.results)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is left" for name in there - expected.keys() - files(folder, command.others).keys()]
    both = [name for name in expected if name in found]
    problems += [f"{name}: other bytes" for name in both if content(found[name]) != content(expected[name])]
    return problems


def content(path):
    """A report names the place of what it shows: where the two folders are is no difference."""
    return re.sub(rb"/[^ ]*/(whole|killed)/", b"", path.read_bytes()) if path.suffix == ".html" else path.read_bytes()


def kill(command, folder, seconds, log):
    """Run until the kill; returns None if it came too late, else what was there then."""
    process, begin = start(command, folder, log), time.perf_counter()
    while process.poll() is None and time.perf_counter() - begin < seconds:
        time.sleep(POLL)
    process.send_signal(signal.SIGKILL)
    if process.wait() == 0:
        return None
    if process.returncode != -signal.SIGKILL:
        log.seek(0)
        sys.exit(f"the same command failed with {process.returncode}: {log.read()[-500:].decode(errors='replace')}")
    hidden = sum(any(part.startswith(".") for part in path.relative_to(folder).parts) for path in folder.rglob("*"))
    shown = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    shown = [name for name in shown if not any(part.startswith(".") for part in Path(name).parts)]
    return f"{hidden} hidden, {', '.join(shown[:4]) or 'nothing else'}{', …' if len(shown) > 4 else ''}"


def torment(name, command, folder, kills, rng):
    """Returns problems, a line each."""
    whole, killed = folder / "whole" / name, folder / "killed" / name
    for place in (whole, killed):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    # one level up for both, so that commands are the same words
    for place in (whole.parent, killed.parent):
        for given in ("scene", "other", "patches", "list.csv", "start.safetensors"):
            if (folder / given).exists() and not (place / given).exists():
                (place / given).symlink_to(folder / given)
    with (folder / "log").open("w+b") as log:
        begin = time.perf_counter()
        if start(command, whole, log).wait(PATIENCE):
            log.seek(0)
            sys.exit(f"{name}: {log.read()[-500:].decode(errors='replace')}")
        alone = time.perf_counter() - begin
        print(f"{name}, alone {alone:.1f} s\n| kill | then there were |\n|---|---|", flush=True)
        problems, ends, done = compare(command, whole, whole), 0, 0
        while True:
            last = done >= kills
            found = kill(command, killed, PATIENCE if last else rng.uniform(0.1, 0.9) * alone, log)
            if found is None:
                problems += compare(command, killed, whole)
                ends += 1
                if last:
                    break
                shutil.rmtree(killed)
                killed.mkdir()
                continue
            done += 1
            print(f"| {done} | {found} |", flush=True)
            if not compare(command, killed, whole):  # all was done but the program's leaving
                ends += 1
                shutil.rmtree(killed)
                killed.mkdir()
    print(f"{name}: {done} SIGKILLs, {ends} ends: {'DIFFERENT' if problems else 'the same bytes'}", flush=True)
    return [f"{name}: {line}" for line in problems]


def prepare(folder, size):
    for seed, place in enumerate(("scene", "other")):
        if not (folder / place).exists():
            words = ["-m", "ksdiff_cli", "simulate", "-o", place, "--size", str(size), "--seed", str(seed), "-q"]
            run(words, folder)
    if not (folder / "start.safetensors").exists():
        run(["-c", SMALL, "start.safetensors"], folder)
    if not (folder / "patches").exists():
        words = ["-m", "ksdiff_cli", "prepare-data", "scene", "-o", "patches", "--patch", "32", "-q"]
        run(words, folder, stdout=subprocess.DEVNULL)
    # a mosaic needs one grid, which scenes of other seeds do not have
    lines = [f"scene/pan.tif,scene/ms.tif,{name}" for name in ("one", "two", "three")]
    (folder / "list.csv").write_text("\n".join(["pan,ms,name", *lines, ""]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", choices=[[], *COMMANDS], default=[])
    parser.add_argument("--kills", type=int, default=10, help="of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--size", type=int, default=768, help="PAN pixels along a side")
    parser.add_argument("--folder", type=Path, help="where the scenes are, or will be; kept")
    options = parser.parse_args()
    rng, problems = random.Random(options.seed), []
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as name:
        folder = Path(name).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder, options.size)
        for name in options.commands or COMMANDS:
            problems += torment(name, COMMANDS[name], folder, options.kills, rng)
    print("\n".join(problems))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
