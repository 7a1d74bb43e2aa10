/* Watches the inboxes of many users over WebSockets on 127.0.0.1 and counts the notices that are pushed. The titles that
 * `load` gives say when each was sent; so it prints, as one JSON object, how many came, and the percentiles from the POST
 * to the push.
 *
 *   listen PORT TOKENS IDLE
 *
 * TOKENS: a file with one token a line, one connection each. It says "ready" once all have subscribed, and ends when
 * nothing has come for IDLE seconds after the first push, or when its standard input ends (the answer is printed then). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define ROOM (1 << 20)

typedef struct {
    int fd, held;
    char in[ROOM + 1];
} Socket;

static uint32_t *took;
static uint64_t pushes, room = 1 << 16, last;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void say(int fd, const char *text) {
    unsigned char frame[256] = {0x81, 0};
    size_t n = strlen(text);
    frame[1] = (unsigned char)(0x80 | n); /* masked with four zeros; n < 126 */
    memcpy(frame + 6, text, n);
    if (write(fd, frame, n + 6) != (ssize_t)(n + 6)) fail("write");
}

/* One frame's payload; true if it is the answer to the subscription. */
static int frame(char *text, uint64_t size) {
    char kept = text[size];
    text[size] = 0;
    int subscribed = strstr(text, "\"id\":2,\"ok\"") != NULL;
    char *title = strstr(text, "\"op\":\"raised\"") ? strstr(text, "\"title\":\"n") : NULL;
    char *sent = title ? strchr(title + 10, ' ') : NULL;
    if (sent) {
        last = now();
        if (pushes == room) took = realloc(took, (room *= 2) * sizeof *took);
        took[pushes++] = (uint32_t)((last - strtoull(sent + 1, NULL, 10)) / 1000);
    } else if (strstr(text, "\"error\"")) {
        fprintf(stderr, "%.300s\n", text);
        exit(1);
    }
    text[size] = kept;
    return subscribed;
}

/* Takes what has come; how many subscriptions were answered. */
static int take(Socket *s) {
    int subscribed = 0;
    for (;;) {
        ssize_t n = read(s->fd, s->in + s->held, (size_t)(ROOM - s->held));
        if (n < 0 && errno == EAGAIN) return subscribed;
        if (n <= 0) fail("the server closed the connection");
        s->held += (int)n;
        int at = 0;
        while (s->held - at >= 2) {
            unsigned char *h = (unsigned char *)s->in + at;
            uint64_t size = h[1] & 127;
            int head = size == 126 ? 4 : size == 127 ? 10 : 2;
            if (s->held - at < head) break;
            if (size >= 126) {
                size = 0;
                for (int i = 2; i < head; i++) size = size << 8 | h[i];
            }
            if (size > ROOM - 16) { errno = EMSGSIZE; fail("frame"); }
            if ((uint64_t)(s->held - at - head) < size) break;
            if ((h[0] & 15) == 1) subscribed += frame(s->in + at + head, size);
            if ((h[0] & 15) == 8) fail("the server said goodbye");
            at += head + (int)size;
        }
        memmove(s->in, s->in + at, (size_t)(s->held - at));
        s->held -= at;
    }
}

static int smaller(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc != 4) { fputs("listen PORT TOKENS IDLE\n", stderr); return 2; }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    FILE *tokens = fopen(argv[2], "r");
    if (!tokens) fail(argv[2]);
    char token[8192], request[9000];
    int poll = epoll_create1(0), waited = 0, idle = atoi(argv[3]), input = 1;
    took = malloc(room * sizeof *took);
    while (fgets(token, sizeof token, tokens)) {
        token[strcspn(token, "\n")] = 0;
        Socket *s = calloc(1, sizeof *s);
        s->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(s->fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
        int n = sprintf(request, "GET /v1/ws HTTP/1.1\r\nhost: 127.0.0.1:%s\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer %s\r\n\r\n",
            argv[1], token);
        if (write(s->fd, request, (size_t)n) != n) fail("write");
        for (s->in[0] = 0; !strstr(s->in, "\r\n\r\n"); s->in[s->held] = 0) {
            ssize_t m = read(s->fd, s->in + s->held, 1); /* nothing after the head is taken along */
            if (m <= 0) fail("upgrade");
            s->held += (int)m;
        }
        if (!strstr(s->in, " 101 ")) { fputs(s->in, stderr); return 1; }
        s->held = 0;
        say(s->fd, "{\"id\":2,\"subscribe\":{\"channel\":\"inbox\",\"snapshot\":false}}");
        fcntl(s->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, s->fd, &e)) fail("epoll_ctl");
        waited++;
    }
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, 0, &e)) fail("standard input");
    while (input && !(pushes && now() - last > (uint64_t)idle * 1000000000u)) {
        struct epoll_event found[256];
        int n = epoll_wait(poll, found, 256, 100);
        for (int i = 0; i < n; i++) {
            if (!found[i].data.ptr) { input = 0; continue; }
            int answers = take(found[i].data.ptr);
            if (answers && !(waited -= answers)) puts("ready"), fflush(stdout);
        }
    }
    qsort(took, pushes, sizeof *took, smaller);
    printf("{\"pushes\":%lu,\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f,\"last\":%lu}\n", pushes,
        pushes ? took[pushes / 2] / 1e3 : 0, pushes ? took[pushes * 99 / 100] / 1e3 : 0,
        pushes ? took[pushes - 1] / 1e3 : 0, last);
    return 0;
}
