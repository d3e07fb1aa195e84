// Preloaded into a client of ROCm's runtime: what it asks of /dev/kfd, of render nodes and of their sysfs files goes to a
// virtual kernel at the other end of a socket (rocr_server.py). libdrm's few functions that the runtime calls are
// answered here. Memory is shared by mapping the server's store.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HELLO = 1, IOCTL, LOCATE, OPEN, TAKE };
struct request { uint32_t op, fd; uint64_t a, b; };
struct reply { int32_t error; uint32_t pad; uint64_t value; };

static int store = -1, kinds[65536];  // of our descriptors: 1 /dev/kfd, 2 a render node, its minor above that
static uint64_t adopted[4096][2];
static __thread int connection = -1;

#define REAL(name) __typeof__(&name) real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static struct reply ask(uint32_t op, uint32_t fd, uint64_t a, uint64_t b) {
    struct request request = {op, fd, a, b};
    struct reply reply = {EIO, 0, 0};
    if (connection < 0) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        strncpy(to.sun_path, getenv("TG_SHIM_SOCKET"), sizeof to.sun_path - 1);
        connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(connection, (struct sockaddr *)&to, sizeof to)) return reply;
        struct request hello = {HELLO, 0, (uint64_t)getpid(), 0};
        char space[CMSG_SPACE(sizeof(int))];
        struct iovec part = {&reply, sizeof reply};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
        if (write(connection, &hello, sizeof hello) < 0 || recvmsg(connection, &message, 0) < 0) return reply;
        if (store < 0) memcpy(&store, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof store);
    }
    if (write(connection, &request, sizeof request) != sizeof request) return reply;
    if (recv(connection, &reply, sizeof reply, MSG_WAITALL) != sizeof reply) reply.error = EIO;
    return reply;
}

static const char *redirect(const char *path, char *space) {
    if (strncmp(path, "/sys/devices/virtual/kfd/", 25) && strncmp(path, "/sys/class/kfd/", 15) &&
        strncmp(path, "/sys/module/amdgpu", 18))
        return path;
    const char *rest = strncmp(path, "/sys/devices/virtual/kfd/", 25) ? path : path + 12;
    snprintf(space, 512, "%s%s%s", getenv("TG_SHIM_ROOT"), rest == path ? "" : "/sys/class", rest == path ? path : path + 20);
    return space;
}

static int open_ours(const char *path) {
    int kind = !strcmp(path, "/dev/kfd") ? 1 : !strncmp(path, "/dev/dri/renderD", 16) ? 2 : 0;
    if (!kind) return -2;
    REAL(open);
    int fd = real_open("/dev/null", O_RDWR | O_CLOEXEC);
    int minor = kind == 2 ? strtoul(path + 16, 0, 10) : 0;
    struct reply reply = ask(OPEN, fd, minor, 0);
    if (reply.error) { close(fd); errno = reply.error; return -1; }
    kinds[fd] = kind | minor << 8;
    return fd;
}

int open(const char *path, int flags, ...) {
    char space[512];
    int fd = open_ours(path);
    if (fd != -2) return fd;
    REAL(open);
    va_list rest; va_start(rest, flags);
    int mode = va_arg(rest, int); va_end(rest);
    return real_open(redirect(path, space), flags, mode);
}
int open64(const char *path, int flags, ...) { return open(path, flags, 0); }
FILE *fopen(const char *path, const char *mode) { char s[512]; REAL(fopen); return real_fopen(redirect(path, s), mode); }
FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }
DIR *opendir(const char *path) { char s[512]; REAL(opendir); return real_opendir(redirect(path, s)); }
int access(const char *path, int mode) {
    char s[512];
    REAL(access);
    return !strncmp(path, "/dev/kfd", 8) || !strncmp(path, "/dev/dri/", 9) ? 0 : real_access(redirect(path, s), mode);
}
int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < 65536) kinds[fd] = 0;
    return real_close(fd);
}

// The client's own pages become pages of the store, in place, so that the virtual GPU sees them.
static void adopt(uint64_t address, uint64_t size) {
    for (int i = 0; i < 4096; i++) {
        if (adopted[i][0] == address && adopted[i][1] == size) return;
        if (adopted[i][0]) continue;
        struct reply reply = ask(TAKE, 0, address, size);
        if (reply.error || pwrite(store, (void *)address, size, reply.value) != (ssize_t)size) return;
        REAL(mmap);
        real_mmap((void *)address, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, store, reply.value);
        adopted[i][0] = address, adopted[i][1] = size;
        return;
    }
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest; va_start(rest, request);
    uint64_t *arguments = va_arg(rest, void *); va_end(rest);
    if (fd < 0 || fd >= 65536 || !kinds[fd]) { REAL(ioctl); return real_ioctl(fd, request, arguments); }
    if (kinds[fd] == 1 && (request & 0xff) == 0x16 && ((uint32_t *)arguments)[9] & 4) adopt(arguments[3], arguments[1]);
    if (kinds[fd] == 1 && (request & 0xff) == 0x20) adopt(arguments[0], arguments[1]);
    struct reply reply = ask(IOCTL, fd, request, (uint64_t)arguments);
    errno = reply.error;
    return reply.error ? -1 : 0;
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    REAL(mmap);
    if (fd < 0 || fd >= 65536 || !kinds[fd]) return real_mmap(address, size, protection, flags, fd, offset);
    if (kinds[fd] == 1) {
        struct reply reply = ask(LOCATE, fd, offset, size);
        if (reply.error) { errno = reply.error; return MAP_FAILED; }
        offset = reply.value;
    }
    return real_mmap(address, size, protection, flags, store, offset);
}
void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    return mmap(address, size, protection, flags, fd, offset);
}

// libdrm
int drmOpenRender(int minor) {
    char path[64];
    snprintf(path, sizeof path, "/dev/dri/renderD%d", minor);
    return open(path, O_RDWR, 0);
}
int drmClose(int fd) { return close(fd); }
int drmCommandWriteRead(int fd, unsigned long index, void *data, unsigned long size) { return -EINVAL; }
int amdgpu_device_initialize(int fd, uint32_t *major, uint32_t *minor, void **device) {
    // The real one keeps a descriptor of its own: the caller closes `fd`.
    int own = drmOpenRender(kinds[fd] >> 8);
    *major = 3, *minor = 57, *device = (void *)(intptr_t)(own + 1);
    return own < 0;
}
int amdgpu_device_deinitialize(void *device) { return 0; }
int amdgpu_device_get_fd(void *device) { return (int)(intptr_t)device - 1; }
int amdgpu_query_gpu_info(void *device, void *info) { memset(info, 0, 64); return 0; }
const char *amdgpu_get_marketing_name(void *device) { return "virtual GPU"; }
