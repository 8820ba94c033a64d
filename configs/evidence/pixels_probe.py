"""Evidence study, the line below everything: the quick probe and the k-NN on raw pixels, with no encoder at all.

python tools/train.py configs/evidence/pixels_probe.py --data-root CIFAR
python tools/knn.py configs/evidence/pixels_probe.py random --data-root CIFAR --resize 32 --crop 32
"""

_base_ = 'quick_probe.py'

model = dict(
    backbone=dict(_delete_=True, type='mim_mm.RawPixels', img_size=32),
    head=dict(blocks=(1,), pooling=('mean',)),
)
