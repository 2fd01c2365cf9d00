// A stand-in for libcuda.so.1 over the emulator. It is meant to be as unforgiving as hardware is when unlucky:
// * each stream is a queue on its own thread, which starts late by random amounts; nothing is done at the call but
//   copies from pageable memory;
// * device memory begins as 0xFF (NaN) and is watched for writes beside it;
// * addresses, ranges, launch sizes, capture rules and the calling thread's context are checked;
// * an error of a kernel stays, as it does on a device.
//
// Settings, all from the environment:
//   EMU_SEED=n        order of fibers and blocks, delays of streams
//   EMU_VRAM=1G       memory of the device (K, M, G) in granules of 2 MiB; the context takes EMU_CONTEXT [64M] of it
//   EMU_MEMORY_CLOCK=1000000  kHz; 0: the driver does not tell
//   EMU_CC=75         compute capability; EMU_SMS=2 multiprocessors; EMU_DRIVER=12000 version of the driver
//   EMU_TIMEOUT=120   seconds after which a kernel that still runs ends the process with a message
//   EMU_FAIL=list     comma-separated: `cuInit=100` (always), `cuMemAlloc_v2@3=2` (third call), `kernel:NAME=717`,
//                     `kernel:NAME@2=700` (second execution), `kernel:NAME=stall:500` (begins 500 ms late),
//                     `kernel:NAME=wrong` (runs, and what it has written is not what it computed), `kernel:NAME=hang`
//                     (never ends: queries say "not ready", calls that wait never return; the process can still exit),
//                     `cuInit=crash` (ends the process)
//   EMU_EXIT=wait     the library's exit handler waits for all that runs, for ever if a kernel hangs
//   EMU_QUEUE=1024    calls that enqueue more than this on a stream wait until there is room, as a driver's do
#include <algorithm>
#include <cstdarg>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

// Last: its macros are no names for the standard library.
#include "cuda_emu.h"
#include "fibers.h"

typedef int R;
typedef unsigned long long Ptr;
enum : R {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201, NO_BINARY = 209, INVALID_PTX = 218, PTX_VERSION = 222, INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, LAUNCH_RESOURCES = 701,
    ALREADY_REGISTERED = 712, NOT_REGISTERED = 713, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901, CAPTURE_UNMATCHED = 903, CAPTURE_ISOLATION = 905, CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907, CAPTURE_WRONG_THREAD = 908
};

namespace {

const size_t GRANULE = 2 << 20;
const size_t EDGE = 256;
double now_ms() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
size_t size_setting(const char* name, size_t otherwise) {
    const char* text = getenv(name);
    if (!text) return otherwise;
    char* end;
    size_t n = strtoull(text, &end, 0);
    return *end == 'K' ? n << 10 : *end == 'M' ? n << 20 : *end == 'G' ? n << 30 : n;
}
int int_setting(const char* name, int otherwise) { return (int)size_setting(name, (size_t)otherwise); }
void say(const char* format, ...) __attribute__((format(printf, 1, 2)));
void say(const char* format, ...) {
    va_list args;
    va_start(args, format);
    fputs("emulator: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

typedef std::function<R()> Op;
struct Stream;
// A linear list: any order that keeps the dependencies is right, and the order of the calls does.
struct Graph {
    std::vector<Op> ops;
};
struct Capture {
    Graph* graph = new Graph;
    Stream* origin;
    std::thread::id thread;
    int mode;
    bool invalid = false;
};
struct Event {
    bool timing = true, recorded = false, captured = false;
    Capture* capture = nullptr;
    std::atomic<uint64_t> asked{0}, reached{0};
    std::atomic<double> at{0};
    bool destroyed = false;
};
// Work of a stream, and what is made known in the same moment as its end.
struct Item {
    Op op;
    std::function<void()> ended;
};
struct Stream {
    bool blocking = true;
    std::deque<Item> queue;
    uint64_t enqueued = 0, done = 0;
    bool closing = false;
    Capture* capture = nullptr;
};
struct Module {
    std::map<std::string, struct Function*> functions;
};
struct Function {
    const emu::Kernel* kernel;
    std::string name;
    int max_threads = 1024;
    std::atomic<int> executed{0};
};
struct Range {
    size_t size;
    bool device;
    char* base; // of the mapping
    size_t mapped;
};

// Everything is leaked: threads may still run while the process ends.
struct Device {
    std::mutex mutex;
    std::condition_variable changed;
    bool initialized = false;
    int retained = 0;
    std::atomic<int> sticky{0};
    size_t total = size_setting("EMU_VRAM", 1u << 30), used = 0;
    size_t small = 0; // bytes of allocations that share granules
    std::map<Ptr, Range> ranges;
    std::set<Stream*> streams;
    Stream null_stream;
    std::map<std::string, int> calls;
    std::string running; // the kernel that the watchdog looks at
    std::map<const void*, std::pair<std::string, double>> kernels;
};
Device& dev() {
    static Device* d = new Device;
    return *d;
}
typedef std::unique_lock<std::mutex> Lock;
// Only on threads of the host: see poison_shared.
thread_local bool current = false;

// ---- Injected errors ----

struct Failure {
    std::string what;
    int nth; // 0: always
    int code;
    int stall_ms;
    bool wrong = false, hang = false, crash = false;
};
const std::vector<Failure>& failures() {
    static std::vector<Failure>* list = [] {
        auto* l = new std::vector<Failure>;
        std::string text = getenv("EMU_FAIL") ? getenv("EMU_FAIL") : "";
        for (size_t from = 0; from < text.size();) {
            size_t to = std::min(text.find(',', from), text.size());
            std::string item = text.substr(from, to - from);
            from = to + 1;
            size_t equal = item.find('=');
            if (equal == std::string::npos) continue;
            Failure f{item.substr(0, equal), 0, 0, 0};
            std::string value = item.substr(equal + 1);
            if (value.rfind("stall:", 0) == 0) f.stall_ms = atoi(value.c_str() + 6);
            else if (value == "wrong") f.wrong = true;
            else if (value == "hang") f.hang = true;
            else if (value == "crash") f.crash = true;
            else f.code = atoi(value.c_str());
            size_t sign = f.what.find('@');
            if (sign != std::string::npos) {
                f.nth = atoi(f.what.c_str() + sign + 1);
                f.what.resize(sign);
            }
            l->push_back(f);
        }
        return l;
    }();
    return *list;
}
// Errors after which the context is of no use.
bool stays(R code) { return (code >= 700 && code <= 719 && code != 701 && code != 704 && code != 705 && code != 712 && code != 713) || code == 214 || code == 220; }
R injected(const std::string& what, bool* wrong = nullptr) {
    if (failures().empty()) return OK;
    int n;
    {
        Lock l(dev().mutex);
        n = ++dev().calls[what];
    }
    for (const Failure& f : failures()) {
        if (f.what != what || (f.nth && f.nth != n)) continue;
        if (f.stall_ms) std::this_thread::sleep_for(std::chrono::milliseconds(f.stall_ms));
        if (f.wrong && wrong) *wrong = true;
        if (f.crash) abort();
        while (f.hang) std::this_thread::sleep_for(std::chrono::hours(1));
        if (f.code) {
            if (stays(f.code)) dev().sticky = f.code;
            return f.code;
        }
    }
    return OK;
}

// Every call begins with one of these.
#define BEGIN_ANY()                                                                                                    \
    if (R code = injected(__func__)) return code;
#define BEGIN_INITIALIZED()                                                                                            \
    BEGIN_ANY();                                                                                                       \
    if (!dev().initialized) return NOT_INITIALIZED;
#define BEGIN()                                                                                                        \
    BEGIN_INITIALIZED();                                                                                               \
    if (!current || !dev().retained) return (say("%s: no context is current on this thread", __func__), INVALID_CONTEXT); \
    if (R code = dev().sticky) return code;

// ---- Streams ----

void work(Stream* s) {
    Device& d = dev();
    uint64_t random = emu::random_number();
    for (;;) {
        Item item;
        {
            Lock l(d.mutex);
            d.changed.wait(l, [&] { return !s->queue.empty() || s->closing; });
            if (s->queue.empty()) {
                l.unlock();
                delete s;
                emu::end_thread();
                return;
            }
            item = std::move(s->queue.front());
            s->queue.pop_front();
        }
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        if (random >> 61 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random >> 40 & 255));
        // After an error that stays nothing more runs, but all who wait are released.
        if (!d.sticky)
            if (R code = item.op()) {
                R none = 0;
                d.sticky.compare_exchange_strong(none, code);
            }
        Lock l(d.mutex);
        if (item.ended) item.ended();
        s->done++;
        d.changed.notify_all();
    }
}
void start(Stream* s) { std::thread(work, s).detach(); }

Stream* find_stream(void* handle) {
    Device& d = dev();
    if ((size_t)handle <= 2) return &d.null_stream; // 1: legacy, 2: per thread (taken for the same)
    Lock l(d.mutex);
    auto it = d.streams.find((Stream*)handle);
    return it == d.streams.end() ? nullptr : *it;
}
void wait_for(Stream* s, uint64_t n) {
    Lock l(dev().mutex);
    dev().changed.wait(l, [&] { return s->done >= n; });
}
// Locked. The null stream and blocking streams wait for each other.
void order_with_null(Stream* s) {
    Device& d = dev();
    auto after = [&](Stream* other) {
        if (other == s || other->done == other->enqueued) return;
        uint64_t n = other->enqueued;
        s->queue.push_back({[other, n] { return wait_for(other, n), OK; }, nullptr});
        s->enqueued++;
    };
    if (s == &d.null_stream) {
        for (Stream* other : d.streams)
            if (other->blocking) after(other);
    } else if (s->blocking) {
        after(&d.null_stream);
    }
}
R enqueue(Stream* s, Op op, std::function<void()> ended = nullptr) {
    Device& d = dev();
    Lock l(d.mutex);
    if (s->capture) {
        if (s->capture->invalid) return CAPTURE_INVALIDATED;
        s->capture->graph->ops.push_back(std::move(op));
        return OK;
    }
    if (s == &d.null_stream)
        for (Stream* other : d.streams)
            if (other->blocking && other->capture) {
                say("work on the null stream while a blocking stream is being captured");
                other->capture->invalid = true;
                return CAPTURE_IMPLICIT;
            }
    static const size_t room = size_setting("EMU_QUEUE", 1024);
    d.changed.wait(l, [&] { return s->queue.size() < room; });
    order_with_null(s);
    s->queue.push_back({std::move(op), std::move(ended)});
    s->enqueued++;
    d.changed.notify_all();
    return OK;
}
R finish(Stream* s) {
    Device& d = dev();
    Lock l(d.mutex);
    if (s->capture) {
        s->capture->invalid = true;
        return CAPTURE_UNSUPPORTED;
    }
    uint64_t n = s->enqueued;
    d.changed.wait(l, [&] { return s->done >= n; });
    return d.sticky;
}
void finish_all() {
    Device& d = dev();
    Lock l(d.mutex);
    std::vector<std::pair<Stream*, uint64_t>> waits{{&d.null_stream, d.null_stream.enqueued}};
    for (Stream* s : d.streams) waits.push_back({s, s->enqueued});
    for (auto [s, n] : waits) d.changed.wait(l, [&, s = s, n = n] { return (s != &d.null_stream && !d.streams.count(s)) || s->done >= n; });
}
// Some drivers wait when the process ends.
struct AtExit {
    ~AtExit() {
        const char* text = getenv("EMU_EXIT");
        if (text && !strcmp(text, "wait")) finish_all();
    }
} at_exit;
// What may not be called while this thread captures.
R forbidden_in_capture(const char* call) {
    Device& d = dev();
    Lock l(d.mutex);
    for (Stream* s : d.streams) {
        Capture* c = s->capture;
        if (!c || c->mode == 2 || (c->mode == 1 && c->thread != std::this_thread::get_id())) continue;
        say("%s is not allowed while a stream is being captured", call);
        c->invalid = true;
        return CAPTURE_UNSUPPORTED;
    }
    return OK;
}
#define NOT_IN_CAPTURE()                                                                                               \
    if (R code = forbidden_in_capture(__func__)) return code;

// ---- Memory ----

// Locked.
const Range* range_of(Ptr p, Ptr* base) {
    auto& ranges = dev().ranges;
    auto it = ranges.upper_bound(p);
    if (it == ranges.begin()) return nullptr;
    --it;
    if (p >= it->first + std::max<size_t>(it->second.size, 1)) return nullptr;
    *base = it->first;
    return &it->second;
}
bool inside(Ptr p, size_t n, bool device_only) {
    Lock l(dev().mutex);
    Ptr base;
    const Range* r = range_of(p, &base);
    return n == 0 || (r && (r->device || !device_only) && p + n <= base + r->size);
}
bool pinned(const void* p) {
    Lock l(dev().mutex);
    Ptr base;
    const Range* r = range_of((Ptr)p, &base);
    return r && !r->device;
}
#define IN_DEVICE(p, n)                                                                                                \
    if (!inside(p, n, false))                                                                                          \
        return (say("%s: %zu bytes at %#llx are not within one allocation of the device", __func__, (size_t)(n), p), INVALID_VALUE);

size_t rounded(size_t n, size_t to) { return (n + to - 1) / to * to; }
void check_edges(Ptr p, const Range& r) {
#if !defined(__SANITIZE_ADDRESS__)
    if (!r.device) return;
    for (size_t i = 0; i < EDGE + (size_t)(r.base + r.mapped - (char*)p - r.size); i++) {
        bool before = i < EDGE;
        const unsigned char* at = before ? (unsigned char*)p - EDGE + i : (unsigned char*)p + r.size + (i - EDGE);
        if (before && (char*)at < r.base) continue;
        if (at >= (unsigned char*)r.base + r.mapped) break;
        if (*at == 0xff) continue;
        say("something wrote %s an allocation of %zu bytes on the device, at offset %td", before ? "in front of" : "behind", r.size,
            at - (unsigned char*)p);
        abort();
    }
#else
    (void)p, (void)r;
#endif
}

// Locked. Large allocations are whole granules; small ones share them.
void account(size_t n, bool more) {
    Device& d = dev();
    size_t before = rounded(d.small, GRANULE);
    if (n >= GRANULE) {
        d.used += more ? rounded(n, GRANULE) : -rounded(n, GRANULE);
        return;
    }
    d.small += more ? rounded(n, 512) : -rounded(n, 512);
    d.used += rounded(d.small, GRANULE) - before;
}
bool take(size_t n) {
    account(n, true);
    if (dev().used <= dev().total) return true;
    account(n, false);
    return false;
}
void give_back(size_t n) { account(n, false); }

R allocate(Ptr* out, size_t n) {
    Device& d = dev();
    if (n == 0) return INVALID_VALUE;
    Lock l(d.mutex);
    if (!take(n)) return OUT_OF_MEMORY;
    Range r{n, true, nullptr, 0};
    Ptr p;
#if defined(__SANITIZE_ADDRESS__)
    void* at;
    if (posix_memalign(&at, 256, n)) return OUT_OF_MEMORY;
    p = (Ptr)at;
    memset(at, 0xff, n);
#else
    r.mapped = rounded(n, 256) + 2 * EDGE;
    void* at = mmap(nullptr, r.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return OUT_OF_MEMORY;
    r.base = (char*)at;
    p = (Ptr)at + EDGE;
    memset(at, 0xff, r.mapped);
#endif
    d.ranges[p] = r;
    *out = p;
    return OK;
}
R release(Ptr p) {
    if (!p) return OK;
    finish_all();
    Device& d = dev();
    Lock l(d.mutex);
    auto it = d.ranges.find(p);
    if (it == d.ranges.end() || !it->second.device) return INVALID_VALUE;
    Range r = it->second;
    check_edges(p, r);
    d.ranges.erase(it);
    give_back(r.size);
#if defined(__SANITIZE_ADDRESS__)
    free((void*)p);
#else
    munmap(r.base, r.mapped);
#endif
    return OK;
}

R copy_to_device(Ptr to, const void* from, size_t n, Stream* s) {
    // Pageable memory is read at the call, pinned memory when the stream comes to it.
    if (pinned(from) || s->capture) return enqueue(s, [=] { return memcpy((void*)to, from, n), OK; });
    auto staged = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + n);
    return enqueue(s, [=] { return memcpy((void*)to, staged->data(), n), OK; });
}
R copy_to_host(void* to, Ptr from, size_t n, Stream* s, bool wait) {
    R code = enqueue(s, [=] { return memcpy(to, (const void*)from, n), OK; });
    return code || s->capture || (pinned(to) && !wait) ? code : finish(s);
}

// ---- Modules ----

int entry_number(const std::string& text, size_t from, size_t to, const char* key, int otherwise) {
    size_t at = text.find(key, from);
    return at == std::string::npos || at >= to ? otherwise : atoi(text.c_str() + at + strlen(key));
}
R load(Module** out, const char* image) {
    Device& d = dev();
    std::string text(image, strnlen(image, 64 << 20));
    size_t version = text.find("\n.version "), target = text.find("\n.target sm_");
    if (version == std::string::npos || target == std::string::npos) return (say("the module is no PTX"), INVALID_IMAGE);
    int major = 0, minor = 0;
    sscanf(text.c_str() + version, "\n.version %d.%d", &major, &minor);
    int driver = int_setting("EMU_DRIVER", 12000);
    // CUDA 11.x reads up to 7.x, 12.x up to 8.x.
    if (major * 10 + minor > (driver / 1000 - 4) * 10 + driver % 1000 / 10) return PTX_VERSION;
    int arch = atoi(text.c_str() + target + strlen("\n.target sm_"));
    if (arch > int_setting("EMU_CC", 75)) return NO_BINARY;
    if (text.find(".extern .func") != std::string::npos) return (say("the PTX has unresolved functions"), INVALID_PTX);
    auto* m = new Module;
    const char* entry = ".visible .entry ";
    for (size_t at = text.find(entry); at != std::string::npos;) {
        size_t next = text.find(entry, at + 1), name_at = at + strlen(entry), open = text.find('(', name_at);
        std::string name = text.substr(name_at, open - name_at);
        size_t end = text.find(')', open), n_params = 0;
        for (size_t p = text.find(".param", open); p < end; p = text.find(".param", p + 1)) n_params++;
        const emu::Kernel* k = emu::find(name.c_str(), arch);
        if (!k) say("the PTX names kernel %s, which no source has: is the PTX older than the sources?", name.c_str());
        else if (k->n_params != n_params) {
            say("kernel %s: the PTX has %zu parameters, the source has %zu: run scripts/kernels.py build", name.c_str(), n_params, k->n_params);
            k = nullptr;
        }
        if (k) {
            auto* f = new Function;
            f->kernel = k;
            f->name = name;
            f->max_threads = entry_number(text, end, text.find('{', end), ".maxntid ", 1024);
            m->functions[name] = f;
        }
        at = next;
    }
    {
        Lock l(d.mutex);
        if (d.used + GRANULE > d.total) return OUT_OF_MEMORY;
        d.used += GRANULE;
    }
    *out = m;
    return OK;
}

void watch() {
    static std::once_flag once;
    std::call_once(once, [] {
        std::thread([] {
            double limit = int_setting("EMU_TIMEOUT", 120) * 1000.0;
            for (;;) {
                std::this_thread::sleep_for(std::chrono::milliseconds(500));
                Lock l(dev().mutex);
                for (auto& [_, k] : dev().kernels)
                    if (now_ms() - k.second > limit) {
                        say("kernel %s has run for %.0f s: it waits for a flag that nobody sets, or for another block, "
                            "which runs only after it",
                            k.first.c_str(), limit / 1000);
                        abort();
                    }
            }
        }).detach();
    });
}
// Another word, which is still a likely one: a number of its size, or an index or count that is not larger.
unsigned spoiled(unsigned word) { return word == 0 ? 0 : word < 65536 ? word - 1 : word ^ 0x82000200u; }
// Whether a word is a likely float: nothing else is to be spoiled where indices may be.
bool like_float(unsigned word) { return (word >> 23 & 255) > 64 && (word >> 23 & 255) < 192; }

// What a kernel that computes wrongly may reach, before it runs.
struct Spoiler {
    struct Part {
        Ptr at;
        bool device;
        std::vector<unsigned> words;
    };
    std::vector<Part> parts;
    bool mapped = false;

    explicit Spoiler(const std::vector<const void*>& pointers) {
        Lock l(dev().mutex);
        for (const void* p : pointers) {
            Ptr base;
            const Range* r = p ? range_of((Ptr)p, &base) : nullptr;
            if (!r) continue;
            Ptr at = rounded((Ptr)p, 4), end = base + r->size;
            bool again = std::any_of(parts.begin(), parts.end(), [&](const Part& part) { return part.at == at; });
            if (again || at >= end) continue;
            size_t n = std::min<size_t>((end - at) / 4, 16 << 20);
            parts.push_back({at, r->device, std::vector<unsigned>((unsigned*)at, (unsigned*)at + n)});
            mapped |= !r->device;
        }
    }
    // What goes to memory that the processor sees may have been read there before the kernel has ended. So its floats
    // are spoiled where they come from, while it runs.
    void before() {
        each([](unsigned now, unsigned then) { return like_float(now) && now == then ? spoiled(now) : now; }, mapped);
    }
    void after() {
        if (mapped)
            each([](unsigned now, unsigned then) { return like_float(then) && now == spoiled(then) ? then : now; }, true);
        each([](unsigned now, unsigned then) { return now != then ? spoiled(now) : now; }, true);
    }

  private:
    void each(unsigned (*change)(unsigned, unsigned), bool wanted) {
        for (size_t p = 0; wanted && p < parts.size(); p++)
            for (size_t i = 0; parts[p].device && i < parts[p].words.size(); i++) {
                Ptr at = parts[p].at + 4 * i;
                // Arguments may point into the same memory.
                auto has = [&](const Part& other) { return at >= other.at && at < other.at + 4 * other.words.size(); };
                if (std::none_of(parts.begin(), parts.begin() + p, has)) *(unsigned*)at = change(*(unsigned*)at, parts[p].words[i]);
            }
    }
};
R execute(Function* f, dim3 grid, dim3 block, const std::vector<const void*>& pointers, const std::function<void()>& call) {
    Device& d = dev();
    bool wrong = false;
    if (R code = injected("kernel:" + f->name, &wrong)) return code;
    std::unique_ptr<Spoiler> spoiler(wrong ? new Spoiler(pointers) : nullptr);
    if (spoiler) spoiler->before();
    {
        Lock l(d.mutex);
        d.kernels[&call] = {f->name, now_ms()};
    }
    emu::launch(f->name.c_str(), grid, block, call);
    if (spoiler) spoiler->after();
    Lock l(d.mutex);
    d.kernels.erase(&call);
    return OK;
}

} // namespace

#pragma GCC visibility push(default)
extern "C" {

// ---- The driver and the device ----

R cuInit(unsigned) {
    BEGIN_ANY();
    Device& d = dev();
    Lock l(d.mutex);
    if (!d.initialized) start(&d.null_stream);
    d.initialized = true;
    return OK;
}
R cuDriverGetVersion(int* v) {
    BEGIN_ANY();
    *v = int_setting("EMU_DRIVER", 12000);
    return OK;
}
R cuDeviceGetCount(int* n) {
    BEGIN_INITIALIZED();
    *n = 1;
    return OK;
}
R cuDeviceGet(int* device, int ordinal) {
    BEGIN_INITIALIZED();
    if (ordinal != 0) return INVALID_DEVICE;
    *device = 0;
    return OK;
}
R cuDeviceGetName(char* name, int n, int) {
    BEGIN_INITIALIZED();
    snprintf(name, (size_t)n, "Emulated GPU");
    return OK;
}
R cuDeviceGetUuid(unsigned char* uuid, int) {
    BEGIN_INITIALIZED();
    memset(uuid, 0, 16);
    return OK;
}
R cuDeviceGetUuid_v2(unsigned char* uuid, int device) { return cuDeviceGetUuid(uuid, device); }
R cuDeviceGetPCIBusId(char* id, int n, int) {
    BEGIN_INITIALIZED();
    snprintf(id, (size_t)n, "0000:00:00.0");
    return OK;
}
R cuDeviceTotalMem_v2(size_t* n, int) {
    BEGIN_INITIALIZED();
    *n = dev().total;
    return OK;
}
R cuDeviceGetAttribute(int* value, int attribute, int) {
    BEGIN_INITIALIZED();
    int cc = int_setting("EMU_CC", 75);
    switch (attribute) {
    case 1: *value = 1024; break;              // threads per block
    case 2: case 3: *value = 1024; break;      // block x, y
    case 4: *value = 64; break;                // block z
    case 5: *value = 0x7fffffff; break;        // grid x
    case 6: case 7: *value = 65535; break;     // grid y, z
    case 8: *value = 48 << 10; break;          // shared memory per block
    case 10: *value = 32; break;               // warp
    case 12: *value = 65536; break;            // registers per block
    case 13: *value = 1000000; break;          // clock, kHz
    case 16: *value = int_setting("EMU_SMS", 2); break;
    case 36: *value = int_setting("EMU_MEMORY_CLOCK", 1000000); break; // kHz
    case 37: *value = 128; break;              // memory bus, bits
    case 38: *value = 1 << 20; break;          // level 2 cache
    case 39: *value = 1024; break;             // threads per multiprocessor
    case 40: *value = 2; break;                // copy engines
    case 75: *value = cc / 10; break;
    case 76: *value = cc % 10; break;
    case 81: case 97: *value = 64 << 10; break;
    case 82: *value = 65536; break;
    case 18: case 32: case 17: case 35: case 83: case 84: case 88: case 89: case 95: case 100: *value = 0; break;
    default: *value = 1;
    }
    return OK;
}
R cuDevicePrimaryCtxRetain(void** context, int) {
    BEGIN_INITIALIZED();
    Device& d = dev();
    Lock l(d.mutex);
    if (d.sticky) return d.sticky;
    size_t own = size_setting("EMU_CONTEXT", 64 << 20);
    if (d.retained == 0) {
        if (d.used + own > d.total) return OUT_OF_MEMORY;
        d.used += own;
    }
    d.retained++;
    *context = &d;
    return OK;
}
R cuDevicePrimaryCtxRelease_v2(int) {
    BEGIN_INITIALIZED();
    finish_all();
    Device& d = dev();
    Lock l(d.mutex);
    if (d.retained == 0) return INVALID_CONTEXT;
    if (--d.retained == 0) {
        d.used -= size_setting("EMU_CONTEXT", 64 << 20);
        d.sticky = 0;
    }
    return OK;
}
R cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
    BEGIN_INITIALIZED();
    *flags = 0;
    *active = dev().retained > 0;
    return OK;
}
R cuDevicePrimaryCtxSetFlags_v2(int, unsigned) {
    BEGIN_INITIALIZED();
    return OK;
}
R cuCtxSetCurrent(void* context) {
    BEGIN_INITIALIZED();
    current = context != nullptr;
    return OK;
}
R cuCtxGetCurrent(void** context) {
    BEGIN_INITIALIZED();
    *context = current ? &dev() : nullptr;
    return OK;
}
R cuCtxPushCurrent_v2(void* context) { return cuCtxSetCurrent(context); }
R cuCtxPopCurrent_v2(void** context) {
    BEGIN_INITIALIZED();
    *context = current ? &dev() : nullptr;
    current = false;
    return OK;
}
R cuCtxGetDevice(int* device) {
    BEGIN();
    *device = 0;
    return OK;
}
R cuCtxSynchronize() {
    BEGIN();
    NOT_IN_CAPTURE();
    finish_all();
    return dev().sticky;
}
R cuCtxGetLimit(size_t* value, int) {
    BEGIN();
    *value = 0;
    return OK;
}
R cuCtxSetLimit(int, size_t) {
    BEGIN();
    return OK;
}
R cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    BEGIN();
    *least = 0;
    *greatest = -5;
    return OK;
}

// ---- Memory ----

R cuMemGetInfo_v2(size_t* free, size_t* total) {
    BEGIN();
    Lock l(dev().mutex);
    *total = dev().total;
    *free = dev().total - dev().used;
    return OK;
}
R cuMemAlloc_v2(Ptr* out, size_t n) {
    BEGIN();
    NOT_IN_CAPTURE();
    return allocate(out, n);
}
R cuMemFree_v2(Ptr p) {
    BEGIN();
    NOT_IN_CAPTURE();
    return release(p);
}
R cuMemAllocAsync(Ptr* out, size_t n, void*) {
    BEGIN();
    NOT_IN_CAPTURE();
    return allocate(out, n);
}
R cuMemFreeAsync(Ptr p, void*) {
    BEGIN();
    NOT_IN_CAPTURE();
    return release(p);
}
R cuMemGetAddressRange_v2(Ptr* base, size_t* size, Ptr p) {
    BEGIN();
    Lock l(dev().mutex);
    const Range* r = range_of(p, base);
    if (!r) return NOT_FOUND;
    *size = r->size;
    return OK;
}
R cuMemHostAlloc(void** out, size_t n, unsigned) {
    BEGIN();
    NOT_IN_CAPTURE();
    if (n == 0) return INVALID_VALUE;
    void* p;
    if (posix_memalign(&p, 4096, n)) return OUT_OF_MEMORY;
    memset(p, 0xff, n);
    Lock l(dev().mutex);
    dev().ranges[(Ptr)p] = {n, false, (char*)p, 0};
    *out = p;
    return OK;
}
R cuMemAllocHost_v2(void** out, size_t n) { return cuMemHostAlloc(out, n, 0); }
R cuMemFreeHost(void* p) {
    BEGIN();
    NOT_IN_CAPTURE();
    finish_all();
    Lock l(dev().mutex);
    auto it = dev().ranges.find((Ptr)p);
    if (it == dev().ranges.end() || it->second.device || !it->second.base) return INVALID_VALUE;
    dev().ranges.erase(it);
    free(p);
    return OK;
}
R cuMemHostRegister_v2(void* p, size_t n, unsigned) {
    BEGIN();
    NOT_IN_CAPTURE();
    if (n == 0) return INVALID_VALUE;
    Lock l(dev().mutex);
    auto next = dev().ranges.lower_bound((Ptr)p);
    Ptr base;
    if (range_of((Ptr)p, &base) || (next != dev().ranges.end() && next->first < (Ptr)p + n)) return ALREADY_REGISTERED;
    dev().ranges[(Ptr)p] = {n, false, nullptr, 0};
    return OK;
}
R cuMemHostUnregister(void* p) {
    BEGIN();
    NOT_IN_CAPTURE();
    finish_all();
    Lock l(dev().mutex);
    auto it = dev().ranges.find((Ptr)p);
    if (it == dev().ranges.end() || it->second.device || it->second.base) return NOT_REGISTERED;
    dev().ranges.erase(it);
    return OK;
}
R cuMemHostGetDevicePointer_v2(Ptr* out, void* p, unsigned) {
    BEGIN();
    if (!pinned(p)) return INVALID_VALUE;
    *out = (Ptr)p;
    return OK;
}
R cuPointerGetAttribute(void* out, int attribute, Ptr p) {
    BEGIN();
    Lock l(dev().mutex);
    Ptr base;
    const Range* r = range_of(p, &base);
    if (!r) return INVALID_VALUE;
    if (attribute == 2) *(int*)out = r->device ? 2 : 1; // memory type
    else if (attribute == 3 || attribute == 4) *(Ptr*)out = p;
    else return NOT_SUPPORTED;
    return OK;
}

// ---- Copies ----

#define STREAM(s, handle)                                                                                              \
    Stream* s = find_stream(handle);                                                                                   \
    if (!s) return INVALID_HANDLE;
R cuMemcpyHtoDAsync_v2(Ptr to, const void* from, size_t n, void* handle) {
    BEGIN();
    STREAM(s, handle);
    IN_DEVICE(to, n);
    return copy_to_device(to, from, n, s);
}
R cuMemcpyDtoHAsync_v2(void* to, Ptr from, size_t n, void* handle) {
    BEGIN();
    STREAM(s, handle);
    IN_DEVICE(from, n);
    return copy_to_host(to, from, n, s, false);
}
R cuMemcpyDtoDAsync_v2(Ptr to, Ptr from, size_t n, void* handle) {
    BEGIN();
    STREAM(s, handle);
    IN_DEVICE(from, n);
    IN_DEVICE(to, n);
    return enqueue(s, [=] { return memmove((void*)to, (const void*)from, n), OK; });
}
R cuMemcpyAsync(Ptr to, Ptr from, size_t n, void* handle) {
    bool out = inside(from, n, true), in = inside(to, n, true);
    if (out && in) return cuMemcpyDtoDAsync_v2(to, from, n, handle);
    return out ? cuMemcpyDtoHAsync_v2((void*)to, from, n, handle) : cuMemcpyHtoDAsync_v2(to, (const void*)from, n, handle);
}
R cuMemcpyHtoD_v2(Ptr to, const void* from, size_t n) {
    BEGIN();
    NOT_IN_CAPTURE();
    IN_DEVICE(to, n);
    // From pageable memory the call may return before the device has the bytes.
    R code = copy_to_device(to, from, n, &dev().null_stream);
    return code || !pinned(from) ? code : finish(&dev().null_stream);
}
R cuMemcpyDtoH_v2(void* to, Ptr from, size_t n) {
    BEGIN();
    NOT_IN_CAPTURE();
    IN_DEVICE(from, n);
    return copy_to_host(to, from, n, &dev().null_stream, true);
}
R cuMemcpyDtoD_v2(Ptr to, Ptr from, size_t n) {
    NOT_IN_CAPTURE();
    return cuMemcpyDtoDAsync_v2(to, from, n, nullptr);
}
R cuMemsetD8Async(Ptr p, unsigned char v, size_t n, void* handle) {
    BEGIN();
    STREAM(s, handle);
    IN_DEVICE(p, n);
    return enqueue(s, [=] { return memset((void*)p, v, n), OK; });
}
R cuMemsetD32Async(Ptr p, unsigned v, size_t n, void* handle) {
    BEGIN();
    STREAM(s, handle);
    IN_DEVICE(p, 4 * n);
    return enqueue(s, [=] { return std::fill_n((unsigned*)p, n, v), OK; });
}
R cuMemsetD8_v2(Ptr p, unsigned char v, size_t n) {
    NOT_IN_CAPTURE();
    return cuMemsetD8Async(p, v, n, nullptr);
}
R cuMemsetD32_v2(Ptr p, unsigned v, size_t n) {
    NOT_IN_CAPTURE();
    return cuMemsetD32Async(p, v, n, nullptr);
}

// ---- Streams and events ----

R cuStreamCreate(void** out, unsigned flags) {
    BEGIN();
    auto* s = new Stream;
    s->blocking = !(flags & 1);
    {
        Lock l(dev().mutex);
        dev().streams.insert(s);
    }
    start(s);
    *out = s;
    return OK;
}
R cuStreamCreateWithPriority(void** out, unsigned flags, int) { return cuStreamCreate(out, flags); }
R cuStreamDestroy_v2(void* handle) {
    BEGIN();
    Device& d = dev();
    Lock l(d.mutex);
    if (!d.streams.count((Stream*)handle)) return INVALID_HANDLE;
    d.streams.erase((Stream*)handle);
    ((Stream*)handle)->closing = true;
    d.changed.notify_all();
    return OK;
}
R cuStreamSynchronize(void* handle) {
    BEGIN();
    STREAM(s, handle);
    return finish(s);
}
R cuStreamQuery(void* handle) {
    BEGIN();
    STREAM(s, handle);
    Lock l(dev().mutex);
    if (s->capture) return CAPTURE_UNSUPPORTED;
    return s->done == s->enqueued ? (R)dev().sticky : NOT_READY;
}
R cuStreamGetPriority(void*, int* priority) {
    BEGIN();
    *priority = 0;
    return OK;
}
R cuEventCreate(void** out, unsigned flags) {
    BEGIN();
    auto* e = new Event;
    e->timing = !(flags & 2);
    *out = e;
    return OK;
}
R cuEventDestroy_v2(void* event) {
    BEGIN();
    ((Event*)event)->destroyed = true; // leaked: a queue may still name it
    return OK;
}
R cuEventRecordWithFlags(void* event, void* handle, unsigned flags) {
    BEGIN();
    STREAM(s, handle);
    auto* e = (Event*)event;
    Capture* capture = s->capture;
    e->captured = capture && !(flags & 1);
    e->capture = e->captured ? capture : nullptr;
    if (e->captured) return OK;
    e->recorded = true;
    auto come = [=](uint64_t n) {
        e->at = now_ms();
        e->reached = std::max<uint64_t>(e->reached, n);
        dev().changed.notify_all();
    };
    if (capture) // a node of the graph
        return enqueue(s, [=] {
            Lock l(dev().mutex);
            return come(e->asked), OK;
        });
    uint64_t n = ++e->asked;
    return enqueue(s, [] { return OK; }, [=] { come(n); });
}
R cuEventRecord(void* event, void* handle) {
    BEGIN_ANY();
    return cuEventRecordWithFlags(event, handle, 0);
}
R cuStreamWaitEvent(void* handle, void* event, unsigned) {
    BEGIN();
    STREAM(s, handle);
    auto* e = (Event*)event;
    if (e->capture) { // the stream joins the capture that the event belongs to
        Lock l(dev().mutex);
        if (s->capture && s->capture != e->capture) return CAPTURE_ISOLATION;
        s->capture = e->capture;
        return OK;
    }
    if (s->capture) return CAPTURE_ISOLATION;
    uint64_t n = e->asked;
    return enqueue(s, [=] {
        Lock l(dev().mutex);
        dev().changed.wait(l, [&] { return e->reached >= n; });
        return OK;
    });
}
R cuEventQuery(void* event) {
    BEGIN();
    auto* e = (Event*)event;
    if (e->captured) return CAPTURED_EVENT;
    return e->reached >= e->asked ? (R)dev().sticky : NOT_READY;
}
R cuEventSynchronize(void* event) {
    BEGIN();
    auto* e = (Event*)event;
    if (e->captured) return CAPTURED_EVENT;
    Lock l(dev().mutex);
    uint64_t n = e->asked;
    dev().changed.wait(l, [&] { return e->reached >= n || dev().sticky; });
    return dev().sticky;
}
R cuEventElapsedTime(float* ms, void* from, void* to) {
    BEGIN();
    auto *a = (Event*)from, *b = (Event*)to;
    if (!a->timing || !b->timing || !a->recorded || !b->recorded) return INVALID_HANDLE;
    if (a->captured || b->captured) return CAPTURED_EVENT;
    if (a->reached < a->asked || b->reached < b->asked) return NOT_READY;
    *ms = (float)(b->at - a->at);
    return OK;
}
R cuEventElapsedTime_v2(float* ms, void* from, void* to) { return cuEventElapsedTime(ms, from, to); }
R cuLaunchHostFunc(void* handle, void (*f)(void*), void* data) {
    BEGIN();
    STREAM(s, handle);
    return enqueue(s, [=] { return f(data), OK; });
}

// ---- Modules and kernels ----

R cuModuleLoadData(void** out, const void* image) {
    BEGIN();
    NOT_IN_CAPTURE();
    return load((Module**)out, (const char*)image);
}
R cuModuleLoadDataEx(void** out, const void* image, unsigned, int*, void**) {
    BEGIN();
    NOT_IN_CAPTURE();
    return load((Module**)out, (const char*)image);
}
R cuModuleUnload(void* module) {
    BEGIN();
    finish_all();
    Lock l(dev().mutex);
    dev().used -= GRANULE;
    delete (Module*)module; // its functions are leaked: a graph may still name them
    return OK;
}
R cuModuleGetFunction(void** out, void* module, const char* name) {
    BEGIN();
    auto& functions = ((Module*)module)->functions;
    auto it = functions.find(name);
    if (it == functions.end()) return NOT_FOUND;
    *out = it->second;
    return OK;
}
R cuModuleGetGlobal_v2(Ptr*, size_t*, void*, const char*) { return NOT_FOUND; }
R cuModuleGetLoadingMode(int* mode) { return *mode = 1, OK; }
R cuFuncGetAttribute(int* value, int attribute, void* function) {
    BEGIN();
    auto* f = (Function*)function;
    switch (attribute) {
    case 0: *value = f->max_threads; break;
    case 4: *value = 32; break; // registers
    case 5: *value = 80; break; // PTX version
    case 6: *value = f->kernel->arch; break;
    case 8: *value = 48 << 10; break;
    default: *value = 0;
    }
    return OK;
}
R cuFuncSetAttribute(void*, int, int) {
    BEGIN();
    return OK;
}
R cuFuncSetCacheConfig(void*, int) {
    BEGIN();
    return OK;
}
R cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, void*, int block, size_t) {
    BEGIN();
    *n = std::min(16, 1024 / std::max(block, 1));
    return OK;
}
R cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                 unsigned shared, void* handle, void** params, void** extra) {
    BEGIN();
    STREAM(s, handle);
    auto* f = (Function*)function;
    const char* name = f->name.c_str();
    uint64_t threads = (uint64_t)bx * by * bz;
    if (extra || shared) return (say("%s: dynamic shared memory and `extra` are not supported", name), NOT_SUPPORTED);
    if (!gx || !gy || !gz || !threads || gx > 0x7fffffffu || gy > 65535 || gz > 65535 || bx > 1024 || by > 1024 || bz > 64)
        return (say("%s: grid %u,%u,%u of blocks %u,%u,%u is not possible", name, gx, gy, gz, bx, by, bz), INVALID_VALUE);
    if (threads > (uint64_t)f->max_threads)
        return (say("%s: %llu threads per block, but __launch_bounds__ says %d", name, (unsigned long long)threads, f->max_threads),
                threads > 1024 ? INVALID_VALUE : LAUNCH_RESOURCES);
    auto call = f->kernel->bind(params);
    auto pointers = f->kernel->pointers(params);
    return enqueue(s, [=]() -> R {
        for (size_t i = 0; i < pointers.size(); i++)
            if (pointers[i] && !inside((Ptr)pointers[i], 1, false)) {
                // One past the end is what an empty list has.
                if (inside((Ptr)pointers[i] - 1, 1, false)) continue;
                say("kernel %s: argument %zu, %p, is no memory of the device", f->name.c_str(), i, pointers[i]);
                return ILLEGAL_ADDRESS;
            }
        watch();
        return execute(f, {gx, gy, gz}, {bx, by, bz}, pointers, call);
    });
}

// ---- Graphs ----

R cuStreamBeginCapture_v2(void* handle, int mode) {
    BEGIN();
    STREAM(s, handle);
    Lock l(dev().mutex);
    if (s == &dev().null_stream) return CAPTURE_UNSUPPORTED;
    if (s->capture) return ILLEGAL_STATE;
    s->capture = new Capture;
    s->capture->origin = s;
    s->capture->thread = std::this_thread::get_id();
    s->capture->mode = mode;
    return OK;
}
R cuStreamEndCapture(void* handle, void** graph) {
    BEGIN();
    STREAM(s, handle);
    Lock l(dev().mutex);
    Capture* c = s->capture;
    *graph = nullptr;
    if (!c || c->origin != s) return c ? CAPTURE_UNMATCHED : ILLEGAL_STATE;
    if (c->mode != 2 && c->thread != std::this_thread::get_id()) return CAPTURE_WRONG_THREAD;
    for (Stream* other : dev().streams)
        if (other->capture == c) other->capture = nullptr;
    if (c->invalid) {
        delete c->graph;
        return CAPTURE_INVALIDATED;
    }
    *graph = c->graph; // the capture itself is leaked: events may name it
    return OK;
}
R cuStreamIsCapturing(void* handle, int* status) {
    BEGIN();
    STREAM(s, handle);
    Lock l(dev().mutex);
    *status = !s->capture ? 0 : s->capture->invalid ? 2 : 1;
    return OK;
}
R cuThreadExchangeStreamCaptureMode(int* mode) {
    static thread_local int mine = 0;
    std::swap(mine, *mode);
    return OK;
}
R cuGraphInstantiateWithFlags(void** out, void* graph, unsigned long long) {
    BEGIN();
    *out = new Graph(*(Graph*)graph);
    return OK;
}
R cuGraphInstantiate_v2(void** out, void* graph, void**, char*, size_t) { return cuGraphInstantiateWithFlags(out, graph, 0); }
R cuGraphUpload(void*, void*) {
    BEGIN();
    return OK;
}
R cuGraphLaunch(void* exec, void* handle) {
    BEGIN();
    STREAM(s, handle);
    if (s->capture) return CAPTURE_UNSUPPORTED;
    auto ops = std::make_shared<std::vector<Op>>(((Graph*)exec)->ops);
    return enqueue(s, [=] {
        for (const Op& op : *ops)
            if (R code = op()) return code;
        return (R)OK;
    });
}
R cuGraphGetNodes(void* graph, void**, size_t* n) {
    BEGIN();
    *n = ((Graph*)graph)->ops.size();
    return OK;
}
R cuGraphDestroy(void* graph) {
    BEGIN();
    delete (Graph*)graph;
    return OK;
}
R cuGraphExecDestroy(void* exec) {
    BEGIN();
    delete (Graph*)exec;
    return OK;
}

// ---- Errors and entry points ----

static const struct { int code; const char *name, *text; } ERRORS[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {34, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {401, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"},
    {713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"},
    {717, "CUDA_ERROR_INVALID_ADDRESS_SPACE", "operation not supported on global/shared address space"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began"},
    {905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
    {906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
    {907, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"},
    {908, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a thread-local capture sequence from another thread"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};
R cuGetErrorName(int code, const char** text) {
    for (auto& e : ERRORS)
        if (e.code == code) return *text = e.name, OK;
    *text = nullptr;
    return INVALID_VALUE;
}
R cuGetErrorString(int code, const char** text) {
    for (auto& e : ERRORS)
        if (e.code == code) return *text = e.text, OK;
    *text = nullptr;
    return INVALID_VALUE;
}
R cuGetProcAddress_v2(const char* symbol, void** out, int, unsigned long long, int* status) {
    Dl_info info;
    void* me = dladdr((void*)&cuInit, &info) ? dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD) : nullptr;
    *out = nullptr;
    for (const char* suffix : {"_v2", ""})
        if (me && !*out) *out = dlsym(me, (std::string(symbol) + suffix).c_str());
    if (status) *status = *out ? 0 : 1;
    return *out ? OK : NOT_FOUND;
}
R cuGetProcAddress(const char* symbol, void** out, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(symbol, out, version, flags, nullptr);
}
}
#pragma GCC visibility pop
