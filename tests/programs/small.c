/* Ends at once; compiled for machines that a container may lack. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

int wmain(void) { return 0; }
