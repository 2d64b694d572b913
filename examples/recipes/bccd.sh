#!/bin/sh
# Train a detector of blood cells in half an hour on two CPU cores.
# It is trained on `train`, selected on `val` and evaluated on `test`.
#
#     sh examples/recipes/bccd.sh DATA/bccd runs/bccd [SEED]
#
# DATA/bccd is https://github.com/Shenggan/BCCD_Dataset (MIT). The input has the images' full size, as a platelet is only
# 40 pixels wide. Images are also flipped vertically, as a microscope's pictures have no up or down.
set -eu
data=$1 run=$2 seed=${3:-0}
ssd-zoo train "$data" --output "$run" --seed "$seed" --resume \
  --model ssdlite300_mobilenet_v2 --weights COCO_TF_V1 --size 480x640 --fit-default-boxes \
  --on-invalid drop --cache --augmentation ssdlite --flip-vertically \
  --epochs 25 --batch-size 8 --box-loss giou --optimizer adamw --learning-rate 0.001 --weight-decay 0.0005 \
  --ema-decay 0.998 --evaluate-every 5 --trained-on BCCD --licence Apache-2.0
ssd-zoo evaluate "$data" --split test --model "$run/best" --json "$run/test.json" --output "$run"
