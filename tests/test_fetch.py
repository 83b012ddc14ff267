"""Fetching weight files: from a local server that speaks as the hub does, from URLs, and without any network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.hub import ASKED, COMMIT, serving
from tests.tiny import TINY
from trifold import weights
from trifold.errors import InvalidData, InvalidInput
from trifold.network import build
from trifold.weights.fetch import fetch, place


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A weight file of ours."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    weights.save(path, build(TINY, num_classes=3, seed=0))
    return path.read_bytes()


@pytest.fixture
def server(content: bytes) -> Iterator[str]:
    """The address of a server that has the file."""
    files = {f"/owner/tiny/resolve/{revision}/model.safetensors": content for revision in ("main", COMMIT)}
    with serving({**files, "/files/tiny.safetensors": content}) as address:
        yield address


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files fetched lie in the test's folder."""
    monkeypatch.setenv("TRIFOLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def from_hub(endpoint: str, source: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """fetch in a process of its own: huggingface_hub reads its settings when it is imported."""
    code = (
        "import sys\nfrom trifold.errors import InvalidInput\nfrom trifold.weights.fetch import fetch\n"
        "try: sys.stdout.write(str(fetch(sys.argv[1])))\nexcept InvalidInput as error: sys.exit(str(error))"
    )
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **more}
    return subprocess.run([sys.executable, "-c", code, source], env=env, capture_output=True, text=True, timeout=120)


def test_the_hub_gives_a_file_once_and_offline_mode_finds_it_again(server: str, content: bytes, tmp_path: Path) -> None:
    done = from_hub(server, "hf:owner/tiny", tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout).read_bytes() == content
    before = len(ASKED)
    offline = from_hub(server, "hf:owner/tiny", tmp_path / "home", HF_HUB_OFFLINE="1")
    assert Path(offline.stdout).read_bytes() == content
    assert len(ASKED) == before


def test_a_revision_is_asked_for_by_its_name(server: str, content: bytes, tmp_path: Path) -> None:
    done = from_hub(server, f"hf:owner/tiny@{COMMIT}", tmp_path / "home")
    assert Path(done.stdout).read_bytes() == content
    assert {path for path in ASKED if "/resolve/" in path} == {f"/owner/tiny/resolve/{COMMIT}/model.safetensors"}


@pytest.mark.parametrize(
    ("source", "more", "said"),
    [
        ("hf:owner/tiny", {"HF_HUB_OFFLINE": "1"}, "owner/tiny: cannot be fetched: offline mode is on; place "),
        ("hf:owner/other", {}, "owner/other: cannot be fetched: the hub answers 404; place "),
    ],
    ids=["offline", "absent"],
)
def test_what_cannot_be_had_is_one_line_that_says_which_file_to_place_where(
    server: str, tmp_path: Path, own_cache: Path, source: str, more: dict[str, str], said: str
) -> None:
    done = from_hub(server, source, tmp_path / "home", **more)
    (line,) = done.stderr.splitlines()
    name = source.removeprefix("hf:")
    where = f"{server}/{name}/resolve/main/model.safetensors at {own_cache / name.replace('/', '--')}.safetensors"
    assert (done.returncode, line) == (1, said + where)


@pytest.mark.slow  # the hub's client tries five times
def test_a_hub_that_does_not_answer_is_told_as_no_network(tmp_path: Path) -> None:
    done = from_hub("http://127.0.0.1:9", "hf:owner/tiny", tmp_path / "home")
    assert "cannot be fetched: there is no network, or the hub does not answer; place http" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_file_placed_by_hand_is_used_without_a_network(content: bytes) -> None:
    for source in ("hf:owner/tiny", "hf:owner/tiny@main:other/file.bin", "https://nowhere.invalid/tiny.pth"):
        place(source).parent.mkdir(parents=True, exist_ok=True)
        place(source).write_bytes(content)
        assert fetch(source) == place(source)
    assert len(list(place("hf:owner/tiny").parent.iterdir())) == 3


def test_files_of_one_name_in_different_places_are_kept_apart() -> None:
    sources = [f"https://{host}/{folder}/b0.tar.gz" for host in ("a.org", "b.org") for folder in ("ckpts", "aug/ckpts")]
    assert len({place(source) for source in sources}) == 4
    assert all(place(source).name.endswith("--b0.tar.gz") for source in sources)


def test_a_url_gives_a_file_once_with_its_digest(server: str, content: bytes) -> None:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    for _ in range(2):
        path = fetch(f"{server}/files/tiny.safetensors", digest)
        assert path.read_bytes() == content
    assert ASKED == ["/files/tiny.safetensors"]
    with safe_open(path, framework="pt") as file:
        assert "trifold" in file.metadata()
    assert fetch(f"{server}/files/tiny.safetensors", f"md5:{hashlib.md5(content).hexdigest()[:8]}") == path


def test_another_digest_is_refused_and_leaves_nothing(server: str, own_cache: Path) -> None:
    with pytest.raises(InvalidData, match=r"has not the sha256 digest 0000"):
        fetch(f"{server}/files/tiny.safetensors", "sha256:0000")
    assert list(own_cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_named(server: str) -> None:
    path = place(f"{server}/files/tiny.safetensors")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    with pytest.raises(InvalidData, match=r"tiny\.safetensors: its sha256 digest must begin with 1234, got "):
        fetch(f"{server}/files/tiny.safetensors", "sha256:1234")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("http://127.0.0.1:9/w.pth", r"w\.pth: cannot be fetched: Connection refused; place the file at .*w\.pth"),
        ("https://nowhere.invalid/w.pth", r"w\.pth: cannot be fetched: .*; place the file at .*w\.pth"),
        ("no/such/file.pth", r"no/such/file\.pth: no such file"),
    ],
)
def test_what_is_not_there_is_one_line(source: str, said: str) -> None:
    with pytest.raises(InvalidData, match=said) as raised:
        fetch(source)
    assert "\n" not in str(raised.value)


def test_a_server_without_the_file_is_named_with_its_answer(server: str) -> None:
    with pytest.raises(InvalidData, match=r"none\.pth: cannot be fetched: the server answers 404; place the file at"):
        fetch(f"{server}/none.pth")


@pytest.mark.parametrize("source", ["hf:", "hf:tiny", "hf:/tiny", "hf:owner/", "hf:a/b/c"])
def test_other_forms_of_a_hubs_source_are_refused(source: str) -> None:
    with pytest.raises(InvalidInput, match=r"source must be hf:OWNER/NAME\[@REVISION\]\[:FILE\]"):
        fetch(source)


@pytest.mark.parametrize("digest", ["abcd", "sha1:abcd", "sha256:"])
def test_other_forms_of_a_digest_are_refused(server: str, digest: str) -> None:
    with pytest.raises(InvalidInput, match="digest must be"):
        fetch(f"{server}/files/tiny.safetensors", digest)
