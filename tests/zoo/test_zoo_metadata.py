"""metadata.json: the zoo's schema, the zoo's own rules, and the tested versions."""

from __future__ import annotations

import ast
import json
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from monai.bundle import verify_metadata

import gmia_monai

ROOT = Path(__file__).parents[2]
# The faces are commands of the installed package, no part of what the bundle's configs run.
FACES = {"cli", "review", "deploy"}


@pytest.fixture(scope="module")
def metadata(configs):
    return json.loads((configs / "metadata.json").read_text())


def verify(content, schema, folder):
    path = folder / "metadata.json"
    path.write_text(json.dumps(content))
    verify_metadata(meta_file=str(path), filepath=str(schema))


def test_metadata_fits_the_schema(configs, schema):
    assert schema.is_file()
    verify_metadata(meta_file=str(configs / "metadata.json"), filepath=str(schema))


@pytest.mark.parametrize("key", ["required_packages_version", "version", "copyright", "network_data_format"])
def test_schema_refuses_metadata_without_a_required_key(metadata, schema, tmp_path, key):
    del (broken := dict(metadata))[key]
    with pytest.raises(ValueError, match=key):
        verify(broken, schema, tmp_path)


def test_schema_refuses_a_tensor_without_its_type(metadata, schema, tmp_path):
    broken = json.loads(json.dumps(metadata))
    del broken["network_data_format"]["outputs"]["pred"]["dtype"]
    with pytest.raises(ValueError, match="Failed validating"):
        verify(broken, schema, tmp_path)


def test_version_is_that_of_the_package_and_in_the_changelog(metadata, schema):
    assert metadata["version"] == gmia_monai.__version__
    assert metadata["version"] in metadata["changelog"]
    assert metadata["schema"].endswith(f"/{schema.name}")


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_versions_are_the_tested_ones(metadata):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = {normal(n): v for n, _, v in (line.partition("==") for line in lines) if v}
    named = {normal(name): version for name, version in metadata["required_packages_version"].items()}
    named |= {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
    }
    assert named == {name: tested[name] for name in named}


def test_every_imported_package_is_required(metadata):
    imported = set()
    for path in (ROOT / "gmia_monai").rglob("*.py"):
        if path.relative_to(ROOT / "gmia_monai").parts[0] in FACES:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.partition(".")[0])
    owners = packages_distributions()
    others = imported - set(sys.stdlib_module_names) - {"gmia_monai", "monai", "torch", "numpy"}
    needed = {normal(owners.get(name, [name])[0]) for name in others}
    assert {"pydicom", "safetensors", "pytorch-ignite"} <= needed
    named = metadata["required_packages_version"] | metadata["optional_packages_version"]
    assert needed <= {normal(name) for name in named}


def test_the_providers_of_data_and_method_are_named(metadata):
    assert "NIH Clinical Center" in metadata["data_source"]
    references = " ".join(metadata["references"])
    for name in ("2501.09114", "ChestX-ray8", "StyleGAN", "ArcFace"):
        assert name in references
