// A client of ROCm's runtime: lists the GPUs, runs the kernel `double` of a code object on the first, prints its results.
// The declarations are those functions of the HSA runtime that it calls (HSA Runtime Programmer's Reference 1.2).
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uint64_t handle; } Handle;
typedef struct { uint32_t type, features; char *base; Handle doorbell; uint32_t size, reserved; uint64_t id; } Queue;
int hsa_init(void), hsa_shut_down(void);
int hsa_iterate_agents(int (*)(Handle, void *), void *), hsa_agent_get_info(Handle, int, void *);
int hsa_amd_agent_iterate_memory_pools(Handle, int (*)(Handle, void *), void *);
int hsa_amd_memory_pool_get_info(Handle, int, void *);
int hsa_amd_memory_pool_allocate(Handle, size_t, uint32_t, void **);
int hsa_amd_agents_allow_access(uint32_t, const Handle *, const uint32_t *, const void *);
int hsa_queue_create(Handle, uint32_t, uint32_t, void *, void *, uint32_t, uint32_t, Queue **), hsa_queue_destroy(Queue *);
int hsa_signal_create(int64_t, uint32_t, const Handle *, Handle *);
int64_t hsa_signal_wait_scacquire(Handle, int, int64_t, uint64_t, int);
uint64_t hsa_queue_add_write_index_scacq_screl(Queue *, uint64_t);
void hsa_signal_store_screlease(Handle, int64_t);
int hsa_code_object_reader_create_from_memory(const void *, size_t, Handle *);
int hsa_executable_create_alt(int, int, const char *, Handle *);
int hsa_executable_load_agent_code_object(Handle, Handle, Handle, const char *, void *);
int hsa_executable_freeze(Handle, const char *);
int hsa_executable_get_symbol_by_name(Handle, const char *, const Handle *, Handle *);
int hsa_executable_symbol_get_info(Handle, int, void *);

enum { NAME = 0, DEVICE = 17, GPU = 1, KERNEL_OBJECT = 22, SEGMENT = 0, FLAGS = 1, KERNARG = 1, COUNT = 64 };
static Handle gpu, kernarg_pool;

static void check(int status, const char *what) {
    if (status) { printf("%s: status %#x\n", what, status); exit(1); }
}
static int see_pool(Handle pool, void *data) {
    int segment = -1;
    uint32_t flags = 0;
    hsa_amd_memory_pool_get_info(pool, SEGMENT, &segment);
    if (!segment) hsa_amd_memory_pool_get_info(pool, FLAGS, &flags);
    if (flags & KERNARG) kernarg_pool = pool;
    return 0;
}
static int see_agent(Handle agent, void *data) {
    int kind = 0;
    char name[64] = "";
    hsa_agent_get_info(agent, DEVICE, &kind);
    hsa_agent_get_info(agent, NAME, name);
    if (kind == GPU) printf("gpu %s\n", name);
    if (kind == GPU && !gpu.handle) gpu = agent;
    if (kind != GPU) hsa_amd_agent_iterate_memory_pools(agent, see_pool, 0);
    return 0;
}
static void *shared(size_t size) {
    void *memory = 0;
    check(hsa_amd_memory_pool_allocate(kernarg_pool, size, 0, &memory), "allocate");
    check(hsa_amd_agents_allow_access(1, &gpu, 0, memory), "allow access");
    return memory;
}

int main(int count, char **arguments) {
    check(hsa_init(), "hsa_init");
    hsa_iterate_agents(see_agent, 0);
    static char file[1 << 20];
    FILE *stream = fopen(arguments[1], "rb");
    size_t size = fread(file, 1, sizeof file, stream);
    Handle reader, executable, symbol, signal;
    check(hsa_code_object_reader_create_from_memory(file, size, &reader), "reader");
    check(hsa_executable_create_alt(0, 0, 0, &executable), "executable");
    check(hsa_executable_load_agent_code_object(executable, gpu, reader, 0, 0), "load");
    check(hsa_executable_freeze(executable, 0), "freeze");
    check(hsa_executable_get_symbol_by_name(executable, "double.kd", &gpu, &symbol), "symbol");
    uint64_t object;
    check(hsa_executable_symbol_get_info(symbol, KERNEL_OBJECT, &object), "kernel object");

    uint32_t *source = shared(4 * COUNT), *destination = shared(4 * COUNT);
    uint64_t *kernargs = shared(64);
    for (int i = 0; i < COUNT; i++) source[i] = i + 1;
    kernargs[0] = (uint64_t)source, kernargs[1] = (uint64_t)destination;
    check(hsa_signal_create(1, 0, 0, &signal), "signal");
    Queue *queue;
    check(hsa_queue_create(gpu, 64, 0, 0, 0, UINT32_MAX, UINT32_MAX, &queue), "queue");
    uint64_t index = hsa_queue_add_write_index_scacq_screl(queue, 1);
    uint32_t *packet = (uint32_t *)(queue->base + index % queue->size * 64);
    memset(packet + 1, 0, 60);
    packet[1] = COUNT | 1 << 16, packet[2] = 1, packet[3] = COUNT, packet[4] = packet[5] = 1;
    memcpy(packet + 8, &object, 8), memcpy(packet + 10, &kernargs, 8), memcpy(packet + 14, &signal, 8);
    __atomic_store_n(packet, 1 << 16 | 0x1502, __ATOMIC_RELEASE);
    hsa_signal_store_screlease(queue->doorbell, index);
    int64_t value = hsa_signal_wait_scacquire(signal, 2, 1, 10000000000ull, 0);
    printf("signal %ld results", (long)value);
    for (int i = 0; i < COUNT; i++) printf(" %u", destination[i]);
    printf("\n");
    check(hsa_queue_destroy(queue), "destroy queue");
    check(hsa_shut_down(), "shut down");
    return 0;
}
