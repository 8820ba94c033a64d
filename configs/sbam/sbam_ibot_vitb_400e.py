"""iBOT with salience masks (SBAM), ViT-B/16, 400 epochs (Choi et al., ECCV 2024).

    tools/dist_train.sh configs/sbam/sbam_ibot_vitb_400e.py 8

Published: 71.5 -> 74.4 for "iBoT (ViT-B)" with SBAM, an unlabelled figure that is no fine-tuning of ViT-B (iBOT's own
is 84.0). No code of it was released: the place is our reading.
Masks between teacher and student: salience of the student's patch embedding with positions; each large view keeps
iBOT's own count, none with probability 1/2, else int(196 r) with r of U(0.1, 0.5). Small views and the teacher's are
whole.
Everything else, what is from memory included: ibot_vitb_400e.py.
Cost: 17 h on 8 H100 at half of their bf16 peak, by FLOPs (485 GFLOP an image, all its views); not measured.
"""

_base_ = '../ibot/ibot_vitb_400e.py'
model = dict(
    masker=dict(_delete_=True, type='DrawnRatio', ratio=(0.1, 0.5), share=0.5, masker=dict(type='SalienceMasking')),
)
custom_hooks = [
    dict(type='FreezeHook', parts=['last_layer'], epochs=3),
    dict(type='CollapseHook', interval=100),
    dict(type='MaskDiagnosticsHook', interval=500),
]
