"""Rivals in another process: what it may do wrong, and that it is ended."""

import os
import sys
import time

import pytest

from cnn_jax.bench.served import Server
from cnn_jax.errors import BenchmarkError

GOOD = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    answer = {"prepare": {"id": 3}, "time": {"seconds": 0.5 * request.get("repeats", 0)}}
    print(json.dumps(answer.get(request["do"], {})), flush=True)
"""


def server(script, **options):
    return Server([sys.executable, "-c", script], os.environ, name="the fake", **options)


def test_a_rival_is_prepared_timed_and_released():
    with server(GOOD) as served:
        rival = served.prepare({"part": "forward"})
        assert rival.time(4) == 2.0
        served.release()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit('no such library')", "ended with status 1: no such library"),
        ("import sys; sys.stdin.readline(); sys.exit(7)", "ended with status 7"),
        ("input(); import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "status -9"),
        ("input(); print('Hello, I am a library', flush=True); input()", "answered 'Hello, I am"),
        ("input(); print('[1]', flush=True); input()", r"answered '\[1\]'"),
        ('input(); print(\'{"id": "x"}\', flush=True); input()', "answered"),
        ('input(); print(\'{"error": "out of luck"}\', flush=True); input()', "out of luck"),
    ],
)
def test_what_goes_wrong_is_one_line(script, message):
    with server(script) as served, pytest.raises(BenchmarkError, match=message) as caught:
        served.prepare({})
    assert "\n" not in str(caught.value)


def test_a_process_that_hangs_is_given_up_and_ended():
    served = server("import time; time.sleep(600)", answer_seconds=0.3)
    started = time.monotonic()
    with served, pytest.raises(BenchmarkError, match=r"did not answer within 0\.3 s"):
        served.release()
    assert time.monotonic() - started < 10


def test_death_between_two_requests_is_told():
    with server(GOOD + "    if request['do'] == 'prepare': sys.exit('gone')") as served:
        rival = served.prepare({})
        with pytest.raises(BenchmarkError, match="the process of the fake ended with status 1: g"):
            rival.time(1)
        with pytest.raises(BenchmarkError, match="ended"):
            rival.time(1)


def test_a_command_that_does_not_exist():
    with pytest.raises(BenchmarkError, match="cannot be started"):
        Server(["/nowhere/python"], os.environ, name="the fake")
