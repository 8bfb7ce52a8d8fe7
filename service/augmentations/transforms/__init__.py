"""Transforms of segmentations ``(H, W)``, square or not, which neither invent a label nor split an instance.

A segmentation is class indices and, where they are known, instance numbers: both change alike. Each transform is one
file with two functions. ``draw_NAME`` decides from the request's parameters, a segmentation and a random generator what
to do: JSON-able arguments, or None for nothing. ``NAME`` is a pure function of a segmentation and these arguments. They
are stored with the mask, so that it can be made again without a random number.

    flip, scale, rotate, shift, elastic    geometry: nearest sampling, mirrored borders
    crop                                   a square that keeps the classes, at random or the best one (``frame``)
    drop, clone, merge                     objects taken out, repeated, or pasted from another mask
    resize                                 another size, by majority
    base, sampling, filling, regions       shared: segmentations, nearest pixels, hole filling, objects
    parameters                             a request's parameters of each transform (pydantic, without numpy)
    compose                                all transforms one after another, and again from the stored arguments

To the first two rows, 255 is a label like any other: it moves along. ``drop``, ``clone`` and ``merge`` do not change
its pixels.

An object is an instance, or a connected region of pixels of none. One that is cloned or merged in is a new instance,
with the next number; all others keep theirs through every transform.
"""
