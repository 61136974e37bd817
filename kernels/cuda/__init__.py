"""The CUDA sources (*.cu) and the Python code that launches them.

May import the files of kernels/, and kernels/cooccurrence for the form of its entries. Files, and what to open them
for:

    launchers.py       open first: one Python function per kernel, with its shapes and dtypes
    tile_loop.py       the loop over tiles of a neighbour search on a GPU
    gemm.py            float16 matrix products by cuBLAS
    device_rows.py     the rows of a feature file on the GPU, and their exact dot products
    recording.py       recording of work into CUDA graphs
    streams.py         two CUDA streams that overlap
    threshold_scan.cu  adds scores to candidate lists, seeds thresholds, shortens lists
    unit_rows.cu       scales rows and rounds them to float16
    pair_dots.cu       float64 dot products of pairs of rows
    injected_rows.cu   injection of co-occurrence into features
    center_sums.cu     sums of points per centre, for k-means
    pair_counts.cu     entries of co-occurring pairs
"""
