/* A decoder's layer for the few tokens of a step of generation.

   Such a step is bound by memory: every weight is read once and used for all tokens at once. Sums
   are in float32; each is computed by one thread, so the number of threads changes no bit. */

#include "lanes.h"

/* out[m][r] = row[r] . x[m]: four rows of weights with M tokens, each weight read once.

   What is read next, `ahead` numbers on, is fetched meanwhile: products and memory overlap. */
#define BLOCK 4
#define DOTS(T, M)                                                                                 \
    static inline void dots_##T##_##M(const T *const *row, const T *const *x, int64_t n,           \
                                      int64_t ahead, float (*out)[BLOCK])                          \
    {                                                                                              \
        v16 sum[M][BLOCK];                                                                         \
        memset(sum, 0, sizeof sum);                                                                \
        int64_t i = 0;                                                                             \
        for (; i + STRIDE_##T <= n; i += STRIDE_##T) {                                             \
            pairs_##T w[BLOCK];                                                                    \
            for (int r = 0; r < BLOCK; r++) {                                                      \
                w[r] = many_##T(row[r] + i);                                                       \
                __builtin_prefetch(row[r] + i + ahead);                                            \
            }                                                                                      \
            for (int m = 0; m < M; m++) {                                                          \
                const pairs_##T y = many_##T(x[m] + i);                                            \
                for (int r = 0; r < BLOCK; r++)                                                    \
                    sum[m][r] = more_##T(sum[m][r], w[r], y);                                      \
            }                                                                                      \
        }                                                                                          \
        for (int m = 0; m < M; m++) {                                                              \
            totals(sum[m], out[m]);                                                                \
            for (int r = 0; r < BLOCK; r++)                                                        \
                for (int64_t j = i; j < n; j++)                                                    \
                    out[m][r] += get_##T(row[r] + j) * get_##T(x[m] + j);                          \
        }                                                                                          \
    }

/* The same for any number of tokens up to BLOCK. */
#define DOTS_OF_ANY(T)                                                                             \
    DOTS(T, 1)                                                                                     \
    DOTS(T, 2)                                                                                     \
    DOTS(T, 4)                                                                                     \
    static inline void dots_##T(const T *const *row, const T **x, int64_t tokens, int64_t n,       \
                                int64_t ahead, float (*out)[BLOCK])                                \
    {                                                                                              \
        if (tokens == 1) {                                                                         \
            dots_##T##_1(row, x, n, ahead, out);                                                   \
        } else if (tokens == 2) {                                                                  \
            dots_##T##_2(row, x, n, ahead, out);                                                   \
        } else {                                                                                   \
            for (int64_t m = tokens; m < BLOCK; m++)                                               \
                x[m] = x[0];                                                                       \
            dots_##T##_4(row, x, n, ahead, out);                                                   \
        }                                                                                          \
    }

/* Four rows of a matrix from the i-th on; beyond its end the last one repeats. */
#define ROWS_FROM(T, row, matrix, i, rows, width)                                                  \
    const T *row[BLOCK];                                                                           \
    for (int64_t r_ = 0; r_ < BLOCK; r_++)                                                         \
        row[r_] = (matrix) + LEAST((i) + r_, (rows) - 1) * (width)

/* out (tokens, rows) = x (tokens, width) @ matrix (rows, width) transposed. */
#define LINEAR(T, PUT)                                                                             \
    void linear_##T(const T *x, const T *matrix, T *out, int64_t tokens, int64_t rows,             \
                    int64_t width, int threads)                                                    \
    {                                                                                              \
        ROWS                                                                                       \
        for (int64_t i = 0; i < rows; i += BLOCK) {                                                \
            ROWS_FROM(T, row, matrix, i, rows, width);                                             \
            for (int64_t t = 0; t < tokens; t += BLOCK) {                                          \
                const int64_t some = LEAST(tokens - t, BLOCK);                                     \
                const T *mine[BLOCK];                                                              \
                float found[BLOCK][BLOCK];                                                         \
                for (int64_t m = 0; m < some; m++)                                                 \
                    mine[m] = x + (t + m) * width;                                                 \
                dots_##T(row, mine, some, width, BLOCK * width, found);                            \
                for (int64_t m = 0; m < some; m++)                                                 \
                    for (int64_t r = 0; r < LEAST(rows - i, BLOCK); r++)                           \
                        PUT(out + (t + m) * rows + i + r, found[m][r]);                            \
            }                                                                                      \
        }                                                                                          \
    }

/* A mixture's layer: out[t] = sum over k of share[t, k] * expert[t, k](x[t]).

   Experts that nobody visits are not read. act is room for tokens * top_k rows of inner, out is
   float32. */
#define MIXTURE(T, PUT)                                                                            \
    void mixture_##T(const T *x, const int64_t *expert, const float *share, const T *gate_up,      \
                     const T *down, T *act, float *out, int64_t tokens, int64_t top_k,             \
                     int64_t experts, int64_t width, int64_t inner, int threads)                   \
    {                                                                                              \
        memset(out, 0, sizeof(float) * (size_t)(tokens * width));                                  \
        for (int64_t e = 0; e < experts; e++) {                                                    \
            const T *gates = gate_up + e * 2 * inner * width, *ups = gates + inner * width;        \
            const T *downs = down + e * width * inner;                                             \
            int64_t mine[MOST_VISITS], visits = 0;                                                 \
            for (int64_t v = 0; v < tokens * top_k; v++)                                           \
                if (expert[v] == e)                                                                \
                    mine[visits++] = v;                                                            \
            if (visits == 0)                                                                       \
                continue;                                                                          \
            ROWS                                                                                   \
            for (int64_t i = 0; i < inner; i += 2) {                                               \
                const int64_t j = LEAST(i + 1, inner - 1);                                         \
                const T *row[BLOCK] = {gates + i * width, gates + j * width, ups + i * width,      \
                                       ups + j * width};                                           \
                for (int64_t t = 0; t < visits; t += BLOCK) {                                      \
                    const int64_t some = LEAST(visits - t, BLOCK);                                 \
                    const T *who[BLOCK];                                                           \
                    float f[BLOCK][BLOCK];                                                         \
                    for (int64_t m = 0; m < some; m++)                                             \
                        who[m] = x + mine[t + m] / top_k * width;                                  \
                    dots_##T(row, who, some, width, 2 * width, f);                                 \
                    for (int64_t m = 0; m < some; m++) {                                           \
                        T *to = act + mine[t + m] * inner;                                         \
                        PUT(to + i, f[m][0] * sigmoid(f[m][0]) * f[m][2]);                         \
                        PUT(to + j, f[m][1] * sigmoid(f[m][1]) * f[m][3]);                         \
                    }                                                                              \
                }                                                                                  \
            }                                                                                      \
            ROWS                                                                                   \
            for (int64_t i = 0; i < width; i += BLOCK) {                                           \
                ROWS_FROM(T, row, downs, i, width, inner);                                         \
                for (int64_t t = 0; t < visits; t += BLOCK) {                                      \
                    const int64_t some = LEAST(visits - t, BLOCK);                                 \
                    const T *who[BLOCK];                                                           \
                    float f[BLOCK][BLOCK];                                                         \
                    for (int64_t m = 0; m < some; m++)                                             \
                        who[m] = act + mine[t + m] * inner;                                        \
                    dots_##T(row, who, some, inner, BLOCK * inner, f);                             \
                    for (int64_t m = 0; m < some; m++)                                             \
                        for (int64_t r = 0; r < LEAST(width - i, BLOCK); r++)                      \
                            out[mine[t + m] / top_k * width + i + r] +=                            \
                                share[mine[t + m]] * f[m][r];                                      \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

/* out = x / rms(x) * weight, rounded where LLaMA rounds. */
#define RMS_NORM(T, GET, PUT)                                                                      \
    void rms_norm_##T(const T *x, const T *weight, T *out, int64_t tokens, int64_t width,          \
                      float epsilon)                                                               \
    {                                                                                              \
        for (int64_t t = 0; t < tokens; t++) {                                                     \
            const T *restrict from = x + t * width;                                                \
            T *restrict to = out + t * width;                                                      \
            float sum = 0.0f;                                                                      \
            EACH                                                                                   \
            for (int64_t i = 0; i < width; i++)                                                    \
                sum += GET(from + i) * GET(from + i);                                              \
            const float scale = 1.0f / sqrtf(sum / (float)width + epsilon);                        \
            EACH                                                                                   \
            for (int64_t i = 0; i < width; i++) {                                                  \
                T rounded;                                                                         \
                PUT(&rounded, GET(from + i) * scale);                                              \
                PUT(to + i, GET(weight + i) * GET(&rounded));                                      \
            }                                                                                      \
        }                                                                                          \
    }

/* Rotate every head of x (tokens, heads, size) in place by its token's cos and sin. */
#define ROTATE(T, GET, PUT)                                                                        \
    void rotate_##T(T *x, const T *cosine, const T *sine, int64_t tokens, int64_t heads,           \
                    int64_t size)                                                                  \
    {                                                                                              \
        const int64_t half = size / 2;                                                             \
        for (int64_t h = 0; h < tokens * heads; h++) {                                             \
            T *restrict a = x + h * size, *restrict b = a + half;                                  \
            const T *restrict c = cosine + h / heads * size, *restrict s = sine + h / heads * size;\
            EACH                                                                                   \
            for (int64_t i = 0; i < half; i++) {                                                   \
                const float p = GET(a + i), q = GET(b + i);                                        \
                PUT(a + i, p * GET(c + i) - q * GET(s + i));                                       \
                PUT(b + i, q * GET(c + half + i) + p * GET(s + half + i));                         \
            }                                                                                      \
        }                                                                                          \
    }

/* One query per head over all keys: out = softmax(scale * q . keys) @ values.

   q and out are (tokens, heads, size), keys and values (tokens, key_heads, seen, size); mask is
   (tokens, seen), 0 where a key is hidden. room holds tokens * heads * (seen + size) floats. */
#define ATTEND(T, GET, PUT)                                                                        \
    void attend_##T(const T *q, const T *keys, const T *values, const uint8_t *mask, float *room,  \
                    T *out, int64_t tokens, int64_t heads, int64_t key_heads, int64_t seen,        \
                    int64_t size, float scale, int threads)                                        \
    {                                                                                              \
        ROWS                                                                                       \
        for (int64_t h = 0; h < tokens * heads; h++) {                                             \
            const int64_t t = h / heads;                                                           \
            const int64_t head = t * key_heads + h % heads / (heads / key_heads);                  \
            const T *key = keys + head * seen * size, *value = values + head * seen * size;        \
            const uint8_t *shown = mask + t * seen;                                                \
            float *restrict score = room + h * (seen + size), *restrict sum = score + seen;        \
            float most = -1e30f, all = 0.0f;                                                       \
            for (int64_t i = 0; i < seen; i += BLOCK) {                                            \
                ROWS_FROM(T, row, key, i, seen, size);                                             \
                const T *mine[BLOCK] = {q + h * size};                                             \
                float found[BLOCK][BLOCK];                                                         \
                dots_##T(row, mine, 1, size, BLOCK * size, found);                                 \
                for (int64_t r = 0; r < LEAST(seen - i, BLOCK); r++) {                             \
                    score[i + r] = shown[i + r] ? scale * found[0][r] : -1e30f;                    \
                    most = score[i + r] > most ? score[i + r] : most;                              \
                }                                                                                  \
            }                                                                                      \
            memset(sum, 0, sizeof(float) * (size_t)size);                                          \
            for (int64_t i = 0; i < seen; i++) {                                                   \
                if (!shown[i])                                                                     \
                    continue;                                                                      \
                const float p = expf(score[i] - most);                                             \
                const T *restrict v = value + i * size;                                            \
                all += p;                                                                          \
                EACH                                                                               \
                for (int64_t j = 0; j < size; j++)                                                 \
                    sum[j] += p * GET(v + j);                                                      \
            }                                                                                      \
            for (int64_t j = 0; j < size; j++)                                                     \
                PUT(out + h * size + j, sum[j] / all);                                             \
        }                                                                                          \
    }

#define ALL(T)                                                                                     \
    DOTS_OF_ANY(T)                                                                                 \
    LINEAR(T, put_##T)                                                                             \
    MIXTURE(T, put_##T)                                                                            \
    RMS_NORM(T, get_##T, put_##T)                                                                  \
    ROTATE(T, get_##T, put_##T)                                                                    \
    ATTEND(T, get_##T, put_##T)

ALL(f32)
ALL(bf16)
