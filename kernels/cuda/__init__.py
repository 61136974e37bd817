"""CUDA sources (*.cu), their launchers, streams and products.

May import no other kernel folder. Begin with launchers.py.
"""
