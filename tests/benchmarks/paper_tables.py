"""Train and evaluate rows of the paper's tables at one budget, and print ours beside the paper's.

    python tests/benchmarks/paper_tables.py --data patches -o tables [--rows pannextu pannextu+ksdiff] [--steps 2000] [--seeds 0 1 2]

Every row is trained by ``ksdiff train`` and measured by ``ksdiff evaluate`` as a second process, on the same patches and
with the same number of optimiser steps in all: a row with the prior spends half of them in stage 1, half in stage 2. A
row that is done stays as it is, a killed one goes on, so that the table can grow over days; without ``--rows`` the table
of what is there is printed and nothing is trained. Parameters are those of the weights that sharpen; seconds an image
come from one run over all rows.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

METRICS = ("SAM", "ERGAS", "Q2n", "SCC")
MODULATED = ("pannextu", "dicnn", "fusionnet", "lagnet", "pannet")
PLAIN = (*MODULATED, "pnn", "msdcnn", "dcfnet", "mmnet", "ctinn", "hfin")
PEERS = ("pixel-diffusion", "plrdiff")
CLASSICAL = ("exp", "brovey", "gsa", "bdsd-pc", "mtf-glp-fs", "bt-h", "mtf-glp-hpm-r", "awlp", "pracs")

# What `ksdiff train` is given. One line adds a row.
ROWS: dict[str, tuple[str, ...]] = {
    **{name: ("--backbone", name, "--no-prior") for name in PLAIN},
    **{f"{name}+ksdiff": ("--backbone", name) for name in MODULATED},
    "entangled": ("--encoder", "entangled"),
    "mlp": ("--structure", "mlp"),
    "separate": ("--separate",),
    "random-t": ("--recipe", "random-t"),
    "warm-up": ("--warm-up", "0.2"),
    **{f"rank {rank}": ("--rank", rank) for rank in ("4,4,1,1", "8,8,1,1", "8,8,2,2", "16,16,1,1", "16,16,2,2")},
    **{name: ("--model", name) for name in PEERS},
}
# The same weights with another z: (row, whose weights, --prior).
PRIORS = {
    "true z (stage 1)": ("stage1", "true"),
    "z shuffled": ("stage2", "shuffled"),
    "z zero": ("stage2", "zero"),
}
# WorldView-3, reduced resolution, means (paper, Tables 1, 4, 5; v1). Table 6 is of FusionNet and has no such row here.
PAPER: dict[str, tuple[float, ...]] = {
    "bt-h": (4.8985, 4.5150, 0.8182, 0.9240),
    "pnn": (3.6798, 2.6819, 0.8929, 0.9761),
    "dicnn": (3.5929, 2.6733, 0.9004, 0.9763),
    "dicnn+ksdiff": (3.4534, 2.5623, 0.9037, 0.9785),
    "fusionnet": (3.3252, 2.4666, 0.9044, 0.9807),
    "fusionnet+ksdiff": (3.1475, 2.3106, 0.9055, 0.9829),
    "lagnet": (3.1042, 2.2999, 0.9098, 0.9830),
    "lagnet+ksdiff": (3.0023, 2.2314, 0.9122, 0.9835),
    "pannextu": (2.9515, 2.2204, 0.9135, 0.9841),
    "pannextu+ksdiff": (2.8268, 2.0881, 0.9166, 0.9871),
    "dcfnet": (3.0264, 2.1588, 0.9051, 0.9861),
    "mmnet": (3.0844, 2.3428, 0.9155, 0.9829),
    "ctinn": (3.2523, 2.3936, 0.9056, 0.9826),
    "hfin": (3.0826, 2.3112, 0.9121, 0.9842),
    "plrdiff": (4.3704, 3.4408, 0.8539, 0.9215),
    "entangled": (2.9419, 2.1767, 0.9139, 0.9844),
    "separate": (2.9149, 2.1677, 0.9141, 0.9851),
    "pixel-diffusion": (3.2968, 2.4647, 0.8935, 0.9860),
}


def ksdiff(*words):
    """Run a ksdiff command as a process of its own; return what it prints."""
    command = [sys.executable, "-m", "ksdiff_cli", *map(str, words)]
    print("+ ksdiff", *words[:1], *map(str, words[1:]), file=sys.stderr, flush=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def weights(run, row):
    """The file that a row is measured by."""
    if "--model" in ROWS[row]:
        return run / f"{row}.safetensors"
    return run / f"stage{1 if '--no-prior' in ROWS[row] else 2}.safetensors"


def folder(options, row, seed):
    return options.output / f"{options.steps} steps" / row / f"seed {seed}"


def train(options, row, seed):
    """Train a row unless its weights are there; go on where a killed run stopped."""
    run = folder(options, row, seed)
    if weights(run, row).exists():
        return
    staged = not {"--no-prior", "--model"} & set(ROWS[row])
    stages = ("--stage", "all" if staged else "1")
    steps = options.steps // 2 if staged else options.steps
    common = ("--data", options.data, "-o", run, "--steps", steps, "--seed", seed, "--threads", options.threads, "-q")
    ksdiff("train", *stages, *ROWS[row], *common, "--resume")


def measure(options, file, prior="own"):
    """{metric: mean over images} of a file's weights; kept beside them."""
    kept = file.with_name(f"{file.stem} {prior}.json")
    if not kept.exists():
        chosen = ("--checkpoint", file, "--method", "exp", "--prior", prior, "--device", options.device)
        found = json.loads(ksdiff("evaluate", *options.held_out, *chosen, "--json", "-q"))["methods"]
        (values,) = (value for name, value in found.items() if name != "exp")
        kept.write_text(json.dumps({name: values[name]["mean"] for name in METRICS}))
    return json.loads(kept.read_text())


def count_parameters(file):
    from ksdiff_cli.models.checkpoint import load_model

    return sum(parameter.numel() for parameter in load_model(file, "cpu")[0].parameters())


def time_rows(options, files):
    """Seconds an image of every row, all in one run over the test images."""
    chosen = [word for file in files.values() for word in ("--checkpoint", file)]
    found = json.loads(ksdiff("evaluate", options.held_out[0], *chosen, "--method", "exp", "--json", "-q"))["methods"]
    return {row: found[str(file)]["runtime_s"] for row, file in files.items()}


def gather(options):
    """{row: ([{metric: value} of each seed], file of one seed or None)}, the classical methods first."""
    kept = options.output / "classical.json"
    if not kept.exists():
        methods = [word for name in CLASSICAL for word in ("--method", name)]
        kept.parent.mkdir(parents=True, exist_ok=True)
        found = json.loads(ksdiff("evaluate", *options.held_out, *methods, "--json", "-q"))["methods"]
        kept.write_text(json.dumps({name: {key: found[name][key]["mean"] for key in METRICS} for name in CLASSICAL}))
    table = {name: ([values], None) for name, values in json.loads(kept.read_text()).items()}
    for row in ROWS:
        files = [weights(folder(options, row, seed), row) for seed in options.seeds]
        files = [file for file in files if file.exists()]
        if row in PEERS and not options.measure_pixels:  # minutes an image
            files = [file for file in files if file.with_name(f"{file.stem} own.json").exists()]
        if files:
            table[row] = [measure(options, file) for file in files], files[0]
        if files and row == "pannextu+ksdiff":
            for name, (stage, prior) in PRIORS.items():
                own = [file.with_name(f"{stage}.safetensors") for file in files]
                table[f"  {name}"] = [measure(options, file, prior) for file in own], None
    return table


def print_table(options, table):
    """Print a Markdown table: mean, and deviation over seeds where there are several."""
    files = {row: file for row, (_, file) in table.items() if file is not None and row not in PEERS}
    runtimes = time_rows(options, files) if options.time else {}
    print(f"\n{options.data.name}: {options.steps} steps in all, batch 16, {options.threads} thread(s)\n")
    print("| row | seeds |", " | ".join(METRICS), "| parameters | s/image | paper (WV3):", " / ".join(METRICS), "|")
    print("|---" * (5 + len(METRICS)) + "|")
    for row, (seeds, file) in table.items():
        cells = []
        for name in METRICS:
            values = [value[name] for value in seeds]
            spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.4f}{spread}")
        parameters = f"{count_parameters(file) / 1e6:.3f} M" if file else ""
        runtime = f"{runtimes[row]:.3f}" if row in runtimes else ""
        paper = " / ".join(f"{value:.4f}" for value in PAPER.get(row, ()))
        print("|", row, "|", len(seeds), "|", " | ".join(cells), "|", parameters, "|", runtime, "|", paper, "|")
    if "plrdiff" in table:
        print(
            "\nplrdiff: with a small U-Net in place of the published prior of 391 million parameters, which is not to be had."
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder made by prepare-data")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of all runs and their figures")
    parser.add_argument("--rows", nargs="*", default=[], choices=list(ROWS), metavar="ROW", help="; ".join(ROWS))
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps of a row in all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads while training")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--time", action="store_true", help="also time all rows, in one run")
    parser.add_argument("--measure-pixels", action="store_true", help="sample the diffusion peers on all images: hours")
    parser.add_argument("--held-out", type=Path, nargs="+", help="files to measure on; default: test.h5 of the data")
    options = parser.parse_args()
    options.held_out = options.held_out or [options.data / "test.h5"]
    for seed in options.seeds:
        for row in options.rows:
            train(options, row, seed)
            if row not in PEERS:
                measure(options, weights(folder(options, row, seed), row))
    print_table(options, gather(options))


if __name__ == "__main__":
    main()
