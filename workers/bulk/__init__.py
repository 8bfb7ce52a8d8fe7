"""The bulk worker: imports datasets, fills augmentation sets and writes exports, on a CPU and without torch.

Modules: ``main`` (the process), ``celery_app`` (its one task), ``worker`` (what a process holds), ``execute`` (one
delivery of a run), ``alone`` (one in a process of its own), ``context`` (what a handler sees), ``handlers``:
``import_dataset`` with ``import_child``, ``augment`` with ``judge`` and ``augmentation_jobs``, and ``export``; then
``cleanup``, ``sweeper`` with ``retention`` and ``leftovers``, and ``metrics``. See :mod:`service.runs` for what a run
is.
"""
