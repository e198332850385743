/* Shared by the files of probe.exe: a kind of thing that one program holds and another looks for. */
#ifndef PROBE_H
#define PROBE_H

#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#include <windows.h>

struct kind {
    const char *name;
    BOOL (*hold)(const struct kind *kind);
    BOOL (*look)(const struct kind *kind);
    const WCHAR *prefix;
};

enum { NAME_CHARACTERS = 200, LOOPBACK_PORT = 41000 };

extern WCHAR token[NAME_CHARACTERS];
extern char narrow_token[NAME_CHARACTERS];
extern const struct kind linux_kinds[];

/* PREFIX + token, in a buffer that the next call overwrites. */
const WCHAR *named(const WCHAR *prefix);

#endif
