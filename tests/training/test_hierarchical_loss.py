"""Cross-entropy over the levels of a hierarchy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small import Interrupting, Tiny, small_set

from cnn_jax import Run, data, train
from cnn_jax.cli import main
from cnn_jax.data.dataset import Dataset, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.hierarchy import parents
from cnn_jax.errors import DataError, RecipeError
from cnn_jax.training.progress import Silent
from cnn_jax.training.task import Classification

HYPER = {"label_smoothing": jnp.float32(0.1), "hierarchy": jnp.float32(0.7)}
LEVELS = ((0, 0, 1, 2, 2), (0, 0, 0, 1, 1))


def batch_of(rng, n=12):
    return {"label": jnp.asarray(rng.integers(0, 5, n), jnp.int32)}


def test_the_loss_is_that_of_plain_numpy_and_its_gradient_that_of_differences():
    rng = np.random.default_rng(0)
    logits, batch = rng.normal(0, 2, (12, 5)), batch_of(rng)
    task = Classification(5, levels=LEVELS)

    def loss(z):
        each = task.loss(z, batch, HYPER, key=jax.random.key(0))[0]
        return each.sum(), each

    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = []
    for row, label in zip(p, np.asarray(batch["label"]).tolist(), strict=True):
        q = np.full(5, 0.1 / 5)
        q[label] += 0.9
        value = -(q * np.log(row)).sum()
        for level in LEVELS:
            value -= 0.7 * np.log(sum(row[k] for k in range(5) if level[k] == level[label]))
        expected.append(value)
    gradient, found = jax.jit(jax.grad(loss, has_aux=True))(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Of log P of a group: p within it over P, less p.
    for n, label in enumerate(np.asarray(batch["label"]).tolist()):
        q = np.full(5, 0.1 / 5)
        q[label] += 0.9
        want = p[n] - q
        for level in LEVELS:
            inside = np.array([level[k] == level[label] for k in range(5)])
            want += 0.7 * (p[n] - inside * p[n] / p[n][inside].sum())
        np.testing.assert_allclose(gradient[n], want, atol=2e-6)


def test_far_logits_are_finite():
    z = jnp.array([[0.0, -300.0, -300.0, 300.0, -300.0]])
    task = Classification(5, levels=LEVELS)
    batch = {"label": jnp.array([1])}

    def loss(z):
        return task.loss(z, batch, HYPER, key=jax.random.key(0))[0].sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(z)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert value > 300


def test_mixed_images_have_mixed_groups():
    rng = np.random.default_rng(1)
    z, batch = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32), batch_of(rng, 6)
    task = Classification(5, levels=LEVELS)
    other = jnp.asarray(rng.integers(0, 5, 6), jnp.int32)
    share = jnp.asarray(rng.random(6), jnp.float32)
    hyper = {**HYPER, "label_smoothing": jnp.float32(0.0)}

    @jax.jit
    def loss(batch):
        return task.loss(z, batch, hyper, key=jax.random.key(0))[0]

    mixed = loss({**batch, "mix_label": other, "mix_share": share})
    one, two = (loss({"label": y}) for y in (batch["label"], other))
    np.testing.assert_allclose(mixed, (1 - share) * one + share * two, rtol=1e-5)


def zoo(rng, n=120, wrong=False):
    """Four animals of two realms: the realm is a hue, the animal hardly a shade."""
    labels = rng.integers(0, 4, n).astype(np.int32)
    realms = (labels // 2).astype(np.int32)
    pixels = rng.integers(0, 100, (n, 12, 12, 3)).astype(np.uint8)
    pixels[np.arange(n), :, :, realms] += 80
    if wrong:
        realms[:1] = 1 - realms[:1]
    splits = {}
    for part, rows in (
        ("train", slice(0, n // 2)),
        ("validation", slice(n // 2, 3 * n // 4)),
        ("test", slice(3 * n // 4, n)),
    ):
        place = np.arange(n)[rows]
        splits[part] = Split(
            pixels[place],
            {"label": labels[place], "realm": realms[place]},
            np.array([f"{i:03}" for i in place]),
        )
    return Dataset(
        "zoo",
        splits,
        {"label": ("cat", "frog", "pine", "oak"), "realm": ("animal", "plant")},
        dataset_digest(splits),
        {"label": "class", "realm": "class"},
    )


@pytest.mark.heavy
def test_a_run_learns_by_a_target_of_its_data(tmp_path, capsys):
    dataset = zoo(np.random.default_rng(0))
    assert parents(dataset, "realm") == ("animal", "animal", "plant", "plant")
    options = {"model.options": {"widths": [4, 8], "units": 1}, "epochs": 2}
    run = train(
        data=dataset,
        out=tmp_path / "run",
        reporter=Silent(),
        **{**options, "loss.hierarchy": ("realm",), "loss.hierarchy_weight": 2.0},
    )
    assert run.assembly.task.levels == ((0, 0, 1, 1),)
    plain = train(data=dataset, out=tmp_path / "plain", reporter=Silent(), **options)
    assert (run.predictions("test").logits != plain.predictions("test").logits).any()
    capsys.readouterr()
    with pytest.raises(DataError, match=r"no further target 'colour'.* it has 'realm'"):
        train(
            data=dataset,
            out=tmp_path / "x",
            reporter=Silent(),
            **{**options, "loss.hierarchy": ("colour",)},
        )


def test_what_is_no_hierarchy(tmp_path):
    with pytest.raises(DataError, match=r"does not group the classes: .* is in .* and in"):
        parents(zoo(np.random.default_rng(0), wrong=True), "realm")
    with pytest.raises(DataError, match="it has none"):
        parents(data.load("digits"), "coarse")
    rng = np.random.default_rng(0)
    several = data.from_arrays(
        rng.integers(0, 255, (40, 12, 12, 3)).astype(np.uint8),
        rng.integers(0, 2, (40, 3)).astype(np.float32),
    )
    options = {"model.options": {"widths": [4, 8], "units": 1}, "epochs": 1}
    with pytest.raises(RecipeError, match=r"loss\.hierarchy is for one class an image"):
        train(
            data=several,
            out=tmp_path / "a",
            reporter=Silent(),
            **{**options, "loss.hierarchy": ("x",)},
        )
    with pytest.raises(RecipeError, match=r"loss\.hierarchy_weight"):
        train(
            data="digits",
            out=tmp_path / "b",
            reporter=Silent(),
            **{**options, "loss.hierarchy_weight": 0.0},
        )


def test_a_table_with_coarse_classes_from_end_to_end(tmp_path, capsys):
    lines = ["path,label,realm"]
    for k, (name, realm) in enumerate((("cat", "animal"), ("frog", "animal"), ("oak", "plant"))):
        for n in range(14):
            path = tmp_path / "zoo" / f"{name}{n}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (12, 12), (20 + 60 * k + n, 9 * n, 40)).save(path)
            lines.append(f"zoo/{name}{n}.png,{name},{realm}")
    (tmp_path / "zoo.csv").write_text("\n".join(lines))
    options = ["--epochs", "1", "--model.options.widths", "[4, 8]", "--model.options.units", "1"]
    out = str(tmp_path / "run")
    arguments = ["train", "--data", str(tmp_path / "zoo.csv"), "--out", out, *options]
    assert main([*arguments, "--loss.hierarchy", '["realm"]']) == 0
    capsys.readouterr()
    assert main(["evaluate", out, "--hierarchy", "realm"]) == 0
    said = capsys.readouterr().out
    assert "accuracy realm" in said and "mean height" in said
    assert main(["evaluate", out, "--hierarchy", "colour"]) == 2
    assert "it has 'realm'" in capsys.readouterr().err


def test_a_table_groups_the_classes_of_any_data(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"{k},{k // 2},{'low' if k < 4 else 'high'}" for k in range(10)]
    (tmp_path / "kinds.csv").write_text("\n".join(["class,pair,half", *lines]))
    train = ["train", "--epochs", "1", "--model.options.widths", "[4]", "--data.hierarchy"]
    learn = ["--loss.hierarchy", '["pair", "half"]', "--out", "run"]
    assert main([*train, "kinds.csv", *learn]) == 0
    monkeypatch.chdir("/")  # the run has the table's place, wherever it is asked from
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--hierarchy", "half"]) == 0
    assert "accuracy half" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert main([*train, "nowhere.csv", *learn, "--overwrite"]) == 2
    assert "nowhere.csv' cannot be read" in capsys.readouterr().err
    (tmp_path / "kinds.csv").write_text("class,label\n" + "".join(f"{k},x\n" for k in range(10)))
    assert main([*train, "kinds.csv", *learn, "--overwrite"]) == 2
    assert "call the level otherwise" in capsys.readouterr().err
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.heavy
def test_arrays_of_ones_own_are_grouped_again_when_the_run_is_loaded(tmp_path):
    (tmp_path / "kinds.csv").write_text("class,kind\na,one\nb,one\nc,two\n")
    dataset = small_set()
    dataset = dataset.replace(classes={"label": ("a", "b", "c")})
    options = {"data.hierarchy": str(tmp_path / "kinds.csv"), "loss.hierarchy": ("kind",)}
    given = {"data": dataset, "model": Tiny(), "epochs": 2}
    run = train(**given, out=tmp_path / "run", reporter=Silent(), **options)
    again = Run.load(tmp_path / "run", data=dataset, model=Tiny())
    assert again.dataset.kinds["kind"] == "class"
    assert again.evaluate("test")["accuracy"] == run.metrics["test"]["accuracy"]
    stopped = train(**given, out=tmp_path / "b", reporter=Interrupting(1), **options)
    assert stopped.status == "interrupted"
    stopped = Run.load(tmp_path / "b", data=dataset, model=Tiny()).resume(reporter=Silent())
    assert (stopped.predictions("test").logits == run.predictions("test").logits).all()
