"""Tasks and losses, optimizers, state, step, loop and checkpoints."""

from cnn_jax.training.checkpoints import Checkpoints
from cnn_jax.training.loop import Outcome, fit
from cnn_jax.training.member import Progress
from cnn_jax.training.optimizers import Optimizer, make_optimizer
from cnn_jax.training.preprocess import Preprocess, fit_preprocess
from cnn_jax.training.segmentation import Segmentation
from cnn_jax.training.selfsupervised import Contrastive, CutPaste, Reconstruction, Rotation
from cnn_jax.training.state import State, create_state, purpose_key
from cnn_jax.training.step import TrainStep, gather_batch, make_eval_step, make_run_chunk
from cnn_jax.training.task import Classification, MultiLabel, Task

__all__ = [
    "Checkpoints",
    "Classification",
    "Contrastive",
    "CutPaste",
    "MultiLabel",
    "Optimizer",
    "Outcome",
    "Preprocess",
    "Progress",
    "Reconstruction",
    "Rotation",
    "Segmentation",
    "State",
    "Task",
    "TrainStep",
    "create_state",
    "fit",
    "fit_preprocess",
    "gather_batch",
    "make_eval_step",
    "make_optimizer",
    "make_run_chunk",
    "purpose_key",
]
