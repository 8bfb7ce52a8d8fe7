"""Transforms of masks of class indices ``(H, W)`` uint8, square or not, which never invent a label.

Each transform is one file with two functions. ``draw_NAME`` decides from the request's parameters, a mask and a random
generator what to do: JSON-able arguments, or None for nothing. ``NAME`` is a pure function of a mask and these
arguments. They are stored with the mask, so that it can be made again without a random number.

    flip, scale, rotate, shift, elastic    geometry: nearest sampling, mirrored borders
    crop                                   a square that keeps the classes, at random or the best one (``frame``)
    drop, clone, merge                     objects taken out, repeated, or pasted from another mask
    base, sampling, filling, regions       shared: context, nearest labels, hole filling, connected regions
    parameters                             a request's parameters of each transform (pydantic, without numpy)
    compose                                all transforms one after another, and again from the stored arguments

To the first two rows, 255 is a label like any other: it moves along. ``drop``, ``clone`` and ``merge`` do not change
its pixels.
"""
