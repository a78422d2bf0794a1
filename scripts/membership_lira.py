"""Membership of one small auto-encoder: the likelihood-ratio attack (LiRA) beside the loss, on real radiographs.

All models are alike and learn from half of the patients of the roles S and A each; the judged one is one of them. What
each model answers (the logarithm of its error on every image) is kept in the output folder, so that a run that was
stopped goes on where it was. Result lines go to ``membership.jsonl``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from gmia_monai.attacks.lira import fit_lira, lira_scores
from gmia_monai.attacks.membership import membership_lines
from gmia_monai.attacks.membership_signals import PAIR_FEATURES, difficulty, pair_features
from gmia_monai.attacks.shadow import AutoencoderTrainer, patient_halves
from gmia_monai.attacks.training import Schedule
from gmia_monai.data import Cohort, load_cohort
from gmia_monai.errors import GmiaError
from gmia_monai.evaluation.read import read_real
from gmia_monai.metrics.results import Result, RunContext, append_results

MSE = PAIR_FEATURES.index("log_mse")


def some_patients(cohort: Cohort, n_patients: int, seed: int) -> Cohort:
    """The core list of some of the patients, drawn by the seed."""
    core = cohort.core()
    drawn = np.random.default_rng(seed).permutation(len(core.patients))[: n_patients or None]
    return core[np.isin(core.patient_index, drawn)]


def log_errors(options: argparse.Namespace, pixels: np.ndarray, learned: np.ndarray, folder: Path) -> np.ndarray:
    """Answer of each model to each image, ``[models, images]``; models whose answers are kept are not trained again."""
    trainer = AutoencoderTrainer(Schedule(options.steps, 2e-3, 0.0), device=options.device)
    answers = np.empty(learned.shape)
    folder.mkdir(parents=True, exist_ok=True)
    for i, inside in enumerate(learned):
        kept, started = folder / f"model_{i:03d}.npy", time.monotonic()
        if not kept.exists():
            reconstruct = trainer(pixels[inside], options.seed * len(learned) + i)
            part = kept.with_suffix(".part.npy")
            np.save(part, pair_features(pixels, reconstruct(pixels))[:, MSE])
            part.replace(kept)
        answers[i] = np.load(kept)
        gap = float(answers[i][~inside].mean() - answers[i][inside].mean()) * 10 / np.log(10)
        print(f"model {i + 1} of {len(learned)}: gap {gap:.2f} dB, {time.monotonic() - started:.0f} s", flush=True)
    return answers


def lines(
    answers: np.ndarray, learned: np.ndarray, patients: np.ndarray, context: RunContext, extra: dict[str, object]
) -> list[Result]:
    """LiRA, loss and calibrated loss against the last model, with the others as shadows."""
    judged, member, answers, learned = answers[-1], learned[-1], answers[:-1], learned[:-1]
    signals = {
        "lira": lira_scores(fit_lira(answers, learned), judged),
        "loss_pixels": -judged,
        "loss_calibrated": difficulty(answers, learned) - judged,
    }
    return [
        line
        for name, scores in signals.items()
        for line in membership_lines(name, [scores], member, patients, context, 500, extra)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Trains what is missing and writes the lines; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True, help="development radiographs (GMIA_CXR_DIR)")
    parser.add_argument("--output_dir", type=Path, default=Path("output/membership"), help="answers of the models")
    parser.add_argument("--docs_dir", type=Path, default=Path("bundle/docs"), help="result lines")
    parser.add_argument("--n_shadows", type=int, default=16, help="shadow models, an even number (16)")
    parser.add_argument("--max_patients", type=int, default=0, help="patients of S and A together (0: all)")
    parser.add_argument("--steps", type=int, default=1000, help="updates of each model (1000)")
    parser.add_argument("--image_size", type=int, default=32, help="pixels (32)")
    parser.add_argument("--seed", type=int, default=0, help="of patients, halves and models (0)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        cohort = load_cohort(dataset_dir=options.dataset_dir, image_size=64).role("S+A")
        part = some_patients(cohort, options.max_patients, options.seed)
        patients = np.array([record.patient_id for record in part])
        # One pair more than there are shadows; the judged model is the first of it.
        learned = patient_halves(patients, options.n_shadows + 2, options.seed)[:-1]
        settings = {k: getattr(options, k) for k in ("n_shadows", "max_patients", "steps", "image_size", "seed")}
        text = json.dumps([settings, [record.key for record in part]])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        answers = log_errors(options, read_real(part, options.image_size).pixels, learned, options.output_dir / digest)
        # The folder of the data is a path of one machine; the command shall run on any.
        words = sys.argv[1:] if arguments is None else arguments
        command = ["$GMIA_CXR_DIR" if word == options.dataset_dir else word for word in words]
        context = RunContext(
            system="small auto-encoder",
            profile=f"cxr{options.image_size}",
            seed=options.seed,
            config_hash=digest,
            command=" ".join(["python", "scripts/membership_lira.py", *command]),
        )
        gap = float(answers[-1][~learned[-1]].mean() - answers[-1][learned[-1]].mean()) * 10 / np.log(10)
        extra = {"n_shadows": options.n_shadows, "steps": options.steps, "gap_db": round(gap, 4)}
        results = lines(answers, learned, patients, context, extra)
    except GmiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    append_results(options.docs_dir / "results" / "membership.jsonl", results)
    for result in results:
        print(f"{result.name}  {result.value}  {result.low} to {result.high}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
