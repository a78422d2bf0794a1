"""Puts the trained networks of ``train_reference.sh`` into the bundle, recorded in its index."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gmia_monai.errors import GmiaError
from gmia_monai.networks import load_recorded, save_network
from gmia_monai.weights import read_index, read_metadata

# DenseNet121 is larger than 25 MB in float32.
HALF = {"identity": False, "utility": True, "aegan": False, "discriminator": False}
SOURCE = {"identity": "identity", "utility": "utility_3", "aegan": "aegan", "discriminator": "aegan"}


def main(arguments: list[str] | None = None) -> int:
    """Copies the weights; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("output/reference"), help="folder of the trainings")
    parser.add_argument("--models_dir", type=Path, default=Path("bundle/models"), help="folder of the bundle")
    parser.add_argument("--names", nargs="+", choices=list(HALF), default=["identity", "utility", "aegan"])
    options = parser.parse_args(arguments)
    try:
        for name in options.names:
            folder = options.output_dir / SOURCE[name] / "models"
            network = load_recorded(folder, name)
            metadata = read_metadata(folder / read_index(folder)[name]["file"])
            facts = {k: v for k, v in metadata.items() if k not in ("network", "arguments")}
            path = options.models_dir / f"{name}.safetensors"
            save_network(path, network, metadata["arguments"], half=HALF[name], **facts)
            print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    except GmiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
