#!/bin/sh
# Train a detector of small defects on circuit boards.
#
#     sh examples/recipes/deeppcb.sh DATA/deeppcb runs/deeppcb [SEED]
#
# DATA/deeppcb is https://github.com/tangsanli5201/DeepPCB (MIT), with annotations in COCO's format. Defects are 10 to
# 60 pixels wide, so the input has the images' full size of 640 pixels. The model is a face detector, as its first map
# has a stride of 8. Images are also flipped vertically, as a board has no up or down.
set -eu
data=$1 run=$2 seed=${3:-0}
ssd-zoo train "$data" --output "$run" --seed "$seed" --resume \
  --model ssdlite320_ultraface_rfb --weights WIDER_FACE_V1 --size 640 --fit-default-boxes \
  --score-thresh 0.01 --nms-thresh 0.45 \
  --cache --augmentation light --flip-vertically \
  --epochs 20 --batch-size 4 --box-loss giou --optimizer adamw --learning-rate 0.002 --weight-decay 0.0005 \
  --ema-decay 0.998 --evaluate-every 4 --trained-on DeepPCB --licence MIT
ssd-zoo evaluate "$data" --split val --model "$run/best" --json "$run/val.json" --output "$run"
