// Rows scaled to length sqrt(d) and rounded to float16, with a bound on each row's rounding error.
//
// Contract. z = x * sqrt(d / |x|^2) in float64, from float32 rows [n, d] and float64 squares [n]. units float16 [n,
// ld] is z rounded once to nearest, and zero from column d to ld. residual float32 [n] is at least |z* - units| /
// sqrt(d), where z* is the exact unit row times sqrt(d). A row whose square is 0 becomes zeros with residual 0. The
// residual is rounded up: the relative float64 errors of squares, scale and sum are below d 2^-53 <= 2^-37 (d <=
// 2^16). The factor 1 + 2^-30 and the added 2^-36 cover them. Its sum is added in the order of pair_dots.cu.
//
// Why this design. A length of sqrt(d) keeps entries near 1, where float16 has its full precision. Nothing overflows,
// because no entry exceeds sqrt(d) <= 256. One warp per row makes one pass and converts directly from float64, so
// nothing is rounded twice.
//
// Speed bound: memory, 6 bytes per value.

__device__ __forceinline__ unsigned short to_half(double value) {
#ifdef EMULATED
    return emulated_double_to_half(value);
#else
    unsigned short bits;
    asm("cvt.rn.f16.f64 %0, %1;" : "=h"(bits) : "d"(value));
    return bits;
#endif
}

__device__ __forceinline__ float from_half(unsigned short bits) {
#ifdef EMULATED
    return emulated_half_to_float(bits);
#else
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#endif
}

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

extern "C" __global__ void __launch_bounds__(256) unit_rows(
    const float* __restrict__ rows, const double* __restrict__ squares, long long n, int d, int ld,
    unsigned short* __restrict__ units, float* __restrict__ residual) {
    const int lane = threadIdx.x & 31;
    const long long row = ((long long)blockIdx.x * blockDim.x + threadIdx.x) >> 5;
    if (row >= n) return;
    const double square = squares[row];
    const double scale = square > 0.0 ? __dsqrt_rn(__ddiv_rn((double)d, square)) : 0.0;
    double sum = 0.0;
#pragma unroll 4
    for (int k = lane; k < ld; k += 32) {
        const double z = k < d ? __dmul_rn(widened(rows[row * d + k]), scale) : 0.0;
        const unsigned short bits = to_half(z);
        units[row * ld + k] = bits;
        const double off = __dsub_rn(z, widened(from_half(bits)));
        sum = __dadd_rn(sum, __dmul_rn(off, off));
    }
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) sum = __dadd_rn(sum, __shfl_down_sync(0xffffffffu, sum, step));
    if (lane == 0) {
        const double length = __dsqrt_rn(__ddiv_rn(sum, (double)d));
        const double bound = __dadd_rn(__dmul_rn(length, 1.0 + 0x1p-30), 0x1p-36);
        residual[row] = square > 0.0 ? __double2float_ru(bound) : 0.0f;
    }
}
