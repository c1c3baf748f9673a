import json
import pickle

import numpy as np
import pytest

from collagan_dist import errors
from collagan_dist.distributed.messages import decode, decode_error, encode, encode_error
from collagan_dist.errors import ClusterError, CollaganError, ConfigError, DataError
from collagan_dist.files import DiskFull


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 2**70, 0.1, float("inf"), "", "ä\udcff\0", [], [1, [2, "x"]], {}, {"a": {"b": None}}, {"array": 1, "b": 2}],
)  # fmt: skip
def test_values_arrive_as_they_are(value):
    assert decode(encode(value)) == value and type(decode(encode(value))) is type(value)


def test_tuples_arrive_as_lists_and_numpy_scalars_as_numbers():
    assert decode(encode((1, (2,), np.float32(0.5), np.bool_(True)))) == [1, [2], 0.5, True]


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "<f4", ">f8", "f2"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 2), (2, 3)])
def test_arrays_arrive_bit_for_bit(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    (found,) = decode(encode([array]))
    assert (
        found.dtype == array.dtype and found.shape == shape and np.array_equal(found, array) and found.flags.writeable
    )


@pytest.mark.parametrize("value", [object(), {1: 2}, {"array": 1}, np.array([object()]), b"bytes", {1}, DataError("x")])
def test_what_cannot_be_said_is_an_error(value):
    with pytest.raises(TypeError, match="cannot be sent to other ranks"):
        encode(value)


class Bomb:
    """Unpickled, it ends the tests."""

    def __reduce__(self):
        return pytest.exit, ("unpickled",)


def array_of(*said: object) -> bytes:
    return json.dumps({"array": said}).encode()


@pytest.mark.parametrize(
    "message",
    [
        b"", b"{", b"\xff", b"[" * 100_000, pickle.dumps(Bomb()), array_of("O", [1], "AAAAAAAAAAA="), array_of("f4", [2], "AAAA"),
        array_of("f4", [-1, -1], ""), array_of("no", [1], ""), array_of("f4", [1], "%%%%"), array_of(1), b'{"array": 1}',
        array_of("(7,i", [1], ""), array_of("f4", [-1], "AAAA"),
    ],
    ids=range(14),
)  # fmt: skip
def test_what_is_no_message_is_refused(message):
    with pytest.raises(ClusterError, match="is not a message"):
        decode(message)


def test_errors_keep_kind_and_text():
    kinds = CollaganError.__subclasses__()
    for kind in [one for one in kinds if one.__module__ == errors.__name__]:
        again = decode_error(decode(encode(encode_error(kind("what, where")))))
        assert type(again) is kind and str(again) == "what, where"
    assert encode_error(DiskFull("full", 3))[0] == "DataError"  # the nearest that the command line knows
    assert type(decode_error(["Popen", "x"])) is ClusterError and type(decode_error(["ConfigError", ""])) is ConfigError
