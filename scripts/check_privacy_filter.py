"""What the privacy filter of latent diffusion finds: the share of planted copies of training images that it rejects.

The filter holds the images of role S and has its threshold from those of role V1; the copies are of some of S, the
other people those of role T. Result lines go to ``--output``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gmia_monai.anonymizers.privacy_filter import NEGATIVES, PrivacyFilter
from gmia_monai.data import load_cohort
from gmia_monai.data.roles import check_disjoint
from gmia_monai.errors import GmiaError
from gmia_monai.evaluation.planted_copies import filter_lines
from gmia_monai.evaluation.read import read_real
from gmia_monai.metrics.results import RunContext, append_results
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.weights import read_index


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", default=os.environ.get("GMIA_CXR_DIR", ""))
    parser.add_argument("--manifest", default="")
    parser.add_argument("--models_dir", type=Path, default=Path("bundle/models"))
    parser.add_argument("--output", type=Path, default=Path("bundle/docs/results/systems/privacy_filter.jsonl"))
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.01, help="share of V1 that may be rejected")
    parser.add_argument("--negatives", choices=NEGATIVES, default="nearest")
    parser.add_argument("--n_nearest", type=int, default=1)
    parser.add_argument("--n_copied", type=int, default=512, help="training images that are copied")
    parser.add_argument("--n_steps", type=int, default=50, help="steps of denoising over all noise levels")
    parser.add_argument("--profile", default="cxr64")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Calibrates, plants, counts, writes."""
    options = parse(arguments)
    try:
        cohort = load_cohort(options.manifest, options.dataset_dir, options.image_size)
        parts = {name: cohort.role(name, min_patients=1) for name in ("S", "V1", "T")}
        check_disjoint(parts)
        real = {
            name: read_real(part.core() if name == "T" else part, options.image_size) for name, part in parts.items()
        }
        found = PrivacyFilter.calibrated(
            options.models_dir,
            real["S"],
            real["V1"],
            options.rate,
            options.negatives,
            options.n_nearest,
            device=options.device,
        )
        print(found.description)
        network = None
        if "latent_diffusion" in read_index(options.models_dir):
            network = load_recorded(options.models_dir, "latent_diffusion").to(options.device)
        else:
            print("no latent_diffusion weights: copies that the generator would make are left out")
        some = parts["S"].sample(min(options.n_copied, len(parts["S"])))
        copied = read_real(some, options.image_size, real["S"])
        words = sys.argv[1:] if arguments is None else arguments
        command = " ".join(["python scripts/check_privacy_filter.py", *words])
        if options.dataset_dir:
            command = command.replace(options.dataset_dir, "$GMIA_CXR_DIR")
        system = f"latent diffusion filter {options.negatives} rate={options.rate:g} k={options.n_nearest}"
        context = RunContext(system, options.profile, options.seed, config_hash=found.fingerprint, command=command)
        lines = filter_lines(found, copied, real["T"], context, network, n_steps=options.n_steps)  # type: ignore[arg-type]
    except GmiaError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    append_results(options.output, lines)
    for line in lines:
        print(f"{line.name}: {line.value:.3f} [{line.low:.3f}, {line.high:.3f}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
