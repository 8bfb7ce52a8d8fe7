"""Masks: class colours (``palette``), decoding of painted masks (``decode``) and resizing by majority (``resize``)."""
