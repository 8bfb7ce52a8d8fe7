"""Canvases: overlapping windows (``windows``) and the kinds of weights that average them (``window_weights``)."""
