"""The reader of training data, shared by training and evaluation.

``preparing`` (any dataset -> a stored dataset on this machine), ``training_set`` (an opened one: classes, splits,
texts), ``item_index`` (its items in arrays), ``fit`` (images to the network's square), ``tiles`` (where tiles are cut),
``pairs`` (fitted pairs, cached), ``stream`` (batches decoded ahead), ``captions`` (texts as tokens), ``pixels`` (turns,
tensors, class shares), ``listings`` (lists of stems), ``image_quality`` (PSNR and error rate).
"""
