// Candidate lists of the cosine top-H: append scores that reach a threshold, raise thresholds, keep the lists short.
//
// Contract. Each of n rows has a list: threshold[i] float32, count[i] int32, ids[i, C] int32 and scores[i, C]
// float32. `scan_tile` appends scores >= threshold, in no particular order. count may exceed C: the list has then
// overflowed. `compact_lists` repairs such a list while the tile exists. If it cannot, it sets overflowed[i] = 1,
// which stays set. `seed_*_thresholds` and `compact_lists` only raise thresholds, and never above (H-th best of the
// row) - margin. The margin is at least 2 * the error of a score. So no item of the true H best is lost unless a list
// overflows. (Subnormal scores count as 0, because CuPy compiles with -ftz=true. They are below 2^-126, far less than
// any margin except 0.) A tile is scores float32 [q, ld], row-major, 16-byte aligned, with ld a multiple of 4 and b
// <= ld columns. Values from column b to ld have no effect. Positions are int32. The pair of a position with itself
// is skipped.
//
// A launch that is recorded in a CUDA graph cannot get new arguments. So `panel`, unless null, points to two numbers
// on the device that may change between replays. The first is added to row_base; the second is the number of row
// lists to skip.
//
// Why this design. A GEMM has just written the tile, which is still in L2, so the time is that of reading the tile
// once. A lane takes 4 columns (one 16-byte load) of 8 rows, with all 8 loads in flight. It makes one test per
// vector: the vector's maximum against the smallest of the row's threshold and the 4 columns' thresholds. Scores that
// pass are rare. A loop reads them again from L1/L2, so the common path holds no code for them. By symmetry, one read
// serves the lists of the rows and of the columns, so only half of all scores are ever computed.
//
// Speed bound: L2 bandwidth, 4 bytes per score (24 MB at 5.5 TB/s: 4.4 us). Arithmetic is about 2 instructions per
// score.

constexpr unsigned FULL = 0xffffffffu;
constexpr int ROWS_PER_WARP = 8;
constexpr int WARPS = 8;
constexpr int MAX_CAPACITY = 1024;
constexpr int COMPACT_WARPS = 4;
constexpr int LISTS_PER_WARP = 4;
constexpr int MAX_SEEDED = 64;  // largest H for which thresholds are seeded from group maxima
constexpr int SEED_GROUPS = 128;  // row groups per column in seed_column_thresholds

__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }
__device__ __forceinline__ float plus_infinity() { return __uint_as_float(0x7f800000u); }

// Unsigned integers in the same order as the floats, so that `select` can find the largest key bit by bit.
__device__ __forceinline__ unsigned ordered(float value) {
    const unsigned bits = __float_as_uint(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float from_ordered(unsigned key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ void append(int* count, int* ids, float* scores, int owner, int capacity, int id, float s) {
    const int place = atomicAdd(&count[owner], 1);
    if (place < capacity) {
        const long long at = (long long)owner * capacity + place;
        ids[at] = id;
        scores[at] = s;
    }
}

// Grid (ceil(b / 128), ceil(q / 64)), block 256. If column_threshold is null, columns have no lists, and the other
// column pointers are unused.
extern "C" __global__ void __launch_bounds__(256, 4) scan_tile(
    const float* __restrict__ tile, int q, int b, long long ld,
    const float* __restrict__ row_threshold, int* row_count, int* row_ids, float* row_scores,
    const float* __restrict__ column_threshold, int* column_count, int* column_ids, float* column_scores,
    int capacity, int row_base, int column_base, const int* __restrict__ panel) {
    const int skipped = panel != nullptr ? panel[1] : 0;
    const int lane = threadIdx.x & 31;
    const int warp = threadIdx.x >> 5;
    const int column = (blockIdx.x * 32 + lane) * 4;
    const int first_row = (blockIdx.y * WARPS + warp) * ROWS_PER_WARP;
    if (column >= b || first_row >= q) return;
    const float* corner = tile + first_row * ld + column;

    float4 part[ROWS_PER_WARP];
    float cut[ROWS_PER_WARP];
#pragma unroll
    for (int i = 0; i < ROWS_PER_WARP; ++i) {
        const bool inside = first_row + i < q;
        const float none = minus_infinity();
        part[i] = inside ? *reinterpret_cast<const float4*>(corner + i * ld) : float4{none, none, none, none};
        cut[i] = inside ? row_threshold[skipped + first_row + i] : plus_infinity();
    }
    float lowest = plus_infinity();
    if (column_threshold != nullptr) {
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (column + j < b) lowest = fminf(lowest, column_threshold[column + j]);
    }
    unsigned hits = 0;
#pragma unroll
    for (int i = 0; i < ROWS_PER_WARP; ++i) {
        const float largest = fmaxf(fmaxf(part[i].x, part[i].y), fmaxf(part[i].z, part[i].w));
        if (largest >= fminf(cut[i], lowest)) hits |= 1u << i;
    }
    if (panel != nullptr) row_base += panel[0];
    // The rest runs rarely. Values in columns >= b may cause a hit, but the loop below leaves them out.
    while (hits != 0) {
        const int row = first_row + __ffs((int)hits) - 1;
        hits &= hits - 1;
        if (row >= q) continue;
        const float threshold = row_threshold[skipped + row];
        for (int c = column; c < min(column + 4, b); ++c) {
            const float s = tile[row * ld + c];
            if (row_base + row == column_base + c) continue;
            if (s >= threshold) append(row_count, row_ids, row_scores, skipped + row, capacity, column_base + c, s);
            if (column_threshold != nullptr && s >= column_threshold[c])
                append(column_count, column_ids, column_scores, c, capacity, row_base + row, s);
        }
    }
}

// The wanted-th largest of the keys that a warp's lanes hold, PER_LANE each: the largest value that at least `wanted`
// keys reach.
template <int PER_LANE>
__device__ __forceinline__ unsigned select(const unsigned (&keys)[PER_LANE], int wanted) {
    unsigned found = 0;
    for (int bit = 31; bit >= 0; --bit) {
        const unsigned attempt = found | 1u << bit;
        int reach = 0;
#pragma unroll
        for (int j = 0; j < PER_LANE; ++j) reach += keys[j] >= attempt;
        if ((int)__reduce_add_sync(FULL, (unsigned)reach) >= wanted) found = attempt;
    }
    return found;
}

// One warp per row. The columns form 256 disjoint groups (by lane, place in the vector, odd or even vector). The H-th
// largest of the groups' maxima is at most the row's H-th best score. Grid ceil(q / 8), block 256. H <= 64.
extern "C" __global__ void __launch_bounds__(256) seed_row_thresholds(
    const float* __restrict__ tile, int q, int b, long long ld, float* threshold, const float* __restrict__ margin,
    int num_neighbors, int row_base, int column_base, const int* __restrict__ panel) {
    if (panel != nullptr) {
        row_base += panel[0];
        threshold += panel[1];
        margin += panel[1];
    }
    const int lane = threadIdx.x & 31;
    const int row = blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (row >= q) return;
    const int diagonal = row_base + row - column_base;
    float largest[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) largest[j] = minus_infinity();
    for (int first = 0; first < b; first += 256) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int column = first + half * 128 + lane * 4;
            if (column >= b) continue;
            const float4 part = *reinterpret_cast<const float4*>(tile + row * ld + column);
            const float values[4] = {part.x, part.y, part.z, part.w};
#pragma unroll
            for (int j = 0; j < 4; ++j)
                if (column + j < b && column + j != diagonal)
                    largest[half * 4 + j] = fmaxf(largest[half * 4 + j], values[j]);
        }
    }
    unsigned keys[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) keys[j] = ordered(largest[j]);
    const float bound = from_ordered(select(keys, num_neighbors));
    if (lane == 0) threshold[row] = fmaxf(threshold[row], __fsub_rd(bound, margin[row]));
}

// The same for columns, with 128 disjoint groups of rows (8 warps, 16 groups each). Grid ceil(b / 32), block 256. H
// <= 64.
extern "C" __global__ void __launch_bounds__(256) seed_column_thresholds(
    const float* __restrict__ tile, int q, int b, long long ld, float* threshold, const float* __restrict__ margin,
    int num_neighbors, int row_base, int column_base) {
    constexpr int PER_THREAD = SEED_GROUPS / WARPS;
    __shared__ unsigned groups[SEED_GROUPS][33];  // 33: the columns of a group fall into different banks
    const int lane = threadIdx.x & 31;
    const int warp = threadIdx.x >> 5;
    const int column = blockIdx.x * 32 + lane;
    const int diagonal = column_base + column - row_base;
    float largest[PER_THREAD];
#pragma unroll
    for (int j = 0; j < PER_THREAD; ++j) largest[j] = minus_infinity();
    for (int first = warp; first < q; first += SEED_GROUPS) {
#pragma unroll
        for (int j = 0; j < PER_THREAD; ++j) {
            const int row = first + j * WARPS;
            if (row < q && column < b && row != diagonal) largest[j] = fmaxf(largest[j], tile[row * ld + column]);
        }
    }
#pragma unroll
    for (int j = 0; j < PER_THREAD; ++j) groups[j * WARPS + warp][lane] = ordered(largest[j]);
    __syncthreads();
    for (int c = warp * 4; c < warp * 4 + 4; ++c) {
        unsigned keys[SEED_GROUPS / 32];
#pragma unroll
        for (int j = 0; j < SEED_GROUPS / 32; ++j) keys[j] = groups[j * 32 + lane][c];
        const float bound = from_ordered(select(keys, num_neighbors));
        const int owner = blockIdx.x * 32 + c;
        if (lane == 0 && owner < b) threshold[owner] = fmaxf(threshold[owner], __fsub_rd(bound, margin[owner]));
    }
}

// The lists of one side of a tile.
struct Lists {
    float* threshold;
    int* count;
    int* ids;
    float* scores;
    const float* margin;
    unsigned char* overflowed;
};

// The scores of a tile that were offered to one list: its row or its column. length 0: there is no tile.
struct Offered {
    const float* first;
    long long step;
    int length, first_id, own_id;
    __device__ bool has(int k) const { return k < length && first_id + k != own_id; }
};

// The threshold that `held` staged keys allow, and at least `cut`.
__device__ __forceinline__ float raised(const unsigned* keys, int held, int num_neighbors, float cut, float margin) {
    if (held < num_neighbors) return cut;
    const int lane = threadIdx.x & 31;
    unsigned found = 0;
    for (int bit = 31; bit >= 0; --bit) {
        const unsigned attempt = found | 1u << bit;
        int reach = 0;
        for (int i = lane; i < held; i += 32) reach += keys[i] >= attempt;
        if ((int)__reduce_add_sync(FULL, (unsigned)reach) >= num_neighbors) found = attempt;
    }
    return fmaxf(cut, __fsub_rd(from_ordered(found), margin));
}

// Repair a staged list that its tile overflowed. The list keeps the entries of earlier tiles and is offered the tile
// again with a higher threshold, until it fits or the threshold does not rise. Returns the number of entries; if that
// exceeds `capacity`, the list cannot be repaired.
__device__ __forceinline__ int offer_again(
    const Offered& offered, unsigned* keys, int* entries, int capacity, int num_neighbors, float margin, float& cut) {
    const int lane = threadIdx.x & 31;
    unsigned groups[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) groups[j] = ordered(minus_infinity());
    for (int begin = lane; begin < offered.length; begin += 256) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const int k = begin + j * 32;
            if (offered.has(k)) groups[j] = max(groups[j], ordered(offered.first[k * offered.step]));
        }
    }
    if (num_neighbors <= MAX_SEEDED) cut = fmaxf(cut, __fsub_rd(from_ordered(select(groups, num_neighbors)), margin));
    int held = capacity;
    for (;;) {
        int total = 0;
        for (int begin = 0; begin < held; begin += 32) {
            const int i = begin + lane;
            const unsigned key = i < held ? keys[i] : 0;
            const int id = i < held ? entries[i] : 0;
            const bool of_tile = id >= offered.first_id && id < offered.first_id + offered.length;
            const bool keep = i < held && !of_tile && from_ordered(key) >= cut;
            const unsigned keepers = __ballot_sync(FULL, keep);
            const int place = total + __popc(keepers & ((1u << lane) - 1));  // <= i, which all lanes have read
            if (keep) {
                keys[place] = key;
                entries[place] = id;
            }
            total += __popc(keepers);
        }
        for (int begin = 0; begin < offered.length; begin += 32) {
            const int k = begin + lane;
            const float s = offered.has(k) ? offered.first[k * offered.step] : 0.0f;
            const unsigned takers = __ballot_sync(FULL, offered.has(k) && s >= cut);
            const int place = total + __popc(takers & ((1u << lane) - 1));
            if (takers >> lane & 1 && place < capacity) {
                keys[place] = ordered(s);
                entries[place] = offered.first_id + k;
            }
            total += __popc(takers);
        }
        __syncwarp();
        if (total <= capacity) return total;
        held = capacity;
        const float higher = raised(keys, held, num_neighbors, cut, margin);
        if (!(higher > cut)) return total;
        cut = higher;
        __syncwarp();
    }
}

// Raise a list's threshold to (H-th best of the list) - margin, and drop the entries below it, in place.
__device__ __forceinline__ void shorten(
    const Lists& lists, int owner, int total, const Offered& offered, int capacity, int num_neighbors,
    unsigned* keys, int* entries) {
    const int lane = threadIdx.x & 31;
    const long long start = (long long)owner * capacity;
    const float margin = lists.margin[owner];
    float cut = lists.threshold[owner];
    int held = min(total, capacity);
    for (int i = lane; i < held; i += 32) {
        keys[i] = ordered(lists.scores[start + i]);
        entries[i] = lists.ids[start + i];
    }
    __syncwarp();
    cut = raised(keys, held, num_neighbors, cut, margin);
    if (total > capacity && offered.length > 0) {
        total = offer_again(offered, keys, entries, capacity, num_neighbors, margin, cut);
        held = min(total, capacity);
        cut = raised(keys, held, num_neighbors, cut, margin);
    }
    int kept = 0;
    for (int begin = 0; begin < held; begin += 32) {
        const int i = begin + lane;
        const float s = i < held ? from_ordered(keys[i]) : 0.0f;
        const bool keep = i < held && s >= cut;
        const unsigned keepers = __ballot_sync(FULL, keep);
        if (keep) {
            const long long at = start + kept + __popc(keepers & ((1u << lane) - 1));
            lists.ids[at] = entries[i];
            lists.scores[at] = s;
        }
        kept += __popc(keepers);
    }
    if (lane == 0) {
        lists.threshold[owner] = cut;
        lists.count[owner] = kept;
        if (total > capacity) lists.overflowed[owner] = 1;
    }
    __syncwarp();  // the staged entries are free for the next list
}

// Runs after `scan_tile`, on the same arguments. Shortens those of the q + b lists that hold at least `trigger`
// entries. A list that overflowed is offered its part of the tile again, so that it stays overflowed only if more
// than C entries reach the threshold. Without a tile (null, b = 0) the kernel only shortens q lists, and marks lists
// that overflowed. One warp handles 4 lists, because most lists need no work. Grid ceil((q + b) / 16), block 128. C
// <= 1024.
extern "C" __global__ void __launch_bounds__(128) compact_lists(
    const float* __restrict__ tile, int q, int b, long long ld,
    float* row_threshold, int* row_count, int* row_ids, float* row_scores, const float* row_margin,
    unsigned char* row_overflowed,
    float* column_threshold, int* column_count, int* column_ids, float* column_scores, const float* column_margin,
    unsigned char* column_overflowed, int capacity, int num_neighbors, int trigger, int row_base, int column_base,
    const int* __restrict__ panel) {
    __shared__ unsigned staged_keys[COMPACT_WARPS][MAX_CAPACITY];
    __shared__ int staged_ids[COMPACT_WARPS][MAX_CAPACITY];
    const int lane = threadIdx.x & 31;
    const int warp = threadIdx.x >> 5;
    const int first = (blockIdx.x * COMPACT_WARPS + warp) * LISTS_PER_WARP;
    const int num_columns = column_threshold != nullptr ? b : 0;
    const int skipped = panel != nullptr ? panel[1] : 0;
    if (panel != nullptr) row_base += panel[0];
    int total = 0;
    if (lane < LISTS_PER_WARP && first + lane < q + num_columns)
        total = first + lane < q ? row_count[skipped + first + lane] : column_count[first + lane - q];
    unsigned waiting = __ballot_sync(FULL, total > 0 && total >= trigger);
    while (waiting != 0) {
        const int next = __ffs((int)waiting) - 1;
        waiting &= waiting - 1;
        const int count = __shfl_sync(FULL, total, next);
        const bool is_row = first + next < q;
        const int owner = is_row ? first + next : first + next - q;
        const int length = tile == nullptr ? 0 : is_row ? b : q;
        // The pointers are chosen one by one, because choosing between two structs would put both into local memory.
        const Lists lists{
            is_row ? row_threshold : column_threshold, is_row ? row_count : column_count, is_row ? row_ids : column_ids,
            is_row ? row_scores : column_scores, is_row ? row_margin : column_margin,
            is_row ? row_overflowed : column_overflowed};
        const Offered offered{
            tile + (is_row ? owner * ld : owner), is_row ? 1 : ld, length, is_row ? column_base : row_base,
            (is_row ? row_base : column_base) + owner};
        const int place = is_row ? skipped + owner : owner;
        shorten(lists, place, count, offered, capacity, num_neighbors, staged_keys[warp], staged_ids[warp]);
    }
}
