"""data2vec 2.0, ViT-B/16, 75 epochs of ImageNet-1k (Baevski et al., ICML 2023; its official code in fairseq).

    tools/dist_train.sh configs/data2vec/data2vec2_vitb_75e.py 8

Published: none for this file. It is the release's base_images_only_task.yaml, whose 375,300 steps of 256 images are 75
epochs; the paper's figure of ViT-B and its epochs have not been read.
AdamW, lr 1e-3 for 256 images, warm-up 10 epochs (50,040 steps), cosine to 0, decay 0.05 of every tensor, gradients
clipped at 4; no drop path; the teacher's momentum 0.9998 to 0.99999 in 100,000 steps. Crop and flip as MAE, bicubic.
bf16 (the release: fp16). Batch 256 = 8 x 32 (the release: 16 x 16). cls_weight 2.56 is its 0.01 of the sum over the 256
copies of a GPU. Other batches: --auto-scale-lr, and steps of the momentum to match.
Cost: 2.8 h on 8 H100 at half of their bf16 peak, by FLOPs (413 GFLOP an image, its 16 copies); not measured.
"""

_base_ = [
    '../_base_/models/data2vec2_vit.py',
    '../_base_/datasets/imagenet_pretrain.py',
    '../_base_/schedules/data2vec2_pretrain.py',
    '../_base_/default_runtime.py',
]
train_dataloader = dict(batch_size=32)
default_hooks = dict(checkpoint=dict(interval=5))
