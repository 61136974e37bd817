"""Exact blocked kernels for CPUs and CUDA GPUs. Each kernel has a slow twin in reference.py.

May import storage, configs and contracts. Files, and what to open them for:

    reference.py        open first: what each kernel computes, in plain loops
    backend.py          whether kernels run on NumPy or CuPy
    candidate_lists.py  the arrays that the CPU and the CUDA neighbour search fill
    spmm.py             sparse rows times a dense matrix: injection of co-occurrence into features
    kmeans.py           one k-means step on a block of points
    numba_cache.py      where Numba stores compiled functions
    cosine/             the neighbour search
    cooccurrence/       counts of item pairs
    ranking/            ranks and best items from a tile of scores, for evaluation
    layers/             compiled CPU loops of a Transformer layer
    softmax/            the softmax loss on GPUs, in Triton
    cuda/               the CUDA sources and the Python code that launches them
"""

from kernels.numba_cache import choose_numba_cache

choose_numba_cache()
