// The sum of each centre's points, in the order of the points: a k-means step with the bits of the CPU's.
//
// Contract. sums[c, j] = the sum of points[order[e], j] for e from starts[c] to starts[c + 1], added one after another
// in ascending e, from +0.0. Everything is float64, row-major, with d columns. The same function for CPUs is
// kernels/kmeans.py `center_sums`. cuSPARSE would add in an order that it does not state, and atomic additions in the
// order of their arrival.
//
// Why this design. One thread owns one column of one centre, so no partial sums exist. The threads of a warp read 256
// contiguous bytes of each point. 8 points are loaded before the first is added.
//
// Speed bound: the additions of one column depend on one another: 8 cycles each, for the points of the largest centre.
// With 16,384 points and 16 centres of about equal size that is 8,000 cycles.

extern "C" __global__ void __launch_bounds__(128) center_sums(
    const double* __restrict__ points, const long long* __restrict__ order, const long long* __restrict__ starts,
    int d, double* __restrict__ sums) {
    constexpr int AHEAD = 8;
    const int column = blockIdx.y * 128 + threadIdx.x;
    if (column >= d) return;
    double sum = 0.0;
    long long entry = starts[blockIdx.x];
    const long long end = starts[blockIdx.x + 1];
    for (; entry + AHEAD <= end; entry += AHEAD) {
        double values[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) values[i] = points[order[entry + i] * d + column];
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) sum = __dadd_rn(sum, values[i]);
    }
    for (; entry < end; ++entry) sum = __dadd_rn(sum, points[order[entry] * d + column]);
    sums[(long long)blockIdx.x * d + column] = sum;
}
