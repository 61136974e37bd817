"""The parts that systems are made of: item table, item views, towers, interest centres, fusion, losses.

The equations are written in plain torch. If an equation has faster paths, a decorator names them and
`model/cpu/dispatch.py` chooses one. The plain form stays available as `.plain`, and tests compare every path with it.

May import `model.cpu`, `model.protocol` and whatever `model` may import, but no system.

Open `sequence_encoder.py` first (the tower), then `interest_centers.py` (MDSRec's centre attention, Eq. 10-16) and
`fusion.py` (Eq. 17-19). `sequence_groups.py` pads sequences, `item_table.py` and `item_views.py` make the vectors of
items, `feature_maps.py` maps their features, `gru.py` is a GRU over sequences, and `repeats.py` has the
learned gains of repeats. `losses.py` has cross entropy over channels and `gbce.py` gBCE, both in the chunks of
`row_chunks.py`; `softmax_kernel.py` has cross entropy on GPUs, and `criterion.py` is how a model calls them.
`score_fusion.py` fuses the scores of channels, and `fused_loss.py` has the losses of fused scores. `contrastive.py`
has the loss of contrastive pre-training, `augmentation.py` its changes of inputs, and `experts.py` mixes the experts
of an adaptor. `clustering.py` and `density_peaks.py` find MISSRec's interests, and `interest_transformer.py` reads
them. `center_chunks.py` and `center_memory.py` bound the memory of centre attention, `center_blocks.py` runs it on a
GPU, and `recompute.py` computes again in the backward what was not kept.
"""
