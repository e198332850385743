#!/bin/sh
# The first process of a Windows container becomes the launcher.
#
# Descriptors 0-2 are the main program's own and move to 5-7: Wine would make a console of a terminal found there. 3 and 4
# are the listening socket and the status pipe (docs/launcher-protocol.md).
cd "$WINEPREFIX/drive_c" || exit 125
exec "$WINELOADER" 'C:\windows\system32\silo-launcher.exe' 5<&0 6>&1 7>&2 </dev/null >/dev/null 2>&1
