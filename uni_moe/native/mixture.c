/* The elementwise half of a mixture of experts: SwiGLU with a row's share, and the sum of visits.

   Every row is computed by one thread and in one order, so the number of threads changes no bit. */

#include "numbers.h"

/* out = silu(gate) * up * share; gate_up holds [gate | up] of a row. */
#define FORWARD(T, GET, PUT)                                                                       \
    void swiglu_forward_##T(const T *gate_up, const float *share, T *out, int64_t rows,            \
                            int64_t inner, int threads)                                            \
    {                                                                                              \
        ROWS                                                                                       \
        for (int64_t r = 0; r < rows; r++) {                                                       \
            const T *restrict gate = gate_up + r * 2 * inner, *restrict up = gate + inner;         \
            T *restrict to = out + r * inner;                                                      \
            const float w = share[r];                                                              \
            EACH                                                                                   \
            for (int64_t i = 0; i < inner; i++) {                                                  \
                const float g = GET(gate + i);                                                     \
                PUT(to + i, g * sigmoid(g) * GET(up + i) * w);                                     \
            }                                                                                      \
        }                                                                                          \
    }

/* From the gradient of out: of gate_up and of share; and out once more, which nobody kept. */
#define BACKWARD(T, GET, PUT)                                                                      \
    void swiglu_backward_##T(const T *gate_up, const float *share, const T *d_out, T *out,         \
                             T *d_gate_up, float *d_share, int64_t rows, int64_t inner,            \
                             int threads)                                                          \
    {                                                                                              \
        ROWS                                                                                       \
        for (int64_t r = 0; r < rows; r++) {                                                       \
            const T *restrict gate = gate_up + r * 2 * inner, *restrict up = gate + inner;         \
            const T *restrict d = d_out + r * inner;                                               \
            T *restrict to = out + r * inner;                                                      \
            T *restrict d_gate = d_gate_up + r * 2 * inner, *restrict d_up = d_gate + inner;       \
            const float w = share[r];                                                              \
            float total = 0.0f;                                                                    \
            EACH                                                                                   \
            for (int64_t i = 0; i < inner; i++) {                                                  \
                const float g = GET(gate + i), u = GET(up + i), y = GET(d + i);                    \
                const float s = sigmoid(g), silu = g * s;                                          \
                total += y * silu * u;                                                             \
                PUT(to + i, silu * u * w);                                                         \
                PUT(d_gate + i, y * w * u * (s + silu * (1.0f - s)));                              \
                PUT(d_up + i, y * w * silu);                                                       \
            }                                                                                      \
            d_share[r] = total;                                                                    \
        }                                                                                          \
    }

/* out[t] = the sum over k of y[place[t, k]]. */
#define COMBINE(T, GET, PUT)                                                                       \
    void combine_##T(const T *y, const int64_t *place, T *out, int64_t tokens, int64_t top_k,      \
                     int64_t width, int threads)                                                   \
    {                                                                                              \
        ROWS                                                                                       \
        for (int64_t t = 0; t < tokens; t++) {                                                     \
            T *restrict to = out + t * width;                                                      \
            if (top_k == 2) {                                                                      \
                const T *restrict a = y + place[2 * t] * width;                                    \
                const T *restrict b = y + place[2 * t + 1] * width;                                \
                EACH                                                                               \
                for (int64_t i = 0; i < width; i++)                                                \
                    PUT(to + i, GET(a + i) + GET(b + i));                                          \
            } else {                                                                               \
                for (int64_t i = 0; i < width; i++) {                                              \
                    float sum = 0.0f;                                                              \
                    for (int64_t k = 0; k < top_k; k++)                                            \
                        sum += GET(y + place[t * top_k + k] * width + i);                          \
                    PUT(to + i, sum);                                                              \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

FORWARD(f32, get_f32, put_f32)
FORWARD(bf16, get_bf16, put_bf16)
BACKWARD(f32, get_f32, put_f32)
BACKWARD(bf16, get_bf16, put_bf16)
COMBINE(f32, get_f32, put_f32)
COMBINE(bf16, get_bf16, put_bf16)
