"""Linear probe of ViT-S/16 on ImageNet-1k: DINO's protocol, class tokens of the last four blocks (Caron et al. 2021).

    tools/dist_train.sh configs/linear/vits_dino_100e.py 8 --cfg-options init=CKPT

Published: DINO ViT-S/16 77.0 (k-NN 74.5).
Each block's class token goes through the final norm; joined, earliest block first: 1536 values. SGD, lr 0.001 x batch /
256, momentum 0.9, no decay, 100 epochs, cosine set once an epoch; bilinear crops, bicubic test images; fp32. Batch
8 x 128. Other batches: --auto-scale-lr. Other data: IMAGENET_ROOT=DIR and model.head.num_classes=N.
DINO tuned the rate for each model and did not publish it: try optim_wrapper.optimizer.lr, or the 45 rates at once of
vits_ibot_100e.py. Difference: DINO reports the best epoch on the test set, here every epoch is logged.
Cost: not measured here.
"""

_base_ = ['./vitb_dino_100e.py']

model = dict(backbone=dict(arch='deit-small'), blocks=[-4, -3, -2, -1], pool='cls', head=dict(in_channels=4 * 384))
