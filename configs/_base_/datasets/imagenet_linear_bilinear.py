# As imagenet_linear.py with bilinear crops, for 1024 images on 8 GPUs. Test images stay bicubic (DINO, iBOT, BEiT).
_base_ = ['./imagenet_linear.py', './bilinear_crop.py']

train_dataloader = dict(batch_size=128, dataset=dict(pipeline={{_base_.bilinear_crop}}))
val_dataloader = dict(batch_size=128)
test_dataloader = val_dataloader
