"""Datasets of images and masks: read from the field's formats, checked, counted, and written in them again.

    classes             the classes of a dataset: names, indices, colours
    items               one image with its mask
    components          the objects of a mask
    object_counts       how many objects a mask has, by class
    instance_maps       the numbers of objects as a PNG
    rle                 COCO's run-length encodings
    outlines            the borders of objects as polygons, exact to the pixel
    patches             the pixels of one object within a box, and what all objects of an image may cost
    filling             polygons as pixels, by the rules of the tools that read them
    statistics          class frequencies, co-occurrence, sizes and positions
    statistics_values   the values of these statistics
    statistics_chart    the same as one image
    reading             folders, COCO, Datumaro, VOC, Cityscapes, YOLO-seg, Hugging Face, WebDataset, twins, archives
    writing             the same formats written, but for twins
    stored              datasets in the object store
    matching            the classes of several datasets as one list
    mixing              several datasets as one
    filtering           twins rejected by their confidence
    seen_hashes         a compact set of hashes, for duplicates
    extras              packages that only some formats need

Masks are class indices ``(H, W)`` uint8: 0..253 a class, 255 none. Items are read and written one at a time. This
package does not depend on HTTP, queues or torch. README.md describes the formats.
"""
