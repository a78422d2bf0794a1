"""Positive controls of membership and memorisation on real radiographs: systems that have learned images by heart.

Membership is asked of an auto-encoder that saw the images of a few patients of S again and again; memorisation is asked
of releases in which every fifth image is a training image of S, changed as filters of copies are known to miss: noise,
blur, a shift or a mirror image. The other images are real ones of the judged role, which no generator has seen. Lines
go to ``controls.jsonl``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from gmia_monai.attacks import AttackerKnowledge, Judged
from gmia_monai.attacks.attackers import make_attackers
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.membership import MembershipAttack
from gmia_monai.attacks.memorisation import MemorisationAttack
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.shadow import AutoencoderTrainer
from gmia_monai.attacks.training import Schedule
from gmia_monai.data import load_cohort
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import GmiaError
from gmia_monai.evaluation.read import read_real
from gmia_monai.evaluation.suite import attacker_weights
from gmia_monai.metrics.results import Result, RunContext, append_results
from gmia_monai.networks.pretrained import load_recorded

EVERY = 5
CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "exact": lambda x, rng: x,
    "noise": lambda x, rng: x + 0.05 * rng.standard_normal(x.shape),
    "blur": lambda x, rng: gaussian_filter(x, (0, 0, 1, 1)),
    "shift": lambda x, rng: np.roll(x, (2, 2), axis=(2, 3)),
    "mirror": lambda x, rng: x[..., ::-1],
}


def membership_control(parts: dict[str, RealImages], steps: int, n_boot: int, context: RunContext) -> list[Result]:
    """Lines of the membership attack on an auto-encoder that has its members by heart."""
    members = parts["members"]
    reconstruct = AutoencoderTrainer(Schedule(steps, 2e-3, 0.0))(members.pixels, context.seed)

    def released(real: RealImages) -> Judged:
        pixels = reconstruct(real.pixels)
        return Judged(real, Release(context.system, pixels, tuple((i,) for i in range(len(real)))))

    known = AttackerKnowledge(
        parts["training"], released(parts["own"]), released(parts["choice"]), members=released(members)
    )
    attack = MembershipAttack(seeds=(context.seed,), n_boot=n_boot)
    attack.fit(known)
    return attack.score(released(parts["judged"]), context)


def planted(real: RealImages, training: RealImages, change: str, seed: int) -> Release:
    """Real images that no generator saw, every fifth exchanged for a changed training image."""
    rng = np.random.default_rng(seed)
    places = np.arange(0, len(real), EVERY)
    copies = training.pixels[rng.choice(len(training), len(places), replace=False)]
    pixels = real.pixels.copy()
    pixels[places] = np.clip(CHANGES[change](copies, rng), 0, 1)
    return Release(f"planted copies, {change}", pixels, ((),) * len(pixels))


def memorisation_control(
    parts: dict[str, RealImages], models: Path, n_boot: int, command: str, seed: int
) -> list[Result]:
    """Lines of the memorisation attack on releases with planted copies of each kind."""
    frozen = NetworkEmbedder(load_recorded(models, "identity"))

    def untouched(real: RealImages) -> Judged:
        return Judged(real, Release("real", real.pixels, ((),) * len(real)))

    known = AttackerKnowledge(parts["training"], untouched(parts["own"]), untouched(parts["choice"]), frozen)
    pool = AttackerPool(make_attackers(["frozen", "arcface"], attacker_weights(models, "arcface")))
    attack = MemorisationAttack(pool, (seed,), n_boot)
    attack.fit(known)
    lines = []
    for change in CHANGES:
        release = planted(parts["judged"], parts["system"], change, seed)
        context = RunContext(release.system, "cxr64", seed, release.content_hash[:16], command=command)
        lines += attack.score(Judged(parts["judged"], release), context)
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Runs both controls and writes their lines; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, default=os.environ.get("GMIA_CXR_DIR"), help="the radiographs")
    parser.add_argument("--models_dir", type=Path, default=Path("bundle/models"), help="weights of the attackers")
    parser.add_argument("--results", type=Path, default=Path("bundle/docs/results/controls.jsonl"))
    parser.add_argument("--members", type=int, default=600, help="images that the auto-encoder has by heart (600)")
    parser.add_argument("--steps", type=int, default=3000, help="its updates (3000)")
    parser.add_argument("--n_boot", type=int, default=500, help="bootstrap resamples (500)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.dataset_dir is None:
        parser.error("give --dataset_dir, or set GMIA_CXR_DIR")
    shown = " ".join(f"--{key} {getattr(options, key)}" for key in ("members", "steps", "n_boot", "seed"))
    command = f"python scripts/check_controls.py --dataset_dir $GMIA_CXR_DIR {shown}"
    try:
        cohort = load_cohort(None, options.dataset_dir, 64)
        training = read_real(cohort.role("S+A"), 64)
        system = cohort.role("S").core()
        roles = {"system": system, "members": system.sample(options.members), "own": cohort.role("A").core()}
        roles |= {"choice": cohort.role("V2").core(), "judged": cohort.role("T").core()}
        parts = {"training": training} | {name: read_real(part, 64, known=training) for name, part in roles.items()}
        context = RunContext("auto-encoder, by heart", "cxr64", options.seed, command=command)
        lines = membership_control(parts, options.steps, options.n_boot, context)
        lines += memorisation_control(parts, options.models_dir, options.n_boot, command, options.seed)
        append_results(options.results, lines)
    except GmiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    for line in lines:
        print(line.system, line.name, line.value, line.low, line.high, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
