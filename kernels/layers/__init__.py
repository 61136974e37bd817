"""Compiled CPU loops of a Transformer layer's element-wise half. Begin with layer_loops.py."""
