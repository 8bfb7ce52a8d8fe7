"""Measuring what a model makes: faithfulness to the request, agreement of image and mask, copying, diversity."""
