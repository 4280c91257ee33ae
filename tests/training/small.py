"""A small problem that the tests of training share."""

import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data, nn
from cnn_jax.assembly import assemble_run
from cnn_jax.recipe import Recipe
from cnn_jax.training.progress import Silent

# A step that can be worked by hand: nothing random, no momentum, no decay, one rate.
PLAIN = {
    "train.batch_size": 8,
    "augment.translate": 0,
    "optimizer.momentum": 0.0,
    "optimizer.weight_decay": 0.0,
    "schedule.name": "constant",
    "schedule.warmup_epochs": 0.0,
}

# Compiler options for what is compiled to be run a few times: a third of the waiting.
QUICK, FUSED = {"xla_backend_optimization_level": 0}, {}
if jax.__version_info__ < (0, 11):  # later compilers have no other way, and refuse the name
    QUICK["xla_cpu_use_fusion_emitters"], FUSED["xla_cpu_use_fusion_emitters"] = False, True
quick = functools.partial(jax.jit, compiler_options=QUICK)
# As for users, where it matters how XLA rounds: tests/conftest.py has less optimised.
fused = functools.partial(jax.jit, compiler_options=FUSED)


class Tiny(nn.Module):
    """One convolution with batch norm: everything a step can get wrong, little to compile."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.Conv(4, (3, 3), use_bias=False, name="conv")(image)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        x = nn.Dropout(0.1, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.num_classes, name="head")(nn.global_avg_pool(x))


class Linear(nn.Module):
    """Logistic regression."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, image, *, train=False):
        x = image.reshape(image.shape[0], -1)
        return nn.Dense(self.num_classes, name="head", kernel_init=nn.initializers.ones)(x)


def small_set(n=22, classes=3, size=6, seed=0):
    """Squares of three brightnesses with noise, as a data set with all parts."""
    rng = np.random.default_rng(seed)

    def part(m):
        labels = np.arange(m) % classes
        images = rng.integers(0, 80, (m, size, size, 1)) + 80 * labels[:, None, None, None]
        return images.astype(np.uint8), labels

    images, labels = part(n)
    return data.from_arrays(images, labels, test=part(9), validation=part(9), name="squares")


def batch_of(dataset, rows, padding=0):
    """Rows of the training part as a batch, with so many padded rows of garbage."""
    split = dataset.splits["train"]
    image = split.images[rows]
    label = split.targets["label"][rows]
    image = np.concatenate([image, np.full((padding, *image.shape[1:]), 255, np.uint8)])
    label = np.concatenate([label, np.zeros(padding, np.int32)])
    valid = np.arange(len(label)) < len(rows)
    index = np.arange(len(label), dtype=np.int32)
    return {
        "image": jnp.asarray(image),
        "label": jnp.asarray(label),
        "valid": jnp.asarray(valid),
        "index": jnp.asarray(index),
    }


def parts(model, changes=None, n=22):
    """Assembly, compiled chunk and first state of a plain recipe with some changes."""
    recipe = Recipe().override({**PLAIN, **(changes or {})})
    assembly = assemble_run(recipe, small_set(n), model)
    return assembly, assembly.run_chunk, assembly.initial_state()


def one(batch):
    """A batch as a chunk of one step; everything travels in the item."""
    return {name: value[None] for name, value in batch.items()}


class Interrupting(Silent):
    """Presses the stop button after an epoch."""

    def __init__(self, after):
        self.after = after

    def epoch(self, rows, images_per_second):
        if rows[0]["epoch"] == self.after:
            os.kill(os.getpid(), signal.SIGINT)
