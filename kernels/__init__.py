"""Exact blocked kernels for CPUs and CUDA GPUs. Each has a slow twin: in reference.py, or a line of NumPy in its test.

May import storage, configs and contracts. Files, and what to open them for:

    reference.py        open first: what each kernel computes, in plain loops
    backend.py          whether kernels run on NumPy or CuPy
    candidate_lists.py  the arrays that the CPU and the CUDA neighbour search fill
    spmm.py             sparse rows times a dense matrix: injection of co-occurrence into features
    kmeans.py           one k-means step on a block of points
    grouping.py         rows by group, sorted in each group; counts of live users; hashes of texts
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
