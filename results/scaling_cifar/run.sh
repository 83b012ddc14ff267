#!/bin/sh
# The studies of this folder; DATA is CIFAR-10 as a folder of train/ and test/. Each goes on where it was; give the same
# command in several shells to share the work. --collect --out HERE writes what is tracked.
set -e
DATA=${1:?the CIFAR-10 folder}
OUT=${2:-studies}
HERE=$(dirname "$0")
TRAINING="--epochs 6 --set batch_size=128 --set lr=4e-3 --set rotation=0 --set zoom=0 --set warmup_epochs=1 --threads 1"
ROUNDING="--divisor 2 --resolution-step 2"

trifold coefficients "$HERE/cifar16.toml" "$DATA" --factor 2 --seeds 3 --keep-weak $ROUNDING $TRAINING --out "$OUT/coefficients"
trifold ablate "$HERE/cifar16.toml" "$DATA" --factors 2,4 --kinds depth,width,resolution,compound --found 1,1.1,1.3 --seeds 3 \
    $ROUNDING $TRAINING --out "$OUT/ablation"
trifold ablate "$HERE/mobilenet16.toml" "$DATA" --factors 2 --kinds depth,width,resolution,compound --seeds 3 \
    $ROUNDING $TRAINING --out "$OUT/mobilenet"
