#!/bin/sh
# Train the detector of blood cells that ships as BCCD_V1, in half an hour on two CPU cores.
# It is trained on `train`, selected on `val` and evaluated on `test`.
#
#     sh examples/recipes/bccd.sh DATA/bccd runs/bccd [SEED]
#
# DATA/bccd is https://github.com/Shenggan/BCCD_Dataset (MIT). Most is chosen by the data, as without options. Images are
# also cropped, and flipped vertically, as a microscope's pictures have no up or down.
set -eu
data=$1 run=$2 seed=${3:-0}
ssd-zoo train "$data" --output "$run" --seed "$seed" --resume --cache \
  --augmentation ssdlite --flip-vertically --epochs 38 --trained-on BCCD --licence Apache-2.0
ssd-zoo evaluate "$data" --split test --model "$run/best" --json "$run/test.json" --output "$run"
