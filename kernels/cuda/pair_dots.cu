// Exact ranking of candidates: float64 dot products of pairs of float32 rows, with the same bits on every machine.
//
// Contract. out[p] = left[left_index[p]] . right[right_index[p]] over d columns, added in this order: 32 lanes start
// at +0.0. Lane l adds the products k = l, l + 32, l + 64, ... in ascending k. Then lane[l] += lane[l + 16], then +
// 8, + 4, + 2, + 1. A product of two float32 is exact in float64 (24 + 24 bits), so a fused multiply-add gives the
// same sum. Columns from d on are not added. The same function for CPUs is in kernels/cosine/exact_dots.py.
//
// Why this design. One warp per pair: coalesced 128-byte loads and a tree of shuffles add in exactly this order,
// which does not depend on the number of pairs. 8 columns of both rows are loaded before the first is added.
//
// Speed bound: memory, 8 d bytes per pair, minus the loads that neighbouring pairs share. (The pairs of one row are
// adjacent, so their left row stays in L1.)

// This is not a cast, because CuPy compiles with -ftz=true, which makes a cast turn subnormal float32 into zeros.
__device__ __forceinline__ double widened(float value) {
#ifdef EMULATED
    return value;
#else
    double wide;
    asm("cvt.f64.f32 %0, %1;" : "=d"(wide) : "f"(value));
    return wide;
#endif
}

extern "C" __global__ void __launch_bounds__(256) pair_dots(
    const float* __restrict__ left, const float* __restrict__ right,
    const long long* __restrict__ left_index, const long long* __restrict__ right_index,
    long long num_pairs, int d, double* __restrict__ out) {
    constexpr int AHEAD = 8;
    const int lane = threadIdx.x & 31;
    const long long pair = ((long long)blockIdx.x * blockDim.x + threadIdx.x) >> 5;
    if (pair >= num_pairs) return;
    const float* a = left + left_index[pair] * d;
    const float* b = right + right_index[pair] * d;
    double sum = 0.0;
    int k = lane;
    for (; k + (AHEAD - 1) * 32 < d; k += AHEAD * 32) {
        float x[AHEAD], y[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) {
            x[j] = a[k + j * 32];
            y[j] = b[k + j * 32];
        }
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) sum = __fma_rn(widened(x[j]), widened(y[j]), sum);
    }
    for (; k < d; k += 32) sum = __fma_rn(widened(a[k]), widened(b[k]), sum);
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) sum = __dadd_rn(sum, __shfl_down_sync(0xffffffffu, sum, step));
    if (lane == 0) out[pair] = sum;
}
