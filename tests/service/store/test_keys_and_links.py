"""Key functions and the folder store's signed links."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import LinkExpired, LinkInvalid, SettingsError
from service.store import keys, signing
from service.store.folder import FolderStore

SECRET = b"0123456789abcdef"


def test_keys_are_those_of_the_layout() -> None:
    assert keys.job_spec("j1") == "jobs/j1/spec.json"
    sha256 = "0123456789abcdef" * 4
    assert keys.attempt(sha256) == "0123456789abcdef"
    assert keys.job_image("j1", 7, sha256) == "jobs/j1/images/00000007.0123456789abcdef.png"
    assert keys.job_mask("j1", 12345678, sha256) == "jobs/j1/masks/12345678.0123456789abcdef.png"
    assert keys.job_shard("j1", 42, sha256) == "jobs/j1/shards/000042.0123456789abcdef.tar"
    assert keys.job_input("j1", 7, sha256) == "jobs/j1/inputs/000007.0123456789abcdef.png"
    assert keys.job_input("j1", 7, None) == "jobs/j1/inputs/000007.png"
    assert keys.job_repaired_chunk("j1", 7, 2) == "jobs/j1/chunks/000007.r0002.json"
    assert keys.job_chunk("j1", 42) == "jobs/j1/chunks/000042.json"
    assert keys.job_manifest("j1", sha256) == "jobs/j1/manifest.0123456789abcdef.jsonl"
    assert keys.job_manifest("j1", None) == "jobs/j1/manifest.jsonl"
    assert keys.job_callback("j1", 2) == "jobs/j1/callbacks/0002.json"
    assert keys.pending_callback("j1") == "callbacks/pending/j1.json"
    assert keys.job_summary("j1") == "jobs/j1/summary.json"
    assert keys.model_card("cosimgen-dubai", "1.0.0") == "models/cosimgen-dubai/1.0.0/card.json"
    assert keys.model_file("m", "1.0.0", "model.safetensors") == "models/m/1.0.0/model.safetensors"
    assert keys.idempotency("default", "ab" * 32) == f"idempotency/default/{'ab' * 32}.json"
    assert keys.upload("default", "ab" * 32) == f"uploads/default/{'ab' * 32}.png"
    for key in (keys.idempotency, keys.upload):
        with pytest.raises(ValueError, match="not a sha256"):
            key("default", "../../etc")


def test_a_key_function_given_a_hostile_name_makes_a_key_that_is_refused() -> None:
    for hostile in ("../../etc", "a/../..", "", "..", "a\\b"):
        with pytest.raises(keys.InvalidKey):
            keys.check_key(keys.job_spec(hostile))


def test_keys_may_be_as_long_as_the_limits_and_no_longer() -> None:
    assert keys.check_key("a" * 200) == "a" * 200
    longest = "/".join(["p" * 127] * 4) + "/"
    assert len(longest) == 512
    assert keys.check_key(longest[:-1]) == longest[:-1]
    keys.check_key("/".join(["p" * 127] * 3) + "/" + "é" * 64)
    with pytest.raises(keys.InvalidKey, match="513 bytes; the limit is 512"):
        keys.check_key("/".join(["p" * 127] * 3) + "/" + "p" * 129)


_any_text = st.text(st.sampled_from("aZ09_-./\\ \n\x00\x7f\u00e9\u0301\ud800\U0001f600") | st.characters(), max_size=12)


@given(text=_any_text | st.builds(lambda text, times: text * times, _any_text, st.integers(1, 60)))
def test_a_quick_look_takes_nothing_that_the_rules_refuse(text: str) -> None:
    def verdict(ask: Callable[[str], object]) -> object:
        try:
            return ask(text)
        except keys.InvalidKey as error:
            return error.detail

    asked = (keys.check_key, keys.check_prefix, keys.check_start, keys.is_key, keys.is_part)
    quick = [verdict(ask) for ask in asked]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_PLAIN_PART", "_PLAIN_TEXT"):
            patch.setattr(keys, name, re.compile(r"(?!)"))
        assert [verdict(ask) for ask in asked] == quick


def test_the_suffix_tells_the_media_type() -> None:
    assert keys.content_type("jobs/j/images/00000000.png") == "image/png"
    assert keys.content_type("jobs/j/manifest.jsonl") == "application/x-ndjson"
    assert keys.content_type("models/m/1.0.0/model.safetensors") == "application/octet-stream"
    assert keys.content_type("a/page.html") == "application/octet-stream"


def taken_apart(url: str) -> tuple[str, str, str]:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    assert parts.path.startswith("/objects/")
    return unquote(parts.path.removeprefix("/objects/")), query["expires"][0], query["signature"][0]


def test_a_link_is_good_for_its_key_until_it_expires(folder_store: FolderStore) -> None:
    key = "jobs/a b+c&d=e?f#g%20/\u00e9.png"
    url = folder_store.sign(key, expires_s=60)
    assert url.startswith("http://127.0.0.1:8000/objects/jobs/")
    assert taken_apart(url)[0] == key
    assert 58 <= int(taken_apart(url)[1]) - time.time() <= 60
    folder_store.check_link(*taken_apart(url))


def test_a_changed_link_is_refused(folder_store: FolderStore) -> None:
    key, expires, signature = taken_apart(folder_store.sign("jobs/j1/spec.json", expires_s=60))
    other = "0" if signature[0] != "0" else "1"
    for changed in [
        ("jobs/j2/spec.json", expires, signature),
        (key, str(int(expires) + 1), signature),
        (key, expires, other + signature[1:]),
        (key, expires, ""),
        (key, expires, "\u00e9" * 64),
        (key, "soon", signature),
        *(
            (key, spelt, signature)
            for spelt in (f" {expires}", f"+{expires}", f"0{expires}", f"{expires[:3]}_{expires[3:]}")
        ),
        (key, "9" * 5000, signature),
    ]:
        with pytest.raises(LinkInvalid):
            folder_store.check_link(*changed)
    with pytest.raises(LinkInvalid):
        signing.check_signature(b"another secret!!", key, expires, signature)


def test_a_link_past_its_time_is_refused_as_expired() -> None:
    expires = 1_800_000_000
    good = signing.signature(SECRET, "a/b", expires)
    signing.check_signature(SECRET, "a/b", expires, good, now=expires - 0.001)
    with pytest.raises(LinkExpired):
        signing.check_signature(SECRET, "a/b", expires, good, now=expires)
    with pytest.raises(LinkInvalid):
        signing.check_signature(SECRET, "a/b", expires, "forged", now=expires + 1)


def test_the_signature_is_hmac_sha256_of_time_and_key() -> None:
    # printf 'twinset-link-v1\n1800000000\na/b' | openssl dgst -sha256 -hmac 0123456789abcdef
    assert signing.signature(SECRET, "a/b", 1_800_000_000) == (
        "698e0981fa1d482227c5cd9869b108236662b7f6cf3c70282e152516e7bbe424"
    )


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret"
    together = threading.Barrier(8)
    found: list[bytes] = []

    def load() -> None:
        together.wait()
        found.append(signing.load_or_create_secret(path))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(found[0]) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_secret_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("short\n")
    with pytest.raises(SettingsError, match="delete it"):
        signing.load_or_create_secret(tmp_path / "secret")


@pytest.mark.parametrize("left", [b"", bytes(64), b"0123456789" + bytes(54)])
def test_a_secret_that_a_power_cut_emptied_is_set_aside_and_made_anew_once(
    tmp_path: Path, left: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(left)
    together = threading.Barrier(8)
    found: list[bytes] = []

    def load() -> None:
        together.wait()
        found.append(signing.load_or_create_secret(path))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found)), len(found[0])) == (8, 1, 64)
    aside = next(path.parent.glob("secret.damaged-*"))
    assert aside.read_bytes() == left
    assert aside.name in caplog.text


def test_a_secret_is_flushed_to_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    plain_fsync, plain_link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("flush"), plain_fsync(file))[1])
    monkeypatch.setattr(os, "link", lambda *names, **options: (calls.append("link"), plain_link(*names, **options))[1])
    signing.load_or_create_secret(tmp_path / "secret")
    assert calls == ["flush", "link", "flush"]
