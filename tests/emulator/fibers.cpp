// Runs CUDA blocks as fibers on one machine thread. Which ready fiber runs next is random (EMU_SEED), so that a result
// that depends on a missing barrier changes from run to run. A fiber that waits in a barrier or a warp operation is not
// ready; when none is ready and some live, the block is stuck and the process ends with a message.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <link.h>
#include <mutex>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__) && !defined(EMU_UCONTEXT)
#define EMU_UCONTEXT 1
#endif
#if EMU_UCONTEXT
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Last: its macros are no names for the standard library.
#include "cuda_emu.h"
#include "fibers.h"

namespace emu {

// Sanitizers make frames larger.
static const size_t STACK = 256 << 10;
// Not a multiple of 8 KiB together with the stack, and each stack begins in other lines of a page than its neighbours: fibers would
// otherwise drive one another out of the caches and the table of pages.
static const size_t GUARD = (64 + 4) << 10;
static const size_t LINE = 64, LINES_OF_PAGE = 64, LINES_APART = 7;
static const unsigned MAX_THREADS = 1024;

// One call that lanes of a warp make together.
struct WarpOp {
    unsigned mask = 0, arrived = 0;
    Wait kind{};
    Place place{};
    uint64_t value[32];
    unsigned char source[32];
};
struct Warp {
    unsigned present = 0, exited = 0;
    unsigned begun = 0; // which of `ops` wait for lanes
    WarpOp ops[32];
};

struct Thread : Running {
    const char* kernel = "";
    const std::function<void()>* call = nullptr;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<unsigned> ready;
    char* stacks = nullptr;
    unsigned n_threads = 0, live = 0, at_barrier = 0;
    int votes = 0;
    Place barrier_place{};
    void* home = nullptr;
    uint64_t random = 0;
    bool looked_for_shared = false;
    char* shared = nullptr;
    size_t shared_size = 0;
#if defined(__SANITIZE_ADDRESS__)
    const void* home_stack = nullptr;
    size_t home_size = 0;
#endif
#if EMU_UCONTEXT
    std::vector<ucontext_t> contexts;
    ucontext_t home_context;
#endif
};

__thread Running* running = nullptr;
static Thread& self() { return *static_cast<Thread*>(running); }

static uint64_t seed() {
    static const uint64_t s = [] {
        const char* text = getenv("EMU_SEED");
        return text ? strtoull(text, nullptr, 0) : 1;
    }();
    return s;
}
static uint64_t next_random(uint64_t& state) { // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
uint64_t random_number() {
    static std::atomic<uint64_t> n{0};
    uint64_t state = seed() * 0x2545f4914f6cdd1dull + n++;
    return next_random(state);
}
// A number below n.
static unsigned pick(Thread& t, unsigned n) { return (unsigned)((next_random(t.random) >> 32) * n >> 32); }

// ---- Switching ----

#if !EMU_UCONTEXT
extern "C" void emu_switch(void** save, void* to);
asm(R"(
.text
.p2align 4
.globl emu_switch
.hidden emu_switch
.type emu_switch,@function
emu_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp,(%rdi)
    mov %rsi,%rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size emu_switch,.-emu_switch
)");
#endif

static char* stack_of(Thread& t, unsigned i) { return t.stacks + (size_t)i * (STACK + GUARD) + GUARD; }

// From `from` (nullptr: the thread itself) to `to` (nullptr: back). `last` when `from` never runs again.
__attribute__((noinline)) static void change(Thread& t, Fiber* from, Fiber* to, bool last) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    if (to) __sanitizer_start_switch_fiber(last ? nullptr : &fake, stack_of(t, to->linear), STACK);
    else __sanitizer_start_switch_fiber(last ? nullptr : &fake, t.home_stack, t.home_size);
#else
    (void)last;
#endif
    t.fiber = to;
#if !EMU_UCONTEXT
    emu_switch(from ? &from->sp : &t.home, to ? to->sp : t.home);
#else
    swapcontext(from ? &t.contexts[from->linear] : &t.home_context, to ? &t.contexts[to->linear] : &t.home_context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(fake, &bottom, &size);
#endif
}

// ---- Messages ----

static const char* name_of(Wait kind) {
    switch (kind) {
    case Wait::block: return "__syncthreads";
    case Wait::bar: return "__syncwarp";
    case Wait::shuffle: return "a shuffle";
    case Wait::vote: return "a vote";
    default: return "nothing";
    }
}
static const char* file_of(const Place& p) {
    const char* slash = strrchr(p.file_name(), '/');
    return slash ? slash + 1 : p.file_name();
}
static bool same(const Place& a, const Place& b) {
    return a.line() == b.line() && (a.file_name() == b.file_name() || !strcmp(a.file_name(), b.file_name()));
}

[[noreturn]] static void end() {
    Thread& t = self();
    int shown = 0;
    for (const Fiber& f : t.fibers) {
        if (f.linear >= t.n_threads || f.wait == Wait::ready || f.wait == Wait::done) continue;
        fprintf(stderr, "    thread (%u,%u,%u) waits in %s, %s:%u\n", f.tid.x, f.tid.y, f.tid.z, name_of(f.wait),
                file_of(f.place), (unsigned)f.place.line());
        if (++shown == 8) break;
    }
    fflush(stderr);
    abort();
}
[[noreturn]] void fail(const char* what, Place place) {
    Thread& t = self();
    uint3 b = t.block.index, f = t.fiber ? t.fiber->tid : uint3{};
    fprintf(stderr, "emulator: kernel %s, block (%u,%u,%u), thread (%u,%u,%u), %s:%u: %s\n", t.kernel, b.x, b.y, b.z,
            f.x, f.y, f.z, file_of(place), (unsigned)place.line(), what);
    end();
}
// Apart from its callers, whose frames all fibers have: less of a cache is theirs.
[[noreturn]] __attribute__((noinline, cold)) static void diverged(const char* what, const char* kind, Place others,
                                                                  Place place) {
    char text[160];
    snprintf(text, sizeof text, "divergent %s %s%s%s:%u", what, kind, *kind ? ", " : "", file_of(others),
             (unsigned)others.line());
    fail(text, place);
}
[[noreturn]] static void stuck() {
    Thread& t = self();
    uint3 b = t.block.index;
    unsigned done = (unsigned)std::count_if(t.fibers.begin(), t.fibers.begin() + t.n_threads,
                                            [](const Fiber& f) { return f.wait == Wait::done; });
    fprintf(stderr, "emulator: deadlock in kernel %s, block (%u,%u,%u): %u threads have returned, %u wait:\n", t.kernel,
            b.x, b.y, b.z, done, t.n_threads - done);
    end();
}

// ---- Scheduling ----

static Fiber* take_ready(Thread& t) {
    if (t.ready.empty()) return nullptr;
    unsigned at = pick(t, (unsigned)t.ready.size());
    Fiber* f = &t.fibers[t.ready[at]];
    t.ready[at] = t.ready.back();
    t.ready.pop_back();
    return f;
}
static void make_ready(Thread& t, Fiber& f) {
    f.wait = Wait::ready;
    t.ready.push_back(f.linear);
}
static void wait_in(Thread& t, Wait kind, Place place) {
    Fiber* me = t.fiber;
    me->wait = kind;
    me->place = place;
    Fiber* to = take_ready(t);
    if (!to) stuck();
    change(t, me, to, false);
}
void yield(bool poll) {
    Thread& t = self();
    if (t.ready.empty()) {
        if (poll) sched_yield();
        return;
    }
    Fiber* me = t.fiber;
    Fiber* to = take_ready(t);
    make_ready(t, *me);
    change(t, me, to, false);
}
void maybe_yield() {
    if (pick(self(), 4) == 0) yield(false);
}

static void release_block(Thread& t) {
    for (unsigned i = 0; i < t.n_threads; i++) {
        Fiber& f = t.fibers[i];
        if (f.wait != Wait::block) continue;
        f.result = (uint64_t)t.votes;
        if (&f != t.fiber) make_ready(t, f);
        else f.wait = Wait::ready;
    }
    t.at_barrier = 0;
    t.votes = 0;
}
int block_barrier(bool predicate, int, Place place) {
    Thread& t = self();
    Fiber* me = t.fiber;
    if (t.at_barrier == 0) t.barrier_place = place;
    else if (!same(t.barrier_place, place)) {
        diverged("__syncthreads: other threads are at", "", t.barrier_place, place);
    }
    t.at_barrier++;
    t.votes += predicate;
    if (t.at_barrier == t.live) {
        me->wait = Wait::block;
        release_block(t);
        maybe_yield();
    } else {
        wait_in(t, Wait::block, place);
    }
    return (int)me->result;
}

static void complete(Thread& t, unsigned warp, WarpOp& op) {
    unsigned votes = 0;
    if (op.kind == Wait::vote)
        for (unsigned i = 0; i < 32; i++)
            if (op.arrived >> i & 1 && op.value[i]) votes |= 1u << i;
    for (unsigned i = 0; i < 32; i++) {
        if (!(op.arrived >> i & 1)) continue;
        Fiber& f = t.fibers[warp * 32 + i];
        if (op.kind == Wait::vote) f.result = votes;
        if (op.kind == Wait::shuffle) {
            if (!(op.arrived >> op.source[i] & 1)) fail("a shuffle reads from a lane that takes no part in it", op.place);
            f.result = op.value[op.source[i]];
        }
        if (&f != t.fiber) make_ready(t, f);
    }
    op.arrived = 0;
    Warp& w = t.warps[warp];
    w.begun &= ~(1u << (&op - w.ops));
}
uint64_t warp_op(Wait kind, unsigned mask, uint64_t value, int source, Place place) {
    Thread& t = self();
    Fiber* me = t.fiber;
    unsigned warp = me->linear / 32, lane = me->linear & 31;
    Warp& w = t.warps[warp];
    if (!(mask >> lane & 1)) fail("the mask of a warp operation leaves out the lane that calls it", place);
    WarpOp* op = nullptr;
    for (unsigned left = w.begun; left && !op; left &= left - 1) {
        WarpOp& o = w.ops[__builtin_ctz(left)];
        if (o.mask == mask) op = &o;
    }
    if (!op) {
        // The 31 others wait in one each at most.
        unsigned unused = (unsigned)__builtin_ctz(~w.begun);
        w.begun |= 1u << unused;
        op = &w.ops[unused];
        op->mask = mask;
        op->kind = kind;
        op->place = place;
    } else if (op->kind != kind || !same(op->place, place)) {
        diverged("warp operation: other lanes of the same mask are in", name_of(op->kind), op->place, place);
    }
    op->arrived |= 1u << lane;
    op->value[lane] = value;
    op->source[lane] = (unsigned char)source;
    if (op->arrived == (mask & w.present & ~w.exited)) {
        complete(t, warp, *op);
        maybe_yield();
    } else {
        wait_in(t, kind, place);
    }
    return me->result;
}

// What other threads wait for may be this one's end.
static void leave(Thread& t) {
    Fiber& me = *t.fiber;
    me.wait = Wait::done;
    t.live--;
    Warp& w = t.warps[me.linear / 32];
    w.exited |= 1u << (me.linear & 31);
    for (unsigned left = w.begun; left; left &= left - 1) {
        WarpOp& op = w.ops[__builtin_ctz(left)];
        if (op.arrived == (op.mask & w.present & ~w.exited)) complete(t, me.linear / 32, op);
    }
    if (t.live && t.at_barrier == t.live) release_block(t);
}
#if defined(__SANITIZE_ADDRESS__)
__attribute__((no_sanitize("address")))
#endif
static void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (!self().home_stack) {
        self().home_stack = bottom;
        self().home_size = size;
    }
#endif
    (*self().call)();
    Thread& t = self();
    leave(t);
    Fiber* to = take_ready(t);
    if (!to && t.live) stuck();
    change(t, t.fiber, to, true);
    abort();
}

static void prepare(Thread& t, unsigned i) {
    Fiber& f = t.fibers[i];
    dim3 n = t.block.size;
    f.linear = i;
    f.tid = {i % n.x, i / n.x % n.y, i / (n.x * n.y)};
    f.wait = Wait::ready;
#if !EMU_UCONTEXT
    void** sp = (void**)(stack_of(t, i) + STACK - i * LINES_APART % LINES_OF_PAGE * LINE);
    *--sp = nullptr;
    *--sp = (void*)fiber_main;
    for (int k = 0; k < 6; k++) *--sp = nullptr;
    f.sp = sp;
#else
    ucontext_t& c = t.contexts[i];
    getcontext(&c);
    c.uc_stack.ss_sp = stack_of(t, i);
    c.uc_stack.ss_size = STACK;
    c.uc_link = nullptr;
    makecontext(&c, fiber_main, 0);
#endif
    t.ready.push_back(i);
}

#ifdef EMU_STATIC_SHARED
static std::mutex one_block;
static void poison_shared() {}
#else
// Fills what this library has per thread, which is `__shared__` and `running`, with a pattern: floats become NaN.
static void poison_shared() {
    Thread& t = self();
    if (!t.looked_for_shared) {
        auto look = [](dl_phdr_info* info, size_t, void* thread) {
            Thread& t = *(Thread*)thread;
            char *inside = (char*)&running, *data = (char*)info->dlpi_tls_data;
            for (int i = 0; i < info->dlpi_phnum; i++) {
                const auto& h = info->dlpi_phdr[i];
                if (h.p_type != PT_TLS || !data || inside < data || inside >= data + h.p_memsz) continue;
                t.shared = data;
                t.shared_size = h.p_memsz;
            }
            return 0;
        };
        dl_iterate_phdr(look, &t);
        t.looked_for_shared = true;
    }
    if (t.shared) memset(t.shared, 0xff, t.shared_size);
    running = &t;
}
#endif

static Thread& this_thread() {
    if (!running) {
        Thread* t = new Thread;
        size_t bytes = (STACK + GUARD) * MAX_THREADS;
        void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) abort();
        t->stacks = (char*)p;
        for (unsigned i = 0; i < MAX_THREADS; i++) mprotect(t->stacks + (size_t)i * (STACK + GUARD), GUARD, PROT_NONE);
        t->random = random_number();
        t->fibers.resize(MAX_THREADS);
        t->warps.resize(MAX_THREADS / 32);
#if EMU_UCONTEXT
        t->contexts.resize(MAX_THREADS);
#endif
        running = t;
    }
    return self();
}
void end_thread() {
    if (!running) return;
#if defined(__SANITIZE_ADDRESS__)
    // Whoever gets these addresses next does not know what was marked there.
    __asan_unpoison_memory_region(self().stacks, (STACK + GUARD) * MAX_THREADS);
#endif
    munmap(self().stacks, (STACK + GUARD) * MAX_THREADS);
    delete &self();
    running = nullptr;
}

static void run_block(Thread& t) {
    t.live = t.n_threads;
    t.at_barrier = 0;
    t.votes = 0;
    t.ready.clear();
    for (unsigned i = 0; i < (t.n_threads + 31) / 32; i++) {
        Warp& w = t.warps[i];
        unsigned n = std::min(32u, t.n_threads - i * 32);
        w.present = n == 32 ? ~0u : (1u << n) - 1;
        w.exited = 0;
        for (; w.begun; w.begun &= w.begun - 1) w.ops[__builtin_ctz(w.begun)].arrived = 0;
    }
    for (unsigned i = 0; i < t.n_threads; i++) prepare(t, i);
    change(t, nullptr, take_ready(t), false);
}

void launch(const char* name, dim3 grid, dim3 block, const std::function<void()>& call) {
    Thread& t = this_thread();
    t.kernel = name;
    t.block.grid = grid;
    t.block.size = block;
    t.n_threads = block.x * block.y * block.z;
    t.call = &call;
    size_t n_blocks = (size_t)grid.x * grid.y * grid.z;
    // Any odd step that has no common factor with the count visits each block once.
    size_t at = n_blocks ? next_random(t.random) % n_blocks : 0, step = 1;
    if (n_blocks > 2) {
        step = next_random(t.random) % n_blocks;
        while (std::__gcd(step, n_blocks) != 1) step = (step + 1) % n_blocks;
    }
    for (size_t i = 0; i < n_blocks; i++) {
        t.block.index = {(unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y), (unsigned)(at / grid.x / grid.y)};
#ifdef EMU_STATIC_SHARED
        std::lock_guard<std::mutex> lock(one_block);
#endif
        if (i % 16 == 0) poison_shared();
        run_block(t);
        at = (at + step) % n_blocks;
    }
}

// ---- Kernels by name ----

Kernel*& Kernel::first() {
    static Kernel* k = nullptr;
    return k;
}
Kernel::Kernel(const char* name, int arch, size_t n, std::function<void()> (*bind)(void**),
               std::vector<const void*> (*pointers)(void**))
    : name(name), arch(arch), n_params(n), bind(bind), pointers(pointers), next(first()) {
    first() = this;
}
const Kernel* find(const char* name, int arch) {
    const Kernel* best = nullptr;
    for (const Kernel* k = Kernel::first(); k; k = k->next)
        if (!strcmp(k->name, name) && k->arch <= arch && (!best || k->arch > best->arch)) best = k;
    return best;
}
} // namespace emu

unsigned long long emu_globaltimer() {
    emu::yield(true);
    return (unsigned long long)std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}
