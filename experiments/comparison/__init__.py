"""Compares systems by the saved ranks of single users; begin with paired_runs.py."""
