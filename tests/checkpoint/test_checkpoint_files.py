"""Checkpoints: whole or absent, plain types only, and a resumed run ends where an uninterrupted one does."""

import os

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from tiny_run import train

from mim_mm.checkpoint.atomic import AtomicLocalBackend, latest_checkpoint, restore_history, to_plain


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path, backend = tmp_path / 'a.pth', AtomicLocalBackend()
    backend.put(b'old', path)
    monkeypatch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'):
        backend.put(b'new', path)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.pth']


def test_plain_types_survive_a_safe_load(tmp_path):
    content = dict(
        meta=ConfigDict(
            epoch=np.int64(3), lr=np.float64(0.5), names=('a', 'b'), table=np.arange(3), words=np.array(['x'])
        ),
        message_hub=dict(log_scalars={'train/loss': HistoryBuffer([1.0, 2.0], [1, 2])}),
        state_dict={'w': torch.ones(2)},
    )
    torch.save(to_plain(content), tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert loaded['meta']['epoch'] == 3 and loaded['meta']['names'] == ('a', 'b') and loaded['meta']['words'] == ['x']
    assert loaded['meta']['table'].tolist() == [0, 1, 2]
    restore_history(loaded['message_hub'])
    log, count = loaded['message_hub']['log_scalars']['train/loss'].data
    assert log.tolist() == [1.0, 2.0] and count.tolist() == [1, 2]


def test_objects_are_refused_by_name():
    with pytest.raises(TypeError, match=r'checkpoint\.a\[1\] is a .*Linear'):
        to_plain({'a': [1, torch.nn.Linear(1, 1)]})


def test_the_note_is_believed_only_if_its_file_is_whole(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for epoch in (1, 2):
        torch.save({'epoch': epoch}, tmp_path / f'epoch_{epoch}.pth')
    (tmp_path / 'last_checkpoint').write_text('/moved/elsewhere/epoch_1.pth')
    assert latest_checkpoint(tmp_path).name == 'epoch_1.pth'
    (tmp_path / 'last_checkpoint').write_text('')
    assert latest_checkpoint(tmp_path).name == 'epoch_2.pth'
    (tmp_path / 'epoch_2.pth').write_bytes(b'half')
    assert latest_checkpoint(tmp_path).name == 'epoch_1.pth'


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(image_folder, tmp_path):
    whole = train(image_folder, tmp_path / 'whole', epochs=3)
    train(image_folder, tmp_path / 'cut', epochs=3, stop_after=2)
    resumed = train(image_folder, tmp_path / 'cut', epochs=3, resume=True)
    assert whole.iter == resumed.iter
    for (name, a), (_, b) in zip(whole.model.state_dict().items(), resumed.model.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    saved = torch.load(tmp_path / 'cut/epoch_3.pth', weights_only=True)
    assert saved['meta']['epoch'] == 3 and 'optimizer' in saved
    assert os.path.basename((tmp_path / 'cut/last_checkpoint').read_text()) == 'epoch_3.pth'
    assert not [name for name in os.listdir(tmp_path / 'cut') if name.endswith('.tmp')]
