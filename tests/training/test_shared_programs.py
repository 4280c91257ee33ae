"""What one training has compiled serves the next, and nothing else does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import QUICK, small_set

from cnn_jax import models, nn, programs, train
from cnn_jax.assembly import assemble_run
from cnn_jax.recipe import Recipe
from cnn_jax.training.progress import Silent

BASE = Recipe().override(
    {
        "model.name": "compact",
        "model.options": {"widths": [4], "units": 1},
        "train.batch_size": 8,
        "train.compiler_options": QUICK,
        "train.devices": 1,
    }
)


@pytest.fixture(autouse=True)
def _empty():
    programs._made.cache_clear()
    yield
    programs._made.cache_clear()


def assembled(changes=None, model=None, **of_data):
    return assemble_run(BASE.override(changes or {}), small_set(**of_data), model)


def stepped(assembly):
    """The parameters after three steps from the start, and the logits of test images."""
    feed, state = assembly.feeds["train"], assembly.initial_state()
    for chunk in feed.train_chunks(seed=3, epoch=0, first_step=0, chunk_steps=1):
        state, _ = assembly.run_chunk(state, feed.resident, chunk)
    variables = {"params": state.params, **state.model_state}
    return state.params, assembly.predict("test", variables).logits


# What the step reads from its state, or is not in it.
ALIKE = (
    {"seed": 7},
    {"optimizer.learning_rate": 0.3, "optimizer.weight_decay": 0.0},
    {"optimizer.momentum": 0.5},
    {"schedule.warmup_epochs": 0.0},
    {"loss.label_smoothing": 0.2},
)
# What is compiled into it.
OTHER = (
    {"optimizer.momentum": 0.0},
    {"optimizer.name": "adamw"},
    {"optimizer.nesterov": not BASE.optimizer.nesterov},
    {"optimizer.decay_exclude": []},
    {"optimizer.clip_norm": 1.0},
    {"optimizer.sam": 0.05},
    {"schedule.name": "linear"},
    {"train.epochs": 7},
    {"train.batch_size": 11},
    {"train.batch_size": 6, "train.accumulate": 2},
    {"train.remat": ["stage1"]},
    {"augment.translate": 1},
    {"augment.flip": True},
    {"loss.class_weights": [1.0, 2.0, 3.0]},
    {"loss.focal": 2.0},
    {"loss.logit_adjustment": 1.0},
    {"loss.margin": "cosface"},
    {"model.options": {"widths": [4], "units": 2}},
    {"train.compiler_options": {**QUICK, "xla_backend_optimization_level": 1}},
)


@pytest.mark.heavy
@pytest.mark.parametrize("changes", ALIKE, ids=str)
def test_recipes_that_differ_in_scalars_share_all_programs(changes):
    expected = stepped(assembled(changes))
    programs._made.cache_clear()
    first = assembled()
    stepped(first)
    second = assembled(changes)
    assert second.run_chunk is first.run_chunk and second.eval_step is first.eval_step
    compiled = first.run_chunk._cache_size(), first.eval_step._cache_size()
    jax.tree.map(np.testing.assert_array_equal, stepped(second), expected)
    assert (first.run_chunk._cache_size(), first.eval_step._cache_size()) == compiled == (1, 1)


@pytest.mark.parametrize("changes", OTHER, ids=str)
def test_what_is_compiled_in_is_not_shared(changes):
    first, second = assembled(), assembled(changes)
    assert second.run_chunk is not first.run_chunk


def test_views_data_and_models_are_told_apart():
    first = assembled()
    views = assembled({"train.views": "mirror"})
    assert views.final_step is not first.final_step and views.eval_step is first.eval_step
    assert assembled(seed=1).preprocess != first.preprocess
    assert assembled(seed=1).run_chunk is not first.run_chunk
    assert assembled(classes=2).run_chunk is not first.run_chunk


def test_a_classifier_uses_what_training_has_compiled(tmp_path):
    run = train(
        BASE.override({"train.epochs": 1}),
        data=small_set(),
        out=tmp_path / "run",
        reporter=Silent(),
    )
    assert run.classifier._eval_step is run.assembly.eval_step


def test_a_model_that_was_made_with_a_list_is_trained_as_any():
    own = models.Compact(num_classes=3, widths=[4], units=1)
    with pytest.raises(TypeError, match="hash"):
        hash(own)
    first, second = (assembled({"train.epochs": 1}, model=own) for _ in range(2))
    assert first.run_chunk is not second.run_chunk
    assert np.isfinite(stepped(first)[1]).all()


def test_a_function_that_was_defined_again_is_seen():
    """As in a notebook: the module is the same class, and calls what a cell has changed."""
    factor = {"now": 1.0}

    class Own(nn.Module):
        @nn.compact
        def __call__(self, image, *, train=False):
            return factor["now"] * nn.Dense(3)(jnp.reshape(image, (len(image), -1)))

    before = assembled(model=Own())
    params = before.initial_state().params
    logits = before.predict("test", {"params": params}).logits
    factor["now"] = 2.0
    after = assembled(model=Own())
    assert after.run_chunk is not before.run_chunk
    np.testing.assert_allclose(
        after.predict("test", {"params": params}).logits, 2 * logits, rtol=1e-6
    )
