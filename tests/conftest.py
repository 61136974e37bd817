"""One thread per process: tests run ranks side by side, and OpenMP's threads would fight over the cores."""

import torch

torch.set_num_threads(1)
