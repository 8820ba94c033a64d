"""Fine-tuning of ViT-B/16 on 10 % of ImageNet-1k's labels: iBOT's protocol (Zhou et al., ICLR 2022, and its release).

    LOWSHOT_LIST=/lists/10percent.txt tools/dist_train.sh configs/finetune/vitb_lowshot_10pct.py 8 \
        --cfg-options init=CKPT

Published: iBOT's ViT-S about 75.1 (from memory); none for ViT-B, MAE or EMAE with this recipe. As vitb_lowshot_1pct.py
with the list of 128,116 images, 1000 epochs as well.
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = ['./vitb_lowshot_1pct.py']

train_dataloader = dict(dataset=dict(ann_file=r"""{{$LOWSHOT_LIST:meta/10percent.txt}}"""))
