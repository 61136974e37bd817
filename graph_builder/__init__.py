"""Item graphs as a batch job: co-occurrence, neighbours by modality, interest centres; reading and exporting them.

May import kernels, storage, configs and contracts; knows data only as a source of sequences and features. Begin with
build.py (the life of a build) and store.py (what a finished graph is); stages/ has a file per stage, cost/ predicts
time and memory, ray_tasks.py runs blocks on a cluster.
"""
