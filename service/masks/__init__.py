"""Masks of requests: PNG files checked, read as class indices, and stored.

    png_file   checks that a file is a complete and harmless PNG, with the standard library alone
    raster     its samples, and the colour of each
    labels     from samples to the card's class indices
    types      the values by which requests and specs name a mask
    given      the ``mask`` member of a request
    reader     all of these together, for the validation of a request
    uploads    uploaded files, stored under the sha256 of their bytes

Nothing is imported here: raster and labels need numpy and Pillow, which only requests with masks should load.
"""
