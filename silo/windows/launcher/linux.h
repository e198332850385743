/* Linux system calls from a Windows program.
 *
 * Wine has no Win32 words for Unix sockets and descriptor passing, so the launcher makes these calls itself. Every wrapper
 * answers a value >= 0 or a negated errno, and repeats a call that one of Wine's signals interrupted.
 */
#ifndef SILO_LINUX_H
#define SILO_LINUX_H

#include <stddef.h>
#include <stdint.h>

#define LINUX_EAGAIN 11
#define LINUX_ENOTTY 25
#define LINUX_SIGTERM 15
#define LINUX_SIGCHLD 17

#define LINUX_O_RDONLY 0
#define LINUX_POLLIN 1
#define LINUX_POLLOUT 4

#define LINUX_MAX_PASSED 8

/* What a descriptor is. */
enum linux_kind { LINUX_FILE, LINUX_CHARACTER_DEVICE, LINUX_TERMINAL, LINUX_STREAM };

int linux_works(void);
int linux_pid(void);
int linux_accept(int listener);
/* One packet and its descriptors; answers the packet's true length, which may exceed `size`. */
int64_t linux_receive(int socket, void *data, size_t size, int *descriptors, int *count);
int linux_send(int socket, const void *data, size_t size);
/* 0 at the end of file. Waits also when the descriptor does not block. */
int64_t linux_read(int descriptor, void *data, size_t size);
/* The same, but answers -LINUX_EAGAIN as soon as `wake` is readable. */
int64_t linux_read_or_wake(int descriptor, int wake, void *data, size_t size);
/* Everything is written, or an error answered. */
int linux_write(int descriptor, const void *data, size_t size);
void linux_close(int descriptor);
int linux_open(const char *path);
int linux_rename(const char *from, const char *to);
int linux_unlink(const char *path);
int linux_keep_private(int descriptor);
enum linux_kind linux_kind(int descriptor);
int linux_event(void);
/* Make a terminal pass every byte unchanged, both ways. */
void linux_make_raw(int terminal);
int linux_kill(int pid, int number);
int linux_watch(int pid);
/* A negative time is for ever. */
void linux_wait_readable(int descriptor, int timeout_ms);
/* Was it, before the time was over? */
int linux_is_readable(int descriptor, int timeout_ms);
/* Let the kernel reap children: pid 1 inherits every process whose parent ended. */
void linux_ignore_children(void);
void linux_exit(int status) __attribute__((noreturn));

#endif
