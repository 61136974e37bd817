"""Exact cosine top-H of the rows of a matrix. Begin with cosine_topk.py, which says how a list is proved exact."""
