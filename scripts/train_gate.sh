#!/usr/bin/env bash
# Trains the networks of the release gate (64 px): a verifier on real images of S and A, chosen on V2, and a diagnostic
# network; writes them into bundle/models and calibrates the gate. About two hours on two cores; an interrupted
# run resumes.
# Usage: GMIA_CXR_DIR=... scripts/train_gate.sh [output folder]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${GMIA_CXR_DIR:?set GMIA_CXR_DIR to the folder of the radiographs}"
out="${1:-output/gate}"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
# Large tensors otherwise go back to the kernel after each step.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 OMP_NUM_THREADS=1

python -m monai.bundle run training \
    --config_file "['bundle/configs/train_identity.yaml','bundle/configs/profiles/cxr64_gate.yaml']" \
    --dataset_dir "$GMIA_CXR_DIR" --output_dir "$out/gate" &
verifier=$!
python -m monai.bundle run training \
    --config_file "['bundle/configs/train_utility.yaml','bundle/configs/profiles/cxr64_gate_utility.yaml']" \
    --dataset_dir "$GMIA_CXR_DIR" --output_dir "$out/gate_utility"
wait "$verifier"
python scripts/collect_weights.py --output_dir "$out" --models_dir bundle/models --names gate gate_utility
python scripts/calibrate_gate.py --dataset_dir "$GMIA_CXR_DIR" --models_dir bundle/models
