from kernels.numba_cache import choose_numba_cache

choose_numba_cache()
