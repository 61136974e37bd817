"""The Triton kernels of the fused softmax loss: what runs on the GPU, block by block.

Logits exist only as tiles in registers. Every sum is added up in one fixed order by one program, so results do not
change from run to run. Only this module imports Triton; `sampled_softmax.py` launches the kernels.

A vector of width d is read in two parts whose sizes are powers of two, HEAD and TAIL (TAIL = 0: one part), because
Triton's tiles have such sizes: 300 = 256 + 44 is padded to 256 + 64, not to 512. Padding is zeros.

A *mark* is two bits for a pair of row and column. Bit 0: the column's item is a target of the same sequence, so that
its weight is 1. Bit 1: the row has seen the column's item, so that the gain is added.

Numbers that change from step to step are in `do_not_specialize`: otherwise Triton would compile each kernel again for
numbers that are 1 or multiples of 16.

Shapes: B rows, C columns, S splits of the columns or of the rows, d width, W words of marks for each row.
"""

import triton
import triton.language as tl

COLUMNS_OF_A_WORD = tl.constexpr(16)  # two bits for each column in 32


@triton.jit(do_not_specialize=["num_entries", "row_entries", "row_words"])
def mark_pairs(
    marks: tl.tensor, columns: tl.tensor, num_entries: tl.tensor, row_entries: tl.tensor, row_words: tl.tensor,
    BIT: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Set a bit of the marks int32 [B, W] for each of the columns int32 [B, E]; negative columns are skipped."""
    entries = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.load(columns + entries, mask=entries < num_entries, other=-1)
    words = marks + (entries // row_entries) * row_words + column // COLUMNS_OF_A_WORD
    # The order in which bits are set changes nothing, so atomics are deterministic here.
    tl.atomic_or(words, BIT << (2 * (column % COLUMNS_OF_A_WORD)), mask=column >= 0)


@triton.jit
def tile_of(vectors: tl.tensor, rows: tl.tensor, num_rows: tl.tensor,
            FIRST: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr) -> tl.tensor:  # fmt: skip
    """Return components FIRST to FIRST + SIZE of some rows of `vectors`; zero outside of them."""
    places = FIRST + tl.arange(0, SIZE)
    inside = (rows < num_rows)[:, None] & (places < WIDTH)[None, :]
    return tl.load(vectors + rows.to(tl.int64)[:, None] * WIDTH + places[None, :], mask=inside, other=0.0)


@triton.jit
def store_tile(vectors: tl.tensor, tile: tl.tensor, rows: tl.tensor, num_rows: tl.tensor,
               FIRST: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr) -> None:  # fmt: skip
    """Write components FIRST to FIRST + SIZE of some rows of `vectors`."""
    places = FIRST + tl.arange(0, SIZE)
    inside = (rows < num_rows)[:, None] & (places < WIDTH)[None, :]
    tl.store(vectors + rows.to(tl.int64)[:, None] * WIDTH + places[None, :], tile, mask=inside)


@triton.jit
def marks_of(marks: tl.tensor, rows: tl.tensor, columns: tl.tensor, num_rows: tl.tensor, num_columns: tl.tensor,
             row_words: tl.tensor) -> tl.tensor:  # fmt: skip
    """Return the marks of a tile in their two lowest bits. One of `rows` and `columns` is [n, 1], the other [1, m]."""
    words = marks + rows.to(tl.int64) * row_words + columns // COLUMNS_OF_A_WORD
    return tl.load(words, mask=(rows < num_rows) & (columns < num_columns), other=0) >> (
        2 * (columns % COLUMNS_OF_A_WORD)
    )


@triton.jit
def logits_of(scores: tl.tensor, found: tl.tensor, weights: tl.tensor, gain: tl.tensor, is_own: tl.tensor,
              MARKED: tl.constexpr) -> tl.tensor:  # fmt: skip
    """Return a tile's logits from its scores and marks: -inf in a row's own column, whose target counts elsewhere."""
    if MARKED:
        scores += tl.where((found & 1) != 0, 0.0, weights) + tl.where((found & 2) != 0, gain, 0.0)
    else:
        scores += weights
    return tl.where(is_own, -float("inf"), scores)


@triton.jit(do_not_specialize=["num_rows", "num_columns", "row_words", "split_columns"])
def sum_over_columns(
    users: tl.tensor, columns: tl.tensor, log_weights: tl.tensor, own: tl.tensor, marks: tl.tensor, gain_of: tl.tensor,
    log_sums: tl.tensor, means: tl.tensor, seen_shares: tl.tensor,
    num_rows: tl.tensor, num_columns: tl.tensor, row_words: tl.tensor, split_columns: tl.tensor,
    WIDTH: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, MARKED: tl.constexpr, GAINED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    """Sum exp(logit) over the columns of a split, and average their vectors and marks with these weights.

    This is FlashAttention's forward pass with the columns as keys and values: one pass over the columns keeps the
    largest logit so far, and rescales the sums whenever it grows.

    Args:
        users, columns: [B, d] and [C, d], float32 or bfloat16.
        log_weights: float32 [C].
        own: int32 [B], the column of each row's target, which is left out; -1: none.
        marks: int32 [B, W], read if MARKED.
        gain_of: float32 scalar, read if GAINED.
        log_sums: float32 [S, B], written: log of the sum, -inf if there is nothing to sum.
        means: float32 [S, B, d], written: mean of the columns' vectors with weights exp(logit).
        seen_shares: float32 [S, B], written if GAINED: the share of the sum that columns with bit 1 have.
        num_rows, num_columns, row_words, split_columns: B, C, W and the number of columns of a split.
    """
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    split = tl.program_id(1)
    own_column = tl.load(own + rows, mask=rows < num_rows, other=-1)[:, None]
    user_head = tile_of(users, rows, num_rows, 0, HEAD, WIDTH)
    user_tail = tile_of(users, rows, num_rows, HEAD, TAIL, WIDTH) if TAIL else user_head
    gain = tl.load(gain_of) if GAINED else 0.0
    largest = tl.full([BLOCK_ROWS], -float("inf"), tl.float32)
    base = tl.zeros([BLOCK_ROWS], tl.float32)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    seen_total = tl.zeros([BLOCK_ROWS], tl.float32)
    mean_head = tl.zeros([BLOCK_ROWS, HEAD], tl.float32)
    mean_tail = tl.zeros([BLOCK_ROWS, TAIL if TAIL else 16], tl.float32)
    first = split * split_columns
    for start in range(first, tl.minimum(first + split_columns, num_columns), BLOCK_COLUMNS):
        places = start + tl.arange(0, BLOCK_COLUMNS)
        column_head = tile_of(columns, places, num_columns, 0, HEAD, WIDTH)
        scores = tl.dot(user_head, tl.trans(column_head), input_precision=PRECISION)
        if TAIL:
            column_tail = tile_of(columns, places, num_columns, HEAD, TAIL, WIDTH)
            scores = tl.dot(user_tail, tl.trans(column_tail), acc=scores, input_precision=PRECISION)
        weights = tl.load(log_weights + places, mask=places < num_columns, other=-float("inf"))[None, :]
        found = marks_of(marks, rows[:, None], places[None, :], num_rows, num_columns, row_words) if MARKED else 0
        logits = logits_of(scores, found, weights, gain, places[None, :] == own_column, MARKED)
        new_largest = tl.maximum(largest, tl.max(logits, axis=1))
        base = tl.where(new_largest == -float("inf"), 0.0, new_largest)  # -inf - -inf would be NaN
        shrink = tl.exp(largest - base)
        terms = tl.exp(logits - base[:, None])
        total = total * shrink + tl.sum(terms, axis=1)
        if GAINED:
            seen_total = seen_total * shrink + tl.sum(tl.where((found & 2) != 0, terms, 0.0), axis=1)
        factors = terms.to(column_head.dtype)
        mean_head = tl.dot(factors, column_head, acc=mean_head * shrink[:, None], input_precision=PRECISION)
        if TAIL:
            mean_tail = tl.dot(factors, column_tail, acc=mean_tail * shrink[:, None], input_precision=PRECISION)
        largest = new_largest
    inside = rows < num_rows
    places = split.to(tl.int64) * num_rows + rows
    divisor = tl.where(total == 0.0, 1.0, total)
    tl.store(log_sums + places, base + tl.log(total), mask=inside)
    if GAINED:
        tl.store(seen_shares + places, seen_total / divisor, mask=inside)
    means += split.to(tl.int64) * num_rows * WIDTH
    store_tile(means, mean_head / divisor[:, None], rows, num_rows, 0, HEAD, WIDTH)
    if TAIL:
        store_tile(means, mean_tail / divisor[:, None], rows, num_rows, HEAD, TAIL, WIDTH)


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def add_targets(
    users: tl.tensor, targets: tl.tensor, log_sums: tl.tensor, means: tl.tensor, seen_shares: tl.tensor,
    gain_of: tl.tensor, seen_targets: tl.tensor,
    losses: tl.tensor, others: tl.tensor, totals: tl.tensor, user_grads: tl.tensor, gain_grads: tl.tensor,
    num_rows: tl.tensor, num_splits: tl.tensor,
    WIDTH: tl.constexpr, SIZE: tl.constexpr, GAINED: tl.constexpr, BLOCK_ROWS: tl.constexpr,
) -> None:  # fmt: skip
    """Join the splits of `sum_over_columns`, add each row's target, and write the row's loss and its gradients.

    With s the score of the target, x = log(sum over the other columns) - s and p = sigmoid(x) the probability of all
    other columns together, the loss is log(1 + e^x), its gradient by s is -p, and by the user's vector it is
    p * (mean of the columns' vectors - the target's vector). Nothing is subtracted that could cancel.

    Args:
        users, targets: [B, d], float32 or bfloat16.
        log_sums, means, seen_shares: as `sum_over_columns` wrote them; the last is read if GAINED.
        gain_of, seen_targets: the gain, and float32 [B], 1 for rows that have seen their target; read if GAINED.
        losses: float32 [B], written.
        others: float32 [B], written: p.
        totals: float32 [B], written: log of the sum over the other columns and the target.
        user_grads: float32 [B, d], written.
        gain_grads: float32 [B], written if GAINED: the loss's gradient by the gain.
        num_rows, num_splits: B and S.
    """
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inside = rows < num_rows
    target = tile_of(targets, rows, num_rows, 0, SIZE, WIDTH).to(tl.float32)
    score = tl.sum(tile_of(users, rows, num_rows, 0, SIZE, WIDTH).to(tl.float32) * target, axis=1)
    if GAINED:
        seen_target = tl.load(seen_targets + rows, mask=inside, other=0.0)
        score += tl.load(gain_of) * seen_target
    all_rows = tl.cast(num_rows, tl.int64)  # S * B * d may be beyond 2^31
    largest = tl.full([BLOCK_ROWS], -float("inf"), tl.float32)
    for split in range(num_splits):
        largest = tl.maximum(largest, tl.load(log_sums + split * all_rows + rows, mask=inside, other=0.0))
    base = tl.where(largest == -float("inf"), 0.0, largest)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    seen_total = tl.zeros([BLOCK_ROWS], tl.float32)
    mean = tl.zeros([BLOCK_ROWS, SIZE], tl.float32)
    for split in range(num_splits):
        place = split * all_rows
        term = tl.exp(tl.load(log_sums + place + rows, mask=inside, other=0.0) - base)
        total += term
        mean += term[:, None] * tile_of(means + place * WIDTH, rows, num_rows, 0, SIZE, WIDTH)
        if GAINED:
            seen_total += term * tl.load(seen_shares + place + rows, mask=inside, other=0.0)
    divisor = tl.where(total == 0.0, 1.0, total)
    x = base + tl.log(total) - score
    # A score that is not finite must not go unnoticed: inf - inf makes the loss NaN.
    loss = tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x))) + (score - score)
    other = tl.where(total == 0.0, 0.0, 1.0 / (1.0 + tl.exp(-x)))
    tl.store(losses + rows, loss, mask=inside)
    tl.store(others + rows, other, mask=inside)
    tl.store(totals + rows, score + loss, mask=inside)
    store_tile(user_grads, other[:, None] * (mean / divisor[:, None] - target), rows, num_rows, 0, SIZE, WIDTH)
    if GAINED:
        tl.store(gain_grads + rows, other * (seen_total / divisor - seen_target), mask=inside)


@triton.jit(do_not_specialize=["num_rows", "num_columns", "row_words", "split_rows"])
def sum_over_rows(
    users: tl.tensor, columns: tl.tensor, log_weights: tl.tensor, own: tl.tensor, marks: tl.tensor, gain_of: tl.tensor,
    totals: tl.tensor, scale_of: tl.tensor, column_grads: tl.tensor,
    num_rows: tl.tensor, num_columns: tl.tensor, row_words: tl.tensor, split_rows: tl.tensor,
    WIDTH: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, MARKED: tl.constexpr, GAINED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    """Compute the logits again, and add up what each column's vector gets from the rows of a split.

    Args:
        users, columns, log_weights, own, marks, gain_of: as in `sum_over_columns`.
        totals: float32 [B], from `add_targets`.
        scale_of: float32 scalar by which the gradient is multiplied.
        column_grads: float32 [S, C, d], written: scale * sum over rows of probability * user's vector.
        num_rows, num_columns, row_words, split_rows: B, C, W and the number of rows of a split.
    """
    places = tl.program_id(0) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    split = tl.program_id(1)
    weights = tl.load(log_weights + places, mask=places < num_columns, other=-float("inf"))[:, None]
    column_head = tile_of(columns, places, num_columns, 0, HEAD, WIDTH)
    column_tail = tile_of(columns, places, num_columns, HEAD, TAIL, WIDTH) if TAIL else column_head
    gain = tl.load(gain_of) if GAINED else 0.0
    grad_head = tl.zeros([BLOCK_COLUMNS, HEAD], tl.float32)
    grad_tail = tl.zeros([BLOCK_COLUMNS, TAIL if TAIL else 16], tl.float32)
    first = split * split_rows
    for start in range(first, tl.minimum(first + split_rows, num_rows), BLOCK_ROWS):
        rows = start + tl.arange(0, BLOCK_ROWS)
        inside = rows < num_rows
        user_head = tile_of(users, rows, num_rows, 0, HEAD, WIDTH)
        scores = tl.dot(column_head, tl.trans(user_head), input_precision=PRECISION)
        if TAIL:
            user_tail = tile_of(users, rows, num_rows, HEAD, TAIL, WIDTH)
            scores = tl.dot(column_tail, tl.trans(user_tail), acc=scores, input_precision=PRECISION)
        found = marks_of(marks, rows[None, :], places[:, None], num_rows, num_columns, row_words) if MARKED else 0
        own_column = tl.load(own + rows, mask=inside, other=-1)[None, :]
        logits = logits_of(scores, found, weights, gain, places[:, None] == own_column, MARKED)
        total = tl.load(totals + rows, mask=inside, other=float("inf"))[None, :]
        probabilities = tl.exp(logits - total).to(user_head.dtype)
        grad_head = tl.dot(probabilities, user_head, acc=grad_head, input_precision=PRECISION)
        if TAIL:
            grad_tail = tl.dot(probabilities, user_tail, acc=grad_tail, input_precision=PRECISION)
    scale = tl.load(scale_of)
    column_grads += split.to(tl.int64) * num_columns * WIDTH
    store_tile(column_grads, grad_head * scale, places, num_columns, 0, HEAD, WIDTH)
    if TAIL:
        store_tile(column_grads, grad_tail * scale, places, num_columns, HEAD, TAIL, WIDTH)
