"""The pretended device itself: what it counts, what it refuses, and that its numbers are the CPU's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.pretended_device import CUDA, HostWait, MixedDevices, PretendedTensor, pretended_device


def test_a_moved_tensor_says_where_it_is_and_new_ones_can_be_made_there() -> None:
    with pretended_device(may_wait=None) as device:
        for made in (
            torch.ones(3).to(CUDA, non_blocking=True),
            torch.arange(3, device=CUDA),
            torch.tensor([1, 2], device=CUDA),
            torch.ones(3).to(CUDA).new_zeros(2),
            torch.randn(2, device=CUDA),
        ):
            assert isinstance(made, PretendedTensor)
            assert (made.device, made.is_cuda, made.is_cpu) == (CUDA, True, False)
        assert device.counts.copies.total() == 3
        back = torch.arange(3, device=CUDA).to("cpu")
        assert not isinstance(back, PretendedTensor)
        assert back.tolist() == [0, 1, 2]
    with pytest.raises(RuntimeError, match="outside"):
        made + 1


def loss_of(layer: nn.Module, x: Tensor) -> Tensor:
    q = layer(x).unflatten(-1, (2, -1)).transpose(1, 2)
    return F.layer_norm(F.scaled_dot_product_attention(q, q, q, is_causal=True), (4,)).square().sum()


def test_values_and_gradients_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 8), torch.randn(3, 5, 6)
    expected = loss_of(layer, x)
    gradients = torch.autograd.grad(expected, list(layer.parameters()))
    with pretended_device(may_wait=None):
        layer.to(CUDA)
        loss = loss_of(layer, x.to(CUDA))
        loss.backward()
        assert torch.equal(loss.detach().cpu(), expected.detach())
        for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
            assert parameter.grad is not None
            assert torch.equal(parameter.grad.cpu(), gradient)


@pytest.mark.parametrize("data", ["cpu", "meta"])
def test_launches_are_counted_and_views_are_not(data: str) -> None:
    with pretended_device(data) as device:
        x = torch.ones(4, 6).to(CUDA)
        weight = torch.ones(6, 2).to(CUDA).requires_grad_()
        (x.view(2, 2, 6).transpose(0, 1)[0] @ weight).sum().backward()
        names = [(launch.name.split(".")[1], launch.backward) for launch in device.counts.launches]
        product = next(launch for launch in device.counts.launches if "mm" in launch.name)
        assert names == [("mm", False), ("sum", False), ("ones_like", False), ("mm", True)]
        assert (product.flops, product.num_bytes, product.dtype) == (2 * 2 * 6 * 2, 4 * (12 + 12 + 4), torch.float32)
        assert device.counts.num_launches == 4


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool(x[0] > 0),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "tolist": lambda x: x.tolist(),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "copy": lambda x: torch.empty(3).copy_(x),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_is_counted_and_refused_unless_it_is_named(name: str) -> None:
    with pretended_device() as device:
        x = torch.ones(3).to(CUDA)
        with pytest.raises(HostWait, match="test_pretended_device"):
            WAITS[name](x)
        assert device.counts.num_waits == 1
    with pretended_device(may_wait=["test_pretended_device.py"]) as device:
        WAITS[name](torch.ones(3).to(CUDA))
        assert device.counts.num_waits == 1


def test_what_needs_no_wait_does_not_count_as_one() -> None:
    with pretended_device() as device:
        x = torch.ones(3).to(CUDA)
        x.repeat_interleave(x.long(), output_size=3)
        x[torch.zeros(2, dtype=torch.int64, device=CUDA)]
        x.masked_fill(x > 0, 1.0)
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
        assert device.counts.num_waits == 0


def test_tensors_of_both_devices_do_not_mix_but_for_numbers() -> None:
    with pretended_device() as device:
        x = torch.ones(3).to(CUDA)
        assert isinstance(x * torch.tensor(2.0), PretendedTensor)
        with pytest.raises(MixedDevices, match="test_pretended_device"):
            x + torch.ones(3)
        assert device.counts.mixed.total() == 1


@pytest.mark.parametrize("data", ["cpu", "meta"])
def test_memory_is_counted_once_per_storage_and_given_back(data: str) -> None:
    with pretended_device(data) as device:
        x = torch.zeros(256, 4, device=CUDA)
        view = x[1:]
        assert device.counts.live == 4096
        y = x + view[:1]
        assert device.counts.live == 8192
        del x, y
        assert device.counts.live == 4096
        del view
        assert (device.counts.live, device.counts.peak) == (0, 8192)
        torch.zeros(1, device=CUDA)
        assert device.counts.live == 0
        device.counts.restart()
        assert (device.counts.num_launches, device.counts.peak) == (0, 0)


def test_the_device_has_random_numbers_of_its_own() -> None:
    with pretended_device(may_wait=None):
        torch.manual_seed(3)
        first = torch.rand(4, device=CUDA).cpu()
        after_host = (torch.rand(1), torch.rand(4, device=CUDA).cpu())[1]
        torch.manual_seed(3)
        assert torch.equal(torch.rand(4, device=CUDA).cpu(), first)
        assert torch.equal(torch.rand(4, device=CUDA).cpu(), after_host)


def test_checkpoint_restores_them_only_if_it_is_given_a_tensor_of_the_device() -> None:
    def draws_noise(x: Tensor) -> Tensor:
        return x * torch.rand(5, device=CUDA)

    def gradient(*args: object) -> Tensor:
        weight = torch.ones(5).to(CUDA).requires_grad_()
        torch.manual_seed(1)
        checkpoint(lambda *_: draws_noise(weight) * weight, *args, use_reentrant=False).sum().backward()
        assert weight.grad is not None
        return weight.grad.cpu()

    with pretended_device(may_wait=None):
        torch.manual_seed(1)
        noise = torch.rand(5, device=CUDA).cpu()
        assert torch.equal(gradient(torch.ones(1).to(CUDA)), 2 * noise)
        assert not torch.equal(gradient([object()]), 2 * noise)


def test_on_meta_whole_numbers_are_known_and_others_are_zero() -> None:
    with pretended_device("meta", may_wait=None):
        counts = torch.tensor([2, 0, 1]).to(CUDA)
        assert torch.arange(3, device=CUDA).repeat_interleave(counts).tolist() == [0, 0, 2]
        assert float((torch.full((2,), 7.0, device=CUDA) * counts[0]).sum()) == 0.0
        rows = torch.sparse_csr_tensor(
            torch.tensor([0, 1, 3]).to(CUDA), counts, torch.ones(3).to(CUDA), (2, 3), check_invariants=False
        )
        assert (rows @ torch.ones(3, 4).to(CUDA)).shape == (2, 4)


@pytest.mark.parametrize(("width", "operators"), [(8, 1), (12, 1), (6, 6)])
def test_attention_is_one_kernel_if_the_width_of_a_head_allows_it(width: int, operators: int) -> None:
    with pretended_device("meta") as device:
        q = torch.ones(2, 3, 5, width).to(CUDA)
        visible = torch.ones(2, 1, 5, 5, dtype=torch.bool).to(CUDA)
        device.counts.restart()
        F.scaled_dot_product_attention(q, q, q, attn_mask=visible)
        names = [launch.name for launch in device.counts.launches]
        assert any("efficient_attention" in name for name in names) == (width % 4 == 0)
        assert len(names) >= operators


def test_bfloat16_autocast_is_that_of_the_device() -> None:
    with pretended_device(), torch.autocast("cuda", torch.bfloat16):
        x = torch.ones(2, 2).to(CUDA)
        assert (x @ x).dtype == torch.bfloat16
        with torch.autocast(x.device.type, enabled=False):
            assert (x @ x).dtype == torch.float32
