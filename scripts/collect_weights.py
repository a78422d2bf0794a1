"""Puts the networks of the training scripts beside this one into the bundle, recorded in its index."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gmia_monai.errors import GmiaError
from gmia_monai.networks import load_recorded, save_network
from gmia_monai.weights import read_index, read_metadata

MAX_BYTES = 25_000_000  # a file of the model zoo; larger networks are stored in float16
NAMES = ("identity", "utility", "aegan", "discriminator")
SEEDS = ("", "_1", "_2")
ATTACKERS = tuple(stem + seed for stem in ("arcface", "siamese") for seed in SEEDS)
# Networks that compared systems are made of or judged by, but for those named above, and the folders of those that have
# another name.
SYSTEMS = (
    "verifier", "identity_second", "generator", "generator_discriminator", "aegan_e", "prior", "prior_e",
    "plan_identity", "prichexy", "privacy_net", "privacy_net_port", "latent_diffusion", "retrieval", "gate",
    "gate_utility",
)  # fmt: skip
RECORDED_AS = {"gate_utility": "utility"}
TRAINED_IN = {"discriminator": "aegan", "generator_discriminator": "generator", "aegan_e": "e_training"}


def main(arguments: list[str] | None = None) -> int:
    """Copies the weights; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("output/reference"), help="folder of the trainings")
    parser.add_argument("--models_dir", type=Path, default=Path("bundle/models"), help="folder of the bundle")
    parser.add_argument(
        "--names", nargs="+", choices=(*NAMES, *ATTACKERS, *SYSTEMS), default=["identity", "utility", "aegan"]
    )
    options = parser.parse_args(arguments)
    try:
        for name in options.names:
            folder = options.output_dir / TRAINED_IN.get(name, name) / "models"
            # The runs of several seeds of an attacker all write the same name.
            own = name.split("_")[0] if name in ATTACKERS else RECORDED_AS.get(name, name)
            network = load_recorded(folder, own)
            metadata = read_metadata(folder / read_index(folder)[own]["file"])
            facts = {k: v for k, v in metadata.items() if k not in ("network", "arguments")}
            path = options.models_dir / f"{name}.safetensors"
            half = name in (*ATTACKERS, *SYSTEMS) or 4 * sum(p.numel() for p in network.parameters()) > MAX_BYTES
            patients = read_index(folder)[own].get("patients", "")
            save_network(path, network, metadata["arguments"], half=half, patients=patients, **facts)
            print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    except GmiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
