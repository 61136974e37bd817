"""Build, read and export item graphs: co-occurrence, neighbours by modality, and interest centres.

May import kernels, storage, configs and contracts. It does not import data: it reads a dataset through the protocol
`build_inputs.GraphSource`. Files, and what to open them for:

    build.py           open first: the steps of a build, in order
    graph.py           a finished graph: its files, and reading them
    build_inputs.py    the inputs: a dataset, or files of features and sequences
    sequence_file.py   reading sequences from a Parquet or Arrow file
    row_blocks.py      the files of the co-occurrence matrix
    work_folder.py     the files of an unfinished build, by which it continues
    executor.py        running blocks of work, one after the other, in this process
    ray_tasks.py       running blocks of work on a Ray cluster
    ray_gpu_actors.py  running blocks of work on the GPUs of a Ray cluster
    progress.py        progress reports of a build
    integrity.py       the checksum of a graph
    exports.py         export of a graph to other libraries' formats
    export_formats.py  how each of these formats is written
    stages/            one file per stage of a build
    cost/              prediction of a build's time and memory
"""
