"""Exact blocked kernels on CPUs and CUDA, each with a slow twin in reference.py.

May import storage, configs and contracts. Begin with backend.py (NumPy or CuPy) and reference.py (what each kernel
computes); cosine/ is the neighbour search, cooccurrence/ the counts of pairs, ranking/ what evaluation reads of
scores, layers/ the compiled CPU loops of a Transformer layer, cuda/ the CUDA sources and what launches them.
"""

from kernels.numba_cache import choose_numba_cache

choose_numba_cache()
