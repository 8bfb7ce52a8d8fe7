"""Loading weights: straight into their place and number format, with no second copy of the network in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model_store.weights import load_network, memory_bytes


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.second = nn.Conv2d(4, 4, 3)
        self.register_buffer("steps", torch.arange(5), persistent=True)
        self.register_buffer("fixed", torch.tensor([3.0]), persistent=False)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Net, Path]:
    network = Net().half()
    save_file(
        {f"net.{k}": v for k, v in network.state_dict().items()} | {"other.weight": torch.zeros(3)},
        tmp_path / "w.safetensors",
    )
    return network, tmp_path / "w.safetensors"


def test_every_tensor_arrives_in_its_number_format_and_what_no_file_holds_is_kept(saved: tuple[Net, Path]) -> None:
    network, path = saved
    loaded = load_network(
        Net, path, "net.", dtype=lambda name: torch.bfloat16 if name.startswith("first") else torch.float32
    )
    assert loaded.first.weight.dtype is torch.bfloat16
    assert loaded.second.weight.dtype is torch.float32
    assert loaded.steps.dtype is torch.int64
    assert loaded.steps.tolist() == [0, 1, 2, 3, 4]
    assert loaded.fixed.tolist() == [3.0]
    assert torch.equal(loaded.second.weight, network.second.weight.float())
    assert torch.equal(loaded.first.weight, network.first.weight.float().bfloat16())
    # overwriting the file changes nothing of what was read
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(loaded.second.weight, network.second.weight.float())


def test_names_and_shapes_that_do_not_fit_are_refused(saved: tuple[Net, Path]) -> None:
    _, path = saved
    with pytest.raises(RuntimeError, match="Missing key"):
        load_network(Net, path, "other.")

    class Wider(Net):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 32)

    with pytest.raises(RuntimeError, match=r"size mismatch for first.weight"):
        load_network(Wider, path, "net.")


def test_the_memory_of_a_system_is_that_of_its_networks() -> None:
    class System:
        def __init__(self) -> None:
            self.one, self.again, self.name = nn.Linear(10, 10), None, "x"
            self.again = self.one

    assert memory_bytes(System()) == (100 + 10) * 4


MEASURE = """
import resource, sys, torch
from pathlib import Path
from torch import nn
from model_store.weights import load_network, memory_bytes
load_network(lambda: nn.Linear(8, 8), Path(sys.argv[2]), "")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layers = lambda: nn.Sequential(*(nn.Linear(2048, 2048, bias=False) for _ in range(12)))
net = load_network(layers, Path(sys.argv[1]), "")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown * 1024 / sum(p.numel() * 4 for p in net.parameters()))
"""


def test_loading_takes_little_more_memory_than_the_network(tmp_path: Path) -> None:
    save_file({f"{n}.weight": torch.randn(2048, 2048) for n in range(12)}, tmp_path / "large.safetensors")
    save_file({"weight": torch.zeros(8, 8), "bias": torch.zeros(8)}, tmp_path / "small.safetensors")
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("large", "small")]
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    # the file's pages are mapped while it is read, and are no memory of ours: they count once at most
    assert float(done.stdout) < 2.2
