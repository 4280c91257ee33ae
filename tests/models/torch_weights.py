"""Our variables as PyTorch keeps them: what tests that compare networks with it share."""

import jax
import numpy as np

NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "negative_slope": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "centres": "centres",
}


def torch_layout(tree):
    """Leaves of `params` or `batch_stats`, or gradients of them, by PyTorch's names.

    Modules whose names begin with `up` are transposed convolutions: their kernels are ours
    turned around, with the channels that go in first.
    """
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *modules, last = (entry.key for entry in path)
        value = np.asarray(leaf)
        if value.ndim > 1 and modules[-1].startswith("up"):
            value = np.flip(np.moveaxis(value, (-2, -1), (0, 1)), range(2, value.ndim))
        elif value.ndim > 1 and last != "centres":
            value = np.moveaxis(value, (-1, -2), (0, 1))
        leaves[".".join([*modules, NAMES[last]])] = value.copy()
    return leaves


def copy_to_torch(variables, network):
    """Every parameter and statistic of `network` from our variables of the same paths."""
    import torch

    state = network.state_dict()
    expected = {name for name in state if not name.endswith("num_batches_tracked")}
    ours = torch_layout(variables["params"]) | torch_layout(variables.get("batch_stats", {}))
    assert set(ours) == expected
    state.update({name: torch.from_numpy(value) for name, value in ours.items()})
    network.load_state_dict(state)
