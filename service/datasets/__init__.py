"""Datasets of images and masks: read from the field's formats, checked, counted, and written in them again.

    classes      the classes of a dataset: names, indices, colours
    items        one image with its mask, in and out
    components   objects in a mask
    rle          run-length encodings as COCO has them
    outlines     the borders of objects as polygons, exact to the pixel
    filling      polygons as pixels, by the rules of those who read them
    statistics   what a dataset holds, as numbers and as a picture
    reading      folders, COCO, Pascal VOC, Cityscapes, YOLO-seg, Hugging Face, WebDataset and archives of them, in
    stored       datasets and twins in the object store
    matching     the classes of several datasets as one list
    mixing       several datasets as one; stored_mix, the same of those in the store, from any place on
    filtering    twins that the model was not sure of
    writing      these formats, out

Masks are class indices ``(H, W)`` uint8: 0..253 a class, 255 none. Items come and go one at a time. Nothing here knows
of HTTP, queues or torch.
"""
