// Injection of co-occurrence into features (MDSRec Eq. 3): mu * O E + E of a block of rows, fused into one kernel.
//
// Contract. out[r] = float32(mu * sum_e weights[e] * E[columns[e]] + own[r]), with e from indptr[r] to indptr[r + 1]
// in stored order. Every column of the result is one sequential float64 sum that starts at +0.0, so the bytes equal
// those of kernels/spmm.py on the CPU. weight * value is exact in float64 (24 + 24 bits), so a fused multiply-add
// gives the same sum. In mu * sum + own a fused multiply-add would change the result; hence __dmul_rn and __dadd_rn.
// E and own are both float16 or both float32, row-major, d columns.
//
// Why this design. One warp owns 32 * (16 bytes) of one output row. All its lanes process the same entries (columns
// and weights are broadcast loads) and gather 512 contiguous bytes per entry. 4 entries are loaded before the first
// is added. There are no atomics and no partial sums, so the order of additions is fixed. Rows that are not 16-byte
// aligned (d not a multiple of 8 or 4) are read value by value.
//
// Speed bound: memory, nnz * d * sizeof(E) bytes; rows of popular items stay in L2.

__device__ __forceinline__ float from_half(unsigned short bits) {
#ifdef EMULATED
    return emulated_half_to_float(bits);
#else
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#endif
}

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(unsigned short value) { return from_half(value); }

// These are not casts, because CuPy compiles with -ftz=true, which makes a cast turn subnormal float32 into zeros.
__device__ __forceinline__ double widened(float value) {
#ifdef EMULATED
    return value;
#else
    double wide;
    asm("cvt.f64.f32 %0, %1;" : "=d"(wide) : "f"(value));
    return wide;
#endif
}

__device__ __forceinline__ float narrowed(double value) {
#ifdef EMULATED
    return (float)value;
#else
    float narrow;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(narrow) : "d"(value));
    return narrow;
#endif
}

template <typename Value>
struct alignas(16) Vector {
    static constexpr int SIZE = 16 / sizeof(Value);
    Value values[SIZE];
};

template <typename Value>
__device__ __forceinline__ Vector<Value> load(const Value* from, int valid, bool aligned) {
    constexpr int SIZE = Vector<Value>::SIZE;
    Vector<Value> result;
    if (aligned) {
        const uint4 words = *reinterpret_cast<const uint4*>(from);
        memcpy(&result, &words, 16);
    } else {
#pragma unroll
        for (int j = 0; j < SIZE; ++j) result.values[j] = j < valid ? from[j] : Value(0);
    }
    return result;
}

template <typename Value>
__device__ __forceinline__ void accumulate(
    double (&sum)[Vector<Value>::SIZE], const Vector<Value>& part, float weight) {
#pragma unroll
    for (int j = 0; j < Vector<Value>::SIZE; ++j)
        sum[j] = __fma_rn(widened(weight), widened(to_float(part.values[j])), sum[j]);
}

template <typename Value>
__device__ __forceinline__ void injected(
    const long long* indptr, const long long* columns, const float* weights, const Value* features, const Value* own,
    long long num_rows, int d, double mu, int aligned, float* out) {
    constexpr int SIZE = Vector<Value>::SIZE;
    constexpr int AHEAD = 4;
    const int chunks = (d + 32 * SIZE - 1) / (32 * SIZE);
    const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) >> 5;
    const long long row = warp / chunks;
    const int column = (int)(warp % chunks) * 32 * SIZE + (threadIdx.x & 31) * SIZE;
    if (row >= num_rows || column >= d) return;
    const int valid = d - column;
    double sum[SIZE];
#pragma unroll
    for (int j = 0; j < SIZE; ++j) sum[j] = 0.0;
    long long entry = indptr[row];
    const long long end = indptr[row + 1];
    for (; entry + AHEAD <= end; entry += AHEAD) {
        Vector<Value> part[AHEAD];
        float weight[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            part[i] = load(features + columns[entry + i] * d + column, valid, aligned);
            weight[i] = weights[entry + i];
        }
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) accumulate(sum, part[i], weight[i]);
    }
    for (; entry < end; ++entry)
        accumulate(sum, load(features + columns[entry] * d + column, valid, aligned), weights[entry]);
    const Vector<Value> self = load(own + row * d + column, valid, aligned);
#pragma unroll
    for (int j = 0; j < SIZE; ++j)
        if (j < valid)
            out[row * d + column + j] = narrowed(__dadd_rn(__dmul_rn(mu, sum[j]), widened(to_float(self.values[j]))));
}

extern "C" __global__ void __launch_bounds__(256) injected_rows_float16(
    const long long* __restrict__ indptr, const long long* __restrict__ columns, const float* __restrict__ weights,
    const unsigned short* __restrict__ features, const unsigned short* __restrict__ own, long long num_rows, int d,
    double mu, int aligned, float* __restrict__ out) {
    injected(indptr, columns, weights, features, own, num_rows, d, mu, aligned, out);
}

extern "C" __global__ void __launch_bounds__(256) injected_rows_float32(
    const long long* __restrict__ indptr, const long long* __restrict__ columns, const float* __restrict__ weights,
    const float* __restrict__ features, const float* __restrict__ own, long long num_rows, int d,
    double mu, int aligned, float* __restrict__ out) {
    injected(indptr, columns, weights, features, own, num_rows, d, mu, aligned, out);
}
