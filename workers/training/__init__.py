"""Training recipes: one for each network, their commands, and what they share.

A recipe is a module with its settings and its trainer (``cosimgen``, ``superres``, ``autoencoder``, ``latent_base``,
``siamese``, ``pathdiff``), with a ``*_command`` and an export (``export``, ``latent_export``, ``*_result``). They share
``trainer`` and ``network_trainer`` (the run), ``loop`` (randomness and rates), ``checkpoints`` and ``training_log``.
"""
