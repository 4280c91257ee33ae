"""Pairs of images of people, which tests then spoil."""

import numpy as np

from cnn_jax.evaluation import pair_scores, pairs_type
from cnn_jax.evaluation.intervals import Units, resampling_weights


def faces(seed=0, people=12, images=3, noise=1.0, dimensions=8, split="test"):
    """Scores of every two images: each person has a direction, each image strays from it."""
    generator = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), images)
    embeddings = generator.normal(size=(people, dimensions))[who]
    embeddings = embeddings + noise * generator.normal(size=embeddings.shape)
    names = np.array([f"person {i:03d}" for i in who])
    ids = np.array([f"{split}/{i}" for i in range(len(who))])
    return pair_scores(embeddings, split=split, ids=ids, subjects=names)


def listed(scores, same, subjects=None, fold=None, split="test", kind=None):
    """A list of pairs whose images are all different."""
    scores = np.asarray(scores, np.float64)
    images = np.array([f"{split}/{i}" for i in range(2 * len(scores))]).reshape(-1, 2)
    return (kind or pairs_type(split))(
        split,
        images,
        scores,
        np.asarray(same, bool),
        None if subjects is None else np.asarray(subjects, np.str_),
        None if fold is None else np.asarray(fold, np.int64),
    )


def random_list(seed, n=60, decimals=1):
    """Pairs without subjects, some of equal scores, that tell something of the truth."""
    generator = np.random.default_rng(seed)
    same = generator.random(n) < 0.4
    same[:2] = True, False
    scores = np.round((generator.normal(size=n) + same) / 5, decimals)
    return listed(np.clip(scores, -1, 1), same)


def resampled(pairs, resamples, seed):
    """Pairs of the people of each resample, copies and all, one resample at a time."""
    names = np.unique(pairs.subjects)
    drawn = np.concatenate(list(resampling_weights(Units.of(len(names)), resamples, seed)), axis=1)
    for times in drawn.T.astype(int):
        copies = dict(zip(names.tolist(), times.tolist(), strict=True))
        rows = []
        for row, (a, b) in enumerate(pairs.subjects.tolist()):
            rows += [row] * (copies[a] if a == b else copies[a] * copies[b])
        yield pairs.scores[rows], pairs.same[rows]
