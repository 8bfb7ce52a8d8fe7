"""Diffusion: noise schedules (``schedule``), seeded noise (``noise``), DDIM (``ddim``), a plain loop (``sampling``)."""
