#!/usr/bin/env bash
# Trains the reference weights of the bundle (64 px) on the training role of the protocol, measures them on the test
# role and writes bundle/models and bundle/docs. Hours on two cores; an interrupted run resumes.
# Usage: GMIA_CXR_DIR=... scripts/train_reference.sh [output folder]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${GMIA_CXR_DIR:?set GMIA_CXR_DIR to the folder of the radiographs}"
out="${1:-output/reference}"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
# Large tensors otherwise go back to the kernel after each step.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 OMP_NUM_THREADS=1

train() { # config, profile, name, further overrides
    local config="$1" profile="$2" name="$3"
    shift 3
    python -m monai.bundle run training \
        --config_file "['bundle/configs/$config.yaml','bundle/configs/profiles/$profile.yaml']" \
        --dataset_dir "$GMIA_CXR_DIR" --output_dir "$out/$name" "$@"
}

# One thread each and two trainings side by side use two cores better than two threads in one training.
train train_identity cxr64_identity identity &
identity=$!
train train_utility cxr64_utility utility
train train cxr64_pixel aegan_pixel
train train cxr64 aegan \
    --aegan#init_from "$out/aegan_pixel/models/aegan.safetensors" \
    --aegan#perceptual_weights "$out/utility/models/utility.safetensors"
wait "$identity"

python scripts/collect_weights.py --output_dir "$out" --models_dir bundle/models
rm -f bundle/docs/results/*.jsonl   # lines of earlier weights
python scripts/evaluate_reference.py --dataset_dir "$GMIA_CXR_DIR" --output_dir "$out/evaluation" \
    --parts identity utility reconstruction
python scripts/evaluate_reference.py --dataset_dir "$GMIA_CXR_DIR" --output_dir "$out/evaluation" \
    --parts latent_optimization --lr 0.05 --max_steps 300
python -m gmia_monai.report.tables bundle/docs/results bundle/docs/results.md
