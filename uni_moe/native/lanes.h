/* Sixteen numbers at once: how our products read, add and write them. */

#ifndef UNI_MOE_LANES_H
#define UNI_MOE_LANES_H

#include "numbers.h"

#define LANES 16
typedef float v16 __attribute__((vector_size(4 * LANES)));
typedef float v16_anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t u16_wide __attribute__((vector_size(4 * LANES)));
typedef uint16_t u16_anywhere __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

static inline v16 load_f32(const f32 *p) { return *(const v16_anywhere *)p; }
static inline v16 load_bf16(const bf16 *p)
{
    return (v16)(__builtin_convertvector(*(const u16_anywhere *)p, u16_wide) << 16);
}

static inline void save_f32(f32 *p, v16 x) { *(v16_anywhere *)p = x; }
static inline v16 more_f32(v16 sum, v16 a, v16 b) { return sum + a * b; }

/* out[r] = all lanes of sum[r], four at once. */
typedef float v8 __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t places __attribute__((vector_size(16)));
static inline void totals(const v16 *sum, float *out)
{
    v4 part[4];
    for (int r = 0; r < 4; r++) {
        v8 half[2];
        v4 quarter[2];
        memcpy(half, &sum[r], sizeof half);
        const v8 eight = half[0] + half[1];
        memcpy(quarter, &eight, sizeof quarter);
        part[r] = quarter[0] + quarter[1];
    }
    const places low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, left = {0, 1, 4, 5}, right = {2, 3, 6, 7};
    const v4 ab = __builtin_shuffle(part[0], part[1], low) + __builtin_shuffle(part[0], part[1], high);
    const v4 cd = __builtin_shuffle(part[2], part[3], low) + __builtin_shuffle(part[2], part[3], high);
    const v4 all = __builtin_shuffle(ab, cd, left) + __builtin_shuffle(ab, cd, right);
    memcpy(out, &all, sizeof all);
}

#ifdef __AVX512BF16__ /* the processor's own products of bfloat16, 32 at a time */
#include <immintrin.h>
#define STRIDE_bf16 (2 * LANES)
typedef __m512i pairs_bf16;
static inline pairs_bf16 many_bf16(const bf16 *p) { return _mm512_loadu_si512(p); }
static inline void save_bf16(bf16 *p, v16 x)
{
    const __m256bh half = _mm512_cvtneps_pbh((__m512)x);
    memcpy(p, &half, sizeof half);
}
static inline v16 more_bf16(v16 sum, pairs_bf16 a, pairs_bf16 b)
{
    return (v16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
#else
#define STRIDE_bf16 LANES
typedef v16 pairs_bf16;
static inline pairs_bf16 many_bf16(const bf16 *p) { return load_bf16(p); }
static inline void save_bf16(bf16 *p, v16 x)
{
    float each[LANES];
    memcpy(each, &x, sizeof each);
    EACH
    for (int i = 0; i < LANES; i++)
        put_bf16(p + i, each[i]);
}
static inline v16 more_bf16(v16 sum, v16 a, v16 b) { return sum + a * b; }
#endif
#define STRIDE_f32 LANES
typedef v16 pairs_f32;
static inline pairs_f32 many_f32(const f32 *p) { return load_f32(p); }

#endif
