"""Augmentation sets: planning the twins that extend a dataset, and accepting those that are made.

    request          the body of ``POST /augmentations``
    admission        checks a request against card and dataset, and reports all faults at once
    matching         maps the dataset's classes to the model's
    pool             the real items of a plan: class shares, masks, captions
    balance          target shares of the classes, and what the masks can reach
    raking           weights of masks that meet a target and change the real set the least
    choosing         a sequence of masks from weights, balanced at every length
    class_sets       classes that occur together, for models that draw masks themselves
    object_rules     rules on the objects of each mask; object_admission checks them, object_control meets them, mask by
                     mask, and object_report says how well
    transforms       transforms of masks that never invent a label
    prompts          prompts from templates
    set_fit          size and scale of the twins; scale_report says how they compare with the real items
    mask_maker       the masks of entries
    candidates       the real items that a source of masks can draw from
    entries          the entries of a plan, and the generation jobs they make
    plan             the plan itself: which twins to make next
    plan_values, plan_report    figures of a plan: the answer to a dry run
    set_counts       counts of a set so far, from which the next entries follow
    fingerprints     perceptual hashes of twins
    near_duplicates  search for similar fingerprints
    acceptance       decides whether a twin is accepted, with the reason if not
    plan_chart       a plan as an image
    planning         plans for requests, each made in a child process with limits (planning_child)
    work             the decided request of a set
    stored, rounds   what is stored of a set: its decided request, and its rounds of jobs

All but the last line are pure functions and values on numpy, Pillow and pydantic: no HTTP, no store, no torch.
"""
