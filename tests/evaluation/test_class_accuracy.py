"""The confusion matrix against a count by hand and scikit-learn's, and the file beside a run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import BaseLoop
from mmpretrain.structures import DataSample
from sklearn.metrics import confusion_matrix

from mim_mm.engine.hooks.class_results_hook import ClassResultsHook
from mim_mm.registry import METRICS


def evaluated(scores, labels, classes=('ant', 'bee', 'cat'), kind='mim_mm.ClassAccuracy', **options):
    init_default_scope('mmpretrain')
    evaluator = Evaluator(METRICS.build(dict(type=kind, **options)))
    evaluator.dataset_meta = dict(classes=classes)
    samples = [DataSample().set_gt_label(int(y)).set_pred_score(s) for s, y in zip(scores, labels)]
    evaluator.process(samples)
    return evaluator, evaluator.evaluate(len(samples))


def test_rows_are_the_truth_and_columns_what_was_said():
    scores = torch.eye(3)[[0, 0, 1, 1, 1, 2]]
    evaluator, figures = evaluated(scores, [0, 0, 1, 0, 2, 1], topk=(1,))
    name, content = evaluator.metrics[0].class_results
    assert name == 'confusion.json' and figures == {'accuracy/top1': pytest.approx(50.0)}
    assert content == dict(schema=1, classes=['ant', 'bee', 'cat'], counts=[[2, 1, 0], [0, 1, 1], [0, 1, 0]])


@pytest.mark.parametrize('classes', [2, 7, 40])
def test_counts_are_scikit_learns_and_figures_mmpretrains(classes):
    rng = np.random.default_rng(classes)
    scores = torch.tensor(rng.dirichlet(np.ones(classes), 300), dtype=torch.float32)
    labels = rng.integers(0, classes - 1, 300)  # the last class has no image
    names = [f'c{i}' for i in range(classes)]
    evaluator, figures = evaluated(scores, labels, names, topk=(1, 2))
    counts = evaluator.metrics[0].class_results[1]['counts']
    assert counts == confusion_matrix(labels, scores.argmax(1), labels=range(classes)).tolist()
    assert figures == evaluated(scores, labels, names, 'Accuracy', topk=(1, 2))[1]
    assert 100 * np.trace(counts) / 300 == pytest.approx(figures['accuracy/top1'])
    assert evaluated(scores, labels, None)[0].metrics[0].class_results[1]['classes'][0] == '0', 'numbers without names'


class Loop(BaseLoop):
    """A loop as the hook sees it: with an evaluator, a loader and where it stands."""

    def __init__(self, **parts):
        self.__dict__.update(parts)

    def run(self):
        raise NotImplementedError


def runner_of(folder, evaluator, labels, train=True):
    data = SimpleNamespace(get_gt_labels=lambda: np.array(labels))
    loop = Loop(dataloader=SimpleNamespace(dataset=data), epoch=3, iter=12) if train else None
    val = Loop(evaluator=evaluator)
    return SimpleNamespace(work_dir=str(folder), _train_loop=loop, _val_loop=val, _test_loop=val)


def test_the_file_beside_a_run(tmp_path):
    evaluator, _ = evaluated(torch.eye(3)[[0, 1, 2]], [0, 1, 1])
    runner = runner_of(tmp_path, evaluator, [0, 0, 0, 1])
    ClassResultsHook().after_val_epoch(runner)
    content = json.loads((tmp_path / 'confusion.json').read_text())
    assert content['training_images'] == [3, 1, 0] and content['counts'] == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert (content['epoch'], content['iter'], content['schema']) == (3, 12, 1)
    runner = runner_of(tmp_path, evaluator, [], train=False)
    ClassResultsHook().after_test_epoch(runner)
    content = json.loads((tmp_path / 'confusion.json').read_text())
    assert content['training_images'] is None and content['iter'] is None, 'a run that only tests'


def test_other_metrics_leave_nothing_and_a_training_of_other_classes_is_not_counted(tmp_path):
    evaluator, _ = evaluated(torch.eye(3), [0, 1, 2], kind='Accuracy')
    ClassResultsHook().after_val_epoch(runner_of(tmp_path, evaluator, [0]))
    assert not list(tmp_path.iterdir())
    evaluator, _ = evaluated(torch.eye(3), [0, 1, 2])
    ClassResultsHook().after_val_epoch(runner_of(tmp_path, evaluator, [0, 5]))
    assert json.loads((tmp_path / 'confusion.json').read_text())['training_images'] is None


def test_a_full_disk_does_not_end_the_training(tmp_path):
    evaluator, _ = evaluated(torch.eye(3), [0, 1, 2])
    (tmp_path / 'file').touch()
    with pytest.warns(UserWarning, match='ClassResultsHook.after_val_epoch failed .* training goes on'):
        ClassResultsHook().after_val_epoch(runner_of(tmp_path / 'file' / 'work', evaluator, [0]))
