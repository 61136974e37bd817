"""Checkpoints and the folder of a run: written whole, read by any number of ranks, on a disk or at a URI.

Begin with index.py (what a checkpoint is), then checkpoint.py; run_folder.py says which commands may continue a run.
"""
