"""Training on one rank: the life of a run, its epochs, and its optimiser steps.

`trainer.py` opens, shards, resumes, trains and evaluates. `training_loop.py` is the loop over epochs, `step.py` the
pipeline of steps, and `guard.py` skips steps that are not finite. Imports the rest of `distributed` but not Ray.
Begin with `trainer.train`.
"""
