"""Evaluation: what a model makes, measured against a dataset's test split.

CoSimGen models are measured by ``cosimgen_evaluate`` (with ``cosimgen_requests``), models that follow masks by
``mask_evaluate`` (with ``mask_requests``, ``mask_faithfulness`` and ``text_control``). Both use ``sampling``,
``metrics``, ``dice``, ``realism`` and the auxiliary models ``segmenter`` and ``classifier`` (trained by ``fit``, stored
by ``cache``); ``report``, ``mask_report`` and ``grid`` write figures, tables and sheets.
"""
