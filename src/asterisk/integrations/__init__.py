"""Artifacts where people already work: one module a library, each importing that library only.

``sentence_transformers`` has its call signatures and needs numpy alone, ``langchain`` and
``llama_index`` are embeddings for those, ``sklearn`` is a transformer for pipelines.
"""
