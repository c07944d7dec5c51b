"""Train and measure rows of the paper's tables at one budget, and print ours beside the paper's.

    python tests/benchmarks/paper_tables.py --data patches -o tables [--rows pannextu pannextu+ksdiff] [--steps 2000] [--seeds 0 1 2]

Every row is trained by `ksdiff train` and measured by `ksdiff evaluate` as a second process, on the same patches and
with the same number of optimiser steps in all: a row with the prior spends half of them in stage 1, half in stage 2. A
row that is done stays as it is, its weights and its values image by image too; a killed one goes on, so that the table
can grow over days. Without ``--rows`` the table of what is there is printed and nothing is trained.

Figures are means over the images, of the mean over seeds, ± their deviation over the images. The interval (95 %,
bootstrap over the images) is that of the difference from the row's base, image by image: of ``X+ksdiff`` from ``X``, of
all others from ``pannextu+ksdiff``. With several seeds a column says how far means differ between them. Where the data
have full-resolution images (full.h5), the right half of Table 1 follows. The diffusion peers take minutes an image: they
are measured on ``--peer-images`` of them, and KSDiff on the same ones beside them. Parameters are those of the weights
that sharpen; seconds an image come from one run over all rows.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, pstdev, stdev

import h5py
import numpy as np

from ksdiff_cli.evaluation.results import compare

METRICS = ("SAM", "ERGAS", "Q2n", "SCC")
FULL = ("D_lambda", "D_s", "HQNR")
MODULATED = ("pannextu", "dicnn", "fusionnet", "lagnet", "pannet")
PLAIN = (*MODULATED, "pnn", "msdcnn", "dcfnet", "mmnet", "ctinn", "hfin")
PEERS = ("pixel-diffusion", "plrdiff")
CLASSICAL = ("exp", "brovey", "gsa", "bdsd-pc", "mtf-glp-fs", "bt-h", "mtf-glp-hpm-r", "awlp", "pracs")
OURS = "pannextu+ksdiff"
RANKS = ("4,4,1,1", "4,4,2,2", "8,8,1,1", "8,8,2,2", "16,16,1,1", "16,16,2,2")

# What `ksdiff train` is given. One line adds a row.
ROWS: dict[str, tuple[str, ...]] = {
    **{name: ("--backbone", name, "--no-prior") for name in PLAIN},
    **{f"{name}+ksdiff": ("--backbone", name) for name in MODULATED},
    "entangled": ("--encoder", "entangled"),
    "mlp": ("--structure", "mlp"),
    "separate": ("--separate",),
    "random-t": ("--recipe", "random-t"),
    "warm-up": ("--warm-up", "0.2"),
    # Table 6 is of FusionNet; its (16,16,2,2) is Table 5's FusionNet+KSDiff, ours is (4,4,2,2)
    **{f"fusionnet+ksdiff {rank}": ("--backbone", "fusionnet", "--rank", rank) for rank in RANKS},
    **{name: ("--model", name) for name in PEERS},
}
# The same weights with another z: (row, whose weights, --prior).
PRIORS = {
    "true z (stage 1)": ("stage1", "true"),
    "z of another image": ("stage2", "shuffled"),
    "mean z of the others": ("stage2", "mean"),
    "z zero": ("stage2", "zero"),
}
# WorldView-3, reduced resolution, means (paper, Tables 1, 4, 5, 6; v1).
PAPER: dict[str, tuple[float, ...]] = {
    "bdsd-pc": (5.4675, 4.6549, 0.8117, 0.9049),
    "mtf-glp-fs": (5.3233, 4.6452, 0.8177, 0.8984),
    "bt-h": (4.8985, 4.5150, 0.8182, 0.9240),
    "pnn": (3.6798, 2.6819, 0.8929, 0.9761),
    "dicnn": (3.5929, 2.6733, 0.9004, 0.9763),
    "dicnn+ksdiff": (3.4534, 2.5623, 0.9037, 0.9785),
    "msdcnn": (3.7773, 2.7608, 0.8900, 0.9741),
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
    "pixel-diffusion": (3.2968, 2.4647, 0.8935, 0.9860),
    "entangled": (2.9419, 2.1767, 0.9139, 0.9844),
    "separate": (2.9149, 2.1677, 0.9141, 0.9851),
    "fusionnet+ksdiff 4,4,1,1": (3.0921, 2.2896, 0.9104, 0.9833),
    "fusionnet+ksdiff 4,4,2,2": (3.0622, 2.2725, 0.9111, 0.9837),
    "fusionnet+ksdiff 8,8,1,1": (3.1275, 2.3009, 0.9057, 0.9828),
    "fusionnet+ksdiff 8,8,2,2": (3.1040, 2.2988, 0.9096, 0.9833),
    "fusionnet+ksdiff 16,16,1,1": (3.1520, 2.3146, 0.9052, 0.9827),
    "fusionnet+ksdiff 16,16,2,2": (3.1475, 2.3106, 0.9055, 0.9829),
}
# The same, full resolution (Table 1).
PAPER_FULL: dict[str, tuple[float, ...]] = {
    "bdsd-pc": (0.0625, 0.0730, 0.8698),
    "mtf-glp-fs": (0.0206, 0.0630, 0.9180),
    "bt-h": (0.0574, 0.0810, 0.8670),
    "pnn": (0.0213, 0.0428, 0.9369),
    "dicnn": (0.0362, 0.0426, 0.9195),
    "msdcnn": (0.0230, 0.0467, 0.9316),
    "fusionnet": (0.0239, 0.0364, 0.9406),
    "ctinn": (0.0550, 0.0679, 0.8815),
    "lagnet": (0.0368, 0.0418, 0.9230),
    "mmnet": (0.0540, 0.0336, 0.9143),
    "dcfnet": (0.0781, 0.0508, 0.8771),
    "hfin": (0.0253, 0.0431, 0.9343),
    "pixel-diffusion": (0.0273, 0.0542, 0.9203),
    "plrdiff": (0.1796, 0.1037, 0.7361),
    "pannextu+ksdiff": (0.0230, 0.0327, 0.9464),
}


def ksdiff(*words):
    """Run a ksdiff command as a process of its own; return what it prints."""
    command = [sys.executable, "-m", "ksdiff_cli", *map(str, words)]
    print("+ ksdiff", *map(str, words), file=sys.stderr, flush=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def weights(run, row):
    """The file that a row is measured by."""
    if "--model" in ROWS[row]:
        return run / f"{row}.safetensors"
    return run / f"stage{1 if '--no-prior' in ROWS[row] else 2}.safetensors"


def folder(options, row, seed):
    return options.output / f"{options.steps} steps" / row / f"seed {seed}"


def base_of(row):
    """The row whose figures are taken from this one's."""
    return row.removesuffix("+ksdiff") if row.endswith("+ksdiff") else OURS


def train(options, row, seed):
    """Train a row unless its weights are there; go on where a killed run stopped."""
    run = folder(options, row, seed)
    if weights(run, row).exists():
        return
    staged = not {"--no-prior", "--model"} & set(ROWS[row])
    stages = ("--stage", "all" if staged else "1")
    steps = max(1, options.steps // 2) if staged else options.steps
    common = ("--data", options.data, "-o", run, "--steps", steps, "--batch", options.batch, "--seed", seed)
    ksdiff("train", *stages, *ROWS[row], *common, "--threads", options.threads, "-q", "--resume")


def measure(options, kept, chosen, files, full=False):
    """{method: {metric: [one value an image]}} of one run of `ksdiff evaluate`; kept in a CSV file."""
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        protocol = ("--protocol", "full" if full else "reduced")
        ksdiff("evaluate", *files, *chosen, *protocol, "--device", options.device, "--csv", kept, "--json", "-q")
    found: dict[str, dict[str, list[float]]] = {}
    with kept.open() as file:
        for line in csv.DictReader(file):
            for metric in FULL if full else METRICS:
                values = found.setdefault(line["method"], {}).setdefault(metric, [])
                values.append(float(line[metric] or "nan"))
    return found


def measure_row(options, file, files, prior="own", name="", full=False):
    """The same of a row's weights alone."""
    kept = file.with_name(f"{file.stem} {name or prior}{' full' if full else ''}.csv")
    chosen = ("--checkpoint", file, "--method", "exp", *(() if full else ("--prior", prior)))
    found = measure(options, kept, chosen, files, full)
    (values,) = (values for method, values in found.items() if method != "exp")
    return values


def count_images(files):
    total = 0
    for path in files:
        with h5py.File(path) as file:
            total += len(file["pan"])
    return total


def cut_few(options):
    """A file of a few of the images, spread over the first file that has small ones: the peers take minutes each."""
    path = options.output / f"{options.peer_images} images.h5"
    source = min(options.held_out, key=lambda name: h5py.File(name)["pan"].shape[-1])
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(source) as file, h5py.File(path, "w") as few:
            count = len(file["pan"])
            chosen = np.unique(np.linspace(0, count - 1, min(options.peer_images, count)).round().astype(int))
            for key, array in file.items():
                few[key] = array[()][chosen] if len(array) == count else array[()]
            for name, value in file.attrs.items():
                few.attrs[name] = value
    return path


def count_parameters(file):
    from ksdiff_cli.models.checkpoint import load_model

    return sum(parameter.numel() for parameter in load_model(file, "cpu")[0].parameters())


def time_rows(options, files):
    """Seconds an image of every row, all in one run over the test images."""
    chosen = [word for file in files.values() for word in ("--checkpoint", file)]
    found = json.loads(ksdiff("evaluate", options.held_out[0], *chosen, "--method", "exp", "--json", "-q"))["methods"]
    return {row: found[str(file)]["runtime_s"] for row, file in files.items() if str(file) in found}


def gather(options, full=False):
    """{row: ([{metric: [value an image]} of each seed], file of one seed or None)}, the classical methods first."""
    files = [options.full] if full else options.held_out
    methods = [word for name in CLASSICAL for word in ("--method", name)]
    kept = options.output / f"classical{' full' if full else ''}.csv"
    found = measure(options, kept, methods, files, full)
    table = {name: ([found[name]], None) for name in CLASSICAL}
    for row in ROWS:
        own = [weights(folder(options, row, seed), row) for seed in options.seeds]
        own = [file for file in own if file.exists()]
        if not own or row in PEERS:
            continue
        table[row] = [measure_row(options, file, files, full=full) for file in own], own[0]
        if row == OURS and not full:
            for name, (stage, prior) in PRIORS.items():
                if prior in ("shuffled", "mean") and count_images(files) < 2:
                    continue  # there is no other image
                if prior == "mean" and any(count_images([file]) < 2 for file in files):
                    continue
                stages = [file.with_name(f"{stage}.safetensors") for file in own]
                table[f"  {name}"] = [measure_row(options, file, files, prior) for file in stages], None
    return table


def gather_peers(options):
    """The diffusion peers on a few images, and KSDiff on the same ones."""
    few, table = cut_few(options), {}
    for row in (*PEERS, OURS):
        own = [weights(folder(options, row, seed), row) for seed in options.seeds]
        own = [file for file in own if file.exists()]
        if own:
            values = [measure_row(options, file, [few], name=few.stem) for file in own]
            table[row if row in PEERS else f"{row}, the same images"] = values, own[0]
    return table


def over_seeds(seeds, metric):
    """One value an image: the mean over seeds."""
    return [mean(values) for values in zip(*(each[metric] for each in seeds), strict=True)]


def print_table(options, title, table, metrics, paper):
    """Print a Markdown table; see the top of this file."""
    files = {row: file for row, (_, file) in table.items() if file is not None and row in ROWS and row not in PEERS}
    runtimes = time_rows(options, files) if options.time and metrics == METRICS else {}
    several = len(options.seeds) > 1
    judge = "ERGAS" if "ERGAS" in metrics else "HQNR"
    heads = ["row", *metrics, f"{judge} less that of", *([f"{judge} over seeds"] if several else [])]
    heads += ["parameters", "s/image", f"paper (WV3): {' / '.join(metrics)}"]
    print(f"\n{title}\n\n|", " | ".join(heads), "|")
    print("|---" * len(heads) + "|")
    for row, (seeds, file) in table.items():
        cells = []
        for name in metrics:
            values = [value for value in over_seeds(seeds, name) if value == value]
            cells.append(f"{mean(values):.4f} ± {pstdev(values):.4f}" if values else "undefined")
        cells.append(difference(table, row, judge))
        if several:
            means = [mean(each[judge]) for each in seeds]
            cells.append(f"± {stdev(means):.4f} ({len(means)})" if len(means) > 1 else "1 seed")
        cells.append(f"{count_parameters(file) / 1e6:.3f} M" if file else "")
        cells.append(f"{runtimes[row]:.3f}" if row in runtimes else "")
        cells.append(" / ".join(f"{value:.4f}" for value in paper.get(row, ())))
        print("|", row.replace("  ", "&nbsp; "), "|", " | ".join(cells), "|")


def difference(table, row, metric):
    """``base: mean [low, high]``, image by image; empty without a base or with a single image."""
    base = OURS if row in CLASSICAL or row.startswith("  ") else base_of(row)
    if base == row or base not in table:
        return ""
    pair = {name: {metric: over_seeds(table[name][0], metric)} for name in (row, base)}
    found = compare(pair)[row].get(metric)
    return f"{base}: {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]" if found else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder made by prepare-data")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of all runs and their figures")
    parser.add_argument("--rows", nargs="*", default=[], choices=list(ROWS), metavar="ROW", help="; ".join(ROWS))
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps of a row in all")
    parser.add_argument("--batch", type=int, default=16, help="patches a step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads while training")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--time", action="store_true", help="also time all rows, in one run")
    parser.add_argument("--peer-images", type=int, default=0, help="measure the diffusion peers on so many images")
    parser.add_argument("--held-out", type=Path, nargs="+", help="files to measure on; default: test.h5 of the data")
    options = parser.parse_args()
    options.held_out = options.held_out or [options.data / "test.h5"]
    options.full = options.data / "full.h5"
    for seed in options.seeds:
        for row in options.rows:
            train(options, row, seed)
            if row not in PEERS:
                measure_row(options, weights(folder(options, row, seed), row), options.held_out)
    budget = f"{options.steps} steps in all, batch {options.batch}, {options.threads} thread(s)"
    title = f"{options.data.name}: {budget}; {count_images(options.held_out)} images"
    print_table(options, title, gather(options), METRICS, PAPER)
    if options.full.exists() and count_images([options.full]):
        title = f"Full resolution, {count_images([options.full])} images"
        print_table(options, title, gather(options, full=True), FULL, PAPER_FULL)
    if options.peer_images:
        peers = gather_peers(options)
        print_table(options, f"Diffusion peers, {options.peer_images} images", peers, METRICS, PAPER)
        if "plrdiff" in peers:
            print(
                "\nplrdiff: with a small U-Net in place of the published prior of 391 million parameters, which is not to be had."
            )


if __name__ == "__main__":
    main()
