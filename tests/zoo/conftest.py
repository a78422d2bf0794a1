"""Placeholder weights of the networks in the inference config, a drawn cohort, and an exported bundle."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from monai.bundle import ConfigParser

from gmia_monai.data.phantom import generate_cohort
from gmia_monai.networks import save_network

ROOT = Path(__file__).parents[2]
PARTS = ("aegan", "identity", "utility")


@pytest.fixture(scope="session")
def configs() -> Path:
    return ROOT / "bundle" / "configs"


@pytest.fixture(scope="session")
def schema() -> Path:
    """The schema of the model zoo: an unchanged copy from Project MONAI (Apache-2.0), so that nothing is downloaded."""
    return Path(__file__).parent / "meta_schema_20240725.json"


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory, configs: Path) -> Path:
    """Random weights in the architecture that the inference config names."""
    folder = tmp_path_factory.mktemp("models")
    parser = ConfigParser()
    parser.read_config(configs / "inference.yaml")
    torch.manual_seed(0)
    for name in PARTS:
        network = parser.get_parsed_content(f"network_def#{name}")
        keys = [key for key in parser[f"network_def#{name}"] if not key.startswith("_")]
        arguments = {key: parser.get_parsed_content(f"network_def#{name}#{key}") for key in keys}
        save_network(folder / f"{name}.safetensors", network, arguments, half=name == "utility")
    return folder


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of drawn radiographs: six made-up patients, two images each."""
    return generate_cohort(tmp_path_factory.mktemp("cohort"), n_patients=6, images_per_patient=2, size=64)


@pytest.fixture(scope="session")
def exporter() -> ModuleType:
    """``scripts/export_bundle.py`` as a module."""
    spec = importlib.util.spec_from_file_location("export_bundle", ROOT / "scripts" / "export_bundle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, exporter: ModuleType, models_dir: Path) -> Path:
    """An exported bundle with the placeholder weights; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("export") / "gmia_monai"
    exporter.export_bundle(folder, models_dir, url="https://files.example.org/v1/")
    return folder
