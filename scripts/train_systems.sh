#!/usr/bin/env bash
# Trains what the compared systems learn (64 px) on the training role of the protocol, from the reference weights in
# bundle/models, and writes it there. Hours on two cores; an interrupted run resumes.
# Usage: GMIA_CXR_DIR=... scripts/train_systems.sh [output folder]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${GMIA_CXR_DIR:?set GMIA_CXR_DIR to the folder of the radiographs}"
out="${1:-output/trained_systems}"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
# Large tensors otherwise go back to the kernel after each step.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 OMP_NUM_THREADS=1

train() { # folder, config files with commas between, further overrides
    local folder="$1" files="$2"
    shift 2
    python -m monai.bundle run training \
        --config_file "['bundle/configs/${files//,/\',\'bundle/configs/}']" \
        --dataset_dir "$GMIA_CXR_DIR" --output_dir "$out/$folder" "$@"
}
collect() {
    python scripts/collect_weights.py --output_dir "$out" --models_dir bundle/models --names "$@"
}

generators() {
    train generator train_generator.yaml,profiles/cxr64_generator.yaml
    train e_training train.yaml,systems/e_training.yaml,profiles/cxr64_e_training.yaml \
        --e_training#generator "$out/generator/models/generator.safetensors"
    collect generator generator_discriminator aegan_e
    train prior train_prior.yaml
    train prior_e train_prior.yaml --prior#autoencoder aegan_e --prior#name prior_e
    collect prior prior_e
    train diffusion_autoencoder train_diffusion.yaml,profiles/cxr64_diffusion_autoencoder.yaml
    train latent_diffusion train_diffusion.yaml,profiles/cxr64_diffusion.yaml \
        --diffusion#init_from "$out/diffusion_autoencoder/models/latent_diffusion.safetensors"
}
networks() {
    train identity_second train_identity.yaml,profiles/cxr64_identity_second.yaml
    train plan_identity train_patients.yaml,profiles/cxr64_patients.yaml \
        --patients#init_from bundle/models/identity.safetensors
    train prichexy train_confusion.yaml,profiles/cxr64_prichexy.yaml
    train privacy_net train_confusion.yaml,profiles/cxr64_privacy_net.yaml
    # The retrieval network of Packhäuser et al., an attacker: real images of S and A, chosen on V2.
    train retrieval train_identity.yaml,systems/retrieval.yaml,profiles/cxr64_retrieval.yaml
    train privacy_net_port train_confusion.yaml,profiles/cxr64_privacy_net_port.yaml
}

# The verifier is one of the two that PriCheXy-Net and Privacy-Net learn against, and must be recorded before.
train verifier train_identity.yaml,systems/siamese.yaml,profiles/cxr64_verifier.yaml \
    --identity#init_from bundle/models/identity.safetensors
collect verifier
# One thread each and two lanes side by side use two cores better than two threads in one training.
generators &
lane=$!
networks
wait "$lane"
collect identity_second plan_identity prichexy privacy_net privacy_net_port latent_diffusion retrieval
