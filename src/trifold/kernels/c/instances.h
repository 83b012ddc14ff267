/* Includes BODY once for each instruction set and each type of number; NAME(x) is then a name of its own.

   REAL: the type; V: a vector of LANES of it; TARGET: what every function of BODY is declared with. */

#define PASTE_(name, isa, kind) name##_##isa##_##kind
#define PASTE(name, isa, kind) PASTE_(name, isa, kind)
#define NAME(name) PASTE(name, ISA, KIND)

#if defined(__x86_64__)

#define ISA avx512
#define TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define VECTOR_BYTES 64
#include "types.h"
#undef ISA
#undef TARGET
#undef VECTOR_BYTES

#define ISA avx2
#define TARGET __attribute__((target("avx2,fma")))
#define VECTOR_BYTES 32
#include "types.h"
#undef ISA
#undef TARGET
#undef VECTOR_BYTES

#endif

/* What every machine of the architecture has: SSE2 on x86-64, NEON on AArch64. */
#define ISA base
#define TARGET
#define VECTOR_BYTES 16
#include "types.h"
#undef ISA
#undef TARGET
#undef VECTOR_BYTES

#undef NAME
#undef PASTE
#undef PASTE_
