"""Row-wise, replicated and single-process training agree, and each can load the checkpoints of the others."""

import json

import numpy as np
import pytest
import torch

from configs.loading import load_config
from configs.schema import TableConfig
from configs.systems.registry import SYSTEMS
from contracts.batch import Step
from contracts.errors import InputError
from data.sampling.batches import TrainBatches, assemble
from data.sampling.spans import Spans
from distributed.checkpoints.index import find_checkpoint
from distributed.checkpoints.progress import Progress
from distributed.checkpoints.saving import Checkpoints
from distributed.inputs import Inputs
from distributed.sharding import choose_optimizer, choose_sharding, shard
from distributed.training.step import TrainSteps
from distributed.training.trainer import candidate_sampler, training_spans
from distributed.world import world_of_one
from tests.distributed.spawn import run_ranks
from tests.distributed.toy import NUM_ITEMS, toy_data, toy_planner, toy_system
from tests.systems import TRAINED, settings_without_noise

STEPS = 20
BATCH = 29  # 7 windows, not divisible by 2 or 3, so that ranks' shares differ
CASES = [
    ("mdsrec", "sgd"),
    ("mdsrec repeats", "adagrad"),
    ("sasrec", "rowwise_adagrad"),
    ("sasrecf", "sgd"),
    ("mdsrec sampled", "rowwise_adagrad"),
    ("sasrec sampled repeats", "sgd"),
    ("sasrec gbce sampled repeats", "rowwise_adagrad"),
    ("mdsrec gbce", "rowwise_adagrad"),
    ("unisrec repeats", "sgd"),
    ("unisrec inductive sampled", "sgd"),
    ("mmmlp sampled", "rowwise_adagrad"),
    ("missrec sampled repeats", "sgd"),
    ("missrec", "sgd"),
    ("bert4rec sampled repeats", "sgd"),
    ("bert4rec", "rowwise_adagrad"),
    ("msm4sr sampled repeats", "rowwise_adagrad"),
]
CASES += [(name, "rowwise_adagrad") for name in TRAINED if name not in {model.split()[0] for model, _ in CASES}]


def config_of(model, sharding, table_optimizer):
    name, *options = model.split()
    return load_config(
        None,
        [
            *(["training.negatives.draws=12"] if "sampled" in options else []),
            *(["training.loss=gbce"] if "gbce" in options else []),
            *(["training.negatives.in_batch=false"] if "sampled" in options and "masks" in SYSTEMS[name].units else []),
            *(["model.mdsrec.center_samples=5"] if "sampled" in options and name == "mdsrec" else []),
            *settings_without_noise(name),
            *(["model.unisrec.use_ids=false"] if "inductive" in options else []),
            # Divided by .07, a difference of 1e-8 between two orders of a sum becomes one of 1e-3 within 20 steps.
            *(["model.msm4sr.temperature=0.5"] if name == "msm4sr" else []),
            f"model.learn_repeats={'repeats' in options}",
            f"model.name={name}",
            "model.dim=8",
            "model.max_length=6",  # so that many sequences have a second window, with fewer targets than items
            "model.num_heads=2",
            "model.init_std=0.3",
            f"table.sharding={sharding}",
            f"table.optimizer={table_optimizer}",
            "table.learning_rate=0.05",
            "training.optimizer=sgd",
            "training.learning_rate=0.05",
        ],
    )


def build(config, world):
    torch.manual_seed(0)
    sharded = shard(toy_system(config), config, NUM_ITEMS, world)
    planner = toy_planner(sharded.system.recommender.needs)
    data = toy_data()
    candidates = candidate_sampler(config, Inputs(data, None))
    batches = TrainBatches(
        data=data,
        spans=training_spans(config, data),
        batch_size=BATCH,
        seed=0,
        rank=world.rank,
        world=world.size,
        planner=planner,
        candidates=candidates,
    )
    return sharded, TrainSteps(sharded=sharded, plan=batches.plan, config=config, world=world), batches


def run_steps(steps, batches, first, last):
    def ready():
        for number in range(first, last):
            batches.set_epoch(number // len(batches))
            yield batches[number % len(batches)]

    steps.sharded.system.train()
    found = []
    for share in steps.run(ready()):
        of_channels = steps.world.sum_tensor(steps.channel_losses.double())
        found.append([steps.world.sum(float(share)), *of_channels.tolist()])
    return found


def losses_of(world, path, cases):
    found = {}
    for model, optimizer in cases:
        for sharding in ("data_parallel", "row_wise"):
            _, step, batches = build(config_of(model, sharding, optimizer), world)
            found[f"{model} {optimizer} {sharding}"] = run_steps(step, batches, 0, STEPS)
    if world.is_first:
        path.write_text(json.dumps(found))


# For each system its first case; the others vary the loss, the gains and the optimiser.
FIRST_CASES = [case for n, case in enumerate(CASES) if case[0].split()[0] not in {m.split()[0] for m, _ in CASES[:n]}]
OTHER_CASES = [case for case in CASES if case not in FIRST_CASES]


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(FIRST_CASES, id="every system"),
        pytest.param(OTHER_CASES, id="other settings", marks=pytest.mark.slow),
    ],
)
def test_losses_agree_for_any_sharding_and_number_of_ranks(tmp_path, cases):
    assert cases
    for world in (1, 2, 3):
        path = tmp_path / f"{world}.json"
        if world == 1:
            with world_of_one() as one:
                losses_of(one, path, cases)
        else:
            run_ranks(world, losses_of, path, cases)
    found = {world: json.loads((tmp_path / f"{world}.json").read_text()) for world in (1, 2, 3)}
    for model, optimizer in cases:
        reference = found[1][f"{model} {optimizer} data_parallel"]
        of_all = np.array(reference)[:, 0]
        assert of_all[-5:].mean() < of_all[:5].mean() - 0.05, "nothing was learnt, so equality would show nothing"
        for world in (1, 2, 3):
            for sharding in ("data_parallel", "row_wise"):
                trajectory = found[world][f"{model} {optimizer} {sharding}"]
                np.testing.assert_allclose(trajectory, reference, rtol=2e-5, err_msg=f"{world} {sharding} {model}")


def test_gains_of_repeats_have_a_learning_rate_of_their_own():
    """Adam's first step moves a weight by its learning rate."""
    config = config_of("mdsrec repeats", "row_wise", "rowwise_adagrad")
    training = config.training.model_copy(
        update={"optimizer": "adam", "repeat_learning_rate": 0.25, "learning_rate": 1e-3, "weight_decay": 0.5}
    )
    config = config.model_copy(update={"training": training})
    with world_of_one() as world:
        _, steps, batches = build(config, world)
        recommender = steps.sharded.system.recommender
        position = recommender.encoders[0].positions.weight.detach().clone()
        run_steps(steps, batches, 0, 1)
    assert recommender.repeats.weight.detach().abs().tolist() == pytest.approx([0.25] * 3, rel=1e-4)
    moved = (recommender.encoders[0].positions.weight.detach() - position).abs().max()
    assert 0 < float(moved) < 2e-3


def one_by_one(world):
    """Compare steps that are read ahead with steps that are read after the step before has ended."""
    for sharding, optimizer in (("data_parallel", "adam"), ("row_wise", "rowwise_adagrad")):
        found = []
        for lengths in ((8,), (1,) * 8):
            _, steps, batches = build(config_of("mdsrec sampled", sharding, optimizer), world)
            ends = np.cumsum(lengths).tolist()
            runs = zip([0, *ends], ends, strict=False)
            found.append([loss for first, last in runs for loss in run_steps(steps, batches, first, last)])
        assert found[0] == found[1], sharding


def test_reading_ahead_changes_no_bit():
    run_ranks(2, one_by_one)


def test_windows_train_as_their_prefix_rows_do():
    """Full softmax, no dropout, the same global batches: a prefix row has one state, a window one for each item."""
    found = []
    with world_of_one() as world:
        for expanded in (False, True):
            _, steps, batches = build(config_of("mdsrec", "data_parallel", "adam"), world)

            def rows(number, batches=batches):
                windows, _ = batches.spans(number)
                users, positions = windows.targets()
                starts = np.repeat(windows.starts, windows.num_targets)
                prefixes = Spans(users=users, starts=starts, ends=positions, num_targets=np.ones_like(positions))
                return Step(assemble(toy_data(), prefixes, len(users), lambda ids: ids))

            ready = [rows(n) if expanded else batches[n] for n in range(len(batches))]
            assert len(ready[0].batch.lengths) == (len(ready[0].batch.targets) if expanded else batches.spans_per_step)
            steps.sharded.system.train()
            found.append([float(share) for _ in range(3) for share in steps.run(ready)])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    assert found[0][-1] < found[0][0]


def test_bfloat16_towers_train_close_to_float32():
    found = []
    with world_of_one() as world:
        for precision in ("float32", "bfloat16"):
            config = config_of("mdsrec", "data_parallel", "sgd")
            training = config.training.model_copy(update={"precision": precision})
            _, steps, batches = build(config.model_copy(update={"training": training}), world)
            found.append(run_steps(steps, batches, 0, 10))
    assert found[0] != found[1]
    np.testing.assert_allclose(found[1], found[0], rtol=0.02)


def save_halfway(world, run, path):
    for sharding, optimizer in (("data_parallel", "adam"), ("row_wise", "rowwise_adagrad")):
        sharded, step, batches = build(config_of("mdsrec", sharding, optimizer), world)
        run_steps(step, batches, 0, 7)
        Checkpoints(str(run / sharding), world).save(sharded, Progress(step=7, best_step=7, world=world.size))
        losses = run_steps(step, batches, 7, 12)
        if world.is_first:
            (path / f"{sharding}.json").write_text(json.dumps(losses))


def continue_from(world, run, path):
    for sharding, optimizer in (("data_parallel", "adam"), ("row_wise", "rowwise_adagrad")):
        sharded, step, batches = build(config_of("mdsrec", sharding, optimizer), world)
        progress, _ = Checkpoints(str(run / sharding), world).load("latest", sharded, {})
        assert progress.step == 7
        losses = run_steps(step, batches, 7, 12)
        expected = json.loads((path / f"{sharding}.json").read_text())
        if world.size == 2:
            assert losses == expected, "the same number of ranks continues bit for bit"
        np.testing.assert_allclose(losses, expected, rtol=2e-5)


def test_a_checkpoint_continues_on_any_number_of_ranks(tmp_path):
    run_ranks(2, save_halfway, tmp_path / "run", tmp_path)
    with world_of_one() as one:
        continue_from(one, tmp_path / "run", tmp_path)
    run_ranks(2, continue_from, tmp_path / "run", tmp_path)
    run_ranks(3, continue_from, tmp_path / "run", tmp_path)


def test_checkpoints_keep_the_best_and_the_latest_and_name_what_is_missing(tmp_path):
    config = config_of("sasrec", "data_parallel", "adam")
    with world_of_one() as one:
        sharded, step, batches = build(config, one)
        checkpoints = Checkpoints(str(tmp_path), one, keep=2)
        with pytest.raises(InputError, match="has no checkpoint"):
            find_checkpoint(str(tmp_path), "latest", {})
        for number in range(1, 6):
            run_steps(step, batches, number, number + 1)
            checkpoints.save(sharded, Progress(step=number, best_step=2))
        assert sorted(p.name for p in (tmp_path / "checkpoints").glob("step-*")) == [
            "step-00000002",
            "step-00000004",
            "step-00000005",
        ]
        assert not list((tmp_path / "checkpoints").glob(".*"))
        found = [find_checkpoint(str(tmp_path), which, {})[1].step for which in ("best", "latest", "4")]
        assert found == [2, 5, 4]
        for which in ("3", "newest"):
            with pytest.raises(InputError, match=rf"--checkpoint {which}.*\[2, 4, 5\]"):
                find_checkpoint(str(tmp_path), which, {})
        other, _, _ = build(config.model_copy(update={"model": config.model.model_copy(update={"dim": 16})}), one)
        with pytest.raises(InputError, match="shape"):
            checkpoints.load("best", other, {})


def test_sharding_is_chosen_by_size_and_fused_adam_on_cpu_is_refused():
    table = TableConfig()
    assert choose_sharding(table, 4_385, 64) == "data_parallel"
    assert choose_sharding(table, 10_000_000, 64) == "row_wise"
    assert choose_optimizer(table, "row_wise") == "rowwise_adagrad"
    assert choose_optimizer(table, "data_parallel") == "adam"
    with pytest.raises(InputError, match="not for a row_wise table"):
        choose_optimizer(TableConfig(optimizer="adam"), "row_wise")
