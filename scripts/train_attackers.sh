#!/usr/bin/env bash
# Trains the attackers of the evaluation (64 px, three seeds each) on real images of the roles S and A, chosen on V2, and
# writes them into bundle/models. Hours on two cores; an interrupted run resumes.
# Usage: GMIA_CXR_DIR=... scripts/train_attackers.sh [output folder]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${GMIA_CXR_DIR:?set GMIA_CXR_DIR to the folder of the radiographs}"
out="${1:-output/attackers}"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
# Large tensors otherwise go back to the kernel after each step.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 OMP_NUM_THREADS=1

both() { # seed, suffix of the names
    python -m monai.bundle run training \
        --config_file "['bundle/configs/train_identity.yaml','bundle/configs/profiles/cxr64_attacker.yaml']" \
        --dataset_dir "$GMIA_CXR_DIR" --output_dir "$out/arcface$2" --seed "$1"
    python -m monai.bundle run training \
        --config_file "['bundle/configs/train_identity.yaml','bundle/configs/systems/siamese.yaml','bundle/configs/profiles/cxr64_siamese.yaml']" \
        --dataset_dir "$GMIA_CXR_DIR" --output_dir "$out/siamese$2" --seed "$1" \
        --identity#init_from "$out/arcface$2/models/arcface.safetensors"
}

# One thread each and two trainings side by side use two cores better than two threads in one training.
both 1 _1 &
other=$!
both 0 ""
wait "$other"
both 2 _2
python scripts/collect_weights.py --output_dir "$out" --models_dir bundle/models \
    --names arcface arcface_1 arcface_2 siamese siamese_1 siamese_2
