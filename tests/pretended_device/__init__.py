"""A pretended CUDA device: tensors that say they are on cuda:0, and compute on the CPU or not at all.

The development and CI machines have no GPU. Inside `pretended_device()`, code for CUDA runs all the same. A tensor that
is moved to cuda:0 says that it is there, so every branch for CUDA is taken, and its operators compute on the CPU. With
`data="meta"` they compute only shapes, so that a step of any size takes seconds and no memory.

What a GPU would do is counted (`Counts`): kernels that are launched, points at which the host waits for the device,
copies, memory, bytes and multiply-adds. What a GPU would refuse is refused: mixing tensors of the CPU and the device,
and `.numpy()`. A wait that the test does not name raises `HostWait`.

Open patches.py first, for `pretended_device`. device.py runs and counts operators, tensor.py has the class of the
tensors, kernels.py the operators for which CUDA has one kernel and the CPU several, and counts.py what is counted.

What it cannot show: how CUDA kernels round, their order of additions (cuSPARSE, atomics), streams, NCCL, FBGEMM, and
time. An operator counts as one launch, although some launch several kernels, such as sorts and the gradient of an
embedding.
"""

from tests.pretended_device.counts import Counts
from tests.pretended_device.device import HostWait, MixedDevices, PretendedDevice
from tests.pretended_device.patches import pretended_device
from tests.pretended_device.tensor import CUDA, PretendedTensor

__all__ = ["CUDA", "Counts", "HostWait", "MixedDevices", "PretendedDevice", "PretendedTensor", "pretended_device"]
