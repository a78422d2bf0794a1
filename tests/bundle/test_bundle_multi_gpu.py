"""``multi_gpu_train.yaml`` over each training config, with two Gloo processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import torch

from gmia_monai.data.phantom import generate_cohort
from gmia_monai.networks.pretrained import load_network

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
# What each process does: the training of `monai.bundle run`, and at the end a file with what it holds.
WORKER = """
import faulthandler, json, os, sys
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

faulthandler.dump_traceback_later(100, exit=True)
config, kind, overrides = json.loads(sys.argv[1])
files = [os.path.join(sys.argv[2], name) for name in (config, "multi_gpu_train.yaml")]
w = ConfigWorkflow(files, None, False, run_id="training", workflow_type="train", **overrides)
w.initialize()
rank = torch.distributed.get_rank()
trainer = w.parser.get_parsed_content("train#trainer")
drawn = []

@trainer.on(Events.ITERATION_COMPLETED)
def record(engine):
    drawn.append(engine.state.batch["image"].double().sum(dim=(1, 2, 3)).tolist())

w.run()
network = w.parser.get_parsed_content("autoencoder" if kind == "aegan" else "network")
held = {k: v.clone() for k, v in network.state_dict().items()}
if kind == "aegan":
    held |= {f"d.{k}": v for k, v in w.parser.get_parsed_content("discriminator").state_dict().items()}
metric = w.parser.get_parsed_content("validate#evaluator").state.best_metric
torch.save({"held": held, "drawn": drawn, "metric": float(metric)}, f"{overrides['output_dir']}/rank{rank}.pt")
w.finalize()
assert not torch.distributed.is_initialized()
"""
COMMON = {
    "image_size": 32,
    "max_epochs": 2,
    "epoch_length": 2,
    "batch_size": 4,
    "val_interval": 1,
    "device": "cpu",
}
SMALL = {
    "aegan": {
        "aegan#latent_dim": 16,
        "aegan#channel_base": 256,
        "aegan#channel_max": 16,
        "aegan#perceptual": "none",
        "aegan#r1_interval": 2,
        "aegan#path_length_interval": 2,
        "aegan#flip_prob": 0.0,
        "aegan#rotate_deg": 0.0,
    },
    "identity": {"identity#embedding_dim": 16, "identity#max_grad_norm": 1.0},
    "utility": {"utility#min_positives_val": 1},
}
CONFIG_OF = {"aegan": "train.yaml", "identity": "train_identity.yaml", "utility": "train_utility.yaml"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_cohort(tmp_path_factory.mktemp("phantom"), 12, 2, size=32, formats=("png",))


@pytest.fixture(scope="module", params=SMALL)
def trained(request, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    kind = request.param
    root = tmp_path_factory.mktemp(kind)
    (root / "out").mkdir()
    (root / "worker.py").write_text(WORKER)
    overrides = COMMON | SMALL[kind] | {"manifest": str(manifest), "output_dir": str(root / "out")}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*torchrun, str(root / "worker.py"), json.dumps([CONFIG_OF[kind], kind, overrides]), str(CONFIGS)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-8000:]
    ranks = [torch.load(root / "out" / f"rank{r}.pt", weights_only=True) for r in (0, 1)]
    return SimpleNamespace(kind=kind, root=root, ranks=ranks)


def test_both_processes_hold_the_same_network_and_saw_other_images(trained):
    a, b = trained.ranks
    assert a["held"].keys() == b["held"].keys()
    for name, value in a["held"].items():
        assert torch.equal(value, b["held"][name]), name
    assert len(a["drawn"]) == len(b["drawn"]) == 4
    assert a["metric"] == pytest.approx(b["metric"])
    if trained.kind == "aegan":  # no augmentation, so that sums tell images apart
        one, other = ({x for batch in r["drawn"][:2] for x in batch} for r in (a, b))
        assert len(one) == len(other) == 8 and not one & other


def test_process_0_alone_writes_one_run_and_weights(trained):
    client = mlflow.MlflowClient(f"sqlite:///{trained.root / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name(trained.kind).experiment_id])
    assert run.info.status == "FINISHED"
    folder = trained.root / "out" / "checkpoints"
    assert {p.name for p in folder.iterdir()} - {"best.pt"} == {"checkpoint_epoch=1.pt", "checkpoint_epoch=2.pt"}
    network = load_network(trained.root / "out" / "models" / f"{trained.kind}.safetensors")
    best = folder / "best.pt"
    source = best if best.is_file() else folder / "checkpoint_epoch=2.pt"
    state = torch.load(source, weights_only=True)["network"]
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
