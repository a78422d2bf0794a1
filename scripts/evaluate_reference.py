"""Measures the reference weights on the test role (T) of the protocol and writes result lines and pictures.

Four parts: ``identity``, ``utility``, ``reconstruction`` (beside PCA fitted on the training role) and
``latent_optimization`` (the `core` list at each margin). Each can run by itself; latent optimisation resumes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gmia_monai.data import Cohort, load_cohort, write_manifest
from gmia_monai.dicom import links_path
from gmia_monai.errors import GmiaError
from gmia_monai.evaluation.anonymization import evaluate_latent_optimization
from gmia_monai.evaluation.identity import evaluate_identity
from gmia_monai.evaluation.read import read_real
from gmia_monai.evaluation.reconstruction import evaluate_reconstruction, fit_pca, pca_reconstruct
from gmia_monai.evaluation.utility import evaluate_utility, predict_logits
from gmia_monai.metrics.results import Result, RunContext, append_results
from gmia_monai.networks import load_recorded
from gmia_monai.report.figures import change_image, contact_sheet
from gmia_monai.transforms import read_radiograph, resize_image
from gmia_monai.weights import read_index, read_metadata

PARTS = ("identity", "utility", "reconstruction", "latent_optimization")


def load_images(cohort: Cohort, image_size: int) -> torch.Tensor:
    """``[n, 1, s, s]`` in [0, 1], read, cropped and scaled as for training."""
    return torch.from_numpy(read_real(cohort, image_size).pixels)


def context(options: argparse.Namespace, system: str, *models: str) -> RunContext:
    """What the lines of one part share; the hash is that of the weights it used."""
    index = read_index(options.models_dir)
    digest = hashlib.sha256("".join(index[m]["sha256"] for m in models).encode()).hexdigest()[:16]
    # The folder of the data is a path of one machine; the command shall run on any.
    words = ["$GMIA_CXR_DIR" if word == options.dataset_dir else word for word in sys.argv[1:]]
    command = " ".join(["python", "scripts/evaluate_reference.py", *words])
    return RunContext(system=system, profile="cxr64", seed=0, config_hash=digest, command=command)


def identity(options: argparse.Namespace, test: Cohort, images: torch.Tensor) -> list[Result]:
    """T1 verification and rank-1 of the identity encoder, and of its embeddings of image and mirror image together.

    The second is how face verification is tested; the first is what the optimisation sees, at half the cost.
    """
    network = load_recorded(options.models_dir, "identity")
    name = "identity_" + read_index(options.models_dir)["identity"]["arguments"]["architecture"]
    results = []
    for two_views, system in ((False, name), (True, f"{name} two views")):
        network.two_views = two_views
        results += evaluate_identity(network, images, test, context(options, system, "identity"))
    return results


def utility(options: argparse.Namespace, test: Cohort, images: torch.Tensor) -> list[Result]:
    """Macro AUROC and AP of the utility encoder."""
    network = load_recorded(options.models_dir, "utility")
    index = read_index(options.models_dir)
    findings = read_metadata(Path(options.models_dir) / index["utility"]["file"])["findings"]
    labels = test.label_matrix(findings, "ignore")
    architecture = index["utility"]["arguments"]["architecture"]
    shared = context(options, f"utility_{architecture}", "utility")
    return evaluate_utility(predict_logits(network, images), labels, test.patient_index, findings, shared)


def reconstruction(options: argparse.Namespace, cohort: Cohort, test: Cohort, images: torch.Tensor) -> list[Result]:
    """The AE-GAN beside PCA with 512 and 128 components, fitted on the images that it was trained on.

    All are measured on training images, too, spread evenly over them: the gap says how much of the error is a lack of
    generalisation.
    """
    network = load_recorded(options.models_dir, "aegan")
    train = load_images(cohort.role("S"), options.image_size)
    pca = fit_pca(train.flatten(1).numpy(), 512)
    baselines = {f"pca_{k}": partial(pca_reconstruct, pca.truncated(k)) for k in (512, 128)}
    folders = np.array([record.folder for record in test])
    shared = {"batch_size": 64, "n_boot": 500}
    some = np.linspace(0, len(train) - 1, len(images)).round().astype(int)
    seen = cohort.role("S")[some]
    with torch.no_grad():
        on_test = evaluate_reconstruction(
            network,
            images,
            test.patient_index,
            context(options, "aegan", "aegan"),
            baselines=baselines,
            folders=folders,
            **shared,
        )
        on_training = evaluate_reconstruction(
            network,
            train[some],
            seen.patient_index,
            context(options, "aegan_on_training_images", "aegan"),
            baselines={f"{name}_on_training_images": code for name, code in baselines.items()},
            folders=np.array([record.folder for record in seen]),
            **shared,
        )
    return on_test + [r for r in on_training if r.name == "reconstruction_psnr.v1"]


def latent_optimization(options: argparse.Namespace, test: Cohort) -> list[Result]:
    """Latent optimisation of the core list at each margin, through the bundle's own workflow."""
    from gmia_monai.workflows import AnonymizationWorkflow

    core = test.core()[: options.max_images or None]
    manifest = write_manifest(core, options.output_dir / "core_T.csv")
    results, pictures = [], {}
    for margin in options.margins:
        folder = options.output_dir / f"gmia_m{margin:+.1f}_lr{options.lr:g}"
        workflow = AnonymizationWorkflow(
            options.config,
            bundle_root="bundle",
            input=str(manifest),
            output_dir=str(folder),
            models_dir=options.models_dir,
            device=options.device,
            **{
                "optimization#margin_cos": margin,
                "optimization#stop": options.stop,
                "optimization#max_steps": options.max_steps,
                "optimization#lr": options.lr,
            },
        )
        workflow.initialize()
        workflow.run()
        with links_path(folder).open(newline="") as stream:
            links = {row["handle"]: row for row in csv.DictReader(stream)}
        with (folder / "table.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        patients = np.array([links[row["handle"]]["patient_id"] for row in rows])
        shared = context(options, f"gmia m={margin:g} lr={options.lr:g}", "aegan", "identity", "utility")
        results += evaluate_latent_optimization(rows, shared, patients=patients, margin_cos=margin)
        pictures[margin] = (folder, {links[row["handle"]]["image"]: row for row in rows})
    draw(options, core, pictures)
    return results


def draw(options: argparse.Namespace, core: Cohort, pictures: dict, n_images: int = 8) -> None:
    """Contact sheet: reconstruction, the anonymized image at each margin, and the last one's change.

    The first image of each of a few test patients, by order of the list. The sources themselves are left out: no
    radiograph of the data set goes into the repository.
    """
    network = load_recorded(options.models_dir, "aegan")
    first: dict[str, str] = {}
    for record in core:
        first.setdefault(record.patient_id, record.key)
    by_key = {record.key: record for record in core}
    cells, captions = [], []
    for key in list(first.values())[:: max(1, len(first) // n_images)][:n_images]:
        source = load_images(core[[core.records.index(by_key[key])]], options.image_size)
        with torch.no_grad():
            row = [network(source).clamp(0, 1)[0, 0].numpy()]
        texts = []
        for margin, (folder, table) in pictures.items():
            facts = next(facts for name, facts in table.items() if name.endswith(key))
            image, _ = read_radiograph(folder / facts["file"])
            row.append(resize_image(image, (options.image_size, options.image_size)))
            texts.append(f"m={margin:g}: {float(facts['cos_before']):.2f} to {float(facts['cos_after']):.2f}")
        row.append(change_image(row[0], row[-1]))
        cells.append(row)
        captions.append("cosine  " + "   ".join(texts))
    titles = ["reconstruction", *(f"m = {m:g}" for m in pictures), "change x 2"]
    contact_sheet(
        cells,
        titles,
        options.docs_dir / "contact_sheet_gmia.png",
        captions=captions,
        heading="GMIA on test patients, 64 px: research output, not released",
        cell_px=128,
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts that were asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True, help="development radiographs (GMIA_CXR_DIR)")
    parser.add_argument("--models_dir", default="bundle/models", help="folder with index.json (bundle/models)")
    parser.add_argument("--output_dir", type=Path, default=Path("output/evaluation"), help="images and tables")
    parser.add_argument("--docs_dir", type=Path, default=Path("bundle/docs"), help="result lines and pictures")
    parser.add_argument("--config", default="bundle/configs/inference.yaml", help="inference config")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (all)")
    parser.add_argument("--margins", nargs="+", type=float, default=[0.0, -0.5, -0.7], help="margins (0 -0.5 -0.7)")
    parser.add_argument("--stop", default="paper", choices=("paper", "joint"), help="stopping rule (paper)")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of the optimisation (0.01, the paper's)")
    parser.add_argument("--max_steps", type=int, default=1000, help="steps of the optimisation at most (1000)")
    parser.add_argument("--max_images", type=int, default=0, help="only so many images of the core list (0: all)")
    parser.add_argument("--image_size", type=int, default=64, help="pixels (64)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", message="parsing config")
    try:
        cohort = load_cohort(dataset_dir=options.dataset_dir, image_size=options.image_size)
        test = cohort.role("T")
        images = load_images(test, options.image_size)
        parts = {
            "identity": lambda: identity(options, test, images),
            "utility": lambda: utility(options, test, images),
            "reconstruction": lambda: reconstruction(options, cohort, test, images),
            "latent_optimization": lambda: latent_optimization(options, test),
        }
        for name in options.parts:
            results = parts[name]()
            append_results(options.docs_dir / "results" / f"{name}.jsonl", results)
            for result in results:
                print(f"{result.name}  {result.system}  {result.negatives or ''}  {result.value}", flush=True)
    except GmiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
