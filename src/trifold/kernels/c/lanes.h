/* The vector type of one instance, as GCC and Clang both know it; reads and writes need no alignment. */

typedef REAL NAME(vector) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

#undef LANES
#undef V
#undef LOAD
#undef STORE
#undef INLINE
#define LANES ((long)(VECTOR_BYTES / sizeof(REAL)))
#define V NAME(vector)
#define LOAD(from) (*(const V *)(from))
#define STORE(to, value) (*(V *)(to) = (value))
#define INLINE static inline TARGET __attribute__((always_inline))

/* The lesser and the greater; the second where the first is not a number. */
#undef MINIMUM
#undef MAXIMUM
#if defined(__x86_64__) && VECTOR_BYTES == 64
#define MINIMUM(a, b) (sizeof(REAL) == 4 ? (V)_mm512_min_ps((__m512)(a), (__m512)(b)) : (V)_mm512_min_pd((__m512d)(a), (__m512d)(b)))
#define MAXIMUM(a, b) (sizeof(REAL) == 4 ? (V)_mm512_max_ps((__m512)(a), (__m512)(b)) : (V)_mm512_max_pd((__m512d)(a), (__m512d)(b)))
#elif defined(__x86_64__) && VECTOR_BYTES == 32
#define MINIMUM(a, b) (sizeof(REAL) == 4 ? (V)_mm256_min_ps((__m256)(a), (__m256)(b)) : (V)_mm256_min_pd((__m256d)(a), (__m256d)(b)))
#define MAXIMUM(a, b) (sizeof(REAL) == 4 ? (V)_mm256_max_ps((__m256)(a), (__m256)(b)) : (V)_mm256_max_pd((__m256d)(a), (__m256d)(b)))
#else
#define MINIMUM(a, b) CHOOSE((a) < (b), a, b)
#define MAXIMUM(a, b) CHOOSE((a) > (b), a, b)
#endif
