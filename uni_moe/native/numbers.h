/* What our C code shares: numbers as they lie in memory, and how rows are spread over threads.

   bfloat16 is read and written as 16 bits and computed in float32. */

#ifndef UNI_MOE_NUMBERS_H
#define UNI_MOE_NUMBERS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float f32;
typedef uint16_t bf16;

static inline float get_f32(const float *p) { return *p; }
static inline void put_f32(float *p, float x) { *p = x; }

static inline float get_bf16(const bf16 *p)
{
    uint32_t bits = (uint32_t)*p << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline void put_bf16(bf16 *p, float x) /* to the nearest, ties to even */
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    *p = (bf16)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded); /* NaN stays NaN */
}

/* 1 / (1 + exp(-x)). Fast math divides by an estimate that Newton's step mends: an exponential that
   overflows would make it 0 * inf, so the exponent ends where its reciprocal is still a number. */
#define MOST_EXPONENT 87.0f
static inline float sigmoid(float x)
{
    const float y = -x < MOST_EXPONENT ? -x : MOST_EXPONENT;
    return 1.0f / (1.0f + expf(y));
}

#define LEAST(a, b) ((a) < (b) ? (a) : (b))

/* The compiler does not prove that a row's pointers never meet; they never do. */
#define EACH _Pragma("GCC ivdep")
#define ROWS _Pragma("omp parallel for if (threads > 1) num_threads(threads)")

#endif
