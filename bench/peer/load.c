/* Sends notices (or alerts, to Alertmanager) over kept-alive HTTP/1.1 connections on 127.0.0.1, each connection with one
 * request at a time, every body different. Prints one JSON object: what was accepted, and the percentiles of the answers.
 * It costs a few microseconds a request, so that what is measured is the server.
 *
 *   load SIDE PORT CONNECTIONS SECONDS COUNT BATCH USERS TOKEN
 *
 * SIDE: tidings | alertmanager. Ends after SECONDS, or COUNT notices (0: no such end). BATCH: notices in one POST.
 * USERS: they are for u0 … u<USERS-1> in turn. A title is "n<number> <nanoseconds of CLOCK_MONOTONIC>". A connection that
 * the server ends is counted (`cut`) and not opened again: so a killed server's acknowledgements are known exactly. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define NOTICE 512
#define ANSWER 65536

typedef struct {
    int fd, sent, size, held;
    uint64_t began;
    char *request, answer[ANSWER];
} Connection;

static const char *side, *token;
static int batch, users;
static uint64_t number;
static char *body;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void compose(Connection *c) {
    static const char text[] = "The machine has used more than nine tenths of its memory for a quarter of an hour.";
    int ours = !strcmp(side, "tidings"), n = 0, many = batch > 1 || !ours;
    c->began = now();
    if (many) body[n++] = '[';
    for (int i = 0; i < batch; i++, number++) {
        const char *form = ours
            ? "%s{\"to\":[\"u%d\"],\"title\":\"n%lu %lu\",\"severity\":\"warning\",\"text\":\"%s\"}"
            : "%s{\"labels\":{\"user\":\"u%d\",\"alertname\":\"n%lu %lu\",\"severity\":\"warning\"},\"annotations\":{\"text\":\"%s\"}}";
        n += sprintf(body + n, form, i ? "," : "", (int)(number % (uint64_t)users), number, c->began, text);
    }
    if (many) body[n++] = ']';
    c->size = sprintf(c->request,
        "POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\n"
        "content-length: %d\r\n\r\n", ours ? "/v1/notices" : "/api/v2/alerts", token, n);
    memcpy(c->request + c->size, body, (size_t)n);
    c->size += n;
    c->sent = c->held = 0;
}

static void push_out(Connection *c) {
    while (c->sent < c->size) {
        ssize_t n = send(c->fd, c->request + c->sent, (size_t)(c->size - c->sent), MSG_NOSIGNAL);
        if (n <= 0) return; /* full for now, or cut: then reading says so */
        c->sent += (int)n;
    }
}

/* The status once the whole answer is there, else 0; -1 if the server ended the connection. */
static int answered(Connection *c) {
    for (;;) {
        ssize_t n = read(c->fd, c->answer + c->held, (size_t)(ANSWER - 1 - c->held));
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) return -1;
        c->held += (int)n;
        if (c->held == ANSWER - 1) { errno = EMSGSIZE; fail("read"); }
    }
    c->answer[c->held] = 0;
    char *end = strstr(c->answer, "\r\n\r\n"), *length = strcasestr(c->answer, "content-length:");
    if (!end) return 0;
    long size = length && length < end ? atol(length + 15) : 0;
    return c->held >= end - c->answer + 4 + size ? atoi(c->answer + 9) : 0;
}

static int smaller(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc != 9) { fputs("load SIDE PORT CONNECTIONS SECONDS COUNT BATCH USERS TOKEN\n", stderr); return 2; }
    int port = atoi(argv[2]), connections = atoi(argv[3]), open = connections;
    uint64_t most = strtoull(argv[5], NULL, 10), accepted = 0, refused = 0, requests = 0, cut = 0, room = 1 << 16;
    side = argv[1], batch = atoi(argv[6]), users = atoi(argv[7]), token = argv[8];
    body = malloc((size_t)batch * NOTICE + 16);
    uint32_t *took = malloc(room * sizeof *took);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int poll = epoll_create1(0), on = 1;
    uint64_t begun = now(), until = begun + (uint64_t)(atof(argv[4]) * 1e9), last = begun;
    for (int i = 0; i < connections; i++) {
        Connection *c = calloc(1, sizeof *c);
        c->request = malloc((size_t)batch * NOTICE + 4096);
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &e)) fail("epoll_ctl");
        compose(c);
        push_out(c);
    }
    while (open) {
        struct epoll_event found[256];
        int n = epoll_wait(poll, found, 256, 20000);
        if (n <= 0) fail("no answer within 20 s");
        for (int i = 0; i < n; i++) {
            Connection *c = found[i].data.ptr;
            push_out(c);
            int status = answered(c);
            if (!status) continue;
            if (status < 0) {
                cut++, open--;
                epoll_ctl(poll, EPOLL_CTL_DEL, c->fd, NULL);
                continue;
            }
            last = now();
            if (requests == room) took = realloc(took, (room *= 2) * sizeof *took);
            took[requests++] = (uint32_t)((last - c->began) / 1000);
            if (status / 100 == 2) accepted += (uint64_t)batch;
            else if (!refused++) fprintf(stderr, "%.300s\n", c->answer);
            if (last >= until || (most && number >= most)) {
                open--;
                epoll_ctl(poll, EPOLL_CTL_DEL, c->fd, NULL);
                continue;
            }
            compose(c);
            push_out(c);
        }
    }
    qsort(took, requests, sizeof *took, smaller);
    if (!requests) return 1;
    printf("{\"accepted\":%lu,\"refused\":%lu,\"cut\":%lu,\"requests\":%lu,\"seconds\":%.3f,\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f}\n",
        accepted, refused, cut, requests, (double)(last - begun) / 1e9, took[requests / 2] / 1e3,
        took[requests * 99 / 100] / 1e3, took[requests - 1] / 1e3);
    return 0;
}
