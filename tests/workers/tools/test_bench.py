"""Tests of ``twinset bench``, on a registered model and on a model folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from workers.tools.bench_command import bench


def run(*arguments: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setenv("TWINSET_DATA_DIR", str(data))
    monkeypatch.setenv("TWINSET_CPU_THREADS", "1")
    monkeypatch.setenv("TWINSET_DTYPE", "float32")
    result = CliRunner().invoke(bench, arguments)
    return result.exit_code, result.output


def test_the_figures_of_a_model_folder_are_consistent(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = run(
        str(tiny_model), "--samples", "8", "--steps", "4", "--rows", "4", "--rounds", "1", "--guidance", "2", "--json",
        data=tmp_path, monkeypatch=monkeypatch,
    )  # fmt: skip
    assert code == 0, output
    found = json.loads(output[output.index("{") :])
    assert found["model"] == "tiny@1.0.0"
    assert found["batch_shape"][0] == 4
    # 8 guided samples fill 4 rows to the last
    assert found["rows_held"] == 1.0
    assert found["stored_over_denoised"] == pytest.approx(found["stored_per_s"] / found["denoised_per_s"], rel=1e-6)
    assert 0.0 < found["outside_network"] < 1.0
    assert 0.0 < found["utilisation"] < 1.5
    # 16 forwards of 4 rows a round
    spent = 16 * found["forward_ms"] / 1e3 / (1.0 - found["outside_network"])
    assert spent == pytest.approx(8 / found["denoised_per_s"], rel=1e-6)
    assert found["load"]["guidance_scale"] == 2.0
    assert list(found["ms_per_row"])[:2] == ["2", "4"]
    assert not (tmp_path / "store" / "jobs").exists()


def test_the_report_is_printed_and_errors_are_named(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = run(
        str(tiny_model),
        "--samples",
        "3",
        "--steps",
        "2",
        "--rows",
        "4",
        "--rounds",
        "1",
        data=tmp_path,
        monkeypatch=monkeypatch,
    )
    assert code == 0
    assert "in matrix products" in output
    assert "one twin alone" in output
    code, output = run("no-such-model", data=tmp_path, monkeypatch=monkeypatch)
    assert code == 1
    assert "no-such-model" in output
    code, output = run(str(tiny_model), "--size", "7", data=tmp_path, monkeypatch=monkeypatch)
    assert code == 1
    assert "makes sizes" in output
    assert "not 7" in output
