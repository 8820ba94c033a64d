"""Partial fine-tuning of ViT-B/16 on ImageNet-1k: the last blocks alone (MAE, He et al. 2022, section 4.3, figure 9).

    tools/dist_train.sh configs/finetune/vitb_partial_100e.py 8 --cfg-options init=CKPT model.tuned_blocks=4

tuned_blocks: 0, 0.5 (the MLP of the last block), 1, 2, 4, 6, ... 12, or all, which is vitb_finetune_100e.py. The rest
is frozen and in eval mode (mim_mm.PartialFineTuning). Everything else as fine-tuning (table 9), layer decay too.
Appendix A.1: fewer blocks want a longer schedule; of 50, 100 and 200 epochs (train_cfg.max_epochs) the best for each
number. That best is chosen on the test images, as in the paper. Published: ViT-L, as a figure; nothing for ViT-B.
The curve over tuned_blocks with one command: docs/transfer.md#partial-fine-tuning.
Batch 8 x 128.
Cost: not measured here.
"""

_base_ = ['./vitb_finetune_100e.py']

model = dict(type='mim_mm.PartialFineTuning', tuned_blocks=1)
