"""The item table in TorchRec's hands: rows split over ranks, or replicated on them.

- `table.py`: the item table as a TorchRec `EmbeddingCollection`.
- `parallel.py`: wraps a system so that TorchRec shards its table. Begin here.
- `pipeline.py`: takes steps in TorchRec's pipeline.

Only modules here may import TorchRec. The rest of `distributed` imports them only for a run that needs TorchRec: on
several ranks, or with a table that is split. One process with a whole table needs neither TorchRec nor FBGEMM.
Modules here may import the rest of `distributed`, but not `distributed.sharding`, which imports them.
"""
