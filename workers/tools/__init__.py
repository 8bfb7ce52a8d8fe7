"""Tools that need an engine: ``bench`` measures speed, ``verify`` makes stored twins again (with ``reproduce``)."""
