// Runs one of ggml's kernels over so many rows: what scripts/instructions.py counts the instructions of, beside ours.
//
//     ggml TYPE dot|pairs|gemv|gemm VECTORS ROWS COLUMNS
//
// dot: one row and one vector at a time. pairs: two rows and two vectors (nrc = 2). gemv and gemm: of repacked weights, for one
// vector and for some times four. Values are zeros: instructions do not depend on them.
#include "ggml-cpu/quants.h"
#include "ggml-cpu/repack.h"
#include "ggml-cpu/vec.h"
#include "ggml.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*dot_kernel)(int, float *, size_t, const void *, size_t, const void *, size_t, int);
typedef void (*product_kernel)(int, float *, size_t, const void *, const void *, int, int);

static void dot_f32(int n, float *s, size_t bs, const void *x, size_t bx, const void *y, size_t by, int nrc) {
    ggml_vec_dot_f32(n, s, bs, (const float *) x, bx, (const float *) y, by, nrc);
}
static void dot_f16(int n, float *s, size_t bs, const void *x, size_t bx, const void *y, size_t by, int nrc) {
    ggml_vec_dot_f16(n, s, bs, (ggml_fp16_t *) x, bx, (ggml_fp16_t *) y, by, nrc);
}
static void dot_bf16(int n, float *s, size_t bs, const void *x, size_t bx, const void *y, size_t by, int nrc) {
    ggml_vec_dot_bf16(n, s, bs, (ggml_bf16_t *) x, bx, (ggml_bf16_t *) y, by, nrc);
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
#define REPACKED(four, eight, type, x) ggml_gemv_##type##_##eight##_##x, ggml_gemm_##type##_##eight##_##x
#define FOUR_ONLY(type, x) ggml_gemv_##type##_4x4_##x, ggml_gemm_##type##_4x4_##x
#elif defined(__ARM_FEATURE_DOTPROD)
#define REPACKED(four, eight, type, x) ggml_gemv_##type##_##four##_##x, ggml_gemm_##type##_##four##_##x
#define FOUR_ONLY(type, x) ggml_gemv_##type##_4x4_##x, ggml_gemm_##type##_4x4_##x
#else
#define REPACKED(four, eight, type, x) NULL, NULL
#define FOUR_ONLY(type, x) NULL, NULL
#endif

static const struct {
    const char *name;
    dot_kernel dot;
    product_kernel gemv, gemm;
} TYPES[] = {
    {"f32", dot_f32, NULL, NULL},
    {"f16", dot_f16, NULL, NULL},
    {"bf16", dot_bf16, NULL, NULL},
    {"q4_0", ggml_vec_dot_q4_0_q8_0, REPACKED(4x4, 4x8, q4_0, q8_0)},
    {"q8_0", ggml_vec_dot_q8_0_q8_0, REPACKED(4x4, 4x8, q8_0, q8_0)},
    {"q4_1", ggml_vec_dot_q4_1_q8_1, NULL, NULL},
    {"q5_0", ggml_vec_dot_q5_0_q8_0, NULL, NULL},
    {"q5_1", ggml_vec_dot_q5_1_q8_1, NULL, NULL},
    {"iq4_nl", ggml_vec_dot_iq4_nl_q8_0, FOUR_ONLY(iq4_nl, q8_0)},
    {"mxfp4", ggml_vec_dot_mxfp4_q8_0, FOUR_ONLY(mxfp4, q8_0)},
    {"q2_k", ggml_vec_dot_q2_K_q8_K, NULL, NULL},
    {"q3_k", ggml_vec_dot_q3_K_q8_K, NULL, NULL},
    {"q4_k", ggml_vec_dot_q4_K_q8_K, REPACKED(8x4, 8x8, q4_K, q8_K)},
    {"q5_k", ggml_vec_dot_q5_K_q8_K, REPACKED(8x4, 8x8, q5_K, q8_K)},
    {"q6_k", ggml_vec_dot_q6_K_q8_K, REPACKED(8x4, 8x8, q6_K, q8_K)},
    {"iq4_xs", ggml_vec_dot_iq4_xs_q8_K, NULL, NULL},
};

int main(int n, char **arguments) {
    if (n != 6) return 2;
    const char *what = arguments[2];
    const int vectors = atoi(arguments[3]), rows = atoi(arguments[4]), columns = atoi(arguments[5]);
    for (size_t t = 0; t < sizeof TYPES / sizeof *TYPES; t++) {
        if (strcmp(TYPES[t].name, arguments[1])) continue;
        // Four bytes an element are enough for any type; the second half is room for what repacked kernels read in groups.
        char *w = (char *) calloc(rows + 16, columns * 4), *x = (char *) calloc(vectors + 16, columns * 8);
        float *out = (float *) calloc((size_t) (rows + 16) * (vectors + 16), sizeof *out);
        if (!strcmp(what, "dot")) {
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < vectors; v++)
                    TYPES[t].dot(columns, out + r, 0, w + (size_t) r * columns * 4, 0, x + (size_t) v * columns * 4, 0, 1);
        } else if (!strcmp(what, "pairs")) {
            for (int r = 0; r < rows; r += 2)
                for (int v = 0; v < vectors; v += 2)
                    TYPES[t].dot(columns, out + r, 16, w + (size_t) r * columns * 4, columns * 4, x + (size_t) v * columns * 4, columns * 4, 2);
        } else if (!strcmp(what, "gemv") && TYPES[t].gemv) {
            for (int v = 0; v < vectors; v++) TYPES[t].gemv(columns, out, rows, w, x, 1, rows);
        } else if (!strcmp(what, "gemm") && TYPES[t].gemm) {
            TYPES[t].gemm(columns, out, rows, w, x, vectors, rows);
        } else {
            return 3;
        }
        return 0;
    }
    return 2;
}
