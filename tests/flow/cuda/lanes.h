// The names of flowprep/flow/cuda/lanes.cuh for one core: a value of a warp is a vector of 32.
//
// A thread says which worker it is before it calls a kernel. Needs GCC's vector extensions. Build with -ffp-contract=off, so that `mad` is where it is written.

#pragma once
#include <chrono>
#include <cmath>
#include <thread>

typedef float F __attribute__((vector_size(128)));
typedef int I __attribute__((vector_size(128)));
typedef I B;
typedef double D __attribute__((vector_size(256)));
struct float4 {
    float x, y, z, w;
};
struct F4 {
    F x, y, z, w;
};

#define FN static inline __attribute__((always_inline))
#define LARGE_FN static __attribute__((noinline))
#define EACH for (int i = 0; i < 32; ++i)
#define UNROLL _Pragma("GCC unroll 16")
#define ROLLED _Pragma("GCC unroll 1")
static thread_local int worker_number = 0, worker_count = 1;
#define WORKER worker_number
#define N_WORKERS worker_count
#define KERNEL(name) extern "C" void name
extern "C" void be_worker(int number, int count) { worker_number = number, worker_count = count; }

FN I lane() {
    I out;
    EACH out[i] = i;
    return out;
}

// --- arithmetic ---

FN F lanes_of(float a) { return F() + a; }
FN F lanes_of(F a) { return a; }
FN I lanes_of(int a) { return I() + a; }
FN I lanes_of(I a) { return a; }

template <typename L, typename R, typename S>
FN F mad(L left, R right, S sum) {
    const F a = lanes_of(left), b = lanes_of(right), c = lanes_of(sum);
    F out;
    EACH out[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return out;
}
FN F floor_of(F a) {
    F out;
    EACH out[i] = __builtin_floorf(a[i]);
    return out;
}
FN F nearest(F a) {
    F out;
    EACH out[i] = __builtin_rintf(a[i]);
    return out;
}
template <typename L, typename R>
FN auto smaller(L left, R right) {
    const auto a = lanes_of(left), b = lanes_of(right);
    return a < b ? a : b;
}
template <typename L, typename R>
FN auto larger(L left, R right) {
    const auto a = lanes_of(left), b = lanes_of(right);
    return a > b ? a : b;
}
FN int smaller(int a, int b) { return a < b ? a : b; }
FN int larger(int a, int b) { return a > b ? a : b; }
template <typename L, typename R>
FN F select(B which, L left, R right) {
    const F a = lanes_of(left), b = lanes_of(right);
    return which ? a : b;
}
FN F to_float(I a) { return __builtin_convertvector(a, F); }
FN I to_int(F a) { return __builtin_convertvector(a, I); }
template <typename L, typename R>
FN F divide(L left, R right) {
    return lanes_of(left) / lanes_of(right);
}
FN F root(F a) {
    F out;
    EACH out[i] = __builtin_sqrtf(a[i]);
    return out;
}
FN F quick_inverse(F a) { return 1.0f / a; }
FN F quick_root(F a) { return root(a); }

// --- between lanes ---

FN F from_left(F a) {
    F out;
    EACH out[i] = a[i > 0 ? i - 1 : 0];
    return out;
}
FN F from_right(F a) {
    F out;
    EACH out[i] = a[i < 31 ? i + 1 : 31];
    return out;
}
FN double sum_of_lanes(D a) {
    for (int step = 16; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) a[i] += a[i + step];
    return a[0];
}
FN double sum_of_lanes(F a) { return sum_of_lanes(__builtin_convertvector(a, D)); }
FN float largest_of_lanes(F a) {
    float out = a[0];
    EACH out = out > a[i] ? out : a[i];
    return out;
}

// --- memory ---

FN F load(const float *at, I index) {
    F out;
    EACH out[i] = at[index[i]];
    return out;
}
FN F load(const unsigned char *at, I index) {
    F out;
    EACH out[i] = at[index[i]];
    return out;
}
FN F4 load(const float4 *at, I index) {
    F4 out;
    EACH {
        const float4 one = at[index[i]];
        out.x[i] = one.x, out.y[i] = one.y, out.z[i] = one.z, out.w[i] = one.w;
    }
    return out;
}
FN F4 load_once(const float4 *at, I index) { return load(at, index); }
FN void prefetch(const float4 *, I) {}
FN D load(const double *at, I index, int limit) {
    D out;
    EACH out[i] = index[i] < limit ? at[index[i]] : 0;
    return out;
}
FN void store(B which, float4 *at, I index, const F4 &value) {
    EACH if (which[i]) at[index[i]] = {value.x[i], value.y[i], value.z[i], value.w[i]};
}
template <typename T>
FN void store(B which, T *at, I index, F value) {
    EACH if (which[i]) at[index[i]] = (T)value[i];
}
template <typename T>
FN void set(T *at, T value) {
    *at = value;
}

// --- between warps ---

FN int peek(const int *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
FN unsigned positive(const int *at, I index, int limit) {
    unsigned bits = 0;
    EACH if (index[i] < limit && peek(at + index[i]) > 0) bits |= 1u << i;
    return bits;
}
FN int peek_once(const int *at) { return peek(at); }
FN int take(int *at) { return peek(at) > 0 ? __atomic_fetch_sub(at, 1, __ATOMIC_ACQ_REL) : 0; }
FN bool leave(int *at) { return __atomic_fetch_sub(at, 1, __ATOMIC_ACQ_REL) == 1; }
FN void publish(int *at, int value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
FN void add_one(int *at) { __atomic_fetch_add(at, 1, __ATOMIC_RELAXED); }
FN int lowest_bit(unsigned bits) { return __builtin_ctz(bits); }
FN unsigned turned(unsigned bits, int by) { return bits >> by | bits << (32 - by) % 32; }
FN long long clock_ns() {
    return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}
FN void doze() { std::this_thread::yield(); }
