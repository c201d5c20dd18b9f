#!/bin/sh
# Makes the run folders again. Runs in the folder that is to hold them, with patchlight of commit 80b7b94 (and its
# tests/ on the path, for saved.py) importable by $PYTHON:
#   cd old-runs && PYTHONPATH=/some/checkout/src:/some/checkout/tests PYTHON=python sh made-by/make.sh
set -e
export OMP_NUM_THREADS=2
here=$(dirname "$0")
small="--data.image_size 16 --data.val_per_class 4 --data.test_per_class 6 --model.depth 2 --model.num_heads 2
--model.mlp_ratio 2 --train.device cpu --train.precision fp32 --eval.gallery 4"

$PYTHON -m patchlight train quickstart $small --data.train_per_class 100 --data.subset_test_per_class 2 \
  --model.embed_dim 12 --train.batch_size 16 --train.epochs 6 --optim.lr 1e-2 --optim.muon_lr 0.05 \
  --augment.crop_padding 0 --train.label_smoothing 0 --augment.mixup_alpha 0.2 \
  --eval.mirror true --explain.snapshots_every 1 --explain.snapshots_images 4 --explain.faithfulness 6 --out classify
$PYTHON -m patchlight explain classify

$PYTHON -m patchlight train quickstart $small --data.train_per_class 12 --train.task reconstruct --model.embed_dim 12 \
  --train.batch_size 32 --train.epochs 2 --mae.decoder_dim 12 --mae.decoder_depth 1 --mae.decoder_heads 2 \
  --optim.name adamw --train.label_smoothing 0 --explain.snapshots_every 0 --explain.faithfulness 0 --out reconstruct

$PYTHON -c "
from pathlib import Path
from saved import save_timm
save_timm(Path('stages-weights'), depth=2, embed_dim=8, num_heads=2, mlp_ratio=2.0)"
$PYTHON "$here/interrupted.py" 3 train "$here/stages.toml" --out stages || test $? = 130
$PYTHON "$here/interrupted.py" 9 train "$here/stages.toml" --out stages --resume || test $? = 130
