"""Transforms of masks of class indices ``(H, W)`` uint8, square or not, which never invent a label.

Each transform is one file with two functions. ``draw_NAME`` decides, from the request's parameters, a mask and a random
generator, what to do: JSON-able arguments, or None for nothing. ``NAME`` is a pure function of a mask and these
arguments. They are stored with the mask, so that it can be made again without a random number.

    flip, scale, rotate, shift, elastic    where things lie: nearest sampling, borders mirrored
    crop                                   a square out of it, at a place that keeps its classes; also without chance, ``frame``
    drop, clone, merge                      which objects are there
    sampling, filling, regions             what they share
    parameters                             what a request may ask of each transform (pydantic, without numpy)
    compose                                one after another, and again from what was drawn

255 is a label like any other to the first two rows: it moves along. ``drop``, ``clone`` and ``merge`` leave its pixels
alone.
"""
