# SimMIM, Swin-B with windows of 6 at 192 px: 22 of 36 squares of 32 px hidden, each 8 x 8 patches of 4 px.
_base_ = './simmim_vit.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.SimMIMSwinTransformer',
        arch='base',
        img_size=192,
        stage_cfgs=dict(block_cfgs=dict(window_size=6)),
        drop_path_rate=0.0,  # as published; mmpretrain's recipe leaves it at 0.1
    ),
)
