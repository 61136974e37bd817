// Co-occurrence (MDSRec Eq. 1-2): all ordered pairs of positions of a sequence at most max_gap apart, grouped by row.
//
// Contract. items is int32 [T], and sequence s is items[offsets[s] .. offsets[s + 1]). buckets is int64 [last -
// first]: the row number (in any numbering) of the item at each position of [first, last). A pair of a position p in
// [first, last) and a position q of the same sequence, with 1 <= |p - q| <= max_gap and items[p] != items[q], is one
// entry of row buckets[p - first], with column items[q] (int32) and gap |p - q|.
//   count_pairs: adds the number of each row's entries to counts[row].
//   place_pairs: writes a row's entries from cursors[row] on, and leaves cursors[row] at the end of the row. Atomics
//   decide the order within a row. It does not matter, because the entries are only counted per (column, gap).
//
// Why this design. The two directions of a pair belong to two rows. One warp per position finds all entries that the
// position adds to its row, reserves their places with a single atomic, and writes them side by side. The sequence of
// a position is found by bisection in offsets: the upper levels of the bisection stay in L1, and no array of T
// numbers is needed.
//
// Speed bound: memory, 4 + sizeof(gap) bytes per entry, in contiguous runs of as many entries as a position has
// pairs.

constexpr unsigned FULL = 0xffffffffu;

// The sequence that holds position p: the last s with offsets[s] <= p. (Empty sequences before s have the same
// offset.)
__device__ __forceinline__ long long sequence_of(const long long* offsets, long long num_sequences, long long p) {
    long long low = 0, high = num_sequences;
    while (high - low > 1) {
        const long long middle = low + (high - low) / 2;
        if (offsets[middle] <= p) low = middle;
        else high = middle;
    }
    return low;
}

struct Partners {
    long long first, last;
};

__device__ __forceinline__ Partners partners(
    const long long* offsets, long long num_sequences, long long p, long long max_gap) {
    const long long s = sequence_of(offsets, num_sequences, p);
    return {max(offsets[s], p - max_gap), min(offsets[s + 1], p + max_gap + 1)};
}

extern "C" __global__ void __launch_bounds__(256) count_pairs(
    const int* __restrict__ items, const long long* __restrict__ buckets, const long long* __restrict__ offsets,
    long long first, long long last, long long num_sequences, long long max_gap, unsigned long long* counts) {
    const int lane = threadIdx.x & 31;
    const long long p = first + (((long long)blockIdx.x * blockDim.x + threadIdx.x) >> 5);
    if (p >= last) return;
    const Partners range = partners(offsets, num_sequences, p, max_gap);
    const int item = items[p];
    unsigned found = 0;
    for (long long q = range.first + lane; q < range.last; q += 32) found += items[q] != item;
    found = __reduce_add_sync(FULL, found);
    if (lane == 0 && found != 0) atomicAdd(&counts[buckets[p - first]], (unsigned long long)found);
}

template <typename Gap>
__device__ __forceinline__ void place(
    const int* items, const long long* buckets, const long long* offsets, long long first, long long last,
    long long num_sequences, long long max_gap, unsigned long long* cursors, int* columns, Gap* gaps) {
    const int lane = threadIdx.x & 31;
    const long long p = first + (((long long)blockIdx.x * blockDim.x + threadIdx.x) >> 5);
    if (p >= last) return;
    const Partners range = partners(offsets, num_sequences, p, max_gap);
    const int item = items[p];
    unsigned found = 0;
    for (long long q = range.first + lane; q < range.last; q += 32) found += items[q] != item;
    found = __reduce_add_sync(FULL, found);
    if (found == 0) return;
    unsigned long long at = 0;
    if (lane == 0) at = atomicAdd(&cursors[buckets[p - first]], (unsigned long long)found);
    at = __shfl_sync(FULL, at, 0);
    for (long long begin = range.first; begin < range.last; begin += 32) {
        const long long q = begin + lane;
        const bool partner = q < range.last && items[q] != item;
        const unsigned keepers = __ballot_sync(FULL, partner);
        if (partner) {
            const unsigned long long place = at + __popc(keepers & ((1u << lane) - 1));
            columns[place] = items[q];
            gaps[place] = (Gap)(q < p ? p - q : q - p);
        }
        at += __popc(keepers);
    }
}

extern "C" __global__ void __launch_bounds__(256) place_pairs_uint8(
    const int* __restrict__ items, const long long* __restrict__ buckets, const long long* __restrict__ offsets,
    long long first, long long last, long long num_sequences, long long max_gap, unsigned long long* cursors,
    int* __restrict__ columns, unsigned char* __restrict__ gaps) {
    place(items, buckets, offsets, first, last, num_sequences, max_gap, cursors, columns, gaps);
}

extern "C" __global__ void __launch_bounds__(256) place_pairs_uint16(
    const int* __restrict__ items, const long long* __restrict__ buckets, const long long* __restrict__ offsets,
    long long first, long long last, long long num_sequences, long long max_gap, unsigned long long* cursors,
    int* __restrict__ columns, unsigned short* __restrict__ gaps) {
    place(items, buckets, offsets, first, last, num_sequences, max_gap, cursors, columns, gaps);
}

extern "C" __global__ void __launch_bounds__(256) place_pairs_uint32(
    const int* __restrict__ items, const long long* __restrict__ buckets, const long long* __restrict__ offsets,
    long long first, long long last, long long num_sequences, long long max_gap, unsigned long long* cursors,
    int* __restrict__ columns, unsigned int* __restrict__ gaps) {
    place(items, buckets, offsets, first, last, num_sequences, max_gap, cursors, columns, gaps);
}
