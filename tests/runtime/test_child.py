"""The channel to a child process: arrays both ways, errors as sentences, llama.cpp's last words."""

import textwrap

import numpy as np
import pytest

from terazi.errors import EngineError
from terazi.runtime.child import Child

MODULE = """
    import ctypes, os, sys, time
    import numpy as np
    from terazi.errors import UsageError
    from terazi.runtime.child import Message, serve
    from terazi.runtime.llamacpp import library

    def echo(call, emit):
        print("noise on stdout")
        for array in call.arrays:
            emit(Message({"shape": list(array.shape)}, [array]))
        return Message(call.values, call.arrays)

    def abort(call, emit):
        library.load().ggml_abort(b"ggml-x.c", 7, b"GGML_ASSERT(%s) failed", b"rows == columns")

    def refuse(call, emit):
        print("why it is so", file=sys.stderr)
        raise UsageError("no", hint="yes")

    def exhaust(call, emit):
        np.empty(1 << 60, np.uint8)

    def stumble(call, emit):
        {}["missing"]

    def leave(call, emit):
        os._exit(3)

    def count(call, emit):
        for number in range(1_000_000):
            emit(Message({"number": number}))
        return Message()

    def name(call, emit):
        return Message({"pid": os.getpid()})

    def interrupt(call, emit):
        os.kill(os.getppid(), 2)
        time.sleep(20)

    functions = (echo, abort, refuse, exhaust, stumble, leave, count, name, interrupt)
    serve({function.__name__: function for function in functions})
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    (tmp_path / "small_worker.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    opened = Child("small_worker", timeout=30, environment={"GGML_NO_BACKTRACE": "1"})
    yield opened
    opened.close()


def test_arrays_and_values_come_back(child):
    arrays = [
        np.arange(6, dtype=np.int32).reshape(2, 3).T,
        np.empty((0, 5), np.float32),
        np.array(1.5, np.float64),
        np.array([[True], [False]]),
        np.arange(300_000, dtype=np.uint16),
    ]
    *events, result = child.stream("echo", *arrays, text="Ünïcode", number=2.5, nothing=None)
    assert [event.values["shape"] for event in events] == [list(array.shape) for array in arrays]
    assert result.values["text"] == "Ünïcode"
    assert result.values["number"] == 2.5
    for array, back in zip(arrays, result.arrays, strict=True):
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_a_failed_assertion_of_llama_cpp_tells_itself(child):
    with pytest.raises(EngineError) as caught:
        child.call("abort")
    assert caught.value.message == (
        "the engine crashed (SIGABRT) during 'abort': ggml-x.c:7: GGML_ASSERT(rows == columns) failed"
    )


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("refuse", "no: why it is so"),
        ("exhaust", "the engine ran out of memory"),
        ("stumble", "the engine failed: KeyError: 'missing'"),
        ("unheard", "the engine failed: KeyError: 'unheard'"),
    ],
)
def test_errors_leave_the_child_usable(child, operation, message):
    with pytest.raises(EngineError) as caught:
        child.call(operation)
    assert caught.value.message == message
    assert child.call("echo", here=1).values["here"] == 1


def test_an_exit_is_no_answer(child):
    with pytest.raises(EngineError, match="ended with code 3 during 'leave'"):
        child.call("leave")


def test_the_user_s_environment_wins(tmp_path, monkeypatch):
    (tmp_path / "other_worker.py").write_text(
        "import os\nfrom terazi.runtime.child import Message, serve\n"
        "serve({'get': lambda call, emit: Message({'found': [os.environ.get(n) for n in ('A', 'B')]})})"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("A", "user")
    child = Child("other_worker", timeout=30, environment={"A": "ours", "B": "ours"})
    assert child.call("get").values["found"] == ["user", "ours"]
    child.close()


def test_a_caller_that_stops_listening_leaves_the_child_usable(child):
    for stop_after in (1, 3):
        stream = child.stream("count")
        assert [next(stream).values["number"] for _ in range(stop_after)] == list(range(stop_after))
        stream.close()
        assert child.call("echo", here=1).values["here"] == 1
    assert child.pid == child.call("name").values["pid"]


def test_an_interrupted_wait_ends_the_child(child):
    with pytest.raises(KeyboardInterrupt):
        for _ in child.stream("interrupt"):
            pass
    with pytest.raises(EngineError, match="closed"):
        child.call("echo")
