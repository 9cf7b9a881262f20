"""The download, from a server on this machine."""

import hashlib
import http.server
import runpy
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import requests

from amt.databases.download import BASE_URL, CHECKSUMS, data_folder, download
from amt.databases.published import hyperrec, lcbench, paper_pairs

FILES = {name: f"content of {name}".encode() * 1000 for name in CHECKSUMS}
HASHES = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


class Server:
    """Serves a folder and lists the paths that were asked for."""

    def __init__(self, folder: Path):
        self.asked: list[str] = []
        handler = type("Handler", (http.server.SimpleHTTPRequestHandler,), {})
        handler.log_message = lambda request, *_: self.asked.append(request.path)
        self.http = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(handler, directory=folder)
        )
        self.url = f"http://127.0.0.1:{self.http.server_port}/data"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def serve(monkeypatch):
    """Starts servers, and stops them afterwards."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def serve(folder: Path) -> Server:
        servers.append(Server(folder))
        return servers[-1]

    yield serve
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def published(tmp_path) -> Path:
    """A folder whose data/ holds `FILES`."""
    root = tmp_path / "published"
    for name, content in FILES.items():
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_download(serve, published, tmp_path):
    server = serve(published)
    at2 = download(tmp_path / "here", base_url=server.url, checksums=HASHES)
    assert at2 == tmp_path / "here" / "at2"
    assert _files(at2) == FILES
    assert server.asked == [f"/data/{name}" for name in FILES]


def test_second_download_fetches_nothing(serve, published, tmp_path):
    server = serve(published)
    for _ in range(2):
        download(tmp_path, base_url=f"{server.url}/", checksums=HASHES)
    assert len(server.asked) == len(FILES)


def test_only_what_is_missing_or_damaged_is_fetched(serve, published, tmp_path):
    server = serve(published)
    at2 = download(tmp_path, base_url=server.url, checksums=HASHES)
    server.asked.clear()
    (at2 / "LCBench/profiles.pkl").unlink()
    (at2 / "HyperRec/configs.pkl").write_bytes(FILES["HyperRec/configs.pkl"][:-1])
    download(tmp_path, base_url=server.url, checksums=HASHES)
    assert server.asked == ["/data/HyperRec/configs.pkl", "/data/LCBench/profiles.pkl"]
    assert _files(at2) == FILES


def test_wrong_checksum_leaves_no_file(serve, published, tmp_path):
    (published / "data/LCBench/configs.pkl").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"/LCBench/configs\.pkl is not .* hash"):
        download(tmp_path / "here", base_url=serve(published).url, checksums=HASHES)
    assert sorted(_files(tmp_path / "here/at2")) == [
        "HyperRec/configs.pkl",
        "HyperRec/profiles.pkl",
    ]


def test_missing_on_the_server_then_resumed(serve, published, tmp_path):
    there = published / "data/HyperRec/profiles.pkl"
    there.unlink()
    server = serve(published)
    with pytest.raises(requests.HTTPError, match=r"404.*HyperRec/profiles\.pkl"):
        download(tmp_path / "here", base_url=server.url, checksums=HASHES)
    assert list(_files(tmp_path / "here/at2")) == ["HyperRec/configs.pkl"]

    there.write_bytes(FILES["HyperRec/profiles.pkl"])
    server.asked.clear()
    at2 = download(tmp_path / "here", base_url=server.url, checksums=HASHES)
    assert _files(at2) == FILES
    assert "/data/HyperRec/configs.pkl" not in server.asked


def test_no_server(serve, published, tmp_path):
    server = serve(published)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(requests.ConnectionError):
        download(tmp_path / "here", base_url=server.url, checksums=HASHES)
    assert not _files(tmp_path / "here")


def test_real_files(serve, at2_folder, tmp_path):
    root = tmp_path / "published"
    root.mkdir()
    (root / "data").symlink_to(at2_folder.resolve())
    at2 = download(tmp_path / "here", base_url=serve(root).url)
    assert sorted(_files(at2)) == sorted(CHECKSUMS)
    assert hyperrec(at2).scores.shape == (27, 100, 75)
    assert lcbench(at2).scores.shape == (35, 100, 52)
    assert len(paper_pairs("LCBench", at2)) == 5


def test_script(at2_folder, capsys, monkeypatch):
    script = Path(__file__).parents[2] / "scripts" / "download_databases.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--folder", str(at2_folder.parent)])
    runpy.run_path(str(script), run_name="__main__")  # all is there already: nothing is fetched
    told = capsys.readouterr().out
    assert "hyperrec: 27 tasks, 100 configurations, 75 epochs" in told
    assert "lcbench: 35 tasks, 100 configurations, 52 epochs" in told


def test_address_is_pinned():
    assert BASE_URL.startswith("https://raw.githubusercontent.com/")
    assert BASE_URL.endswith("/b3b962ad837b7b64af37fe7049e839f4f1d4131b/data")


def test_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("AMT_DATA_DIR", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.setenv("AMT_DATA_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder().name == "amt"


def test_default_folder(serve, published, monkeypatch, tmp_path):
    monkeypatch.setenv("AMT_DATA_DIR", str(tmp_path / "here"))
    assert download(base_url=serve(published).url, checksums=HASHES) == tmp_path / "here/at2"


def test_without_pooch(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.delenv("AMT_DATA_DIR", raising=False)
    with pytest.raises(ImportError, match=r"amt\[experiments\].*AMT_DATA_DIR"):
        download(tmp_path)
    with pytest.raises(ImportError, match=r"amt\[experiments\].*AMT_DATA_DIR"):
        hyperrec()
