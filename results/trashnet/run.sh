#!/usr/bin/env bash
# Six trainings on TrashNet, three seeds each from random weights and from pretrained ones; a finished one is read back,
# so an interrupted sitting goes on where it was. Then collect.py writes records.jsonl and prints the table of README.md.
# Usage: results/trashnet/run.sh TRASHNET WEIGHTS
#   TRASHNET: the folder with train/ and test/, one subfolder a class.
#   WEIGHTS: efficientnet_b4_stem_to_block21.npz, B4's stem and first 22 blocks in the order of timm's state dict.
set -euo pipefail
if [ "$#" -ne 2 ]; then
    echo "usage: $0 TRASHNET WEIGHTS" >&2
    exit 2
fi
data="$(realpath "$1")"
weights="$(realpath "$2")"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# A fresh network needs a rate for all its rows, and statistics of its own that 140 steps can settle.
fresh=(--set head_epochs=0 --set layer_decay=1.0 --set freeze_bn=false --set lr=3e-3)
for seed in 0 1 2; do
    for start in pretrained random; do
        if [ "$start" = pretrained ]; then
            options=(--weights "$weights" --set head_epochs=1)
        else
            options=("${fresh[@]}")
        fi
        .venv/bin/trifold train "$data" --net results/trashnet/stem_to_block21.toml --resolution 64 --recipe finetune \
            --epochs 5 --set bn_momentum=0.1 "${options[@]}" --seed "$seed" --split-seed "$seed" --threads 1 \
            --out "runs/results-trashnet/$start-$seed"
    done
done
.venv/bin/python results/trashnet/collect.py
