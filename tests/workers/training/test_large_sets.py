"""A set of 100,000 images trains within 400 MB: its pixels are never all in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workers.data.made_sets import write_prepared

MAX_MB = 400
CHILD = """
import resource, sys
from pathlib import Path
import torch
from accelerate import Accelerator
torch.set_num_threads(1)
from model_store.cosimgen.config import CoSimGenConfig
from tests.workers.training.toy import letters
from workers.data.fit import Fit
from workers.data.stream import InputOptions
from workers.data.training_set import TrainingSet
from workers.training.cosimgen import CoSimGenTrainer
from workers.training.cosimgen_settings import CoSimGenTraining
data = TrainingSet.open(sys.argv[1])
network = CoSimGenConfig(num_classes=3, size_px=16, width=16, multipliers=(1, 2), blocks_per_level=1,
                         embedding_dims=32, class_feature_dims=16, stem=2)
settings = CoSimGenTraining(preset="small", iterations=2, batch_size=8, network=network, discriminator_width=8)
options = InputOptions(workers=0, cache_bytes=8 << 20)
run = CoSimGenTrainer(data, Path(sys.argv[2]), settings, Accelerator(cpu=True, mixed_precision="no"), encode=letters,
                      input_options=options)
assert run.run(checkpoint_every=2, sample_every=9, log_every=1) == 2
print(len(run.pairs.stems), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mb(folder: Path, out: Path, data_dir: Path) -> tuple[int, int]:
    """The images trained on, and the peak memory in MB of a process that prepares the set and trains."""
    environment = os.environ | {"TWINSET_DATA_DIR": str(data_dir), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", CHILD, str(folder), str(out)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    images, peak = done.stdout.split()[-2:]
    return int(images), int(peak)


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    few = peak_mb(write_prepared(tmp_path, 200, 24), tmp_path / "few", tmp_path / "data")
    many = peak_mb(write_prepared(tmp_path, 3000, 24), tmp_path / "many", tmp_path / "data")
    assert (few[0], many[0]) == (200, 3000)
    assert many[1] < few[1] + 40


@pytest.mark.soak
def test_a_hundred_thousand_images_train_within_400_mb(tmp_path: Path) -> None:
    images, peak = peak_mb(write_prepared(tmp_path, 100_000, 12), tmp_path / "run", tmp_path / "data")
    assert images == 100_000
    assert peak < MAX_MB
