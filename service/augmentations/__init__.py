"""Augmentation sets: from a dataset and a model to a plan of twins, and from made twins to those that count.

    request          the body of ``POST /augmentations``
    admission        a request held against card and dataset, all faults at once
    matching         the dataset's classes as the model's
    pool             the real items as a plan sees them
    balance          what the classes should come to, what these masks can reach, and which to take
    raking           the weights of masks that meet a target and change the real set the least
    choosing         from weights to a sequence of masks, even at every length
    class_sets       classes that occur together, for models that draw masks themselves
    transforms       masks changed without inventing a label
    prompts          from a template to a prompt
    plan             all of it together: which twins to make next
    tally            what has been made and accepted so far
    fingerprints     perceptual hashes of twins
    near_duplicates  has something like it come before?
    acceptance       does a twin count, and if not, why
    picture          a plan, drawn

Pure functions and values on numpy, Pillow and pydantic; nothing here knows HTTP, a store or torch.
"""
