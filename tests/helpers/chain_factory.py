"""Made chain folders for the report's tests: the files a chain leaves, with numbers chosen by hand."""

import json

import numpy as np


def write_run(folder, name, kind, **fields):
    """One ``run.json`` as the chain writes it; ``fields`` replace what is given here."""
    run = {
        'schema': 1,
        'chain': 'demo',
        'stage': name,
        'kind': kind,
        'arm': None,
        'seed': 0,
        'status': 'done',
        'config': {'path': f'configs/demo/{name}.py', 'sha256': 'c' * 64, 'options': {}},
        'parent': None,
        'git': {'commit': 'a1b2c3d4e5f6a7b8', 'dirty': False},
        'data': {'name': 'digits-demo'},
        'seeds': {'seed': 0},
        'versions': {'torch': '2.14.1'},
        'device': 'cpu, 1 thread',
        'started': '2026-01-01T10:00:00Z',
        'finished': '2026-01-01T10:01:05Z',
        'wall_s': 65.0,
        'command': ['python'],
        'exit_code': 0,
        'error': None,
        'metrics': {},
        'progress': {},
        'scalars': None,
        'checkpoint': None,
        'artifacts': {},
    }
    run.update(fields)
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    (path / 'run.json').write_text(json.dumps(run))
    return path


def coco_metrics(box, mask):
    """mmdet's names; AP50 and AP75 at fixed distances so that columns cannot be mixed up unnoticed."""
    metrics = {}
    for name, value in (('bbox', box), ('segm', mask)):
        for suffix, shift in (('', 0.0), ('_50', 0.1), ('_75', -0.1)):
            metrics[f'coco/{name}_mAP{suffix}'] = value + shift
    return metrics


def write_png(path, size=(6, 9)):
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))


def write_demo_chain(folder, linear_emae=(84.0, 86.0, 88.0), linear_scratch=(70.0, 71.0, 72.0), scratch_box=0.55):
    """Both arms, everything done; linear has three seeds."""
    listed = [dict(name='pretrain', kind='pretrain', arm='emae', seed=0)]
    pretrain = write_run(
        folder,
        'pretrain',
        'pretrain',
        arm='emae',
        scalars='vis_data/scalars.json',
        artifacts={'reconstruction': 'reconstruction.png'},
    )
    write_png(pretrain / 'reconstruction.png')
    (pretrain / 'vis_data').mkdir()
    losses = dict(loss=2, loss_whole=1.5, loss_consistency=0.05, consistency=0.5, mse=1.5)
    rows = [dict({k: v / s for k, v in losses.items()}, step=s, mse_patch_mean=1.0, lr=0.1) for s in range(1, 40)]
    lines = [json.dumps(row) for row in rows]
    (pretrain / 'vis_data' / 'scalars.json').write_text('\n'.join([*lines, '{"step": 40, "lo']))
    for arm, tops in (('emae', linear_emae), ('scratch', linear_scratch)):
        for seed, top in enumerate(tops):
            listed.append(dict(name=f'linear_{arm}-s{seed}', base=f'linear_{arm}', kind='linear', arm=arm, seed=seed))
            write_run(
                folder,
                f'linear_{arm}-s{seed}',
                'linear',
                stage=f'linear_{arm}',
                arm=arm,
                seed=seed,
                metrics={'accuracy/top1': top},
            )
    for arm, top, box in (('emae', 97.0, 0.6), ('scratch', 95.5, scratch_box)):
        listed += [
            dict(name=f'finetune_{arm}', kind='finetune', arm=arm, seed=0),
            dict(name=f'coco_{arm}', kind='coco', arm=arm, seed=0),
        ]
        write_run(folder, f'finetune_{arm}', 'finetune', arm=arm, metrics={'accuracy/top1': top})
        parent = {'stage': 'pretrain', 'checkpoint': 'epoch_1.pth', 'sha256': 'd' * 64} if arm == 'emae' else None
        write_run(folder, f'coco_{arm}', 'coco', arm=arm, metrics=coco_metrics(box, 0.61), parent=parent)
    listed.append(dict(name='report', kind='report', arm=None, seed=0))
    write_run(folder, 'report', 'report', status='running', finished=None, wall_s=None)
    chain = dict(schema=1, name='demo', stages=listed, arms=['emae', 'scratch'])
    (folder / 'chain.json').write_text(json.dumps(chain))
    return folder


def write_class_results(folder, classifier, detector):
    """``confusion.json`` of a fine-tuning (97 %) and ``per_class.json`` of a detector (box AP 60, mask AP 61)."""
    counts = [[94, 6, 0], [0, 3, 0], [0, 0, 97]]
    content = dict(schema=1, classes=['ant', 'bee', 'cat'], counts=counts, training_images=[50, 9, 70], epoch=1, iter=9)
    (folder / classifier / 'confusion.json').write_text(json.dumps(content))
    rows = [
        dict(name='four', boxes=12, bbox=dict(AP=0.7, AP50=0.9), segm=dict(AP=0.72, AP50=0.85)),
        dict(name='nine', boxes=5, bbox=dict(AP=0.5, AP50=0.5), segm=dict(AP=0.5, AP50=0.7)),
        dict(name='zero', boxes=0, bbox=dict(AP=None, AP50=None), segm=dict(AP=None, AP50=None)),
    ]
    (folder / detector / 'per_class.json').write_text(json.dumps(dict(schema=1, classes=rows, epoch=1, iter=9)))
