"""Prepares raw interactions as stages over files, in one process or on a Ray cluster, with the same result.

May import data.formats, kernels, storage and the modules of data.prepare that split. Open run.py first, which has the
stages in their order, and plan.py, which has what they share. encode.py reads and numbering.py numbers; histories.py
sorts; core.py finds the k-core; final.py makes the final histories and splits them; names.py and held_back.py bring
texts back. workplace.py opens the work folder (work.py) and hands over the result (result.py). executor.py and
ray_stages.py run the tasks of a stage.
"""
