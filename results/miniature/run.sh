#!/bin/sh
# The paper in miniature: CIFAR is CIFAR-10 as a folder of train/ and test/, OTHER is TrashNet's. It goes on where it was;
# the same command in several shells shares the work. Then the supernet's ranking of what the search trained in full.
set -e
CIFAR=${1:?the CIFAR-10 folder}
OTHER=${2:?the folder of the images to transfer to}
OUT=${3:-studies/miniature}
HERE=$(dirname "$0")

trifold miniature "$CIFAR" "$OTHER" --baseline "$HERE/../scaling_cifar/cifar16.toml" \
    --target multiply-adds=1.06M --limit multiply-adds=1.07M --divisor 2 \
    --candidates 80 --short-epochs 2 --epochs 6 --finalists 2 --seeds 3 --sample 20 \
    --factor 2 --factors 2,4 --kinds depth,width,resolution,compound \
    --set batch_size=128 --set lr=4e-3 --set rotation=0 --set zoom=0 --set warmup_epochs=1 \
    --transfer-recipe small --transfer-set batch_size=128 --transfer-set lr=4e-3 --transfer-set rotation=0 \
    --transfer-set zoom=0 --transfer-set warmup_epochs=1 --transfer-epochs 20 --threads 1 --out "$OUT"
python "$HERE/supernet_rank.py" "$OUT/search" "$CIFAR" "$OUT/supernet"
