/* Products with the thin factors of a low-rank delta: r long rows of n numbers, r a multiple of 4.

   A library packs a matrix and plans by the number of rows before it multiplies; beside products as
   thin as these that is most of the work. Sums are in float32, each by one thread, so the number of
   threads changes no bit. */

#include "lanes.h"

#define FOUR 4

/* low (rows, r) = scale * x (rows, n) @ thin (r, n) transposed. */
#define THIN_READ(T)                                                                               \
    void thin_read_##T(const T *x, const T *thin, float *low, int64_t rows, int64_t n, int64_t r,  \
                       float scale, int threads)                                                   \
    {                                                                                              \
        ROWS                                                                                       \
        for (int64_t t = 0; t < rows; t += FOUR) {                                                 \
            const T *mine[FOUR];                                                                   \
            for (int64_t m = 0; m < FOUR; m++)                                                     \
                mine[m] = x + LEAST(t + m, rows - 1) * n;                                          \
            for (int64_t q = 0; q < r; q += FOUR) {                                                \
                const T *w = thin + q * n;                                                         \
                v16 sum[FOUR][FOUR];                                                               \
                memset(sum, 0, sizeof sum);                                                        \
                int64_t i = 0;                                                                     \
                for (; i + STRIDE_##T <= n; i += STRIDE_##T) {                                     \
                    pairs_##T a[FOUR];                                                             \
                    for (int k = 0; k < FOUR; k++)                                                 \
                        a[k] = many_##T(w + k * n + i);                                            \
                    for (int m = 0; m < FOUR; m++) {                                               \
                        const pairs_##T y = many_##T(mine[m] + i);                                 \
                        for (int k = 0; k < FOUR; k++)                                             \
                            sum[m][k] = more_##T(sum[m][k], a[k], y);                              \
                    }                                                                              \
                }                                                                                  \
                for (int64_t m = 0; m < LEAST(rows - t, FOUR); m++) {                              \
                    float found[FOUR], *to = low + (t + m) * r + q;                                \
                    totals(sum[m], found);                                                         \
                    for (int k = 0; k < FOUR; k++) {                                               \
                        for (int64_t j = i; j < n; j++)                                            \
                            found[k] += get_##T(w + k * n + j) * get_##T(mine[m] + j);             \
                        to[k] = scale * found[k];                                                  \
                    }                                                                              \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

/* y (rows, n) += scale * low (rows, r) @ thin (r, n). */
#define EIGHT 8
#define THIN_ADD(T)                                                                                \
    void thin_add_##T(const float *low, const T *thin, T *y, int64_t rows, int64_t n, int64_t r,   \
                      float scale, int threads)                                                    \
    {                                                                                              \
        ROWS                                                                                       \
        for (int64_t t = 0; t < rows; t += EIGHT) {                                                \
            const int64_t some = LEAST(rows - t, EIGHT);                                           \
            const float *mine[EIGHT];                                                              \
            for (int64_t m = 0; m < EIGHT; m++)                                                    \
                mine[m] = low + LEAST(t + m, rows - 1) * r;                                        \
            int64_t i = 0;                                                                         \
            for (; i + 2 * LANES <= n; i += 2 * LANES) {                                           \
                v16 sum[EIGHT][2];                                                                 \
                memset(sum, 0, sizeof sum);                                                        \
                for (int64_t q = 0; q < r; q++) {                                                  \
                    const v16 a = load_##T(thin + q * n + i);                                      \
                    const v16 b = load_##T(thin + q * n + i + LANES);                              \
                    for (int m = 0; m < EIGHT; m++) {                                              \
                        sum[m][0] += mine[m][q] * a;                                               \
                        sum[m][1] += mine[m][q] * b;                                               \
                    }                                                                              \
                }                                                                                  \
                for (int64_t m = 0; m < some; m++) {                                               \
                    T *to = y + (t + m) * n + i;                                                   \
                    save_##T(to, load_##T(to) + scale * sum[m][0]);                                \
                    save_##T(to + LANES, load_##T(to + LANES) + scale * sum[m][1]);                \
                }                                                                                  \
            }                                                                                      \
            for (int64_t m = 0; m < some; m++) {                                                   \
                for (int64_t j = i; j < n; j++) {                                                  \
                    float all = 0.0f;                                                              \
                    for (int64_t q = 0; q < r; q++)                                                \
                        all += mine[m][q] * get_##T(thin + q * n + j);                             \
                    T *to = y + (t + m) * n + j;                                                   \
                    put_##T(to, get_##T(to) + scale * all);                                        \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

/* Columns i to i + C * LANES of four rows of thin, as below. */
#define LEARN_TILE(T, C)                                                                           \
    static inline void tile_##T##_##C(const float *low, const T *x, T *thin, int64_t rows,         \
                                      int64_t n, int64_t r, float scale)                           \
    {                                                                                              \
        v16 sum[FOUR][C];                                                                          \
        memset(sum, 0, sizeof sum);                                                                \
        for (int64_t t = 0; t < rows; t++) {                                                       \
            v16 a[C];                                                                              \
            for (int c = 0; c < C; c++)                                                            \
                a[c] = load_##T(x + t * n + c * LANES);                                            \
            for (int k = 0; k < FOUR; k++)                                                         \
                for (int c = 0; c < C; c++)                                                        \
                    sum[k][c] += low[t * r + k] * a[c];                                            \
        }                                                                                          \
        for (int k = 0; k < FOUR; k++)                                                             \
            for (int c = 0; c < C; c++)                                                            \
                save_##T(thin + k * n + c * LANES, scale * sum[k][c]);                             \
    }

/* thin (r, n) = scale * low (rows, r) transposed @ x (rows, n), in columns that the cache holds. */
#define THIN_LEARN(T)                                                                              \
    LEARN_TILE(T, 4)                                                                               \
    LEARN_TILE(T, 1)                                                                               \
    void thin_learn_##T(const float *low, const T *x, T *thin, int64_t rows, int64_t n, int64_t r, \
                        float scale, int threads)                                                  \
    {                                                                                              \
        const int64_t wide = n / (4 * LANES) * (4 * LANES), whole = n / LANES * LANES;             \
        ROWS                                                                                       \
        for (int64_t i = 0; i < wide; i += 4 * LANES)                                              \
            for (int64_t q = 0; q < r; q += FOUR)                                                  \
                tile_##T##_4(low + q, x + i, thin + q * n + i, rows, n, r, scale);                 \
        for (int64_t i = wide; i < whole; i += LANES)                                              \
            for (int64_t q = 0; q < r; q += FOUR)                                                  \
                tile_##T##_1(low + q, x + i, thin + q * n + i, rows, n, r, scale);                 \
        for (int64_t q = 0; q < r; q++) {                                                          \
            for (int64_t j = whole; j < n; j++) {                                                  \
                float all = 0.0f;                                                                  \
                for (int64_t t = 0; t < rows; t++)                                                 \
                    all += low[t * r + q] * get_##T(x + t * n + j);                                \
                put_##T(thin + q * n + j, scale * all);                                            \
            }                                                                                      \
        }                                                                                          \
    }

#define ALL(T)                                                                                     \
    THIN_READ(T)                                                                                   \
    THIN_ADD(T)                                                                                    \
    THIN_LEARN(T)

ALL(f32)
ALL(bf16)
