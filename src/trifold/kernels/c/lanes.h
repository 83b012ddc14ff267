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
