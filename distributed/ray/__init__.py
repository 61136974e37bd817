"""Ranks on a Ray cluster: connecting, starting workers, and starting them again after a loss.

This is the only folder of `distributed` that imports Ray, and only a task that needs Ray imports it. It may import the
rest of `distributed`. Begin with `train.run_on_ray`.
"""
