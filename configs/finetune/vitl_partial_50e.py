"""Partial fine-tuning of ViT-L/16 on ImageNet-1k: the last blocks alone (MAE, He et al. 2022, section 4.3, figure 9).

    tools/dist_train.sh configs/finetune/vitl_partial_50e.py 8 --cfg-options init=CKPT model.tuned_blocks=4

tuned_blocks: 0, 0.5 (the MLP of the last block), 1, 2, 4, 6, 12, 18, 24, or all, which is vitl_finetune_50e.py. As
vitb_partial_100e.py, whose run sheet has the words; of 50, 100 and 200 epochs the best for each number (appendix A.1).
Published: a curve in figure 9; its numbers are not in our table.
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = ['./vitl_finetune_50e.py']

model = dict(type='mim_mm.PartialFineTuning', tuned_blocks=1)
