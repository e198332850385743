/* The program that the contract runs in containers of both personalities: one verb and its argument.
   say TEXT | fail TEXT | exit N | sleep S | echo | burn S | eat MIB | env NAME | terminal | fork N | rest S | processors | write FILE TEXT | read FILE */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#include <windows.h>
#define wait_seconds(s) Sleep((DWORD)((s) * 1000))
#define end_with(code) ExitProcess((UINT)(code))
#else
#include <sys/wait.h>
#include <unistd.h>
#define wait_seconds(s) usleep((useconds_t)((s) * 1000000))
#define end_with(code) _exit((int)(code))
#endif

static void children(int count) {
    for (int i = 0; i < count; i++) {
#ifdef _WIN32
        char name[MAX_PATH], line[MAX_PATH + 16];
        STARTUPINFOA start = {.cb = sizeof start};
        PROCESS_INFORMATION made;
        GetModuleFileNameA(NULL, name, sizeof name);
        snprintf(line, sizeof line, "\"%s\" rest 60", name);
        if (!CreateProcessA(name, line, NULL, NULL, FALSE, 0, NULL, NULL, &start, &made)) {
            printf("made %d\n", i);
            return;
        }
#else
        int pid = fork();
        if (pid < 0) {
            printf("made %d\n", i);
            return;
        }
        if (pid == 0) {
            wait_seconds(60);
            end_with(0);
        }
#endif
    }
    printf("made %d\n", count);
}

int main(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "", *word = argc > 2 ? argv[2] : "";
    char buffer[65536];
    size_t size;
#ifdef _WIN32
    _setmode(0, _O_BINARY);
    _setmode(1, _O_BINARY);
    _setmode(2, _O_BINARY);
#endif
    setvbuf(stdout, NULL, _IONBF, 0);
    if (!strcmp(verb, "say")) {
        printf("%s\n", word);
    } else if (!strcmp(verb, "fail")) {
        fprintf(stderr, "%s\n", word);
    } else if (!strcmp(verb, "exit")) {
        end_with(strtoul(word, NULL, 0));
    } else if (!strcmp(verb, "sleep")) {
        printf("sleeping\n");
        wait_seconds(atof(word));
    } else if (!strcmp(verb, "rest")) {
        wait_seconds(atof(word)); /* without a word: a child's would mix with its parent's, letter by letter */
    } else if (!strcmp(verb, "ticks")) {
        for (int i = 0; i < atoi(word); i++) {
            printf("tick %d\n", i);
            wait_seconds(0.1);
        }
    } else if (!strcmp(verb, "echo")) {
        while ((size = fread(buffer, 1, 1, stdin)) > 0)
            fwrite(buffer, 1, size, stdout);
        printf("end of input\n");
    } else if (!strcmp(verb, "burn")) {
        volatile unsigned long long count = 0;
        printf("burning\n");
        while (atof(word) > 0)
            count++;
    } else if (!strcmp(verb, "flood")) {
        memset(buffer, 'x', sizeof buffer);
        for (int i = 0; i < atoi(word); i++)
            fwrite(buffer, 1, sizeof buffer, stdout);
    } else if (!strcmp(verb, "eat")) {
        size = (size_t)atoi(word) << 20;
        char *memory = malloc(size);
        if (!memory)
            return 9;
        for (size_t i = 0; i < size; i += 4096)
            memory[i] = 1;
        printf("eaten\n");
        wait_seconds(60);
    } else if (!strcmp(verb, "env")) {
        const char *value = getenv(word);
        printf("%s\n", value ? value : "(unset)");
    } else if (!strcmp(verb, "processors")) {
#ifdef _WIN32
        DWORD_PTR own = 0, all = 0;
        GetProcessAffinityMask(GetCurrentProcess(), &own, &all);
        printf("%llx\n", (unsigned long long)own);
        wait_seconds(atof(word));
#endif
    } else if (!strcmp(verb, "fork")) {
        children(atoi(word));
        wait_seconds(60);
    } else if (!strcmp(verb, "write") && argc > 3) {
        FILE *file = fopen(word, "wb");
        if (!file)
            return 4;
        fputs(argv[3], file);
        return fclose(file) ? 5 : 0;
    } else if (!strcmp(verb, "read")) {
        FILE *file = fopen(word, "rb");
        if (!file)
            return 4;
        while ((size = fread(buffer, 1, sizeof buffer, file)) > 0)
            fwrite(buffer, 1, size, stdout);
    } else {
        return 64;
    }
    return 0;
}
