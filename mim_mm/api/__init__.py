"""mim_mm in Python: encoders and their features, predictions of trained models, pretraining and measuring.

    import mim_mm

    encoder = mim_mm.api.load_encoder('work_dirs/mine/pretrain')
    cls, patches = encoder.features(['a.jpg', 'b.jpg'])     # (2, D), (2, N, D)

``import mim_mm`` costs milliseconds; torch comes with the first use of ``mim_mm.api``. Images are paths, PIL images, or
arrays (H, W, 3) or (H, W) of uint8 in R, G, B. docs/api.md has examples.
"""

from mim_mm.api.encoder import LoadedEncoder, load_encoder
from mim_mm.api.measures import effective_ranks, evaluate, few_shot
from mim_mm.api.models import Detection, Prediction, detect, predict
from mim_mm.api.pictures import draw_features
from mim_mm.api.training import pretrain

__all__ = [
    'Detection',
    'LoadedEncoder',
    'Prediction',
    'detect',
    'draw_features',
    'effective_ranks',
    'evaluate',
    'features',
    'few_shot',
    'load_encoder',
    'predict',
    'pretrain',
]


def features(encoder, images, **options):
    """``load_encoder(encoder).features(images, **options)``, where ``encoder`` may be loaded already."""
    return (encoder if isinstance(encoder, LoadedEncoder) else load_encoder(encoder)).features(images, **options)
