"""The stages of a graph build, each a pure function of files on disk.

May import kernels, storage, configs and contracts, and the files of graph_builder/ except build.py. A stage writes
its result into the graph's folder and skips what an interrupted build has finished. Files, in the order of a build:

    cooccurrence.py        open first: the matrix O
    training_sequences.py  the training parts of all sequences, which O is counted from
    window.py              how sequences are split into tasks, and which share of pairs a window leaves out
    pair_files.py          the files of entries between the tasks that write them and those that add them up
    injection.py           injection of co-occurrence into features
    clusters.py            interest centres: k-means
    neighbors.py           the neighbour search: its steps
    neighbor_tasks.py      the neighbour search: what each task does
    triangle.py            the neighbour search: blocks of row ranges, and rounds of blocks
"""
