// Runs selftest.cu. Without an argument: what must work. With a kernel's name: one that must end the process.
#include <algorithm>
#include <chrono>
#include <string>

#include "cuda_emu.h"

using namespace emu;

static int failures = 0;
static void check(bool right, const char* what) {
    if (!right) {
        fprintf(stderr, "selftest: %s\n", what);
        failures++;
    }
}
template <class... A> static void run(const char* name, unsigned grid, unsigned block, A... a) {
    void* params[] = {&a...};
    const Kernel* k = find(name, 75);
    if (!k || k->n_params != sizeof...(A)) {
        fprintf(stderr, "selftest: no kernel %s with %zu parameters\n", name, sizeof...(A));
        exit(2);
    }
    dim3 g, b;
    g.x = grid;
    b.x = block;
    launch(name, g, b, k->bind(params));
}

static void works() {
    const int n = 1000;
    std::vector<float> in(n), out(64);
    for (int i = 0; i < n; i++) in[i] = (float)(i % 7 - 3);
    float sum = 0;
    for (float v : in) sum += v;
    run("block_sum", 64u, 256u, (const float*)in.data(), out.data(), n);
    for (float v : out) check(v == sum, "block_sum: wrong");

    // The race shows as NaN or as an old value, unless the warp that reads happens to run last.
    int wrong = 0;
    for (int k = 0; k < 40; k++) {
        std::vector<float> other(in);
        for (float& v : other) v += (float)k;
        run("block_sum_without_barrier", 1u, 256u, (const float*)other.data(), out.data(), n);
        wrong += out[0] != sum + (float)(k * n);
    }
    check(wrong >= 20, "block_sum_without_barrier: the missing barrier was not found");

    std::vector<int> list(n, -1), want;
    int count = -1;
    for (int i = 0; i < n; i++)
        if (in[i] > 0) want.push_back(i);
    run("compact", 1u, 128u, (const float*)in.data(), list.data(), &count, n);
    check(count == (int)want.size(), "compact: wrong count");
    check(std::equal(want.begin(), want.end(), list.begin()), "compact: wrong list");

    std::vector<float> part(100);
    unsigned counter = 0;
    for (int k = 0; k < 3; k++) {
        float total = 0;
        run("last_block", 100u, 64u, part.data(), &total, &counter);
        check(total == 5050.0f && counter == 0, "last_block: wrong");
    }

    std::vector<int> o(64 * 8, -1);
    run("lanes", 1u, 64u, o.data());
    for (int t = 0; t < 64; t++) {
        int lane = t & 31, *r = &o[t * 8];
        check(r[0] == (lane == 31 ? t : t + 1), "__shfl_down_sync: wrong");
        check(r[1] == (lane == 0 ? t : t - 1), "__shfl_up_sync: wrong");
        check(r[2] == t - lane % 8, "__shfl_sync: wrong");
        if (lane < 16) check(r[3] == 16 * (t - lane) + 120, "__shfl_xor_sync: wrong");
        check(r[4] == 2, "__any_sync, __all_sync: wrong");
        check(r[5] == 22, "__syncthreads_count: wrong");
        check(r[6] == 2, "__syncthreads_or, _and: wrong");
        check(r[7] == (lane < 8 ? 0xaa : -1), "__ballot_sync: wrong");
    }

    std::vector<unsigned short> same(65536), twice(65536);
    run("halves", 256u, 256u, same.data(), twice.data(), 65536);
    for (unsigned i = 0; i < 65536; i++) {
        unsigned rest = i & 0x7fff;
        if (rest > 0x7c00) continue;
        check(same[i] == i, "half: not the same after a conversion to float and back");
        unsigned want = rest >= 0x7800 ? 0x7c00 : rest >= 0x400 ? rest + 0x400 : rest * 2;
        check(twice[i] == (want | (i & 0x8000)), "half: h + h is wrong");
    }
    fprintf(stderr, "%s\n", failures ? "selftest: failed" : "selftest: ok");
}

int main(int argc, char** argv) {
    std::string name = argc > 1 ? argv[1] : "";
    auto start = std::chrono::steady_clock::now();
    if (name == "") {
        works();
        for (int k = 0; k < 20; k++) {
            std::vector<float> in(100000, 1.0f), out(1);
            run("block_sum", 1u, 256u, (const float*)in.data(), out.data(), 100000);
        }
        fprintf(stderr, "%.1f ms\n",
                std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
        return failures != 0;
    }
    float* memory = new float[64]();
    if (name == "out_of_bounds") run("out_of_bounds", 1u, 32u, memory, 64);
    else if (name == "out_of_shared_bounds") run("out_of_shared_bounds", 1u, 32u, memory, 1);
    else if (name == "misaligned") run("misaligned", 1u, 32u, (const float*)memory, memory);
    else run(name.c_str(), 1u, name == "mask_of_absent_lanes" ? 32u : 64u, (int*)memory);
    fprintf(stderr, "selftest: %s did not end the process\n", name.c_str());
    return 0;
}
