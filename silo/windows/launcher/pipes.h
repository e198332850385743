/* Named pipes that are shared with others than this silo: pipes.c maps them, pipe_streams.c carries their bytes. */
#ifndef SILO_PIPES_H
#define SILO_PIPES_H

#include "launcher.h"

enum { MAX_PIPE_CONNECTIONS = 60, PIPE_FRAME_BYTES = 1048576, PIPE_BUFFER_BYTES = 65536 };

/* One mapped pipe; lives as long as its connection with the host, or the last stream of it. */
struct mapping {
    struct mapping *next;
    LONG references, streams, accepted; /* `accepted`: streams whose end of the pipe is the serving one */
    SRWLOCK lock;        /* guards `socket` and `waiting` */
    int socket;          /* -1 when the host has gone */
    WCHAR *name;
    HANDLE stop, room;   /* no more clients; a stream has ended */
    HANDLE listener;     /* the thread that awaits clients, or NULL */
    struct pipe_stream *waiting;
};

/* One program's connection. `input` and `output` are ends of Unix pipes that carry frames. */
struct pipe_stream {
    struct pipe_stream *next;
    struct mapping *mapping;
    LONG references;
    BOOL accepted;
    BOOL one_way;        /* the program only reads: there is nothing to carry out */
    uint32_t id;
    HANDLE pipe, over;
    int input, output, wake;
};

/* --- pipes.c */
void serve_pipe(int socket, struct message *request);
void release_mapping(struct mapping *mapping);
/* A stream at this pipe has ended. */
void announce_room(const struct mapping *mapping);
BOOL tell_host(struct mapping *mapping, uint8_t type, const void *bytes, uint32_t size);

/* --- pipe_streams.c */
/* A record for a stream, counted among its mapping's; NULL when there are too many. Takes over the handle. */
struct pipe_stream *new_pipe_stream(struct mapping *mapping, uint32_t id, HANDLE pipe);
/* Carry bytes until either side ends. Takes over the descriptors. */
void start_pipe_stream(struct pipe_stream *stream, int input, int output);
void release_pipe_stream(struct pipe_stream *stream);
/* The host wants a stream to the program that serves the pipe. Takes over the descriptors. */
void open_pipe_stream(struct mapping *mapping, uint32_t id, int input, int output);

#endif
