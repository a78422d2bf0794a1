"""Anonymizes the embedded synthetic cohort with the reference weights, draws what changed, and attacks a release."""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import time
import warnings
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("demo_out"), help="folder for everything (demo_out)")
    parser.add_argument("--n_patients", type=int, default=6, help="synthetic patients (6)")
    parser.add_argument("--images_per_patient", type=int, default=3, help="images of each (3)")
    parser.add_argument("--margin_cos", type=float, default=-0.5, help="cosine to push identity below (-0.5)")
    parser.add_argument("--n_attacked", type=int, default=56, help="synthetic patients of the attack (56)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    options = parser.parse_args(arguments)

    started = time.monotonic()
    print("[1/4] synthetic cohort (PNG and DICOM)", flush=True)
    # MONAI warns once for each config that `$` expressions run code; this one is the bundle's own.
    warnings.filterwarnings("ignore", message="parsing config")
    from gmia_monai.data.phantom import generate_cohort
    from gmia_monai.errors import GmiaError
    from gmia_monai.workflows import AnonymizationWorkflow

    cohort = options.output_dir / "cohort"
    manifest = cohort / "manifest.csv"
    if not manifest.is_file():
        manifest = generate_cohort(cohort, options.n_patients, options.images_per_patient)
    print("[2/4] latent optimisation", flush=True)
    anonymized = options.output_dir / "anonymized"
    try:
        workflow = AnonymizationWorkflow(
            str(REPOSITORY / "bundle" / "configs" / "inference.yaml"),
            input=str(manifest),
            output_dir=str(anonymized),
            device=options.device,
            **{
                "optimization#margin_cos": options.margin_cos,
                # Larger steps than the published 0.01, for two cores.
                "optimization#lr": 0.05,
                "optimization#max_steps": 300,
            },
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    except GmiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; run it again to resume", file=sys.stderr)
        return 130
    print("[3/4] table and contact sheet", flush=True)
    shutil.copyfile(anonymized / "table.csv", options.output_dir / "table.csv")
    draw(manifest.parent, anonymized, options.output_dir / "contact_sheet.png", options.margin_cos)
    print("[4/4] attacks on a release of another synthetic cohort", flush=True)
    try:
        attack(options.output_dir, options.n_attacked, options.device)
    except KeyboardInterrupt:
        print("interrupted; run it again to resume", file=sys.stderr)
        return 130
    made = "contact_sheet.png, table.csv, anonymized/, evaluation/report.html"
    print(f"done in {time.monotonic() - started:.0f} s: {options.output_dir}/{made}")
    return 0


def attack(output_dir: Path, n_patients: int, device: str) -> None:
    """Judges GMIA at margin 0 on drawn radiographs: all of an evaluation, on too few patients to mean much."""
    from gmia_monai.anonymizers import GMIA, UnitStore
    from gmia_monai.data.manifest import read_manifest
    from gmia_monai.data.phantom import generate_cohort
    from gmia_monai.evaluation.command import Judgement, evaluate_anonymizer
    from gmia_monai.report.evaluation import report_handlers

    folder = output_dir / "evaluation"
    manifest = folder / "cohort" / "manifest.csv"
    if not manifest.is_file():
        manifest = generate_cohort(folder / "cohort", n_patients, 2, size=64, formats=("png",), seed=1)
        deal_roles(manifest)
    models = REPOSITORY / "bundle" / "models"
    judgement = Judgement(
        models_dir=models,
        profile="demo",
        attacks=("verification", "retrieval", "singling_out"),
        seeds=(0,),
        refit={"steps": 10, "patients": 8, "validate_every": 10},
        n_boot=50,
        n_members=0,
        device=device,
        # Drawn radiographs may be shown.
        more_handlers=partial(report_handlers, n_shown=8),
    )
    system = GMIA.from_weights(models, device=device, margin_cos=0.0, lr=0.15, betas=[0.7, 0.99], max_steps=100)
    evaluate_anonymizer(read_manifest(manifest), system, folder, judgement, store=UnitStore(folder / "units"))


def deal_roles(manifest: Path) -> None:
    """Deals the patients out to the roles of the protocol; those of S, A, V2 and T in turn."""
    with manifest.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    patients = list(dict.fromkeys(row["patient_id"] for row in rows))
    for row in rows:
        row["split"] = ("A", "V2", "T", "S", "A", "V2", "T")[patients.index(row["patient_id"]) % 7]
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw(cohort: Path, anonymized: Path, path: Path, margin_cos: float, n_images: int = 8) -> None:
    """Contact sheet of the first images by handle: source, anonymized, difference."""
    from gmia_monai.dicom import links_path
    from gmia_monai.report.figures import change_image, contact_sheet, optimization_caption
    from gmia_monai.transforms import read_radiograph

    with links_path(anonymized).open(newline="") as stream:
        names = {row["handle"]: row["image"] for row in csv.DictReader(stream)}
    with (anonymized / "table.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["status"] == "anonymized"][:n_images]
    cells, captions = [], []
    for row in rows:
        before, _ = read_radiograph(cohort / names[row["handle"]])
        after, _ = read_radiograph(anonymized / row["file"])
        cells.append([before, after, change_image(before, after)])
        captions.append(
            optimization_caption(
                float(row["cos_before"]), float(row["cos_after"]), int(row["steps"]), row["converged"] == "1"
            )
        )
    contact_sheet(
        cells,
        ["source", "anonymized", "difference x 2"],
        path,
        captions=captions,
        heading=f"Synthetic cohort, m = {margin_cos:g}. Research output, not released.",
        groups=2,
    )


if __name__ == "__main__":
    sys.exit(main())
