"""Masks that are given: PNG files checked, read as class indices, and kept.

    png_file   is it a whole and harmless PNG? Nothing but the standard library
    raster     its samples and the colours they stand for
    labels     from samples to the card's class indices
    given      the ``mask`` member of a request
    reader     all of it together, for admission
    uploads    files kept under the sha256 of their bytes

Nothing is imported here: raster and labels need numpy and Pillow, which only requests with masks are to pay for.
"""
