// The inner loop of a cosine search whose scores never leave registers. It is the next step of the search on a GPU and
// is not used by it yet: today cuBLAS writes scores to L2 and kernels/cuda/threshold_scan.cu reads them back.
//
// Contract. `units` is float16 [n, ld], ld a multiple of 8, 16-byte aligned. tiles[t] is the first row and the first
// column of tile t, of 128 x 256 scores. Every pair row < column of a tile is scored: the dot product of the two rows
// in float32. A score that reaches threshold[row] is appended to the list of the row, one that reaches
// threshold[column] to the list of the column (the lists of threshold_scan.cu, with scores times the squared length of
// the unit rows). Thresholds are read once per tile, and an older threshold only adds entries. A tile with more than
// MAX_SURVIVORS pairs that reach a threshold changes no list and gets repeat[t] = 1. It is to be computed again after
// the lists have been compacted and their thresholds have risen.
//
// Why this design. Writing and reading a score in L2 takes 8 bytes, which at 1M x 384 alone takes longer than the
// product may. Here the accumulators of the tensor cores are compared where they are. 8 warps compute 64 x 64 scores
// each by mma.sync m16n8k16 (sm_80 and later): 128 accumulators a thread. The loads of rows run STAGES - 1 steps ahead
// and do not stop between tiles, so the comparison of a tile overlaps the loads of the next. A block runs for as long
// as there are tiles. Chunks of 16 bytes are swizzled, so that neither stores to nor loads from shared memory meet in a
// bank.
//
// Bounds per tile at ld = 384, with 512 multiply-adds a cycle and multiprocessor (mma.sync on sm_90 reaches about 0.65
// of 1,024): 24,600 cycles of products; 128 comparisons of 2 to 3 instructions in 8 warps on 4 schedulers: about 700
// cycles.

constexpr int ROWS = 128, COLUMNS = 256, DEPTH = 64, STAGES = 3;
constexpr int THREADS = 256;
constexpr int CHUNKS = DEPTH / 8;  // of 16 bytes, in a row of a stage
constexpr int STAGE_HALVES = (ROWS + COLUMNS) * DEPTH;
constexpr int MAX_SURVIVORS = 1024;

struct Survivor {
    unsigned place;  // row of the tile * COLUMNS + column of the tile
    float score;
};

struct Shared {
    unsigned short stages[STAGES][STAGE_HALVES];
    float row_line[ROWS], column_line[COLUMNS];
    Survivor survivors[MAX_SURVIVORS];
    int num_survivors;
};

constexpr int SHARED_BYTES = 157188;
static_assert(sizeof(Shared) == SHARED_BYTES);

#ifdef EMULATED
// Slow twins of the instructions, by their definition in the PTX manual.
constexpr unsigned FULL = 0xffffffffu;

// A copy has no defined content until it is waited for, so it is NaN until then.
struct Copy {
    unsigned short* to;
    unsigned short values[8];
};
inline std::vector<std::vector<Copy>> in_flight[THREADS];  // of each thread: groups, the open one last

inline void copy_async(unsigned short* to, const unsigned short* from, bool inside) {
    auto& groups = in_flight[threadIdx.x];
    if (groups.empty()) groups.emplace_back();
    Copy copy{to, {}};
    if (inside) memcpy(copy.values, from, 16);
    groups.back().push_back(copy);
    for (int j = 0; j < 8; ++j) to[j] = 0x7fff;
}

inline void commit() { in_flight[threadIdx.x].emplace_back(); }

template <int PENDING>
inline void wait_for_copies() {
    auto& groups = in_flight[threadIdx.x];
    while (groups.size() > PENDING + 1) {
        for (const Copy& copy : groups.front()) memcpy(copy.to, copy.values, 16);
        groups.erase(groups.begin());
    }
}

inline void load_matrices(unsigned (&out)[4], const unsigned short* row) {
    const int lane = threadIdx.x & 31;
    for (int i = 0; i < 4; ++i) {
        const unsigned short* from = __shfl_sync(FULL, row, i * 8 + lane / 4);
        memcpy(&out[i], from + lane % 4 * 2, 4);
    }
}

inline void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    const int lane = threadIdx.x & 31, group = lane / 4, pair = lane % 4;
    const unsigned b[2] = {b0, b1};
    for (int k = 0; k < 16; ++k) {
        const int holder = k % 8 / 2, half = k / 8, shift = k % 2 * 16;
        float left[2], right[2];
        for (int i = 0; i < 2; ++i) {
            const unsigned bits = __shfl_sync(FULL, a[half * 2 + i], group * 4 + holder);
            left[i] = emulated_half_to_float((unsigned short)(bits >> shift));
        }
        for (int j = 0; j < 2; ++j) {
            const unsigned bits = __shfl_sync(FULL, b[half], (pair * 2 + j) * 4 + holder);
            right[j] = emulated_half_to_float((unsigned short)(bits >> shift));
        }
        for (int i = 0; i < 2; ++i)
            for (int j = 0; j < 2; ++j) sum[i * 2 + j] += left[i] * right[j];
    }
}
#else
__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return (unsigned)__cvta_generic_to_shared(pointer);
}

__device__ __forceinline__ void copy_async(unsigned short* to, const unsigned short* from, bool inside) {
    const int bytes = inside ? 16 : 0;  // the rest of the 16 bytes is filled with zeros
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes));
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;"); }

template <int PENDING>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

__device__ __forceinline__ void load_matrices(unsigned (&out)[4], const unsigned short* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row)));
}

__device__ __forceinline__ void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

// Where chunk `chunk` of row `row` of a stage is. Rows 0 to 127 are rows of the tile, the others its columns.
__device__ __forceinline__ int swizzled(int row, int chunk) { return row * DEPTH + (chunk ^ (row & 7)) * 8; }

__device__ __forceinline__ void append(
    int* count, int* ids, float* scores, int owner, int capacity, int id, float score) {
    const int place = atomicAdd(&count[owner], 1);
    if (place < capacity) {
        ids[(long long)owner * capacity + place] = id;
        scores[(long long)owner * capacity + place] = score;
    }
}

// Grid: one block per multiprocessor. Block 256. Dynamic shared memory: SHARED_BYTES.
extern "C" __global__ void __launch_bounds__(256, 1) fused_scores(
    const unsigned short* __restrict__ units, int n, int ld, const int* __restrict__ tiles, int num_tiles,
    const float* threshold, int* count, int* ids, float* scores, int capacity, unsigned char* repeat) {
#ifdef EMULATED
    static Shared shared;
#else
    extern __shared__ __align__(128) unsigned char bytes[];
    Shared& shared = *reinterpret_cast<Shared*>(bytes);
#endif
    const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
    const int own_row = warp / 4 * 64, own_column = warp % 4 * 64;
    // Copies of the next step: 12 chunks a thread, of rows 32 apart and so with the same place in their swizzle.
    const int copied_row = thread / CHUNKS, copied_chunk = thread % CHUNKS;
    int ahead_tile = blockIdx.x, ahead_depth = 0, ahead_stage = 0;
    auto load = [&]() {
        if (ahead_tile < num_tiles) {
            unsigned short* to = shared.stages[ahead_stage] + swizzled(copied_row, copied_chunk);
            const int depth = ahead_depth + copied_chunk * 8;
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                int item = tiles[ahead_tile * 2 + side] + copied_row;
                const unsigned short* from = units + (long long)item * ld + depth;
#pragma unroll 2
                for (int i = 0; i < (side == 0 ? ROWS : COLUMNS) * CHUNKS / THREADS; ++i) {
                    const bool inside = item < n && depth < ld;
                    copy_async(to, inside ? from : units, inside);
                    item += THREADS / CHUNKS;
                    from += (long long)(THREADS / CHUNKS) * ld;
                    to += THREADS / CHUNKS * DEPTH;
                }
            }
            ahead_stage = ahead_stage + 1 == STAGES ? 0 : ahead_stage + 1;
            ahead_depth += DEPTH;
            if (ahead_depth >= ld) {
                ahead_depth = 0;
                ahead_tile += gridDim.x;
            }
        }
        commit();
    };

#pragma unroll
    for (int step = 0; step < STAGES - 1; ++step) load();
    float sum[4][8][4];
    int depth = 0, current_stage = 0;
    for (int tile = blockIdx.x; tile < num_tiles;) {
        const int first_row = tiles[tile * 2], first_column = tiles[tile * 2 + 1];
        wait_for_copies<STAGES - 2>();
        __syncthreads();  // this step's rows are there, and all warps have read those of the step before
        load();
        if (depth == 0) {
            for (int i = thread; i < ROWS + COLUMNS; i += THREADS) {
                const int item = i < ROWS ? first_row + i : first_column + i - ROWS;
                const float line = item < n ? threshold[item] : __uint_as_float(0x7f800000u);
                (i < ROWS ? shared.row_line[i] : shared.column_line[i - ROWS]) = line;
            }
            if (thread == 0) shared.num_survivors = 0;
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 8; ++j)
#pragma unroll
                    for (int c = 0; c < 4; ++c) sum[i][j][c] = 0.0f;
        }
        const unsigned short* stage = shared.stages[current_stage];
#pragma unroll 4
        for (int k = 0; k < DEPTH / 16; ++k) {
            unsigned left[4][4], right[2][4];
            auto load_right = [&](int j) {
                const int column = own_column + j * 16 + lane % 8 + lane / 16 * 8;
                load_matrices(right[j % 2], stage + swizzled(ROWS + column, k * 2 + lane / 8 % 2));
            };
            load_right(0);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                load_matrices(left[i], stage + swizzled(own_row + i * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (j < 3) load_right(j + 1);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    multiply(sum[i][j * 2], left[i], right[j % 2][0], right[j % 2][1]);
                    multiply(sum[i][j * 2 + 1], left[i], right[j % 2][2], right[j % 2][3]);
                }
            }
        }
        const int consumed = current_stage;
        current_stage = current_stage + 1 == STAGES ? 0 : current_stage + 1;
        depth += DEPTH;
        if (depth < ld) continue;
        depth = 0;

        __syncthreads();  // the lines are there, also if a tile has only one step; no warp reads this stage any more
        float* scratch = reinterpret_cast<float*>(shared.stages[consumed]) + warp * 512 + lane;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = own_row + i * 16 + half * 8 + lane / 4;
                const float row_line = shared.row_line[row];
                bool any = false;
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    const float2 lines =
                        *reinterpret_cast<const float2*>(&shared.column_line[own_column + j * 8 + lane % 4 * 2]);
                    any |= sum[i][j][half * 2] >= fminf(row_line, lines.x);
                    any |= sum[i][j][half * 2 + 1] >= fminf(row_line, lines.y);
                }
                if (!any) continue;
                // The rest runs rarely. Registers cannot be indexed, so a loop reads the scores from shared memory.
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    scratch[j * 64] = sum[i][j][half * 2];
                    scratch[j * 64 + 32] = sum[i][j][half * 2 + 1];
                }
#pragma unroll 1
                for (int k = 0; k < 16; ++k) {
                    const int column = own_column + k / 2 * 8 + lane % 4 * 2 + k % 2;
                    const float score = scratch[k * 32];
                    if (score >= fminf(row_line, shared.column_line[column]) &&
                        first_row + row < first_column + column && first_column + column < n) {
                        const int place = atomicAdd(&shared.num_survivors, 1);
                        if (place < MAX_SURVIVORS)
                            shared.survivors[place] = Survivor{(unsigned)(row * COLUMNS + column), score};
                    }
                }
            }
        }
        __syncthreads();
        const int found = shared.num_survivors;
        if (found > MAX_SURVIVORS && thread == 0) repeat[tile] = 1;
        for (int k = found > MAX_SURVIVORS ? found : thread; k < found; k += THREADS) {
            const int row = shared.survivors[k].place / COLUMNS, column = shared.survivors[k].place % COLUMNS;
            const float score = shared.survivors[k].score;
            const int row_item = first_row + row, column_item = first_column + column;
            if (score >= shared.row_line[row]) append(count, ids, scores, row_item, capacity, column_item, score);
            if (score >= shared.column_line[column])
                append(count, ids, scores, column_item, capacity, row_item, score);
        }
        tile += gridDim.x;
    }
}
