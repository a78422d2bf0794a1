"""Calibrates the release gate: limits of identity scores from strangers of V2, and what known images look like.

Writes gate_calibration.json and gate_known.safetensors into the folder of the weights, which has to hold the networks
`gate` and `gate_utility` (scripts/train_gate.sh trains them), and prints the figures as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

from gmia_monai.data import load_cohort
from gmia_monai.errors import GmiaError
from gmia_monai.release.gate_files import calibrate_gate


def main(arguments: list[str] | None = None) -> int:
    """Calibrates; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", default="", help="CSV of real images with the roles S and V2")
    parser.add_argument("--dataset_dir", default=os.environ.get("GMIA_CXR_DIR", ""), help="folder of a data set")
    parser.add_argument("--models_dir", type=Path, default=Path("bundle/models"), help="recorded weights")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        cohort = load_cohort(options.manifest, options.dataset_dir, options.image_size)
        found = calibrate_gate(cohort, options.models_dir, options.image_size, options.device)
    except GmiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(json.dumps(asdict(found), sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
