/* The least that telling everybody can cost: takes WebSocket handshakes on 127.0.0.1 and sends RATE messages of SIZE bytes a
 * second to every connection, each by one send().
 *
 *   loop PORT CONNECTIONS RATE SECONDS SIZE
 *
 * Says "ready", and begins when all CONNECTIONS are there. Prints the processor seconds that it took, and waits to be ended. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    int count = atoi(argv[2]), size = atoi(argv[5]), on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    int *to = calloc((size_t)count, sizeof *to);
    uint64_t messages = (uint64_t)(atof(argv[3]) * atof(argv[4])), every = (uint64_t)(1e9 / atof(argv[3])), failed = 0;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) { perror("listen"); return 1; }
    puts("ready"), fflush(stdout);
    for (int i = 0; i < count; i++) {
        char head[8192];
        to[i] = accept(listener, NULL, NULL);
        if (read(to[i], head, sizeof head) <= 0) return 1;
        dprintf(to[i], "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
    }
    sleep(1);
    uint64_t begun = now();
    double spent = cpu();
    for (uint64_t n = 0; n < messages; n++) {
        while (now() < begun + n * every) {
            struct timespec t = {.tv_nsec = (long)(begun + n * every - now())};
            if (t.tv_nsec > 0) nanosleep(&t, NULL);
        }
        unsigned char frame[65536] = {0x81, 126, (unsigned char)(size >> 8), (unsigned char)size};
        int written = sprintf((char *)frame + 4, "{\"id\":\"#n:%lu,t:%lu\",\"x\":\"", n, now());
        memset(frame + 4 + written, 'x', (size_t)(size - written));
        memcpy(frame + 4 + size - 2, "\"}", 2);
        for (int i = 0; i < count; i++)
            if (send(to[i], frame, (size_t)size + 4, MSG_NOSIGNAL | MSG_DONTWAIT) != size + 4) failed++;
    }
    double cost = cpu() - spent;
    printf("{\"cpu\":%.3f,\"sent\":%lu,\"failed\":%lu}\n", cost, messages * (uint64_t)count, failed);
    fclose(stdout);
    pause(); /* the connections stay until somebody ends it */
}
