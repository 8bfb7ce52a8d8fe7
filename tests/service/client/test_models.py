"""Models through both clients and the command line, against the real API: added, named, shared, fetched, deleted."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from model_store.card import load_card
from service.cli.root import run
from service.client import ApiProblem, InvalidRequest
from service.errors import CardError
from service.settings import read_settings
from service.store.opening import open_store
from tests.service.cli.conftest import LiveApi
from tests.service.client.both import BothClients
from tests.service.registry.small_models import blobs, safetensors, write_model


def test_a_model_goes_in_and_comes_out(live_api: LiveApi, make_client: BothClients, tmp_path: Path) -> None:
    client: Any = make_client(live_api.url)
    card = write_model(tmp_path / "model", data=bytes(1 << 20))
    made = client.add_model(tmp_path / "model", progress=False)
    assert (made.id, made.owner, made.candidate, made.card) == ("polyps@1.0.0", "default", False, card)
    assert client.add_model(tmp_path / "model").id == made.id
    assert client.download_model("polyps", tmp_path / "out.tar") == tmp_path / "out.tar"
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert archive.getnames() == ["card.json", "SHA256SUMS", "model.safetensors"]
    client.download_model("polyps", tmp_path / "folder", progress=False)
    assert load_card(tmp_path / "folder") == card
    assert (tmp_path / "folder" / "model.safetensors").read_bytes() == safetensors(bytes(1 << 20))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    with pytest.raises(InvalidRequest, match="exists already"):
        client.download_model("polyps", tmp_path / "out.tar")
    assert client.add_model(tmp_path / "out.tar").id == made.id
    with pytest.raises(ApiProblem) as refused:
        client.download_model("absent", tmp_path / "none.tar")
    assert refused.value.status == 404
    assert not (tmp_path / "none.tar").exists()


def test_a_path_that_is_no_model_is_refused_before_it_is_sent(
    live_api: LiveApi, make_client: BothClients, tmp_path: Path
) -> None:
    client: Any = make_client(live_api.url)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        client.add_model(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CardError, match=r"card\.json does not exist"):
        client.add_model(tmp_path / "empty")
    write_model(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(InvalidRequest, match="has 5 bytes, but the card says"):
        client.add_model(tmp_path / "model")
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.add(tmp_path / "model" / "card.json", "card.json")
    with pytest.raises(ApiProblem) as refused:
        client.add_model(tmp_path / "other.tar")
    assert (refused.value.status, refused.value.is_kind("invalid-model")) == (422, True)


def test_aliases_shares_candidates_and_deletion(live_api: LiveApi, make_client: BothClients, tmp_path: Path) -> None:
    client: Any = make_client(live_api.url)
    for version in ("1.0.0", "1.1.0"):
        write_model(tmp_path / version, version=version, data=version.encode())
        client.add_model(tmp_path / version, candidate=version == "1.1.0")
    assert client.model("polyps").id == "polyps@1.0.0"
    assert client.promote_model("polyps@1.1.0").candidate is False
    assert client.model("polyps").id == "polyps@1.1.0"
    made = client.set_alias("polyps", "stable", "1.0.0", why="first")
    assert (made.version, [change.why for change in made.history]) == ("1.0.0", ["first"])
    assert client.aliases("polyps") == client.model("polyps").aliases == {"stable": "1.0.0"}
    assert client.model("polyps@stable").id == "polyps@1.0.0"
    with pytest.raises(ApiProblem) as refused:
        client.delete_model("polyps@1.0.0")
    assert refused.value.document["needed_by"] == [{"kind": "alias", "id": "polyps@stable"}]
    client.delete_alias("polyps", "stable", why="no use")
    assert [change.to_version for change in client.alias("polyps", "stable").history] == ["1.0.0", None]
    assert [share.tenant for share in client.share_model("polyps", ["acme", "bolt"])] == ["acme", "bolt"]
    assert [share.tenant for share in client.unshare_model("polyps", "acme")] == ["bolt"]
    assert [share.tenant for share in client.share_model("polyps", all=True)] == [None, "bolt"]
    assert len(client.shares("polyps")) == 2
    client.delete_model("polyps@1.0.0")
    assert client.model("polyps").versions == ("1.1.0",)


def test_the_commands_work_on_a_server_and_on_a_store(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TWINSET_DATA_DIR", str(tmp_path / "data"))
    for version in ("1.0.0", "1.1.0"):
        write_model(tmp_path / version, version=version, data=version.encode())

    def models(*arguments: str, place: list[str]) -> tuple[int, str]:
        code = run(["models", *arguments, *place])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    for name, place in (("server", ["--url", live_api.url]), ("store", ["--tenant", "acme"])):
        assert models("add", str(tmp_path / "1.0.0"), place=place)[1].startswith("Added polyps@1.0.0. Try:")
        shown = models("add", str(tmp_path / "1.1.0"), "--candidate", place=place)[1]
        assert shown.startswith("Added polyps@1.1.0 as a candidate.")
        assert models("promote", "polyps@1.1.0", place=place) == (0, "polyps@1.1.0 is promoted.\n")
        code, shown = models("alias", "polyps", "stable", "1.0.0", "--why", "first", place=place)
        assert (code, shown.splitlines()[0]) == (0, "polyps@stable stands for 1.0.0")
        assert "none -> 1.0.0: first" in shown
        assert models("alias", "polyps", "stable", place=place)[1] == shown
        assert models("alias", "polyps", place=place) == (0, "polyps@stable  1.0.0\n")
        code, shown = models("delete", "polyps@1.0.0", place=place)
        assert code == 1
        assert "is needed by alias polyps@stable" in " ".join(shown.split())
        assert models("alias", "polyps", "stable", "--delete", place=place) == (0, "Deleted polyps@stable.\n")
        assert models("share", "polyps", "bolt", place=place)[1] == "polyps is shared with bolt.\n"
        assert models("share", "polyps", "--all", place=place)[1] == "polyps is shared with all tenants, bolt.\n"
        assert models("share", "polyps", "bolt", "--revoke", place=place)[1] == "polyps is shared with all tenants.\n"
        out = tmp_path / f"{name}.tar"
        assert models("export", "polyps@1.0.0", "--out", str(out), place=place) == (0, f"Wrote {out}.\n")
        assert models("delete", "polyps@1.0.0", place=place) == (0, "Deleted polyps@1.0.0.\n")
        code, shown = models("import", str(out), place=place)
        assert code == 1
        assert "a version is never given twice" in " ".join(shown.split())
    assert (tmp_path / "server.tar").read_bytes() == (tmp_path / "store.tar").read_bytes()
    assert models("import", str(tmp_path / "store.tar"), place=["--tenant", "bolt"])[1].startswith("Added polyps@1.0.0")
    assert models("export", "polyps", "--out", str(tmp_path / "folder"), place=["--tenant", "bolt"])[0] == 0
    assert load_card(tmp_path / "folder").id == "polyps@1.0.0"
    assert len(blobs(open_store(read_settings()))) == 2
    assert models("list", place=["--tenant", "bolt", "--url", live_api.url])[0] == 2
    assert models("list", place=["--tenant", "Not a tenant"])[0] == 2
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    code, shown = models("import", str(tmp_path / "bad.tar"), place=[])
    assert (code, "damaged header at entry 1" in shown) == (1, True)
