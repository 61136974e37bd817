"""Exact cosine top-H of the rows of a matrix: the neighbour search.

May import the files of kernels/, and kernels/cuda. Files, and what to open them for:

    cosine_topk.py     open first: the definition of a neighbour, the error bounds, the proof that a list is exact,
                       and `cosine_neighbors`, the search of a matrix in memory
    pair_search.py     the interface that graph builds call: a search of row ranges on CPU cores or on a GPU
    score_tiles.py     tiles of approximate scores: the GEMM, and the split of the work over threads
    threshold_scan.py  the compiled scan that adds a tile's scores to candidate lists
    exact_ranking.py   from candidate lists to final lists: exact ranking, overflowed rows, copies
    exact_dots.py      the compiled float64 dot products, whose every bit is defined
"""
