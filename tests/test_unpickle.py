"""`unpickle` against genuine pickles of every protocol and a corpus of hostile ones.

Each hostile pickle would, with Python's `pickle`, write the canary file, read or change
something it must not, or use up memory or time.
"""

import collections
import importlib
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.errors import DataError
from cnn_jax.pickled_arrays import CONSTRUCTORS
from cnn_jax.unpickle import unpickle

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64) + 1, 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.binary() | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=20,
)


def same(found, wanted):
    if isinstance(wanted, np.ndarray | np.generic):
        assert found.dtype == wanted.dtype and type(found) is type(wanted)
        np.testing.assert_array_equal(found, wanted)
    else:
        assert found == wanted and type(found) is type(wanted)


@given(PLAIN, st.integers(0, 5))
def test_plain_data_of_every_protocol(value, protocol):
    same(unpickle(pickle.dumps(value, protocol)), value)
    same(unpickle(pickle._dumps(value, protocol)), value)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol(protocol):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    values = {
        "bytes": array,
        "again": array,
        "big-endian, columns first": np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
        "empty": np.zeros((0, 3)),
        "flags": np.array([[True], [False]]),
        "number": np.float32(0.5),
        "complex": np.array([1 + 2j]),
    }
    found = unpickle(pickle.dumps(values, protocol))
    for name, wanted in values.items():
        same(found[name], wanted)
    assert found["bytes"] is found["again"]
    ordered = collections.OrderedDict(b=1, a=2)
    assert list(unpickle(pickle.dumps(ordered, protocol)).items()) == [("b", 1), ("a", 2)]


PYTHON2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
    b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq"
    b"\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\x00\x01\x7f\x80\xfe\xfft"
    b"bU\x06labels]q\x08(K\x06K\x09eU\x0bbatch_labelU\x04r\xe9s.u."
)


def test_a_pickle_of_python_2(tmp_path):
    oracle = pickle.loads(PYTHON2, encoding="latin1")
    (tmp_path / "batch").write_bytes(PYTHON2)
    found = unpickle(tmp_path / "batch")
    assert found.keys() == oracle.keys() == {"data", "labels", "batch_label"}
    same(found["data"], oracle["data"])
    assert found["data"].tolist() == [[0, 1, 127], [128, 254, 255]]
    assert found["labels"] == [6, 9] and found["batch_label"] == "rés."


def call(module, name, *arguments):
    """A pickle that calls module.name(*arguments), assembled by hand."""
    packed = pickle.dumps(arguments, 2)[2:-1]
    return f"c{module}\n{name}\n".encode() + packed + b"R."


class Reduced:
    """Pickles to a call."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) + (() if state is None else (state,))

    def __reduce__(self):
        return self.reduced


def by_reduce(module, name, *arguments, state=None):
    function = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    return pickle.dumps(Reduced(function, *arguments, state=state), 4)


RUN = "open('canary', 'w').close()"
TOUCH = "touch canary"


def stack_global(module, name, arguments=b")"):
    def text(value):
        return b"\x8c" + bytes([len(value)]) + value.encode()

    return b"\x80\x04" + text(module) + text(name) + b"\x93" + arguments + b"R."


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
U1 = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"


def array_state(shape, values, dtype=U1):
    return ARRAY + b"(I1\n" + shape + dtype + b"I00\n" + values + b"tb."


def nested(levels, width=2):
    """A tuple whose expansion has width**levels leaves."""
    return b"\x80\x02)" + (b"2" * (width - 1) + b"\x86") * levels + b"."


CALLS = {
    "os.system": by_reduce("os", "system", TOUCH),
    "posix.system": call("posix", "system", TOUCH),
    "nt.system": call("nt", "system", TOUCH),
    "os.popen": call("os", "popen", TOUCH),
    "subprocess.call": by_reduce("subprocess", "call", ["touch", "canary"]),
    "subprocess.Popen": call("subprocess", "Popen", ["touch", "canary"]),
    "pty.spawn": call("pty", "spawn", ["touch", "canary"]),
    "eval": by_reduce("builtins", "eval", RUN),
    "exec": by_reduce("builtins", "exec", RUN),
    "eval of Python 2": call("__builtin__", "eval", RUN),
    "open": by_reduce("builtins", "open", "canary", "w"),
    "_io.open": call("_io", "open", "canary", "w"),
    "io.FileIO": call("io", "FileIO", "canary", "w"),
    "pathlib.Path.touch": stack_global("pathlib", "Path.touch", b"\x8c\x06canary\x85"),
    "getattr": call("builtins", "getattr", (), "__class__"),
    "__import__": call("builtins", "__import__", "this"),
    "compile": call("builtins", "compile", RUN, "x", "exec"),
    "globals": call("builtins", "globals"),
    "bytearray of a terabyte": call("builtins", "bytearray", 10**12),
    "bytes of a terabyte": call("builtins", "bytes", 10**12),
    "range as list": call("builtins", "list", (1, 2)),
    "operator.attrgetter": by_reduce("operator", "attrgetter", "system"),
    "operator.methodcaller": by_reduce("operator", "methodcaller", "system", TOUCH),
    "functools.partial": call("functools", "partial", (), TOUCH),
    "functools.reduce": call("functools", "reduce", (), ()),
    "types.FunctionType": call("types", "FunctionType", 0, {}),
    "types.CodeType": call("types", "CodeType", 0),
    "marshal.loads": call("marshal", "loads", b"N"),
    "importlib": call("importlib", "import_module", "this"),
    "runpy.run_path": call("runpy", "run_path", "x"),
    "timeit": by_reduce("timeit", "timeit", RUN, "pass"),
    "code": call("code", "InteractiveInterpreter"),
    "numpy.load": call("numpy", "load", "x.npy", None, True),
    "numpy.savetxt": call("numpy", "savetxt", "canary", (1,)),
    "numpy runstring": call("numpy.testing._private.utils", "runstring", RUN, {}),
    "numpy fromstring": call("numpy.core.multiarray", "fromstring", b"ab"),
    "numpy memmap": call("numpy", "memmap", "canary", "u1", "w+"),
    "numpy.empty of a terabyte": call("numpy", "empty", 10**12),
    "rot13 by codecs": call("_codecs", "encode", "x", "rot13"),
    "zip bomb by codecs": call("_codecs", "decode", b"x\x9c", "zip"),
    "codecs.decode": call("codecs", "decode", b"n", "rot13"),
    "copyreg._reconstructor": call("copyreg", "_reconstructor", (), (), None),
    "copyreg.__newobj__": call("copyreg", "__newobj__", ()),
    "defaultdict": call("collections", "defaultdict", ()),
    "pickle.loads": call("pickle", "loads", b"N."),
    "_pickle.loads": call("_pickle", "loads", b"N."),
    "shutil.rmtree": call("shutil", "rmtree", "."),
    "torch": call("torch.storage", "_load_from_bytes", b"x"),
    "the canary of this corpus": call("test_unpickle", "by_reduce", "os"),
}
NAMES = {
    "dots in a name": stack_global("numpy.core.multiarray", "__builtins__.eval"),
    "an attribute of what is allowed": stack_global(
        "numpy", "ndarray.tofile", b"\x8c\x06canary\x85"
    ),
    "dots in the module": call("numpy.core.multiarray.__builtins__", "eval", RUN),
    "a class by OrderedDict": stack_global("collections", "OrderedDict.__class__"),
    "another case": call("Numpy", "ndarray"),
    "a trailing space": b"cnumpy\nndarray \n.",
    "a name that is no text": b"\x80\x04K\x01K\x02\x93.",
    "only named, not called": b"cnumpy\nndarray\n.",
    "ndarray called": b"cnumpy\nndarray\n(I1000000000000\ntR.",
    "a call of data": b"]I1\n\x85R.",
    "arguments in a list": b"c_codecs\nencode\n](VaV\nlatin1\neR.",
    "extension code": b"\x80\x02\x82\x01.",
    "extension code of 4 bytes": b"\x80\x02\x84\x01\x00\x00\x00.",
    "persistent id": b"Pcanary\n.",
    "binary persistent id": b"\x80\x02U\x06canaryQ.",
    "INST": b"(S'" + TOUCH.encode() + b"'\nios\nsystem\n.",
    "OBJ": b"(cposix\nsystem\nS'touch canary'\no.",
    "OBJ of what is allowed": b"(cnumpy\nndarray\nI1000000000000\no.",
    "NEWOBJ": b"\x80\x02cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93)}\x92.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "BUILD on a dict": call("collections", "OrderedDict")[:-1] + b"}S'keys'\nI1\nsb.",
    "BUILD on a name": b"cnumpy\nndarray\n}S'__doc__'\nI1\nsb.",
    "BUILD by slots": b"c_codecs\nencode\n(N}S'__code__'\nI1\nstb.",
    "BUILD twice": array_state(b"(I1\nt", b"S'a'\n")[:-1] + b"(I1\n(I1\nt" + U1 + b"I00\nS'b'\ntb.",
    "OrderedDict of a list": b"ccollections\nOrderedDict\n((lp0\nltR.",
}
ARRAYS = {
    "a terabyte in 200 bytes": array_state(b"(I1000000000000\nt", b"S'a'\n"),
    "a terabyte before its state": ARRAY.replace(b"(I0\nt", b"(I1000000000000\nt") + b".",
    "a product that overflows": array_state(b"(L4294967296L\nL4294967296L\nt", b"S''\n"),
    "a negative size": array_state(b"(I-1\nI-1\nt", b"S'a'\n"),
    "too few bytes": array_state(b"(I3\nt", b"S'ab'\n"),
    "too many bytes": array_state(b"(I1\nt", b"S'ab'\n"),
    "too many axes": array_state(b"(" + b"I1\n" * 99 + b"t", b"S'a'\n"),
    "never finished": ARRAY + b".",
    "finished with itself": ARRAY + b"p0\n(I1\n(I1\nt" + U1 + b"I00\ng0\ntb.",
    "an array of objects": pickle.dumps(np.array([Reduced(print, "canary")], object)),
    "a dtype of objects": array_state(b"(I1\nt", b"S'12345678'\n", U1.replace(b"u1", b"O8")),
    "a dtype with fields": array_state(b"(I1\nt", b"S'a'\n", U1.replace(b"NNN", b"N(S'a'\ntN")),
    "a dtype by text": array_state(b"(I1\nt", b"S'a'\n", U1.replace(b"u1", b"u1,O")),
    "a structured array": pickle.dumps(np.zeros(2, [("a", "u1")])),
    "a subclass": pickle.dumps(np.ma.masked_array([1, 2])),
    "a reconstructed list": by_reduce("numpy._core.multiarray", "_reconstruct", list, (0,), b"b"),
    "bytes multiplied by references": b"("
    + b"X\x00\x10\x00\x00"
    + b"a" * 4096
    + b"p0\n0"
    + b"c_codecs\nencode\n(g0\nVlatin1\ntR" * 20
    + b"l.",
}
BOMBS = {
    "a billion laughs": nested(30, 2),
    "laughs in lists": b"\x80\x02]" + b"q\x00]h\x00ah\x00a" * 60 + b".",
    "very deep": b"]" * 100_000 + b"a" * 99_999 + b".",
    "101 levels": b"]" * 101 + b"a" * 100 + b".",
    "deep behind references": b"()" + b"\x85" * 60 + b"p1\ng1\n" + b"\x85" * 60 + b"l.",
    "a name of laughs": b"\x80\x04" + nested(60)[2:-1] + b"\x8c\x01a\x93.",
    "a dtype of laughs": b"cnumpy\ndtype\n" + nested(60)[2:-1] + b"\x85R.",
    "a shape of laughs": array_state(nested(60)[2:-1] + b"\x85", b"S'a'\n"),
    "a shape of many axes": array_state(
        b"(" + b"\x8a\x08" * 1 + b"\x7f" * 8 + b"2" * 99_999 + b"t", b"S''\n"
    ),
    "finished again and again": ARRAY
    + b"".join(b"p%d\n" % k for k in range(20_000))
    + b"0"
    + (b"g1\n(I1\n(I0\nt" + U1 + b"I00\nS''\ntb0") * 2
    + b"N.",
    "contains itself": b"]q\x00h\x00a.",
    "a tuple as key": b"}" + nested(30)[2:-1] + b"I1\ns.",
    "a list as key": b"}]I1\ns.",
    "a huge LONG4": b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "a LONG4 of 2,000 bytes": b"\x80\x02\x8b\xd0\x07\x00\x00" + b"\x7f" * 2000 + b".",
    "a LONG of 5,000 digits": b"L" + b"9" * 5000 + b"L\n.",
    "a negative LONG4": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "a huge memo": b"\x80\x02Nr\xff\xff\xff\x7fh\x00.",
    "a huge BINBYTES8": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "a huge BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "a huge BINUNICODE8": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "lone surrogates": b"V\\ud800\n.",
    "empty": b"",
    "no STOP": b"N",
    "two values": b"NN.",
    "no value": b".",
    "bytes after its end": b"N." + b"cos\nsystem\n",
    "no mark": b"Nt.",
    "an unknown memo": b"g7\n.",
    "a mark as value": b"(\x85.",
    "a mark from the memo": b"(p0\ng0\n\x85.",
    "an odd number of keys": b"}(I1\nu.",
    "items for a tuple": b")Na.",
    "text, not a pickle": b"<!DOCTYPE html><html>",
}
HOSTILE = {**CALLS, **NAMES, **ARRAYS, **BOMBS}


def test_the_corpus_is_large():
    assert len(HOSTILE) >= 100 and len(set(HOSTILE.values())) == len(HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused(name, tmp_path):
    (tmp_path / "evil").write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="evil"):
            unpickle(tmp_path / "evil")
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "canary").exists()


def test_the_hand_made_array_is_read_where_nothing_is_wrong_with_it():
    found = unpickle(array_state(b"(I1\nI2\nt", b"S'ab'\n"))
    same(found, np.array([[97, 98]], np.uint8))


def test_an_unknown_escape_warns_nobody():
    assert unpickle(b"S'a\\u'\n.") == "a\\u"


def test_the_corpus_works_where_nothing_refuses_it(tmp_path):
    """The canary sings when Python's own pickle reads the same bytes."""
    for name in ("os.system", "posix.system", "subprocess.call", "INST", "OBJ"):
        pickle.loads(HOSTILE[name])
        assert (tmp_path / "canary").exists(), name
        (tmp_path / "canary").unlink()


def test_what_only_speaks_of_sizes_is_passed_over():
    assert unpickle(b"\x80\xff\x95" + struct.pack("<Q", 2**62) + b"I7\n.") == 7


def test_messages_say_what_where_and_what_to_do(tmp_path):
    (tmp_path / "batch").write_bytes(HOSTILE["os.system"])
    with pytest.raises(DataError, match=r"batch' is refused: it asks for 'posix.system'.*\.npz"):
        unpickle(tmp_path / "batch")
    with pytest.raises(DataError, match="nowhere' cannot be read: No such file"):
        unpickle(tmp_path / "nowhere")


def test_a_table_of_ones_own():
    pickled = call("weights", "tensor", (1, 2))
    table = {**CONSTRUCTORS, ("weights", "tensor"): np.asarray}
    assert unpickle(pickled, allowed=table).tolist() == [1, 2]
    with pytest.raises(DataError, match=r"weights\.tensor"):
        unpickle(pickled)


def assert_plain(value):
    assert isinstance(
        value,
        None.__class__ | bool | int | float | str | bytes | bytearray | list | tuple | dict
        | np.ndarray | np.generic,
    )  # fmt: skip
    if isinstance(value, list | tuple | dict):
        for item in [*value, *(value.values() if isinstance(value, dict) else ())]:
            assert_plain(item)


def read(contents):
    try:
        assert_plain(unpickle(contents))
    except DataError as error:
        assert "\n" not in str(error)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_bytes_give_plain_data_or_an_error(contents):
    read(contents + b".")


@settings(max_examples=300)
@given(st.sampled_from([PYTHON2, *HOSTILE.values()]), st.data())
def test_damaged_pickles_give_plain_data_or_an_error(contents, data):
    damaged = bytearray(contents[:2000] or b".")
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
