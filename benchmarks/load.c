/* The load generator: HTTP/1.1 keep-alive connections to one port of this machine, in one thread.
 *
 *   load PORT HEADS CONNECTIONS SECONDS RATE BODY
 *
 * HEADS is a file of request heads, each with its blank line, sent in turn; BODY bytes follow each of them. Where a head
 * has sixteen tildes, each request has sixteen hexadecimal digits instead, which no other request of any run has: every
 * call takes the next number after the time at which the run began in nanoseconds, mixed one to one. With RATE 0
 * the loop is closed: a connection sends its next request when the last answer is complete. Otherwise it is open: RATE
 * requests a second are due on average, at times drawn beforehand (exponential gaps, always the same ones), and a
 * latency counts from the time at which its request was due, however late a connection was free for it. After SECONDS
 * nothing is sent any more, and answers that are on their way are waited for, so that every request has its verdict.
 *
 * Prints one line of JSON. Exits with 2 and a line on standard error when it cannot run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define DRAIN (20 * SECOND)
#define HEAD_MAX 32768
#define READ_SIZE 262144
#define MARK "~~~~~~~~~~~~~~~~"
#define MARK_SIZE (sizeof MARK - 1)
#define SECONDS_MAX 3600

enum part { HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, UNTIL_CLOSE };

struct connection {
    int fd, busy, writing;
    size_t request, sent;
    char unique[MARK_SIZE + 1]; /* what this request has where its head has the mark */
    int64_t due, began, first; /* began: when it was sent; first: when the answer's first byte came, 0 before */
    enum part part;
    int status, retry_after, closes;
    int64_t left; /* of the body, or of the chunk */
    size_t kept;  /* bytes of the head, or of a line, so far */
    char head[HEAD_MAX];
};

struct samples { uint32_t *at; size_t number, room; };

static struct { const char *at; size_t size, mark; } *heads; /* mark: where its mark begins; its size without one */
static size_t head_count, turn, body_size;
static uint64_t sequence; /* the number of the next call */
static char *body;
static struct sockaddr_in target;
static int epoll;
static struct connection *connections;
static int connection_count, *idle, idle_first, idle_number;
static int64_t start, deadline;
static long good_in_second[SECONDS_MAX + 1];
static struct samples ok_latency, other_latency, first_byte, lateness, queued, since_sent;
static long in_window, ok_in_window, ok_total, shed, shed_without_retry, bad_status, last_bad, socket_errors, reconnects;
static long started;
static long long received;

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static void add(struct samples *to, int64_t nanoseconds) {
    if (to->number == to->room) {
        to->room = to->room ? to->room * 2 : 65536;
        to->at = realloc(to->at, to->room * sizeof *to->at);
        if (!to->at) die("memory");
    }
    int64_t tenths = nanoseconds / 100; /* of a microsecond */
    to->at[to->number++] = tenths < 0 ? 0 : tenths > UINT32_MAX ? UINT32_MAX : (uint32_t)tenths;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The smallest sample that at least this share of the (sorted) samples does not exceed, in milliseconds. */
static double percentile(const struct samples *of, double share) {
    if (!of->number) return 0;
    size_t rank = (size_t)ceil(share * (double)of->number);
    return of->at[rank ? rank - 1 : 0] / 1e4;
}

static void read_heads(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file), room = 0;
    rewind(file);
    char *text = malloc(size + 1);
    if (!text || fread(text, 1, size, file) != size) die(path);
    fclose(file);
    for (char *at = text, *end; at < text + size; at = end) {
        char *blank = memmem(at, (size_t)(text + size - at), "\r\n\r\n", 4);
        if (!blank) break;
        end = blank + 4;
        if (head_count == room) heads = realloc(heads, (room = room ? room * 2 : 1024) * sizeof *heads);
        char *mark = memmem(at, (size_t)(end - at), MARK, MARK_SIZE);
        heads[head_count].at = at;
        heads[head_count].mark = (size_t)((mark ? mark : end) - at);
        heads[head_count++].size = (size_t)(end - at);
    }
    if (!head_count) { errno = EINVAL; die(path); }
}

static void watch(struct connection *on, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = on};
    if (epoll_ctl(epoll, operation, on->fd, &event)) die("epoll_ctl");
}

static void open_connection(struct connection *on) {
    int yes = 1;
    on->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (on->fd < 0) die("socket");
    if (connect(on->fd, (struct sockaddr *)&target, sizeof target)) die("connect");
    setsockopt(on->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(on->fd, F_SETFL, O_NONBLOCK);
    on->writing = 0;
    watch(on, EPOLL_CTL_ADD, EPOLLIN);
}

static void rest(struct connection *on) {
    on->busy = 0;
    idle[(idle_first + idle_number++) % connection_count] = (int)(on - connections);
}

static void reopen(struct connection *on) {
    close(on->fd);
    reconnects++;
    open_connection(on);
}

/* The connection broke under a call: what became of the call, nobody knows. */
static void broken(struct connection *on) {
    if (on->busy) {
        socket_errors++;
        reopen(on);
        rest(on);
    } else {
        reopen(on); /* closed while idle: its place in the ring stays */
    }
}

/* List the parts of a request that are still to be sent: the head up to its mark, what stands for the mark, the rest of
 * the head, the body. Returns how many there are. */
static int unsent_parts(const struct connection *on, struct iovec *parts) {
    const char *head = heads[on->request].at;
    size_t size = heads[on->request].size, mark = heads[on->request].mark;
    size_t marked = mark < size ? MARK_SIZE : 0, skip = on->sent;
    struct iovec all[] = {
        {(char *)head, mark}, {(char *)on->unique, marked}, {(char *)head + mark + marked, size - mark - marked}, {body, body_size},
    };
    int count = 0;
    for (int i = 0; i < 4; i++) {
        size_t gone = skip < all[i].iov_len ? skip : all[i].iov_len;
        skip -= gone;
        if (gone < all[i].iov_len) parts[count++] = (struct iovec){(char *)all[i].iov_base + gone, all[i].iov_len - gone};
    }
    return count;
}

static void push(struct connection *on) {
    size_t whole = heads[on->request].size + body_size;
    while (on->sent < whole) {
        struct iovec parts[4];
        ssize_t wrote = writev(on->fd, parts, unsent_parts(on, parts));
        if (wrote < 0) {
            if (errno == EAGAIN) {
                if (!on->writing) watch(on, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
                on->writing = 1;
            }
            return; /* any other error shows when reading */
        }
        on->sent += (size_t)wrote;
    }
    if (on->writing) watch(on, EPOLL_CTL_MOD, EPOLLIN);
    on->writing = 0;
}

/* Write sixteen digits of which no two calls have the same: each step of the mixing (SplitMix64's) is one to one. */
static void make_unique(char *digits) {
    uint64_t mixed = sequence++;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBULL;
    mixed ^= mixed >> 31;
    for (size_t i = 0; i < MARK_SIZE; i++) digits[i] = "0123456789abcdef"[mixed >> (4 * i) & 15];
}

static void begin(struct connection *on, int64_t due) {
    on->busy = 1;
    make_unique(on->unique);
    on->request = turn++ % head_count;
    on->sent = on->kept = 0;
    on->due = due;
    on->began = now();
    on->first = 0;
    on->part = HEAD;
    started++;
    push(on);
}

static void finished(struct connection *on) {
    int64_t at = now();
    int good = on->status >= 200 && on->status < 300;
    add(good ? &ok_latency : &other_latency, at - on->due);
    if (good) add(&first_byte, on->first - on->due), add(&queued, on->began - on->due), add(&since_sent, at - on->began);
    if (at <= deadline) in_window++, ok_in_window += good, good_in_second[(at - start) / SECOND] += good;
    ok_total += good;
    if (on->status == 503) shed++, shed_without_retry += !on->retry_after;
    else if (!good) bad_status++, last_bad = on->status;
    if (on->closes || on->sent < heads[on->request].size + body_size) reopen(on);
    rest(on);
}

static const char *field(const char *head, const char *name) {
    const char *found = strcasestr(head, name);
    return found ? found + strlen(name) : NULL;
}

/* Decide from the head how the body is framed. Returns whether the answer is complete with it. */
static int head_read(struct connection *on) {
    on->status = atoi(on->head + 9);
    on->kept = 0;
    if (on->status < 200) return 0; /* 100 Continue: the answer's own head follows */
    const char *length = field(on->head, "\r\ncontent-length:"), *coding = field(on->head, "\r\ntransfer-encoding:");
    on->closes = strcasestr(on->head, "\r\nconnection: close") != NULL;
    on->retry_after = strcasestr(on->head, "\r\nretry-after:") != NULL;
    if (on->status == 204 || on->status == 304) return 1;
    if (coding) on->part = CHUNK_SIZE;
    else if (length) on->part = LENGTH, on->left = atoll(length);
    else on->part = UNTIL_CLOSE;
    return on->part == LENGTH && on->left == 0;
}

/* Collect bytes in `head` up to and with `end`. Returns how many were taken; sets `whole` when `end` has come. */
static size_t collect(struct connection *on, const char *data, size_t size, const char *end, int *whole) {
    size_t taken = 0, length = strlen(end);
    *whole = 0;
    while (taken < size && !*whole) {
        if (on->kept == HEAD_MAX - 1) { errno = EMSGSIZE; die("a head"); }
        on->head[on->kept++] = data[taken++];
        *whole = on->kept >= length && !memcmp(on->head + on->kept - length, end, length);
    }
    on->head[on->kept] = 0;
    return taken;
}

/* Read on in an answer. Returns 1 when it is complete. */
static int take(struct connection *on, const char *data, size_t size) {
    while (size) {
        size_t taken = size;
        int whole;
        switch (on->part) {
        case HEAD:
            taken = collect(on, data, size, "\r\n\r\n", &whole);
            if (whole && head_read(on)) return 1;
            break;
        case CHUNK_SIZE:
            taken = collect(on, data, size, "\r\n", &whole);
            if (whole) on->left = strtoll(on->head, NULL, 16), on->kept = 0, on->part = on->left ? CHUNK_DATA : TRAILER;
            break;
        case CHUNK_END:
            taken = collect(on, data, size, "\r\n", &whole);
            if (whole) on->kept = 0, on->part = CHUNK_SIZE;
            break;
        case TRAILER:
            taken = collect(on, data, size, "\r\n", &whole);
            if (whole && on->kept == 2) return 1;
            if (whole) on->kept = 0;
            break;
        case LENGTH:
        case CHUNK_DATA:
            if ((int64_t)taken > on->left) taken = (size_t)on->left;
            on->left -= (int64_t)taken;
            if (!on->left && on->part == LENGTH) return 1;
            if (!on->left) on->part = CHUNK_END;
            break;
        case UNTIL_CLOSE:
            break;
        }
        data += taken;
        size -= taken;
    }
    return 0;
}

static void readable(struct connection *on) {
    static char data[READ_SIZE];
    ssize_t size = recv(on->fd, data, sizeof data, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        int complete = !size && on->busy && on->part == UNTIL_CLOSE && on->first;
        on->closes = 1;
        if (complete) finished(on);
        else broken(on);
        return;
    }
    received += size;
    if (!on->busy) return broken(on); /* bytes that nobody asked for */
    if (!on->first) on->first = now();
    if (take(on, data, (size_t)size)) finished(on);
}

static double uniform(void) {
    static uint64_t state = 0x9E3779B97F4A7C15ULL;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return ((double)(state >> 11) + 0.5) / 9007199254740992.0;
}

static struct connection *next_idle(void) {
    struct connection *on = &connections[idle[idle_first]];
    idle_first = (idle_first + 1) % connection_count;
    idle_number--;
    return on;
}

static int64_t gap(double rate) { return (int64_t)(-log(uniform()) / rate * SECOND); }

/* Run until the deadline and until all answers are there. Returns how many requests were due but never sent. */
static long run(double rate, int64_t began) {
    struct epoll_event events[256];
    int64_t due = rate > 0 ? began + gap(rate) : 0;
    int free_before = 1;
    for (;;) {
        int64_t time = now();
        if (time >= deadline && (idle_number == connection_count || time >= deadline + DRAIN)) break;
        while (time < deadline && idle_number && (rate <= 0 || due <= time)) {
            if (rate > 0 && free_before) add(&lateness, time - due);
            begin(next_idle(), rate > 0 ? due : now());
            if (rate > 0) due += gap(rate);
        }
        free_before = idle_number > 0;
        int64_t until = time >= deadline ? deadline + DRAIN : rate > 0 && idle_number && due < deadline ? due : deadline;
        time = now();
        struct timespec wait = {0};
        if (until > time) wait = (struct timespec){(until - time) / SECOND, (until - time) % SECOND};
        int number = epoll_pwait2(epoll, events, 256, &wait, NULL);
        if (number < 0 && errno != EINTR) die("epoll_pwait2");
        for (int i = 0; i < number; i++) {
            struct connection *on = events[i].data.ptr;
            if (events[i].events & EPOLLOUT && on->busy) push(on);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(on);
        }
    }
    long unsent = 0;
    for (; rate > 0 && due < deadline; due += gap(rate)) unsent++;
    return unsent;
}

int main(int count, char **argument) {
    if (count != 7) { errno = EINVAL; die("load PORT HEADS CONNECTIONS SECONDS RATE BODY"); }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1000UL);
    target = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argument[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    read_heads(argument[2]);
    connection_count = atoi(argument[3]);
    double seconds = atof(argument[4]), rate = atof(argument[5]);
    if (seconds > SECONDS_MAX) { errno = ERANGE; die("seconds"); }
    body_size = (size_t)atoll(argument[6]);
    body = malloc(body_size + 1);
    memset(body, 'x', body_size + 1);
    connections = calloc((size_t)connection_count, sizeof *connections);
    idle = calloc((size_t)connection_count, sizeof *idle);
    epoll = epoll_create1(0);
    for (int i = 0; i < connection_count; i++) open_connection(&connections[i]), rest(&connections[i]);
    struct timespec date;
    clock_gettime(CLOCK_REALTIME, &date);
    sequence = (uint64_t)date.tv_sec * SECOND + (uint64_t)date.tv_nsec;
    start = now();
    deadline = start + (int64_t)(seconds * SECOND);
    long unsent = run(rate, start);
    struct samples *all[] = {&ok_latency, &other_latency, &first_byte, &lateness, &queued, &since_sent};
    for (int i = 0; i < 6; i++) qsort(all[i]->at, all[i]->number, sizeof(uint32_t), by_size);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"seconds\": %.6f, \"answers\": %ld, \"ok\": %ld, \"ok_total\": %ld, \"started\": %ld, \"unfinished\": %d,"
           " \"unsent\": %ld, \"shed\": %ld, \"shed_without_retry_after\": %ld, \"bad_status\": %ld, \"last_bad\": %ld,"
           " \"socket_errors\": %ld, \"reconnects\": %ld, \"bytes\": %lld, \"p50_ms\": %.4f, \"p99_ms\": %.4f,"
           " \"p999_ms\": %.4f, \"max_ms\": %.4f, \"first_p50_ms\": %.4f, \"first_p99_ms\": %.4f, \"other_p99_ms\": %.4f,"
           " \"late_p50_ms\": %.4f, \"late_p99_ms\": %.4f, \"queued_p50_ms\": %.4f, \"queued_p99_ms\": %.4f,"
           " \"sent_p50_ms\": %.4f, \"sent_p99_ms\": %.4f, \"cpu_seconds\": %.4f, \"by_second\": [",
           seconds, in_window, ok_in_window, ok_total, started, connection_count - idle_number, unsent, shed,
           shed_without_retry, bad_status, last_bad, socket_errors, reconnects, received, percentile(&ok_latency, .5),
           percentile(&ok_latency, .99), percentile(&ok_latency, .999), percentile(&ok_latency, 1),
           percentile(&first_byte, .5), percentile(&first_byte, .99), percentile(&other_latency, .99),
           percentile(&lateness, .5), percentile(&lateness, .99), percentile(&queued, .5), percentile(&queued, .99),
           percentile(&since_sent, .5), percentile(&since_sent, .99), cpu);
    for (int i = 0; i < (int)seconds; i++) printf("%s%ld", i ? ", " : "", good_in_second[i]);
    printf("]}\n");
    return 0;
}
