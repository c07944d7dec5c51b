"""Train the shipped weights: grounds through random camera chains, both stages, or the twin without a prior.

    python tests/benchmarks/weights/train.py DATA -o RUN --stage plain|1|2 --minutes M [--simulated WORLDS] [--init F]

Every step's batch is a function of the seed and the step. The state beside the weights lets a killed run go on.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from chains import Views, acquire
from grounds import draw, load_families

from ksdiff_cli import __version__
from ksdiff_cli.models.checkpoint import load_ksdiff, save_model
from ksdiff_cli.models.config import ModelConfig
from ksdiff_cli.models.contract import Inputs, Statistics
from ksdiff_cli.models.ksdiff import KSDiff, diffusion_loss

CROP, BORDER = 192, 8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--stage", choices=("plain", "1", "2"), required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int, default=None, help="end after so many steps instead")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--simulated", type=Path)
    parser.add_argument("--init", type=Path, help="stage 2: stage 1's weights; plain: weights to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="name=value of the configuration, JSON values")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    Trainer(args).run()


class Trainer:
    def __init__(self, args):
        self.args = args
        torch.manual_seed(args.seed)
        self.families = load_families(args.data, args.simulated)
        self.odds = np.array([family.share for family in self.families])
        self.odds /= self.odds.sum()
        values = {
            "backbone": "unrolled",
            "width": 32,
            "band_width": 16,
            "trunk_blocks": 2,
            "band_blocks": 1,
            "prior": args.stage != "plain",
        }
        values.update({name: json.loads(value) for name, value in (one.split("=") for one in args.set)})
        self.target = None
        stage = 1 if args.stage == "1" else 2
        if args.stage == "2":
            self.target, _ = load_ksdiff(args.init)
            self.target.eval().requires_grad_(False)
            config = self.target.config
        else:
            config = ModelConfig(**values)
        self.model = KSDiff(config, stage)
        source = self.target or (load_ksdiff(args.init)[0] if args.init else None)
        if source is not None:
            known = source.state_dict()
            self.model.load_state_dict({name: known.get(name, own) for name, own in self.model.state_dict().items()})
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), args.rate, weight_decay=1e-5, betas=(0.9, 0.99))
        self.step, self.elapsed, self.losses = 0, 0.0, {}
        self.state = args.output / f"stage-{args.stage}.state"
        if self.state.exists():
            saved = torch.load(self.state, weights_only=True)
            self.step, self.elapsed, self.average = saved["step"], saved["elapsed"], saved["average"]
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            print(f"goes on at step {self.step}", flush=True)

    @property
    def part(self):
        return self.step / self.args.steps if self.args.steps else self.elapsed / (60 * self.args.minutes)

    def run(self):
        print(f"{sum(p.numel() for p in self.model.parameters())} parameters", flush=True)
        self.args.output.mkdir(parents=True, exist_ok=True)
        while self.part < 1:
            begun = time.monotonic()
            self.advance()
            self.elapsed += time.monotonic() - begun
            if self.step % 100 == 0:
                told = {name: round(value, 4) for name, value in self.losses.items()}
                print(f"step {self.step} {self.elapsed / 60:.1f} min {told}", flush=True)
            if self.step % 500 == 0:
                self.save()
        self.save()

    def views(self, step: int) -> Views:
        random = np.random.default_rng((self.args.seed, step))
        family = self.families[int(random.choice(len(self.families), p=self.odds))]
        bands = family.images[0].shape[0]
        count = self.args.batch if bands <= 4 else max(2, self.args.batch * 4 // bands)
        return acquire(draw(family, count, random), random, CROP)

    def inputs(self, step: int) -> Inputs:
        with torch.no_grad():
            v = self.views(step)
            known = Statistics(v.pan_mean, v.pan_std, v.ms_mean, v.ms_std, v.cameras)
            return self.model.prepare(v.pan, v.observed, known, round(v.ratio), v.gt)

    def advance(self):
        inputs = self.inputs(self.step)
        torch.manual_seed(self.args.seed * 1_000_003 + self.step)
        rate = self.args.rate * min(1, (self.step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * min(1, self.part))) + 1e-6
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        z, losses = self.latent(inputs)
        fused = self.model(inputs, z)
        inside = (slice(None), slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
        wrong = (fused - inputs.G)[inside].abs().mean((1, 2, 3))
        spread = inputs.G[inside].std((1, 2, 3)).clamp_min(0.2)
        losses["regression"] = (wrong / spread).mean()
        loss = sum(losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()
        self.step += 1
        keep = min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
                else:
                    self.average[name].copy_(value)
        for name, value in losses.items():
            value = value.item()
            self.losses[name] = 0.98 * self.losses.get(name, value) + 0.02 * value

    def latent(self, inputs):
        if self.args.stage == "plain":
            return None, {}
        if self.args.stage == "1":
            z = self.model.truth_latent(inputs)
            return z + 0.1 * torch.randn_like(z), {}
        with torch.no_grad():
            z_0 = self.target.truth_latent(inputs)
        last = torch.full((len(z_0),), self.model.config.steps)
        predicted = self.model.sample(inputs, self.model.diffusion(z_0, last, torch.randn_like(z_0)))
        return predicted, {"diffusion": diffusion_loss(z_0, predicted)}

    def save(self):
        facts = {
            "data": [family.name for family in self.families],
            "steps": self.step,
            "losses": {name: round(value, 4) for name, value in self.losses.items()},
            "seed": self.args.seed,
            "version": __version__,
        }
        model = KSDiff(self.model.config, self.model.stage)
        model.load_state_dict(self.average)
        name = {"plain": "plain", "1": "stage1", "2": "stage2"}[self.args.stage]
        save_model(model, self.args.output / f"{name}.safetensors", sensor={}, training=facts)
        state = {
            "step": self.step,
            "elapsed": self.elapsed,
            "average": self.average,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.state)


if __name__ == "__main__":
    main()
