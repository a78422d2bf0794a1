"""The evaluation of PriCheXy-Net for some systems: fresh verifiers on pairs of released images, a fixed classifier.

Result lines go into the bundle; finished units of a system are kept in the output folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from gmia_monai.anonymizers import GMIA, ImageAnonymizer, Unchanged, UnitStore
from gmia_monai.anonymizers.network import PriCheXy, PrivacyNet
from gmia_monai.attacks.base import Judged
from gmia_monai.attacks.training import Schedule
from gmia_monai.data import load_cohort
from gmia_monai.engines.confusion import recorded_findings
from gmia_monai.errors import GmiaError
from gmia_monai.evaluation.prichexy_protocol import PrichexyProtocol, evaluate_prichexy_protocol
from gmia_monai.evaluation.read import read_real
from gmia_monai.inferers import computes_bfloat16
from gmia_monai.metrics.results import RunContext, append_results
from gmia_monai.networks.pretrained import load_recorded

SYSTEMS: dict[str, Callable[[Path, str], ImageAnonymizer]] = {
    "unchanged": lambda models, device: Unchanged(),
    "prichexy": lambda models, device: PriCheXy.from_weights(models, device=device),
    "privacy_net": lambda models, device: PrivacyNet.from_weights(models, "minimax", device=device),
    "privacy_net_port": lambda models, device: PrivacyNet.from_weights(models, "port", device=device),
    "gmia": lambda models, device: GMIA.from_weights(
        models, device=device, margin_cos=-0.5, lr=0.15, betas=[0.7, 0.99], max_steps=100, unit_size=64,
        bfloat16=computes_bfloat16(device)
    ),
}  # fmt: skip
ROLES = {"training": "A", "choice": "V2", "judged": "T"}


def main(arguments: list[str] | None = None) -> int:
    """Runs the evaluation; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--manifest", type=Path, default=None, help="manifest of the radiographs")
    parser.add_argument("--dataset_dir", type=Path, default=os.environ.get("GMIA_CXR_DIR"), help="the radiographs")
    parser.add_argument("--models_dir", type=Path, default=Path("bundle/models"), help="weights of the systems")
    parser.add_argument("--output_dir", type=Path, default=Path("output/systems"), help="finished units")
    parser.add_argument("--results", type=Path, default=Path("bundle/docs/results/systems"), help="folder of lines")
    parser.add_argument("--init", type=Path, default=None, help="verifier to start from (none: from scratch)")
    parser.add_argument("--all_images", action="store_true", help="all images, not four a patient")
    parser.add_argument("--seeds", type=int, default=10, help="attacker seeds (10)")
    parser.add_argument("--steps", type=int, default=300, help="updates of each attacker (300)")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate (0.001; published 0.0001)")
    parser.add_argument("--n_boot", type=int, default=500, help="bootstrap resamples (500)")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    options = parser.parse_args(arguments)
    if options.dataset_dir is None and options.manifest is None:
        parser.error("give --dataset_dir or --manifest, or set GMIA_CXR_DIR")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        cohort = load_cohort(options.manifest, options.dataset_dir, options.image_size)
        roles = {name: cohort.role(role, min_patients=2) for name, role in ROLES.items()}
        kept = roles if options.all_images else {name: role.core() for name, role in roles.items()}
        real = {name: read_real(role, options.image_size) for name, role in kept.items()}
        protocol = PrichexyProtocol(
            seeds=tuple(range(options.seeds)),
            schedule=Schedule(options.steps, options.lr, validate_every=max(1, options.steps // 6)),
            init=options.init,
            n_boot=options.n_boot,
            device=options.device,
        )
        classifier, findings = load_recorded(options.models_dir, "utility"), recorded_findings(options.models_dir)
        facts = json.dumps([asdict(protocol), options.image_size, options.all_images], sort_keys=True, default=str)
        for name in options.systems:
            system = SYSTEMS[name](options.models_dir, options.device)
            store = UnitStore(options.output_dir / "units")
            parts = {part: Judged(images, system.anonymize(images, 0, store)) for part, images in real.items()}
            context = RunContext(
                system.name,
                f"cxr{options.image_size}",
                release_hash=parts["judged"].release.content_hash,
                config_hash=hashlib.sha256(facts.encode()).hexdigest(),
                command=_command(name, options),
            )
            lines = evaluate_prichexy_protocol(
                **parts, context=context, protocol=protocol, classifier=classifier, findings=findings
            )
            append_results(options.results / f"prichexy_protocol_{name}.jsonl", lines)
    except GmiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; run it again to resume", file=sys.stderr)
        return 130
    return 0


def _command(name: str, options: argparse.Namespace) -> str:
    command = f"python scripts/prichexy_protocol.py --dataset_dir $GMIA_CXR_DIR --systems {name}"
    command += "" if options.init is None else f" --init {options.init.name}"
    command += " --all_images" if options.all_images else ""
    shown = ("seeds", "steps", "lr", "n_boot", "image_size")
    return command + "".join(f" --{key} {getattr(options, key)}" for key in shown)


if __name__ == "__main__":
    sys.exit(main())
