"""Trainings: runs that turn datasets into a model. Nothing here needs torch.

options       what a user may set, by system: the settings of ``POST /trainings`` and the options of ``twinset train``
records       checkpoints, loss curves and the results of stages
control       pause and resume
work          what an accepted training has decided: its stages, and their data
"""
