"""Losses of pairs and triplets against loops in float64 and PyTorch, whatever the input."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import QUICK

from cnn_jax.errors import ModelError, RecipeError
from cnn_jax.training.metric_learning import ContrastivePairs, SupervisedContrastive, Triplet
from cnn_jax.training.selfsupervised import Preparing

KEY = jax.random.key(0)
LARGEST = 3.38e38  # that bfloat16 holds
TASKS = {
    "contrastive": ContrastivePairs(),
    "all": Triplet(mining="all"),
    "hard": Triplet(mining="hard"),
    "semi-hard": Triplet(mining="semi-hard"),
    "supervised": SupervisedContrastive(),
}
HYPER = {name: {"pair_margin": 0.4, "pair_temperature": 0.2} for name in TASKS}
HYPER["contrastive"]["pair_margin"] = 1.3
B, SIZE = 20, 6


def judge(z, label, valid):
    """Of each task the losses, the weights, the gradient of their sum, and what is right."""
    batch = {"label": label, "valid": valid}

    def judged(name, task):
        def total(z):
            loss, weight = task.loss({"embedding": z}, batch, HYPER[name], key=KEY)
            counts = weight * valid.astype(jnp.float32)
            return (loss * counts).sum(), (loss, weight)

        gradient, of_rows = jax.grad(total, has_aux=True)(z)
        return *of_rows, gradient

    found = {name: judged(name, task) for name, task in TASKS.items()}
    return found, TASKS["all"].correct({"embedding": z}, batch)


judged = jax.jit(judge, compiler_options=QUICK)


def batch_of(seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 5, B).astype(np.int32)
    label[:2] = 9, 10  # alone
    z = rng.normal(size=(B, SIZE)) + 2 * rng.normal(size=(11, SIZE))[label]
    return z.astype(np.float32), label, np.arange(B) % 7 != 4


def written_out(name, z, label, valid):
    """Losses and weights, triplet by triplet, in float64."""
    z = z.astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    d = np.linalg.norm(z[:, None] - z[None], axis=2)
    losses, weights = np.zeros(len(z)), np.zeros(len(z))
    for a in np.flatnonzero(valid):
        positives = [p for p in range(len(z)) if valid[p] and p != a and label[p] == label[a]]
        negatives = [n for n in range(len(z)) if valid[n] and label[n] != label[a]]
        terms = []
        if name == "contrastive":
            terms = [d[a, p] ** 2 / 2 for p in positives]
            terms += [max(0, 1.3 - d[a, n]) ** 2 / 2 for n in negatives]
        elif name == "supervised":
            total = sum(np.exp(z[a] @ z[j] / 0.2) for j in positives + negatives)
            terms = [-np.log(np.exp(z[a] @ z[p] / 0.2) / total) for p in positives]
        elif name == "hard" and positives and negatives:
            terms = [max(0, max(d[a, positives]) - min(d[a, negatives]) + 0.4)]
        elif name == "semi-hard" and negatives:
            for p in positives:
                farther = [d[a, n] for n in negatives if d[a, n] > d[a, p]]
                chosen = min(farther) if farther else max(d[a, negatives])
                terms.append(max(0, d[a, p] - chosen + 0.4))
        elif name == "all":
            every = (d[a, p] - d[a, n] + 0.4 for p, n in itertools.product(positives, negatives))
            terms = [term for term in every if term > 0]
        if terms:
            losses[a] = np.mean(terms)
            weights[a] = len(terms) if name in ("all", "semi-hard") else 1
    nearest = np.where(valid[None] & ~np.eye(len(z), dtype=bool), d, np.inf).argmin(axis=1)
    return losses, weights, label[nearest] == label


def test_every_loss_is_its_loop_and_padded_rows_are_in_none():
    z, label, valid = batch_of()
    found, correct = judged(z, label, valid)
    for name, (loss, weight, gradient) in found.items():
        expected, weights, nearest = written_out(name, z, label, valid)
        assert loss.dtype == weight.dtype == jnp.float32
        np.testing.assert_allclose(loss[valid], expected[valid], rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(weight[valid], weights[valid])
        assert not weights[:2].any() or name == "contrastive"
        np.testing.assert_array_equal(correct[valid], nearest[valid])
        assert np.any(gradient[2:]) and not np.any(gradient[~valid])
    assert 0 < correct.mean() < 1


@pytest.mark.parity
def test_triplets_as_in_pytorch():
    torch = pytest.importorskip("torch")
    z, label, _ = batch_of(1)
    theirs = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    unit = torch.nn.functional.normalize(theirs, dim=1)
    triplets = [
        (a, p, n)
        for a, p, n in itertools.product(range(B), repeat=3)
        if a != p and label[a] == label[p] and label[a] != label[n]
    ]
    a, p, n = (unit[list(rows)] for rows in zip(*triplets, strict=True))
    loss = torch.nn.TripletMarginLoss(margin=0.4, eps=0, reduction="sum")(a, p, n)
    loss.backward()
    ours, weight, gradient = judged(z, label, np.ones(B, bool))[0]["all"]
    np.testing.assert_allclose((ours * weight).sum(), loss.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_ten_thousand_inputs_are_finite(dtype):
    for found in jax.tree.leaves(jax.eval_shape(judge, *batch_of_dtype(dtype))[0]):
        assert found.dtype == (jnp.float32 if found.ndim == 1 else dtype)
    # As all is computed in float32, one program serves what bfloat16 holds, too.
    rng = np.random.default_rng(2)
    for number in range(10_000 // B):
        x = rng.normal(size=(B, SIZE)).astype(np.float32)
        strange = [
            np.zeros_like(x),
            np.broadcast_to(x[0], x.shape),
            np.broadcast_to(x[0] * np.float32(-3), x.shape),
            np.nextafter(np.broadcast_to(x[0], x.shape), np.float32(np.inf)),
            x * np.float32(1e30),
            x * np.float32(1e-30),
            np.float32(3.3e38) * np.sign(x),
            np.float32(1e-38) * np.sign(x),
            np.float32([1, 0, 0, 0, 0, 0]) * x,
            x,
        ]
        kind = rng.integers(0, 10, B) if number % 3 else np.full(B, number // 3 % 10)
        z = np.stack(strange)[kind, np.arange(B)].astype(dtype).astype(np.float32)
        label = rng.integers(0, 1 + number % 4, B).astype(np.int32)  # one class alone, too
        for leaf in jax.tree.leaves(judged(z, label, rng.random(B) < number % 5 / 4)):
            assert (np.abs(leaf) < LARGEST).all()


def batch_of_dtype(dtype):
    z, label, valid = batch_of()
    return z.astype(dtype), label, valid


def test_these_tasks_need_the_whole_batch():
    for task in TASKS.values():
        assert isinstance(task, Preparing) and task.whole_batch
        assert task.prepare({"image": KEY}, key=KEY) == {"image": KEY}
    with pytest.raises(ModelError, match="one class of each image"):
        TASKS["all"].loss(jnp.ones((2, 3)), {"label": jnp.ones((2, 3))}, {}, key=KEY)


def test_fields_that_make_no_task():
    with pytest.raises(RecipeError, match="mining must be all, hard or semi-hard"):
        Triplet(mining="hardest")
