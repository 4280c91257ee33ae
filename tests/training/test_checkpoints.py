"""Checkpoints: what is read is what was saved, or the damage is named."""

import errno
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import CheckpointError
from cnn_jax.training import checkpoints as saved
from cnn_jax.training.checkpoints import Checkpoints, DamagedCheckpointError
from cnn_jax.training.state import create_state

pytestmark = [
    pytest.mark.faults,
    # Orbax leaves asyncio tasks behind when a damaged file fails to load.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def state_at(step, width=3):
    rng = np.random.default_rng(step)
    params = {"conv": {"kernel": jnp.asarray(rng.normal(size=(width, 4)), jnp.float32)}}
    variables = {"params": params, "batch_stats": {"mean": jnp.ones(2), "empty": {}}}
    opt_state = (jax.tree.map(lambda p: p + 1, params), ())
    state = create_state(variables, opt_state, {"learning_rate": 0.1}, jax.random.key(step))
    return state.replace(step=jnp.int32(step))


def progress_at(step):
    return {"history": [{"epoch": 1, "train_loss": 0.1 + step}], "sums": {"loss": [1 / 3, step]}}


def save_three(folder):
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2, 3):
            best = 1 if step == 1 else None
            checkpoints.save(state_at(step), progress_at(step), step=step, best_epoch=best)


def assert_same(a, b):
    a, b = saved.to_host(a), saved.to_host(b)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name])


def test_there_and_back_with_key_and_progress(tmp_path):
    save_three(tmp_path / "c")
    with Checkpoints(tmp_path / "c") as checkpoints:
        state, progress = checkpoints.restore(state_at(0))
    assert_same(state, state_at(3))
    assert progress == progress_at(3)
    assert jax.random.bits(state.key) == jax.random.bits(state_at(3).key)


def test_an_abstract_state_is_template_enough(tmp_path):
    save_three(tmp_path / "c")
    template = jax.eval_shape(lambda: state_at(0))
    state, _ = saved.read(tmp_path / "c", 3, template)
    assert_same(state, state_at(3))


def test_the_last_two_and_the_best_are_kept(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        for step in range(1, 8):
            best = {2: 1, 4: 2}.get(step)
            checkpoints.save(state_at(step), progress_at(step), step=step, best_epoch=best)
        checkpoints.wait()
        assert checkpoints.steps == [4, 6, 7]
    assert saved.best_step(tmp_path / "c") == 4


def test_a_new_process_goes_on_saving(tmp_path):
    save_three(tmp_path / "c")
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state_at(3), progress_at(3), step=3, best_epoch=None)
        checkpoints.save(state_at(4), progress_at(4), step=4, best_epoch=None)
        checkpoints.wait()
        assert checkpoints.steps == [1, 3, 4]


def test_nothing_saved_nothing_restored(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore(state_at(0)) is None


def flip_bit(path, rng):
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def remove(path, rng):
    path.unlink()


@pytest.mark.parametrize("harm", [flip_bit, truncate, remove])
@pytest.mark.parametrize("summed", [True, False], ids=["with sums", "killed before the sums"])
def test_damage_anywhere_is_named_and_the_one_before_is_used(tmp_path, harm, summed):
    """Every file of the newest checkpoint in turn; what cannot be told is not harm."""
    save_three(tmp_path / "sound")
    rng = random.Random(0)
    files = [
        p.relative_to(tmp_path / "sound")
        for p in sorted((tmp_path / "sound" / "3").rglob("*"))
        if p.is_file() and p.stat().st_size and (summed or p.name != "SHA256SUMS")
    ]
    assert len(files) >= 8
    named = 0
    for file in files:
        folder = tmp_path / "c"
        shutil.copytree(tmp_path / "sound", folder)
        if not summed:
            (folder / "3" / "SHA256SUMS").unlink()
        harm(folder / file, rng)
        said = []
        with Checkpoints(folder, said.append) as checkpoints:
            state, progress = checkpoints.restore(state_at(0))
        if said:
            named += 1
            assert_same(state, state_at(2))
            assert progress == progress_at(2)
            assert said[0].startswith("checkpoint 3 is damaged (") and len(said) == 1
            assert any((tmp_path / "c-damaged").iterdir())  # set aside, not deleted
            shutil.rmtree(tmp_path / "c-damaged")
        else:
            # Only without sums, in a file that holds nothing of the state.
            assert not summed or (harm is remove and file.name == "SHA256SUMS")
            assert_same(state, state_at(3))
            assert progress == progress_at(3)
        shutil.rmtree(folder)
    assert named >= (len(files) - 1 if summed else 3)


def test_flipped_bits_in_array_data_are_found_leaf_by_leaf(tmp_path):
    """Orbax loads these without a word; the digest of the leaf is what finds them."""
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state_at(1, width=3000), progress_at(1), step=1, best_epoch=None)
    (tmp_path / "c" / "1" / "SHA256SUMS").unlink()
    largest = max((tmp_path / "c" / "1").rglob("*"), key=lambda p: p.stat().st_size)
    sound = largest.read_bytes()
    rng = random.Random(1)
    messages = []
    for _ in range(20):
        data = bytearray(sound)
        data[rng.randrange(len(data) // 4, 3 * len(data) // 4)] ^= 1 << rng.randrange(8)
        largest.write_bytes(bytes(data))
        with pytest.raises(DamagedCheckpointError) as caught:
            saved.read(tmp_path / "c", 1, state_at(0, width=3000))
        messages.append(str(caught.value))
    assert any("kernel" in message for message in messages)
    largest.write_bytes(sound)
    assert_same(saved.read(tmp_path / "c", 1, state_at(0, width=3000))[0], state_at(1, 3000))


def test_changed_progress_is_found(tmp_path):
    save_three(tmp_path / "c")
    (tmp_path / "c" / "3" / "SHA256SUMS").unlink()
    path = tmp_path / "c" / "3" / "_CHECKPOINT_METADATA"
    assert "3.1" in path.read_text()
    path.write_text(path.read_text().replace("3.1", "3.2"))
    with pytest.raises(DamagedCheckpointError, match="'progress' is not as it was saved"):
        saved.read(tmp_path / "c", 3, state_at(0))


def test_all_damaged_is_the_beginning_and_nothing_is_deleted(tmp_path):
    save_three(tmp_path / "c")
    for file in (tmp_path / "c").rglob("*"):
        if file.is_file():
            truncate(file, random.Random(2))
    said = []
    with Checkpoints(tmp_path / "c", said.append) as checkpoints:
        assert checkpoints.restore(state_at(0)) is None
    assert len(said) == 3
    assert sorted(p.name for p in (tmp_path / "c-damaged").iterdir()) == ["1", "2", "3"]


@pytest.mark.parametrize(
    "wanting",
    [
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files"),
        ValueError("RESOURCE_EXHAUSTED: allocating 9 bytes"),
    ],
)
def test_a_machine_that_wants_memory_or_files_damages_no_checkpoint(tmp_path, monkeypatch, wanting):
    save_three(tmp_path / "c")

    def fail(*args, **kwargs):
        raise wanting

    monkeypatch.setattr("orbax.checkpoint.v1.load", fail)
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(type(wanting)):
        checkpoints.restore(state_at(0))
    monkeypatch.undo()
    assert not (tmp_path / "c-damaged").exists()
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore(state_at(0)) is not None


def test_a_sound_checkpoint_of_another_model_is_no_damage(tmp_path):
    save_three(tmp_path / "c")
    with Checkpoints(tmp_path / "c") as checkpoints:
        with pytest.raises(
            CheckpointError, match=r"another model: 'params\.conv\.kernel' is float32"
        ):
            checkpoints.restore(state_at(0, width=5))
        other = state_at(0).replace(model_state={})
        with pytest.raises(CheckpointError, match="is in only one of the two"):
            checkpoints.restore(other)
    assert (tmp_path / "c" / "3").exists()


def test_a_full_disk_is_one_line_and_the_last_good_one_stays(tmp_path, monkeypatch):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state_at(1), progress_at(1), step=1, best_epoch=None)
        checkpoints.wait()

        def full(path):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(saved, "_write_sums", full)
        checkpoints.save(state_at(2), progress_at(2), step=2, best_epoch=None)
        with pytest.raises(CheckpointError, match="No space left on device") as caught:
            checkpoints.save(state_at(3), progress_at(3), step=3, best_epoch=None)
    assert "\n" not in str(caught.value) and "--resume" in str(caught.value)
    assert_same(saved.read(tmp_path / "c", 1, state_at(0))[0], state_at(1))


def test_left_overs_of_a_killed_save_are_cleaned_up(tmp_path):
    save_three(tmp_path / "c")
    left = tmp_path / "c" / "4.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "c" / "3", left)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert_same(checkpoints.restore(state_at(0))[0], state_at(3))
    assert not left.exists()


def test_left_overs_of_killed_sums_are_no_damage(tmp_path):
    save_three(tmp_path / "c")
    newest = tmp_path / "c" / "3"
    (newest / "SHA256SUMS").rename(newest / ".SHA256SUMS.tmp")
    (newest / ".DS_Store").write_text("left by somebody else")
    for _ in range(2):
        with Checkpoints(tmp_path / "c", pytest.fail) as checkpoints:
            assert_same(checkpoints.restore(state_at(0))[0], state_at(3))


def test_digests_cover_dtype_and_shape():
    def digest(leaf):
        return saved._digests({"leaf": leaf}, {})["leaf"]

    zeros = np.zeros((2, 3), np.float32)
    kinds = [zeros, zeros.T.copy(), zeros.view(np.int32), np.zeros(6, np.float32)]
    assert len({digest(leaf) for leaf in kinds}) == 4
