"""The parts that systems are made of: item table, item views, towers, interest centres, fusion, losses.

Equations are here in plain torch. Where an equation has faster paths, a decorator names them, and
`model/cpu/dispatch.py` chooses; the plain form stays available as `.plain`, and every path is tested against it.
`center_chunks.py` and `center_memory.py` bound the memory of the interest centres.

May import: `model.cpu`, `model.protocol`, and what `model` may. No system.

Begin with `sequence_encoder.py` (the tower), then `interest_centers.py` (MDSRec's attention, Eq. 10-16).
"""
