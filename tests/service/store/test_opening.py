"""From settings to a store; memory flat while an object passes through; no boto3 where it is not used."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import Settings
from service.store import ObjectStore, open_store
from service.store.folder import FolderStore
from service.store.opening import can_sign_links, link_secret
from service.store.s3 import S3Store


def test_the_default_is_a_folder_in_the_data_folder(tmp_path: Path) -> None:
    store = open_store(Settings(data_dir=tmp_path / "my data #1"))
    assert isinstance(store, FolderStore)
    store.put("a/b", b"x")
    assert (tmp_path / "my data #1" / "store" / "a" / "b").read_bytes() == b"x"
    assert (tmp_path / "my data #1" / "secret").exists()


def test_two_openings_of_a_folder_accept_each_others_links(tmp_path: Path) -> None:
    first, second = (open_store(Settings(data_dir=tmp_path)) for _ in range(2))
    assert (
        first.sign("a/b", expires_s=60).split("signature=")[1]
        == second.sign("a/b", expires_s=60).split("signature=")[1]
    )


def test_a_link_secret_given_is_used_and_none_is_made(tmp_path: Path) -> None:
    open_store(Settings(data_dir=tmp_path, link_secret="0123456789abcdef"))
    assert not (tmp_path / "secret").exists()


def test_a_link_secret_is_made_up_beside_a_folder_alone(tmp_path: Path) -> None:
    in_s3 = Settings(data_dir=tmp_path, store_url="s3://twins")
    assert not can_sign_links(in_s3)
    with pytest.raises(SettingsError, match="set TWINSET_LINK_SECRET to the same value for all API processes"):
        link_secret(in_s3)
    assert not (tmp_path / "secret").exists()
    shared = Settings(data_dir=tmp_path, store_url="s3://twins", link_secret="0123456789abcdef")
    assert can_sign_links(shared)
    assert link_secret(shared) == b"0123456789abcdef"
    here = Settings(data_dir=tmp_path)
    assert can_sign_links(here)
    assert link_secret(here) == link_secret(here)


def test_an_s3_url_names_bucket_and_prefix(aws: None) -> None:
    store = open_store(Settings(store_url="s3://twins/team/a/", s3_endpoint_url="http://127.0.0.1:9/"))
    assert isinstance(store, S3Store)
    assert (store.bucket, store.prefix, store.endpoint_url) == ("twins", "team/a/", "http://127.0.0.1:9")


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(SettingsError, match="write file:///absolute/folder or s3://bucket/prefix"):
        open_store(Settings.model_construct(store_url="ftp://host/folder"))


def test_a_folder_store_is_opened_without_boto3_torch_or_numpy(tmp_path: Path) -> None:
    code = (
        "import sys; from service.settings import get_settings; from service.store import open_store\n"
        "open_store(get_settings()).put('a/b', b'x')\n"
        "print([name for name in ('boto3', 'botocore', 'torch', 'numpy') if name in sys.modules])"
    )
    env = {**os.environ, "TWINSET_DATA_DIR": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert told == "[]\n"


def test_a_big_object_streams_with_flat_memory(
    store: ObjectStore, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    megabytes = 96
    store.put("models/big", bytes(2**20) * megabytes)
    store.put("models/small", bytes(2**20))
    # In a process of its own, since the server of the S3 test lives in this one.
    code = (
        "import resource, sys\n"
        "from service.settings import get_settings; from service.store import open_store\n"
        "per_mb = 2**20 if sys.platform == 'darwin' else 2**10\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // per_mb\n"
        "store = open_store(get_settings())\n"
        "read = lambda key: sum(len(piece) for piece in store.stream(key))\n"
        "read('models/small'); before = peak(); size = read('models/big'); print(size, peak() - before)"
    )
    url = store.root.as_uri() if isinstance(store, FolderStore) else f"s3://{store.bucket}/team/twins"  # type: ignore[attr-defined]
    monkeypatch.setenv("TWINSET_STORE_URL", url)
    monkeypatch.setenv("TWINSET_S3_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("TWINSET_LINK_SECRET", "0123456789abcdef")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    size, grown_mb = map(int, told.split())
    assert size == megabytes * 2**20
    assert grown_mb < 8


def test_a_big_file_is_put_with_flat_memory(
    store: ObjectStore, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        for number in range(64):
            file.write(bytes([number]) * 2**20)
    (tmp_path / "small").write_bytes(bytes(2**20))
    # In a process of its own, since the server of the S3 test lives in this one.
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from service.settings import get_settings; from service.store import open_store\n"
        "per_mb = 2**20 if sys.platform == 'darwin' else 2**10\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // per_mb\n"
        "store, folder = open_store(get_settings()), Path(sys.argv[1])\n"
        "store.put_file('models/small', folder / 'small'); before = peak()\n"
        "print(store.put_file('models/big', folder / 'big').size, peak() - before)"
    )
    url = store.root.as_uri() if isinstance(store, FolderStore) else f"s3://{store.bucket}/team/twins"  # type: ignore[attr-defined]
    monkeypatch.setenv("TWINSET_STORE_URL", url)
    monkeypatch.setenv("TWINSET_S3_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("TWINSET_LINK_SECRET", "0123456789abcdef")
    told = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout
    size, grown_mb = map(int, told.split())
    assert size == 64 * 2**20
    assert grown_mb < 8
    digest = hashlib.sha256()
    for piece in store.stream("models/big"):
        digest.update(piece)
    assert digest.digest() == hashlib.sha256(big.read_bytes()).digest()
