/* What the parts of the launcher share. docs/launcher-protocol.md says what it does and for whom.
 *
 *   main.c         descriptors, workers, dispatch of requests        console.c    consoles: the common one, terminals
 *   wire.c         messages                                          streams.c    Unix descriptors <-> NT pipes
 *   program.c      start a program, wait for it, report its end      events.c     console events, termination
 *   lookup.c       which file a command line means, and what it is   inventory.c  the processes of the silo
 *   environment.c  the environment of a program                      silo.c       name, services, the end
 *   parking.c      programs stopped at their entry point             registry.c   the registry's files
 *   pipes.c        named pipes shared with others, with pipe_names.c and pipe_streams.c (pipes.h)
 *   linux.c        system calls
 */
#ifndef SILO_LAUNCHER_H
#define SILO_LAUNCHER_H

#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0a00
#include <stdint.h>
#include <windows.h>
#include <winternl.h>

#include "linux.h"

enum { MAX_MESSAGE = 131072, MAX_PATH_CHARACTERS = 4096, MAX_COMMAND_CHARACTERS = 32767, MAX_NETBIOS_CHARACTERS = 15 };

/* Descriptors that the start script leaves open. */
enum { FD_LISTENER = 3, FD_STATUS = 4, FD_INPUT = 5, FD_OUTPUT = 6, FD_ERROR = 7 };

enum { RUN = 1, SIGNAL, RESIZE, LIST, CONFIGURE, SHUTDOWN, PING, SAVE, START, PIPE };
enum { PIPE_OFFER = PIPE + 1, PIPE_OPEN, PIPE_ATTACH, PIPE_REFUSE }; /* on a connection that PIPE has begun */
enum { OK = 128, FAILED, STARTED, EXITED, PROCESSES, PIPE_SERVED, PIPE_CLIENT, PIPE_ENDED };
enum { RUN_MAIN = 1, RUN_TTY = 2, RUN_NO_FLUSH = 4, RUN_PARK = 8 };

/* --- wire.c */
struct message {
    uint8_t *data;
    uint32_t size, offset;
    BOOL broken;
};

uint8_t take_u8(struct message *message);
uint16_t take_u16(struct message *message);
uint32_t take_u32(struct message *message);
/* A copy on the heap, never NULL unless the message is broken. */
WCHAR *take_text(struct message *message);
void put_u8(struct message *message, uint8_t value);
void put_u32(struct message *message, uint32_t value);
void put_u64(struct message *message, uint64_t value);
void put_text(struct message *message, const WCHAR *text);
void answer_ok(int socket);
void answer_failed(int socket, DWORD error, const WCHAR *message);
void answer_number(int socket, uint8_t type, uint32_t number);

/* --- streams.c */
struct program;
struct stream {
    struct program *owner;
    int descriptor, wake;
    HANDLE pipe, thread, drain, drained;
};

/* The handle for a child; 0 or a Win32 error. Takes over the descriptor. */
DWORD open_input(struct stream *stream, int descriptor, HANDLE *child);
DWORD open_output(struct stream *stream, int descriptor, HANDLE *child);
void start_stream(struct stream *stream, BOOL output);
/* After the program's end: no more input; all it wrote has been passed on. */
void stop_input(struct stream *stream);
void drain_output(struct stream *stream);
void close_stream_record(struct stream *stream);

/* --- console.c */
struct console {
    void *signal; /* begins like Wine's own pseudo console, for PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE */
    HANDLE reference;
    HANDLE host;
};

struct console *common_console(void);
DWORD open_terminal(struct console *console, int descriptor, uint16_t columns, uint16_t rows);
DWORD open_terminal_handles(HANDLE handles[3]);
void attend_terminal(struct console *console);
DWORD resize_terminal(struct console *console, uint16_t columns, uint16_t rows);
void close_terminal(struct console *console);
void prepare_consoles(void);

/* --- environment.c */
struct environment {
    WCHAR **entries;
    uint32_t count, capacity;
};

void prepare_environment(void);
BOOL build_environment(struct environment *environment, const WCHAR *overlay);
const WCHAR *find_variable(const struct environment *environment, const WCHAR *name);
WCHAR *environment_block(const struct environment *environment);
void free_environment(struct environment *environment);

/* --- lookup.c */
struct target {
    WCHAR *file, *command;
};

DWORD find_target(struct target *target, const WCHAR *command, const WCHAR *path, const WCHAR *directory,
                  const struct environment *environment);
DWORD ensure_directory(const WCHAR *directory);

#ifndef PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE /* missing in older mingw headers */
#define PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE 0x20016
#endif
#ifndef PROC_THREAD_ATTRIBUTE_JOB_LIST
#define PROC_THREAD_ATTRIBUTE_JOB_LIST 0x2000d
#endif

/* --- program.c */
struct program {
    struct program *next;
    LONG references, signals; /* `signals`: being served */
    uint32_t flags;
    DWORD pid;
    HANDLE process, job, thread; /* `thread`: of one that is made suspended */
    struct stream input, output, error;
    struct console terminal;
};

void run_program(int socket, struct message *request, int *descriptors, int count);
/* A started program by its id, 0 meaning the main one; to be released. */
struct program *find_program(DWORD pid);
void release_program(struct program *program);

/* --- parking.c */
/* Bring a program that was made suspended to its entry point, and stop it there. */
void park_program(struct program *program);
/* The parked program goes on, with these flags besides its own. 0 or a Win32 error. */
DWORD start_parked(uint32_t flags, DWORD *pid);
/* A program that ended while it was being parked seems to be parked until it is started or ended. */
void allow_end(void);
void await_allowed_end(void);
/* Names of another length have no room in a parked program's memory. */
BOOL parked_can_have_name(const WCHAR *name);
DWORD rename_parked(const WCHAR *name);

/* --- events.c, inventory.c, registry.c, silo.c */
BOOL read_remote(HANDLE process, const void *address, void *value, size_t size);
DWORD send_event(struct program *program, DWORD event);
void answer_processes(int socket);
/* 0 or a Win32 error. */
DWORD save_registry(void);
void prepare_silo(void);
void prepare_processors(void);
void await_watch(void);
DWORD set_computer_name(const WCHAR *name);
void program_started(void);
void end_silo(uint32_t code, BOOL flush) __attribute__((noreturn));

/* --- main.c */
void *allocate(size_t size);
void release(void *memory);
WCHAR *copy_text(const WCHAR *text);
WCHAR *join_text(const WCHAR *first, const WCHAR *second, const WCHAR *third);
BOOL same_text(const WCHAR *one, const WCHAR *other, size_t length);

#endif
