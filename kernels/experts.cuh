// Groups of neurons that a router chooses among: what the card has of each.
#pragma once
#include "common.cuh"

// An entry of a layer's index, by row of its router; mirrored in src/gpu/ops/experts.rs.
struct Expert {
    // Rows of hot neurons, [n_hot][width] each; up is null where there is no gate.
    const unsigned char* mask;
    const unsigned char* up;
    const unsigned char* down;
    int n_hot;
    int group; // its number in the layer
};
static_assert(sizeof(Expert) == 32, "mirrored by the host");

// What is counted of a group that is not chosen.
#define NOT_CHOSEN 0xffffffffu
