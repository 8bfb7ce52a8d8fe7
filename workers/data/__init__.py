"""The reader of training data, shared by training and evaluation.

``preparing`` (any dataset -> a stored dataset on this machine), ``prepared_copies`` (which of those stay),
``training_set`` (an opened one: splits, texts, sizes), ``training_classes``, ``scales`` (what its card says of scale),
``item_index`` (its items in arrays), ``fit`` (images to the network's square), ``tiles`` (where tiles are cut),
``pairs`` (fitted pairs, cached), ``stream`` (batches decoded ahead), ``captions`` (texts as tokens), ``pixels`` (turns,
tensors, class shares), ``listings`` (lists of stems), ``image_quality`` (PSNR and error rate).
"""
