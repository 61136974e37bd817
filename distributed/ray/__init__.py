"""Ranks on a Ray cluster: joining or starting one, starting workers, and starting them again after a loss.

- `launch.py`: runs a task on Ray workers and restarts a training. Begin with `launch.run_on_ray`.
- `cluster.py`: joins or starts a cluster, and waits until it has room for the workers.
- `relay.py`: which of the workers' lines are printed.
- `own_code.py`: how workers find this project's code. `worker_setup.py`: what each of Ray's processes does first.
- `temporary_folder.py`: a shorter folder for sockets.

Only modules here may import Ray. The rest of `distributed` imports `launch.py` and `cluster.py` only for a task that
needs Ray. Modules here may import the rest of `distributed`.
"""
