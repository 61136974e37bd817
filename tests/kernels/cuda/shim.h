// Runs the CUDA kernels of kernels/cuda on a CPU, one block at a time, every thread a coroutine.
//
// What keeps its meaning: grid and block indices, __shared__ memory (one copy, blocks are serial), __syncthreads,
// full-warp shuffles, ballots and reductions (all 32 lanes must arrive at the same one), atomics, 16-byte alignment of
// vector loads (g++ checks it), directed and IEEE rounding. Threads of a block run in a shuffled order, so a result
// that needs one order shows. What does not: races between two collectives, speed.
// A collective that not all lanes reach, or a barrier after a thread has left, ends the launch with a message.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#define EMULATED
#define __global__
#define __device__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
using std::max;
using std::min;

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

namespace shim {
constexpr int STACK = 1 << 16;
constexpr unsigned FULL = 0xffffffffu;

struct Thread {
    ucontext_t start;
    jmp_buf state;
    bool started, done;
    dim3 index;
    int lane, warp;
    const long* waits_for;  // not null: sleeps until *waits_for is no longer `seen`
    long seen;
};

// Threads that meet: a warp at a collective, or a block at a barrier.
struct Meeting {
    uint64_t slots[32], result[32];
    int arrived;
    const char* kind;
    long generation;
};

inline std::vector<char> stacks;
inline std::vector<Thread> threads;
inline std::vector<Meeting> warps;
inline Meeting block_meeting;
inline Thread* current;
inline jmp_buf scheduler;
inline int num_done;
inline std::string error;
inline void (*body)(void*);
inline void* body_arguments;
inline dim3 block_index, block_dim, grid_dim;

inline void sleep_until_changed(const long* generation) {
    current->waits_for = generation;
    current->seen = *generation;
    if (_setjmp(current->state) == 0) _longjmp(scheduler, 1);
}

[[noreturn]] inline void fail(const std::string& message) {
    error = message;
    _longjmp(scheduler, 1);
}

inline void meet(Meeting& at, int size, const char* kind) {
    if (at.arrived != 0 && at.kind != kind) fail(std::string("threads met at both ") + at.kind + " and " + kind);
    at.kind = kind;
    if (++at.arrived < size) return sleep_until_changed(&at.generation);
    memcpy(at.result, at.slots, sizeof at.slots);
    at.arrived = 0;
    ++at.generation;
}

inline const uint64_t* exchange(unsigned mask, uint64_t value, const char* kind) {
    if (mask != FULL) fail("only full-warp collectives are emulated");
    Meeting& warp = warps[current->warp];
    warp.slots[current->lane] = value;
    meet(warp, 32, kind);
    return warp.result;
}

template <typename T>
uint64_t pack(T value) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}

template <typename T>
T unpack(uint64_t bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline void enter() {
    body(body_arguments);
    current->done = true;
    ++num_done;
    _longjmp(scheduler, 1);
}

inline void resume(Thread& thread) {
    current = &thread;
    thread.waits_for = nullptr;
    if (_setjmp(scheduler) != 0) return;
    if (thread.started) _longjmp(thread.state, 1);
    thread.started = true;
    setcontext(&thread.start);
}

inline void run_block(const std::vector<int>& order) {
    const int size = (int)order.size();
    num_done = 0;
    block_meeting = {};
    warps.assign(size / 32, {});
    for (int i = 0; i < size; ++i) {
        Thread& thread = threads[i];
        thread.started = thread.done = false;
        thread.waits_for = nullptr;
        thread.index = {unsigned(i), 0, 0};
        thread.lane = i % 32;
        thread.warp = i / 32;
        getcontext(&thread.start);
        thread.start.uc_stack.ss_sp = &stacks[(size_t)i * STACK];
        thread.start.uc_stack.ss_size = STACK;
        thread.start.uc_link = nullptr;
        makecontext(&thread.start, enter, 0);
    }
    while (num_done < size && error.empty()) {
        bool moved = false;
        for (int i : order) {
            Thread& thread = threads[i];
            if (thread.done || (thread.waits_for && *thread.waits_for == thread.seen)) continue;
            moved = true;
            resume(thread);
            if (!error.empty()) return;
        }
        if (!moved) error = "threads wait for others that left or went elsewhere";
    }
}

template <typename... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A>*>(arguments[I])...);
}

template <typename... A>
struct Launch {
    void (*kernel)(A...);
    void** arguments;
    static void run(void* self) {
        auto* launch = static_cast<Launch*>(self);
        call(launch->kernel, launch->arguments, std::index_sequence_for<A...>{});
    }
};

// Runs a grid; the message of what went wrong, or null. Only one-dimensional blocks of whole warps.
template <typename... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, unsigned block, void** arguments, unsigned seed) {
    Launch<A...> one{kernel, arguments};
    body = Launch<A...>::run;
    body_arguments = &one;
    error.clear();
    if (block % 32 != 0 || block > 1024) return "blocks are whole warps, at most 1024 threads";
    block_dim = {block, 1, 1};
    grid_dim = {grid[0], grid[1], grid[2]};
    stacks.resize((size_t)block * STACK);
    threads.resize(block);
    std::vector<int> order(block);
    for (unsigned i = 0; i < block; ++i) order[i] = (int)i;
    std::mt19937 shuffler(seed);
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                std::shuffle(order.begin(), order.end(), shuffler);
                block_index = {x, y, z};
                run_block(order);
                if (!error.empty()) return error.c_str();
            }
    return nullptr;
}
}  // namespace shim

#define threadIdx (shim::current->index)
#define blockIdx (shim::block_index)
#define blockDim (shim::block_dim)
#define gridDim (shim::grid_dim)

inline void __syncthreads() {
    if (shim::num_done != 0) shim::fail("__syncthreads after a thread of the block has left");
    shim::meet(shim::block_meeting, (int)shim::threads.size(), "__syncthreads");
}
inline void __syncwarp(unsigned mask = shim::FULL) { shim::exchange(mask, 0, "__syncwarp"); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int from) {
    return shim::unpack<T>(shim::exchange(mask, shim::pack(value), "__shfl_sync")[from & 31]);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, int delta) {
    const uint64_t* all = shim::exchange(mask, shim::pack(value), "__shfl_down_sync");
    const int from = shim::current->lane + delta;
    return from < 32 ? shim::unpack<T>(all[from]) : value;
}
inline unsigned __ballot_sync(unsigned mask, bool predicate) {
    const uint64_t* all = shim::exchange(mask, predicate, "__ballot_sync");
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= unsigned(all[lane]) << lane;
    return bits;
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
    const uint64_t* all = shim::exchange(mask, value, "__reduce_add_sync");
    unsigned sum = 0;
    for (int lane = 0; lane < 32; ++lane) sum += unsigned(all[lane]);
    return sum;
}

// A thread is only left at a collective, so plain code is atomic.
template <typename T>
T atomicAdd(T* at, T value) {
    const T old = *at;
    *at += value;
    return old;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __float_as_uint(float value) { return shim::unpack<unsigned>(shim::pack(value)); }
inline float __uint_as_float(unsigned bits) { return shim::unpack<float>(bits); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __double2float_rn(double value) { return float(value); }

inline float __fsub_rd(float a, float b) {
    const int mode = std::fegetround();
    std::fesetround(FE_DOWNWARD);
    volatile float x = a, y = b, result = x - y;
    std::fesetround(mode);
    return result;
}
inline float __double2float_ru(double value) {
    const float near = float(value);
    return double(near) < value ? std::nextafter(near, INFINITY) : near;
}

// Values with 11 significant bits survive the trip through these unharmed; others are rounded once, to even.
inline float emulated_half_to_float(unsigned short bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double size = exponent == 0 ? std::ldexp(fraction, -24)
                        : exponent < 31 ? std::ldexp(fraction + 1024, exponent - 25)
                        : fraction == 0 ? INFINITY : NAN;
    return float(bits & 0x8000 ? -size : size);
}
inline unsigned short emulated_double_to_half(double value) {
    const unsigned short sign = std::signbit(value) ? 0x8000 : 0;
    const double size = std::fabs(value);
    if (std::isnan(value)) return 0x7fff;
    if (size >= 65520.0) return sign | 0x7c00;
    int exponent = 0;
    std::frexp(size, &exponent);
    const int step = size > 0 ? std::max(exponent - 11, -24) : -24;  // the weight of the last bit
    const double units = std::nearbyint(std::ldexp(size, -step));  // up to 2048; a carry grows the exponent by itself
    return sign | (unsigned short)(units + (step + 24) * 1024.0);
}
