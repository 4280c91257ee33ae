"""Downloads from a server on this machine that fails in every way we know of."""

import contextlib
import gzip
import hashlib
import io
import re
import socket
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from cnn_jax.cli import main
from cnn_jax.data import download as download_set
from cnn_jax.data import load
from cnn_jax.data.fetching.download import lock_of
from cnn_jax.data.fetching.homes import HOMES, Home, RemoteFile
from cnn_jax.data.fetching.progress import Progress
from cnn_jax.data.fetching.transfer import Patience, fetch
from cnn_jax.data.known import KNOWN
from cnn_jax.errors import DataError

BODY = np.random.default_rng(0).bytes(300_000)
HASTY = Patience(timeout=0.5, slow=50_000, dead=1_000, window=0.2, retries=2, pause=0.01)


class Server:
    """Serves what `behave[path]` says: a function of the handler, called for each request."""

    def __init__(self):
        server = self
        self.behave, self.requests = {}, []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.close_connection = True
                server.requests.append((self.path, dict(self.headers)))
                with contextlib.suppress(ConnectionError):
                    server.behave[self.path](self)

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def ranges(self):
        return [headers.get("Range") for _, headers in self.requests]


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def answer(handler, status, headers, body=b""):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def good(body=BODY, etag='"1"', upto=None, ranges=True, pieces=None):
    """A server as it should be, that may end early, ignore ranges or be slow."""

    def behave(handler):
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        condition = handler.headers.get("If-Range")
        start = int(asked[1]) if asked and ranges and condition in (None, etag) else 0
        if start >= len(body) > 0:
            return answer(handler, 416, {"Content-Range": f"bytes */{len(body)}"})
        headers = {"Content-Length": len(body) - start, **({"ETag": etag} if etag else {})}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        answer(handler, 206 if start else 200, headers)
        for at in range(start, upto or len(body), pieces or len(body)):
            handler.wfile.write(body[at : min(at + (pieces or len(body)), upto or len(body))])
            time.sleep(0.05 if pieces else 0)
        return None

    return behave


def in_turn(*behaviours):
    """One behaviour for each request; the last for all that follow."""
    waiting = list(behaviours)
    return lambda handler: (waiting.pop(0) if len(waiting) > 1 else waiting[0])(handler)


def status(code, **headers):
    return lambda handler: answer(handler, code, {"Content-Length": 0, **headers})


def redirect(target, code=302):
    return status(code, Location=target)


def stall(handler):
    answer(handler, 200, {"Content-Length": len(BODY)}, BODY[:1000])
    time.sleep(1.5)


def remote(server, *paths, body=BODY):
    addresses = tuple(server.url + path for path in paths)
    return RemoteFile("file.bin", len(body), hashlib.md5(body).hexdigest(), addresses)


def get(server, folder, *paths, patience=HASTY, body=BODY):
    path = fetch(remote(server, *paths, body=body), folder, Progress(None), patience)
    assert path.read_bytes() == body
    assert [p.name for p in folder.iterdir()] == ["file.bin"]


def refused(server, folder, *paths, match):
    with pytest.raises(DataError, match=match) as caught:
        fetch(remote(server, *paths), folder, Progress(None), HASTY)
    assert not (folder / "file.bin").exists() and "\n" not in str(caught.value)
    assert remote(server).md5 in str(caught.value)
    return str(caught.value)


def test_a_file_arrives(server, tmp_path):
    server.behave["/a"] = good()
    get(server, tmp_path, "/a")
    assert server.ranges() == [None]


@pytest.mark.parametrize("etag", ['"1"', "", 'W/"1"'])
def test_a_truncated_transfer_goes_on_where_it_ended(server, tmp_path, etag):
    server.behave["/a"] = in_turn(good(etag=etag, upto=100_000), good(etag=etag))
    get(server, tmp_path, "/a")
    assert server.ranges() == [None, "bytes=100000-"]
    assert server.requests[1][1].get("If-Range") == (etag if etag == '"1"' else None)


def test_a_server_that_ignores_ranges_is_read_from_the_start(server, tmp_path):
    server.behave["/a"] = in_turn(good(upto=100_000), good(ranges=False))
    get(server, tmp_path, "/a")
    assert server.ranges() == [None, "bytes=100000-"]


def test_content_that_changed_meanwhile_is_read_from_the_start(server, tmp_path):
    server.behave["/a"] = in_turn(good(BODY[::-1], '"old"', upto=100_000), good())
    get(server, tmp_path, "/a")
    assert server.requests[1][1]["If-Range"] == '"old"'


def test_content_that_changed_without_a_sign_is_found_by_the_checksum(server, tmp_path):
    server.behave["/a"] = in_turn(good(BODY[::-1], "", upto=100_000), good(etag=""))
    get(server, tmp_path, "/a")
    assert server.ranges() == [None, "bytes=100000-", None]


def test_another_address_goes_on_where_the_first_ended(server, tmp_path):
    server.behave["/a"] = in_turn(good(upto=100_000), status(404))
    server.behave["/b"] = good(etag='"other"')
    get(server, tmp_path, "/a", "/b")
    assert server.ranges() == [None, "bytes=100000-", "bytes=100000-"]


@pytest.mark.parametrize(
    ("there", "ranges"),
    [(BODY, ["bytes=300000-"]), (BODY + b"more", ["bytes=300004-", None])],
)
def test_a_part_that_is_complete_or_too_long(server, tmp_path, there, ranges):
    (tmp_path / "file.bin.part").write_bytes(there)
    server.behave["/a"] = good()
    get(server, tmp_path, "/a")
    assert server.ranges() == ranges


@pytest.mark.parametrize("note", [b"[1]", b"{", b'{"x": 1}', b"\xff"])
def test_a_damaged_note_is_passed_over(server, tmp_path, note):
    (tmp_path / "file.bin.part").write_bytes(BODY[:5000])
    (tmp_path / "file.bin.part.json").write_bytes(note)
    server.behave["/a"] = good()
    get(server, tmp_path, "/a")
    assert server.ranges() == ["bytes=5000-"] and "If-Range" not in server.requests[0][1]


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (status(404), "404"),
        (status(403), "403"),
        (status(500), "500.*3 times"),
        (status(503), "503"),
        (good(b"<html>" * 50_000), "another checksum"),
        (good(upto=299_999, ranges=False), "ended after 299999 of 300000 bytes"),
        (stall, "timed out"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), "failed: .*nonsense"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "failed"),
        (lambda handler: answer(handler, 200, {}, BODY * 3), "more than 2 times"),
        (
            lambda handler: answer(handler, 200, {"Content-Encoding": "gzip"}, gzip.compress(BODY)),
            "encoded as 'gzip'",
        ),
        (
            lambda handler: answer(
                handler, 200, {"Transfer-Encoding": "chunked"}, b"10\r\nhalf a chunk"
            ),
            "failed",
        ),
        (redirect("/a"), "infinite loop"),
        (redirect("http://example.org/a"), "not https"),
        (redirect("ftp://example.org/a"), "not https"),
        (redirect("file:///etc/passwd"), "not allowed"),
        (redirect("https://[no-address/a"), "no address: Invalid IPv6"),
    ],
)
def test_a_bad_address_is_named_and_another_tried(server, tmp_path, behaviour, message):
    server.behave["/a"] = behaviour
    error = refused(server, tmp_path, "/a", match=message)
    assert f"{server.url}/a: " in error and "yourself" in error
    server.behave["/b"] = good()
    get(server, tmp_path, "/a", "/b")


def test_a_file_put_there_by_hand_is_taken(server, tmp_path, monkeypatch):
    server.behave["/a"] = status(404)
    monkeypatch.setitem(HOMES, "breastmnist", Home("file.bin", (remote(server, "/a"),)))
    with pytest.raises(DataError, match=r"yourself .* and give the command again") as caught:
        download_set("breastmnist", tmp_path, quiet=True, patience=HASTY)
    folder = re.search("into '(.*)' yourself", str(caught.value))[1]
    Path(folder).mkdir()
    (Path(folder) / "file.bin").write_bytes(BODY)
    assert download_set("breastmnist", tmp_path, quiet=True).read_bytes() == BODY


def test_a_wrong_range_is_not_stitched_together(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(BODY[:1000])
    headers = {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}", "Content-Length": 300_000}
    server.behave["/a"] = lambda handler: answer(handler, 206, headers, BODY)
    refused(server, tmp_path, "/a", match="another part of the file")


def test_a_redirect_on_the_way_is_followed(server, tmp_path):
    server.behave |= {"/a": redirect("/b", 301), "/b": redirect(server.url + "/c"), "/c": good()}
    get(server, tmp_path, "/a")
    assert [path for path, _ in server.requests] == ["/a", "/b", "/c"]


def test_a_slow_address_waits_for_a_fast_one_and_serves_if_there_is_none(server, tmp_path):
    slow = good(pieces=2_000)
    server.behave |= {"/slow": slow, "/fast": good()}
    get(server, tmp_path, "/slow", "/fast")
    assert [path for path, _ in server.requests] == ["/slow", "/fast"]
    (tmp_path / "file.bin").unlink()
    short = BODY[:60_000]
    server.behave["/slow"] = good(short, pieces=2_000)
    server.behave["/gone"] = status(404)
    get(server, tmp_path, "/slow", "/gone", body=short)


def test_only_https_is_asked(tmp_path):
    file = RemoteFile("file.bin", 1, "0", ("http://example.org/x", "ftp://127.0.0.1/x"))
    with pytest.raises(DataError, match=r"example.org/x'.*not https.*ftp.*not https"):
        fetch(file, tmp_path, Progress(None), HASTY)


def test_what_arrived_before_an_interruption_is_kept(server, tmp_path):
    class Interrupts(Progress):
        def update(self, arrived):
            if arrived > 100_000:
                raise KeyboardInterrupt

    server.behave["/a"] = good()
    with pytest.raises(KeyboardInterrupt):
        fetch(remote(server, "/a"), tmp_path, Interrupts(None), HASTY)
    assert (tmp_path / "file.bin.part").stat().st_size > 100_000
    get(server, tmp_path, "/a")
    assert server.ranges()[1] is not None


def test_a_full_disk_is_one_line(server, tmp_path, monkeypatch):
    from cnn_jax.data.fetching import transfer

    server.behave["/a"] = good()
    monkeypatch.setattr(transfer, "opened", lambda path, mode="ab": io.FileIO("/dev/full", mode))
    with pytest.raises(DataError, match=r"cannot be written: No space left.*free some space"):
        fetch(remote(server, "/a"), tmp_path, Progress(None), HASTY)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_quiet_in_a_file_and_one_line_on_a_terminal(monkeypatch):
    for stream, lines in ((io.StringIO(), 10), (Terminal(), 1)):
        progress = Progress(stream)
        progress.begin("file.bin", 0, 1_000_000)
        for arrived in range(0, 1_000_001, 1000):
            progress.update(arrived)
        assert stream.getvalue().count("\n") == lines
        assert "100 % of 1.0 MB" in stream.getvalue().splitlines()[-1]
    for stream, said in ((io.StringIO(), "f: trying h\n"), (Terminal(), f"\r{'f: trying h':79}")):
        progress = Progress(stream)
        progress.trying("f", "h")
        progress.trying("f", "h")
        assert stream.getvalue() == said


def idx(array):
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + b"".join(
        size.to_bytes(4, "big") for size in array.shape
    ) + array.tobytes())  # fmt: skip


@pytest.fixture
def homes(server, monkeypatch):
    """`mnist`, `cifar10` and `breastmnist` at home on the server."""
    rng = np.random.default_rng(0)
    bodies = {}
    for part, n in (("train", 40), ("t10k", 10)):
        bodies[f"{part}-images-idx3-ubyte.gz"] = idx(rng.integers(0, 255, (n, 8, 8), np.uint8))
        bodies[f"{part}-labels-idx1-ubyte.gz"] = idx(np.arange(n, dtype=np.uint8) % 2)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in ("set/one", "set/two", "set/../../outside", "/etc/absolute", "set/readme"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("set/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    bodies["set.tar.gz"] = archive.getvalue()

    def files(*names):
        server.behave |= {f"/{name}": good(bodies[name]) for name in names}
        return tuple(
            RemoteFile(
                name, len(bodies[name]), hashlib.md5(bodies[name]).hexdigest(),
                (f"{server.url}/{name}",),
            )
            for name in names
        )  # fmt: skip

    monkeypatch.setitem(HOMES, "mnist", Home("mnist", files(*[n for n in bodies if "idx" in n])))
    monkeypatch.setitem(HOMES, "cifar10", Home("set", files("set.tar.gz"), ("set/one", "set/two")))
    return server


def test_a_set_is_downloaded_once_and_loads(homes, tmp_path, capsys):
    folder = tmp_path / "sets"
    with pytest.raises(DataError, match=r"cnn-jax data mnist --download --data-dir"):
        load("MNIST", data_dir=tmp_path)
    assert main(["data", "mnist", "--download", "--data-dir", str(folder)]) == 0
    assert "mnist" in capsys.readouterr().out
    asked = len(homes.requests)
    assert download_set("MNIST", folder, quiet=True) == folder / "mnist"
    assert len(homes.requests) == asked == 4
    assert sorted(p.name for p in folder.iterdir()) == ["mnist"]
    assert len(load("mnist", data_dir=folder).splits["test"]) == 10


def test_an_interrupted_set_goes_on_with_the_files_that_are_missing(homes, tmp_path):
    labels = "/t10k-labels-idx1-ubyte.gz"
    behaviour, homes.behave[labels] = homes.behave[labels], status(404)
    with pytest.raises(DataError, match="t10k-labels"):
        download_set("mnist", tmp_path, quiet=True, patience=HASTY)
    assert not (tmp_path / "mnist").exists()
    homes.behave[labels] = behaviour
    homes.requests.clear()
    download_set("mnist", tmp_path, quiet=True)
    assert [path for path, _ in homes.requests] == [labels]


def test_an_archive_gives_its_members_and_nothing_else(homes, tmp_path):
    folder = tmp_path / "sets"
    assert download_set("cifar10", folder, quiet=True) == folder / "set"
    assert sorted(p.name for p in (folder / "set").iterdir()) == ["one", "two"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["caches", "sets"]
    assert sorted(p.name for p in folder.iterdir()) == ["set"]


@pytest.mark.parametrize(
    ("members", "message"), [(("set/three",), "no file 'set/three'"), (("set/link",), "no file")]
)
def test_an_archive_without_its_members_is_refused(homes, tmp_path, monkeypatch, members, message):
    files = HOMES["cifar10"].files
    monkeypatch.setitem(HOMES, "cifar10", Home("set", files, members))
    with pytest.raises(DataError, match=message):
        download_set("cifar10", tmp_path, quiet=True)
    assert not (tmp_path / "set").exists()


def test_what_is_there_is_never_overwritten(homes, tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"is there, but .*'t10k-images-idx3.*move it away"):
        download_set("mnist", tmp_path, quiet=True)
    (tmp_path / "cifar-10-batches-bin").mkdir()
    found = download_set("cifar10", tmp_path, quiet=True)
    assert found.name == "cifar-10-batches-bin" and homes.requests == []


def test_two_at_once_do_not_meet(homes, tmp_path):
    lock = lock_of(tmp_path, "mnist")
    lock.parent.mkdir(parents=True)
    with (
        FileLock(lock),
        pytest.raises(DataError, match="another process is downloading 'mnist'"),
    ):
        download_set("mnist", tmp_path, quiet=True)


def test_places_that_cannot_hold_it_are_named_first(homes, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        download_set("mnist", tmp_path / "file" / "sets", quiet=True)
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(DataError, match=r"0 MB free, but .* are needed"):
        download_set("mnist", tmp_path, quiet=True)
    assert homes.requests == []


@pytest.mark.faults
def test_without_a_network_it_is_said_at_once_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    addresses = ("https://one.invalid/x", "https://two.invalid/x")
    monkeypatch.setitem(HOMES, "mnist", Home("x", (RemoteFile("x", 1, "0", addresses),)))
    asked = []

    def no_name(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(DataError) as caught:
        download_set("mnist", tmp_path / "mis" / "typed")
    assert re.match(
        r"no network\? none of 2 addresses of 'x' answered \(Name or service not known\): connect "
        r".* put the file into '.*mnist\.part' yourself, from https://one.invalid/x \(MD5 0\)$",
        str(caught.value),
    )
    assert asked == ["one.invalid", "two.invalid"]
    assert [p.name for p in tmp_path.iterdir()] == ["caches"]
    assert "x: trying two.invalid\n" in capsys.readouterr().err
    (tmp_path / ".mnist.part").mkdir()
    (tmp_path / ".mnist.part" / "x.part").write_bytes(b"arrived")
    with pytest.raises(DataError, match="no network"):
        download_set("mnist", tmp_path, quiet=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mnist.part", "caches"]


def test_a_name_without_a_home(tmp_path):
    with pytest.raises(DataError, match="digits come with cnn_jax: nothing to download"):
        download_set("Digits", tmp_path)
    with pytest.raises(DataError, match="no public home that is known; did you mean 'kmnist'"):
        download_set("kmnits", tmp_path)


def test_every_home_is_known_and_reached_by_https():
    assert set(HOMES) <= set(KNOWN)
    for home in HOMES.values():
        for file in home.files:
            assert re.fullmatch("[0-9a-f]{32}", file.md5) and file.size > 0
            assert file.addresses and all(a.startswith("https://") for a in file.addresses)


@pytest.mark.realdata
def test_the_checksums_of_mnist_are_those_of_the_official_files(real):
    for file in HOMES["mnist"].files:
        contents = (real("mnist") / file.name).read_bytes()
        assert (len(contents), hashlib.md5(contents).hexdigest()) == (file.size, file.md5)
