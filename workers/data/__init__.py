"""Readers of training data, shared by training and evaluation.

``segmentation_folder`` (images with masks), ``image_folder`` (images alone), ``files`` (their single files),
``caption_lines`` and ``captions`` (texts), ``image_quality`` (PSNR and error rate).
"""
