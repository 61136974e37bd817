"""Exact ranking of the whole catalogue, metrics, and what a table must say of them.

May import model, data, kernels, configs and contracts. Begin with ranking.py; metrics.py has the formulas,
settings.py what stands beside a table.
"""
