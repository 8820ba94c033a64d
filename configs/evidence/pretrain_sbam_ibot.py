"""Small scale, iBOT with SBAM's masks on CIFAR-10: as pretrain_ibot.py, hiding the most salient patches.

python tools/train.py configs/evidence/pretrain_sbam_ibot.py --data-root CIFAR
"""

_base_ = './pretrain_ibot.py'

model = dict(masker=dict(_delete_=True, type='DrawnRatio', share=0.5, masker=dict(type='SalienceMasking')))
