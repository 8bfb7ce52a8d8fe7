"""Trainings as runs: a worker that needs no torch, and a child process for each stage that trains.

main        the worker process, ``twinset worker --train``
handler     a training from its first stage to its last
stage       one stage: its child, its checkpoints, its end
folder      the folder of a stage, which parent and child share
child       the process that trains
result      the part, or the model, that a stage gives
"""
