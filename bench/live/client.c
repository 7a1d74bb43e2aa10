/* Many WebSocket connections to 127.0.0.1 on one thread: counts what is delivered, looks for gaps and repeats, and measures
 * from the time that stands in each message to its arrival. A delivery costs it well under a microsecond, so that what is
 * measured is the server.
 *
 *   client PORT CONNECTIONS HEAD FRAMES TOKENS READY STRIDE SKIP
 *
 * HEAD: a file with the request's head; FRAMES: one with the frames to be said, a line each; TOKENS: one with a line for
 * each connection, or a single one for all. In the first two %t stands for the connection's token, %i for its number, %p
 * for the last "position" it was told. READY: how often the word `"ok"` (or `40{`, of Socket.IO) has to come before a
 * connection counts as there.
 *
 * A message holds #n:<number>,t:<nanoseconds of CLOCK_MONOTONIC>, and no quotes there, which some escape. Each connection should get every STRIDE-th number (0:
 * any that are larger than the last). No latency is taken of numbers below SKIP.
 *
 * Standard input: "say FRAME" changes what is said at the next connection, "drop" ends all connections without a word,
 * "back N" opens them again at once and says "caught <seconds>" when each has had number N, "count" says how many
 * deliveries there were so far; at its end the figures are printed as one JSON object. It says "ready" when all are there. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define ROOM (1 << 22)
#define STEP_US 20
#define STEPS (1 << 20)
#define AT_ONCE 128

typedef struct {
    int fd, index, oks, upgraded, there, held, room;
    int64_t last;
    char *in, position[256];
} Socket;

static Socket *all;
static char *tokens[1 << 16], *head, *frames, *input;
static int port, count, token_count, ready, poller, there, opening, next_to_open, caught;
static int64_t stride, skip, target = -1;
static uint64_t deliveries, measured, missing, repeated, closed, *took, largest, back_at;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static char *text_of(const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) fail(path);
    char *text = calloc(1, 1 << 24);
    if (fread(text, 1, (1 << 24) - 1, f) == 0) text[0] = 0;
    fclose(f);
    return text;
}

/* A line of a template with its three places filled in; up to `end` of it. */
static size_t filled(const char *from, const char *end, const Socket *s, char *to) {
    char *out = to;
    for (; from < end; from++) {
        if (*from != '%') { *out++ = *from; continue; }
        from++;
        if (*from == 't') out = stpcpy(out, tokens[s->index % token_count]);
        else if (*from == 'i') out += sprintf(out, "%d", s->index);
        else if (*from == 'p') out = stpcpy(out, s->position);
    }
    return (size_t)(out - to);
}

static void say(Socket *s, const char *text, size_t n) {
    unsigned char frame[16384] = {0x81};
    size_t at = 2;
    if (n < 126) frame[1] = (unsigned char)(0x80 | n);
    else frame[1] = 0x80 | 126, frame[2] = (unsigned char)(n >> 8), frame[3] = (unsigned char)n, at = 4;
    memset(frame + at, 0, 4); /* masked with zeros */
    memcpy(frame + at + 4, text, n);
    if (write(s->fd, frame, at + 4 + n) != (ssize_t)(at + 4 + n)) fail("write");
}

static void pong(Socket *s, const char *text, size_t n) {
    unsigned char frame[256] = {0x8a, (unsigned char)(0x80 | n)};
    memcpy(frame + 6, text, n);
    if (write(s->fd, frame, n + 6) != (ssize_t)(n + 6)) closed++;
}

static void is_there(Socket *s) {
    s->there = 1, there++, opening--;
    if (there == count && target < 0) puts("ready"), fflush(stdout);
}

static void delivered(Socket *s, const char *number, const char *time, uint64_t at) {
    int64_t n = strtoll(number + 3, NULL, 10);
    if (s->last >= 0 && n <= s->last) repeated++;
    else if (s->last >= 0 && stride) missing += (uint64_t)((n - s->last) / stride - 1);
    if (n > s->last) s->last = n;
    if (target >= 0 && n == target && ++caught == count)
        printf("caught %.4f\n", (double)(now() - back_at) / 1e9), fflush(stdout);
    deliveries++;
    if (n < skip) return;
    measured++;
    uint64_t us = (at - strtoull(time + 3, NULL, 10)) / 1000;
    if (us > largest) largest = us;
    took[us / STEP_US < STEPS ? us / STEP_US : STEPS - 1]++;
}

static void message(Socket *s, char *text, size_t size, uint64_t at) {
    char *number = memmem(text, size, "#n:", 3), *time;
    if (!number) {
        if (size == 1 && *text == '2') say(s, "3", 1); /* Socket.IO's own ping */
        if (memmem(text, size, "\"error\"", 7)) { fprintf(stderr, "%.*s\n", (int)size, text); exit(1); }
        if (memmem(text, size, "\"ok\"", 4) || !strncmp(text, "40{", 3)) s->oks++;
        if (s->oks >= ready && !s->there) is_there(s);
    }
    char *position = memmem(text, size < 400 ? size : 400, "\"position\":\"", 12);
    if (position) {
        char *end = memchr(position + 12, '"', 250);
        if (end) memcpy(s->position, position + 12, (size_t)(end - position - 12)), s->position[end - position - 12] = 0;
    }
    for (char *end = text + size; number && (time = memmem(number, (size_t)(end - number), ",t:", 3));
         number = memmem(time, (size_t)(end - time), "#n:", 3)) /* centrifuge joins several */
        delivered(s, number, time, at);
}

/* All whole frames in `data`; how many bytes they were. */
static size_t take(Socket *s, char *data, size_t size, uint64_t at) {
    size_t used = 0;
    if (!s->upgraded) {
        char *end = memmem(data, size, "\r\n\r\n", 4);
        if (!end) return 0;
        if (memcmp(data, "HTTP/1.1 101", 12)) { fprintf(stderr, "%.*s\n", (int)size, data); exit(1); }
        s->upgraded = 1;
        used = (size_t)(end - data) + 4;
        char text[8192];
        for (char *line = frames, *stop; *line; line = stop + 1) {
            stop = strchr(line, '\n');
            say(s, text, filled(line, stop, s, text));
        }
        if (!ready) is_there(s);
    }
    while (size - used >= 2) {
        unsigned char *h = (unsigned char *)data + used;
        uint64_t length = h[1] & 127;
        size_t first = length == 126 ? 4 : length == 127 ? 10 : 2;
        if (size - used < first) break;
        if (length >= 126) {
            length = 0;
            for (size_t i = 2; i < first; i++) length = length << 8 | h[i];
        }
        if (length > ROOM / 2) { errno = EMSGSIZE; fail("frame"); }
        if (size - used - first < length) break;
        int opcode = h[0] & 15;
        char *text = data + used + first;
        if (opcode == 1) message(s, text, length, at);
        else if (opcode == 9) pong(s, text, length);
        used += first + length;
    }
    return used;
}

static void connect_one(Socket *s) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(s->index / 20000)); /* a port for each connection */
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    s->upgraded = s->oks = s->there = s->held = 0;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(s->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) fail("connect");
    struct epoll_event e = {.events = EPOLLOUT, .data.ptr = s};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &e)) fail("epoll_ctl");
    opening++;
}

static void connected(Socket *s) {
    char request[16384];
    size_t n = filled(head, head + strlen(head), s, request);
    if (write(s->fd, request, n) != (ssize_t)n) fail("handshake");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
    epoll_ctl(poller, EPOLL_CTL_MOD, s->fd, &e);
}

static void readable(Socket *s) {
    memcpy(input, s->in, (size_t)s->held);
    ssize_t n = read(s->fd, input + s->held, (size_t)(ROOM - s->held));
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        closed++;
        close(s->fd);
        s->fd = -1;
        return;
    }
    size_t size = (size_t)s->held + (size_t)n, used = take(s, input, size, now());
    s->held = (int)(size - used);
    if (s->held > s->room) s->in = realloc(s->in, (size_t)(s->room = s->held * 2));
    memcpy(s->in, input + used, (size_t)s->held);
}

/* One line of standard input; false at its end. */
static int command(void) {
    char line[4096] = "";
    ssize_t n = read(0, line, sizeof line - 1);
    if (n <= 0) return 0;
    if (!strncmp(line, "say ", 4)) frames = strdup(line + 4);
    if (!strncmp(line, "count", 5)) printf("counted %lu\n", deliveries);
    struct linger hard = {1, 0};
    for (int i = 0; i < count && !strncmp(line, "drop", 4); i++) {
        setsockopt(all[i].fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close(all[i].fd);
        there = 0;
    }
    if (!strncmp(line, "back", 4)) {
        target = atoll(line + 5), back_at = now(), caught = 0;
        for (int i = 0; i < count; i++) connect_one(&all[i]);
    }
    puts("done"), fflush(stdout);
    return 1;
}

static double percentile(double share) {
    uint64_t before = 0;
    for (uint64_t i = 0; i < STEPS; i++)
        if ((before += took[i]) > share * (double)measured) return (double)i * STEP_US / 1e3;
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 9) { fputs("client PORT CONNECTIONS HEAD FRAMES TOKENS READY STRIDE SKIP\n", stderr); return 2; }
    port = atoi(argv[1]), count = atoi(argv[2]), head = text_of(argv[3]), frames = text_of(argv[4]);
    char *lines = text_of(argv[5]);
    for (char *line = strtok(lines, "\n"); line && token_count < 1 << 16; line = strtok(NULL, "\n")) tokens[token_count++] = line;
    ready = atoi(argv[6]), stride = atoll(argv[7]), skip = atoll(argv[8]);
    all = calloc((size_t)count, sizeof *all), took = calloc(STEPS, sizeof *took), input = malloc(ROOM);
    poller = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &e)) fail("standard input");
    for (int go_on = 1; go_on;) {
        while (opening < AT_ONCE && next_to_open < count) {
            all[next_to_open].index = next_to_open, all[next_to_open].last = -1;
            connect_one(&all[next_to_open++]);
        }
        struct epoll_event found[256];
        int n = epoll_wait(poller, found, 256, 1000);
        for (int i = 0; i < n; i++) {
            Socket *s = found[i].data.ptr;
            if (!s) go_on = command();
            else if (found[i].events & EPOLLOUT) connected(s);
            else readable(s);
        }
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"deliveries\":%lu,\"measured\":%lu,\"missing\":%lu,\"repeated\":%lu,\"closed\":%lu,\"p50\":%.2f,\"p99\":%.2f,\"max\":%.2f,\"cpu\":%.2f}\n",
        deliveries, measured, missing, repeated, closed, percentile(0.5), percentile(0.99), (double)largest / 1e3, cpu);
    return 0;
}
