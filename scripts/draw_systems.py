"""Draws the systems of the benchmark side by side, and figures 2 and 3 of GMIA's paper, for the documentation.

No real radiograph is shown. Sources are drawn; with --dataset_dir they are synthesised, each from the mean of the codes
of two patients of V1, so that no image, released unchanged or not, is one of the data set. Reconstructions are always
of drawn ones: images that a network synthesised are easy for the same network.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from gmia_monai.data import load_cohort
from gmia_monai.data.phantom import generate_cohort
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import GmiaError, IntegrityError
from gmia_monai.evaluation.read import read_real
from gmia_monai.networks import AEGAN, load_recorded
from gmia_monai.report.contact_sheets import losses_sheet, reconstructions_sheet, systems_sheet

SHEETS = ("systems", "reconstructions", "losses")
# Of the drawn cohort; k-anonymous systems need enough patients for their clusters.
N_PATIENTS, IMAGES_EACH = 24, 2
LOSSES = {"utility only": {"lambda_id": 0.0}, "identity only": {"lambda_ut": 0.0}, "both": {}}


def main(arguments: list[str] | None = None) -> int:
    """Draws what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheets", nargs="+", choices=SHEETS, default=list(SHEETS), help="what to draw (all)")
    parser.add_argument("--config", type=Path, default=Path("bundle/configs/benchmark.yaml"), help="lists systems")
    parser.add_argument("--only", nargs="+", default=None, help="ids of systems (all of the config)")
    parser.add_argument("--models_dir", type=Path, default=Path("bundle/models"), help="weights with index.json")
    parser.add_argument("--docs_dir", type=Path, default=Path("bundle/docs"), help="folder of the pictures")
    parser.add_argument("--dataset_dir", type=Path, default=None, help="radiographs to mix codes of (none: drawn ones)")
    parser.add_argument("--image_size", type=int, default=64, help="pixels (64)")
    parser.add_argument("--n_shown", type=int, default=6, help="sources shown (6)")
    parser.add_argument("--max_steps", type=int, default=100, help="steps of the optimisation, third sheet (100)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    options = parser.parse_args(arguments)
    draw = {"systems": draw_systems, "reconstructions": draw_reconstructions, "losses": draw_losses}
    try:
        for sheet in options.sheets:
            draw[sheet](options)
    except GmiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


def drawn(image_size: int, seed: int = 7) -> RealImages:
    """A drawn cohort, which may be shown."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = generate_cohort(folder, N_PATIENTS, IMAGES_EACH, image_size, formats=("png",), seed=seed)
        return read_real(load_cohort(manifest, None, image_size), image_size)


def role_or_drawn(options: argparse.Namespace, role: str, seed: int) -> RealImages:
    """The images of a role that systems may look at, which are not shown; without a data set, a drawn cohort."""
    if options.dataset_dir is None:
        return drawn(options.image_size, seed)
    cohort = load_cohort(None, options.dataset_dir, options.image_size).role(role)
    return read_real(cohort, options.image_size)


def sources_of(options: argparse.Namespace) -> RealImages:
    """Images of several patients that may be shown: drawn, or synthesised from two patients' codes each."""
    if options.dataset_dir is None:
        return drawn(options.image_size)
    cohort = load_cohort(None, options.dataset_dir, options.image_size).role("V1").core(1)
    real = read_real(cohort.sample(min(len(cohort), 2 * N_PATIENTS)), options.image_size)
    network = load_recorded(options.models_dir, "aegan")
    with torch.no_grad():
        codes = network.encoder(torch.from_numpy(real.pixels))
        # The other half of the images are of other patients: one image a patient.
        mixed = (codes + codes.roll(len(codes) // 2, dims=0))[: len(codes) // 2] / 2
        images = network.synthesis(mixed, noise_mode="const").clamp(0, 1)
    return RealImages(real.cohort[np.arange(len(mixed))], np.rint(images.numpy() * 255).astype(np.float32) / 255)


def shown(options: argparse.Namespace, real: RealImages) -> list[int]:
    """Places of the images that are shown, of different patients."""
    first: dict[int, int] = {}
    for place, patient in enumerate(real.cohort.patient_index):
        first.setdefault(int(patient), place)
    return list(first.values())[: options.n_shown]


def draw_systems(options: argparse.Namespace) -> None:
    """Sheet of all systems of the config that there are weights for."""
    from monai.bundle import ConfigParser

    from gmia_monai.evaluation.zoo import build_system, read_entries

    real = sources_of(options)
    systems = ConfigParser.load_config_file(options.config)["systems"]
    releases: dict[str, Release] = {}
    training = cache(lambda: role_or_drawn(options, "S", 8))
    others = cache(lambda: role_or_drawn(options, "V1", 9))
    for entry in read_entries(systems, options.only, strict=False).values():
        try:
            # Compiling takes longer than a few images do.
            settings = {key: False if key == "compiled" else value for key, value in entry.settings.items()}
            entry = replace(entry, settings=settings)
            system = build_system(entry, options.models_dir, options.device, training=training, other_people=others)
            releases[system.name] = system.anonymize(real)
        except GmiaError as error:  # e.g. weights that are not trained yet
            print(f"{entry.id} is left out: {error}", file=sys.stderr)
            continue
        print(f"{entry.id}: {len(releases[system.name])} images", flush=True)
    places = shown(options, real)
    path = options.docs_dir / "contact_sheet_systems.png"
    heading = f"The same sources through every system, {options.image_size} px. {_kind(options)}"
    systems_sheet([real.pixels[p, 0] for p in places], releases, places, path, heading=heading)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


def draw_reconstructions(options: argparse.Namespace) -> None:
    """Figure 2 of GMIA: co-training beside E-training, where its weights are recorded."""
    real = drawn(options.image_size)
    pixels = real.pixels[shown(options, real)]
    made = {}
    for title, name in {"co-training": "aegan", "E-training": "aegan_e"}.items():
        try:
            made[title] = reconstruction(load_recorded(options.models_dir, name), pixels)
        except IntegrityError as error:
            print(f"{title} is left out: {error}", file=sys.stderr)
    path = options.docs_dir / "figure_2_reconstructions.png"
    reconstructions_sheet(
        list(pixels[:, 0]), made, path, heading="Reconstructions of drawn radiographs; research output"
    )
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


def reconstruction(network: AEGAN, pixels: np.ndarray) -> list[np.ndarray]:
    """What an auto-encoder makes of images ``[b, 1, h, w]``."""
    with torch.no_grad():
        return list(network(torch.from_numpy(pixels)).clamp(0, 1)[:, 0].numpy())


def draw_losses(options: argparse.Namespace) -> None:
    """Figure 3 of GMIA: each loss alone, and both."""
    from gmia_monai.anonymizers import GMIA

    real = sources_of(options)
    pixels = real.pixels[shown(options, real)]
    made, cosines = {}, {}
    for title, settings in LOSSES.items():
        # Utility alone has no criterion that ends it.
        steps = {"min_steps": min(30, options.max_steps), "lr": 0.05} if "lambda_id" in settings else {"lr": 0.15}
        system = GMIA.from_weights(
            options.models_dir, betas=[0.7, 0.99], max_steps=options.max_steps, margin_cos=-0.5, **steps, **settings
        )
        result = system.inferer.optimize(torch.from_numpy(pixels), system.network, [0] * len(pixels))
        made[title], cosines[title] = list(result.image[:, 0].detach().numpy()), result.cos_end.tolist()
    start = reconstruction(load_recorded(options.models_dir, "aegan"), pixels)
    path = options.docs_dir / "figure_3_losses.png"
    heading = f"What each loss of GMIA changes, m = -0.5. {_kind(options)}"
    losses_sheet(list(pixels[:, 0]), start, made, cosines, path, heading=heading)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


def _kind(options: argparse.Namespace) -> str:
    source = "Drawn radiographs" if options.dataset_dir is None else "Synthesised sources, each of two patients' codes"
    return f"{source}; research output, not released"


if __name__ == "__main__":
    sys.exit(main())
