"""Count what one training step would launch on a GPU, and predict its time: python benchmarks/cuda_step.py

No GPU is needed. The step runs on a pretended CUDA device (`tests/pretended_device`), which computes shapes only and
counts kernels, waits, bytes and floating-point operations. MDSRec trains windows of sequences of up to 200 items, with
sampled softmax and sampled centres; the item table is replicated. The time is not measured: it is what the counted
work takes at stated rates of an H200.
"""
