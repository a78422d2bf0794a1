"""Lets systems anonymize the protocol's roles and judges each with the whole suite; result lines go into the bundle.

Resumes: finished units of a system, refitted attackers and finished attacks are kept in the output folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gmia_monai.anonymizers import GMIA, ImageAnonymizer, Noise, Reconstruction, Shuffled, Unchanged, UnitStore
from gmia_monai.data import load_cohort
from gmia_monai.errors import GmiaError
from gmia_monai.evaluation.command import Judgement, evaluate_anonymizer
from gmia_monai.inferers import computes_bfloat16
from gmia_monai.metrics.results import append_results
from gmia_monai.report.evaluation import report_handlers


def _gmia(models: Path, device: str, **settings: Any) -> GMIA:
    """GMIA with larger steps than the published 0.01, with momentum; chosen on V1."""
    faster = {
        "bfloat16": computes_bfloat16(device),
        "compiled": device == "cpu" and shutil.which("g++") is not None,
    }
    shared: dict[str, Any] = {"lr": 0.15, "betas": [0.7, 0.99], "max_steps": 100, "unit_size": 64, **faster}
    return GMIA.from_weights(models, device=device, **(shared | settings))


SYSTEMS: dict[str, Callable[[Path, str], ImageAnonymizer]] = {
    "unchanged": lambda models, device: Unchanged(),
    "noise": lambda models, device: Noise(),
    "shuffled": lambda models, device: Shuffled(),
    "reconstruction": lambda models, device: Reconstruction.from_weights(models, device),
    # a few steps, less than compiling takes
    "gmia_m0": partial(_gmia, margin_cos=0.0, compiled=False),
    "gmia_m-0.5": partial(_gmia, margin_cos=-0.5),
    "gmia_m-0.7": partial(_gmia, margin_cos=-0.7),
    "gmia_id_only": partial(_gmia, margin_cos=-0.5, lambda_ut=0.0),
    # No criterion ends it; the published runs have 10 to 100 steps at 0.01.
    "gmia_ut_only": partial(_gmia, lambda_id=0.0, lr=0.05, max_steps=30, min_steps=30),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the evaluation; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--dataset_dir", type=Path, default=os.environ.get("GMIA_CXR_DIR"), help="the radiographs")
    parser.add_argument("--models_dir", type=Path, default=Path("bundle/models"), help="weights of systems, attackers")
    parser.add_argument("--output_dir", type=Path, default=Path("output/systems"), help="releases and reports")
    parser.add_argument("--results", type=Path, default=Path("bundle/docs/results/systems"), help="folder of lines")
    parser.add_argument("--attacks", nargs="+", default=None, help="some of the attacks; all by default")
    parser.add_argument("--n_members", type=int, default=3000, help="released training images; 0 for none (3000)")
    parser.add_argument("--seeds", type=int, default=3, help="attacker seeds (3)")
    parser.add_argument("--steps", type=int, default=300, help="updates of each refitted attacker (300)")
    parser.add_argument("--n_boot", type=int, default=500, help="bootstrap resamples (500)")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    options = parser.parse_args(arguments)
    if options.dataset_dir is None:
        parser.error("give --dataset_dir, or set GMIA_CXR_DIR")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        cohort = load_cohort(None, options.dataset_dir, options.image_size)
        for name in options.systems:
            judgement = Judgement(
                models_dir=options.models_dir,
                attacks=options.attacks,
                seeds=range(options.seeds),
                refit={"steps": options.steps, "validate_every": max(1, options.steps // 4)},
                n_boot=options.n_boot,
                n_members=options.n_members,
                device=options.device,
                store_dir=options.output_dir / "refitted",
                cache_dir=options.output_dir / "classifiers",
                command=_command(name, options),
                more_handlers=report_handlers,
            )
            lines = evaluate_anonymizer(
                cohort,
                SYSTEMS[name](options.models_dir, options.device),
                options.output_dir / name,
                judgement,
                image_size=options.image_size,
                store=UnitStore(options.output_dir / "units"),
            )
            append_results(options.results / f"{name}.jsonl", lines)
    except GmiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; run it again to resume", file=sys.stderr)
        return 130
    return 0


def _command(name: str, options: argparse.Namespace) -> str:
    command = f"python scripts/evaluate_systems.py --dataset_dir $GMIA_CXR_DIR --systems {name}"
    if options.attacks:
        command += " --attacks " + " ".join(options.attacks)
    shown = ("seeds", "steps", "n_boot", "n_members", "image_size")
    return command + "".join(f" --{key} {getattr(options, key)}" for key in shown)


if __name__ == "__main__":
    sys.exit(main())
