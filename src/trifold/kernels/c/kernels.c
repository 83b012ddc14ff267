/* The compiled kernels: one entry a kernel, which takes the instruction set and the type of number to use.

   Built without linking an OpenMP runtime: its few symbols are those of the runtime that torch has loaded, so that
   both share one pool of threads. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { OUT_OF_MEMORY = 1, UNKNOWN = 2 };
enum { BASE, AVX2, AVX512 };
enum { NONE, SILU, RELU, RELU6, HARD_SWISH };
enum { SCRATCH_BYTES = 96 * 1024 }; /* of input rows at a time: well within a core's second-level cache */
enum { BATCH_PARTS = 8 };           /* into which a batch is cut for sums over it, however many threads there are */
enum { PART_BYTES = 64 * 1024 };    /* of rows whose sums are taken together */

/* A depthwise convolution; sizes in pixels; top and left: zeros before the image. */
struct window {
    int64_t batch, channels, height, width, out_height, out_width, kernel, stride, top, left;
};

/* channels-last images: each of so many rows of channels. */
struct rows {
    int64_t images, rows, channels;
};

/* Batch norm's four tensors, (channels,) each. */
struct norm {
    int64_t activation;
    double epsilon;
    const void *weight, *bias, *mean, *variance;
};

static long rows_of_a_part(long channels, long bytes) {
    const long rows = PART_BYTES / (channels * bytes);
    return rows < 16 ? 16 : rows;
}

#define BODY "bodies.h"
#include "instances.h"

/* The best instruction set of this processor. */
int trifold_best(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
    return BASE;
}

#if defined(__x86_64__)
#define DISPATCH(name, ...)                                                                                    \
    switch (set) {                                                                                             \
        case AVX512: return is_double ? name##_avx512_double(__VA_ARGS__) : name##_avx512_float(__VA_ARGS__);  \
        case AVX2: return is_double ? name##_avx2_double(__VA_ARGS__) : name##_avx2_float(__VA_ARGS__);        \
        case BASE: return is_double ? name##_base_double(__VA_ARGS__) : name##_base_float(__VA_ARGS__);        \
    }                                                                                                          \
    return UNKNOWN;
#else
#define DISPATCH(name, ...) \
    return set == BASE ? (is_double ? name##_base_double(__VA_ARGS__) : name##_base_float(__VA_ARGS__)) : UNKNOWN;
#endif

int trifold_depthwise_forward(int set, int is_double, int threads, const struct window *w, const void *x,
                              const void *weight, void *out) {
    DISPATCH(depthwise_forward, w, threads, x, weight, out)
}

int trifold_depthwise_input_grad(int set, int is_double, int threads, const struct window *w, const void *grad,
                                 const void *weight, void *out) {
    DISPATCH(depthwise_input_grad, w, threads, grad, weight, out)
}

int trifold_depthwise_weight_grad(int set, int is_double, int threads, const struct window *w, const void *x,
                                  const void *grad, void *out) {
    DISPATCH(depthwise_weight_grad, w, threads, x, grad, out)
}

int trifold_norm_statistics(int set, int is_double, int threads, const struct rows *r, const void *x, void *mean,
                            void *variance) {
    DISPATCH(norm_statistics, r, threads, x, mean, variance)
}

int trifold_norm_act_apply(int set, int is_double, int threads, const struct rows *r, const struct norm *n,
                           const void *x, const void *gate, void *out) {
    DISPATCH(norm_act_apply, r, n, threads, x, gate, out)
}

int trifold_norm_act_pool(int set, int is_double, int threads, const struct rows *r, const struct norm *n,
                          const void *x, void *out) {
    DISPATCH(norm_act_pool, r, n, threads, x, out)
}

int trifold_norm_act_gated_sums(int set, int is_double, int threads, const struct rows *r, const struct norm *n,
                                const void *x, const void *grad, void *out) {
    DISPATCH(norm_act_gated_sums, r, n, threads, x, grad, out)
}

int trifold_norm_act_grad(int set, int is_double, int threads, const struct rows *r, const struct norm *n,
                          const void *x, const void *grad, const void *gate, const void *added, const void *sums,
                          void *weight_grad, void *bias_grad, void *out) {
    DISPATCH(norm_act_grad, r, n, threads, x, grad, gate, added, sums, weight_grad, bias_grad, out)
}

int trifold_middle_forward(int set, int is_double, int threads, const struct window *w, const struct norm *n,
                           const void *x, const void *weight, void *out, void *mean, void *variance) {
    DISPATCH(middle_forward, w, n, threads, x, weight, out, mean, variance)
}

int trifold_middle_backward(int set, int is_double, int threads, const struct window *w, const struct norm *n1,
                            const struct norm *n2, const void *x1, const void *x2, const void *grad, const void *gate,
                            const void *added, const void *sums, const void *weight, void *out, void *for_weight,
                            void *weight1, void *bias1, void *weight2, void *bias2) {
    DISPATCH(middle_backward, w, n1, n2, threads, x1, x2, grad, gate, added, sums, weight, out, for_weight, weight1, bias1,
             weight2, bias2)
}
