"""Compiled CPU loops of a Transformer layer's element-wise half.

May import the files of kernels/, but no other folder in it. layer_loops.py holds everything.
"""
