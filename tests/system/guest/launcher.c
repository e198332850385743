/* A launcher (docs/launcher-protocol.md) without Windows: what a RUN's command line says decides what happens.
   say TEXT | cat | fail N | hang | crash; MAIN: end CODE */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RUN = 1, SIGNAL, RESIZE, LIST, CONFIGURE, SHUTDOWN, PING, SAVE, OK = 128, FAILED, STARTED, EXITED, MAXIMUM = 131072 };

static unsigned char message[MAXIMUM];

static void answer(int connection, uint8_t type, uint32_t number, int size) {
    unsigned char bytes[9] = {type};
    memcpy(bytes + 1, &number, 4);
    send(connection, bytes, (size_t)size, 0);
}

static void end(uint32_t code) {
    if (write(4, &code, 4) != 4) exit(1);
    exit((int)(code & 255));
}

static void run(int connection, const int *streams, int count) {
    uint32_t flags, length;
    char line[64] = {0}, buffer[4096];
    ssize_t size;
    memcpy(&flags, message + 1, 4);
    memcpy(&length, message + 9, 4);
    memcpy(line, message + 13, length < 63 ? length : 63);
    if (!strncmp(line, "fail ", 5)) {
        answer(connection, FAILED, (uint32_t)atoi(line + 5), 9); /* an empty text */
        return;
    }
    answer(connection, STARTED, 0x1234, 5);
    if (flags & 1) {
        dprintf(1, "main\n");
        if (!strncmp(line, "end ", 4)) end((uint32_t)strtoul(line + 4, NULL, 0));
        return;
    }
    if (!strcmp(line, "crash")) exit(3);
    if (!strncmp(line, "say ", 4)) dprintf(streams[count == 1 ? 0 : 1], "%s\n", line + 4);
    if (!strcmp(line, "size")) {
        struct winsize now;
        ioctl(streams[0], TIOCGWINSZ, &now);
        dprintf(streams[0], "%d %d\n", now.ws_row, now.ws_col);
    }
    if (!strcmp(line, "cat"))
        while ((size = read(streams[0], buffer, sizeof buffer)) > 0)
            if (write(streams[1], buffer, (size_t)size) != size) break;
    if (strcmp(line, "hang")) answer(connection, EXITED, 0x12345678, 5);
}

static void serve(int connection) {
    char room[CMSG_SPACE(8 * sizeof(int))];
    struct iovec part = {message, sizeof message};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    int streams[8], count = 0;
    ssize_t size = recvmsg(connection, &header, 0);
    struct cmsghdr *control = CMSG_FIRSTHDR(&header);
    if (size <= 0) return;
    if (control) {
        count = (int)((control->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(streams, CMSG_DATA(control), (size_t)count * sizeof(int));
    }
    if (message[0] == RUN) run(connection, streams, count);
    else if (message[0] == SHUTDOWN) {
        uint32_t code;
        memcpy(&code, message + 1, 4);
        end(code);
    } else if (message[0] == SIGNAL) answer(connection, FAILED, 1168, 9);
    else if (message[0] == LIST) answer(connection, 132, 0, 5);
    else answer(connection, OK, 0, 1);
    for (int index = 0; index < count; index++) close(streams[index]);
    if (message[0] == RUN) return; /* the connection stays open, as if the program had only begun to end */
    close(connection);
}

int main(void) {
    for (;;) {
        int connection = accept(3, NULL, NULL);
        if (connection < 0) return 9;
        serve(connection);
    }
}
