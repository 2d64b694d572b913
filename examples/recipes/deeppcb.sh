#!/bin/sh
# Small defects of circuit boards.
#
#     sh examples/recipes/deeppcb.sh DATA/deeppcb runs/deeppcb [SEED]
#
# DATA/deeppcb is https://github.com/tangsanli5201/DeepPCB (MIT), with COCO json files. Defects are 10 to 60 pixels wide,
# so the input keeps all 640 of them, and the model is a face detector, whose first map has a stride of 8. A board has
# no up or down.
set -eu
data=$1 run=$2 seed=${3:-0}
ssd-zoo train "$data" --output "$run" --seed "$seed" --resume \
  --model ssdlite320_ultraface_rfb --weights WIDER_FACE_V1 --size 640 --fit-default-boxes \
  --score-thresh 0.01 --nms-thresh 0.45 \
  --cache --augmentation light --flip-vertically \
  --epochs 20 --batch-size 4 --box-loss giou --optimizer adamw --learning-rate 0.002 --weight-decay 0.0005 \
  --ema-decay 0.998 --evaluate-every 4 --trained-on DeepPCB --licence MIT
ssd-zoo evaluate "$data" --split val --model "$run/best" --json "$run/val.json" --output "$run"
