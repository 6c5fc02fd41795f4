// What tvl1.cu is written in: values of a warp's 32 lanes, one per thread. tests/flow/cuda/lanes.h
// has the same names for vectors of 32 lanes on the CPU, so that the same kernels run there.
//
// Control flow is the same in all lanes; where lanes differ, `select` and masked stores do it.

typedef float F;
typedef int I;
typedef bool B;
typedef float4 F4;

#define FN __device__ __forceinline__
#define LARGE_FN FN  // on the CPU not inlined, for the sake of its compiler
#define KERNEL(name) extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) name
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#define WORKER (int)((blockIdx.x * blockDim.x + threadIdx.x) / 32)
#define N_WORKERS (int)(gridDim.x * blockDim.x / 32)
#define ALL_LANES 0xffffffffu

FN I lane() { return threadIdx.x % 32; }

// --- arithmetic; nothing is contracted (--fmad=false), so `mad` is where it is written ---

FN F mad(F a, F b, F c) { return __fmaf_rn(a, b, c); }
FN F floor_of(F a) { return floorf(a); }
FN F nearest(F a) { return rintf(a); }
FN F smaller(F a, F b) { return fminf(a, b); }
FN F larger(F a, F b) { return fmaxf(a, b); }
FN I smaller(I a, I b) { return min(a, b); }
FN I larger(I a, I b) { return max(a, b); }
FN F select(B which, F a, F b) { return which ? a : b; }
FN F to_float(I a) { return __int2float_rn(a); }
FN I to_int(F a) { return __float2int_rz(a); }
FN F divide(F a, F b) { return __fdiv_rn(a, b); }
FN F root(F a) { return __fsqrt_rn(a); }

// One instruction each, 1 or 2 units in the last place from the rounded value.
FN F quick_inverse(F a) {
    F out;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(a));
    return out;
}
FN F quick_root(F a) {
    F out;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(a));
    return out;
}

// --- between lanes ---

FN F from_left(F a) { return __shfl_up_sync(ALL_LANES, a, 1); }     // lane 0 gets its own
FN F from_right(F a) { return __shfl_down_sync(ALL_LANES, a, 1); }  // lane 31 gets its own

FN double sum_of_lanes(F a) {
    double sum = a;
    UNROLL
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, step);
    return sum;
}
FN double sum_of_lanes(double a) {
    UNROLL
    for (int step = 16; step > 0; step /= 2) a += __shfl_xor_sync(ALL_LANES, a, step);
    return a;
}
FN F largest_of_lanes(F a) {
    UNROLL
    for (int step = 16; step > 0; step /= 2) a = fmaxf(a, __shfl_xor_sync(ALL_LANES, a, step));
    return a;
}
typedef double D;
FN D load(const double *at, I index, I limit) { return index < limit ? at[index] : 0; }

// --- memory ---

FN F load(const float *at, I index) { return at[index]; }
FN F load(const unsigned char *at, I index) { return at[index]; }
FN F4 load(const float4 *at, I index) { return at[index]; }
FN F4 load_once(const float4 *at, I index) { return __ldcg(at + index); }  // leaves L1 alone
FN void prefetch(const float4 *at, I index) {
    asm volatile("prefetch.global.L1 [%0];" ::"l"(__cvta_generic_to_global(at + index)));
}
FN void store(B which, float4 *at, I index, F4 value) {
    if (which) __stcg(at + index, value);  // leaves L1 to what is read again
}
FN void store(B which, float *at, I index, F value) {
    if (which) at[index] = value;
}
FN void store(B which, unsigned char *at, I index, F value) {
    if (which) at[index] = (unsigned char)value;
}
FN void store(B which, unsigned short *at, I index, F value) {
    if (which) at[index] = (unsigned short)value;
}
template <typename T>
FN void set(T *at, T value) {
    __syncwarp();  // all lanes have read what was there
    if (lane() == 0) *at = value;
}

// --- between warps: all that a warp wrote before `publish` or `leave` is seen by the one that
// `take`s, or leaves last. ---

FN int peek(const int *at) { return *(const volatile int *)at; }
FN int peek_once(const int *at) { return __shfl_sync(ALL_LANES, peek(at), 0); }  // for all lanes

FN unsigned positive(const int *at, I index, I limit) {  // bit i: at[index of lane i] > 0
    return __ballot_sync(ALL_LANES, index < limit && peek(at + index) > 0);
}

FN int take(int *at) {  // lowers a positive number by 1; returns what it was, or one below 1
    int found = 0;
    if (lane() == 0 && peek(at) > 0) found = atomicSub(at, 1);
    found = __shfl_sync(ALL_LANES, found, 0);
    if (found > 0) __threadfence();
    __syncwarp();
    return found;
}

FN bool leave(int *at) {  // lowers by 1; true for the one that makes it 0
    __threadfence();
    __syncwarp();
    int before = 0;
    if (lane() == 0) before = atomicSub(at, 1);
    before = __shfl_sync(ALL_LANES, before, 0);
    __threadfence();
    __syncwarp();
    return before == 1;
}

FN void publish(int *at, int value) {
    __threadfence();
    __syncwarp();
    if (lane() == 0) atomicExch(at, value);
    __syncwarp();
}

FN void add_one(int *at) {
    if (lane() == 0) atomicAdd(at, 1);
}

FN long long clock_ns() {
    long long now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return __shfl_sync(ALL_LANES, now, 0);
}
FN void doze() { __nanosleep(5000); }
FN int lowest_bit(unsigned bits) { return __ffs(bits) - 1; }
FN unsigned turned(unsigned bits, int by) { return __funnelshift_r(bits, bits, by); }
