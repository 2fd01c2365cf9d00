// The KV cache of one layer in device memory. Rows are those of one head and one position: row = head_kv * n_ctx +
// position, n_rows = n_head_kv * n_ctx. It takes as many bytes as rows of the ggml type would.
//
//   f32, f16   keys [n_rows][head_dim], then values
//   q8_0       quants of the keys [n_rows][head_dim] signed bytes, quants of the values, scales of the keys
//              [n_rows][head_dim / 32] f16, scales of the values
//
// head_dim is a multiple of 16, of 32 for q8_0; so eight neighbouring elements can be loaded at once. Those of several sequences
// follow each other, each at a multiple of 256 bytes.
#pragma once
#include "common.cuh"

// Bytes of a row in its plane; for q8_0 those of its quants.
template <int TYPE> DEVICE size_t kv_row(int head_dim) {
    return (size_t)head_dim * (TYPE == TYPE_F32 ? 4 : TYPE == TYPE_F16 ? 2 : 1);
}

// A plane is the keys (0) or the values (1): where its rows begin, counted from the base.
template <int TYPE> DEVICE size_t kv_rows(size_t n_rows, int head_dim, int plane) {
    return plane * n_rows * kv_row<TYPE>(head_dim);
}

// Where the scales of a plane of q8_0 begin.
DEVICE size_t kv_scales(size_t n_rows, int head_dim, int plane) {
    return 2 * n_rows * head_dim + plane * n_rows * (head_dim / QK) * 2;
}

// Where the keys and values of token t's sequence begin, counted from those of the first one; token may be null.
DEVICE size_t kv_of_sequence(const Token* token, int t, int kv_type, size_t n_rows, int head_dim) {
    if (!token) return 0;
    size_t row = kv_type == TYPE_F32 ? 4 * (size_t)head_dim
               : kv_type == TYPE_F16 ? 2 * (size_t)head_dim : (size_t)head_dim + head_dim / QK * 2;
    return token->sequences[t] * ((2 * n_rows * row + 255) & ~(size_t)255);
}
