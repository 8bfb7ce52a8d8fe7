"""The worker of runs: datasets, augmentation sets and exports, on a CPU and without torch. See :mod:`service.runs`."""
